//! Selective access to a buffer (IEC 62056-6-2, clause 4.3.6.3): by the time of the rows, by their numbers.

use super::super::object::octets;
use super::super::service::{Answer, Content, Selection, Services, damage};
use super::column::Column;
use super::rows::{self, Rules};
use crate::meter::MeterError;
use crate::model::Timestamp;
use crate::wire::dlms::{AttributeDescriptor, DataBuf, DateTime};

/// Rows that are asked for besides those that are wanted: a capture during the transfer moves them.
const MARGIN: u32 = 2;
/// The most rows of a log that are asked for at once.
const PAGE: u32 = 500;

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

/// The rows of these numbers, the first being 1, both included, with all their columns.
///
/// # Errors
/// As [`range`].
pub(super) fn entries(from: u32, to: u32) -> Result<Selection, MeterError> {
    let (from, to) = (DataBuf::DoubleLongUnsigned(from), DataBuf::DoubleLongUnsigned(to));
    let columns = [DataBuf::LongUnsigned(1), DataBuf::LongUnsigned(0)];
    let parameters = Content::of(&DataBuf::Structure([vec![from, to], columns.to_vec()].concat()))?;
    Ok(Selection { selector: 2, parameters })
}

/// Finds rows by their times where only numbers can be asked for.
pub(super) struct Search<'a> {
    /// The buffer.
    pub(super) buffer: AttributeDescriptor,
    /// How many rows are in it.
    pub(super) in_use: AttributeDescriptor,
    /// Its columns.
    pub(super) columns: &'a [Column],
    /// How rows are read.
    pub(super) rules: Rules,
}

impl Search<'_> {
    /// The rows that ended after `after` and not later than `until`, and a few more.
    ///
    /// # Errors
    /// What the line or the meter said.
    pub(super) async fn part(
        &self,
        services: &mut Services<'_>,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<(Answer, u32), MeterError> {
        let count = match services.get(self.in_use).await? {
            Ok(count) => count.data().as_u64().and_then(|count| u32::try_from(count).ok()),
            Err(refusal) => return Ok((Err(refusal), 1)),
        };
        let count = count.ok_or_else(|| damage("the number of entries is none"))?;
        if count == 0 {
            return Ok((Ok(Content::of(&DataBuf::Array(Vec::new()))?), 1));
        }
        // How many rows, counted from the oldest, ended not later than `after`.
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            let end = match self.end(services, self.number(middle, count)).await? {
                Ok(end) => end,
                Err(refusal) => return Ok((Err(refusal), 1)),
            };
            if end <= after { low = middle + 1 } else { high = middle }
        }
        let wanted = match self.rules.period {
            0 => PAGE,
            period => {
                let periods = until.as_millis().saturating_sub(after.as_millis()) / 1000 / period;
                u32::try_from(periods).unwrap_or(PAGE)
            }
        };
        let first = low.saturating_sub(MARGIN);
        let last = low.saturating_add(wanted).saturating_add(MARGIN).min(count) - 1;
        if first > last {
            return Ok((Ok(Content::of(&DataBuf::Array(Vec::new()))?), 1));
        }
        let (one, other) = (self.number(first, count), self.number(last, count));
        services.get_part(self.buffer, Some(&entries(one.min(other), one.max(other))?)).await
    }

    /// The number of the row before which there are so many older ones.
    const fn number(&self, older: u32, count: u32) -> u32 {
        if self.rules.newest_first { count - older } else { older + 1 }
    }

    async fn end(
        &self,
        services: &mut Services<'_>,
        number: u32,
    ) -> Result<Result<Timestamp, crate::wire::dlms::DataAccessResult>, MeterError> {
        let (answer, _) = services.get_part(self.buffer, Some(&entries(number, number)?)).await?;
        match answer {
            Ok(content) => {
                let end = rows::ends(&content.data(), self.columns, &self.rules)?.first().copied();
                end.map(Ok).ok_or_else(|| damage("an entry that should be there is not"))
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }
}
