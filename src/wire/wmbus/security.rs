//! Opens what a meter encrypted, and proves that the key was the right one.
//!
//! What is opened here was met with recorded or published telegrams:
//!
//! | | algorithm | proof of the key | met with |
//! | --- | --- | --- | --- |
//! | extended link layer, 1 | AES-128-CTR | CRC of the payload | a Kamstrup water meter |
//! | mode 5 | AES-128-CBC | 2F 2F | recordings of 7 makers, OpenlinkIQ example 4.1 |
//! | mode 7, KDF A | AES-128-CBC, CMAC | CMAC, then 2F 2F | OpenlinkIQ example 4.2 |
//!
//! Everything else (DES of modes 2 and 3, modes 8, 9, 10, 13, mode 7 without key derivation) is refused
//! in a sentence, because nothing public proves it. Invariant: a body that is not proven to be in
//! clear text is never handed out.

use std::borrow::Cow;

use super::super::DecodeError;
use super::keys::Keys;
use super::layers::{Ell, TplHeader, Upper, upper};
use super::meter::Meter;
use crate::wire::aes::{Aes128, BLOCK, KEY, equal};

/// How a body came to be in clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// It was sent so.
    Clear,
    /// With the meter's key, which was proven right.
    Decrypted,
    /// Its header says that it is encrypted, but it is not: somebody opened it before. On the air, one
    /// encrypted body in 65,536 looks so too, so a gateway must not believe it.
    ClearAgainstHeader,
}

/// The application layer of a telegram in clear text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The meter that the values are of: that of the long header, else the link layer's, as its
    /// maker means it.
    pub meter: Meter,
    /// The CI field, which says what the body is.
    pub ci: u8,
    /// Access number, status and configuration, when they are there.
    pub header: Option<TplHeader>,
    /// How the body came to be clear.
    pub how: How,
    /// The application data.
    pub body: Vec<u8>,
}

/// Why a telegram's body can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// It is encrypted, and no line of the file of keys is for this meter.
    #[error("{0} sends encrypted and has no key; add it to keys_file")]
    NoKey(Meter),
    /// What the key opened is not what the meter sent.
    #[error("the key of {meter} is wrong: {proof}; correct it in keys_file")]
    WrongKey {
        /// The meter whose key it is.
        meter: Meter,
        /// What showed it.
        proof: &'static str,
    },
    /// This version can't open it.
    #[error("{0} is not opened by this version of weir; only forward the telegram as it is")]
    Unsupported(String),
    /// It is one of several pieces of a message; a [`super::Fragments`] joins them.
    #[error("fragment {0} of a message, which can only be read with the others")]
    Fragment(u8),
    /// Its layers are not what the standard says.
    #[error("the layers above the link can't be read: {0}")]
    Unreadable(DecodeError),
}

/// Opens the layers that begin with the first CI field; `sender` is the link layer's address in the
/// order of the standard, `offset` where the layers start, for errors.
///
/// # Errors
/// Why the body can't be read; the telegram itself is still worth forwarding.
pub fn open(sender: Meter, layers: &[u8], offset: usize, keys: &Keys) -> Result<Opened, Locked> {
    let (layers, how) = open_link(sender, layers, keys)?;
    transport(sender, &upper(&layers, offset), how, keys)
}

/// Opens the extended link layer, when there is one: all layers in clear text, and how they came to be.
///
/// # Errors
/// Why it can't be read.
pub fn open_link<'a>(sender: Meter, layers: &'a [u8], keys: &Keys) -> Result<(Cow<'a, [u8]>, How), Locked> {
    let Some(ell) = upper(layers, 0).ell.filter(|ell| ell.payload_crc_fits.is_some()) else {
        return Ok((layers.into(), How::Clear));
    };
    let fits = ell.payload_crc_fits == Some(true);
    match ell.encryption() {
        0 if fits => Ok((layers.into(), How::Clear)),
        0 => {
            let found = "one that does not fit".to_owned();
            Err(Locked::Unreadable(DecodeError::new(0, "the CRC of the payload in the extended link layer", found)))
        }
        1 => {
            let opened = with_keys(keys, sender, |key| {
                let mut opened = layers.to_vec();
                let covered = opened.get_mut(ell.length()..).unwrap_or_default();
                Aes128::new(key).ctr(counter_block(sender, ell), covered);
                let proven = upper(&opened, 0).ell.and_then(|ell| ell.payload_crc_fits) == Some(true);
                let proof = "the CRC of the payload in the extended link layer does not fit";
                if proven { Ok(opened) } else { Err(wrong_key(sender, proof)) }
            });
            match opened {
                Ok(opened) => Ok((opened.into(), How::Decrypted)),
                Err(_) if fits => Ok((layers.into(), How::ClearAgainstHeader)),
                Err(locked) => Err(locked),
            }
        }
        other => Err(Locked::Unsupported(format!("encryption {other} of the extended link layer"))),
    }
}

/// The first counter block (EN 13757-4, 13.2.12): M, A, CC without the bits a repeater changes, SN, FN, BC.
fn counter_block(sender: Meter, ell: Ell) -> [u8; BLOCK] {
    const REPEATERS: u8 = 0x12;
    let [m0, m1, a0, a1, a2, a3, a4, a5] = sender.to_wire();
    let [s0, s1, s2, s3] = ell.session.unwrap_or(0).to_le_bytes();
    [m0, m1, a0, a1, a2, a3, a4, a5, ell.control & !REPEATERS, s0, s1, s2, s3, 0, 0, 0]
}

/// Opens the transport layer; `so_far` is how the layers below came to be clear.
fn transport(sender: Meter, found: &Upper<'_>, so_far: How, keys: &Keys) -> Result<Opened, Locked> {
    if let Some(afl) = found.afl.filter(|afl| afl.fragment() > 1 || afl.more_fragments()) {
        return Err(Locked::Fragment(afl.fragment()));
    }
    if let Some(fault) = &found.fault {
        return Err(Locked::Unreadable(fault.clone()));
    }
    let Some(tpl) = &found.tpl else {
        return Err(Locked::Unreadable(DecodeError::new(0, "a transport layer", "none")));
    };
    let raw = tpl.meter.unwrap_or(sender);
    let meter = raw.as_meant();
    let done = |how, body| Opened { meter, ci: tpl.ci, header: tpl.header, how, body };
    let clear = || Ok(done(so_far, tpl.body.to_vec()));
    let Some(header) = tpl.header else { return clear() };
    match header.security_mode() {
        0 => clear(),
        // Nothing to hide: a telegram without an application layer.
        _ if tpl.body.is_empty() => clear(),
        5 => {
            let opened = mode_5(raw, header, tpl.body, keys);
            decided(opened, tpl.body).map(|(how, body)| done(how, body))
        }
        7 => {
            let (&extension, body) = tpl.body.split_first().unwrap_or((&0, &[]));
            let opened = mode_7(raw, header, extension, body, found, keys);
            decided(opened, body).map(|(how, body)| done(how, body))
        }
        mode => Err(Locked::Unsupported(format!("security mode {mode} ({})", mode_name(mode)))),
    }
}

/// What a decrypted body of either mode starts with.
const PROOF: [u8; 2] = [0x2F, 0x2F];

/// Prefers what the key opened; failing that, a body that is clear against its header.
fn decided(opened: Result<Vec<u8>, Locked>, sent: &[u8]) -> Result<(How, Vec<u8>), Locked> {
    match opened {
        Ok(body) => Ok((How::Decrypted, body)),
        Err(_) if sent.starts_with(&PROOF) => Ok((How::ClearAgainstHeader, sent.to_vec())),
        Err(locked) => Err(locked),
    }
}

/// AES-CBC with the meter's key and an initialization vector of address and access number.
fn mode_5(meter: Meter, header: TplHeader, body: &[u8], keys: &Keys) -> Result<Vec<u8>, Locked> {
    let [m0, m1, a0, a1, a2, a3, a4, a5] = meter.to_wire();
    let n = header.access;
    let iv = [m0, m1, a0, a1, a2, a3, a4, a5, n, n, n, n, n, n, n, n];
    with_keys(keys, meter, |key| decrypted(meter, &Aes128::new(key), iv, header, body))
}

/// AES-CBC with a key of this message only, and a code over the whole of it (EN 13757-7, 9.6.1).
fn mode_7(
    meter: Meter,
    header: TplHeader,
    extension: u8,
    body: &[u8],
    found: &Upper<'_>,
    keys: &Keys,
) -> Result<Vec<u8>, Locked> {
    let unsupported = |what: &str| Locked::Unsupported(format!("security mode 7 {what}"));
    if extension & 0xF0 != KDF_A {
        return Err(unsupported("with another key derivation than function A"));
    }
    let layer = found.afl.and_then(|afl| Some((afl, afl.counter?)));
    let (afl, counter) = layer.ok_or_else(|| unsupported("without a message counter"))?;
    let Some((length, true)) = afl.mac_kind().filter(|(length, _)| *length == afl.mac.len()) else {
        return Err(unsupported("without a CMAC"));
    };
    with_keys(keys, meter, |key| {
        let key = Aes128::new(key);
        let code = derived(&key, AUTHENTICATION, counter, meter).cmac(&[&afl.covered(), found.message]);
        if !code.get(..length).is_some_and(|code| equal(code, afl.mac)) {
            return Err(wrong_key(meter, "the authentication code does not fit, or the telegram was altered"));
        }
        decrypted(meter, &derived(&key, ENCRYPTION, counter, meter), [0; BLOCK], header, body)
    })
}

/// The extension of the configuration field that asks for key derivation function A; the low four
/// bits number the key.
const KDF_A: u8 = 0x10;
/// What a derived key is for, when the meter sends.
const ENCRYPTION: u8 = 0x00;
const AUTHENTICATION: u8 = 0x01;

/// Key derivation function A.
fn derived(key: &Aes128, purpose: u8, counter: u32, meter: Meter) -> Aes128 {
    let [c0, c1, c2, c3] = counter.to_le_bytes();
    let [i0, i1, i2, i3] = meter.id.to_le_bytes();
    Aes128::new(&key.cmac(&[&[purpose, c0, c1, c2, c3, i0, i1, i2, i3, 7, 7, 7, 7, 7, 7, 7]]))
}

/// Decrypts as many blocks as the configuration field says; 0 stands for all. What follows is clear.
fn decrypted(meter: Meter, key: &Aes128, iv: [u8; BLOCK], header: TplHeader, body: &[u8]) -> Result<Vec<u8>, Locked> {
    let blocks = match usize::from((header.configuration >> 4) & 0x0F) {
        0 => body.len() / BLOCK,
        some => some,
    };
    let mut opened = body.to_vec();
    let Some(covered) = opened.get_mut(..blocks * BLOCK).filter(|covered| !covered.is_empty()) else {
        let found = format!("{} bytes", body.len());
        return Err(Locked::Unreadable(DecodeError::new(0, "as many encrypted blocks as the header says", found)));
    };
    key.cbc_decrypt(iv, covered);
    if opened.starts_with(&PROOF) { Ok(opened) } else { Err(wrong_key(meter, "2F 2F is not what it opens first")) }
}

/// Tries the keys of a meter, under either reading of its address, until one is right; when none is, the first one's
/// failure counts.
fn with_keys<T>(keys: &Keys, meter: Meter, attempt: impl Fn(&[u8; KEY]) -> Result<T, Locked>) -> Result<T, Locked> {
    let mut tried: Vec<&[u8; KEY]> = Vec::new();
    let mut first = None;
    for key in keys.of(meter.as_meant()).chain(keys.of(meter)) {
        if tried.contains(&key) {
            continue;
        }
        tried.push(key);
        match attempt(key) {
            Err(locked @ Locked::WrongKey { .. }) => first = first.or(Some(locked)),
            decided => return decided,
        }
    }
    Err(first.unwrap_or_else(|| no_key(meter)))
}

fn no_key(meter: Meter) -> Locked {
    Locked::NoKey(meter.as_meant())
}

fn wrong_key(meter: Meter, proof: &'static str) -> Locked {
    Locked::WrongKey { meter: meter.as_meant(), proof }
}

/// What a security mode is, in a few words (EN 13757-7, 7.6.3).
pub const fn mode_name(mode: u8) -> &'static str {
    match mode {
        0 => "none",
        2 | 3 => "DES-CBC, old",
        5 => "AES-128-CBC",
        7 => "AES-128-CBC with a derived key",
        8 => "AES-128-CTR with CMAC",
        9 => "AES-128-GCM",
        10 => "AES-128-CCM",
        13 => "TLS",
        _ => "reserved or manufacturer specific",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::format::CRC;
    use super::*;

    const KEY_1: [u8; KEY] = [1; KEY];
    const TEXT: &[u8] = &[0x2F, 0x2F, 0x0C, 0x13, 1, 2, 3, 4, 0x2F, 0x2F, 0x2F, 0x2F, 0x2F, 0x2F, 0x2F, 0x2F];

    fn sender() -> Meter {
        Meter::from_wire([0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16])
    }

    /// One encrypted block, then three bytes in clear text.
    fn mode_5_layers() -> Vec<u8> {
        let mut body = TEXT.to_vec();
        let iv = [0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16, 9, 9, 9, 9, 9, 9, 9, 9];
        Aes128::new(&KEY_1).cbc_encrypt(iv, &mut body);
        [&[0x7A, 9, 0, 0x10, 0x05], &body[..], &[0x01, 0xFD, 0x17]].concat()
    }

    fn link_layers(payload: &[u8]) -> Vec<u8> {
        let mut covered = CRC.checksum(payload).to_le_bytes().to_vec();
        covered.extend(payload);
        let counter = [0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16, 0x20, 1, 2, 3, 0x20, 0, 0, 0];
        Aes128::new(&KEY_1).ctr(counter, &mut covered);
        [&[0x8D, 0x32, 7, 1, 2, 3, 0x20], &covered[..]].concat()
    }

    fn mode_7_layers() -> Vec<u8> {
        let key = Aes128::new(&KEY_1);
        let derived = |purpose| Aes128::new(&key.cmac(&[&[purpose, 5, 0, 0, 0, 0x78, 0x56, 0x34, 0x12], &[7; 7]]));
        let mut body = TEXT.to_vec();
        derived(0).cbc_encrypt([0; BLOCK], &mut body);
        let message = [&[0x7A, 9, 0, 0x10, 0x07, 0x10], &body[..]].concat();
        let mac = derived(1).cmac(&[&[0x25, 5, 0, 0, 0], &message]);
        [&[0x90, 15, 0, 0x2C, 0x25, 5, 0, 0, 0], &mac[..8], &message].concat()
    }

    fn opened(layers: &[u8], keys: &Keys) -> Result<(How, Vec<u8>), Locked> {
        open(sender(), layers, 10, keys).map(|opened| (opened.how, opened.body))
    }

    #[test]
    fn each_proven_way_opens_with_the_key_and_not_with_another_or_none() {
        let with_tail = [TEXT, &[0x01, 0xFD, 0x17]].concat();
        let cases = [
            (mode_5_layers(), with_tail.clone()),
            (mode_7_layers(), TEXT.to_vec()),
            (link_layers(&[&[0x78], &with_tail[..]].concat()), with_tail),
        ];
        for (layers, text) in cases {
            assert_eq!(opened(&layers, &Keys::for_any(KEY_1)), Ok((How::Decrypted, text)));
            assert!(matches!(opened(&layers, &Keys::for_any([2; KEY])), Err(Locked::WrongKey { .. })));
            assert_eq!(opened(&layers, &Keys::none()), Err(Locked::NoKey(sender())));
        }
    }

    #[test]
    fn a_repeaters_bits_in_the_control_field_do_not_change_the_key_stream() {
        let mut layers = link_layers(&[0x78, 1, 2, 3]);
        for control in [0x20, 0x22, 0x30, 0x32] {
            layers[1] = control;
            assert!(opened(&layers, &Keys::for_any(KEY_1)).is_ok(), "{control:02x}");
        }
        layers[1] = 0x28;
        assert!(opened(&layers, &Keys::for_any(KEY_1)).is_err());
    }

    #[test]
    fn one_changed_bit_of_an_authenticated_message_opens_nothing() {
        let layers = mode_7_layers();
        // Behind the lengths and flags that say what is there; another CI field is another message.
        const CI: usize = 17;
        for bit in (4 * 8..layers.len() * 8).filter(|bit| bit / 8 != CI) {
            let mut changed = layers.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&changed, &Keys::for_any(KEY_1)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_not_proven_is_refused_in_a_sentence() {
        for (mode, word) in [(2, "DES"), (8, "CTR"), (9, "GCM"), (10, "CCM"), (13, "TLS"), (24, "reserved")] {
            let told = opened(&[0x7A, 1, 0, 0, mode, 1, 2, 3], &Keys::for_any(KEY_1)).unwrap_err();
            assert!(told.to_string().contains(word) && told.to_string().contains("not opened"), "{told}");
        }
        let mut persistent = mode_7_layers();
        persistent[22] = 0x00;
        assert!(opened(&persistent, &Keys::for_any(KEY_1)).unwrap_err().to_string().contains("derivation"));
        let bare = mode_7_layers().split_off(17);
        assert!(opened(&bare, &Keys::for_any(KEY_1)).unwrap_err().to_string().contains("counter"));
        let other = [0x8D, 0, 0, 0, 0, 0, 0x60, 0, 0, 0x78];
        assert!(opened(&other, &Keys::for_any(KEY_1)).unwrap_err().to_string().contains("encryption 3"));
    }

    #[test]
    fn clear_bodies_need_no_key_and_those_clear_against_their_header_say_so() {
        let clear = opened(&[0x7A, 9, 0, 0, 0, 1, 2], &Keys::none());
        assert_eq!(clear, Ok((How::Clear, vec![1, 2])));
        assert_eq!(opened(&[0x7A, 9, 0, 0x10, 0x05], &Keys::none()), Ok((How::Clear, vec![])));
        let opened_before = [&[0x7A, 9, 0, 0x10, 0x05], TEXT].concat();
        for keys in [Keys::none(), Keys::for_any(KEY_1)] {
            assert_eq!(opened(&opened_before, &keys), Ok((How::ClearAgainstHeader, TEXT.to_vec())));
        }
        let short = opened(&[0x7A, 9, 0, 0x20, 0x05, 1, 2], &Keys::for_any(KEY_1));
        assert!(matches!(short, Err(Locked::Unreadable(_))));
    }

    #[test]
    fn a_long_headers_meter_owns_the_key_and_its_address_is_in_the_vector() {
        let own = Meter::from_wire([0xA5, 0x11, 0x26, 0x75, 0x66, 0x54, 0x70, 0x07]);
        let mut body = TEXT.to_vec();
        Aes128::new(&KEY_1)
            .cbc_encrypt([0xA5, 0x11, 0x26, 0x75, 0x66, 0x54, 0x70, 0x07, 9, 9, 9, 9, 9, 9, 9, 9], &mut body);
        let long = [&[0x72, 0x26, 0x75, 0x66, 0x54, 0xA5, 0x11, 0x70, 0x07, 9, 0, 0, 0x05], &body[..]].concat();
        let (keys, _) = Keys::parse("54667526.DME.70.07 = 01010101010101010101010101010101");
        let found = open(sender(), &long, 10, &keys).unwrap();
        assert_eq!((found.meter, found.how, found.body), (own, How::Decrypted, TEXT.to_vec()));
    }

    proptest! {
        #[test]
        fn any_layers_are_opened_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
            first in prop::sample::select(vec![0x72, 0x7A, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x78, 0xA0]),
            mode in prop::sample::select(vec![0, 5, 7, 0x25]),
        ) {
            bytes.insert(0, first);
            if let Some(place) = bytes.get_mut(4) {
                *place = mode;
            }
            for keys in [Keys::none(), Keys::for_any(KEY_1)] {
                if let Ok(opened) = open(sender(), &bytes, 10, &keys) {
                    prop_assert!(opened.body.len() < bytes.len());
                }
            }
        }
    }
}
