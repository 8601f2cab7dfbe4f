//! Ciphered pushes of real meters (esphome-libs/dlms_parser): what their tags vouch for opens, and nothing else.

use std::path::PathBuf;

use weir::wire::dlms::blocks::{Incoming, Step};
use weir::wire::dlms::hdlc::{Decoder, Event, LLC_RESPONSE};
use weir::wire::dlms::protect::{Fault, Keys, Receiver, Suite};
use weir::wire::dlms::secret::Secret;
use weir::wire::dlms::{GeneralBlockTransfer, SecurityControl, decode};

fn file(name: &str) -> Option<Vec<u8>> {
    let given = std::env::var_os("WEIR_DATA").map(PathBuf::from);
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data"));
    let folders = given.into_iter().chain([beside, PathBuf::from("/work/shared/data")]);
    let found = folders.map(|folder| folder.join("dlms-push").join(name)).find_map(|path| std::fs::read(path).ok());
    if found.is_none() {
        eprintln!("{name} is not here: set WEIR_DATA to the folder of recordings to have it tested");
    }
    found
}

fn hex(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_hexdigit).collect();
    data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).unwrap()
}

/// The APDU of a capture, put together of its frames and blocks.
fn apdu(capture: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new();
    decoder.push(capture);
    let (mut whole, mut incoming) = (Vec::new(), Incoming::new());
    while let Some(event) = decoder.next() {
        let Event::Frame(frame) = event else { continue };
        let information = frame.information;
        whole.extend_from_slice(information.strip_prefix(&LLC_RESPONSE).unwrap_or(&information));
        if frame.segmented {
            continue;
        }
        let [0xE0, rest @ ..] = whole.as_slice() else { return whole };
        let (block, _) = decode::<GeneralBlockTransfer<'_>>(rest).unwrap();
        if let Step::Whole(apdu) = incoming.push(&block).unwrap() {
            return apdu;
        }
        whole.clear();
    }
    panic!("the capture holds no whole APDU");
}

#[test]
fn ciphered_pushes_of_two_makes_open_with_their_tags_verified() {
    for name in ["hdlc_kamstrup_omnipower", "hdlc_landis_gyr_e450"] {
        let part = |kind: &str| file(&format!("{name}.{kind}"));
        let (Some(log), Some(key), Some(authentication)) = (part("log"), part("key"), part("gak")) else { return };
        let apdu = apdu(&hex(&log));
        let suite = Suite::new(0).unwrap();
        let keys = |authentication: Vec<u8>| {
            Keys::new(suite, &Secret::new(hex(&key)), Some(Secret::new(authentication))).unwrap()
        };
        let opened = keys(hex(&authentication)).unprotect(&apdu, None).unwrap();
        assert_eq!(opened.plain[0], 0x0F, "{name}: a data-notification");
        let mut receiver = Receiver::new(SecurityControl(0x30), *b"WEIRWEIR");
        assert!(receiver.take(opened.clone()).is_ok());
        assert_eq!(receiver.take(opened), Err(Fault::Replay));
        assert_eq!(keys(vec![0; 16]).unprotect(&apdu, None), Err(Fault::WrongTag), "{name}");
    }
}
