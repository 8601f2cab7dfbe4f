//! Wireless M-Bus telegrams (EN 13757-4) as receivers give them: `L C M A CI ...`, CRCs removed.
//!
//! [`decode`] decides whether a telegram's link layer is sound (L, C, shortest length); what lies
//! above is read as far as it goes without keys and never makes a telegram invalid. Chips go through
//! [`chips`] and frames that still hold their link CRCs through [`mod@format`] first. With keys,
//! [`Telegram::open`] gives the application layer in clear text and [`records`] its values. Start
//! with [`Telegram`].

mod afl;
mod application;
pub mod chips;
mod ci;
mod control;
mod cursor;
pub mod format;
mod fragment;
mod keys;
mod layers;
mod meter;
pub mod obis;
mod security;
mod urgency;

pub use afl::Afl;
pub use application::{Content, Unread, Value, has_values, records};
pub use ci::name as ci_name;
pub use control::Control;
pub use fragment::Fragments;
pub use keys::{KeyFault, Keys, LARGEST_FILE};
pub use layers::{Ell, Tpl, TplHeader, Upper, upper};
pub use meter::Meter;
pub use security::{How, Locked, Opened, mode_name, open, open_link};
pub use urgency::{Reason, Reasons, Shown, of_values, urgency};

use super::DecodeError;
pub use super::mbus::compact::Formats;

/// A telegram with a sound link layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telegram<'a> {
    /// The C field.
    pub control: Control,
    /// The sender's address in the link layer: M and A field, in the order of the standard.
    pub meter: Meter,
    /// Everything from the first CI field on.
    pub payload: &'a [u8],
}

impl<'a> Telegram<'a> {
    /// The first CI field.
    pub fn ci(&self) -> u8 {
        self.payload.first().copied().unwrap_or(0)
    }

    /// Who sent it, as its maker means the address.
    pub fn sender(&self) -> Meter {
        self.meter.as_meant()
    }

    /// Opens its application layer.
    ///
    /// # Errors
    /// Why it can't be read; the telegram itself is still worth forwarding.
    pub fn open(&self, keys: &Keys) -> Result<Opened, Locked> {
        open(self.meter, self.payload, LINK_HEADER, keys)
    }

    /// The layers above the link layer.
    pub fn upper(&self) -> Upper<'a> {
        upper(self.payload, LINK_HEADER)
    }
}

/// The bytes of L, C, M and A.
pub const LINK_HEADER: usize = 10;

/// Reads a telegram in the normal form.
///
/// # Errors
/// When it is shorter than a link header and a CI field, L is not the number of bytes after it,
/// or the C field is none of EN 13757-4.
pub fn decode(bytes: &[u8]) -> Result<Telegram<'_>, DecodeError> {
    let short = || DecodeError::new(0, "L, C, M, A and CI fields (11 bytes)", format!("{} bytes", bytes.len()));
    let (&[length, control, m0, m1, i0, i1, i2, i3, version, device], payload) =
        bytes.split_first_chunk::<LINK_HEADER>().filter(|(_, payload)| !payload.is_empty()).ok_or_else(short)?;
    if usize::from(length) + 1 != bytes.len() {
        let found = format!("L = {length} before {} bytes", bytes.len() - 1);
        return Err(DecodeError::new(0, "an L field that counts the bytes after it", found));
    }
    let control = Control::known(control)
        .ok_or_else(|| DecodeError::new(1, "a C field of EN 13757-4", format!("{control:02x}")))?;
    Ok(Telegram { control, meter: Meter::from_wire([m0, m1, i0, i1, i2, i3, version, device]), payload })
}

/// Appends a telegram in the normal form, with L counted.
///
/// # Errors
/// When there is no payload or more than 246 bytes of it (L is one byte).
pub fn encode(telegram: &Telegram<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let length = u8::try_from(LINK_HEADER - 1 + telegram.payload.len())
        .ok()
        .filter(|_| !telegram.payload.is_empty())
        .ok_or_else(|| DecodeError::new(LINK_HEADER, "1 to 246 bytes", telegram.payload.len().to_string()))?;
    out.extend([length, telegram.control.byte()]);
    out.extend(telegram.meter.to_wire());
    out.extend_from_slice(telegram.payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOUND: [u8; 12] = [11, 0x44, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16, 0xA0, 0x01];

    #[test]
    fn a_sound_telegram_gives_its_sender_and_payload() {
        let telegram = decode(&SOUND).unwrap();
        assert_eq!(telegram.meter.to_string(), "KAM 12345678 v1b t16");
        assert_eq!((telegram.control.function(), telegram.ci(), telegram.payload.len()), ("SND-NR", 0xA0, 2));
    }

    #[test]
    fn a_wrong_length_and_an_unknown_function_are_refused_with_their_place() {
        assert_eq!(decode(&SOUND[..11]).unwrap_err().offset, 0);
        assert_eq!(decode(&[]).unwrap_err().found, "0 bytes");
        let mut longer = SOUND.to_vec();
        longer.push(0);
        assert!(decode(&longer).unwrap_err().to_string().contains("L = 11 before 12 bytes"));
        let mut unknown = SOUND;
        unknown[1] = 0x49;
        assert_eq!(decode(&unknown).unwrap_err(), DecodeError::new(1, "a C field of EN 13757-4", "49"));
        assert!(decode(&[9, 0x44, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "no CI field");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_what_is_read_is_written_back(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..260),
            mended in any::<bool>(),
        ) {
            if mended && bytes.len() > 1 {
                bytes.truncate(256);
                bytes[0] = u8::try_from(bytes.len() - 1).unwrap();
                bytes[1] = 0x44;
            }
            if let Ok(telegram) = decode(&bytes) {
                let mut again = Vec::new();
                encode(&telegram, &mut again).unwrap();
                prop_assert_eq!(again, bytes.clone());
                let _ = telegram.upper();
            }
        }
    }
}
