//! `[[tunnel]]` of weir.toml.

use std::time::Duration;

use crate::setting::{At, Problems, Size, Topic};
use crate::{choices, settings};

choices! {
    /// How bytes travel in messages.
    pub enum Envelope {
        /// As they are.
        None = "none",
        /// With numbers, so that they arrive exactly once; `weir tunnel open` is the other side. See docs/tunnel.md.
        Numbered = "numbered",
    }
}

settings! {
    /// A serial port that is a wire to the platform: bytes published at `rx_topic` are written to the port, bytes from
    /// the port are published at `tx_topic`, as they are.
    pub struct TunnelSettings {
        /// The port's name. Meters on the same port are read while the tunnel is idle.
        pub port: At<String>,
        /// Where the platform publishes what is to be written to the port.
        pub rx_topic: At<Topic> = "{id}/rx",
        /// Where what comes from the port is published.
        pub tx_topic: At<Topic> = "{id}/tx",
        /// Bytes are gathered until the line was silent for so long, and never cut within 3.5 characters.
        pub gather: At<Duration> = "100ms",
        /// A message is published when so many bytes were gathered, silence or not: "64B" to "64KiB".
        pub max_message: At<Size> = "4KiB",
        /// A request that could not be written for so long is dropped, and so is an answer that could not be published: a meter
        /// must not be asked by the past.
        pub max_age: At<Duration> = "10s",
        /// With meters on the same port: the line is given back to them when it was silent for so long.
        pub hold: At<Duration> = "5s",
        /// "none": payloads are the bytes as they are. "numbered": a stream that arrives exactly once, for `weir tunnel open`.
        pub envelope: Envelope = "none",
        /// Takes out what was sent of what comes back, for adapters that echo.
        pub remove_echo: bool = false,
    }
}

/// Says everything that is wrong with a tunnel's settings.
pub fn check(settings: &TunnelSettings, problems: &mut Problems) {
    let longest = |at: &At<Duration>, limit: Duration, problems: &mut Problems| {
        if **at > limit {
            problems.error(
                at.span(),
                format!("is longer than {} s; a tunnel must not hold bytes that long", limit.as_secs()),
            );
        }
    };
    longest(&settings.gather, Duration::from_secs(10), problems);
    longest(&settings.max_age, Duration::from_mins(5), problems);
    longest(&settings.hold, Duration::from_hours(1), problems);
    if settings.hold.is_zero() {
        problems.error(settings.hold.span(), "hold is zero; write how long a line may be silent, such as \"5s\"");
    }
    if settings.max_age.is_zero() {
        problems.error(settings.max_age.span(), "max_age is zero; nothing would ever be written or published");
    }
    if settings.envelope == Envelope::Numbered && *settings.max_age < Duration::from_secs(2) {
        problems.error(
            settings.max_age.span(),
            "max_age is shorter than 2 s; a numbered session would be cut by any pause",
        );
    }
    let bytes = settings.max_message.bytes();
    if !(64..=65_536).contains(&bytes) {
        problems.error(settings.max_message.span(), "max_message must be from \"64B\" to \"64KiB\"");
    }
}
