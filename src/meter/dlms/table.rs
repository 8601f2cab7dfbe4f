//! The rows of a buffer or of a list, for `weir dlms`: who looks at one wants a table, not brackets.

use super::object::{Scaler, class_name, scaled, shown};
use crate::wire::dlms::{CodecError, CodecFault, Data};

/// The most rows: what a person looks at, and an answer of the agent has room for.
const MOST: usize = 4000;

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// What it is called, with its unit.
    pub(super) name: String,
    /// How its numbers are scaled.
    pub(super) scaler: Scaler,
}

impl Head {
    fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), scaler: Scaler::PLAIN }
    }
}

/// A value that is a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// A name for each column.
    pub(super) columns: Vec<String>,
    /// The cells; `None` for no value.
    pub(super) rows: Vec<Vec<Option<String>>>,
    /// How many rows there are besides.
    pub(super) more: usize,
}

/// The table in the value of an attribute; `None` when it is none. `heads` are those of a profile's buffer.
pub(super) fn of(class: u16, attribute: i8, data: &Data<'_>, heads: Vec<Head>) -> Option<Table> {
    let names: &[&str] = match (class, attribute) {
        (15, 2) => &["class", "version", "object", "access rights"],
        (12, 2) => &["short name", "class", "version", "object"],
        (7, 3) | (40, 2) => &["class", "object", "attribute", "element"],
        _ => &[],
    };
    let heads = if heads.is_empty() { names.iter().map(|name| Head::plain(name)).collect() } else { heads };
    let mut table = Table { columns: Vec::new(), rows: Vec::new(), more: 0 };
    match data {
        Data::Array(items) => {
            for item in items.iter().flatten() {
                let cells = item.as_structure()?;
                if table.is_full() {
                    continue;
                }
                let cell = |(at, cell): (usize, Data<'_>)| cell_text(&cell, heads.get(at));
                table.rows.push(cells.iter().flatten().enumerate().map(cell).collect());
            }
        }
        Data::CompactArray(array) => {
            let mut now = None;
            let walked = array.for_each_leaf(|leaf| {
                if now.replace(leaf.row) != Some(leaf.row) && !table.is_full() {
                    table.rows.push(Vec::new());
                }
                let Some(row) = table.rows.last_mut().filter(|_| table.more == 0) else { return Ok(()) };
                row.push(cell_text(&leaf.value, heads.get(row.len())));
                // A row is no wider than a profile can be.
                if row.len() > 256 { Err(CodecError::new(CodecFault::WorkExceeded, 0)) } else { Ok(()) }
            });
            walked.ok()?;
        }
        _ => return None,
    }
    let width = table.rows.iter().map(Vec::len).max().filter(|width| *width > 0)?;
    let name = |at: usize| heads.get(at).map_or_else(|| (at + 1).to_string(), |head| head.name.clone());
    table.columns = (0..width).map(name).collect();
    if matches!((class, attribute), (15, 2) | (7, 3) | (40, 2)) {
        table.name_classes(0);
    }
    Some(table)
}

impl Table {
    /// Whether it takes no further row; then the row is counted.
    fn is_full(&mut self) -> bool {
        let full = self.rows.len() >= MOST;
        self.more += usize::from(full);
        full
    }

    /// Puts what a class is called behind its number.
    fn name_classes(&mut self, column: usize) {
        for cell in self.rows.iter_mut().filter_map(|row| row.get_mut(column)).flatten() {
            let name = cell.parse().map_or("", |class| class_name(class, 0));
            if !name.is_empty() {
                *cell = format!("{cell} {name}");
            }
        }
    }
}

fn cell_text(data: &Data<'_>, head: Option<&Head>) -> Option<String> {
    match (head, data.as_obis()) {
        (_, Some(name)) if matches!(name.as_bytes(), [0..=15, .., 255]) => Some(name.to_string()),
        (Some(head), _) => scaled(data, head.scaler),
        (None, _) => shown(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dlms::{DataBuf, decode, encode};

    fn table(class: u16, attribute: i8, value: &DataBuf, heads: Vec<Head>) -> Option<Table> {
        let bytes = encode(value).unwrap();
        of(class, attribute, &decode::<Data<'_>>(&bytes).unwrap().0, heads)
    }

    fn listed(class: u16, name: [u8; 6]) -> DataBuf {
        let name = DataBuf::OctetString(name.to_vec());
        DataBuf::Structure(vec![DataBuf::LongUnsigned(class), DataBuf::Unsigned(0), name])
    }

    #[test]
    fn a_list_of_objects_names_classes_and_objects() {
        let list = DataBuf::Array(vec![listed(3, [1, 0, 1, 8, 0, 255]), listed(40_000, [0, 0, 96, 1, 0, 255])]);
        let found = table(15, 2, &list, Vec::new()).unwrap();
        assert_eq!(found.columns, ["class", "version", "object"]);
        let cells = |row: &[Option<String>]| row.iter().flatten().cloned().collect::<Vec<_>>();
        assert_eq!(cells(&found.rows[0]), ["3 Register", "0", "1-0:1.8.0*255"]);
        assert_eq!(cells(&found.rows[1]), ["40000", "0", "0-0:96.1.0*255"]);
    }

    #[test]
    fn numbers_of_a_buffer_are_scaled_and_missing_ones_stay_missing() {
        let head = |name: &str, power| Head { name: name.to_owned(), scaler: Scaler { power, unit: 30 } };
        let row = DataBuf::Structure(vec![DataBuf::Null, DataBuf::DoubleLongUnsigned(1_234_567)]);
        let found = table(7, 2, &DataBuf::Array(vec![row]), vec![head("time", 0), head("energy Wh", -1)]).unwrap();
        assert_eq!(found.columns, ["time", "energy Wh"]);
        assert_eq!(found.rows, [[None, Some("123456.7".to_owned())]]);
    }

    #[test]
    fn what_is_no_table_stays_a_text_and_a_long_one_is_cut() {
        let number = DataBuf::Unsigned(1);
        assert_eq!(table(1, 2, &number, Vec::new()), None);
        assert_eq!(table(1, 2, &DataBuf::Array(vec![number.clone()]), Vec::new()), None);
        assert_eq!(table(1, 2, &DataBuf::Array(Vec::new()), Vec::new()), None);
        let long = DataBuf::Array(vec![DataBuf::Structure(vec![number]); MOST + 3]);
        let found = table(7, 2, &long, Vec::new()).unwrap();
        assert_eq!((found.rows.len(), found.more), (MOST, 3));
        let compact = decode::<Data<'_>>(&[19, 2, 2, 17, 18, 6, 1, 0, 2, 3, 0, 4]).unwrap().0;
        assert_eq!(of(7, 2, &compact, Vec::new()).unwrap().rows[1], [Some("3".to_owned()), Some("4".to_owned())]);
    }
}
