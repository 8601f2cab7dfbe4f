//! What a scan finds.

use std::fmt;
use std::time::Duration;

use crate::meter::Address;
use crate::os::line::Speed;

/// What a meter says about itself, as far as it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// The maker: a name, or the three letters of the FLAG association.
    pub maker: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
    /// The serial number.
    pub serial: Option<String>,
}

impl Who {
    /// Whether nothing is known.
    pub const fn is_nobody(&self) -> bool {
        self.maker.is_none() && self.model.is_none() && self.version.is_none() && self.serial.is_none()
    }

    /// Takes from `other` what is not known here.
    pub(super) fn complete(&mut self, other: Self) {
        self.maker = self.maker.take().or(other.maker);
        self.model = self.model.take().or(other.model);
        self.version = self.version.take().or(other.version);
        self.serial = self.serial.take().or(other.serial);
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nobody() {
            return f.write_str("make unknown");
        }
        let plain = [&self.maker, &self.model].into_iter().flatten().cloned();
        let version = self.version.iter().map(|v| format!("version {v}"));
        let serial = self.serial.iter().map(|s| format!("serial number {s}"));
        f.write_str(&plain.chain(version).chain(serial).collect::<Vec<_>>().join(" "))
    }
}

/// A meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its protocol, as in `protocol = "..."`.
    pub protocol: &'static str,
    /// The speed at which it was asked, or sends.
    pub speed: Speed,
    /// Its address; `None` where it was asked without one.
    pub address: Option<Address>,
    /// An address it could be asked with, where it was asked without one.
    pub own_address: Option<String>,
    /// What it says about itself.
    pub who: Who,
    /// The name of its register map.
    pub profile: Option<String>,
    /// A register that it lets be read, where its map is not known.
    pub register: Option<String>,
    /// Further settings that it needs, as lines of TOML.
    pub also: Vec<String>,
    /// How long it took to answer; zero when it was not asked.
    pub answered_in: Duration,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

impl Found {
    /// A meter about which nothing more is known yet.
    pub(super) fn new(protocol: &'static str, speed: Speed, address: Option<Address>, answered_in: Duration) -> Self {
        Self {
            protocol,
            speed,
            address,
            own_address: None,
            who: Who::default(),
            profile: None,
            register: None,
            also: Vec::new(),
            answered_in,
            notes: Vec::new(),
        }
    }
}

impl Found {
    /// Its speed in words; `None` where it has none. IEC 62056-21 does its parity itself, whatever the framing.
    pub fn at(&self) -> Option<String> {
        match self.protocol {
            "modbus-tcp" => None,
            _ if super::dlms::has_wrapper(self) => None,
            _ if super::dlms::signs_on(self) => Some("300 Bd by mode E".to_owned()),
            super::iec62056::NAME => Some(format!("{} Bd", self.speed.baud)),
            _ => Some(format!("{} {}", self.speed.baud, self.speed.framing)),
        }
    }
}

/// Makes a text from outside short and safe for a terminal and for TOML; `None` when nothing is left.
pub(super) fn tidy(bytes: &[u8]) -> Option<String> {
    const MOST: usize = 64;
    let text: String =
        String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control() && *c != '\u{FFFD}').take(MOST).collect();
    let text = text.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_a_meter_is_reads_as_a_phrase() {
        assert_eq!(Who::default().to_string(), "make unknown");
        let mut who = Who { maker: Some("Eastron".into()), serial: Some("42".into()), ..Who::default() };
        who.complete(Who { maker: Some("X".into()), model: Some("SDM630".into()), ..Who::default() });
        assert_eq!(who.to_string(), "Eastron SDM630 serial number 42");
    }

    #[test]
    fn a_text_from_a_meter_is_made_harmless() {
        assert_eq!(tidy(b"  SDM\x1b[2J630\0\0 \xff"), Some("SDM[2J630".to_owned()));
        assert_eq!(tidy(b"\0\0  "), None);
        assert_eq!(tidy(&[b'a'; 500]).unwrap().len(), 64);
    }
}
