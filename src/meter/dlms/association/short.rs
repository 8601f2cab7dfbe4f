//! Short names (IEC 62056-5-3, clause 7.4; IEC 62056-6-2, class 12): a number for each attribute and method.

use super::{Association, damaged};
use crate::meter::MeterError;
use crate::meter::dlms::settings::DlmsReferencing;
use crate::os::line::Line;
use crate::wire::dlms::{
    Apdu, AttributeDescriptor, DataAccessResult, DataBuf, Decode, List, LogicalName, ReadResult, VariableAccess,
    WriteResult, decode, encode,
};

/// What a meter gives of an attribute: its value, or why there is none.
type Answer = Result<DataBuf, DataAccessResult>;

/// The association's own object.
pub(super) const ASSOCIATION: u16 = 0xFA00;
/// How far an attribute is from the one before, a method likewise.
const STEP: u16 = 8;
/// The longest value that is put together of blocks.
const LONGEST: usize = 1 << 20;
/// Where the methods of a class begin behind its object's base name (IEC 62056-6-2, short names of each class).
const METHODS: &[(u16, u16)] = &[
    (3, 0x28),
    (4, 0x38),
    (5, 0x48),
    (6, 0x30),
    (7, 0x58),
    (8, 0x60),
    (9, 0x20),
    (12, 0x20),
    (18, 0x40),
    (20, 0x50),
    (40, 0x38),
    (64, 0x30),
    (70, 0x20),
    (72, 0x60),
];

/// The objects of a meter with their base names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::meter::dlms) struct ShortNames(Vec<Named>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    base: u16,
    class: u16,
    version: u8,
    name: LogicalName,
}

impl ShortNames {
    /// Reads the association's object list.
    ///
    /// # Errors
    /// When the line fails, the meter refuses, or the list is none.
    pub(in crate::meter::dlms) async fn load(
        association: &mut Association,
        line: &mut Line,
    ) -> Result<Self, MeterError> {
        match read(association, line, ASSOCIATION + STEP, None).await? {
            Ok(list) => Self::of(&list).ok_or_else(|| MeterError::Damaged("the object list is none".to_owned())),
            Err(refusal) => Err(MeterError::Refused(format!("its object list: {refusal:?}"))),
        }
    }

    /// Takes an object list: an array of base name, class, version and logical name.
    pub(in crate::meter::dlms) fn of(list: &DataBuf) -> Option<Self> {
        let DataBuf::Array(rows) = list else { return None };
        let rows = rows.iter().map(|row| match row {
            DataBuf::Structure(fields) => match fields.as_slice() {
                [base, DataBuf::LongUnsigned(class), DataBuf::Unsigned(version), DataBuf::OctetString(name), ..] => {
                    let base = match base {
                        DataBuf::Long(base) => base.cast_unsigned(),
                        DataBuf::LongUnsigned(base) => *base,
                        _ => return None,
                    };
                    let [a, b, c, d, e, f] = <[u8; 6]>::try_from(name.as_slice()).ok()?;
                    let name = LogicalName::new(a, b, c, d, e, f);
                    Some(Named { base, class: *class, version: *version, name })
                }
                _ => None,
            },
            _ => None,
        });
        rows.collect::<Option<Vec<_>>>().map(Self)
    }

    /// Every object: class, version, logical name.
    pub(in crate::meter::dlms) fn objects(&self) -> impl Iterator<Item = (u16, u8, LogicalName)> {
        self.0.iter().map(|named| (named.class, named.version, named.name))
    }

    /// The number of an attribute, counted from 1; none when the meter does not have the object.
    pub(in crate::meter::dlms) fn short_name(&self, class: u16, name: LogicalName, attribute: u8) -> Option<u16> {
        let base = self.base(class, name)?;
        base.checked_add(u16::from(attribute.checked_sub(1)?).checked_mul(STEP)?)
    }

    /// The number of a method, counted from 1; none when it is not known for this class.
    pub(in crate::meter::dlms) fn method(&self, class: u16, name: LogicalName, method: u8) -> Option<u16> {
        let base = self.base(class, name)?.checked_add(METHODS.iter().find(|row| row.0 == class)?.1)?;
        base.checked_add(u16::from(method.checked_sub(1)?).checked_mul(STEP)?)
    }

    fn base(&self, class: u16, name: LogicalName) -> Option<u16> {
        self.0.iter().find(|named| named.class == class && named.name == name).map(|named| named.base)
    }
}

impl Association {
    /// Whether attributes are read and written by their short names ([`read_attribute`], [`write`]).
    pub(in crate::meter::dlms) const fn has_short_names(&self) -> bool {
        matches!(self.dlms.referencing, DlmsReferencing::ShortNames)
    }

    /// Takes that the meter is another one than it was: its short names are read anew.
    pub(in crate::meter::dlms) fn forget_names(&mut self) {
        self.names = None;
    }
}

/// The meter's short names, which its object list tells; the list is read once.
///
/// # Errors
/// As [`ShortNames::load`].
pub(in crate::meter::dlms) async fn names<'a>(
    association: &'a mut Association,
    line: &mut Line,
) -> Result<&'a ShortNames, MeterError> {
    let names = match association.names.take() {
        Some(names) => names,
        None => ShortNames::load(association, line).await?,
    };
    Ok(association.names.insert(names))
}

/// Reads an attribute, or the part of it that a selector and its parameter choose, by its short name.
///
/// # Errors
/// As [`read`]; an object that the meter does not have is in the answer.
pub(in crate::meter::dlms) async fn read_attribute(
    association: &mut Association,
    line: &mut Line,
    attribute: AttributeDescriptor,
    part: Option<(u8, &DataBuf)>,
) -> Result<Answer, MeterError> {
    match attribute_name(association, line, attribute).await? {
        Some(name) => read(association, line, name, part).await,
        None => Ok(Err(DataAccessResult::ObjectUndefined)),
    }
}

/// Writes an attribute by its short name.
///
/// # Errors
/// As [`write`]; an object that the meter does not have is in the answer.
pub(in crate::meter::dlms) async fn write_attribute(
    association: &mut Association,
    line: &mut Line,
    attribute: AttributeDescriptor,
    value: &DataBuf,
    secret: bool,
) -> Result<Result<(), DataAccessResult>, MeterError> {
    match attribute_name(association, line, attribute).await? {
        Some(name) => write(association, line, name, value, secret).await,
        None => Ok(Err(DataAccessResult::ObjectUndefined)),
    }
}

async fn attribute_name(
    association: &mut Association,
    line: &mut Line,
    attribute: AttributeDescriptor,
) -> Result<Option<u16>, MeterError> {
    let AttributeDescriptor { class_id, instance_id, attribute_id } = attribute;
    let known = names(association, line).await?;
    Ok(u8::try_from(attribute_id).ok().and_then(|index| known.short_name(class_id, instance_id, index)))
}

/// Reads what a short name stands for, block by block when it is long; with a selector and its parameter only a
/// part, and with a method's short name it calls that.
///
/// # Errors
/// When the line fails or the answer can't be believed; a refusal by the meter is in the answer.
pub(in crate::meter::dlms) async fn read(
    association: &mut Association,
    line: &mut Line,
    name: u16,
    part: Option<(u8, &DataBuf)>,
) -> Result<Answer, MeterError> {
    let mut request = vec![0x05, 1];
    request.extend(match part {
        None => encode(&VariableAccess::VariableName(name)).map_err(damaged)?,
        Some((selector, parameter)) => {
            let parameter = encode(parameter).map_err(damaged)?;
            let [high, low] = name.to_be_bytes();
            [&[4, high, low, selector], &parameter[..]].concat()
        }
    });
    let mut blocks = Vec::new();
    let mut awaited = 1u16;
    loop {
        let answer = association.call(line, &request).await?;
        let Apdu::ReadResponse(response) = decode::<Apdu<'_>>(&answer).map_err(damaged)?.0 else {
            return Err(MeterError::Damaged("a read-response was expected, something else came".to_owned()));
        };
        match response.results.iter().next() {
            Some(Ok(ReadResult::Data(data))) => return owned(&data).map(Ok),
            Some(Ok(ReadResult::Error(refusal))) => return Ok(Err(refusal)),
            Some(Ok(ReadResult::Block { last_block, block_number, raw_data })) => {
                if block_number != awaited || blocks.len() + raw_data.len() > LONGEST {
                    return Err(MeterError::Damaged("a block came out of order, or the value never ends".to_owned()));
                }
                blocks.extend_from_slice(raw_data);
                if last_block {
                    return whole(&blocks);
                }
                awaited = awaited.wrapping_add(1);
                request =
                    [&[0x05, 1][..], &encode(&VariableAccess::BlockNumber(block_number)).map_err(damaged)?].concat();
            }
            _ => return Err(MeterError::Damaged("a read-response holds no result".to_owned())),
        }
    }
}

/// Writes an attribute, or calls a method that gives nothing back; no trace shows a secret.
///
/// # Errors
/// When the line fails or the answer can't be believed; a refusal by the meter is in the answer.
pub(in crate::meter::dlms) async fn write(
    association: &mut Association,
    line: &mut Line,
    name: u16,
    value: &DataBuf,
    secret: bool,
) -> Result<Result<(), DataAccessResult>, MeterError> {
    let target = encode(&VariableAccess::VariableName(name)).map_err(damaged)?;
    let request = [&[0x06, 1][..], &target, &[1], &encode(value).map_err(damaged)?].concat();
    let answer = match secret {
        true => association.call_secret(line, &request).await?,
        false => association.call(line, &request).await?,
    };
    match decode::<Apdu<'_>>(&answer).map_err(damaged)?.0 {
        Apdu::WriteResponse(response) => match response.results.iter().next() {
            Some(Ok(WriteResult::Success)) => Ok(Ok(())),
            Some(Ok(WriteResult::Error(refusal))) => Ok(Err(refusal)),
            _ => Err(MeterError::Damaged("a write-response holds no result".to_owned())),
        },
        _ => Err(MeterError::Damaged("a write-response was expected, something else came".to_owned())),
    }
}

/// What blocks were cut of: a list of one result, or the bare value as some meters send it.
fn whole(bytes: &[u8]) -> Result<Answer, MeterError> {
    if let Ok((list, [])) = decode::<List<'_, ReadResult<'_>>>(bytes)
        && let Some(Ok(first)) = list.iter().next()
    {
        match first {
            ReadResult::Data(data) => return owned(&data).map(Ok),
            ReadResult::Error(refusal) => return Ok(Err(refusal)),
            ReadResult::Block { .. } | ReadResult::BlockNumber(_) => {}
        }
    }
    let data = crate::wire::dlms::Data::decode(&mut crate::wire::dlms::Reader::new(bytes));
    let data = data.map_err(|error| MeterError::Damaged(error.to_string()))?;
    owned(&data).map(Ok)
}

fn owned(data: &crate::wire::dlms::Data<'_>) -> Result<DataBuf, MeterError> {
    DataBuf::from_data(data).map_err(|error| MeterError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_and_a_method_are_found_by_their_numbers() {
        let row = |base: i16, class, name: [u8; 6]| {
            DataBuf::Structure(vec![
                DataBuf::Long(base),
                DataBuf::LongUnsigned(class),
                DataBuf::Unsigned(0),
                DataBuf::OctetString(name.to_vec()),
            ])
        };
        let list = DataBuf::Array(vec![row(0x0640, 3, [1, 0, 1, 8, 0, 255]), row(-1536, 12, [0, 0, 40, 0, 0, 255])]);
        let names = ShortNames::of(&list).unwrap();
        let energy = LogicalName::new(1, 0, 1, 8, 0, 255);
        assert_eq!(names.short_name(3, energy, 2), Some(0x0648));
        assert_eq!(names.method(3, energy, 1), Some(0x0668));
        assert_eq!(names.method(12, LogicalName::new(0, 0, 40, 0, 0, 255), 8), Some(0xFA58));
        assert_eq!(names.short_name(4, energy, 2), None);
        assert_eq!(names.short_name(3, energy, 0), None);
        assert_eq!(ShortNames::of(&DataBuf::Null), None);
    }
}
