//! Does what the plan of a profile says: asks the meter, hands the intervals over, notes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Failure, Gaps, Keeper, Now, Piece};
use crate::meter::health::Health;
use crate::meter::{LoadProfileSettings, MeterError, Profile};
use crate::model::{Body, ClockState, Frame, Interval, Lane, Quality, Timestamp};
use crate::os::clock::Clock;
use crate::os::line::Line;

/// How the reading of a meter's load profile has been doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileHealth {
    /// Intervals delivered since ever.
    pub delivered: u64,
    /// Intervals that the meter did not have.
    pub absent: u64,
    /// The end of the newest interval that the meter gave.
    pub newest: Option<Timestamp>,
    /// Pieces that failed since the last good one.
    pub failing: u64,
    /// The last error, in one sentence, and when.
    pub last_error: Option<(Timestamp, String)>,
}

/// Reads one meter's load profile piece by piece.
#[derive(Debug)]
pub struct Reader {
    meter: String,
    id: String,
    gaps: Gaps,
    keeper: Keeper,
    /// Set when frames noted with it did not reach the disk; a new one then begins.
    lost: Arc<AtomicBool>,
    handing_over: bool,
    told: bool,
}

impl Reader {
    /// Goes on where the kept state ends.
    pub fn new(meter: &str, settings: &LoadProfileSettings, keeper: Keeper) -> Self {
        let gaps = Gaps::new(settings, keeper.load(meter, &settings.id));
        let (meter, id) = (meter.to_owned(), settings.id.to_string());
        Self { meter, id, gaps, keeper, lost: Arc::default(), handing_over: false, told: false }
    }

    /// The meter's name.
    pub fn meter(&self) -> &str {
        &self.meter
    }

    /// Takes that the last piece can't be asked for.
    pub(super) fn refuse(&mut self, error: MeterError, (clock, health): (&Clock, &Health)) -> Result<(), MeterError> {
        let now = now(clock);
        self.gaps.failed(failure(&error), Duration::ZERO, &now);
        let outcome = Err(error);
        self.tell(&outcome, now.wall, health);
        outcome
    }

    /// How long there is nothing to ask for.
    pub fn idle(&self, clock: &Clock) -> Duration {
        self.gaps.idle(&now(clock))
    }

    /// What to ask for now, when `time_left` is left until the next reading.
    pub fn next(&mut self, clock: &Clock, time_left: Duration) -> Option<Piece> {
        if self.handing_over || self.lost.load(Ordering::Relaxed) {
            warn!(meter = %self.meter, "intervals of the meter's profile did not reach the store; they are read again");
            self.lost = Arc::default();
            self.handing_over = false;
            self.gaps.restore(self.keeper.load(&self.meter, &self.id));
        }
        self.gaps.next(&now(clock), time_left)
    }

    /// Asks for a piece and hands its intervals over. Whoever drops it before its end loses
    /// nothing: the piece is asked for again.
    ///
    /// # Errors
    /// What the line or the meter said; it is counted and logged already.
    pub async fn read(
        &mut self,
        piece: Piece,
        (profile, line): (&mut dyn Profile, &mut Line),
        frames: &mpsc::Sender<Frame>,
        (clock, health): (&Clock, &Health),
    ) -> Result<(), MeterError> {
        let begun = Instant::now();
        let result = profile.read(line, piece.after, piece.until).await;
        let (took, now) = (begun.elapsed(), now(clock));
        let outcome = match result {
            Ok(intervals) => {
                let answered = intervals.len();
                let fresh = self.gaps.delivered(intervals, took, &now);
                debug!(meter = %self.meter, after = %piece.after, until = %piece.until, answered, new = fresh.len(), "a piece of the profile was read");
                self.hand_over(fresh, frames, clock).await;
                Ok(())
            }
            Err(error) => {
                self.gaps.failed(failure(&error), took, &now);
                Err(error)
            }
        };
        self.tell(&outcome, now.wall, health);
        outcome
    }

    async fn hand_over(&mut self, intervals: Vec<Interval>, frames: &mpsc::Sender<Frame>, clock: &Clock) {
        let time = clock.stamp();
        // For whoever drops this half way: the plan has these intervals as delivered already.
        self.handing_over = true;
        for mut interval in intervals {
            interval.meter.clone_from(&self.meter);
            let frame = Frame { time, lane: Lane::Ordinary, body: Body::Interval(interval), origin: None };
            if frames.send(frame).await.is_err() {
                return;
            }
        }
        self.handing_over = false;
        self.keeper.note(&self.meter, self.gaps.state().clone(), self.lost.clone());
    }

    fn tell(&mut self, outcome: &Result<(), MeterError>, at: Timestamp, health: &Health) {
        let (state, newest) = (self.gaps.state(), self.gaps.newest());
        let failing = health.update(&self.meter, |health| {
            let profile = health.profile.get_or_insert_default();
            let before = profile.failing;
            (profile.delivered, profile.absent, profile.newest) = (state.delivered, state.absent, newest);
            match outcome {
                Ok(()) => profile.failing = 0,
                Err(error) => {
                    profile.failing += 1;
                    profile.last_error = Some((at, error.to_string()));
                }
            }
            before
        });
        match outcome {
            Ok(()) if std::mem::take(&mut self.told) => {
                info!(meter = %self.meter, failed_attempts = failing, "the meter's profile is read again");
            }
            Ok(()) => {}
            Err(error) if self.told => {
                debug!(meter = %self.meter, %error, failed_attempts = failing + 1, "the meter's profile still can't be read");
            }
            Err(error) => {
                self.told = true;
                warn!(meter = %self.meter, %error, "the meter's profile can't be read; it is tried again, and its intervals wait in the meter");
            }
        }
    }
}

fn now(clock: &Clock) -> Now {
    let stamp = clock.stamp();
    Now { wall: stamp.wall, trusted: stamp.clock == ClockState::Synced, at: Instant::now() }
}

fn failure(error: &MeterError) -> Failure {
    match error.quality() {
        Quality::Refused | Quality::Unavailable => Failure::Refused,
        Quality::Invalid => Failure::Damaged,
        Quality::NoAnswer | Quality::Good => Failure::Silent,
    }
}
