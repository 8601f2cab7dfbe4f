//! A profile generic (IEC 62056-6-2, clause 4.3.6): load profile, billing values or event log, read piece by piece.
//!
//! Invariants: the list of what is captured is compared in every association before the buffer is read, and again
//! behind it, whatever carried it: rows are never read with another list than the meter wrote them with; the time of an
//! interval is the one the meter wrote into its row; a row that can't be understood or placed is left out and told, and
//! keeps no other back. A meter that can't select by time is asked by entry numbers, one that can't do that either
//! gives its whole buffer.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::known::Known;
use super::object::{Face, Scaler, Target, moment};
use super::service::{Answer, Content, Services, damage, words};
use super::session::Client;
use super::table::Head;
use crate::meter::iec62056::{ProfileStamp, SummerTime};
use crate::meter::{MeterError, MeterSettings, Profile, ProfileReply};
use crate::model::{Interval, Timestamp};
use crate::os::line::Line;
use crate::wire::dlms::{AttributeDescriptor, ClockStatus, Conformance, Data, DataAccessResult, LogicalName};

mod column;
mod rows;
mod select;

use column::{Column, columns};
use rows::Rules;
use select::{Index, Search};

/// The class of a profile.
const CLASS: u16 = 7;
/// Whether the clock's summer time is enabled.
const SUMMER_ENABLED: AttributeDescriptor = AttributeDescriptor::new(8, LogicalName::new(0, 0, 1, 0, 0, 255), 8);
/// A buffer that was given whole serves for later pieces so long.
const FRESH: Duration = Duration::from_mins(10);
const HOUR: i64 = 3600;

/// How a part of the buffer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Range,
    Entries,
    Whole,
}

/// How one profile is asked for and understood.
pub(super) struct Plan {
    id: String,
    name: LogicalName,
    period: i64,
    stamp: ProfileStamp,
    summer_time: SummerTime,
    layout: Option<Layout>,
    way: Way,
    /// A selection by time was answered once.
    range_works: bool,
    whole: Option<(Instant, Content)>,
    index: Option<Index>,
    told_period: bool,
    told_rows: bool,
}

/// What the meter says of the profile.
struct Layout {
    coded: Content,
    columns: Vec<Column>,
    /// Seconds; 0 for a log.
    period: i64,
    /// Entries come newest first.
    newest_first: bool,
    /// The meter's clock changes to summer time.
    summer: bool,
    /// The deviation and status that the meter's clock shows now.
    west: Option<i16>,
    status: ClockStatus,
}

impl Plan {
    /// The plan of a meter with a load profile.
    ///
    /// # Errors
    /// One sentence when its id is none.
    pub(super) fn of(settings: &MeterSettings) -> Result<Option<Self>, String> {
        let Some(profile) = &settings.load_profile else { return Ok(None) };
        let target = Target::parse(&profile.id)?;
        if target.class.is_some_and(|class| class != CLASS) || target.attribute() != 2 {
            return Err(format!("\"{}\" is no profile: its class is 7 and its buffer is attribute 2", *profile.id));
        }
        Ok(Some(Self {
            id: profile.id.to_string(),
            name: target.name,
            period: i64::try_from(profile.period.as_secs()).unwrap_or(0),
            stamp: profile.stamp,
            summer_time: profile.summer_time,
            layout: None,
            way: Way::Range,
            range_works: false,
            whole: None,
            index: None,
            told_period: false,
            told_rows: false,
        }))
    }

    /// The profile's name.
    pub(super) const fn name(&self) -> LogicalName {
        self.name
    }

    const fn attribute(&self, number: i8) -> AttributeDescriptor {
        AttributeDescriptor::new(CLASS, self.name, number)
    }

    /// Takes that the meter is another one than it was.
    pub(super) fn forget(&mut self) {
        (self.layout, self.whole, self.index) = (None, None, None);
        (self.way, self.range_works) = (Way::Range, false);
    }

    /// Looks whether it is still the same meter and captures the same, and learns it anew when it does not.
    async fn look(
        &mut self,
        (services, known): (&mut Services<'_>, &mut Known),
        meter: &str,
    ) -> Result<(), MeterError> {
        let asked = [self.attribute(3), self.attribute(4), self.attribute(5), super::clock::TIME, SUMMER_ENABLED];
        for _ in 0..2 {
            let marks = known.marks();
            let (mut answers, outcome) = services.get_all(&[&asked[..], &marks].concat()).await;
            outcome?;
            if known.recognise(&answers.split_off(asked.len().min(answers.len()))) {
                services.forget();
                self.forget();
                continue;
            }
            return self.learn((services, known), meter, answers).await;
        }
        Err(damage("the meter's name or serial number is another one with every answer"))
    }

    async fn learn(
        &mut self,
        (services, known): (&mut Services<'_>, &mut Known),
        meter: &str,
        answers: Vec<Answer>,
    ) -> Result<(), MeterError> {
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or_else(|| damage("an answer is missing"));
        let coded = next()?.map_err(|why| MeterError::Refused(format!("what {} captures: {}", self.id, words(why))))?;
        let period = whole_number(&next()?).unwrap_or(self.period);
        let newest_first = matches!(whole_number(&next()?), Some(2 | 3));
        let time = next()?.ok().and_then(|time| moment(&time.data()));
        let west = time.and_then(Face::of).and_then(|face| face.west);
        let status = time.map_or(ClockStatus(0), |time| time.status);
        // One that does not say that it has no summer time may have one.
        let summer = next()?.ok().and_then(|summer| truth(&summer.data())).unwrap_or(true);
        if !self.layout.as_ref().is_some_and(|layout| layout.coded == coded && layout.period == period) {
            if self.layout.is_some() {
                info!(meter, profile = %self.id, "the meter captures something else in its profile now");
            }
            (self.whole, self.index) = (None, None);
        }
        self.layout = None;
        let columns = columns(services, known, &coded).await?;
        if period != self.period && !std::mem::replace(&mut self.told_period, true) {
            warn!(meter, profile = %self.id, meter_seconds = period, "the meter captures with another period than load_profile.period says; the meter's is taken");
        }
        self.layout = Some(Layout { coded, columns, period, newest_first, summer, west, status });
        Ok(())
    }

    /// One piece, in an association that is open.
    async fn piece(
        &mut self,
        (services, known): (&mut Services<'_>, &mut Known),
        (meter, east): (&str, i16),
        (after, until): (Timestamp, Timestamp),
    ) -> Result<Vec<Interval>, MeterError> {
        known.begin();
        for _ in 0..2 {
            self.look((services, known), meter).await?;
            let parts = self.buffer(services, east, after, until).await?;
            let Some(layout) = &self.layout else { break };
            if services.get(self.attribute(3)).await?.is_ok_and(|now| now != layout.coded) {
                debug!(meter, profile = %self.id, "what is captured changed during a transfer; it is read again");
                continue;
            }
            return self.intervals(&parts, (meter, east), (after, until));
        }
        Err(damage("what the meter captures changes with every look"))
    }

    fn rules(&self, layout: &Layout, east: i16, after: Timestamp) -> Rules {
        Rules {
            period: layout.period,
            newest_first: layout.newest_first,
            begin: self.stamp == ProfileStamp::Begin,
            east,
            summer_time: self.summer_time,
            after,
        }
    }

    fn intervals(
        &mut self,
        parts: &[Content],
        (meter, east): (&str, i16),
        (after, until): (Timestamp, Timestamp),
    ) -> Result<Vec<Interval>, MeterError> {
        let layout = self.layout.as_ref().ok_or_else(|| damage("the profile's columns are not known"))?;
        let rules = self.rules(layout, east, after);
        let interval = |row: rows::Row| Interval {
            meter: meter.to_owned(),
            profile: self.id.clone(),
            end: row.end,
            meter_time: row.time.to_string(),
            period: u32::try_from(layout.period).unwrap_or(0),
            status: row.status,
            values: row.values,
        };
        let (mut intervals, mut left_out): (Vec<Interval>, usize) = (Vec::new(), 0);
        for part in parts {
            let rows = rows::read(&part.data(), &layout.columns, &rules, (after, until))?;
            left_out += rows.left_out;
            intervals.extend(rows.rows.into_iter().map(interval));
        }
        intervals.sort_by_key(|interval| interval.end);
        if left_out > 0 && !std::mem::replace(&mut self.told_rows, true) {
            warn!(meter, profile = %self.id, rows = left_out, "rows of the profile are left out: they have no valid time, or other columns than are captured now");
        } else if left_out > 0 {
            debug!(meter, profile = %self.id, rows = left_out, "rows of the profile are left out");
        }
        Ok(intervals)
    }

    /// The part of the buffer that is wanted, or more.
    async fn buffer(
        &mut self,
        services: &mut Services<'_>,
        east: i16,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Content>, MeterError> {
        let buffer = self.attribute(2);
        let mut way = if services.grants(Conformance::SELECTIVE_ACCESS) { self.way } else { Way::Whole };
        loop {
            let one = |answer: Answer| answer.map(|content| vec![content]);
            let (answer, next) = match way {
                Way::Range => (self.by_range(services, east, after, until).await.map(one), Some(Way::Entries)),
                Way::Entries => (self.by_entries(services, east, after, until).await, Some(Way::Whole)),
                Way::Whole => {
                    if let Some((_, content)) = self.whole.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
                        return Ok(vec![content.clone()]);
                    }
                    (services.get(buffer).await.map(one), None)
                }
            };
            let why = match answer {
                Ok(Ok(parts)) => {
                    self.range_works |= way == Way::Range;
                    if !self.range_works {
                        self.way = way;
                    }
                    if let (Way::Whole, Some(content)) = (way, parts.first()) {
                        self.whole = Some((Instant::now(), content.clone()));
                    }
                    return Ok(parts);
                }
                Ok(Err(refusal)) => words(refusal),
                Err(MeterError::Refused(why)) => why,
                Err(error) => return Err(error),
            };
            debug!(profile = %self.id, ?way, %why, "the meter refuses this way to read its profile");
            way = next.ok_or_else(|| MeterError::Refused(format!("the buffer of {}: {why}", self.id)))?;
        }
    }

    async fn by_range(
        &self,
        services: &mut Services<'_>,
        east: i16,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Answer, MeterError> {
        let layout = self.layout.as_ref().ok_or_else(|| damage("the profile's columns are not known"))?;
        // A meter may compare times on the season of its own; what is outside is left out of the answer.
        let spread = if layout.summer { HOUR } else { 0 };
        let earlier = if self.stamp == ProfileStamp::Begin { layout.period } else { 0 };
        let shift =
            |at: Timestamp, by: i64| Timestamp::from_millis(at.as_millis().saturating_add(by.saturating_mul(1000)));
        let from = shift(after, 1 - spread - earlier);
        let to = shift(until, spread - earlier);
        let clock = layout.columns.iter().find(|column| column.is_time());
        let clock = clock.ok_or_else(|| MeterError::Refused("the profile has no column with the time".to_owned()))?;
        let east = match layout.west {
            None if layout.status.daylight_saving_active() && !layout.status.is_not_specified() => east + 60,
            _ => east,
        };
        let time = |at| super::object::coded(at, layout.west, east, layout.status);
        let part = select::range(clock, time(from), time(to))?;
        Ok(services.get_part(self.attribute(2), Some(&part)).await?.0)
    }

    async fn by_entries(
        &mut self,
        services: &mut Services<'_>,
        east: i16,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Result<Vec<Content>, DataAccessResult>, MeterError> {
        let layout = self.layout.as_ref().ok_or_else(|| damage("the profile's columns are not known"))?;
        let rules = self.rules(layout, east, after);
        let clock = layout.columns.iter().position(Column::is_time);
        let clock = clock.ok_or_else(|| MeterError::Refused("the profile has no column with the time".to_owned()))?;
        let mut search = Search {
            buffer: self.attribute(2),
            in_use: self.attribute(7),
            columns: &layout.columns,
            clock,
            narrow: true,
            rules,
        };
        let index = self.index.take();
        let (parts, index) = search.part(services, index, (after, until)).await?;
        self.index = index;
        Ok(parts)
    }
}

/// A truth, as meters code it.
fn truth(data: &Data<'_>) -> Option<bool> {
    data.as_bool().or_else(|| data.as_i64().map(|number| number != 0))
}

/// A number in an answer.
fn whole_number(answer: &Answer) -> Option<i64> {
    answer.as_ref().ok().and_then(|content| content.data().as_i64())
}

impl Client {
    async fn read_piece(
        &mut self,
        line: &mut Line,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Interval>, MeterError> {
        self.open(line).await?;
        let Some(mut plan) = self.plan.take() else { return Ok(Vec::new()) };
        let (meter, east, until_when) = (self.meter.clone(), self.east, self.until());
        let (mut services, known) = self.open_services(line);
        let piece = plan.piece((&mut services, known), (&meter, east), (after, until));
        let result = timeout_at(until_when, piece).await;
        self.plan = Some(plan);
        let advice = "raise it; a piece of a profile must fit into one session";
        let result = result.unwrap_or_else(|_| Err(self.overrun("the piece of the profile was not read", advice)));
        self.leave(line, result.as_ref().err()).await;
        result
    }
}

impl Profile for Client {
    fn read<'a>(&'a mut self, line: &'a mut Line, after: Timestamp, until: Timestamp) -> ProfileReply<'a> {
        Box::pin(self.read_piece(line, after, until))
    }
}

/// The names of captured objects, in words.
pub(super) fn captured(list: &Data<'_>) -> String {
    let names = column::parse(list).unwrap_or_default();
    names.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The columns of a buffer whose capture_objects these are, with their scalers.
///
/// # Errors
/// What the line said, or that it is no such list.
pub(super) async fn heads(
    services: &mut Services<'_>,
    known: &mut Known,
    list: &Content,
) -> Result<Vec<Head>, MeterError> {
    let head = |column: Column| {
        let scaler = column.scaler.unwrap_or(Scaler::PLAIN);
        Head { name: format!("{} {}", column.name, scaler.unit()).trim_end().to_owned(), scaler }
    };
    Ok(columns(services, known, list).await?.into_iter().map(head).collect())
}

/// The type of what a row holds, for the children of this room.
type Cell<'d> = Data<'d>;
