//! The C field: what a telegram is for (EN 13757-4, 12.5.4).

use std::fmt;

/// A C field whose function is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Control(u8);

/// Bit 7 of the C field: a repeater sent it on.
const RELAYED: u8 = 0x80;

impl Control {
    /// Takes a C field; `None` when EN 13757-4 knows no such function.
    pub fn known(byte: u8) -> Option<Self> {
        function(byte & !RELAYED).map(|_| Self(byte))
    }

    /// The byte itself.
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// The name of the function, such as `SND-NR`.
    pub fn function(self) -> &'static str {
        function(self.0 & !RELAYED).map_or("", |(name, _)| name)
    }

    /// What the function means, in a few words.
    pub fn meaning(self) -> &'static str {
        function(self.0 & !RELAYED).map_or("", |(_, meaning)| meaning)
    }

    /// Tells whether a repeater sent the telegram on.
    pub const fn is_relayed(self) -> bool {
        self.0 & RELAYED != 0
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function())
    }
}

const fn function(byte: u8) -> Option<(&'static str, &'static str)> {
    Some(match byte {
        0x44 => ("SND-NR", "data, no reply expected"),
        0x46 => ("SND-IR", "installation request"),
        0x47 => ("ACC-NR", "no data, access possible"),
        0x48 => ("ACC-DMD", "the meter demands access"),
        0x08 => ("RSP-UD", "answer with data"),
        0x18 => ("RSP-UD", "answer with data, further data flow blocked"),
        0x28 => ("RSP-UD", "answer with data, alarm data waiting"),
        0x38 => ("RSP-UD", "answer with data, alarm data waiting, data flow blocked"),
        0x00 => ("ACK", "acknowledgement"),
        0x01 => ("NACK", "refusal"),
        0x40 => ("SND-NKE", "to the meter: link reset"),
        0x43 => ("SND-UD2", "to the meter: command, reply expected"),
        0x45 => ("SND-UD3", "to the meter: command, broadcast"),
        0x53 | 0x73 => ("SND-UD", "to the meter: command"),
        0x5A | 0x7A => ("REQ-UD1", "to the meter: asks for alarm data"),
        0x5B | 0x7B => ("REQ-UD2", "to the meter: asks for data"),
        0x06 => ("CNF-IR", "to the meter: installation confirmed"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_field_has_a_name_or_is_refused() {
        let name = |byte| Control::known(byte).map(Control::function);
        assert_eq!((name(0x44), name(0x46), name(0x48)), (Some("SND-NR"), Some("SND-IR"), Some("ACC-DMD")));
        assert_eq!((name(0x28), name(0x7B)), (Some("RSP-UD"), Some("REQ-UD2")));
        assert!([0x02, 0x04, 0x3F, 0x49, 0xFF].into_iter().all(|byte| name(byte).is_none()));
    }

    #[test]
    fn a_relayed_telegram_keeps_its_function() {
        let relayed = Control::known(0xC4).unwrap();
        assert!(relayed.is_relayed() && relayed.byte() == 0xC4);
        assert_eq!(relayed.to_string(), "SND-NR");
        assert!(!Control::known(0x44).unwrap().is_relayed());
    }
}
