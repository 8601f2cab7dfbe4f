//! What an opened telegram says: records, compact frames, alarms, errors (EN 13757-3).

use super::ci;
use super::meter::Meter;
use super::obis;
use super::security::Opened;
use crate::wire::DecodeError;
use crate::wire::mbus::compact::{CompactFault, Formats};
use crate::wire::mbus::{self, Record, answer};

/// One value of a meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Name, exact value and unit.
    pub record: Record,
    /// Its OBIS code, when the standard gives it one.
    pub obis: Option<String>,
}

/// The values of a telegram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The values in the order of the wire.
    pub values: Vec<Value>,
    /// More follow in another telegram.
    pub more: bool,
    /// Why the reading stopped before the end; what stood before it is in `values`.
    pub fault: Option<DecodeError>,
}

/// Why a telegram in clear text gives no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// A compact frame that can't be filled.
    #[error("compact frame: {0}")]
    Compact(#[from] CompactFault),
    /// The meter reports an error instead of values.
    #[error("the meter reports {0}")]
    Refused(String),
    /// Its content is the maker's own.
    #[error("the content (CI {0:02x}) is the manufacturer's own and has no public meaning")]
    Manufacturer(u8),
    /// It is none of the application layers that are read here.
    #[error("CI {0:02x} announces no values that this version reads")]
    Other(u8),
    /// A format frame whose signature is not its format's.
    #[error("the format frame does not have the signature that it claims")]
    Format,
}

/// Reads the values of an opened telegram. Formats of full frames and format frames are learnt by the
/// way, for the compact ones.
///
/// # Errors
/// Why there are none.
pub fn records(opened: &Opened, formats: &mut Formats) -> Result<Content, Unread> {
    let (meter, body) = (opened.meter, opened.body.as_slice());
    let kind = kind(meter);
    match opened.ci {
        0x72 | 0x78 | 0x7A => {
            let content = read(meter, body);
            if content.fault.is_none() {
                formats.learn(kind, body);
            }
            Ok(content)
        }
        0x73 | 0x79 | 0x7B => Ok(read(meter, &formats.fill(kind, behind_fillers(body))?)),
        0x69..=0x6B if formats.learn_frame(kind, behind_fillers(body)) => Ok(Content::default()),
        0x69..=0x6B => Err(Unread::Format),
        0x71 | 0x74 | 0x75 => {
            let record = Record::text("alarm_status", data_encoding::HEXUPPER.encode(behind_fillers(body)));
            Ok(Content { values: vec![Value { record, obis: None }], ..Content::default() })
        }
        0x6E..=0x70 => Err(Unread::Refused(answer::application_error(behind_fillers(body).first().copied()))),
        0x80 | 0x8A | 0x8B => Ok(Content::default()),
        own @ 0xA0..=0xB7 => Err(Unread::Manufacturer(own)),
        other => Err(Unread::Other(other)),
    }
}

/// Tells whether telegrams with this CI field can hold values, once they are opened.
pub const fn has_values(ci: u8) -> bool {
    matches!(ci, 0x71..=0x75 | 0x78..=0x7B) && ci::name(ci).is_some()
}

fn read(meter: Meter, bytes: &[u8]) -> Content {
    let (records, fault) = mbus::readable(bytes, 0);
    let value = |record: Record| Value { obis: obis::code(meter.device, &record.name), record };
    Content { values: records.records.into_iter().map(value).collect(), more: records.more, fault }
}

/// The bytes behind the 2F 2F that proves a key.
fn behind_fillers(body: &[u8]) -> &[u8] {
    body.strip_prefix(&[0x2F, 0x2F]).unwrap_or(body)
}

/// Devices that may share formats: one manufacturer's of one version and type.
fn kind(meter: Meter) -> u64 {
    u64::from(meter.manufacturer) << 16 | u64::from(meter.version) << 8 | u64::from(meter.device)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::How;
    use super::*;

    fn opened(ci: u8, body: &[u8]) -> Opened {
        let meter = Meter { manufacturer: 0x2C2D, id: 0x1234_5678, version: 0x1B, device: 0x16 };
        Opened { meter, ci, header: None, how: How::Clear, body: body.to_vec() }
    }

    fn told(ci: u8, body: &[u8]) -> String {
        match records(&opened(ci, body), &mut Formats::default()) {
            Ok(content) => content
                .values
                .iter()
                .map(|v| format!("{}={} {:?}", v.record.name, v.record.value.clone().unwrap_or_default(), v.obis))
                .collect::<Vec<_>>()
                .join(", "),
            Err(unread) => unread.to_string(),
        }
    }

    #[test]
    fn values_have_names_and_codes() {
        let body = [0x2F, 0x2F, 0x0C, 0x13, 0x27, 0x04, 0x85, 0x02, 0x02, 0xFD, 0x17, 0x00, 0x00];
        let expected = "volume=2850.427 Some(\"8-0:1.0.0*255\"), error_flags=0 None";
        for ci in [0x72, 0x78, 0x7A] {
            assert_eq!(told(ci, &body), expected);
        }
    }

    #[test]
    fn a_broken_record_ends_the_reading_and_what_stood_before_it_counts() {
        let content = records(&opened(0x78, &[0x01, 0xFD, 0x17, 5, 0x0C, 0x13, 1]), &mut Formats::default()).unwrap();
        assert_eq!((content.values.len(), content.fault.map(|f| f.offset)), (1, Some(4)));
    }

    #[test]
    fn what_gives_no_values_says_why() {
        assert_eq!(told(0x75, &[0x2F, 0x2F, 0x81]), "alarm_status=81 None");
        assert!(told(0x6E, &[0x08]).contains("too busy"));
        assert!(told(0xA2, &[1]).contains("manufacturer's own"));
        assert!(told(0xC1, &[1]).contains("c1"));
        assert!(told(0x79, &[1, 2, 3, 4]).contains("0201"));
        assert!(told(0x69, &[1, 2, 3, 4]).contains("signature"));
        assert_eq!(told(0x8A, &[]), "");
        assert!(has_values(0x7A) && has_values(0x79) && !has_values(0xA0) && !has_values(0x8A));
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(ci in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..250)) {
            let mut formats = Formats::default();
            if let Ok(content) = records(&opened(ci, &body), &mut formats) {
                prop_assert!(content.values.len() <= body.len().max(1));
            }
            let _ = records(&opened(0x79, &body), &mut formats);
        }
    }
}
