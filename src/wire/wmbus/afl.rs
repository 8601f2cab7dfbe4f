//! The authentication and fragmentation layer (EN 13757-7, clause 6).

use super::super::DecodeError;
use super::cursor::Cursor;

/// The fields of the layer that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Afl<'a> {
    /// The fragmentation control field.
    pub control: u16,
    /// The message control field, when there is one.
    pub message_control: Option<u8>,
    /// The key information field as it stands, when there is one.
    pub key_information: Option<[u8; 2]>,
    /// The message counter, when there is one.
    pub counter: Option<u32>,
    /// The message authentication code; empty when there is none.
    pub mac: &'a [u8],
    /// The length of the whole message, when there is one.
    pub message_length: Option<u16>,
}

impl<'a> Afl<'a> {
    const MORE_FRAGMENTS: u16 = 0x4000;
    const MESSAGE_CONTROL: u16 = 0x2000;
    const MESSAGE_LENGTH: u16 = 0x1000;
    const MESSAGE_COUNTER: u16 = 0x0800;
    const MAC: u16 = 0x0400;
    const KEY_INFORMATION: u16 = 0x0200;

    /// Tells whether the message goes on in another telegram.
    pub const fn more_fragments(self) -> bool {
        self.control & Self::MORE_FRAGMENTS != 0
    }

    /// The number of this fragment; 0 when the message is not fragmented.
    pub const fn fragment(self) -> u8 {
        self.control.to_le_bytes()[0]
    }

    /// The bytes of the code that the message control field announces; `None` when it announces none
    /// or a kind that is not known. The second says whether it is a CMAC (else a GMAC).
    pub const fn mac_kind(self) -> Option<(usize, bool)> {
        match self.message_control {
            Some(control) => mac_kind(control),
            None => None,
        }
    }

    /// What the code covers in front of the message: MCL, KI, MCR and ML, those that are there.
    pub(super) fn covered(self) -> Vec<u8> {
        let mut covered = Vec::with_capacity(9);
        covered.extend(self.message_control);
        covered.extend(self.key_information.iter().flatten());
        covered.extend(self.counter.map(u32::to_le_bytes).iter().flatten());
        covered.extend(self.message_length.map(u16::to_le_bytes).iter().flatten());
        covered
    }

    /// The layer as it would stand before the message in one piece, its CI field and length included.
    pub(super) fn whole(self) -> Vec<u8> {
        let flag = |there: bool, bit: u16| if there { bit } else { 0 };
        let control = flag(self.message_control.is_some(), Self::MESSAGE_CONTROL)
            | flag(self.key_information.is_some(), Self::KEY_INFORMATION)
            | flag(self.counter.is_some(), Self::MESSAGE_COUNTER)
            | flag(!self.mac.is_empty(), Self::MAC)
            | flag(self.message_length.is_some(), Self::MESSAGE_LENGTH);
        let mut fields = control.to_le_bytes().to_vec();
        fields.extend(self.message_control);
        fields.extend(self.key_information.iter().flatten());
        fields.extend(self.counter.map(u32::to_le_bytes).iter().flatten());
        fields.extend(self.mac);
        fields.extend(self.message_length.map(u16::to_le_bytes).iter().flatten());
        let length = u8::try_from(fields.len()).unwrap_or(u8::MAX);
        [&[super::ci::AUTHENTICATION, length][..], &fields].concat()
    }

    /// Reads the layer behind its CI field.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let length = usize::from(cursor.byte("the authentication layer's length")?);
        let fields = cursor.take(length, "the authentication layer")?;
        let mut inner = Cursor { rest: fields, offset: cursor.offset.saturating_sub(length) };
        let control = u16::from_le_bytes(*inner.array::<2>("the fragmentation control field")?);
        let has = |bit: u16| control & bit != 0;
        let message_control =
            has(Self::MESSAGE_CONTROL).then(|| inner.byte("the message control field")).transpose()?;
        let key_information =
            has(Self::KEY_INFORMATION).then(|| inner.array::<2>("the key information field").copied()).transpose()?;
        let counter = has(Self::MESSAGE_COUNTER)
            .then(|| inner.array::<4>("the message counter").map(|bytes| u32::from_le_bytes(*bytes)))
            .transpose()?;
        let mac = if has(Self::MAC) {
            // Of a kind that is not known, the code is what stands between the other fields.
            let behind = if has(Self::MESSAGE_LENGTH) { 2 } else { 0 };
            let length = message_control.and_then(mac_kind).map(|(length, _)| length);
            inner.take(length.unwrap_or(inner.rest.len().saturating_sub(behind)), "the authentication code")?
        } else {
            &[]
        };
        let message_length = has(Self::MESSAGE_LENGTH)
            .then(|| inner.array::<2>("the message's length").map(|bytes| u16::from_le_bytes(*bytes)))
            .transpose()?;
        Ok(Self { control, message_control, key_information, counter, mac, message_length })
    }
}

/// The length of the code and whether it is a CMAC, by the message control field.
const fn mac_kind(message_control: u8) -> Option<(usize, bool)> {
    match message_control & 0x0F {
        3 => Some((2, true)),
        4 => Some((4, true)),
        5 => Some((8, true)),
        6 => Some((12, true)),
        7 => Some((16, true)),
        8 => Some((12, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Afl<'_>, DecodeError> {
        Afl::read(&mut Cursor { rest: bytes, offset: 11 })
    }

    #[test]
    fn every_field_is_found_in_its_place() {
        let bytes = [0x0D, 0x00, 0x3E, 0x23, 7, 8, 1, 0, 0, 0, 0xAA, 0xBB, 0x2C, 0x01];
        let afl = read(&bytes).unwrap();
        assert_eq!((afl.message_control, afl.key_information), (Some(0x23), Some([7, 8])));
        assert_eq!((afl.counter, afl.mac, afl.message_length), (Some(1), &[0xAA, 0xBB][..], Some(300)));
        assert_eq!(afl.mac_kind(), Some((2, true)));
        assert_eq!(afl.covered(), [0x23, 7, 8, 1, 0, 0, 0, 0x2C, 0x01]);
        assert_eq!(afl.whole()[1..], bytes);
    }

    #[test]
    fn a_layer_shorter_than_its_fields_is_refused() {
        assert!(read(&[0x06, 0x00, 0x24, 0x25, 1, 2, 3]).is_err());
        assert!(read(&[0x01, 0x00]).is_err());
        assert_eq!(read(&[0x02, 0x02, 0x40]).map(|a| (a.fragment(), a.more_fragments())), Ok((2, true)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(afl) = read(&bytes) {
                let whole = afl.whole();
                let again = read(&whole[1..]).unwrap();
                prop_assert_eq!(again.covered(), afl.covered());
                prop_assert_eq!((again.mac, again.fragment()), (afl.mac, 0));
            }
        }
    }
}
