//! The records of a variable data structure (EN 13757-3, clause 6).
//!
//! What the bytes of DIF and VIF mean is asked of m-bus-application-layer; the data fields are
//! decoded here, because the library turns them into binary floats.

use m_bus_application_layer::data_information::{
    DataFieldCoding, DataInformation, DataInformationBlock, FunctionField,
};
use m_bus_application_layer::value_information::{ValueInformation, ValueInformationBlock};

use super::data::{self, Number};
use super::name::{self, Meaning};
use crate::model::Decimal;
use crate::wire::DecodeError;

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `quantity:detail[storage]:function:tN:uN`, what is zero or usual left out.
    pub name: String,
    /// An exact number, an ISO date or time, a text or hex digits; `None` when the meter sent
    /// something that is no value (BCD digits above 9, a time marked as invalid, a record error).
    pub value: Option<String>,
    /// The unit; empty when there is none.
    pub unit: String,
    /// Whether the number came as a binary float.
    pub real: bool,
}

/// What a telegram's records are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Records {
    /// The records in the order of the wire.
    pub records: Vec<Record>,
    /// More records follow in another telegram (DIF 1F).
    pub more: bool,
}

const MANUFACTURER_DATA: u8 = 0x0F;
const MORE_FOLLOW: u8 = 0x1F;

/// Reads all records; `at` is where they start in the frame, for errors.
pub(super) fn decode(bytes: &[u8], at: usize) -> Result<Records, DecodeError> {
    match readable(bytes, at) {
        (records, None) => Ok(records),
        (_, Some(fault)) => Err(fault),
    }
}

/// Reads records up to the first broken one; `at` is where they start in the frame, for the fault.
pub fn readable(bytes: &[u8], at: usize) -> (Records, Option<DecodeError>) {
    let mut found = Records::default();
    let mut rest = bytes;
    while let [dif, tail @ ..] = rest {
        let offset = at + bytes.len() - rest.len();
        match *dif {
            MANUFACTURER_DATA | MORE_FOLLOW => {
                found.more = *dif == MORE_FOLLOW;
                if !tail.is_empty() {
                    found.records.push(Record::text("manufacturer_data", data::hex(tail)));
                }
                break;
            }
            // Other special functions (0x3F .. 0x7F) have no data either.
            dif if is_special(dif) => rest = tail,
            _ => match one(rest, offset) {
                Ok((record, length)) => {
                    found.records.push(record);
                    rest = rest.get(length..).unwrap_or_default();
                }
                Err(fault) => return (found, Some(fault)),
            },
        }
    }
    (found, None)
}

fn short(offset: usize) -> DecodeError {
    DecodeError::new(offset, "the rest of a record", "the end of the telegram")
}

/// A DIF that is no record but a mark: filler, manufacturer data, more follows.
pub(super) const fn is_special(dif: u8) -> bool {
    dif & 0x0F == 0x0F
}

/// The length of a record's DIF, DIFEs, VIF and VIFEs and that of its data, which begins at `content`
/// or, without it, right behind them.
pub(super) fn lengths(bytes: &[u8], content: Option<&[u8]>) -> Option<(usize, usize)> {
    let dib = DataInformationBlock::try_from(bytes).ok()?;
    let coding = DataInformation::try_from(&dib).ok()?.data_field_coding;
    let after_dib = bytes.get(dib.get_size()..).filter(|rest| !rest.is_empty())?;
    let head = dib.get_size() + ValueInformationBlock::try_from(after_dib).ok()?.get_size();
    let data = coding.data_size(match content {
        Some(content) => content,
        None => bytes.get(head..)?,
    })?;
    Some((head, data))
}

/// Reads one record and its length, which is at least 1.
fn one(bytes: &[u8], offset: usize) -> Result<(Record, usize), DecodeError> {
    let broken = |what: &'static str, error: &dyn std::fmt::Debug| DecodeError::new(offset, what, format!("{error:?}"));
    let dib = DataInformationBlock::try_from(bytes).map_err(|e| broken("DIF and at most 10 DIFEs", &e))?;
    let dib_length = dib.get_size();
    let information = DataInformation::try_from(&dib).map_err(|e| broken("DIF and at most 10 DIFEs", &e))?;
    let after_dib = bytes.get(dib_length..).filter(|rest| !rest.is_empty()).ok_or_else(|| short(offset))?;
    let vib = ValueInformationBlock::try_from(after_dib).map_err(|e| broken("VIF and at most 10 VIFEs", &e))?;
    let vib_length = vib.get_size();
    let content = after_dib.get(vib_length..).ok_or_else(|| short(offset))?;
    let coding = information.data_field_coding;
    let length = coding
        .data_size(content)
        .ok_or_else(|| DecodeError::new(offset, "a length of variable data", format!("{:02X?}", content.first())))?;
    let field = content.get(..length).ok_or_else(|| short(offset))?;

    let vifs: Vec<u8> = std::iter::once(vib.value_information.data)
        .chain(vib.value_information_extension.iter().flat_map(|e| e.iter().map(|vife| vife.data)))
        .collect();
    let plain = vib.plaintext_vife.as_ref().and_then(|p| p.as_ascii_str());
    let plain = plain.map(|text| data::text(text.as_bytes()));
    let meaning = name::meaning(&vifs, plain.as_deref(), ValueInformation::try_from(&vib).ok().as_ref());
    let value = if meaning.in_error { None } else { value(coding, field, &meaning, &vifs) };
    let real = coding == DataFieldCoding::Real32Bit;
    let Meaning { name, unit, .. } = meaning;
    Ok((Record { name: full_name(name, &information), value, unit, real }, dib_length + vib_length + length))
}

fn full_name(quantity: String, information: &DataInformation) -> String {
    let mut name = quantity;
    if information.storage_number > 0 {
        name = format!("{name}[{}]", information.storage_number);
    }
    match information.function_field {
        FunctionField::MaximumValue => name.push_str(":max"),
        FunctionField::MinimumValue => name.push_str(":min"),
        FunctionField::ValueDuringErrorState => name.push_str(":error"),
        _ => {}
    }
    if information.tariff > 0 {
        name = format!("{name}:t{}", information.tariff);
    }
    if information.device > 0 {
        name = format!("{name}:u{}", information.device);
    }
    name
}

fn value(coding: DataFieldCoding, field: &[u8], meaning: &Meaning, vifs: &[u8]) -> Option<String> {
    use DataFieldCoding as D;
    let number = match coding {
        D::NoData | D::SelectionForReadout => return Some(String::new()),
        D::Integer8Bit | D::Integer64Bit => data::integer(field, !meaning.unsigned),
        D::Integer16Bit | D::Integer24Bit | D::Integer32Bit | D::Integer48Bit => {
            if meaning.temporal {
                return temporal(field);
            }
            data::integer(field, !meaning.unsigned)
        }
        D::Real32Bit => data::real(field.try_into().ok()?),
        D::BCD2Digit | D::BCD4Digit | D::BCD6Digit | D::BCD8Digit | D::BCDDigit12 => data::bcd(field),
        D::VariableLength => return variable(field, meaning, vifs),
        _ => return Some(data::hex(field)),
    };
    scaled(number, meaning, vifs)
}

fn scaled(number: Number, meaning: &Meaning, vifs: &[u8]) -> Option<String> {
    let Number::Exact(digits) = number else { return None };
    let scaled = digits.times(Decimal::new(1, meaning.scale).ok()?).ok()?;
    let moved = match summand(vifs) {
        Some(exponent) => scaled.plus(Decimal::new(1, exponent).ok()?).ok()?,
        None => scaled,
    };
    Some(moved.to_string())
}

/// The additive correction of VIFE E111 10nn, 10^(nn-3); the library can't tell 10^0 from none.
fn summand(vifs: &[u8]) -> Option<i32> {
    let from = if matches!(vifs.first(), Some(0xFD | 0xFB)) { 2 } else { 1 };
    let mut extension = false;
    for vife in vifs.get(from..).unwrap_or_default() {
        match (extension, *vife) {
            (false, 0xFC) => extension = true,
            (false, vife) if vife & 0x7F == 0x7F => return None,
            (false, vife) if (0x78..=0x7B).contains(&(vife & 0x7F)) => return Some(i32::from(vife & 0x03) - 3),
            _ => extension = false,
        }
    }
    None
}

fn temporal(field: &[u8]) -> Option<String> {
    match *field {
        [a, b] => data::date([a, b]),
        [a, b, c] => data::time([a, b, c]),
        [a, b, c, d] => data::date_time([a, b, c, d]),
        [a, b, c, d, e, f] => data::date_time_seconds([a, b, c, d, e, f]),
        _ => None,
    }
}

/// A field whose first byte (LVAR) tells its kind and length.
fn variable(field: &[u8], meaning: &Meaning, vifs: &[u8]) -> Option<String> {
    let (kind, content) = field.split_first()?;
    match *kind {
        // Not meant for people to read, whatever its characters would be.
        0x00..=0xBF if meaning.name.contains("compact_profile") => Some(data::hex(content)),
        0x00..=0xBF if meaning.name.starts_with("manufacturer_") && content.iter().any(|b| b.is_ascii_control()) => {
            Some(data::hex(content))
        }
        0x00..=0xBF => Some(data::text(content)),
        0xC0..=0xC9 => scaled(data::bcd(content), meaning, vifs),
        0xD0..=0xD9 => match data::bcd(content) {
            Number::Exact(digits) => {
                let minus = Decimal::new(-1, 0).ok()?;
                scaled(digits.times(minus).map_or(Number::Invalid, Number::Exact), meaning, vifs)
            }
            Number::Invalid => None,
        },
        _ if meaning.temporal => temporal(content),
        _ if content.is_empty() => Some(String::new()),
        _ if content.len() <= 16 => scaled(data::integer(content, !meaning.unsigned), meaning, vifs),
        _ => Some(data::hex(content)),
    }
}

impl Record {
    /// A record without a unit.
    pub(in crate::wire) fn text(name: &str, value: String) -> Self {
        Self { name: name.to_owned(), value: Some(value), unit: String::new(), real: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are part of what is published: an update of the library must not change them.
    #[test]
    fn names_and_units_stay_what_they_are() {
        let named = |hex: &str| {
            let bytes = data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap();
            let found = decode(&bytes, 0).unwrap().records;
            let [record] = found.as_slice() else { panic!("{found:?}") };
            format!("{} {} {}", record.name, record.value.as_deref().unwrap_or("-"), record.unit)
        };
        let pinned = [
            ("040639300000", "energy 12345000 Wh"),
            ("440E01000000", "energy[1] 1000000 J"),
            ("8420690A000000", "pressure:t2 0.10 bar"),
            ("0C1300000080", "volume 80000.000 m³"),
            ("0C13000000A0", "volume - m³"),
            ("022DFEFF", "power -200 W"),
            ("123DFEFF", "volume_flow:max -0.2 m³/h"),
            ("2266E803", "external_temperature:min 100.0 °C"),
            ("3262E803", "temperature_difference:error 100.0 K"),
            ("01FD1BFF", "digital_input 255 "),
            ("02FD171000", "error_flags 16 "),
            ("04FD480A000000", "voltage 1.0 V"),
            ("04FD590A000000", "current 0.010 A"),
            ("02FB2E0500", "frequency 0.5 Hz"),
            ("0483FC0105000000", "energy:l1 5 Wh"),
            ("04833C05000000", "energy:negative 5 Wh"),
            ("04937B05000000", "volume 1.005 m³"),
            ("02FD7C0500", "vif_fd7c 5 "),
            ("02FF130500", "manufacturer_13 5 "),
            ("04AD6A0B0BCD13", "power:date_of_begin_first 2014-03-13T11:11 "),
            ("04AD6B0B0BCD13", "power:date_of_end_first 2014-03-13T11:11 "),
            ("04AD6E0B0BCD13", "power:date_of_begin_last 2014-03-13T11:11 "),
            ("04AD6F00000000", "power:date_of_end_last - "),
            ("04832C05000000", "energy 5 Wh/l"),
            ("01FD08F0", "access_number_of_record 240 "),
            ("0478FFFFFFFF", "fabrication_number 4294967295 "),
            ("02FD2E0500", "duration_since_last_readout 5 h"),
            ("02FD30CD13", "start_of_tariff 2014-03-13 "),
            ("03FD31100E00", "duration_of_tariff 3600 min"),
            ("02FD342000", "period_of_tariff 32 s"),
            ("01FD3803", "period_of_tariff 3 month"),
            ("02FD3CB004", "period_of_nominal_data_transmission 1200 s"),
            ("02FD3F0100", "period_of_nominal_data_transmission 1 d"),
            ("04BE500A000000", "volume_flow:duration_of_first_lower_limit_exceed 10 s"),
            ("0D78083837363534333231", "fabrication_number 12345678 "),
            ("0DFD0CC23412", "model 1234 "),
            ("02FC03485225740500", "%RH 0.05 "),
        ];
        let found = pinned.map(|(hex, _)| (hex, named(hex)));
        assert_eq!(found, pinned.map(|(hex, expected)| (hex, expected.to_owned())));
    }

    #[test]
    fn a_record_that_ends_early_is_refused_with_its_place() {
        for hex in ["04", "0406", "040639", "84", "0D0605", "0D06FF"] {
            let bytes = data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap();
            assert_eq!(decode(&bytes, 19).unwrap_err().offset, 19, "{hex}");
        }
    }
}
