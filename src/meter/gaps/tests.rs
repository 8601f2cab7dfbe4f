use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::meter::MeterSettings;

const MINUTE: i64 = 60_000;
const PERIOD: i64 = 15 * MINUTE;
/// 2026-06-01, a multiple of every period used here.
const EPOCH: i64 = 1_780_272_000_000;

fn settings(text: &str) -> LoadProfileSettings {
    let text =
        format!("name = \"m\"\nport = \"p\"\nprotocol = \"iec62056-21\"\nload_profile = {{ id = \"P.01\", {text} }}\n");
    MeterSettings::parse(&text).unwrap().load_profile.unwrap()
}

/// A meter with a clock and a memory.
#[derive(Debug, Default)]
struct Meter {
    /// By how much its clock is wrong.
    offset: i64,
    on: bool,
    /// Ends and numbers, in the order of recording.
    records: Vec<(i64, u32)>,
    /// When each was recorded, by the right time.
    recorded: Vec<i64>,
    next: i64,
}

impl Meter {
    fn clock(&self, now: i64) -> i64 {
        now + self.offset
    }

    fn set(&mut self, now: i64, offset: i64) {
        self.offset = offset;
        self.next = (self.clock(now).div_euclid(PERIOD) + 1) * PERIOD;
    }

    /// Records what ends until `now`, unless it is off; a meter that is off closes nothing.
    fn pass(&mut self, now: i64) {
        let clock = self.clock(now);
        while self.next <= clock {
            if self.on {
                self.records.push((self.next, self.records.len() as u32));
                self.recorded.push(now);
            }
            self.next += PERIOD;
        }
    }

    fn answer(&self, piece: Piece, most: usize) -> Vec<Interval> {
        let (after, until) = (piece.after.as_millis(), piece.until.as_millis());
        let mut rows: Vec<_> = self.records.iter().filter(|(end, _)| *end > after && *end <= until).collect();
        rows.sort_by_key(|(end, _)| *end);
        // Never only some of those that ended together: nobody could ask for the rest.
        let cut = rows.get(most).map_or(i64::MAX, |(end, _)| *end);
        rows.into_iter()
            .filter(|(end, _)| *end < cut || most == 0)
            .map(|(end, number)| interval(*end, *number))
            .collect()
    }
}

fn interval(end: i64, number: u32) -> Interval {
    Interval {
        meter: "m".into(),
        profile: "P.01".into(),
        end: Timestamp::from_millis(end),
        meter_time: number.to_string(),
        period: 900,
        status: String::new(),
        values: vec![],
    }
}

/// Weir, its disk and its meter.
struct World {
    settings: LoadProfileSettings,
    gaps: Gaps,
    meter: Meter,
    start: Instant,
    /// Milliseconds since [`EPOCH`].
    now: i64,
    trusted: bool,
    file: Vec<u8>,
    /// Handed over and not durable yet.
    under_way: Vec<Interval>,
    durable: Vec<Interval>,
    spent: Vec<(i64, i64)>,
}

impl World {
    fn new(text: &str) -> Self {
        let settings = settings(text);
        let gaps = Gaps::new(&settings, State::new("P.01"));
        let mut meter = Meter { on: true, ..Meter::default() };
        meter.set(EPOCH - 20 * PERIOD, 0);
        meter.pass(EPOCH);
        let start = Instant::now();
        let (file, now) = (Vec::new(), 0);
        Self {
            settings,
            gaps,
            meter,
            start,
            now,
            trusted: true,
            file,
            under_way: vec![],
            durable: vec![],
            spent: vec![],
        }
    }

    fn moment(&self) -> Now {
        Now {
            wall: Timestamp::from_millis(EPOCH + self.now),
            trusted: self.trusted,
            at: self.start + Duration::from_millis(self.now as u64),
        }
    }

    fn pass(&mut self, millis: i64) {
        self.now += millis;
        self.meter.pass(EPOCH + self.now);
    }

    /// One turn of the bus: asks once if there is something to ask. Whether it did.
    fn turn(&mut self, how: u32, most: usize) -> bool {
        let Some(piece) = self.gaps.next(&self.moment(), Duration::from_secs(60)) else { return false };
        assert!(piece.after < piece.until, "{piece:?}");
        let rows = if self.meter.on { self.meter.answer(piece, most) } else { vec![] };
        let took = 2000 + 50 * rows.len() as i64;
        self.pass(took);
        self.spent.push((self.now, took));
        let (took, now) = (Duration::from_millis(took as u64), self.moment());
        match how {
            0 => self.gaps.failed(Failure::Refused, took, &now),
            1 => self.gaps.failed(Failure::Damaged, took, &now),
            2 => self.gaps.failed(Failure::Silent, took, &now),
            _ if !self.meter.on => self.gaps.failed(Failure::Silent, took, &now),
            _ => {
                let fresh = self.gaps.delivered(rows, took, &now);
                assert!(fresh.is_sorted_by_key(|i| i.end));
                self.under_way.extend(fresh);
            }
        }
        true
    }

    fn sync(&mut self) {
        self.durable.append(&mut self.under_way);
        self.file = self.gaps.state().encode();
    }

    /// Killed and started again; its file may be damaged.
    fn restart(&mut self, torn: bool) {
        self.under_way.clear();
        // A life of weir has a budget of its own.
        self.spent.clear();
        if torn {
            self.file.truncate(self.file.len() / 2);
        }
        let state = State::decode(&self.file, "P.01").unwrap_or_else(|| State::new("P.01"));
        self.gaps = Gaps::new(&self.settings, state);
    }

    /// Nothing fails any more, for as long as it takes.
    fn settle(&mut self, days: i64) {
        let end = self.now + days * 24 * 60 * MINUTE;
        self.trusted = true;
        self.meter.on = true;
        while self.now < end {
            if !self.turn(9, 1000) {
                self.pass(MINUTE);
            }
        }
        self.sync();
    }

    fn missing(&self) -> Vec<(i64, u32)> {
        let had: BTreeMap<_, _> = self.durable.iter().map(|i| (i.meter_time.clone(), i.end)).collect();
        // The newest may wait for the next round.
        let due = EPOCH + self.now - 2 * 60 * MINUTE;
        let records = self.meter.records.iter().zip(&self.meter.recorded);
        let records = records.filter(|((end, _), at)| *end <= due && **at <= due).map(|(record, _)| *record);
        records.filter(|(_, n)| !had.contains_key(&n.to_string())).collect()
    }

    fn hours_within(&self, budget: i64) -> bool {
        let longest = self.spent.iter().map(|(_, took)| *took).max().unwrap_or(0);
        self.spent.iter().enumerate().all(|(i, (from, _))| {
            let hour: i64 =
                self.spent.iter().skip(i).take_while(|(at, _)| *at < from + 60 * MINUTE).map(|(_, t)| t).sum();
            hour <= budget + longest
        })
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Turns of the bus, minutes between them, how they end, how many rows the meter gives at most.
    Turns(u8, i64, u32, usize),
    Pass(i64),
    Sync,
    Crash {
        torn: bool,
        minutes: i64,
    },
    Power(bool),
    Clock(i64),
    Trust(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u8..20, 0i64..70, 0u32..12, 1usize..40).prop_map(|(n, m, how, most)| Step::Turns(n, m, how, most)),
        3 => (1i64..2000).prop_map(Step::Pass),
        4 => Just(Step::Sync),
        2 => (prop::bool::weighted(0.2), 0i64..6000).prop_map(|(torn, minutes)| Step::Crash { torn, minutes }),
        1 => any::<bool>().prop_map(Step::Power),
        1 => (-600i64..600).prop_map(Step::Clock),
        1 => any::<bool>().prop_map(Step::Trust),
    ]
}

fn play(world: &mut World, steps: &[Step], clocks: bool) {
    for step in steps {
        match step {
            Step::Turns(count, minutes, how, most) => {
                for _ in 0..*count {
                    world.turn(*how, *most);
                    world.pass(minutes * MINUTE);
                }
            }
            Step::Pass(minutes) => world.pass(minutes * MINUTE),
            Step::Sync => world.sync(),
            Step::Crash { torn, minutes } => {
                world.restart(*torn);
                world.pass(minutes * MINUTE);
            }
            Step::Power(on) => world.meter.on = *on,
            Step::Clock(minutes) if clocks => world.meter.set(EPOCH + world.now, minutes * MINUTE),
            Step::Trust(trusted) if clocks => world.trusted = *trusted,
            Step::Clock(_) | Step::Trust(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_interval_that_the_meter_kept_is_delivered_in_the_end(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new("history = \"400d\"");
        play(&mut world, &steps, false);
        world.settle(12);
        prop_assert_eq!(world.missing(), vec![]);
        prop_assert!(world.hours_within(6 * MINUTE));
        prop_assert!(world.gaps.state().encode().len() < state::LARGEST as usize);
    }

    #[test]
    fn clocks_that_are_set_lose_nothing_either(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new("history = \"400d\"");
        play(&mut world, &steps, true);
        world.settle(12);
        prop_assert_eq!(world.missing(), vec![]);
    }

    #[test]
    fn without_refusals_the_order_is_that_of_the_meter_and_nothing_comes_twice(
        outages in prop::collection::vec((1i64..5000, 1usize..50), 1..20),
    ) {
        let mut world = World::new("history = \"400d\"");
        for (minutes, most) in outages {
            world.turn(9, most);
            world.turn(2, most);
            world.turn(9, most);
            world.sync();
            world.restart(false);
            world.pass(minutes * MINUTE);
        }
        world.settle(3);
        prop_assert_eq!(world.missing(), vec![]);
        prop_assert!(world.durable.is_sorted_by(|a, b| a.end < b.end));
        prop_assert_eq!(world.gaps.state().absent, 0);
        prop_assert_eq!(world.gaps.state().delivered, world.durable.len() as u64);
    }
}

#[test]
fn what_the_meter_does_not_have_is_absent_and_not_asked_for_again() {
    let mut world = World::new("every = \"1h\"");
    world.settle(1);
    assert_eq!(world.gaps.state().absent, 0);
    world.meter.on = false;
    world.pass(48 * 60 * MINUTE);
    world.meter.on = true;
    world.settle(1);
    assert_eq!(world.missing(), vec![]);
    assert_eq!(world.gaps.state().absent, 4 * 48);
    let asked = world.spent.len();
    world.settle(1);
    assert!(world.spent.len() - asked <= 26, "{} pieces in a day", world.spent.len() - asked);
}

#[test]
fn the_newest_interval_stays_open_until_the_meter_has_closed_it() {
    let mut world = World::new("every = \"15m\"");
    // Ten minutes slow: at the slot the meter has not closed the interval yet.
    world.meter.set(EPOCH, -10 * MINUTE);
    world.settle(2);
    assert_eq!((world.missing(), world.gaps.state().absent), (vec![], 0));
}

#[test]
fn an_hour_that_comes_twice_is_delivered_twice() {
    let mut world = World::new("every = \"1h\"");
    world.settle(1);
    world.meter.set(EPOCH + world.now, -3 * 60 * MINUTE);
    let (records, delivered) = (world.meter.records.len(), world.durable.len());
    world.settle(2);
    assert_eq!(world.missing(), vec![]);
    assert!(world.durable.len() - delivered > world.meter.records.len() - records - 12);
    let mut numbers: Vec<_> = world.durable.iter().map(|i| i.meter_time.clone()).collect();
    let all = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(all, numbers.len(), "the same interval came twice");
}

#[test]
fn equal_intervals_of_one_answer_are_all_delivered_and_known_afterwards() {
    let mut world = World::new("every = \"1h\"");
    world.meter.records = vec![(EPOCH, 1), (EPOCH, 1), (EPOCH, 2)];
    world.pass(MINUTE);
    for _ in 0..200 {
        world.turn(9, 100);
    }
    world.sync();
    assert_eq!(world.durable.len(), 3);
    world.pass(61 * MINUTE);
    for _ in 0..9 {
        world.turn(9, 100);
    }
    assert!(world.under_way.iter().all(|i| i.end > Timestamp::from_millis(EPOCH)), "{:?}", world.under_way);
}

#[test]
fn a_stretch_that_is_always_refused_does_not_keep_the_others_back() {
    let mut world = World::new("every = \"1h\"");
    let bad = EPOCH + 40 * PERIOD;
    world.pass(3 * 24 * 60 * MINUTE);
    let end = world.now + 24 * 60 * MINUTE;
    while world.now < end {
        let (at, moment) = (world.start, world.moment());
        let _ = at;
        match world.gaps.next(&moment, Duration::MAX) {
            Some(piece) if (piece.after.as_millis()..piece.until.as_millis()).contains(&bad) => {
                world.gaps.failed(Failure::Refused, Duration::from_secs(2), &moment);
            }
            Some(piece) => {
                let fresh = world.gaps.delivered(world.meter.answer(piece, 1000), Duration::from_secs(2), &moment);
                world.durable.extend(fresh);
            }
            None => {}
        }
        world.pass(MINUTE);
    }
    let missing = world.missing();
    assert!(missing.iter().all(|(end, _)| (end - bad).abs() <= 2 * PERIOD) && missing.len() <= 2, "{missing:?}");
}

#[test]
fn a_clock_that_nobody_trusts_neither_skips_nor_stops() {
    let mut world = World::new("every = \"1h\"");
    world.settle(1);
    world.trusted = false;
    let newest = world.gaps.newest().unwrap();
    // The gateway thinks that it is a year later, or last year.
    for wall in [EPOCH + 365 * 24 * 60 * MINUTE, EPOCH - 365 * 24 * 60 * MINUTE] {
        let mut now = world.moment();
        now.wall = Timestamp::from_millis(wall);
        let mut gaps = Gaps::new(&world.settings, world.gaps.state().clone());
        let piece = gaps.next(&now, Duration::MAX).unwrap();
        assert!(piece.after < newest && piece.until > newest, "{piece:?}");
    }
}

#[test]
fn history_bounds_the_first_read() {
    let mut world = World::new("history = \"2d\"");
    let piece = world.gaps.next(&world.moment(), Duration::MAX).unwrap();
    assert_eq!(piece.after.as_millis(), EPOCH - 48 * 60 * MINUTE);
}
