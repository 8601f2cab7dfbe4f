//! Looks whether a meter's clock is right, and sets it when the settings want that.
//!
//! Invariants: weir's own clock is the measure only while it is trusted; the meter's is never moved by more than the
//! limit, and over the end of a capture period only where the settings allow that: until both clocks stand in the same
//! period the meter is waited for, its association kept alive by reading its clock. Its time zone, season, status and
//! wildcards stay as they are; what it shows afterwards is read.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::object::{Face, coded, moment};
use super::service::{Content, Services, damage, words};
use super::settings::DlmsClockSettings;
use crate::meter::MeterError;
use crate::model::{TimeQuality, Timestamp};
use crate::os::clock::Clock;
use crate::wire::dlms::{AttributeDescriptor, Data, DataBuf, DateTime, LogicalName};

/// The clock of every meter (IEC 62056-6-1, clause 6.2.2).
pub(super) const TIME: AttributeDescriptor = AttributeDescriptor::new(8, LogicalName::new(0, 0, 1, 0, 0, 255), 2);
/// Registers of demand and tariffs end their periods at these, in seconds, whatever the profiles do.
const QUARTER: i64 = 900;
/// A meter that is waited for is asked so often: some give an association up that is silent for 25 s.
const ALIVE: Duration = Duration::from_secs(20);
/// The most profiles whose periods are asked for.
const MOST_PROFILES: usize = 64;
/// A number that stands for nothing.
const WILD: u8 = 0xFF;

/// What a meter's clock showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// As the meter wrote it.
    pub(super) time: DateTime,
    /// With the tag of a date-time instead of that of an octet-string.
    tagged: bool,
    /// The meter's time in UTC, in seconds.
    pub(super) utc: i64,
    /// How long the exchange took: so uncertain is the comparison.
    pub(super) took: Duration,
}

impl Reading {
    /// How many seconds of a difference say nothing.
    fn doubt(&self) -> u64 {
        let told = if self.time.second == WILD { 60 } else { 0 };
        self.took.as_secs().max(told)
    }
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
    let tagged = matches!(content.data(), Data::DateTime(_));
    Ok(Reading { time, tagged, utc: face.utc(east), took })
}

/// What a meter is like whose clock is looked at.
pub(super) struct Place<'p> {
    /// Minutes that its clock is east of UTC when it does not say it.
    pub(super) east: i16,
    /// Its profiles.
    pub(super) profiles: &'p [LogicalName],
    /// The association may be held so long.
    pub(super) until: Instant,
}

/// Why a clock that is wrong is not set.
enum Obstacle {
    Untrusted,
    Beyond { off: i64, limit: u64 },
    Periods { off: i64, period: i64 },
    TooLong { wait: i64 },
    Refused(String),
}

impl Obstacle {
    fn words(&self) -> String {
        match self {
            Self::Untrusted => "the gateway's own clock is not trusted; see weir's status, or set it first".to_owned(),
            Self::Beyond { off, limit } => format!(
                "the meter's clock is {off} s ahead, more than the limit of {limit} s; raise dlms.clock.limit if it is wrong indeed"
            ),
            Self::Periods { off, period } => format!(
                "the meter's clock is {off} s ahead, so that setting it skips or repeats intervals of {period} s; dlms.clock.skip_intervals = true allows that"
            ),
            Self::TooLong { wait } => format!(
                "both clocks stand in the same capture period in {wait} s only, later than the association may last; raise dlms.longest_session, or try again then"
            ),
            Self::Refused(why) => format!("its clock: {why}"),
        }
    }
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
    /// Tells whether it was time to.
    ///
    /// # Errors
    /// What the line or the meter said.
    pub(super) async fn look(&mut self, services: &mut Services<'_>, place: &Place<'_>) -> Result<bool, MeterError> {
        let every = self.settings.check;
        if every.is_zero() || self.looked.is_some_and(|at| at.elapsed() < every) {
            return Ok(false);
        }
        let Some(clock) = self.clock.clone() else { return Ok(false) };
        if clock.health().state() != TimeQuality::Synced {
            return Ok(false);
        }
        self.looked = Some(Instant::now());
        let reading = read(services, place.east).await?;
        let deviation = deviation(&reading, clock.now());
        if !self.is_wrong(&reading, deviation) {
            if std::mem::take(&mut self.told) {
                info!(meter = %self.meter, seconds = deviation, "the meter's clock is right again");
            }
            return Ok(true);
        }
        if !self.settings.set {
            if !std::mem::replace(&mut self.told, true) {
                warn!(meter = %self.meter, seconds = deviation, "the meter's clock is wrong");
            }
            return Ok(true);
        }
        match self.correct(services, &clock, place).await? {
            Ok((before, after, now)) => self.tell_set(before, &after, now),
            Err(obstacle) => self.tell_obstacle(deviation, &obstacle),
        }
        Ok(true)
    }

    fn is_wrong(&self, reading: &Reading, deviation: i64) -> bool {
        deviation.unsigned_abs() > self.settings.tolerance.as_secs().max(reading.doubt())
    }

    fn tell_set(&mut self, before: i64, after: &Reading, now: Timestamp) {
        let seconds = deviation(after, now);
        if !self.is_wrong(after, seconds) {
            info!(meter = %self.meter, was_ahead_by_seconds = before, is_ahead_by_seconds = seconds, "the meter's clock was set");
            self.told = false;
        } else if !std::mem::replace(&mut self.told, true) {
            warn!(meter = %self.meter, seconds, "the meter confirmed that its clock was set, and it is wrong all the same");
        }
    }

    fn tell_obstacle(&mut self, seconds: i64, obstacle: &Obstacle) {
        if matches!(obstacle, Obstacle::TooLong { .. } | Obstacle::Untrusted) {
            // Another reading may stand elsewhere in the period.
            self.looked = None;
        }
        let why = obstacle.words();
        if std::mem::replace(&mut self.told, true) {
            debug!(meter = %self.meter, seconds, why, "the meter's clock is still wrong and was not set");
        } else if matches!(obstacle, Obstacle::Beyond { .. } | Obstacle::Periods { .. }) {
            error!(meter = %self.meter, seconds, why, "the meter's clock is wrong and is not set; somebody must decide");
        } else {
            warn!(meter = %self.meter, seconds, why, "the meter's clock is wrong and was not set");
        }
    }

    /// Sets it now because a person wants it; how many seconds it was and is ahead.
    ///
    /// # Errors
    /// What the line or the meter said; [`MeterError::Order`] when the gateway's own clock is not trusted or the
    /// meter's is farther off than the settings let it be moved.
    pub(super) async fn set_now(
        &mut self,
        services: &mut Services<'_>,
        place: &Place<'_>,
    ) -> Result<(i64, i64), MeterError> {
        let clock = self.clock.clone();
        let clock = clock.ok_or_else(|| MeterError::Order("there is no clock to set it by".to_owned()))?;
        match self.correct(services, &clock, place).await? {
            Ok((before, after, now)) => Ok((before, deviation(&after, now))),
            Err(obstacle @ Obstacle::Refused(_)) => Err(MeterError::Refused(obstacle.words())),
            Err(obstacle) => Err(MeterError::Order(obstacle.words())),
        }
    }

    /// Sets it as soon as that skips and repeats nothing; how many seconds it was ahead, and what it showed when
    /// afterwards.
    async fn correct(
        &self,
        services: &mut Services<'_>,
        clock: &Clock,
        place: &Place<'_>,
    ) -> Result<Result<(i64, Reading, Timestamp), Obstacle>, MeterError> {
        let period = period(services, place.profiles).await?;
        let limit = self.settings.limit.as_secs();
        loop {
            let before = read(services, place.east).await?;
            if clock.health().state() != TimeQuality::Synced {
                return Ok(Err(Obstacle::Untrusted));
            }
            let now = clock.now();
            let off = deviation(&before, now);
            if off.unsigned_abs() > limit {
                return Ok(Err(Obstacle::Beyond { off, limit }));
            }
            match when(&before, now, period) {
                When::Never if !self.settings.skip_intervals => return Ok(Err(Obstacle::Periods { off, period })),
                When::Now | When::Never => {
                    let done = set(services, &before, now, place.east).await?;
                    return Ok(done.map(|after| (off, after, clock.now())).map_err(Obstacle::Refused));
                }
                When::In(wait) => {
                    let pause = Duration::from_secs(wait.unsigned_abs());
                    if Instant::now() + pause >= place.until {
                        return Ok(Err(Obstacle::TooLong { wait }));
                    }
                    debug!(meter = %self.meter, seconds = wait, "the meter's clock is set when both clocks have passed the end of the capture period");
                    sleep(pause.min(ALIVE)).await;
                }
            }
        }
    }
}

/// By how many seconds the meter is ahead of `now`; halfway through the exchange it read its clock.
pub(super) fn deviation(reading: &Reading, now: Timestamp) -> i64 {
    let half = i64::try_from(reading.took.as_millis() / 2).unwrap_or(0);
    // The meter's second has begun half a second ago on average.
    reading.utc - (now.as_millis() - half).div_euclid(1000)
}

/// When a clock may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    /// After so many seconds it is worth another look.
    In(i64),
    /// At no time both clocks stand in the same period.
    Never,
}

/// When setting it neither skips nor repeats the end of a capture period: then both clocks are within the same
/// one, and stay so while the order is under way.
fn when(before: &Reading, now: Timestamp, period: i64) -> When {
    let now = now.as_millis().div_euclid(1000);
    let margin = 2 + i64::try_from(before.took.as_secs()).unwrap_or(0);
    let (early, late) = (before.utc.min(now) - margin, before.utc.max(now) + margin);
    if late - early >= period {
        return When::Never;
    }
    let end = late.div_euclid(period) * period;
    if early >= end { When::Now } else { When::In(end - early) }
}

/// What every capture period ends with, in seconds: the greatest common divisor of all.
async fn period(services: &mut Services<'_>, profiles: &[LogicalName]) -> Result<i64, MeterError> {
    let asked = profiles.iter().take(MOST_PROFILES).map(|name| AttributeDescriptor::new(7, *name, 4));
    let asked: Vec<_> = asked.collect();
    let (answers, outcome) = services.get_all(&asked).await;
    outcome?;
    let periods = answers.iter().filter_map(|answer| answer.as_ref().ok()?.data().as_i64());
    Ok(periods.filter(|period| *period > 0).fold(QUARTER, divisor))
}

const fn divisor(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Sets a meter's clock, in the meter's own time zone, and reads it back; a refusal in words.
///
/// # Errors
/// What the line said; [`MeterError::Order`] when the meter grants no writing.
async fn set(
    services: &mut Services<'_>,
    before: &Reading,
    now: Timestamp,
    east: i16,
) -> Result<Result<Reading, String>, MeterError> {
    if let Err(refusal) = services.set(TIME, &Content::of(&order(before, now, east)?)?).await? {
        return Ok(Err(words(refusal)));
    }
    read(services, east).await.map(Ok)
}

/// The time that a meter is set to, in the form in which it shows its own.
fn order(before: &Reading, now: Timestamp, east: i16) -> Result<DataBuf, MeterError> {
    let face = Face::of(before.time).ok_or_else(|| damage("the meter's time has wildcards"))?;
    // Where the meter does not tell its deviation, it is what the comparison took it for.
    let east = face.west.map_or_else(|| i16::try_from((face.seconds - face.utc(east)) / 60).unwrap_or(east), |_| east);
    // When the order arrives, to the next whole second.
    let arrival = now.plus(before.took / 2 + Duration::from_millis(500));
    let mut time = coded(arrival, face.west, east, before.time.status);
    if before.time.day_of_week == WILD {
        time.day_of_week = WILD;
    }
    if before.time.hundredths == WILD {
        time.hundredths = WILD;
    }
    if before.time.second == WILD {
        time.second = WILD;
    }
    Ok(if before.tagged { DataBuf::DateTime(time) } else { super::object::octets(time) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dlms::ClockStatus;

    fn shown(text: &str, took: u64) -> Reading {
        let utc = Timestamp::parse(text).unwrap();
        let time = coded(utc, Some(-60), 0, ClockStatus(0));
        Reading { time, tagged: false, utc: utc.as_millis() / 1000, took: Duration::from_millis(took) }
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
    fn a_clock_is_not_set_over_the_end_of_a_period_but_behind_it() {
        let when = |meter: &str, now: &str, period| {
            let at = |text: &str| format!("2026-01-15T{text}Z");
            super::when(&shown(&at(meter), 0), self::at(&at(now)), period)
        };
        assert_eq!(when("11:00:05", "11:00:02", 900), When::Now);
        // Setting takes a moment: it may cross the end, as may the meter's clock.
        assert_eq!(when("11:00:05", "11:00:00", 900), When::In(2));
        assert_eq!(when("11:00:05", "10:59:58", 900), When::In(4));
        assert_eq!(when("10:59:55", "11:00:03", 900), When::In(7));
        assert_eq!(when("11:14:50", "11:14:59", 900), When::In(12));
        assert_eq!(when("10:45:04", "10:59:55", 900), When::Now);
        assert_eq!(when("10:45:00", "10:59:56", 900), When::Never);
        assert_eq!(when("10:30:00", "10:59:50", 900), When::Never);
        assert_eq!(when("11:00:05", "10:59:58", 300), When::In(4));
        assert_eq!(when("11:00:05", "11:00:15", 5), When::Never);
    }

    #[test]
    fn a_set_clock_skips_and_repeats_no_end_whenever_it_is_looked_at() {
        for period in [60, 300, 900] {
            for off in -(period - 5)..period - 4 {
                for second in (0..period).step_by(7) {
                    let begun = 1_800_000_000 + second;
                    let of = |wait: i64| {
                        let meter = Timestamp::from_millis((begun + wait + off) * 1000).to_string();
                        when(&shown(&meter, 0), Timestamp::from_millis((begun + wait) * 1000), period)
                    };
                    let wait = match of(0) {
                        When::In(wait) => wait,
                        When::Now => 0,
                        When::Never => panic!("{period} {off}"),
                    };
                    assert_eq!(of(wait), When::Now, "{period} {off} {second}");
                    let (meter, now) = (begun + wait + off, begun + wait);
                    assert_eq!(meter / period, now / period, "{period} {off} {second}");
                    assert!(wait <= off.abs() + 4, "{wait}");
                }
            }
        }
    }

    #[test]
    fn the_periods_of_profiles_make_the_ends_finer() {
        assert_eq!([3600, 86_400, 900].into_iter().fold(QUARTER, divisor), 900);
        assert_eq!([600].into_iter().fold(QUARTER, divisor), 300);
        assert_eq!([3600, 60].into_iter().fold(QUARTER, divisor), 60);
    }

    #[test]
    fn what_a_meter_does_not_tell_is_not_told_to_it_and_a_tag_of_its_own_is_kept() {
        let mut before = shown("2026-07-15T11:00:00Z", 0);
        before.time = DateTime { day_of_week: WILD, hundredths: WILD, deviation: i16::MIN, ..before.time };
        before.time.status = ClockStatus(0x80);
        before.tagged = true;
        let DataBuf::DateTime(time) = order(&before, at("2026-07-15T11:00:09Z"), 60).unwrap() else { panic!() };
        assert_eq!((time.day_of_week, time.hundredths, time.deviation), (WILD, WILD, i16::MIN));
        assert_eq!((time.hour, time.minute, time.second, time.status), (13, 0, 9, ClockStatus(0x80)));
    }
}
