//! The CI field: what follows it (EN 13757-7, table of CI fields).

/// The CI field of the authentication and fragmentation layer.
pub(super) const AUTHENTICATION: u8 = 0x90;

/// Which transport header follows a CI field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Address, access number, status, configuration.
    Long,
    /// Access number, status, configuration.
    Short,
    /// The body at once.
    None,
}

/// The transport header that follows `ci`; unknown and manufacturer specific ones have none.
pub(super) const fn header(ci: u8) -> Header {
    match ci {
        0x5B | 0x6B | 0x6F | 0x72 | 0x73 | 0x75 | 0x80 | 0x8B => Header::Long,
        0x5A | 0x6A | 0x6E | 0x74 | 0x7A | 0x7B | 0x8A => Header::Short,
        _ => Header::None,
    }
}

/// What a CI field announces, in a few words; `None` for a reserved one.
pub const fn name(ci: u8) -> Option<&'static str> {
    Some(match ci {
        0x5A => "command to the device, short header",
        0x5B => "command to the device, long header",
        0x69 => "format frame, no header",
        0x6A => "format frame, short header",
        0x6B => "format frame, long header",
        0x6E => "application error, short header",
        0x6F => "application error, long header",
        0x71 => "alarm report (old)",
        0x72 => "readings, long header",
        0x73 => "compact frame, long header",
        0x74 => "alarm, short header",
        0x75 => "alarm, long header",
        0x78 => "readings, no header",
        0x79 => "compact frame, no header",
        0x7A => "readings, short header",
        0x7B => "compact frame, short header",
        0x80 => "transport layer only, long header, to the device",
        0x81 => "network layer",
        0x86 => "extended link layer V",
        0x8A => "transport layer only, short header",
        0x8B => "transport layer only, long header",
        0x8C => "extended link layer I",
        0x8D => "extended link layer II",
        0x8E => "extended link layer III",
        0x8F => "extended link layer IV",
        0x90 => "authentication and fragmentation layer",
        0xA0..=0xB7 => "manufacturer specific",
        0xC0..=0xC5 => "image or security transfer",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ci_with_a_header_has_a_name_that_says_which() {
        for ci in 0..=u8::MAX {
            match header(ci) {
                Header::Long => assert!(name(ci).unwrap().contains("long header"), "{ci:02x}"),
                Header::Short => assert!(name(ci).unwrap().contains("short header"), "{ci:02x}"),
                Header::None => assert!(!name(ci).unwrap_or("").contains("t header"), "{ci:02x}"),
            }
        }
    }
}
