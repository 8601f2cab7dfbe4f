//! `weir demo`: the whole product with nothing connected.
//!
//! Everything between the simulated meters and the embedded broker is the real thing: lines are
//! pseudo-terminals, the agent is the one `weir run` starts, the broker is reached by TLS.

mod show;
mod stage;
mod tally;

use std::io::Write;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep_until};
use tracing::level_filters::LevelFilter;

use super::failure::{Failure, OTHER};
use super::{log, runtime};
use crate::sim::broker::Mode;

use show::Screen;
use stage::Stage;
use tally::Count;

/// How long the broker is gone.
const CUT: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_secs(16);
const REFRESH: Duration = Duration::from_millis(500);
/// How long the cache may take to drain at the end.
const LAST_DRAIN: Duration = Duration::from_secs(20);

/// See weir work, with nothing connected: simulated meters, a radio replay, a TLS broker.
///
/// Shows live what is read, cached, published and acknowledged, cuts the broker for ten seconds
/// so that the cache fills and drains, and ends with the count of what was lost.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// How long it takes, at least 16s.
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    length: Duration,

    /// End with one JSON object on standard output; the display goes to standard error.
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let length = crate::setting::duration(text).ok_or("write it like 30s or 2m")?;
    if length < SHORTEST {
        return Err("the demo cuts the broker for ten seconds and needs 16s or more".to_owned());
    }
    Ok(length)
}

impl Demo {
    pub(super) fn run(self, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::OFF));
        let count = runtime()?.block_on(async {
            tokio::select! {
                count = play(self.length, self.json) => count,
                _ = tokio::signal::ctrl_c() => Err(Failure::other("stopped before the end")),
            }
        })?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let _ = writeln!(out, "{}", count.json());
        } else {
            let _ = out.write_all(count.sentence().as_bytes());
        }
        if count.lost == 0 { Ok(()) } else { Err(Failure::silent(OTHER)) }
    }
}

/// One act after the other: everything well, broker cut, broker back, inputs stopped, drained.
async fn play(length: Duration, json: bool) -> Result<Count, Failure> {
    let mut stage = Stage::build().await.map_err(|e| Failure::other(format!("the demo cannot start: {e:#}")))?;
    let mut screen = Screen::new(json, length);
    screen.introduce(&stage);
    let start = Instant::now();
    let cut = start + (length - CUT) / 3;
    let back = cut + CUT;
    let end = start + length;
    for (until, mode, act) in [
        (cut, Mode::Serving, "all is well"),
        (back, Mode::Cut, "the broker is cut: the cache fills"),
        (end, Mode::Serving, "the broker is back: the cache drains"),
    ] {
        stage.broker.set_mode(mode);
        while Instant::now() < until {
            sleep_until((Instant::now() + REFRESH).min(until)).await;
            screen.show(act, start.elapsed(), &stage.sight());
        }
    }
    stage.stop_inputs().await;
    let give_up = Instant::now() + LAST_DRAIN;
    while !stage.is_settled() && Instant::now() < give_up {
        sleep_until(Instant::now() + REFRESH / 5).await;
        screen.show("the meters have stopped: the rest goes out", start.elapsed(), &stage.sight());
    }
    screen.finish();
    Ok(stage.finish().await)
}
