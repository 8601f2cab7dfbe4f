//! Who sent it: manufacturer, identification number, version and device type.

use std::fmt;

/// A meter's address as the link layer and the MBAL header carry it (EN 13757-7, 7.5.2 ff.).
///
/// State about a meter must be kept under all four fields: the number alone is not unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter {
    /// The M field as a number; three letters of five bits, bit 15 = not globally unique.
    pub manufacturer: u16,
    /// The identification number as its hex digits read: 0x12341234 is 12341234.
    pub id: u32,
    /// The version (generation) of the device.
    pub version: u8,
    /// The device type.
    pub device: u8,
}

impl Meter {
    /// Bit 15 of the M field: the address is not unique world-wide.
    pub(super) const LOCAL: u16 = 0x8000;

    /// The bytes of M field and address, in the order of the wire.
    pub const LENGTH: usize = 8;

    /// Reads M(2) id(4) version(1) type(1), multi-byte fields little endian.
    pub const fn from_wire(bytes: [u8; Self::LENGTH]) -> Self {
        let [m0, m1, i0, i1, i2, i3, version, device] = bytes;
        Self { manufacturer: u16::from_le_bytes([m0, m1]), id: u32::from_le_bytes([i0, i1, i2, i3]), version, device }
    }

    /// Writes what [`Self::from_wire`] reads.
    pub const fn to_wire(self) -> [u8; Self::LENGTH] {
        let [m0, m1] = self.manufacturer.to_le_bytes();
        let [i0, i1, i2, i3] = self.id.to_le_bytes();
        [m0, m1, i0, i1, i2, i3, self.version, self.device]
    }

    /// The same address as its maker means it: some meters of Diehl (HYD, DME) send version and type
    /// before the number.
    pub fn as_meant(self) -> Self {
        let [m0, m1, version, device, i0, i1, i2, i3] = self.to_wire();
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let turned = Self { manufacturer: u16::from_le_bytes([m0, m1]), id, version, device };
        if TURNED.iter().any(|rule| rule.fits(turned)) { turned } else { self }
    }

    /// Codes three letters A-Z into an M field; `None` for anything else.
    pub fn manufacturer_code(letters: &str) -> Option<u16> {
        let [a, b, c] = letters.as_bytes() else { return None };
        [a, b, c].into_iter().try_fold(0u16, |code, letter| {
            letter.is_ascii_uppercase().then(|| (code << 5) | u16::from(letter.wrapping_sub(b'@')))
        })
    }

    /// The manufacturer's three letters. Codes that are no letter come as the character of the
    /// same rule (`@ [ \ ] ^ _`), so that every field prints.
    pub fn letters(self) -> String {
        let letter = |shift: u16| char::from(b'@' + u8::try_from((self.manufacturer >> shift) & 0x1F).unwrap_or(0));
        [letter(10), letter(5), letter(0)].into_iter().collect()
    }

    /// Tells whether the address is unique world-wide (bit 15 of the M field is clear).
    pub const fn is_globally_unique(self) -> bool {
        self.manufacturer & Self::LOCAL == 0
    }

    /// The identification number as eight digits; makers also use A to F.
    pub fn number(self) -> String {
        format!("{:08x}", self.id)
    }

    /// What kind of device it says it is (EN 13757-7, table of device types), when that is known.
    pub const fn device_name(self) -> Option<&'static str> {
        Some(match self.device {
            0x00 => "other",
            0x01 => "oil",
            0x02 => "electricity",
            0x03 => "gas",
            0x04 => "heat (return)",
            0x05 => "steam",
            0x06 => "warm water",
            0x07 => "water",
            0x08 => "heat cost allocator",
            0x09 => "compressed air",
            0x0A => "cooling (return)",
            0x0B => "cooling (flow)",
            0x0C => "heat (flow)",
            0x0D => "heat and cooling",
            0x0E => "bus or system",
            0x0F => "unknown",
            0x14 => "calorific value",
            0x15 => "hot water",
            0x16 => "cold water",
            0x17 => "hot and cold water",
            0x18 => "pressure",
            0x19 => "A/D converter",
            0x1A => "smoke detector",
            0x1B => "room sensor",
            0x1C => "gas detector",
            0x20 => "breaker (electricity)",
            0x21 => "valve (gas or water)",
            0x25 => "customer unit (display)",
            0x28 => "waste water",
            0x29 => "garbage",
            0x2A => "carbon dioxide",
            0x31 => "communication controller",
            0x32 => "repeater (one way)",
            0x33 => "repeater (both ways)",
            0x36 => "radio converter (system side)",
            0x37 => "radio converter (meter side)",
            _ => return None,
        })
    }
}

/// Which turned addresses are believed.
struct Turned {
    maker: [u8; 3],
    device: u8,
    versions: &'static [u8],
    /// The first number and the one behind the last, as they read.
    numbers: &'static [(u32, u32)],
}

const ALL: &[(u32, u32)] = &[(0, 0xA000_0000)];
/// The numbers of those Sharky 775 that send turned addresses; later ones do not.
const SHARKY: &[(u32, u32)] = &[(0x4400_0000, 0x4835_0000), (0x5120_0000, 0x5127_3000)];

/// Types and versions of Diehl's meters that are known to turn their address.
const TURNED: &[Turned] = &[
    Turned { maker: *b"HYD", device: 0x04, versions: &[0x20], numbers: SHARKY },
    Turned { maker: *b"HYD", device: 0x0C, versions: &[0x20], numbers: SHARKY },
    Turned { maker: *b"HYD", device: 0x04, versions: &[0x2A, 0x2B, 0x2E, 0x2F], numbers: ALL },
    Turned { maker: *b"HYD", device: 0x06, versions: &[0x8B], numbers: ALL },
    Turned { maker: *b"HYD", device: 0x07, versions: &[0x85, 0x86, 0x8B], numbers: ALL },
    Turned { maker: *b"HYD", device: 0x0C, versions: &[0x2E, 0x2F, 0x53], numbers: ALL },
    Turned { maker: *b"HYD", device: 0x16, versions: &[0x25], numbers: ALL },
    Turned { maker: *b"DME", device: 0x07, versions: &[0x78], numbers: ALL },
];

impl Turned {
    fn fits(&self, meter: Meter) -> bool {
        let decimal = (0..8).all(|digit| (meter.id >> (digit * 4)) & 0xF <= 9);
        meter.device == self.device
            && self.versions.contains(&meter.version)
            && decimal
            && self.numbers.iter().any(|(first, end)| (*first..*end).contains(&meter.id))
            && meter.letters().as_bytes() == self.maker
    }
}

impl fmt::Display for Meter {
    /// Writes `KAM 12341234 v1b t16`: manufacturer, number, version, type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} v{:02x} t{:02x}", self.letters(), self.number(), self.version, self.device)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_manufacturer_is_three_letters_of_five_bits() {
        let meter = Meter::from_wire([0x2D, 0x2C, 0x34, 0x12, 0x34, 0x12, 0x1B, 0x16]);
        assert_eq!(meter.to_string(), "KAM 12341234 v1b t16");
        assert_eq!(meter.device_name(), Some("cold water"));
        assert_eq!(Meter::manufacturer_code("KAM"), Some(0x2C2D));
        assert_eq!(Meter::manufacturer_code("kam"), None);
        assert_eq!(Meter::manufacturer_code("KAMS"), None);
    }

    #[test]
    fn meters_of_diehl_that_turn_their_address_are_read_as_meant() {
        let meant = |bytes| Meter::from_wire(bytes).as_meant().to_string();
        assert_eq!(meant([0x24, 0x23, 0x85, 0x07, 0x47, 0x35, 0x04, 0x09]), "HYD 09043547 v85 t07");
        assert_eq!(meant([0xA5, 0x11, 0x78, 0x07, 0x79, 0x19, 0x48, 0x20]), "DME 20481979 v78 t07");
        assert_eq!(meant([0x24, 0x23, 0x20, 0x0C, 0x31, 0x87, 0x81, 0x44]), "HYD 44818731 v20 t0c");
        // A later Sharky 775 in the order of the standard, and one of another maker.
        assert_eq!(meant([0x24, 0x23, 0x91, 0x56, 0x39, 0x48, 0x20, 0x0C]), "HYD 48395691 v20 t0c");
        assert_eq!(meant([0x24, 0x23, 0x20, 0x0C, 0x06, 0x34, 0x27, 0x51]), "HYD 34060c20 v27 t51");
        assert_eq!(meant([0x2D, 0x2C, 0x85, 0x07, 0x47, 0x35, 0x04, 0x09]), "KAM 35470785 v04 t09");
        assert_eq!(meant([0x24, 0x23, 0x85, 0x07, 0x4A, 0x35, 0x04, 0x09]), "HYD 354a0785 v04 t09");
    }

    #[test]
    fn a_number_with_letters_is_kept_as_it_is() {
        let meter = Meter { manufacturer: 0x8000, id: 0x2124_589C, version: 0, device: 0xFF };
        assert_eq!((meter.number().as_str(), meter.letters().as_str()), ("2124589c", "@@@"));
        assert!(!meter.is_globally_unique());
        assert_eq!(meter.device_name(), None);
    }

    proptest! {
        #[test]
        fn every_address_survives_the_wire_and_prints(bytes in any::<[u8; 8]>()) {
            let meter = Meter::from_wire(bytes);
            prop_assert_eq!(meter.to_wire(), bytes);
            prop_assert!(meter.to_string().is_ascii());
        }

        #[test]
        fn letters_come_back_from_their_code(letters in "[A-Z]{3}") {
            let manufacturer = Meter::manufacturer_code(&letters).unwrap();
            prop_assert_eq!(Meter { manufacturer, id: 0, version: 0, device: 0 }.letters(), letters);
        }
    }
}
