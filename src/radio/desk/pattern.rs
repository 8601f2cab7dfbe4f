//! Which meters are meant: `KAM.12345678.1b.16` with `*` for any part and `?` for any digit.

use crate::wire::wmbus::Meter;

/// Names meters by their parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::radio) struct Pattern {
    /// Manufacturer, number, version, device type; each as small letters and `?`, `None` for any.
    parts: [Option<String>; 4],
}

/// The lengths of the four parts.
const LENGTHS: [usize; 4] = [3, 8, 2, 2];

impl Pattern {
    /// Reads a pattern; parts that are left out at the end are any.
    pub(in crate::radio) fn parse(text: &str) -> Option<Self> {
        let mut parts = [const { None }; 4];
        let given: Vec<&str> = text.split('.').collect();
        if given.len() > parts.len() {
            return None;
        }
        for (number, (part, text)) in parts.iter_mut().zip(given).enumerate() {
            if text == "*" {
                continue;
            }
            let fits = |c: u8| {
                c == b'?'
                    || if number == 0 { (b'@'..=b'_').contains(&c.to_ascii_uppercase()) } else { c.is_ascii_hexdigit() }
            };
            if text.len() != *LENGTHS.get(number)? || !text.bytes().all(fits) {
                return None;
            }
            *part = Some(text.to_ascii_lowercase());
        }
        Some(Self { parts })
    }

    /// Whether a meter is meant.
    pub(super) fn names(&self, meter: Meter) -> bool {
        let meter = meter.as_meant();
        let own = [
            meter.letters().to_ascii_lowercase(),
            meter.number(),
            format!("{:02x}", meter.version),
            format!("{:02x}", meter.device),
        ];
        self.parts.iter().zip(&own).all(|(part, own)| {
            part.as_ref().is_none_or(|part| part.bytes().zip(own.bytes()).all(|(want, is)| want == b'?' || want == is))
        })
    }
}

/// A meter's name as patterns and `weir radio` write it: its address as its maker means it, which is what stands on the meter.
pub(in crate::radio) fn name(meter: Meter) -> String {
    let meter = meter.as_meant();
    format!("{}.{}.{:02x}.{:02x}", meter.letters(), meter.number(), meter.version, meter.device)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METER: Meter = Meter { manufacturer: 0x2C2D, id: 0x1234_5678, version: 0x1B, device: 0x16 };

    #[test]
    fn parts_may_be_any_partly_given_or_left_out() {
        let names = |text: &str| Pattern::parse(text).unwrap().names(METER);
        for text in ["*", "KAM", "kam.*", "*.12345678", "KAM.1234????", "*.*.1b.16", "*.*.1B", "???.????????"] {
            assert!(names(text), "{text}");
        }
        for text in ["KAW", "*.12345679", "*.*.1c", "*.*.*.07", "KAM.2???????"] {
            assert!(!names(text), "{text}");
        }
        for text in ["", "KAMS", "KAM.1234567", "KAM.1234567g", "1AM", "*.*.*.*.*", "KAM."] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_meter_is_named_by_its_own_name_and_by_no_others(a in any::<[u8; 8]>(), b in any::<[u8; 8]>()) {
            let (mut a, mut b) = (Meter::from_wire(a), Meter::from_wire(b));
            (a.manufacturer, b.manufacturer) = (a.manufacturer & 0x7FFF, b.manufacturer & 0x7FFF);
            let pattern = Pattern::parse(&name(a)).unwrap();
            prop_assert!(pattern.names(a));
            prop_assert_eq!(pattern.names(b), a == b);
        }
    }
}
