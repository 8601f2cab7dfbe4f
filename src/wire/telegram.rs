//! What a radio telegram says of itself, whatever link layer it came by.

use ring::digest::{SHA256, digest};

use super::wmbus::{LINK_HEADER, Meter, Upper};
use super::{mbal, wmbus};
use crate::model::TelegramKind;

/// The sender and the layers above the link layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The link layer.
    pub kind: TelegramKind,
    /// The sender's address in the link layer.
    pub meter: Meter,
    /// The C field of wireless M-Bus, or the command of MBAL, whose upper half is the same function.
    pub control: u8,
    /// Whether MBAL's control field has its priority bit set.
    pub priority_bit: bool,
    /// The layers above.
    pub upper: Upper<'a>,
}

/// Reads a telegram whose link layer is sound; `None` when it is not.
pub fn facts(kind: TelegramKind, bytes: &[u8]) -> Option<Facts<'_>> {
    match kind {
        TelegramKind::WirelessMbus => {
            let telegram = wmbus::decode(bytes).ok()?;
            let control = telegram.control.byte();
            Some(Facts { kind, meter: telegram.meter, control, priority_bit: false, upper: telegram.upper() })
        }
        TelegramKind::OpenlinkIq => {
            let frame = mbal::decode(bytes).ok()?;
            let priority_bit = frame.is_priority();
            Some(Facts { kind, meter: frame.meter, control: frame.command, priority_bit, upper: frame.upper() })
        }
    }
}

/// The name of a telegram: the same at every gateway that hears it, by whichever repeater.
pub type Id = [u8; 8];

/// The C field's bit that a repeater sets (EN 13757-4, 12.5.4).
const RELAYED: u8 = 0x80;
/// The bits of an ELL's control field that a repeater changes: hop and repeated (EN 13757-4, 13.2.7.2).
const HOPS: u8 = 0x12;
/// The CI fields of extended link layers whose second byte is that control field.
const EXTENDED: [u8; 5] = [0x86, 0x8C, 0x8D, 0x8E, 0x8F];

/// Makes a telegram's [`Id`]: the first eight bytes of SHA-256 over a byte for the link layer (1 wireless M-Bus, 2 MBAL) and the
/// telegram's bytes, with what a repeater changes set to zero.
pub fn id(kind: TelegramKind, bytes: &[u8]) -> Id {
    let mut plain = Vec::with_capacity(bytes.len() + 1);
    plain.push(match kind {
        TelegramKind::WirelessMbus => 1,
        TelegramKind::OpenlinkIq => 2,
    });
    plain.extend_from_slice(bytes);
    if kind == TelegramKind::WirelessMbus {
        if let Some(control) = plain.get_mut(2) {
            *control &= !RELAYED;
        }
        let extended = plain.get(1 + LINK_HEADER).is_some_and(|ci| EXTENDED.contains(ci));
        if let Some(control) = plain.get_mut(2 + LINK_HEADER).filter(|_| extended) {
            *control &= !HOPS;
        }
    }
    digest(&SHA256, &plain).as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_telegram_keeps_its_id_and_every_other_change_makes_another() {
        let plain = [15, 0x44, 0x2D, 0x2C, 1, 2, 3, 4, 5, 6, 0x8C, 0x20, 7, 0x78, 9, 9];
        let mut relayed = plain;
        (relayed[1], relayed[11]) = (0xC4, 0x32);
        let id = |bytes: &[u8]| id(TelegramKind::WirelessMbus, bytes);
        assert_eq!(id(&plain), id(&relayed));
        for at in 0..plain.len() {
            let mut other = plain;
            other[at] ^= 1;
            assert_ne!(id(&plain), id(&other), "byte {at}");
        }
        assert_ne!(id(&plain), super::id(TelegramKind::OpenlinkIq, &plain));
    }

    #[test]
    fn any_bytes_have_an_id_and_perhaps_facts() {
        for length in 0..40 {
            for kind in [TelegramKind::WirelessMbus, TelegramKind::OpenlinkIq] {
                let bytes = vec![0x8C; length];
                let _ = (id(kind, &bytes), facts(kind, &bytes));
            }
        }
    }
}
