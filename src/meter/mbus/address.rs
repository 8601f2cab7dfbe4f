//! How a meter is addressed: by its primary address, or by who it is.

use std::fmt;

use crate::meter::{Address, MeterSettings};
use crate::wire::mbus::{CI_SELECT, Frame, POINT_TO_POINT, SELECTED, SND_UD};
use crate::wire::wmbus::Meter;

/// Whom a session asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// By primary address, 0 to 250, 253 or 254.
    Primary(u8),
    /// By secondary address.
    Secondary(Secondary),
}

/// A secondary address with wildcards (EN 13757-3, clause 11.3), written
/// `12345678`, `1234FFFF`, `12345678.LUG.04.07` or `12345678.LUG.04.07.00011223`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secondary {
    /// The identification number as its eight digits read; F is a wildcard.
    pub id: u32,
    /// The manufacturer; `None` for any.
    pub manufacturer: Option<u16>,
    /// The version; `None` for any.
    pub version: Option<u8>,
    /// The medium (device type); `None` for any.
    pub medium: Option<u8>,
    /// The fabrication number of the enhanced selection as its eight digits read.
    pub fabrication: Option<u32>,
}

impl Secondary {
    /// Every meter.
    pub const ANY: Self = Self { id: 0xFFFF_FFFF, manufacturer: None, version: None, medium: None, fabrication: None };

    /// Reads `ID[.MANUFACTURER[.VERSION[.MEDIUM[.FABRICATION]]]]`, `*` for any manufacturer, version or
    /// medium.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut found = Self { id: digits(parts.next()?, true)?, ..Self::ANY };
        if let Some(letters) = parts.next().filter(|part| *part != "*") {
            found.manufacturer = Some(Meter::manufacturer_code(letters)?);
        }
        if let Some(version) = parts.next().filter(|part| *part != "*") {
            found.version = Some(byte(version)?);
        }
        if let Some(medium) = parts.next().filter(|part| *part != "*") {
            found.medium = Some(byte(medium)?);
        }
        if let Some(number) = parts.next() {
            found.fabrication = Some(digits(number, false)?);
        }
        parts.next().is_none().then_some(found)
    }

    /// The address of exactly this meter.
    pub const fn of(meter: &Meter) -> Self {
        Self {
            id: meter.id,
            manufacturer: Some(meter.manufacturer),
            version: Some(meter.version),
            medium: Some(meter.device),
            fabrication: None,
        }
    }

    /// Whether a meter that says this of itself is meant; a fabrication number is not looked at.
    pub fn matches(&self, meter: &Meter) -> bool {
        let digit = |id: u32, place: u32| (id >> (4 * place)) & 0xF;
        let same_id =
            (0..8).all(|place| matches!(digit(self.id, place), 0xF) || digit(self.id, place) == digit(meter.id, place));
        same_id
            && self.manufacturer.is_none_or(|own| own == meter.manufacturer)
            && self.version.is_none_or(|own| own == meter.version)
            && self.medium.is_none_or(|own| own == meter.device)
    }

    /// The frame that selects it.
    pub(super) fn select(&self) -> Frame {
        let mut data = self.id.to_le_bytes().to_vec();
        data.extend(self.manufacturer.unwrap_or(0xFFFF).to_le_bytes());
        data.extend([self.version.unwrap_or(0xFF), self.medium.unwrap_or(0xFF)]);
        if let Some(number) = self.fabrication {
            data.extend([0x0C, 0x78]);
            data.extend(number.to_le_bytes());
        }
        Frame::Long { control: SND_UD, address: SELECTED, ci: CI_SELECT, data }
    }
}

impl fmt::Display for Secondary {
    /// Writes what [`Secondary::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = || "*".to_owned();
        let letters = |manufacturer| Meter { manufacturer, id: 0, version: 0, device: 0 }.letters();
        let hex = |byte| format!("{byte:02X}");
        let version = self.version.map_or_else(any, hex);
        let medium = self.medium.map_or_else(any, hex);
        write!(f, "{:08X}.{}.{version}.{medium}", self.id, self.manufacturer.map_or_else(any, letters))?;
        self.fabrication.map_or(Ok(()), |number| write!(f, ".{number:08X}"))
    }
}

/// Eight digits as they read; with `wild` also F.
fn digits(text: &str, wild: bool) -> Option<u32> {
    let fits = |c: char| c.is_ascii_digit() || (wild && matches!(c, 'A'..='F'));
    (text.len() == 8 && text.chars().all(fits)).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

fn byte(text: &str) -> Option<u8> {
    let hex = text.len() == 2 && text.chars().all(|c| c.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// Finds out whom the settings mean.
pub(super) fn target(settings: &MeterSettings) -> Result<Target, String> {
    match settings.address.as_deref() {
        None => Ok(Target::Primary(POINT_TO_POINT)),
        Some(Address::Number(number)) => match u8::try_from(*number) {
            Ok(number @ (0..=250 | SELECTED | POINT_TO_POINT)) => Ok(Target::Primary(number)),
            _ => Err(format!("{number} is no M-Bus address; use 0 to 250, or 254 when it is alone on the line")),
        },
        Some(Address::Text(text)) => Secondary::parse(text).map(Target::Secondary).ok_or_else(|| {
            format!(
                "\"{text}\" is no secondary address; write its eight digits, such as \"12345678\", and if needed manufacturer, version and medium, such as \"12345678.LUG.04.07\""
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_and_chooses_its_meters() {
        for text in ["12345678.LUG.04.07", "1234FFFF.*.*.*", "12345678.KAM.1B.16.00011223", "12345678.*.1B.*"] {
            assert_eq!(Secondary::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Secondary::parse("12345678").unwrap().to_string(), "12345678.*.*.*");
        for wrong in [
            "",
            "1234567",
            "1234567G",
            "12345678.lug",
            "12345678.LUG.4",
            "12345678.LUG.04.07.1",
            "12345678.*.*.*.00000000.1",
            "12345678.*.+1",
        ] {
            assert_eq!(Secondary::parse(wrong), None, "{wrong}");
        }
        let meter =
            Meter { id: 0x1234_5678, manufacturer: Meter::manufacturer_code("LUG").unwrap(), version: 4, device: 7 };
        let meant = |text: &str| Secondary::parse(text).unwrap().matches(&meter);
        assert!(meant("12345678") && meant("12FF5678.LUG.04.07") && meant("FFFFFFFF.*.04"));
        assert!(!meant("12345679") && !meant("12345678.KAM") && !meant("12345678.LUG.05") && !meant("12345678.*.*.06"));
        assert_eq!(Secondary::of(&meter).to_string(), "12345678.LUG.04.07");
    }
}
