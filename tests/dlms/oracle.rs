//! Our reading of pushes against the push listener of `dlms-cosem-rs`, whose codec we use but not its ciphers.

use dlms_cosem_rs::client::{NotificationListener, SingleMeterKeys};
use dlms_cosem_rs::security::{KeyRing, RustCryptoProvider, SecurityPolicy, SecuritySuite, SystemTitle};

use super::push::{Capture, captures, events};
use weir::wire::dlms::notification::{self, Node};
use weir::wire::dlms::open;
use weir::wire::dlms::push::Event;

/// What it does not read, with the reason (docs/decisions/0013-dlms.md).
const TOO_STRICT: &[&str] = &[
    // A time with a tag of its own.
    "hdlc_kaifa_ma304h3e",
    // Descriptors without type tags.
    "raw_sagecom_xt211",
    // No tag, so its policy can't be met.
    "mbus_netz_noe_p1",
];

/// The body and time as it reads them; `None` when it refuses.
fn theirs(capture: &Capture, apdu: &[u8]) -> Option<String> {
    let sealed = open::sealed(apdu).unwrap();
    let title = sealed.and_then(|s| s.title).map_or([0; 8], |title| title.try_into().unwrap());
    let keys = || KeyRing::new(capture.encryption.unwrap_or_default(), capture.authentication.unwrap_or_default());
    let policy = if sealed.is_some() {
        SecurityPolicy::authenticated_encrypted(SecuritySuite::Suite0)
    } else {
        SecurityPolicy::NONE
    };
    let lookup = SingleMeterKeys::new(SystemTitle::new(title), keys());
    let mut listener = NotificationListener::new(RustCryptoProvider::<()>::new(keys()), lookup, policy);
    let mut buffer = vec![0; 4096];
    let found = listener.handle(apdu, &mut buffer).ok()?;
    Some(format!("{:?} {:?}", found.captured_at, Node::of(&found.body)))
}

#[test]
fn the_codecs_own_listener_reads_the_same_where_it_reads_at_all() {
    let mut compared = 0;
    let all = captures();
    for capture in &all {
        for event in events(&capture.bytes, usize::MAX) {
            let Event::Apdu(apdu) = event else { continue };
            let plain = match open::sealed(&apdu).unwrap() {
                None => apdu.clone(),
                Some(sealed) => sealed.open(&capture.keys().unwrap(), None, false).unwrap().apdu,
            };
            let ours = notification::decode(&plain).unwrap();
            let ours = format!("{:?} {:?}", ours.time, Some(ours.body));
            match theirs(capture, &apdu) {
                Some(theirs) => {
                    assert_eq!(ours, theirs, "{}", capture.name);
                    compared += 1;
                }
                None => assert!(TOO_STRICT.contains(&capture.name.as_str()), "{} is refused", capture.name),
            }
        }
    }
    assert!(all.is_empty() || compared >= 4, "only {compared} were compared");
}
