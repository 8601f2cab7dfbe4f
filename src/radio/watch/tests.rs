//! Streets of every kind, in made-up time.

use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A watch and the time it believes in.
struct Street {
    watch: Watch,
    now: Instant,
    steps: Vec<(Instant, Step)>,
}

impl Street {
    fn new(limit: OnSilence) -> Self {
        let now = Instant::now();
        Self { watch: Watch::new(Rules::default(), limit, now), now, steps: Vec::new() }
    }

    /// Lets time pass without a telegram.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.watch.due(self.now);
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            if let Some(step) = self.watch.look(self.now) {
                self.steps.push((self.now, step));
            }
        }
        self.now = end;
    }

    /// Hears telegrams at this interval for so long.
    fn hear(&mut self, every: Duration, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.wait(every);
            self.watch.heard(self.now);
        }
    }

    fn actions(&self) -> Vec<Action> {
        self.steps.iter().map(|(_, step)| step.action).collect()
    }
}

#[test]
fn a_busy_receiver_is_told_after_ten_minutes_reopened_then_reset_ever_more_rarely() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(Duration::from_millis(50), 10 * MINUTE);
    assert!(street.steps.is_empty());
    let last = street.now;
    street.wait(30 * MINUTE);
    let first = street.steps[0];
    assert_eq!((first.0 - last, first.1.first, first.1.silent), (10 * MINUTE, true, 10 * MINUTE));
    assert_eq!(street.actions(), [Action::Reopen, Action::Reset, Action::Reset, Action::Reset]);
    let pauses: Vec<_> = street.steps.windows(2).map(|two| two[1].0 - two[0].0).collect();
    assert_eq!(pauses, [2 * MINUTE, 4 * MINUTE, 8 * MINUTE]);
    assert_eq!(street.watch.heard(street.now), Some(30 * MINUTE));
    assert!(!street.watch.is_silent());
}

#[test]
fn a_rural_receiver_with_a_telegram_an_hour_is_left_alone_for_most_of_a_day() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(HOUR, 24 * HOUR);
    let last = street.now;
    street.wait(48 * HOUR);
    assert_eq!(street.steps[0].0 - last, 16 * HOUR);
    // Whether an attempt helped shows after hours only.
    assert!(street.steps[1].0 - street.steps[0].0 >= 4 * HOUR);
    assert!(street.steps.len() <= 4, "{:?}", street.steps);
}

#[test]
fn never_more_than_twelve_attempts_a_day_even_when_each_helps_for_a_moment() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(Duration::from_secs(2), HOUR);
    let begin = street.now;
    for _ in 0..200 {
        street.wait(13 * MINUTE);
        street.hear(Duration::from_secs(2), MINUTE);
    }
    let tried: Vec<_> =
        street.steps.iter().filter(|(_, step)| step.action != Action::Nothing).map(|(at, _)| *at).collect();
    assert!(tried.len() >= 12 && street.now - begin > DAY);
    for from in &tried {
        let within = tried.iter().filter(|at| **at >= *from && **at < *from + DAY).count();
        assert!(within <= MOST_A_DAY, "{within}");
    }
}

#[test]
fn a_week_of_silence_is_one_report_and_few_attempts() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(Duration::from_secs(2), HOUR);
    street.wait(7 * DAY);
    assert_eq!(street.steps.iter().filter(|(_, step)| step.first).count(), 1);
    assert!((10..=30).contains(&street.steps.len()), "{}", street.steps.len());
}

#[test]
fn a_street_that_sleeps_at_night_is_known_after_two_nights_and_one_bad_evening_is_not_learnt() {
    let day = |street: &mut Street| {
        street.hear(Duration::from_secs(10), 10 * HOUR);
        let before = street.steps.len();
        street.wait(14 * HOUR);
        // The morning's first telegram.
        street.watch.heard(street.now);
        street.steps.len() - before
    };
    let mut street = Street::new(OnSilence::Report);
    let told: Vec<usize> = (0..6).map(|_| day(&mut street).min(1)).collect();
    assert_eq!(told, [1, 1, 0, 0, 0, 0]);
    let mut street = Street::new(OnSilence::Report);
    street.hear(Duration::from_secs(10), 10 * HOUR);
    street.wait(5 * HOUR);
    street.hear(Duration::from_secs(10), HOUR);
    let before = street.steps.len();
    street.wait(11 * MINUTE);
    assert_eq!(street.steps.len(), before + 1, "one lost evening changed what is usual");
}

#[test]
fn a_gap_that_an_attempt_ended_is_never_learnt() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(Duration::from_secs(10), HOUR);
    for _ in 0..5 {
        // Heard again half a minute after the first attempt.
        street.wait(10 * MINUTE + Duration::from_secs(30));
        street.hear(Duration::from_secs(10), 5 * HOUR);
    }
    assert_eq!(street.watch.usual(), Some(10 * MINUTE));
    assert_eq!(street.actions(), [Action::Reopen; 5]);
}

#[test]
fn a_receiver_of_which_nothing_is_known_has_a_day() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(MINUTE, 15 * MINUTE);
    street.wait(23 * HOUR);
    assert!(street.steps.is_empty());
    street.wait(2 * HOUR);
    assert_eq!(street.steps[0].1.usual, None);
}

#[test]
fn waiting_for_room_and_being_unplugged_are_no_silence() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(Duration::from_secs(1), HOUR);
    let began = street.now;
    street.watch.begins();
    street.wait_busy(9 * HOUR);
    street.watch.ends(began, street.now);
    assert!(street.steps.is_empty());
    street.wait(9 * MINUTE);
    assert!(street.steps.is_empty());
    street.now += 5 * HOUR;
    street.watch.opened(street.now, true);
    street.wait(9 * MINUTE);
    assert!(street.steps.is_empty());
    street.watch.heard(street.now);
    assert_eq!(street.watch.usual(), Some(10 * MINUTE), "its gap was no interval");
    street.wait(11 * MINUTE);
    assert_eq!(street.steps.len(), 1);
}

impl Street {
    fn wait_busy(&mut self, time: Duration) {
        self.now += time;
        assert_eq!(self.watch.look(self.now), None);
        assert!(self.watch.due(self.now) > self.now);
    }
}

#[test]
fn what_was_just_plugged_in_again_is_not_reset_at_once() {
    let mut street = Street::new(OnSilence::Reset);
    street.hear(Duration::from_secs(2), HOUR);
    street.wait(11 * MINUTE);
    street.now += 5 * HOUR;
    street.watch.opened(street.now, true);
    let before = street.steps.len();
    street.wait(MINUTE);
    assert_eq!(street.steps.len(), before);
    street.wait(2 * MINUTE);
    assert_eq!(street.steps.len(), before + 1);
}

#[test]
fn what_the_settings_allow_is_the_limit() {
    for (limit, action) in [(OnSilence::Report, Action::Nothing), (OnSilence::Reopen, Action::Reopen)] {
        let mut street = Street::new(limit);
        street.hear(Duration::from_secs(2), HOUR);
        street.wait(HOUR);
        assert!(street.actions().len() > 2 && street.actions().iter().all(|done| *done == action), "{limit:?}");
        assert_eq!(street.steps.iter().filter(|(_, step)| step.first).count(), 1);
    }
}
