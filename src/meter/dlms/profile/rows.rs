//! The rows of a buffer as intervals: null-data compression, times without deviation, buffers sorted either way.
//!
//! A null stands for the value of the row before it, a null time for that row's time and one capture period (IEC
//! 62056-6-2, clause 4.3.6.2.2); before the first value of a column, and behind a row that can't be understood, nothing
//! is known.

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

/// The rows of a buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Those that were wanted, in the order of the buffer.
    pub(super) rows: Vec<Row>,
    /// How many have no time that can be known, or other columns.
    pub(super) left_out: usize,
}

/// The rows that ended after the one and not later than the other time.
///
/// # Errors
/// [`MeterError::Damaged`] when nothing in the buffer fits the columns, or no row has a time that can be known.
pub(super) fn read(
    buffer: &Data<'_>,
    columns: &[Column],
    rules: &Rules,
    (after, until): (Timestamp, Timestamp),
) -> Result<Rows, MeterError> {
    let times = times(buffer, columns, rules)?;
    let ends = placed(&times, rules);
    let left_out = ends.iter().filter(|end| end.is_none()).count();
    let mut last: Vec<Cell<'_>> = vec![Data::Null; columns.len()];
    let mut rows = Vec::new();
    let (mut number, mut given) = (0, 0usize);
    each(buffer, columns.len(), &mut |cells| {
        match cells {
            None => last.fill(Data::Null),
            Some(cells) => {
                let told = last.iter_mut().zip(cells).filter(|(_, cell)| !matches!(cell, Data::Null));
                told.for_each(|(last, cell)| *last = *cell);
            }
        }
        let time = times.times.get(number).copied().flatten();
        let end = ends.get(number).copied().flatten();
        number += 1;
        if let Some((time, end)) = time.zip(end).filter(|(_, end)| *end > after && *end <= until) {
            given += columns.len();
            if given > MOST_VALUES {
                return Err(damage("the piece has more values than weir takes at once"));
            }
            rows.push(row(end, time, columns, &last));
        }
        Ok(())
    })?;
    Ok(Rows { rows, left_out })
}

/// The ends of all rows, in the order of the buffer; `None` for one whose time can't be known.
///
/// # Errors
/// [`MeterError::Damaged`] when the buffer is none.
pub(super) fn ends(buffer: &Data<'_>, columns: &[Column], rules: &Rules) -> Result<Vec<Option<Timestamp>>, MeterError> {
    Ok(placed(&found(buffer, columns, rules)?, rules))
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

/// What a row says of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Told(DateTime),
    /// A period after the row before it.
    Null,
    /// Nothing that could be known.
    Broken,
}

/// The times of all rows.
struct Times {
    times: Vec<Option<DateTime>>,
    /// They run back in time.
    down: bool,
    /// Why a row has none.
    fault: Option<MeterError>,
}

/// The time in every row, as the meter wrote it or as the one before and the period tell.
fn times(buffer: &Data<'_>, columns: &[Column], rules: &Rules) -> Result<Times, MeterError> {
    let times = found(buffer, columns, rules)?;
    match times.fault {
        Some(fault) if times.times.iter().all(Option::is_none) => Err(fault),
        fault => Ok(Times { fault, ..times }),
    }
}

fn found(buffer: &Data<'_>, columns: &[Column], rules: &Rules) -> Result<Times, MeterError> {
    let clock = columns.iter().position(Column::is_time);
    let clock = clock.ok_or_else(|| MeterError::Refused("the profile has no column with the time".to_owned()))?;
    let mut marks: Vec<Mark> = Vec::new();
    let mut fault = None;
    each(buffer, columns.len(), &mut |cells| {
        if marks.len() >= MOST_ROWS {
            return Err(damage("the piece has more rows than weir takes at once"));
        }
        marks.push(match cells.map(|cells| cells.get(clock)) {
            Some(Some(Data::Null)) => Mark::Null,
            Some(Some(cell)) => match moment(cell).filter(|time| Face::of(*time).is_some()) {
                Some(time) => Mark::Told(time),
                None => {
                    fault.get_or_insert_with(|| damage("the time of a row has wildcards or is none"));
                    Mark::Broken
                }
            },
            Some(None) | None => {
                let other = || {
                    MeterError::Damaged(format!("a row has other columns than the {} that are captured", columns.len()))
                };
                fault.get_or_insert_with(other);
                Mark::Broken
            }
        });
        Ok(())
    })?;
    let down = runs_down(&marks, rules);
    let step = if down { -rules.period } else { rules.period };
    let mut before: Option<DateTime> = None;
    let mut times = Vec::with_capacity(marks.len());
    for mark in marks {
        before = match mark {
            Mark::Told(time) => Some(time),
            Mark::Null => before.map(|before| plus(before, step)),
            Mark::Broken => None,
        };
        times.push(before);
    }
    if times.first().is_some_and(Option::is_none) {
        fault.get_or_insert_with(|| damage("the first row has no time"));
    }
    Ok(Times { times, down, fault })
}

/// Whether rows come newest first: what they show themselves counts more than what the meter says of them. Rows as far
/// apart in time as in the buffer say most: a clock that was set looks like the other order.
fn runs_down(marks: &[Mark], rules: &Rules) -> bool {
    let told = marks.iter().zip(0i64..).filter_map(|(mark, place)| match mark {
        Mark::Told(time) => Some((place, Face::of(*time)?.utc(rules.east))),
        Mark::Null | Mark::Broken => None,
    });
    let (mut exact, mut rough) = (0i64, 0i64);
    let mut before: Option<(i64, i64)> = None;
    for (place, time) in told {
        if let Some((earlier, last)) = before {
            let (rows, passed) = (place - earlier, time.saturating_sub(last));
            if rules.period > 0 && passed.abs() == rows.saturating_mul(rules.period) {
                exact += passed.signum();
            }
            rough += passed.signum();
        }
        before = Some((place, time));
    }
    match (exact, rough) {
        (0, 0) => rules.newest_first,
        // Nulls are told by the order only, which a single jump must not decide.
        (0, _) if rules.period > 0 && marks.contains(&Mark::Null) => rules.newest_first,
        (0, rough) => rough < 0,
        (exact, _) => exact < 0,
    }
}

/// The end of each row in UTC.
fn placed(times: &Times, rules: &Rules) -> Vec<Option<Timestamp>> {
    let faces: Vec<Option<Face>> = times.times.iter().map(|time| time.and_then(Face::of)).collect();
    let known: Vec<Face> = faces.iter().copied().flatten().collect();
    let certain = known.iter().all(|face| face.west.is_some());
    let guessed = if certain { Vec::new() } else { guessed(&known, times.down, rules) };
    let length = if rules.begin { rules.period } else { 0 };
    let mut guesses = guessed.into_iter();
    let end = |face: Option<Face>| {
        let face = face?;
        let guess = guesses.next().filter(|_| face.west.is_none());
        let utc = guess.unwrap_or_else(|| face.utc(rules.east));
        Some(Timestamp::from_millis(utc.saturating_add(length).saturating_mul(1000)))
    };
    faces.into_iter().map(end).collect()
}

/// The times of rows that tell no deviation, by their season, their order and the rule of the settings.
fn guessed(faces: &[Face], down: bool, rules: &Rules) -> Vec<i64> {
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

/// What is done with a row.
type Take<'t, 'd> = &'t mut dyn FnMut(Option<&[Cell<'d>]>) -> Result<(), MeterError>;

/// Gives every row of a buffer with its cells; `None` for a row that has others, as those have that were written before
/// the list of what is captured was changed.
fn each<'d>(buffer: &Data<'d>, columns: usize, take: Take<'_, 'd>) -> Result<(), MeterError> {
    let other = |found: usize| MeterError::Damaged(format!("a row has {found} columns where {columns} are captured"));
    let mut cells: Vec<Cell<'d>> = Vec::with_capacity(columns);
    match *buffer {
        Data::Array(rows) => {
            let (mut fit, mut found) = (0usize, None);
            for row in rows.iter() {
                let row = row.map_err(|_| damage("a row is cut off"))?;
                let Some(row) = row.as_structure() else {
                    found = Some(1);
                    take(None)?;
                    continue;
                };
                if row.len() != columns {
                    found = Some(row.len());
                    take(None)?;
                    continue;
                }
                fit += 1;
                cells.clear();
                for cell in row.iter() {
                    cells.push(cell.map_err(|_| damage("a row is cut off"))?);
                }
                take(Some(&cells))?;
            }
            found.filter(|_| fit == 0).map_or(Ok(()), |found| Err(other(found)))
        }
        Data::CompactArray(rows) => {
            let mut failed = None;
            let mut number = 0;
            let walked = rows.for_each_leaf(|leaf| {
                let mut flush = |cells: &mut Vec<Cell<'d>>| {
                    let result = if cells.len() == columns { take(Some(cells)) } else { Err(other(cells.len())) };
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
                (None, Ok(())) if cells.len() == columns => take(Some(&cells)),
                (None, Ok(())) => Err(other(cells.len())),
            }
        }
        // Some tell so that there are no rows.
        Data::Null => Ok(()),
        _ => Err(damage("the buffer is no array of rows")),
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
