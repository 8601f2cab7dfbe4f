use time::macros::date;

use super::*;
use crate::uplink::tally::Amount;

const HOUR: i64 = 3_600_000;

fn period(today: Date, renews: u8) -> (String, String) {
    let period = Period::of(today, renews);
    (period.first.to_string(), period.next.to_string())
}

fn budget(monthly: u64, renews: u8) -> Budget {
    Budget { monthly: Some(monthly), order: vec![Step::Batch, Step::Compress, Step::Defer], headers: 0, renews }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

#[test]
fn a_month_that_is_too_short_begins_on_its_last_day() {
    let dates = |first: &str, next: &str| (first.to_owned(), next.to_owned());
    assert_eq!(period(date!(2026 - 11 - 22), 1), dates("2026-11-01", "2026-12-01"));
    assert_eq!(period(date!(2026 - 12 - 31), 1), dates("2026-12-01", "2027-01-01"));
    assert_eq!(period(date!(2027 - 01 - 30), 31), dates("2026-12-31", "2027-01-31"));
    assert_eq!(period(date!(2027 - 01 - 31), 31), dates("2027-01-31", "2027-02-28"));
    assert_eq!(period(date!(2027 - 02 - 27), 31), dates("2027-01-31", "2027-02-28"));
    assert_eq!(period(date!(2027 - 02 - 28), 31), dates("2027-02-28", "2027-03-31"));
    assert_eq!(period(date!(2028 - 02 - 28), 30), dates("2028-01-30", "2028-02-29"));
    assert_eq!(period(date!(2028 - 02 - 29), 30), dates("2028-02-29", "2028-03-30"));
    // Every day belongs to the month it lies in, and months join without a gap.
    for renews in 1..=31 {
        let (mut today, mut last) = (date!(2027 - 01 - 01), None);
        while today < date!(2029 - 03 - 05) {
            let period = Period::of(today, renews);
            assert!(period.first <= today && today < period.next, "{today} {renews} {period:?}");
            assert!((28..=31).contains(&(period.next - period.first).whole_days()), "{period:?}");
            if let Some(last) = last.replace(period).filter(|last| *last != period) {
                assert_eq!((last.next, today), (period.first, period.first));
            }
            today = today.next_day().unwrap();
        }
    }
}

#[test]
fn each_day_ahead_takes_one_step_more_and_a_step_is_kept_for_a_day_less() {
    let budget = budget(30_000, 1);
    let mut taken = 0;
    let mut seen = Vec::new();
    // 900 bytes are a day's share; it is the 10th at noon, so 9.5 days have passed.
    for used in [8_100, 9_360, 9_450, 10_350, 11_340, 10_440, 10_260, 9_540, 9_360, 8_640, 8_460] {
        let mut daybook = Daybook::default();
        daybook.add(Some(date!(2026 - 11 - 01)), Amount { sent: used, ..Amount::default() });
        let standing = budget.standing(&daybook, at("2026-11-10T12:00:00Z")).unwrap();
        assert_eq!((standing.used, standing.ahead), (used, (used as i64 - 8550) * 96_000));
        taken = budget.steps(&standing, taken, ONE_DAY);
        seen.push(taken);
    }
    assert_eq!(seen, [0, 0, 1, 2, 3, 3, 2, 2, 1, 1, 0]);
}

#[test]
fn near_the_end_of_the_budget_every_step_is_taken_and_a_new_month_starts_free() {
    let budget = budget(30_000, 15);
    let mut daybook = Daybook::default();
    daybook.add(Some(date!(2026 - 11 - 15)), Amount { received: 29_099, ..Amount::default() });
    let late = budget.standing(&daybook, at("2026-12-14T20:00:00Z")).unwrap();
    assert_eq!(budget.steps(&late, 0, ONE_DAY), 2);
    daybook.add(Some(date!(2026 - 12 - 14)), Amount { received: 1, ..Amount::default() });
    let late = budget.standing(&daybook, at("2026-12-14T20:00:00Z")).unwrap();
    assert_eq!(budget.steps(&late, 0, ONE_DAY), 3);
    let new = budget.standing(&daybook, at("2026-12-15T00:00:01Z")).unwrap();
    assert_eq!((new.used, budget.steps(&new, 3, ONE_DAY)), (0, 2));
    // One step back a day.
    assert_eq!((budget.steps(&new, 2, Duration::ZERO), budget.steps(&new, 1, ONE_DAY)), (2, 0));
}

#[test]
fn the_declared_order_decides_what_the_steps_are() {
    let mut budget = budget(1, 1);
    assert_eq!(budget.policy(0), Policy::default());
    let batch = Policy { gather: Some(GATHER), quiet: Some(QUIET), ..Policy::default() };
    assert_eq!(budget.policy(1), batch);
    let both = Policy { gather: Some(GATHER_LONG), compress: true, ..batch };
    assert_eq!(budget.policy(2), both);
    assert_eq!(budget.policy(3), Policy { defer: true, ..both });
    assert_eq!(budget.policy(9), budget.policy(3));
    budget.order = vec![Step::Compress, Step::Batch];
    assert_eq!(budget.policy(1), Policy { compress: true, ..Policy::default() });
    assert_eq!(budget.policy(2).gather, Some(GATHER));
    assert!(!budget.policy(2).defer);
}

#[test]
fn headers_are_billed_and_the_forecast_follows_the_last_week() {
    let mut budget = budget(30_000, 1);
    budget.headers = 52;
    let mut daybook = Daybook::default();
    for day in 1..=10 {
        let day = Date::from_calendar_date(2026, Month::November, day).unwrap();
        let sent = if day.day() <= 3 { 9_000 } else { 100 };
        daybook.add(Some(day), Amount { sent, received: 48, packets: 1 });
    }
    let standing = budget.standing(&daybook, at("2026-11-11T00:00:00Z")).unwrap();
    assert_eq!(standing.used, 27_000 + 700 + 10 * 100);
    // Six whole days of 200 bytes and a seventh that has just begun.
    assert_eq!(standing.forecast, standing.used + 20 * 200);
    assert_eq!(budget.standing(&daybook, Timestamp::from_millis(5 * HOUR)), None);
}

/// A gateway of the simulation, with costs as measured (docs/budget.md), rounded.
#[derive(Default)]
struct Gateway {
    waiting: u64,
    delivered: u64,
    priority: u64,
}

impl Gateway {
    /// An hour's new frames and one of priority; pings.
    fn hour(&mut self, policy: &Policy, frames: u64) -> u64 {
        self.waiting += frames;
        self.priority += 1;
        650 + if policy.quiet.is_some() { 800 } else { 12_000 }
    }

    /// Some of what waits goes.
    fn send(&mut self, policy: &Policy) -> u64 {
        let frames = self.waiting.min(if policy.defer { 0 } else { 100 });
        self.waiting -= frames;
        self.delivered += frames;
        let each = match (policy.gather.is_some() || self.waiting > 60, policy.compress) {
            (false, _) => 650,
            (true, false) => 290,
            (true, true) => 70,
        };
        frames * each
    }
}

#[test]
fn a_gateway_with_too_much_to_say_stays_within_every_budget_and_loses_nothing() {
    // From more than enough to far too little; 60 frames an hour.
    for (monthly, most) in [(60_000_000, 0), (30_000_000, 1), (12_000_000, 2), (4_000_000, 3), (1_500_000, 3)] {
        for renews in [1, 17, 31] {
            let budget = budget(monthly, renews);
            let (mut daybook, mut gateway) = (Daybook::default(), Gateway::default());
            let (mut taken, mut deepest, mut changes, mut lately) = (0, 0, 0, 0);
            let begun = at("2027-01-01T00:00:00Z");
            let mut since = begun;
            for hour in 0..24 * 120 {
                let now = begun.plus(Duration::from_hours(hour));
                let mut cost = gateway.hour(&budget.policy(taken), 60);
                // The budget is looked at every now and then while much is sent.
                loop {
                    daybook.add(day_of(now), Amount { sent: cost, ..Amount::default() });
                    let standing = budget.standing(&daybook, now).unwrap();
                    let steps = budget.steps(&standing, taken, now.since(since));
                    assert!(
                        standing.used <= monthly,
                        "{monthly} renews {renews} hour {hour}: {} {steps}",
                        standing.used
                    );
                    assert!(steps + 1 >= taken, "given back one by one");
                    if steps != taken {
                        (taken, since, changes) = (steps, now, changes + 1);
                    }
                    deepest = deepest.max(taken);
                    cost = gateway.send(&budget.policy(taken));
                    if cost == 0 {
                        break;
                    }
                }
                lately = if gateway.waiting == 0 { hour } else { lately };
            }
            assert_eq!((gateway.delivered + gateway.waiting, gateway.priority), (60 * 24 * 120, 24 * 120));
            assert_eq!(deepest, most, "{monthly} renews {renews}");
            // What the budget can carry does not wait; there is no flood of lines in the log.
            assert!(most == 3 || lately == 24 * 120 - 1, "{monthly} renews {renews}: {lately}");
            assert!(gateway.delivered > 60 * 24 * 10, "{monthly} renews {renews}: {}", gateway.delivered);
            assert!(changes <= 120 * 2, "{monthly} renews {renews}: {changes} changes");
        }
    }
}
