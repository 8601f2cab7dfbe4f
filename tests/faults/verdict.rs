//! What was lost, what came twice and why, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::bench::Bench;
use super::damage::Damage;
use super::disk;
use super::gateway::Maker;
use super::plan::{Fault, KINDS, Round, kind_of};

const BROKER: &str = "the broker gave it to the subscriber again";
const AGAIN: &str = "killed before it confirmed: the meter sent it again";
const UNEXPLAINED: &str = "UNEXPLAINED";

/// The result of one gateway.
#[derive(Debug, Default)]
pub struct Verdict {
    pub fed: u64,
    pub lost: u64,
    pub repeats: u64,
    pub findings: Vec<String>,
    /// Lost telegrams by the fault of the round in which the gateway confirmed them.
    lost_by: BTreeMap<&'static str, u64>,
    repeats_by: BTreeMap<&'static str, u64>,
    times: BTreeMap<Fault, usize>,
    healed: BTreeMap<Fault, Duration>,
    full_disk: bool,
    pub damage: Damage,
    pub notes: Vec<String>,
}

impl Verdict {
    pub fn of(bench: &mut Bench, rounds: &[Round]) -> Self {
        let mut verdict = Self {
            fed: bench.fed,
            findings: std::mem::take(&mut bench.findings),
            times: bench.times.clone(),
            healed: bench
                .healed
                .iter()
                .map(|(f, times)| (*f, times.iter().max().copied().unwrap_or_default()))
                .collect(),
            full_disk: bench.disk.kind != disk::Kind::Shared,
            ..Self::default()
        };
        verdict.notes.push(format!("the gateway's directory is on: {:?}", bench.disk.kind));
        if bench.gateway.maker == Maker::Bridge {
            let last = bench.refused.last().map_or("", |words| words.lines().last().unwrap_or_default());
            verdict
                .notes
                .push(format!("starts refused until its database was taken away: {} {last}", bench.refused.len()));
        }
        verdict.count_losses(bench, rounds);
        verdict.count_repeats(bench);
        verdict.check_content(bench);
        if bench.gateway.maker == Maker::Weir {
            verdict.check_counters(bench);
        }
        verdict
    }

    fn count_losses(&mut self, bench: &Bench, rounds: &[Round]) {
        let mut passed = 0;
        for number in (0..self.fed).filter(|number| !bench.head_end.has(*number)) {
            self.lost += 1;
            passed += u64::from(bench.proxy.passed(number));
            let round = bench.gateway.ledger.confirmed_in(number);
            let fault = round.map(|at| rounds.get(at).map_or(Fault::Kill, |round| round.fault));
            *self.lost_by.entry(fault.map_or("never confirmed", |fault| kind_of(fault).name)).or_default() += 1;
        }
        self.notes.push(format!("lost although a copy was passed on to the broker: {passed}"));
    }

    /// A copy is explained by what ended the connection of the copy before it.
    fn count_repeats(&mut self, bench: &Bench) {
        let trace = bench.proxy.trace.lock().unwrap();
        let book = bench.head_end.book.lock().unwrap();
        for (number, arrivals) in &book.arrivals {
            let copies = trace.copies.get(number).map_or(&[][..], Vec::as_slice);
            let mut causes: Vec<_> = copies
                .windows(2)
                .map(|pair| match (pair[0], pair[1]) {
                    (a, b) if a.sequence != b.sequence => AGAIN,
                    (a, b) if a.connection == b.connection && bench.gateway.ledger.was_repeated(*number) => AGAIN,
                    (a, b) if a.connection == b.connection => UNEXPLAINED,
                    (a, _) => trace.ends.get(&a.connection).copied().unwrap_or(UNEXPLAINED),
                })
                .collect();
            for _ in 1..*arrivals {
                *self.repeats_by.entry(causes.pop().unwrap_or(BROKER)).or_default() += 1;
                self.repeats += 1;
            }
        }
        let broker_restarts = [Fault::BrokerKilled, Fault::BrokerEnded, Fault::BrokerStopped];
        if !self.times.keys().any(|fault| broker_restarts.contains(fault))
            && let Some(count) = self.repeats_by.remove(BROKER)
        {
            *self.repeats_by.entry(UNEXPLAINED).or_default() += count;
        }
        if let Some(count) = self.repeats_by.get(UNEXPLAINED) {
            self.findings.push(format!("{count} repeats have no cause that the harness knows"));
        }
        self.notes.push(format!("PUBACKs swallowed: {}, given twice: {}", trace.swallowed, trace.doubled));
    }

    fn check_content(&mut self, bench: &Bench) {
        let book = bench.head_end.book.lock().unwrap();
        self.findings.extend(book.wrong.iter().take(10).cloned());
        let unfed = book.arrivals.keys().filter(|number| **number >= self.fed).count();
        if unfed > 0 {
            self.findings.push(format!("{unfed} telegrams arrived that nobody made"));
        }
        for (sequence, number) in &book.sequences {
            let fed = bench.gateway.ledger.of_sequence(*sequence);
            if bench.gateway.maker == Maker::Weir && fed.is_some_and(|fed| fed != *number) {
                self.findings.push(format!("sequence {sequence} is telegram {number}, but weir was handed {fed:?}"));
            }
        }
    }

    fn check_counters(&mut self, bench: &Bench) {
        let counters = bench.gateway.home.counters();
        let count = |name: &str| counters[name].as_u64().unwrap();
        let sequences = bench.head_end.book.lock().unwrap().sequences.len() as u64;
        self.notes.push(format!("weir store status: {counters}"));
        let balanced = count("received") == count("acknowledged") + count("evicted") + count("cached");
        // A kill forgets to count what was acknowledged since the last tick, and nothing else.
        if !balanced || count("evicted") > 0 || count("cached") > 0 || count("received") > sequences {
            self.findings.push(format!("{sequences} sequences arrived, but weir counted {counters}"));
        }
    }

    fn row(&self, name: &'static str, fault: Option<Fault>) -> String {
        let count = |map: &BTreeMap<&'static str, u64>| map.get(name).copied().unwrap_or(0);
        let seconds = fault.and_then(|fault| self.healed.get(&fault)).map(|d| format!("{:.1} s", d.as_secs_f64()));
        format!(" {} | {} | {} |", count(&self.lost_by), count(&self.repeats_by), seconds.unwrap_or_else(|| "-".into()))
    }
}

/// The table, for docs/reliability.md.
pub fn table(verdicts: &[(Maker, Verdict)]) -> String {
    let mut text = String::from("| fault | rounds |");
    let mut rule = String::from("| --- | ---: |");
    for (maker, _) in verdicts {
        let name = maker.name();
        let _ = write!(text, " {name}: lost | repeats | healed within |");
        rule += " ---: | ---: | ---: |";
    }
    let _ = writeln!(text, "\n{rule}");
    let Some((_, first)) = verdicts.first() else { return text };
    for kind in KINDS {
        let times = first.times.get(&kind.fault).copied().unwrap_or(0);
        let ran = kind.fault != Fault::DiskFull || first.full_disk;
        let times = if ran { times.to_string() } else { "NOT RUN: nothing can be mounted here".into() };
        let _ = write!(text, "| {} | {times} |", kind.name);
        for (_, verdict) in verdicts {
            text += &verdict.row(kind.name, Some(kind.fault));
        }
        text.push('\n');
    }
    for name in [AGAIN, BROKER, "never confirmed", UNEXPLAINED] {
        if verdicts.iter().any(|(_, v)| v.repeats_by.contains_key(name) || v.lost_by.contains_key(name)) {
            let _ = write!(text, "| {name} | |");
            verdicts.iter().for_each(|(_, verdict)| text += &verdict.row(name, None));
            text.push('\n');
        }
    }
    let _ = write!(text, "| damaged files: bits flipped in what was durable | {} |", first.damage.times);
    for (_, verdict) in verdicts {
        let Damage { waited, lost, reported, refused, .. } = verdict.damage;
        let _ = write!(text, " {lost} of {waited}, {reported} reported; {refused} starts refused | | |");
    }
    text.push('\n');
    let kills: usize = first.times.values().sum();
    let _ = write!(text, "| **all; the gateway killed {kills} times** | {kills} |");
    for (_, verdict) in verdicts {
        let _ = write!(text, " **{} of {}** | **{}** | |", verdict.lost, verdict.fed, verdict.repeats);
    }
    text.push('\n');
    text
}
