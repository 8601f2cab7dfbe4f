//! APDUs of DLMS: read, put together from blocks, opened and proven.

use weir::wire::dlms::auth::Handshake;
use weir::wire::dlms::blocks::{Incoming, Outgoing, Step};
use weir::wire::dlms::entry::Finder;
use weir::wire::dlms::open::{self, seal};
use weir::wire::dlms::protect::{self, Form, KeyName, Suite};
use weir::wire::dlms::secret::Secret;
use weir::wire::dlms::wrap::KeyEncryptionKey;
use weir::wire::dlms::{
    Aare, Aarq, Apdu, AuthMechanism, Data, Decode, Encode, GeneralBlockTransfer, Rlre, Rlrq, SecurityControl, decode,
    encode, notification,
};

use super::stream::How;

pub(super) const TITLE: [u8; 8] = *b"FUZ\0\0\0\0\x01";

/// What was read is written, and read again as the same: compared as bytes, as values may be shorter in one of their forms.
fn again<'a, T: Decode<'a> + Encode>(bytes: &'a [u8]) -> Option<Vec<u8>> {
    let (item, rest) = decode::<T>(bytes).ok()?;
    assert!(rest.len() <= bytes.len());
    encode(&item).ok()
}

macro_rules! canonical {
    ($kind:ty, $bytes:expr) => {
        if let Some(written) = again::<$kind>($bytes) {
            let twice = again::<$kind>(&written);
            assert_eq!(twice.as_deref(), Some(written.as_slice()), "{} of {:02x?}", stringify!($kind), $bytes);
        }
    };
}

pub fn apdu(how: How, bytes: &[u8]) {
    match how.choice % 6 {
        0 => canonical!(Apdu<'_>, bytes),
        1 => canonical!(Data<'_>, bytes),
        2 => canonical!(Aarq<'_>, bytes),
        3 => canonical!(Aare<'_>, bytes),
        4 => canonical!(Rlrq<'_>, bytes),
        _ => canonical!(Rlre<'_>, bytes),
    }
}

pub fn notification(how: How, bytes: &[u8]) {
    let mut finder = Finder::new();
    // The list of a push before may name the values of this one.
    let (first, rest) = bytes.split_at(if how.flag(0) { usize::from(how.cuts).min(bytes.len()) } else { 0 });
    for bytes in [first, rest] {
        let Ok(found) = notification::decode(bytes) else { continue };
        assert!(found.left <= bytes.len());
        let entries = finder.entries(&found);
        assert!(entries.len() <= bytes.len(), "{} values of {} bytes", entries.len(), bytes.len());
        for entry in &entries {
            assert!(!entry.name.to_string().is_empty());
            assert!(entry.text().map_or(0, |text| text.len()) <= 256 + 64 * bytes.len());
            let _ = (entry.unit(), entry.is_null(), entry.time);
        }
    }
}

/// A block each behind its length; then the bytes themselves in blocks that get lost as the choice decides.
pub fn blocks(how: How, bytes: &[u8]) {
    let mut incoming = Incoming::new();
    let mut rest = bytes;
    while let Some((&length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(behind.len().min(length.into()));
        rest = behind;
        let Ok((block, _)) = decode::<GeneralBlockTransfer<'_>>(block) else { continue };
        if let Ok(Step::Whole(apdu)) = incoming.push(&block) {
            assert!(apdu.len() <= bytes.len());
        }
        assert!(incoming.acknowledgement().first() == Some(&0xE0));
    }
    let longest = 10 + usize::from(how.cuts);
    let Some(mut outgoing) = Outgoing::new(bytes, longest) else { return };
    let mut incoming = Incoming::new();
    let mut losses = u32::from(how.choice);
    // A window of eight at least comes through once the losses are over.
    for _ in 0..bytes.len() + 40 {
        while let Some(block) = outgoing.next_block() {
            assert!(block.len() <= longest);
            let lost = losses & 1 != 0;
            losses >>= 1;
            if lost {
                continue;
            }
            let (block, _) = decode::<GeneralBlockTransfer<'_>>(&block[1..]).expect("it was made so");
            if let Ok(Step::Whole(apdu)) = incoming.push(&block) {
                assert_eq!(apdu, bytes);
                return;
            }
        }
        assert!(outgoing.acknowledge(incoming.acknowledged(), 8));
    }
    panic!("{} bytes did not come through in blocks of {longest}", bytes.len());
}

/// Sealed, then opened: the same; the bytes themselves under the same keys: refused or opened, never more than they are.
pub fn open(how: How, bytes: &[u8]) {
    let keys = open::Keys::of(&[how.choice; 16], how.flag(0).then_some(&[2; 16])).expect("they are keys");
    if let Ok(Some(length)) = open::length(bytes) {
        assert!(length > 0);
    }
    if let Ok(Some(sealed)) = open::sealed(bytes) {
        for (title, untagged) in [(None, false), (Some(TITLE), true)] {
            if let Ok(opened) = sealed.open(&keys, title, untagged) {
                assert!(opened.apdu.len() <= bytes.len() && (untagged || opened.verified || !keys.verifies()));
            }
        }
    }
    let Some(made) = seal(&keys, TITLE, how.pick(&[0x30, 0x20]), how.cuts.into(), bytes) else { return };
    assert_eq!(open::length(&made), Ok(Some(made.len())));
    let sealed = open::sealed(&made).expect("it was made so").expect("it is sealed");
    let opened = sealed.open(&keys, None, true).expect("it was sealed with these keys");
    assert_eq!(opened.apdu, bytes);
}

fn secret(byte: u8, length: usize) -> Secret {
    Secret::new(vec![byte; length])
}

fn keys(suite: Suite) -> protect::Keys {
    let secret = |byte| secret(byte, suite.key_length());
    let mut keys = protect::Keys::new(suite, &secret(1), Some(secret(2))).expect("they are keys");
    keys.set_broadcast(&secret(4)).expect("it is a key");
    keys.set_dedicated(Some(&secret(5))).expect("it is a key");
    keys.set_master(KeyEncryptionKey::new(&secret(3)).expect("it is a key"));
    keys
}

pub fn protect(how: How, bytes: &[u8]) {
    let suite = Suite::new(how.choice % 3).expect("there is such a suite");
    let keys = keys(suite);
    if let Ok(opened) = keys.unprotect(bytes, Some(TITLE)) {
        assert!(opened.plain.len() <= bytes.len() && protect::is_ciphered(bytes));
    }
    let name = how.pick(&[KeyName::Global, KeyName::Global, KeyName::Dedicated]);
    let form = if how.flag(4) { Form::Service } else { Form::General };
    let control = SecurityControl::new(suite.number(), how.flag(5), how.flag(6));
    let made = keys.protect(bytes, &protect::How { form, name, control, title: TITLE }, how.cuts.into());
    let Ok(made) = made else {
        assert_eq!(form, Form::Service, "everything has a general form");
        return;
    };
    let opened = keys.unprotect(&made, Some(TITLE)).expect("it was protected with these keys");
    assert_eq!((opened.plain.as_slice(), opened.title, opened.name), (bytes, TITLE, name));
    // A changed byte is never believed where a tag vouches.
    if control.authenticated()
        && let Some(at) = made.len().checked_sub(1 + usize::from(how.cuts) % 12)
    {
        let mut changed = made;
        changed[at] ^= 1;
        assert!(keys.unprotect(&changed, Some(TITLE)).is_err());
    }
}

pub fn wrap(how: How, bytes: &[u8]) {
    let master = KeyEncryptionKey::new(&secret(how.cuts, if how.flag(0) { 32 } else { 16 })).expect("it is a key");
    if let Some(key) = master.unwrap(bytes) {
        assert_eq!(master.wrap(&key).as_deref(), Some(bytes));
    }
    let whole = bytes.len() / 8 * 8;
    let key = Secret::new(bytes[..whole].to_vec());
    let Some(wrapped) = master.wrap(&key) else { return };
    assert_eq!(wrapped.len(), whole + 8);
    assert_eq!(master.unwrap(&wrapped), Some(key));
}

/// Both challenges and an answer out of the bytes; the right answer always proves, any other never.
pub fn auth(how: How, bytes: &[u8]) {
    let (to_server, rest) = bytes.split_at(bytes.len() / 3);
    let (to_client, answer) = rest.split_at(rest.len() / 2);
    let secret = Secret::new(vec![how.cuts; usize::from(how.cuts) % 40]);
    let mechanisms = [
        AuthMechanism::HighManufacturer,
        AuthMechanism::HighMd5,
        AuthMechanism::HighSha1,
        AuthMechanism::HighGmac,
        AuthMechanism::HighSha256,
        AuthMechanism::HighEcdsa,
    ];
    let keys = keys(Suite::new(0).expect("there is such a suite"));
    let other = *b"FUZ\0\0\0\0\x02";
    let client = Handshake {
        mechanism: how.pick(&mechanisms),
        secret: &secret,
        keys: Some(&keys),
        client: TITLE,
        server: Some(other),
        to_server,
        to_client,
    };
    // The other side sees everything the other way round.
    let server = Handshake { client: other, server: Some(TITLE), to_server: to_client, to_client: to_server, ..client };
    if let (Ok(ours), Ok(theirs)) = (client.answer(7), server.answer(8)) {
        assert_eq!((client.proves(&theirs), server.proves(&ours)), (Ok(true), Ok(true)));
        if answer != theirs {
            assert_eq!(client.proves(answer), Ok(false));
        }
    }
    let _ = client.proves(answer);
}
