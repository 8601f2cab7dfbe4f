//! The demo's display: a block that is redrawn on a terminal, one line a second elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::stage::{Sight, Stage};
use crate::cli::table;

/// Where and how to draw.
pub(super) struct Screen {
    to_stderr: bool,
    terminal: bool,
    length: Duration,
    drawn: usize,
    last_line: Option<u64>,
}

const BAR: usize = 30;

impl Screen {
    pub(super) fn new(json: bool, length: Duration) -> Self {
        let terminal = if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Self { to_stderr: json, terminal, length, drawn: 0, last_line: None }
    }

    /// Says what is real and where it is.
    pub(super) fn introduce(&mut self, stage: &Stage) {
        let places = &stage.places;
        let rows = [
            ("Modbus meter", places.modbus.display().to_string()),
            ("IEC 62056-21 meter", places.iec.display().to_string()),
            ("wM-Bus receiver", places.rtl.display().to_string()),
            ("OpenlinkIQ receiver", places.openlinkiq.display().to_string()),
            ("MQTT broker (TLS)", places.broker.clone()),
            ("configuration", places.folder.join("weir.toml").display().to_string()),
        ];
        self.write(&format!(
            "The meters are simulated; everything else is what `weir run` does.\n{}\n",
            table::pairs(&rows)
        ));
    }

    /// Shows the state of things.
    pub(super) fn show(&mut self, act: &str, elapsed: Duration, sight: &Sight) {
        if self.terminal {
            let block = self.block(act, elapsed, sight);
            let up = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
            self.drawn = block.lines().count();
            self.write(&format!("{up}{block}"));
        } else if self.last_line != Some(elapsed.as_secs()) {
            self.last_line = Some(elapsed.as_secs());
            self.write(&line(act, elapsed, sight));
        }
    }

    /// Leaves the last picture standing.
    pub(super) fn finish(&mut self) {
        self.write("\n");
    }

    fn block(&self, act: &str, elapsed: Duration, sight: &Sight) -> String {
        let whole = usize::try_from(self.length.as_millis()).unwrap_or(1).max(1);
        let done = usize::try_from(elapsed.as_millis()).unwrap_or(0).saturating_mul(BAR) / whole;
        let bar: String = (0..BAR).map(|i| if i < done { '█' } else { '░' }).collect();
        let readings: Vec<_> = sight
            .readings
            .iter()
            .map(|(name, good, failed)| {
                format!(
                    "{name} {good} readings{}",
                    if *failed > 0 { format!(" ({failed} failed)") } else { String::new() }
                )
            })
            .collect();
        let rows = [
            ("meters", readings.join(", ")),
            ("radio", format!("{} telegrams, {} copies and damaged ones dropped", sight.forwarded, sight.dropped)),
            ("received", format!("{} frames", sight.store.received)),
            ("cache", format!("{} waiting ({} with priority)", sight.store.cached, sight.store.cached_priority)),
            (
                "broker",
                format!(
                    "{}, {} messages, {} frames acknowledged, {} repeated",
                    link(sight),
                    sight.messages,
                    sight.store.acknowledged,
                    sight.repeats
                ),
            ),
            ("newest value", table::printable(&sight.newest)),
        ];
        format!("{bar} {:>3} s  {act}\n{}", elapsed.as_secs(), table::pairs(&rows))
    }

    fn write(&self, text: &str) {
        if self.to_stderr {
            let _ = std::io::stderr().write_all(text.as_bytes());
        } else {
            let mut out = std::io::stdout();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

fn link(sight: &Sight) -> &'static str {
    if sight.uplink.connected_since.is_some() { "connected" } else { "not connected" }
}

fn line(act: &str, elapsed: Duration, sight: &Sight) -> String {
    let readings: u64 = sight.readings.iter().map(|(_, good, _)| good).sum();
    format!(
        "{:>3} s  {:<40} read {readings:>4}  heard {:>4}  cached {:>4}  acknowledged {:>5}  {}\n",
        elapsed.as_secs(),
        act,
        sight.heard,
        sight.store.cached,
        sight.store.acknowledged,
        link(sight),
    )
}
