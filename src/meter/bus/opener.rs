//! The line of a port, and what is known about opening it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info};

use super::Port;
use crate::os::arrival::Arrival;
use crate::os::line::{Endpoint, Line, LineError, Tap};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A device that has just come gets its link and its rights in this time.
const SETTLE: Duration = Duration::from_millis(200);

/// Opens the line, again and again when it must.
pub(super) struct Opener {
    pub(super) line: Option<Line>,
    pub(super) next_try: Instant,
    pause: Duration,
    /// Attempts that failed since it was last open.
    pub(super) failures: u64,
    pub(super) last_error: String,
    /// Readings in a row that heard nothing on this line.
    pub(super) silent: usize,
    arrival: Option<Arrival>,
    /// It was opened after it had been missing.
    came_back: bool,
    tap: Tap,
}

impl Opener {
    pub(super) fn new(tap: Tap) -> Self {
        Self {
            line: None,
            next_try: Instant::now(),
            pause: FIRST_PAUSE,
            failures: 0,
            last_error: String::new(),
            silent: 0,
            arrival: None,
            came_back: false,
            tap,
        }
    }

    /// Opens the line if it is closed and its pause is over.
    pub(super) async fn open_when_due(&mut self, port: &Port) {
        if self.line.is_some() || Instant::now() < self.next_try {
            return;
        }
        match port.open().await {
            Ok(mut line) => {
                if self.failures > 0 {
                    info!(port = %port.name, endpoint = %port.endpoint, failed_attempts = self.failures, "the port is back");
                }
                self.came_back = self.failures > 0;
                line.put_tap(&self.tap);
                self.line = Some(line);
                self.failures = 0;
                self.silent = 0;
                self.arrival = None;
            }
            Err(failure) => self.failed(port, failure),
        }
    }

    fn failed(&mut self, port: &Port, failure: LineError) {
        if self.failures == 0 {
            error!(port = %port.name, error = %failure, "the port cannot be opened; its meters are not read until it is there");
        } else {
            debug!(port = %port.name, error = %failure, attempts = self.failures, "the port still cannot be opened");
        }
        self.failures += 1;
        self.last_error = match failure {
            LineError::Open { reason, .. } => reason,
            other => other.to_string(),
        };
        self.wait_a_pause();
        if let Endpoint::Device(path) = &port.endpoint {
            // Made anew each time: the folders above the device come and go with it.
            self.arrival = Arrival::of(path)
                .inspect_err(|error| debug!(port = %port.name, %error, "the device's folder cannot be watched"))
                .ok();
        }
    }

    /// The next attempt is a pause away, the one after it two.
    fn wait_a_pause(&mut self) {
        self.next_try = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Waits until the next attempt is due: its pause is over, or the device came.
    pub(super) async fn wait(&mut self) {
        let Some(arrival) = &mut self.arrival else { return sleep_until(self.next_try).await };
        tokio::select! {
            () = sleep_until(self.next_try) => {}
            () = arrival.come() => {
                self.next_try = self.next_try.min(Instant::now() + SETTLE);
                self.pause = FIRST_PAUSE;
                self.arrival = None;
            }
        }
    }

    /// Closes the line; it may be opened again at once.
    pub(super) fn close(&mut self) {
        self.line = None;
        self.next_try = Instant::now();
    }

    /// Closes a line that failed again as soon as it was opened.
    pub(super) fn close_for_a_while(&mut self) {
        self.line = None;
        "the line went away as soon as it was used; it is opened again in a moment".clone_into(&mut self.last_error);
        self.wait_a_pause();
    }

    /// Closes a line whose adapter was unplugged while nobody asked; keeping it open would keep
    /// its name from the adapter that is plugged in next. It may be opened again at once.
    pub(super) fn close_if_gone(&mut self, port: &Port) {
        if self.line.as_ref().is_some_and(Line::is_gone) {
            debug!(port = %port.name, "the adapter was unplugged");
            self.close();
        }
    }

    /// Tells once that the port came back.
    pub(super) const fn take_came_back(&mut self) -> bool {
        std::mem::replace(&mut self.came_back, false)
    }

    /// Why there is no line.
    pub(super) fn sentence(&self, port: &Port) -> String {
        LineError::Open { endpoint: port.endpoint.to_string(), reason: self.last_error.clone() }.to_string()
    }

    /// The line works: the next failure begins with the shortest pause.
    pub(super) const fn works(&mut self) {
        self.pause = FIRST_PAUSE;
    }
}
