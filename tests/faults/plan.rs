//! What is done to the gateway, and in which order: all of it follows from the seed.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing but the kill that ends every round.
    Kill,
    Cut,
    StallBoth,
    StallUp,
    StallDown,
    Slow,
    Backlog,
    Lost,
    Doubled,
    Repeated,
    BrokerStopped,
    BrokerKilled,
    BrokerEnded,
    DiskFull,
    Torn,
    Clock,
}

pub struct Kind {
    pub fault: Fault,
    pub name: &'static str,
    /// Rounds of the long run, without those that wait for the gateway to heal.
    long: usize,
    /// Milliseconds that it lasts, and lasts in the rounds that wait.
    hold: RangeInclusive<u64>,
    waiting: u64,
    /// Rounds that wait: long, short.
    healing: [usize; 2],
}

/// What is longer than a keep-alive of 5 s that goes unanswered.
const NOTICED: u64 = 12_000;

const fn kind(
    fault: Fault,
    name: &'static str,
    long: usize,
    hold: RangeInclusive<u64>,
    waiting: u64,
    healing: [usize; 2],
) -> Kind {
    Kind { fault, name, long, hold, waiting, healing }
}

pub const KINDS: &[Kind] = &[
    kind(Fault::Kill, "kill -9 of the gateway", 250, 0..=0, 0, [0, 0]),
    kind(Fault::Cut, "link cut", 100, 100..=1000, 2000, [8, 1]),
    kind(Fault::StallBoth, "link silent, both ways", 40, 300..=1500, NOTICED, [4, 1]),
    kind(Fault::StallUp, "link silent, to the broker", 40, 300..=1500, NOTICED, [4, 0]),
    kind(Fault::StallDown, "link silent, to the gateway", 40, 300..=1500, NOTICED, [4, 0]),
    kind(Fault::Slow, "slow link (4 to 16 kB/s)", 60, 300..=2000, 5000, [4, 1]),
    kind(Fault::Backlog, "killed while a backlog drains", 30, 2000..=8000, 8000, [4, 1]),
    kind(Fault::Lost, "PUBACKs lost", 70, 200..=1000, 1000, [2, 0]),
    kind(Fault::Doubled, "PUBACKs doubled", 60, 200..=1000, 2000, [4, 1]),
    kind(Fault::Repeated, "old PUBACKs repeated", 50, 20..=300, 100, [4, 1]),
    kind(Fault::BrokerStopped, "broker stopped (SIGSTOP)", 60, 200..=1500, NOTICED, [4, 0]),
    kind(Fault::BrokerKilled, "broker killed (SIGKILL)", 40, 100..=500, 500, [4, 1]),
    kind(Fault::BrokerEnded, "broker restarted (SIGTERM)", 25, 100..=500, 500, [4, 1]),
    kind(Fault::DiskFull, "disk full", 40, 300..=2000, 5000, [4, 1]),
    kind(Fault::Torn, "torn files", 80, 0..=0, 0, [4, 1]),
    kind(Fault::Clock, "clock jumps", 45, 600..=1500, 3000, [4, 1]),
];

pub fn kind_of(fault: Fault) -> &'static Kind {
    KINDS.iter().find(|kind| kind.fault == fault).unwrap()
}

/// When the gateway is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long after it was started, ready or not.
    Starting(Duration),
    /// While the fault lasts; it ends before the next start, or after it.
    During {
        outlives: bool,
    },
    After,
}

/// One life of the gateway.
#[derive(Debug, Clone)]
pub struct Round {
    pub fault: Fault,
    pub tls: bool,
    pub sync: &'static str,
    pub before: Duration,
    pub hold: Duration,
    pub after: Duration,
    pub kill: Moment,
    /// Before the kill, wait until everything is delivered.
    pub heal: bool,
    /// For what the fault itself chooses.
    pub seed: u64,
}

/// The rounds, `kills` of them, with the faults whose names contain `only`.
pub fn rounds(seed: u64, kills: usize, long: bool, only: &str) -> Vec<Round> {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut rounds = Vec::new();
    let total: usize = KINDS.iter().map(|kind| kind.long).sum();
    for kind in KINDS.iter().skip(1).filter(|kind| kind.name.contains(only)) {
        let count = (kind.long * kills / total).max(1);
        rounds.extend((0..kind.healing[usize::from(!long)]).map(|_| round(kind, true, random)));
        rounds.extend((0..count).map(|_| round(kind, false, random)));
    }
    let rest = KINDS.iter().find(|kind| !only.is_empty() && kind.name.contains(only)).unwrap_or(&KINDS[0]);
    while rounds.len() < kills {
        rounds.push(round(rest, false, random));
    }
    rounds.truncate(kills);
    rounds.shuffle(random);
    rounds
}

fn round(kind: &Kind, heal: bool, random: &mut StdRng) -> Round {
    let millis = |range: RangeInclusive<u64>, random: &mut StdRng| Duration::from_millis(random.random_range(range));
    let kill = match random.random_range(0..10) {
        _ if heal => Moment::After,
        0 => Moment::Starting(millis(0..=40, random)),
        1..=3 => Moment::During { outlives: random.random() },
        _ => Moment::After,
    };
    Round {
        fault: kind.fault,
        tls: random.random_bool(0.3),
        sync: ["1s", "200ms", "200ms", "always"][random.random_range(0..4)],
        before: millis(0..=600, random),
        hold: if heal { Duration::from_millis(kind.waiting) } else { millis(kind.hold.clone(), random) },
        after: millis(0..=600, random),
        kill,
        heal,
        seed: random.random(),
    }
}
