//! What 5,000 gateways do to a broker that comes back, for each shape of the back-off.
//!
//! The back-off is the uplink's own; time is virtual and chance is repeatable, so every run gives
//! the same table: `cargo test --test fleet -- --nocapture`. It is kept in docs/fleet.md.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use rand::RngExt;
use weir::os::random::repeatable;
use weir::uplink::{Backoff, BackoffSettings, Growth};

const GATEWAYS: u64 = 5000;

/// What happened to the broker or to the gateways.
struct Scenario {
    name: &'static str,
    /// How long the broker refuses connections.
    down: u64,
    /// The gateways lose their sessions, or boot, within so many milliseconds.
    within: u64,
    /// They boot: there was no session before.
    boot: bool,
    /// Sessions the broker can accept in a second; others fail.
    most: u64,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "broker restarts, 5 s", down: 5_000, within: 200, boot: false, most: u64::MAX },
    Scenario { name: "broker down for 60 s", down: 60_000, within: 200, boot: false, most: u64::MAX },
    Scenario { name: "broker down for 10 min", down: 600_000, within: 200, boot: false, most: u64::MAX },
    Scenario {
        name: "the same, a broker that accepts 200 sessions/s",
        down: 600_000,
        within: 200,
        boot: false,
        most: 200,
    },
    Scenario { name: "power returns to all gateways", down: 0, within: 3_000, boot: true, most: u64::MAX },
];

#[derive(Debug)]
struct Outcome {
    /// The most attempts in one second that reach the broker once it is back.
    peak: u64,
    /// Milliseconds after the broker's return until 99 of 100 are back.
    most_back: u64,
}

fn run(scenario: &Scenario, shape: Growth) -> Outcome {
    let (first, max) = (Duration::from_secs(1), Duration::from_secs(64));
    let settings = BackoffSettings { shape, first, max, jitter: Duration::from_millis(999) };
    let mut random = repeatable(2026);
    let mut waits: Vec<_> =
        (0..GATEWAYS).map(|n| Backoff::new(&settings, Duration::from_secs(60), &format!("KAM73471{n:05}"))).collect();
    let mut attempts = BinaryHeap::new();
    for (gateway, backoff) in waits.iter_mut().enumerate() {
        let begins = random.random_range(0..scenario.within);
        let wait = if scenario.boot { backoff.initial() } else { backoff.next(&mut random) };
        attempts.push(Reverse((begins + u64::try_from(wait.as_millis()).unwrap(), gateway)));
    }
    let mut reached = BTreeMap::<u64, u64>::new();
    let mut accepted = BTreeMap::<u64, u64>::new();
    let mut back = Vec::new();
    while let Some(Reverse((now, gateway))) = attempts.pop() {
        if now >= scenario.down {
            let second = (now - scenario.down) / 1000;
            *reached.entry(second).or_default() += 1;
            let accepted = accepted.entry(second).or_default();
            if *accepted < scenario.most {
                *accepted += 1;
                back.push(now - scenario.down);
                continue;
            }
        }
        let wait = waits[gateway].next(&mut random);
        attempts.push(Reverse((now + u64::try_from(wait.as_millis()).unwrap(), gateway)));
    }
    assert_eq!(back.len() as u64, GATEWAYS);
    Outcome { peak: reached.into_values().max().unwrap(), most_back: back[back.len() * 99 / 100 - 1] }
}

fn table() -> String {
    let mut text =
        String::from("| what happened | shape | peak, connects/s | 99 % are back after |\n| --- | --- | --- | --- |\n");
    for scenario in &SCENARIOS {
        for shape in [Growth::Exponential, Growth::Linear, Growth::Fleet] {
            let Outcome { peak, most_back } = run(scenario, shape);
            let seconds = most_back.div_ceil(1000);
            writeln!(text, "| {} | `{}` | {peak} | {seconds} s |", scenario.name, shape.word()).unwrap();
        }
    }
    text
}

#[test]
fn a_fleet_comes_back_without_a_rush_and_within_its_longest_wait() {
    for scenario in &SCENARIOS {
        let fleet = run(scenario, Growth::Fleet);
        // 5,000 over 63 seconds are 79 a second; after random waits, whose mean is half, 154.
        let bound = if scenario.most == u64::MAX { 220 } else { 260 };
        assert!(fleet.peak <= bound, "{}: {fleet:?}", scenario.name);
        assert!(fleet.most_back <= 70_000, "{}: {fleet:?}", scenario.name);
        let exponential = run(scenario, Growth::Exponential);
        assert!(fleet.peak * 2 < exponential.peak, "{exponential:?} {fleet:?}");
    }
}

#[test]
fn the_page_shows_the_table_as_it_comes_out() {
    let made = table();
    println!("{made}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleet.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("| what happened |").unwrap();
    let after = rest.split_once("\n\n").unwrap().1;
    let fresh = format!("{before}{made}\n{after}");
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    } else {
        assert!(page == fresh, "docs/fleet.md is stale; run: WEIR_BLESS=1 cargo test --test fleet");
    }
}
