//! Talking to the service manager (systemd's notify protocol); silent when there is none.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that the agent is up.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the agent is going down.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the agent is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Shows one line in `systemctl status`.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// How often [`alive`] must be called: half of what the service manager allows; `None` when it
/// does not watch.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    // Nobody listens outside systemd, and then there is nothing to do about it.
    let _ = sd_notify::notify(states);
}
