//! When each meter is read: slots aligned to the clock, silent meters less often, and never before
//! those that answer.

use std::time::Duration;

use crate::model::Timestamp;

/// So many silent readings double the interval.
const SILENT: u32 = 3;
/// No interval is stretched beyond this.
const LONGEST: Duration = Duration::from_hours(1);

/// One meter's place in the schedule.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    every: Duration,
    due: Timestamp,
    /// The largest factor, a power of two.
    most: u32,
    factor: u32,
    /// Silent readings in a row.
    silent: u32,
    /// Since when it waits for a reading of which the nulls were given already.
    owed: Option<Timestamp>,
    /// Spreads the readings of stretched meters over the slots.
    phase: u32,
    /// How long its last silent reading held the line.
    cost: Duration,
}

impl Slots {
    /// A meter that is read `every` so often, with its interval stretched by `stretch` at most.
    pub(super) fn new(every: Duration, stretch: u32) -> Self {
        let fits = (LONGEST.as_millis() / every.as_millis().max(1)).min(u128::from(stretch.max(1)));
        let fits = u32::try_from(fits).unwrap_or(1).max(1);
        let most = if fits.is_power_of_two() { fits } else { fits.next_power_of_two() / 2 };
        Self {
            every,
            due: Timestamp::default(),
            most,
            factor: 1,
            silent: 0,
            owed: None,
            phase: 0,
            cost: Duration::ZERO,
        }
    }

    /// Begins with the first slot after `now`.
    pub(super) fn begin(&mut self, now: Timestamp, phase: u32) {
        self.due = now.next_aligned(self.every);
        self.phase = phase;
    }

    /// A clock that was set back moves the slots with it.
    pub(super) fn follow(&mut self, now: Timestamp) {
        self.due = self.due.min(now.next_aligned(self.every).max(now));
        self.owed = self.owed.map(|owed| owed.min(self.due));
    }

    /// The slot is done with: the next one is that after `now`.
    pub(super) fn pass(&mut self, now: Timestamp) {
        self.due = now.next_aligned(self.every);
        self.owed = None;
    }

    /// Only the nulls of the slot were given; a meter that should have been asked still waits.
    pub(super) fn pass_unasked(&mut self, now: Timestamp) {
        if self.asks() {
            self.owed = self.owed.or(Some(self.due));
            // In one step: a clock may have been set forward by years.
            let every = self.every.as_millis().max(1);
            let slots = now.since(self.due).as_millis() / every;
            self.due = self.due.plus(Duration::from_millis(u64::try_from(slots * every).unwrap_or(u64::MAX)));
        } else {
            self.pass(now);
        }
    }

    /// A later slot has begun.
    fn is_overtaken(&self, now: Timestamp) -> bool {
        now.since(self.due) >= self.every
    }

    /// The time until its next slot.
    pub(super) fn until(&self, now: Timestamp) -> Duration {
        self.due.since(now)
    }

    /// How many times longer than configured the meter is left alone.
    pub(super) const fn factor(&self) -> u32 {
        self.factor
    }

    /// It answered, well or badly.
    pub(super) const fn answered(&mut self) {
        self.factor = 1;
        self.silent = 0;
    }

    /// It was silent, and that took so long.
    pub(super) fn stayed_silent(&mut self, cost: Duration) {
        self.cost = cost;
        self.silent = self.silent.saturating_add(1);
        if self.silent.is_multiple_of(SILENT) {
            self.factor = self.factor.saturating_mul(2).min(self.most);
        }
    }

    /// What made it silent may be over: it is asked in its next slot, but still after those that answer.
    pub(super) fn hope(&mut self) {
        self.factor = 1;
        self.silent = self.silent.min(1);
    }

    /// Whether the meter is asked in its next slot, or only its nulls are given.
    fn asks(&self) -> bool {
        self.owed.is_some() || self.slots_to_wait() == 0
    }

    /// Slots from the next one to that in which it is asked.
    fn slots_to_wait(&self) -> u32 {
        let slot = self.due.as_millis() / i64::try_from(self.every.as_millis()).unwrap_or(i64::MAX).max(1);
        let left = (i64::from(self.phase) - slot).rem_euclid(i64::from(self.factor));
        u32::try_from(left).unwrap_or(0)
    }

    fn next_asked(&self) -> Timestamp {
        self.due.plus(self.every.saturating_mul(self.slots_to_wait()))
    }

    /// Its last reading was not silent.
    pub(super) const fn answers(&self) -> bool {
        self.silent == 0
    }

    /// It has waited so long that it goes before one that answers.
    fn has_waited(&self, now: Timestamp) -> bool {
        now.since(self.waits_since()) >= self.every.saturating_mul(self.factor)
    }

    fn waits_since(&self) -> Timestamp {
        self.owed.unwrap_or(self.due)
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, for so long.
    Idle(Duration),
    /// The nulls of this meter are due: it is not asked in this slot.
    Nulls(usize),
    /// This meter is to be read.
    Read(usize),
}

/// Chooses: nulls at once, also those of a silent meter that waits while its next slot comes; then
/// the meter that answers and has been due for longest; then a silent one, when it can't make one
/// that answers late. After one that answers, a silent one that has waited for a whole interval goes
/// first, so that a full line does not forget it.
pub(super) fn next<'a>(slots: impl Iterator<Item = &'a Slots> + Clone, now: Timestamp, after_an_answer: bool) -> Next {
    let due = || slots.clone().enumerate().filter(|(_, s)| s.due <= now);
    if let Some((index, _)) = due().find(|(_, s)| !s.asks() || (!s.answers() && s.is_overtaken(now))) {
        return Next::Nulls(index);
    }
    let oldest = |chosen: &dyn Fn(&Slots) -> bool| {
        due().filter(|(_, s)| chosen(s)).min_by_key(|(_, s)| s.waits_since()).map(|(index, _)| index)
    };
    if after_an_answer && let Some(index) = oldest(&|s| !s.answers() && s.has_waited(now)) {
        return Next::Read(index);
    }
    if let Some(index) = oldest(&|s| s.answers()) {
        return Next::Read(index);
    }
    let room = room(slots.clone(), now);
    match oldest(&|s| !s.answers() && room.is_none_or(|room| s.cost <= room)) {
        Some(index) => Next::Read(index),
        None => {
            let later = slots.clone().filter(|s| s.due > now).map(|s| s.due.since(now));
            let overtaken = due().map(|(_, s)| s.due.plus(s.every).since(now));
            Next::Idle(later.chain(overtaken).min().unwrap_or(Duration::MAX))
        }
    }
}

/// The time until a meter that answers is due; `None` when there is none.
fn room<'a>(slots: impl Iterator<Item = &'a Slots>, now: Timestamp) -> Option<Duration> {
    slots.filter(|s| s.answers()).map(|s| s.due.since(now)).min()
}

/// The time until any meter is to be asked, nulls aside.
pub(super) fn time_left<'a>(slots: impl Iterator<Item = &'a Slots>, now: Timestamp) -> Duration {
    slots.filter(|s| s.due > now).map(|s| s.next_asked().since(now)).min().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_hours(24 * 365 * 50)).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_silent_meter_is_asked_less_and_less_often_within_its_bounds_and_at_once_again_after_an_answer() {
        let most = |every: u64, stretch| Slots::new(Duration::from_secs(every), stretch).most;
        assert_eq!([most(60, 8), most(60, 7), most(60, 1), most(60, 64)], [8, 4, 1, 32]);
        assert_eq!([most(900, 8), most(1800, 8), most(3600, 8), most(86_400, 8)], [4, 2, 1, 1], "never beyond an hour");
        let mut slot = Slots::new(MINUTE, 8);
        slot.begin(at(0), 3);
        let mut asked = Vec::new();
        for minute in 1..=50 {
            slot.follow(at(minute * 60));
            match next([&slot].into_iter(), at(minute * 60), false) {
                Next::Read(0) => {
                    asked.push(minute);
                    slot.stayed_silent(Duration::from_secs(2));
                }
                other => assert_eq!(other, Next::Nulls(0)),
            }
            slot.pass(at(minute * 60));
        }
        let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(&pauses[..2], [1, 1]);
        assert!(pauses.is_sorted() || pauses.iter().all(|p| *p <= 8), "{pauses:?}");
        assert_eq!(pauses.iter().rev().take(3).collect::<Vec<_>>(), [&8, &8, &8], "{pauses:?}");
        slot.answered();
        assert_eq!(next([&slot].into_iter(), at(51 * 60), false), Next::Read(0));
    }

    #[test]
    fn a_silent_meter_waits_when_it_would_make_one_that_answers_late_but_not_for_ever() {
        let (mut well, mut dead) = (Slots::new(Duration::from_secs(10), 1), Slots::new(MINUTE, 1));
        well.begin(at(0), 0);
        dead.begin(at(0), 1);
        dead.stayed_silent(Duration::from_secs(4));
        well.due = at(63);
        assert_eq!(next([&well, &dead].into_iter(), at(60), false), Next::Idle(Duration::from_secs(3)));
        well.due = at(64);
        assert_eq!(next([&well, &dead].into_iter(), at(60), false), Next::Read(1));
        well.due = at(60);
        assert_eq!(next([&well, &dead].into_iter(), at(60), false), Next::Read(0));
        well.due = at(119);
        assert_eq!(next([&well, &dead].into_iter(), at(120), true), Next::Nulls(1), "of the slot that passed");
        dead.pass_unasked(at(120));
        assert_eq!(next([&well, &dead].into_iter(), at(120), true), Next::Read(1), "it waited a whole interval");
        assert_eq!(next([&well, &dead].into_iter(), at(120), false), Next::Read(0), "but one after the other");
        assert_eq!(time_left([&well].into_iter(), at(100)), Duration::from_secs(19));
    }

    #[test]
    fn a_silent_meter_that_does_not_fit_holds_up_no_other_silent_one() {
        let [mut well, mut slow, mut quick] = [10, 3600, 60].map(|every| Slots::new(Duration::from_secs(every), 1));
        for (slot, cost) in [(&mut slow, 20), (&mut quick, 1)] {
            slot.begin(at(0), 1);
            slot.stayed_silent(Duration::from_secs(cost));
        }
        well.begin(at(0), 0);
        well.due = at(3610);
        quick.due = at(3601);
        assert_eq!(next([&well, &slow, &quick].into_iter(), at(3602), false), Next::Read(2));
    }

    #[test]
    fn a_silent_meter_that_waits_for_its_turn_gives_nulls_in_every_slot_and_keeps_its_turn() {
        let (mut well, mut dead) = (Slots::new(Duration::from_secs(10), 1), Slots::new(MINUTE, 1));
        well.begin(at(0), 0);
        dead.begin(at(0), 1);
        dead.stayed_silent(Duration::from_secs(20));
        let mut nulls = 0;
        for second in 60..=200 {
            well.follow(at(second));
            dead.follow(at(second));
            match next([&well, &dead].into_iter(), at(second), false) {
                Next::Read(0) => well.pass(at(second)),
                Next::Nulls(1) => {
                    nulls += 1;
                    dead.pass_unasked(at(second));
                }
                Next::Idle(idle) => assert!(!idle.is_zero() && idle <= Duration::from_secs(10), "{idle:?}"),
                other => panic!("{other:?} at {second}"),
            }
        }
        assert_eq!(nulls, 2, "for the slots of 60 and 120 s");
        assert_eq!(next([&well, &dead].into_iter(), at(201), true), Next::Read(1), "it has waited since 60 s");
        dead.pass(at(221));
        assert!(!dead.has_waited(at(240)));
    }

    #[test]
    fn a_clock_that_jumps_by_years_neither_holds_a_waiting_meter_up_nor_forgets_it() {
        let year = 365 * 24 * 3600;
        let mut dead = Slots::new(Duration::from_secs(1), 1);
        dead.begin(at(year), 0);
        dead.stayed_silent(Duration::from_secs(1));
        dead.pass_unasked(at(40 * year));
        assert!(dead.due <= at(40 * year) && !dead.is_overtaken(at(40 * year)));
        dead.follow(at(5));
        assert!(!dead.has_waited(at(5)) && dead.has_waited(at(10)));
    }
}
