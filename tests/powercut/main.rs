//! The store under simulated power cuts. A child runs the real store, its file operations are
//! recorded, and the disk is rebuilt at random operations as a power cut could leave it; whatever
//! the store had called durable must come back, and the store must open and work.
//!
//! `cargo test --test powercut` makes about 60 cuts, `tests/run-powercut --long` 2,000 and more.
//! `WEIR_SEED` repeats a chain of lives, `WEIR_CUTS` says how many cuts. docs/powercut.md tells
//! what the model covers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail loudly; the figures are printed"
)]

mod book;
mod chain;
mod child;
mod disk;
mod recording;

use std::path::PathBuf;

use rand::Rng;
use weir::os::random::generator;

const TEST: &str = "nothing_durable_is_lost_by_a_power_cut";
const PLAN: &str = "WEIR_POWERCUT_PLAN";
const MARK: &str = "POWERCUT_MARK";

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Where the disks lie: in memory when possible, since the model decides what a sync saves.
fn workshop() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("weir-powercut-{}", std::process::id()))
}

#[test]
fn nothing_durable_is_lost_by_a_power_cut() {
    if let Ok(plan) = std::env::var(PLAN) {
        return run(child::run(child::Plan::parse(&plan), std::env::var_os(MARK).unwrap().into()));
    }
    let wanted = number("WEIR_CUTS").unwrap_or(60);
    let first = number("WEIR_SEED");
    let seed = first.unwrap_or_else(|| generator().next_u64() >> 32);
    let room = workshop();
    let mut site = chain::Site::new(&room);
    let mut tally = chain::Tally::default();
    let mut at = seed;
    // Chains of small loads may come one after the other: then more chains make up for it.
    while tally.cuts < wanted || (tally.too_small() && tally.cuts < 4 * wanted) {
        site.chain(at, &mut tally);
        if first.is_some() && wanted == 1 {
            break;
        }
        at += 1;
    }
    println!("{}", tally.report(seed));
    if tally.kept.is_empty() {
        std::fs::remove_dir_all(&room).unwrap();
    }
    println!(
        "cuts {}, lost {} of {} durable frames, open failures {}",
        tally.cuts, tally.lost, tally.owed, tally.open_failures
    );
    assert!(tally.faults.is_empty(), "\n{}", tally.faults.join("\n"));
    assert!(!tally.too_small(), "the load was too small to prove anything");
    assert!(tally.at_restart * 2 >= tally.cuts, "too few cuts hit a restart: {} of {}", tally.at_restart, tally.cuts);
}
