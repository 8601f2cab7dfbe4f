//! Selective access to a buffer (IEC 62056-6-2, clause 4.3.6.3): by the time of the rows, by their numbers.
//!
//! Where only numbers can be asked for, rows are found by their times: at once in a buffer from whose first to whose
//! last row as many periods passed as it has rows, when the rows around them bear that out; else, as when the clock was
//! set or the power was off, by an index of the times of all rows, which is read alone and serves for later pieces.

use std::time::Duration;

use tokio::time::Instant;

use super::super::object::octets;
use super::super::service::{Answer, Content, Selection, Services, damage};
use super::column::Column;
use super::rows::{self, Rules};
use crate::meter::MeterError;
use crate::model::Timestamp;
use crate::wire::dlms::{AttributeDescriptor, DataAccessResult, DataBuf, DateTime};

/// Rows that are asked for besides those that are wanted: a capture during the transfer moves them.
const MARGIN: u32 = 2;
/// The most times that are asked for at once.
const PAGE: u32 = 500;
/// The most rows that an index is made of.
const MOST: u32 = 50_000;
/// Rows that are nearer to each other than this are asked for together.
const NEAR: u32 = 8;
/// An index serves so long.
const FRESH: Duration = Duration::from_mins(10);

/// The rows from one time to another, both included, with all their columns.
///
/// # Errors
/// [`MeterError::Order`] when it can't be coded.
pub(super) fn range(clock: &Column, from: DateTime, to: DateTime) -> Result<Selection, MeterError> {
    let clock = DataBuf::Structure(vec![
        DataBuf::LongUnsigned(clock.attribute.class_id),
        DataBuf::OctetString(clock.attribute.instance_id.as_bytes().to_vec()),
        DataBuf::Integer(clock.attribute.attribute_id),
        DataBuf::LongUnsigned(clock.index),
    ]);
    let all = DataBuf::Array(Vec::new());
    let parameters = Content::of(&DataBuf::Structure(vec![clock, octets(from), octets(to), all]))?;
    Ok(Selection { selector: 1, parameters })
}

/// The rows of these numbers, the first being 1, both included; one of their columns, counted from 1, or all.
///
/// # Errors
/// As [`range`].
pub(super) fn entries(from: u32, to: u32, column: Option<u16>) -> Result<Selection, MeterError> {
    let rows = [from, to].map(DataBuf::DoubleLongUnsigned);
    let columns = column.map_or([1, 0], |column| [column, column]).map(DataBuf::LongUnsigned);
    let parameters = Content::of(&DataBuf::Structure([rows, columns].concat()))?;
    Ok(Selection { selector: 2, parameters })
}

/// When the rows of a buffer ended, by their numbers.
#[derive(Debug)]
pub(super) struct Index {
    read: Instant,
    ends: Vec<Option<Timestamp>>,
}

impl Index {
    /// Whether it still is one of a buffer of so many rows with these first and last ones.
    fn serves(&self, count: u32, edges: (Option<Timestamp>, Option<Timestamp>)) -> bool {
        let mine = (self.ends.first().copied().flatten(), self.ends.last().copied().flatten());
        self.read.elapsed() < FRESH && self.ends.len() == count as usize && mine == edges
    }

    /// The numbers of the rows that are wanted, from and to, with a margin.
    fn runs(&self, after: Timestamp, until: Timestamp) -> Vec<(u32, u32)> {
        let count = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (number, end) in (1..=count).zip(&self.ends) {
            if end.is_none_or(|end| end <= after || end > until) {
                continue;
            }
            match runs.last_mut() {
                Some((_, to)) if number - *to <= NEAR => *to = number,
                _ => runs.push((number, number)),
            }
        }
        runs.iter().map(|(from, to)| (from.saturating_sub(MARGIN).max(1), (to + MARGIN).min(count))).collect()
    }
}

/// What came of a search: parts of the buffer that hold all rows that are wanted, and maybe an index for the next one.
type Found = (Result<Vec<Content>, DataAccessResult>, Option<Index>);

/// Finds rows by their times where only numbers can be asked for.
pub(super) struct Search<'a> {
    /// The buffer.
    pub(super) buffer: AttributeDescriptor,
    /// How many rows are in it.
    pub(super) in_use: AttributeDescriptor,
    /// Its columns.
    pub(super) columns: &'a [Column],
    /// The one with the time.
    pub(super) clock: usize,
    /// The meter is thought to be able to give one column.
    pub(super) narrow: bool,
    /// How rows are read.
    pub(super) rules: Rules,
}

impl Search<'_> {
    /// The rows that ended after the first time and not later than the second, and a few more.
    ///
    /// # Errors
    /// What the line or the meter said.
    pub(super) async fn part(
        &mut self,
        services: &mut Services<'_>,
        index: Option<Index>,
        (after, until): (Timestamp, Timestamp),
    ) -> Result<Found, MeterError> {
        let count = match services.get(self.in_use).await? {
            Ok(count) => count.data().as_u64().and_then(|count| u32::try_from(count).ok()),
            Err(refusal) => return Ok((Err(refusal), None)),
        };
        let count = count.ok_or_else(|| damage("the number of entries is none"))?;
        if count == 0 {
            return Ok((Ok(Vec::new()), None));
        }
        if count > MOST {
            return Err(damage("the profile has more rows than weir takes"));
        }
        let first = match self.ends(services, 1, 1).await? {
            Ok(ends) => ends.first().copied().flatten(),
            Err(refusal) => return Ok((Err(refusal), None)),
        };
        let last = match self.ends(services, count, count).await? {
            Ok(ends) => ends.first().copied().flatten(),
            Err(refusal) => return Ok((Err(refusal), None)),
        };
        if let Some(wanted) = self.regular(count, first.zip(last), (after, until)) {
            let Some((from, to)) = wanted else { return Ok((Ok(Vec::new()), None)) };
            match services.get_part(self.buffer, Some(&entries(from, to, None)?)).await?.0 {
                Ok(content) if self.bears_out(&content, (from, to, count), (after, until)) => {
                    return Ok((Ok(vec![content]), None));
                }
                Ok(_) => {}
                Err(refusal) => return Ok((Err(refusal), None)),
            }
        }
        let index = match index.filter(|index| index.serves(count, (first, last))) {
            Some(index) => index,
            None => match self.index(services, count).await? {
                Ok(index) => index,
                Err(refusal) => return Ok((Err(refusal), None)),
            },
        };
        let mut parts = Vec::new();
        for (from, to) in index.runs(after, until) {
            match services.get_part(self.buffer, Some(&entries(from, to, None)?)).await?.0 {
                Ok(content) => parts.push(content),
                Err(refusal) => return Ok((Err(refusal), None)),
            }
        }
        Ok((Ok(parts), Some(index)))
    }

    /// The numbers of the rows that are wanted in a buffer without gaps, from and to, with a margin; `Some(None)` when
    /// there are none.
    fn regular(
        &self,
        count: u32,
        edges: Option<(Timestamp, Timestamp)>,
        (after, until): (Timestamp, Timestamp),
    ) -> Option<Option<(u32, u32)>> {
        let (first, last) = edges?;
        let period = self.rules.period.checked_mul(1000).filter(|period| *period > 0)?;
        let (first, last) = (first.as_millis(), last.as_millis());
        if (last - first).abs() != i64::from(count - 1).checked_mul(period)? || (count > 1 && last == first) {
            return None;
        }
        let oldest = first.min(last);
        // How many rows, from the oldest, ended not later than that.
        let older = |at: Timestamp| {
            let periods = at.as_millis().saturating_sub(oldest).div_euclid(period).saturating_add(1);
            u32::try_from(periods.clamp(0, i64::from(count))).unwrap_or(count)
        };
        let (begin, end) = (older(after), older(until));
        if begin >= end {
            return Some(None);
        }
        let (begin, end) = (begin.saturating_sub(MARGIN), end.saturating_add(MARGIN).min(count));
        Some(Some(if first <= last { (begin + 1, end) } else { (count - end + 1, count - begin) }))
    }

    /// Whether these rows follow each other by the period, from before what is wanted to behind it.
    fn bears_out(
        &self,
        content: &Content,
        (from, to, count): (u32, u32, u32),
        (after, until): (Timestamp, Timestamp),
    ) -> bool {
        let Ok(ends) = rows::ends(&content.data(), self.columns, &self.rules) else { return false };
        let Some(ends) = ends.into_iter().collect::<Option<Vec<_>>>() else { return false };
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return false };
        let step = self.rules.period * 1000 * if first <= last { 1 } else { -1 };
        let even = ends.windows(2).all(|two| matches!(two, [a, b] if b.as_millis() - a.as_millis() == step));
        let (oldest, newest) = (first.min(last), first.max(last));
        let (at_first, at_last) = if step > 0 { (from == 1, to == count) } else { (to == count, from == 1) };
        even && ends.len() == (to - from + 1) as usize && (at_first || *oldest <= after) && (at_last || *newest > until)
    }

    async fn index(
        &mut self,
        services: &mut Services<'_>,
        count: u32,
    ) -> Result<Result<Index, DataAccessResult>, MeterError> {
        let mut ends = Vec::with_capacity(count as usize);
        let mut from = 1;
        while from <= count {
            let to = count.min(from + PAGE - 1);
            match self.ends(services, from, to).await? {
                Ok(some) => ends.extend(some),
                Err(refusal) => return Ok(Err(refusal)),
            }
            from = to + 1;
        }
        if ends.len() != count as usize {
            // It gives its whole buffer whatever is asked for: that way is left to who asks for all of it.
            return Err(MeterError::Refused("the meter gave other rows than it was asked for".to_owned()));
        }
        Ok(Ok(Index { read: Instant::now(), ends }))
    }

    /// When the rows of these numbers ended.
    async fn ends(
        &mut self,
        services: &mut Services<'_>,
        from: u32,
        to: u32,
    ) -> Result<Result<Vec<Option<Timestamp>>, DataAccessResult>, MeterError> {
        let column = u16::try_from(self.clock + 1).ok().filter(|_| self.narrow && self.columns.len() > 1);
        let mut answer: Answer = services.get_part(self.buffer, Some(&entries(from, to, column)?)).await?.0;
        if column.is_some() && answer.is_err() {
            // Some meters give whole rows only.
            self.narrow = false;
            answer = services.get_part(self.buffer, Some(&entries(from, to, None)?)).await?.0;
        }
        let content = match answer {
            Ok(content) => content,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let data = content.data();
        let clock = self.columns.get(self.clock..=self.clock).unwrap_or_default();
        // Some meters give whole rows whatever they are asked for.
        let ends = rows::ends(&data, clock, &self.rules).or_else(|_| rows::ends(&data, self.columns, &self.rules));
        // Rows that were captured with another list of columns have no time here.
        Ok(Ok(ends.unwrap_or_else(|_| vec![None; (to - from + 1) as usize])))
    }
}
