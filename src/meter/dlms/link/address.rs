//! The addresses of HDLC (IEC 62056-46, clause 6.4.2): a client's of one byte, a meter's of one, two or four.

use crate::meter::dlms::DlmsSettings;
use crate::meter::{Address as Given, MeterSettings};
use crate::setting::At;
use crate::wire::dlms::hdlc::Address;

/// The meter's address: its logical device, and its physical one where `address` tells it.
///
/// # Errors
/// One sentence that says what is wrong with the settings.
pub(super) fn meter(settings: &MeterSettings, dlms: &DlmsSettings) -> Result<Address, String> {
    let logical = dlms.server.value();
    let physical = match settings.address.as_deref() {
        None => None,
        Some(Given::Number(number)) => Some(*number),
        Some(Given::Text(text)) => {
            Some(text.parse().map_err(|_| format!("address is \"{text}\", but HDLC has numbers, such as 17"))?)
        }
    };
    let needed = |number: u32| match number {
        0..=0x7F => Ok(1),
        0x80..=0x3FFF => Ok(2),
        _ => Err(format!("{number} is no HDLC address: at most 16383")),
    };
    let (upper, lower) = (needed(logical)?, needed(physical.unwrap_or(0))?);
    let wide = upper.max(lower) == 2;
    let bytes = match dlms.address_bytes.as_ref().map(|at: &At<_>| at.value()) {
        None if wide => 4,
        None if physical.is_some() => 2,
        None => 1,
        Some(3) => return Err("address_bytes is 3; an HDLC address has 1, 2 or 4 bytes".to_owned()),
        Some(1) if physical.is_some() => {
            return Err(
                "an address of 1 byte has no physical device; leave address out, or set address_bytes".to_owned()
            );
        }
        Some(bytes @ (1 | 2)) if wide => {
            return Err(format!("a number above 127 needs address_bytes = 4, not {bytes}"));
        }
        Some(2 | 4) if physical.is_none() => {
            return Err("address_bytes is more than 1, but there is no address; write the physical device".to_owned());
        }
        Some(bytes) => bytes,
    };
    let narrow = |number: u32| u8::try_from(number).unwrap_or(0x7F);
    let wide = |number: u32| u16::try_from(number).unwrap_or(0x3FFF);
    Ok(match (bytes, physical) {
        (1, _) | (_, None) if !(bytes == 4 && physical.is_none()) => Address::Single(narrow(logical)),
        (2, Some(physical)) => Address::Double { upper: narrow(logical), lower: narrow(physical) },
        // Nobody told a physical device: the address of all.
        (_, physical) => Address::Quad { upper: wide(logical), lower: physical.map_or(0x3FFF, wide) },
    })
}

/// A client's address.
///
/// # Errors
/// One sentence, when HDLC has none such.
pub(super) fn client(client: u16) -> Result<Address, String> {
    match u8::try_from(client) {
        Ok(client @ 1..=0x7F) => Ok(Address::Single(client)),
        _ => Err(format!("client is {client}, but HDLC has clients from 1 to 127")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::dlms::dlms;

    fn of(lines: &str) -> Result<Address, String> {
        let settings = format!("name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\n{lines}");
        let settings = MeterSettings::parse(&settings).unwrap();
        meter(&settings, &dlms(&settings).unwrap())
    }

    #[test]
    fn an_address_has_as_many_bytes_as_its_numbers_need_or_as_are_asked_for() {
        assert_eq!(of(""), Ok(Address::Single(1)));
        assert_eq!(of("address = 17"), Ok(Address::Double { upper: 1, lower: 17 }));
        assert_eq!(of("address = \"17\""), Ok(Address::Double { upper: 1, lower: 17 }));
        assert_eq!(of("address = 300"), Ok(Address::Quad { upper: 1, lower: 300 }));
        assert_eq!(of("address = 17\ndlms.address_bytes = 4"), Ok(Address::Quad { upper: 1, lower: 17 }));
        assert_eq!(of("dlms.server = 200"), Ok(Address::Quad { upper: 200, lower: 0x3FFF }));
    }

    #[test]
    fn what_hdlc_can_t_say_is_refused() {
        for (lines, part) in [
            ("address = \"meter\"", "HDLC has numbers"),
            ("address = 16384", "at most 16383"),
            ("address = 300\ndlms.address_bytes = 2", "needs address_bytes = 4"),
            ("address = 3\ndlms.address_bytes = 1", "no physical device"),
            ("address = 3\ndlms.address_bytes = 3", "1, 2 or 4"),
            ("dlms.address_bytes = 2", "write the physical device"),
        ] {
            let fault = of(lines).unwrap_err();
            assert!(fault.contains(part), "{lines}: {fault}");
        }
        assert!(client(128).is_err() && client(0).is_err());
        assert_eq!(client(16), Ok(Address::Single(16)));
    }
}
