//! Chaos: a gateway between a meter and a broker, while everything around it fails and it is killed
//! again and again. `tests/chaos` runs it; under `cargo test` it only says so.
//!
//! Everything handed to the gateway that it confirmed (or delivered) must reach the subscriber, byte
//! for byte. The same is done to a mosquitto bridge. Start with bench.rs.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may fail loudly, and says what it measured"
)]

mod bench;
mod damage;
mod disk;
mod gateway;
mod head_end;
mod ledger;
mod meter;
mod mqtt;
#[path = "../peers/mod.rs"]
mod peers;
mod plan;
mod proxy;
#[expect(dead_code, unused_imports, reason = "the stories of tests/agent use more of it")]
#[path = "../agent/rig.rs"]
mod rig;
mod telegram;
mod verdict;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use weir::os::random;

use self::bench::Bench;
use self::gateway::Maker;
use self::plan::Round;
use self::verdict::{Verdict, table};

fn judge(maker: Maker, seed: u64, rounds: &[Round], progress: &AtomicUsize) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bench = Bench::new(maker, seed).await;
        bench.run(rounds, progress).await;
        let mut verdict = Verdict::of(&mut bench, rounds);
        println!("{}: lost {} of {}, duplicates {}", maker.name(), verdict.lost, verdict.fed, verdict.repeats);
        verdict.damage = bench.damage(seed, rounds.len().div_ceil(50)).await;
        if maker == Maker::Weir && verdict.damage.lost != verdict.damage.reported {
            verdict.findings.push(format!("damage was not told as it was: {:?}", verdict.damage));
        }
        verdict
    })
}

/// One line that shows how far it is: rewritten on a terminal, else once a minute.
fn show(makers: &[Maker], progress: &[Arc<AtomicUsize>], rounds: usize, begun: Instant, last: bool) {
    let counts = makers.iter().zip(progress).map(|(m, p)| format!("{} {}", m.name(), p.load(Ordering::Relaxed)));
    let line = format!("{} of {rounds} rounds, {} s", counts.collect::<Vec<_>>().join(", "), begun.elapsed().as_secs());
    if std::io::stderr().is_terminal() {
        eprint!("\r{line}{}", if last { "\n" } else { "" });
    } else {
        eprintln!("{line}");
    }
}

struct Options {
    long: bool,
    makers: Vec<Maker>,
    kills: Option<usize>,
    /// A part of the names of the faults wanted.
    only: String,
}

const USAGE: &str = "usage: tests/chaos [--long] [--kills N] [--fault TEXT] [--weir | --bridge]";

fn options() -> Result<Options, String> {
    let makers = vec![Maker::Weir, Maker::Bridge];
    let mut options = Options { long: false, makers, kills: None, only: String::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--long" => options.long = true,
            "--weir" => options.makers = vec![Maker::Weir],
            "--bridge" => options.makers = vec![Maker::Bridge],
            "--kills" => options.kills = Some(arguments.next().and_then(|n| n.parse().ok()).ok_or(USAGE)?),
            "--fault" => options.only = arguments.next().ok_or(USAGE)?,
            other => return Err(format!("{other} is unknown; {USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    if std::env::var_os("WEIR_CHAOS").is_none() {
        println!("chaos: not run here; tests/chaos runs it");
        return ExitCode::SUCCESS;
    }
    let options = match options() {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(64);
        }
    };
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| random::generator().random());
    println!("WEIR_SEED={seed} repeats this run's choices");
    let kills = options.kills.unwrap_or(if options.long { 1000 } else { 50 });
    let rounds = plan::rounds(seed, kills, options.long, &options.only);
    let begun = Instant::now();
    let progress: Vec<_> = options.makers.iter().map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let verdicts: Vec<_> = std::thread::scope(|scope| {
        let judged = options.makers.iter().zip(&progress).map(|(maker, progress)| {
            let rounds = &rounds;
            (*maker, scope.spawn(move || judge(*maker, seed, rounds, progress)))
        });
        let judged: Vec<_> = judged.collect();
        let pause = if std::io::stderr().is_terminal() { 1 } else { 60 };
        let mut shown = Instant::now();
        while judged.iter().any(|(_, thread)| !thread.is_finished()) {
            if shown.elapsed() >= Duration::from_secs(pause) {
                show(&options.makers, &progress, rounds.len(), begun, false);
                shown = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        judged.into_iter().filter_map(|(maker, thread)| Some((maker, thread.join().ok()?))).collect()
    });
    show(&options.makers, &progress, rounds.len(), begun, true);
    conclude(&options.makers, &verdicts)
}

fn conclude(makers: &[Maker], verdicts: &[(Maker, Verdict)]) -> ExitCode {
    println!("\n{}", table(verdicts));
    for (maker, verdict) in verdicts {
        verdict.notes.iter().for_each(|note| println!("{}: {note}", maker.name()));
        for finding in &verdict.findings {
            println!("FINDING, {}: {finding}", maker.name());
        }
    }
    if verdicts.len() < makers.len() {
        println!("the harness failed before the end");
        return ExitCode::FAILURE;
    }
    // Weir is judged; the bridge is shown.
    let Some((maker, verdict)) = verdicts.first() else { return ExitCode::FAILURE };
    println!("lost {} of {}, duplicates {}", verdict.lost, verdict.fed, verdict.repeats);
    let held = *maker == Maker::Bridge || (verdict.lost == 0 && verdict.findings.is_empty());
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
