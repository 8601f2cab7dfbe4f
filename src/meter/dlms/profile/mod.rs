//! A profile generic (IEC 62056-6-2, clause 4.3.6): load profile, billing values or event log, read piece by piece.
//!
//! Invariants: the list of what is captured is compared in every association, and again after a buffer that came in
//! blocks: rows are never read with another list than the meter wrote them with; the time of an interval is the one the
//! meter wrote into its row. A meter that can't select by time is asked by entry numbers, one that can't do that
//! either gives its whole buffer.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::known::Known;
use super::object::{Face, Target, moment};
use super::service::{Answer, Content, Services, damage, words};
use super::session::Client;
use crate::meter::iec62056::{ProfileStamp, SummerTime};
use crate::meter::{MeterError, MeterSettings, Profile, ProfileReply};
use crate::model::{Interval, Timestamp};
use crate::os::line::Line;
use crate::wire::dlms::{AttributeDescriptor, ClockStatus, Conformance, Data, LogicalName};

mod column;
mod rows;
mod select;

use column::{Column, columns};
use rows::Rules;

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
    told_period: bool,
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
            told_period: false,
        }))
    }

    const fn attribute(&self, number: i8) -> AttributeDescriptor {
        AttributeDescriptor::new(CLASS, self.name, number)
    }

    /// Looks whether the meter still captures the same, and learns it anew when it does not.
    async fn look(
        &mut self,
        (services, known): (&mut Services<'_>, &mut Known),
        meter: &str,
    ) -> Result<(), MeterError> {
        let asked = [self.attribute(3), self.attribute(4), self.attribute(5), super::clock::TIME];
        let (answers, outcome) = services.get_all(&asked).await;
        outcome?;
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or_else(|| damage("an answer is missing"));
        let coded = next()?.map_err(|why| MeterError::Refused(format!("what {} captures: {}", self.id, words(why))))?;
        let period = whole_number(&next()?).unwrap_or(self.period);
        let newest_first = matches!(whole_number(&next()?), Some(2 | 3));
        let time = next()?.ok().and_then(|time| moment(&time.data()));
        let west = time.and_then(Face::of).and_then(|face| face.west);
        let status = time.map_or(ClockStatus(0), |time| time.status);
        if let Some(layout) = &mut self.layout
            && layout.coded == coded
            && layout.period == period
        {
            (layout.newest_first, layout.west, layout.status) = (newest_first, west, status);
            return Ok(());
        }
        if self.layout.is_some() {
            info!(meter, profile = %self.id, "the meter captures something else in its profile now");
        }
        self.whole = None;
        self.layout = None;
        let columns = columns(services, known, &coded).await?;
        let summer = services.get(SUMMER_ENABLED).await?;
        let summer = summer.is_ok_and(|summer| summer.data().as_bool().unwrap_or(false));
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
        for _ in 0..2 {
            self.look((services, known), meter).await?;
            let (content, blocks) = self.buffer(services, east, after, until).await?;
            let Some(layout) = &self.layout else { break };
            if blocks > 1 && services.get(self.attribute(3)).await?.is_ok_and(|now| now != layout.coded) {
                debug!(meter, profile = %self.id, "what is captured changed during a transfer; it is read again");
                continue;
            }
            return self.intervals(&content, (meter, east), (after, until));
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
        &self,
        content: &Content,
        (meter, east): (&str, i16),
        (after, until): (Timestamp, Timestamp),
    ) -> Result<Vec<Interval>, MeterError> {
        let layout = self.layout.as_ref().ok_or_else(|| damage("the profile's columns are not known"))?;
        let rules = self.rules(layout, east, after);
        let rows = rows::read(&content.data(), &layout.columns, &rules, (after, until))?;
        let interval = |row: rows::Row| Interval {
            meter: meter.to_owned(),
            profile: self.id.clone(),
            end: row.end,
            meter_time: row.time.to_string(),
            period: u32::try_from(layout.period).unwrap_or(0),
            status: row.status,
            values: row.values,
        };
        let mut intervals: Vec<Interval> = rows.into_iter().map(interval).collect();
        intervals.sort_by_key(|interval| interval.end);
        Ok(intervals)
    }

    /// The part of the buffer that is wanted, or more, and of how many blocks it was made.
    async fn buffer(
        &mut self,
        services: &mut Services<'_>,
        east: i16,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<(Content, u32), MeterError> {
        let buffer = self.attribute(2);
        let mut way = if services.grants(Conformance::SELECTIVE_ACCESS) { self.way } else { Way::Whole };
        loop {
            let (answer, next) = match way {
                Way::Range => (self.by_range(services, east, after, until).await, Some(Way::Entries)),
                Way::Entries => (self.by_entries(services, east, after, until).await, Some(Way::Whole)),
                Way::Whole => {
                    if let Some((at, content)) = self.whole.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
                        let _ = at;
                        return Ok((content.clone(), 1));
                    }
                    (services.get_part(buffer, None).await, None)
                }
            };
            let why = match answer {
                Ok((Ok(content), blocks)) => {
                    self.range_works |= way == Way::Range;
                    if !self.range_works {
                        self.way = way;
                    }
                    if way == Way::Whole {
                        self.whole = Some((Instant::now(), content.clone()));
                    }
                    return Ok((content, blocks));
                }
                Ok((Err(refusal), _)) => words(refusal),
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
    ) -> Result<(Answer, u32), MeterError> {
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
        services.get_part(self.attribute(2), Some(&part)).await
    }

    async fn by_entries(
        &self,
        services: &mut Services<'_>,
        east: i16,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<(Answer, u32), MeterError> {
        let layout = self.layout.as_ref().ok_or_else(|| damage("the profile's columns are not known"))?;
        let rules = self.rules(layout, east, after);
        let search =
            select::Search { buffer: self.attribute(2), in_use: self.attribute(7), columns: &layout.columns, rules };
        search.part(services, after, until).await
    }
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

/// The type of what a row holds, for the children of this room.
type Cell<'d> = Data<'d>;
