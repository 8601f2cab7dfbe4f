//! Looks whether a meter's clock is right, and sets it when the settings want that.
//!
//! Invariants: weir's own clock is the measure only while it is trusted; the meter's is never moved by more than the
//! limit, never over the boundary of a capture period, and its time zone stays as it is; what it shows afterwards is
//! read.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::object::{Face, coded, moment, octets};
use super::service::{Content, Services, damage, words};
use super::settings::DlmsClockSettings;
use crate::meter::MeterError;
use crate::model::{TimeQuality, Timestamp};
use crate::os::clock::Clock;
use crate::wire::dlms::{AttributeDescriptor, DateTime, LogicalName};

/// The clock of every meter (IEC 62056-6-1, clause 6.2.2).
pub(super) const TIME: AttributeDescriptor = AttributeDescriptor::new(8, LogicalName::new(0, 0, 1, 0, 0, 255), 2);
/// Capture periods are divisors or multiples of this in practice, in seconds.
const QUARTER: i64 = 900;

/// What a meter's clock showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// As the meter wrote it.
    pub(super) time: DateTime,
    /// The meter's time in UTC, in seconds.
    pub(super) utc: i64,
    /// How long the exchange took: so uncertain is the comparison.
    pub(super) took: Duration,
}

/// Reads a meter's clock.
///
/// # Errors
/// What the line or the meter said; [`MeterError::Refused`] when it is not shown or is not set.
pub(super) async fn read(services: &mut Services<'_>, east: i16) -> Result<Reading, MeterError> {
    let begun = Instant::now();
    let answer = services.get(TIME).await?;
    let took = begun.elapsed();
    let content = answer.map_err(|refusal| MeterError::Refused(format!("its time: {}", words(refusal))))?;
    let time = moment(&content.data()).ok_or_else(|| damage("the meter's time is no time"))?;
    let face = Face::of(time).ok_or_else(|| MeterError::Refused("its clock has not been set".to_owned()))?;
    Ok(Reading { time, utc: face.utc(east), took })
}

/// Keeps an eye on one meter's clock.
pub(super) struct Watch {
    meter: String,
    settings: DlmsClockSettings,
    clock: Option<Clock>,
    looked: Option<Instant>,
    told: bool,
}

impl Watch {
    /// Looks as often as the settings say.
    pub(super) fn new(meter: &str, settings: &DlmsClockSettings) -> Self {
        Self { meter: meter.to_owned(), settings: settings.clone(), clock: None, looked: None, told: false }
    }

    /// The clock to compare with.
    pub(super) fn trust(&mut self, clock: &Clock) {
        self.clock = Some(clock.clone());
    }

    /// Compares when it is due, and sets when that is wanted and allowed.
    ///
    /// # Errors
    /// What the line or the meter said.
    pub(super) async fn look(&mut self, services: &mut Services<'_>, east: i16) -> Result<(), MeterError> {
        let every = self.settings.check;
        if every.is_zero() || self.looked.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let Some(clock) = self.clock.clone() else { return Ok(()) };
        if clock.health().state() != TimeQuality::Synced {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let reading = read(services, east).await?;
        let deviation = deviation(&reading, clock.now());
        let (off, limit) = (deviation.unsigned_abs(), self.settings.limit.as_secs());
        if off <= self.settings.tolerance.as_secs().max(reading.took.as_secs()) {
            if std::mem::take(&mut self.told) {
                info!(meter = %self.meter, seconds = deviation, "the meter's clock is right again");
            }
            return Ok(());
        }
        if self.settings.set && off <= limit {
            return self.set(services, &reading, &clock, east).await;
        }
        if !std::mem::replace(&mut self.told, true) {
            let beyond_limit = off > limit;
            warn!(meter = %self.meter, seconds = deviation, set = self.settings.set, beyond_limit, "the meter's clock is wrong");
        }
        Ok(())
    }

    /// Sets it now because a person wants it; how many seconds it was and is ahead.
    ///
    /// # Errors
    /// What the line or the meter said; [`MeterError::Order`] when the gateway's own clock is not trusted or the
    /// meter's is farther off than the limit.
    pub(super) async fn set_now(&mut self, services: &mut Services<'_>, east: i16) -> Result<(i64, i64), MeterError> {
        let order = |why: &str| MeterError::Order(why.to_owned());
        let clock = self.clock.clone().ok_or_else(|| order("there is no clock to set it by"))?;
        if clock.health().state() != TimeQuality::Synced {
            return Err(order("the gateway's own clock is not trusted; see weir's status, or set it first"));
        }
        let before = read(services, east).await?;
        let now = clock.now();
        let off = deviation(&before, now);
        if off.unsigned_abs() > self.settings.limit.as_secs() {
            let limit = self.settings.limit.as_secs();
            return Err(MeterError::Order(format!(
                "the meter's clock is {off} s ahead, more than the limit of {limit} s; raise dlms.clock.limit if it is wrong indeed"
            )));
        }
        if !may_set(&before, now) {
            return Err(order("that would move the clock over the end of a quarter of an hour; try again in a minute"));
        }
        let after = set(services, &before, now, east).await?;
        let after = after.map_err(|why| MeterError::Refused(format!("its clock: {why}")))?;
        Ok((off, deviation(&after, clock.now())))
    }

    async fn set(
        &mut self,
        services: &mut Services<'_>,
        before: &Reading,
        clock: &Clock,
        east: i16,
    ) -> Result<(), MeterError> {
        let now = clock.now();
        if clock.health().state() != TimeQuality::Synced || !may_set(before, now) {
            // Tried again at the next reading; at a reading on the quarter of an hour a slow clock is before it.
            self.looked = None;
            if !std::mem::replace(&mut self.told, true) {
                warn!(meter = %self.meter, seconds = deviation(before, now), "the meter's clock is wrong; setting it now would move it over the end of a quarter of an hour: weir dlms METER clock --set-clock sets it between two");
            }
            return Ok(());
        }
        let moved = deviation(before, now);
        match set(services, before, now, east).await? {
            Ok(after) => {
                let seconds = deviation(&after, clock.now());
                info!(meter = %self.meter, was_ahead_by_seconds = moved, is_ahead_by_seconds = seconds, "the meter's clock was set");
            }
            Err(why) if !std::mem::replace(&mut self.told, true) => {
                warn!(meter = %self.meter, seconds = moved, %why, "the meter's clock is wrong and can't be set");
            }
            Err(_) => {}
        }
        Ok(())
    }
}

/// By how many seconds the meter is ahead of `now`; halfway through the exchange it read its clock.
pub(super) fn deviation(reading: &Reading, now: Timestamp) -> i64 {
    let half = i64::try_from(reading.took.as_millis() / 2).unwrap_or(0);
    // The meter's second has begun half a second ago on average.
    reading.utc - (now.as_millis() - half).div_euclid(1000)
}

/// Whether setting it would neither skip nor repeat the end of a capture period.
pub(super) const fn may_set(before: &Reading, now: Timestamp) -> bool {
    before.utc.div_euclid(QUARTER) == now.as_millis().div_euclid(1000).div_euclid(QUARTER)
}

/// Sets a meter's clock, in the meter's own time zone, and reads it back; a refusal in words.
///
/// # Errors
/// What the line said; [`MeterError::Order`] when the meter grants no writing.
pub(super) async fn set(
    services: &mut Services<'_>,
    before: &Reading,
    now: Timestamp,
    east: i16,
) -> Result<Result<Reading, String>, MeterError> {
    let face = Face::of(before.time).ok_or_else(|| damage("the meter's time has wildcards"))?;
    // Where the meter does not tell its deviation, it is what the comparison took it for.
    let east = face.west.map_or_else(|| i16::try_from((face.seconds - face.utc(east)) / 60).unwrap_or(east), |_| east);
    let time = coded(now, face.west, east, before.time.status);
    if let Err(refusal) = services.set(TIME, &Content::of(&octets(time))?).await? {
        return Ok(Err(words(refusal)));
    }
    read(services, east).await.map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dlms::ClockStatus;

    fn shown(text: &str, took: u64) -> Reading {
        let utc = Timestamp::parse(text).unwrap();
        let time = coded(utc, Some(-60), 0, ClockStatus(0));
        Reading { time, utc: utc.as_millis() / 1000, took: Duration::from_millis(took) }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_slow_exchange_is_no_deviation() {
        assert_eq!(deviation(&shown("2026-01-15T11:00:00Z", 4000), at("2026-01-15T11:00:02Z")), 0);
        assert_eq!(deviation(&shown("2026-01-15T11:00:09Z", 0), at("2026-01-15T11:00:02Z")), 7);
    }

    #[test]
    fn a_clock_is_not_set_over_the_end_of_a_period() {
        assert!(may_set(&shown("2026-01-15T11:00:05Z", 0), at("2026-01-15T11:00:00Z")));
        assert!(!may_set(&shown("2026-01-15T11:00:05Z", 0), at("2026-01-15T10:59:59Z")));
        assert!(!may_set(&shown("2026-01-15T10:59:59Z", 0), at("2026-01-15T11:00:00Z")));
    }
}
