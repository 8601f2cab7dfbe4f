//! The course over histories: silences, restarts, power cuts, clocks that jump.

use proptest::prelude::*;

use super::super::book::LEAST_UPTIME;
use super::*;
use crate::model::{BootId, Timestamp};

const MINUTE: u64 = 60_000;

fn rules() -> Rules {
    Rules {
        ping: Some((Duration::from_mins(35), Duration::from_mins(1), 3)),
        ladder: vec![Step::ModemRegister, Step::NetworkRestart, Step::AgentRestart, Step::Reboot],
        pause: Duration::from_mins(10),
        reboots: 3,
        daily: None,
    }
}

fn at(boot: u8, minutes: u64) -> Stamp {
    Stamp {
        wall: Timestamp::from_millis(1_800_000_000_000 + (minutes * MINUTE).cast_signed()),
        boot: BootId::new([boot; 8]),
        uptime: minutes * MINUTE,
        clock: ClockState::Synced,
    }
}

#[test]
fn after_a_silence_and_failures_each_step_is_tried_once_with_pauses_between() {
    let mut course = Course::new(rules(), Book::default(), &at(1, 0));
    assert!(matches!(course.next(&at(1, 34), false, false), Task::Wait(_)));
    let mut tried = Vec::new();
    for minute in 35..200 {
        let now = at(1, minute);
        match course.next(&now, false, false) {
            Task::Test => course.tested(&now, false),
            Task::Try(step) => {
                tried.push((minute, step));
                course.stepped(&now, Done::Tried);
            }
            other => panic!("{minute}: {other:?}"),
        }
    }
    let steps = [(38, Step::ModemRegister), (48, Step::NetworkRestart), (58, Step::AgentRestart), (68, Step::Reboot)];
    assert_eq!(tried, steps);
}

#[test]
fn a_host_that_answers_ends_the_ladder_and_the_next_silence_begins_it_anew() {
    let mut course = Course::new(rules(), Book::default(), &at(1, 0));
    for minute in 35..38 {
        course.tested(&at(1, minute), false);
    }
    assert_eq!(course.next(&at(1, 38), false, false), Task::Try(Step::ModemRegister));
    course.stepped(&at(1, 38), Done::Tried);
    course.tested(&at(1, 39), true);
    assert_eq!((course.failures, course.rung), (0, 0));
    for minute in 60..63 {
        course.tested(&at(1, minute), false);
    }
    assert_eq!(course.next(&at(1, 63), false, false), Task::Try(Step::ModemRegister));
    // So does a broker that is reached.
    course.stepped(&at(1, 63), Done::Tried);
    assert!(matches!(course.next(&at(1, 64), true, false), Task::Wait(_)));
    assert_eq!(course.rung, 0);
    assert!(matches!(course.next(&at(1, 65), false, false), Task::Wait(_)), "and the silence is counted anew");
}

#[test]
fn a_step_that_cannot_be_done_costs_no_pause_and_a_restart_of_weir_goes_on_where_it_was() {
    let mut course = Course::new(rules(), Book::default(), &at(1, 0));
    for minute in 35..38 {
        course.tested(&at(1, minute), false);
    }
    course.stepped(&at(1, 38), Done::Skipped);
    assert_eq!(course.next(&at(1, 38), false, false), Task::Try(Step::NetworkRestart));
    course.stepped(&at(1, 38), Done::Skipped);
    course.stepped(&at(1, 38), Done::Tried);
    let mut course = Course::new(rules(), course.book, &at(1, 39));
    assert_eq!(course.rung, 3);
    for minute in 39..49 {
        assert_eq!(course.next(&at(1, minute), false, false), Task::Test, "{minute}");
        course.tested(&at(1, minute), false);
    }
    assert_eq!(course.next(&at(1, 49), false, true), Task::Test, "not while something is on trial");
    assert_eq!(course.next(&at(1, 49), false, false), Task::Try(Step::Reboot));
    // In the next boot it begins anew.
    let course = Course::new(rules(), course.book, &at(2, 0));
    assert_eq!(course.rung, 0);
}

#[test]
fn the_daily_reset_is_done_once_a_day_by_a_clock_that_is_trusted() {
    // at() begins at 2027-01-15 08:00 UTC.
    let start = Timestamp::parse("2027-01-15T08:00:00Z").unwrap();
    assert_eq!(at(1, 0).wall, start);
    let rules = Rules { daily: Some(10 * 60), ping: None, ..rules() };
    let mut course = Course::new(rules.clone(), Book::default(), &at(1, 0));
    assert!(matches!(course.next(&at(1, 119), true, false), Task::Wait(_)));
    let unsynced = Stamp { clock: ClockState::Unsynced, ..at(1, 121) };
    assert!(matches!(course.next(&unsynced, true, false), Task::Wait(_)));
    assert!(matches!(course.next(&at(1, 121), true, true), Task::Wait(_)), "a trial goes first");
    assert_eq!(course.next(&at(1, 130), true, false), Task::DailyReset);
    course.daily_is_done(&at(1, 130));
    assert!(matches!(course.next(&at(1, 131), true, false), Task::Wait(_)));
    // After the reboot it is the same day, and its hour is not over.
    let wall = at(1, 132).wall;
    let mut next = Course::new(rules.clone(), course.book.clone(), &Stamp { wall, ..at(2, 0) });
    let later = Stamp { wall: wall.plus(Duration::from_mins(5)), ..at(2, 5) };
    assert!(matches!(next.next(&later, true, false), Task::Wait(_)));
    assert_eq!(
        next.next(&Stamp { wall: wall.plus(Duration::from_hours(24)), ..at(2, 24 * 60) }, true, false),
        Task::DailyReset
    );
    // Switched on at ten past, it waits for tomorrow.
    let mut fresh = Course::new(rules, Book::default(), &at(1, 130));
    assert!(matches!(fresh.next(&at(1, 131), true, false), Task::Wait(_)));
}

#[test]
fn a_book_that_is_lost_allows_no_reboot_for_a_day() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join(super::super::book::BOOK), "{\"reboots\":[").unwrap();
    let book = Book::read(home.path(), &at(1, 60));
    book.write(home.path()).unwrap();
    let book = Book::read(home.path(), &at(2, 0));
    let unsynced = |minutes| Stamp { clock: ClockState::Unsynced, ..at(2, minutes) };
    assert!(!book.allows(&unsynced(60), 3) && book.allows(&unsynced(24 * 60), 3));
    assert!(Book::read(&home.path().join("none"), &at(1, 60)).allows(&at(1, 60), 3));
}

/// What happens to a gateway.
#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Connect(bool),
    Answer(bool),
    PowerCut(u64),
    Crash,
    /// The clock is trusted from now on, or shows anything.
    Clock(Option<i64>),
    /// Somebody commands a reboot.
    Command,
    /// A reboot that was asked for does not happen.
    Deaf(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1u64..240).prop_map(Event::Pass),
        1 => any::<bool>().prop_map(Event::Connect),
        1 => any::<bool>().prop_map(Event::Answer),
        1 => (0u64..120).prop_map(Event::PowerCut),
        1 => Just(Event::Crash),
        1 => prop_oneof![Just(None), (0i64..4_000_000_000_000).prop_map(Some)].prop_map(Event::Clock),
        1 => Just(Event::Command),
        1 => any::<bool>().prop_map(Event::Deaf),
    ]
}

/// A gateway that lives through events; time is counted in minutes.
struct World {
    minute: u64,
    booted: u64,
    boot: u8,
    /// What the clock shows when nobody trusts it.
    wrong: Option<i64>,
    connected: bool,
    answers: bool,
    deaf: bool,
    rules: Rules,
    course: Course,
    reboots: Vec<u64>,
}

impl World {
    fn stamp(&self) -> Stamp {
        let uptime = (self.minute - self.booted) * MINUTE;
        let right = Timestamp::from_millis(1_800_000_000_000 + (self.minute * MINUTE).cast_signed());
        let (wall, clock) = match self.wrong {
            None => (right, ClockState::Synced),
            Some(wall) => (Timestamp::from_millis(wall), ClockState::Unsynced),
        };
        Stamp { wall, boot: BootId::new([self.boot; 8]), uptime, clock }
    }

    fn restart(&mut self) {
        let now = self.stamp();
        self.course = Course::new(self.rules.clone(), self.course.book.clone(), &now);
    }

    fn boot(&mut self, off: u64) {
        self.minute += off;
        self.booted = self.minute;
        self.boot += 1;
        self.restart();
    }

    /// As `Dog::reboot` does it.
    fn reboot(&mut self) {
        let now = self.stamp();
        if !self.course.may_reboot(&now) {
            return;
        }
        self.course.book.note_reboot(&now);
        if !self.deaf {
            self.reboots.push(self.minute);
            self.boot(1);
        }
    }

    fn live(&mut self, event: &Event) {
        match event {
            Event::Pass(minutes) => (0..*minutes).for_each(|_| self.minute()),
            Event::Connect(connected) => self.connected = *connected,
            Event::Answer(answers) => self.answers = *answers,
            Event::PowerCut(off) => self.boot(*off),
            Event::Crash => self.restart(),
            Event::Clock(wrong) => self.wrong = *wrong,
            Event::Command => self.reboot(),
            Event::Deaf(deaf) => self.deaf = *deaf,
        }
    }

    fn minute(&mut self) {
        self.minute += 1;
        let now = self.stamp();
        match self.course.next(&now, self.connected, false) {
            Task::Wait(_) => {}
            Task::Test => self.course.tested(&now, self.answers),
            Task::Try(Step::Reboot) => {
                self.course.stepped(&now, Done::Tried);
                self.reboot();
            }
            Task::Try(step) => {
                self.course.stepped(&now, Done::Tried);
                if step == Step::AgentRestart {
                    self.restart();
                }
            }
            Task::DailyReset => {
                self.course.daily_is_done(&now);
                self.reboot();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_history_has_more_reboots_in_a_day_than_the_limit(
        events in proptest::collection::vec(event(), 1..120),
        limit in 0u32..4,
        daily in proptest::option::of(0u16..1440),
    ) {
        let rules = Rules { reboots: limit, daily, ..rules() };
        let course = Course::new(rules.clone(), Book::default(), &at(0, 0));
        let mut world = World {
            minute: 0, booted: 0, boot: 0, wrong: None, connected: false, answers: false, deaf: false,
            rules, course, reboots: Vec::new(),
        };
        for event in &events {
            if world.boot > 200 {
                break;
            }
            world.live(event);
        }
        let limit = usize::try_from(limit).unwrap();
        for (n, first) in world.reboots.iter().enumerate() {
            let within = world.reboots[n..].iter().filter(|at| **at - first < 24 * 60).count();
            prop_assert!(within <= limit, "{within} reboots in a day: {:?}", world.reboots);
        }
        for pair in world.reboots.windows(2) {
            prop_assert!((pair[1] - pair[0]) * MINUTE >= LEAST_UPTIME);
        }
    }
}
