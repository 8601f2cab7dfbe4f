//! The rows of a buffer as intervals: null-data compression, times without deviation, buffers sorted either way.
//!
//! A null stands for the value of the row before it, a null time for that row's time and one capture period (IEC
//! 62056-6-2, clause 4.3.6.2.2); before the first value of a column nothing is known.

use super::super::object::{Face, moment, plus, scaled, shown};
use super::super::service::damage;
use super::Cell;
use super::column::Column;
use crate::meter::MeterError;
use crate::meter::iec62056::SummerTime;
use crate::meter::iec62056::season::Clock;
use crate::model::{Quality, Timestamp, Value};
use crate::wire::dlms::{CodecError, CodecFault, Data, DateTime};
use crate::wire::iec62056::profile::{MeterTime, Record};

/// The most rows of one answer.
const MOST_ROWS: usize = 50_000;
/// The most values that one answer may be made of.
const MOST_VALUES: usize = 100_000;

/// How rows are placed in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The capture period in seconds; 0 for a log.
    pub(super) period: i64,
    /// Rows come newest first.
    pub(super) newest_first: bool,
    /// The time of a row is the begin of its interval.
    pub(super) begin: bool,
    /// Minutes that the meter's clock is east of UTC, without summer time, where it does not say it.
    pub(super) east: i16,
    /// Who knows of summer time where the meter does not say it.
    pub(super) summer_time: SummerTime,
    /// What was asked for begins here: it decides in the hour that comes twice when nothing else does.
    pub(super) after: Timestamp,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The end of its interval, in UTC.
    pub(super) end: Timestamp,
    /// The meter's time in it.
    pub(super) time: DateTime,
    /// Its status, as hexadecimal digits where it is a number; empty without one.
    pub(super) status: String,
    /// Its other columns.
    pub(super) values: Vec<Value>,
}

/// The rows that ended after the one and not later than the other time, in the order of the buffer.
///
/// # Errors
/// [`MeterError::Damaged`] when the buffer does not fit the columns, or a row's time can't be known.
pub(super) fn read(
    buffer: &Data<'_>,
    columns: &[Column],
    rules: &Rules,
    (after, until): (Timestamp, Timestamp),
) -> Result<Vec<Row>, MeterError> {
    let times = times(buffer, columns, rules)?;
    let ends = placed(&times, rules);
    let mut last: Vec<Cell<'_>> = vec![Data::Null; columns.len()];
    let mut rows = Vec::new();
    let (mut number, mut given) = (0, 0usize);
    each(buffer, columns.len(), &mut |cells| {
        for (last, cell) in last.iter_mut().zip(cells) {
            if !matches!(cell, Data::Null) {
                *last = *cell;
            }
        }
        let (time, end) = (times.get(number), ends.get(number));
        number += 1;
        if let Some((time, end)) = time.zip(end).filter(|(_, end)| **end > after && **end <= until) {
            given += columns.len();
            if given > MOST_VALUES {
                return Err(damage("the piece has more values than weir takes at once"));
            }
            rows.push(row(*end, *time, columns, &last));
        }
        Ok(())
    })?;
    Ok(rows)
}

/// The ends of all rows, in the order of the buffer.
///
/// # Errors
/// As [`read`].
pub(super) fn ends(buffer: &Data<'_>, columns: &[Column], rules: &Rules) -> Result<Vec<Timestamp>, MeterError> {
    Ok(placed(&times(buffer, columns, rules)?, rules))
}

fn row(end: Timestamp, time: DateTime, columns: &[Column], cells: &[Cell<'_>]) -> Row {
    let mut row = Row { end, time, status: String::new(), values: Vec::with_capacity(columns.len()) };
    let mut placed = false;
    for (column, cell) in columns.iter().zip(cells) {
        if column.is_time() && !std::mem::replace(&mut placed, true) {
            continue;
        }
        if column.is_status() {
            if !row.status.is_empty() {
                row.status.push(' ');
            }
            row.status.push_str(&status(cell));
            continue;
        }
        let value = match column.scaler {
            Some(scaler) => scaled(cell, scaler),
            None => shown(cell),
        };
        let quality = match (&value, column.scaler) {
            (Some(_), Some(_)) => Quality::Good,
            (None, _) if matches!(cell, Data::Null) => Quality::Unavailable,
            _ => Quality::Invalid,
        };
        let unit = column.scaler.map_or_else(String::new, |scaler| scaler.unit().to_owned());
        row.values.push(Value { name: column.name.clone(), value, unit, quality });
    }
    row
}

/// A status as the meter's bytes, in hexadecimal digits; bits stay bits.
fn status(cell: &Cell<'_>) -> String {
    match *cell {
        Data::Unsigned(value) | Data::Enum(value) => format!("{value:02x}"),
        Data::LongUnsigned(value) => format!("{value:04x}"),
        Data::DoubleLongUnsigned(value) => format!("{value:08x}"),
        Data::Long64Unsigned(value) => format!("{value:016x}"),
        Data::OctetString(bytes) => data_encoding::HEXLOWER.encode(bytes),
        _ => shown(cell).unwrap_or_default(),
    }
}

/// The time in every row, as the meter wrote it or as the one before and the period tell.
fn times(buffer: &Data<'_>, columns: &[Column], rules: &Rules) -> Result<Vec<DateTime>, MeterError> {
    let clock = columns.iter().position(Column::is_time);
    let clock = clock.ok_or_else(|| MeterError::Refused("the profile has no column with the time".to_owned()))?;
    let mut written: Vec<Option<DateTime>> = Vec::new();
    each(buffer, columns.len(), &mut |cells| {
        if written.len() >= MOST_ROWS {
            return Err(damage("the piece has more rows than weir takes at once"));
        }
        written.push(match cells.get(clock) {
            Some(Data::Null) | None => None,
            Some(cell) => {
                let time = moment(cell).filter(|time| Face::of(*time).is_some());
                Some(time.ok_or_else(|| damage("the time of a row has wildcards or is none"))?)
            }
        });
        Ok(())
    })?;
    let step = if runs_down(&written, rules) { -rules.period } else { rules.period };
    let mut before: Option<DateTime> = None;
    let mut times = Vec::with_capacity(written.len());
    for time in written {
        let time = time.or_else(|| before.map(|before| plus(before, step)));
        let time = time.ok_or_else(|| damage("the first row has no time"))?;
        before = Some(time);
        times.push(time);
    }
    Ok(times)
}

/// Whether rows come newest first: what they show themselves counts more than what the meter says of them.
fn runs_down(written: &[Option<DateTime>], rules: &Rules) -> bool {
    let faces = || written.iter().flatten().filter_map(|time| Face::of(*time)).map(|face| face.utc(rules.east));
    match (faces().next(), faces().next_back()) {
        (Some(first), Some(last)) if first != last => first > last,
        _ => rules.newest_first,
    }
}

/// The end of each row in UTC.
fn placed(times: &[DateTime], rules: &Rules) -> Vec<Timestamp> {
    let faces: Vec<Face> = times.iter().filter_map(|time| Face::of(*time)).collect();
    let known = |face: &Face| face.west.map(|_| face.utc(rules.east));
    let guessed = if faces.iter().all(|face| face.west.is_some()) { Vec::new() } else { guessed(&faces, rules) };
    let length = if rules.begin { rules.period } else { 0 };
    let end = |(n, face): (usize, &Face)| {
        let utc = known(face).or_else(|| guessed.get(n).copied()).unwrap_or_else(|| face.utc(rules.east));
        Timestamp::from_millis(utc.saturating_add(length).saturating_mul(1000))
    };
    faces.iter().enumerate().map(end).collect()
}

/// The times of rows that tell no deviation, by their season, their order and the rule of the settings.
fn guessed(faces: &[Face], rules: &Rules) -> Vec<i64> {
    let record = |face: &Face| Record {
        id: String::new(),
        time: MeterTime {
            season: face.summer.map(u8::from),
            face: Timestamp::from_millis(face.seconds.saturating_mul(1000)),
            seconds: true,
        },
        status: String::new(),
        minutes: None,
        channels: Vec::new(),
        rows: Vec::new(),
    };
    let first = faces.first().map(|face| face.seconds);
    let down = match (first, faces.last().map(|face| face.seconds)) {
        (Some(first), Some(last)) if first != last => first > last,
        _ => rules.newest_first,
    };
    let mut records: Vec<Record> = faces.iter().map(record).collect();
    if down {
        records.reverse();
    }
    let clock = Clock { offset: i64::from(rules.east) * 60, summer_time: rules.summer_time };
    let mut starts = clock.starts(&records, rules.period, rules.after);
    if down {
        starts.reverse();
    }
    starts
}

/// Gives every row of a buffer with its cells.
fn each<'d>(
    buffer: &Data<'d>,
    columns: usize,
    take: &mut dyn FnMut(&[Cell<'d>]) -> Result<(), MeterError>,
) -> Result<(), MeterError> {
    let other = |found: usize| MeterError::Damaged(format!("a row has {found} columns where {columns} are captured"));
    let mut cells: Vec<Cell<'d>> = Vec::with_capacity(columns);
    match *buffer {
        Data::Array(rows) => {
            for row in rows.iter() {
                let row = row.ok().and_then(|row| row.as_structure()).ok_or_else(|| damage("a row is none"))?;
                if row.len() != columns {
                    return Err(other(row.len()));
                }
                cells.clear();
                for cell in row.iter() {
                    cells.push(cell.map_err(|_| damage("a row is cut off"))?);
                }
                take(&cells)?;
            }
            Ok(())
        }
        Data::CompactArray(rows) => {
            let mut failed = None;
            let mut number = 0;
            let walked = rows.for_each_leaf(|leaf| {
                let mut flush = |cells: &mut Vec<Cell<'d>>| {
                    let result = if cells.len() == columns { take(cells) } else { Err(other(cells.len())) };
                    cells.clear();
                    result
                };
                let result = if leaf.row == number { Ok(()) } else { flush(&mut cells) };
                number = leaf.row;
                cells.push(leaf.value);
                match result {
                    Ok(()) if cells.len() <= columns => Ok(()),
                    result => {
                        failed = Some(result.err().unwrap_or_else(|| other(cells.len())));
                        Err(CodecError::new(CodecFault::WorkExceeded, 0))
                    }
                }
            });
            match (failed, walked) {
                (Some(error), _) => Err(error),
                (None, Err(_)) => Err(damage("a compact array does not fit its own description")),
                (None, Ok(())) if cells.is_empty() => Ok(()),
                (None, Ok(())) if cells.len() == columns => take(&cells),
                (None, Ok(())) => Err(other(cells.len())),
            }
        }
        _ => Err(damage("the buffer is no array of rows")),
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
