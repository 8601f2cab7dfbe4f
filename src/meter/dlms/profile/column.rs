//! The columns of a profile: what its attribute capture_objects lists.

use super::super::known::Known;
use super::super::object::{Scaler, Target, is_status};
use super::super::service::{Content, Services, damage};
use crate::meter::MeterError;
use crate::wire::dlms::{AttributeDescriptor, Data, LogicalName};

/// The most columns of a profile.
const MOST: usize = 256;

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// What is captured.
    pub(super) attribute: AttributeDescriptor,
    /// The element of the attribute that is captured; 0 for all of it.
    pub(super) index: u16,
    /// What the column's values are called.
    pub(super) name: String,
    /// How they are scaled; `None` when the meter does not tell.
    pub(super) scaler: Option<Scaler>,
}

impl Column {
    /// Whether it is the time of the row.
    pub(super) const fn is_time(&self) -> bool {
        self.attribute.class_id == 8 && self.attribute.attribute_id == 2 && self.index == 0
    }

    /// Whether it is the status of the row.
    pub(super) const fn is_status(&self) -> bool {
        is_status(self.attribute.instance_id)
    }

    fn of(item: &Data<'_>) -> Option<Self> {
        let fields = item.as_structure()?;
        let number = |n| fields.get(n).ok().and_then(|field: Data<'_>| field.as_i64());
        let name = fields.get(1).ok()?.as_obis()?;
        let attribute = AttributeDescriptor::new(number(0)?.try_into().ok()?, name, number(2)?.try_into().ok()?);
        // Meters of before the standard's data_index leave it out.
        let index = number(3).unwrap_or(0).try_into().ok()?;
        let target = Target { class: None, name, attribute: Some(attribute.attribute_id) };
        let element = if index == 0 { String::new() } else { format!("#{index}") };
        Some(Self { attribute, index, name: format!("{target}{element}"), scaler: None })
    }
}

/// Reads capture_objects and the scalers of what it lists.
///
/// # Errors
/// What the line said; [`MeterError::Damaged`] when it is no such list.
pub(super) async fn columns(
    services: &mut Services<'_>,
    known: &mut Known,
    coded: &Content,
) -> Result<Vec<Column>, MeterError> {
    let mut columns = parse(&coded.data()).ok_or_else(|| damage("the list of captured objects is none"))?;
    known.learn_scalers(services, columns.iter().map(|column| column.attribute)).await?;
    // The values of earlier billing periods have the scaler of the present one.
    let present = |attribute: AttributeDescriptor| {
        let [a, b, c, d, e, _] = *attribute.instance_id.as_bytes();
        AttributeDescriptor { instance_id: LogicalName::new(a, b, c, d, e, 255), ..attribute }
    };
    let unknown = columns.iter().filter(|c| known.scaler(&c.attribute).is_none());
    let unknown: Vec<_> = unknown.map(|column| present(column.attribute)).collect();
    known.learn_scalers(services, unknown.into_iter()).await?;
    for column in &mut columns {
        let own = if column.index > 0 { Some(Scaler::PLAIN) } else { known.scaler(&column.attribute) };
        column.scaler = own.or_else(|| known.scaler(&present(column.attribute)));
    }
    Ok(columns)
}

/// The columns without their scalers.
pub(super) fn parse(list: &Data<'_>) -> Option<Vec<Column>> {
    let items = list.as_array().filter(|items| (1..=MOST).contains(&items.len()))?;
    items.iter().map(|item| Column::of(&item.ok()?)).collect()
}
