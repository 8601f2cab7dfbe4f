//! The MBAL frame that OpenlinkIQ carries: a 12-byte header, then ordinary M-Bus layers.
//!
//! EN 13757-8 holds the adaptation layer; this is its form in OpenlinkIQ. Control bits whose
//! meaning is not public are carried, never judged. The header's CRC-16 covers its first ten
//! bytes; what follows is protected by the radio's own CRC-32, which never reaches a gateway.

use super::DecodeError;
use super::wmbus::format::CRC;
use super::wmbus::{Meter, Upper, upper};

/// The bytes of the header.
pub const HEADER: usize = 12;
/// The longest frame that OpenlinkIQ can carry.
pub const LONGEST: usize = 251;

const COVERED: usize = 10;

/// An MBAL frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mbal<'a> {
    /// The control field; bit 0 marks a prioritised frame.
    pub control: u8,
    /// The sender.
    pub meter: Meter,
    /// The command field; its upper half is the link function.
    pub command: u8,
    /// The M-Bus layers, from the CI field on.
    pub mbus: &'a [u8],
}

impl<'a> Mbal<'a> {
    /// Tells whether the frame is prioritised.
    pub const fn is_priority(&self) -> bool {
        self.control & 0x01 != 0
    }

    /// The name of the link function, when it is a known one.
    pub const fn function(&self) -> Option<&'static str> {
        match self.command >> 4 {
            4 => Some("SND-NR"),
            6 => Some("SND-IR"),
            _ => None,
        }
    }

    /// The M-Bus layers, as far as they can be read without a key.
    pub fn upper(&self) -> Upper<'a> {
        upper(self.mbus, HEADER)
    }
}

/// Reads a frame.
///
/// # Errors
/// When it is shorter than 12 or longer than 251 bytes, or the header's CRC is wrong.
pub fn decode(bytes: &[u8]) -> Result<Mbal<'_>, DecodeError> {
    let length = || DecodeError::new(0, "an MBAL frame of 12 to 251 bytes", format!("{} bytes", bytes.len()));
    if bytes.len() > LONGEST {
        return Err(length());
    }
    let (&header, mbus) = bytes.split_first_chunk::<HEADER>().ok_or_else(length)?;
    let [control, m0, m1, i0, i1, i2, i3, version, device, command, high, low] = header;
    let covered = [control, m0, m1, i0, i1, i2, i3, version, device, command];
    let (expected, found) = (CRC.checksum(&covered), u16::from_be_bytes([high, low]));
    if expected != found {
        let found = format!("{found:04x} where {expected:04x} belongs");
        return Err(DecodeError::new(COVERED, "the CRC of the MBAL header", found));
    }
    Ok(Mbal { control, meter: Meter::from_wire([m0, m1, i0, i1, i2, i3, version, device]), command, mbus })
}

/// Appends a frame with its CRC.
///
/// # Errors
/// When the M-Bus layers have more than 239 bytes.
pub fn encode(frame: &Mbal<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if frame.mbus.len() > LONGEST - HEADER {
        return Err(DecodeError::new(HEADER, "at most 239 bytes", frame.mbus.len().to_string()));
    }
    let mut header = vec![frame.control];
    header.extend(frame.meter.to_wire());
    header.push(frame.command);
    out.extend_from_slice(&header);
    out.extend(CRC.checksum(&header).to_be_bytes());
    out.extend_from_slice(frame.mbus);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(control: u8, mbus: &[u8]) -> Vec<u8> {
        let meter = Meter { manufacturer: 0x2C2D, id: 0x1234_5678, version: 0x1B, device: 0x16 };
        let mut bytes = Vec::new();
        encode(&Mbal { control, meter, command: 0x60, mbus }, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_first_bit_of_the_control_field_is_the_priority_and_the_others_are_carried() {
        for (control, priority) in [(0x00, false), (0x01, true), (0xFE, false), (0x81, true)] {
            let bytes = frame(control, &[0x7A, 1, 0, 0, 0]);
            let read = decode(&bytes).unwrap();
            assert_eq!((read.control, read.is_priority(), read.function()), (control, priority, Some("SND-IR")));
        }
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_refused() {
        let mut bytes = frame(1, &[0x7A, 1, 2]);
        for bit in 0..HEADER * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn the_length_is_12_to_251_bytes() {
        assert!(decode(&frame(0, &[])).is_ok());
        assert!(decode(&frame(0, &[])[..11]).is_err());
        let mut longest = frame(0, &[0x55; 239]);
        assert!(decode(&longest).is_ok());
        longest.push(0);
        assert!(decode(&longest).is_err());
        let meter = Meter::from_wire([0; 8]);
        assert!(encode(&Mbal { control: 0, meter, command: 0, mbus: &[0; 240] }, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            control in any::<u8>(),
            address in any::<[u8; 8]>(),
            command in any::<u8>(),
            mbus in proptest::collection::vec(any::<u8>(), 0..240),
        ) {
            let written = Mbal { control, meter: Meter::from_wire(address), command, mbus: &mbus };
            let mut bytes = Vec::new();
            encode(&written, &mut bytes).unwrap();
            prop_assert_eq!(decode(&bytes), Ok(written));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..260)) {
            if let Ok(read) = decode(&bytes) {
                let _ = read.upper();
            }
        }
    }
}
