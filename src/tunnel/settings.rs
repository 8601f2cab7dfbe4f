//! `[[tunnel]]` of weir.toml.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Local, Network, Place, Route};
use super::modes;
use crate::setting::{At, Count, Problems, SecretFile, Size, Topic};
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
        /// Writes every byte on the port with its time into two files of 256 KiB in the store's folder, which `weir trace PORT --recorded`
        /// shows.
        pub trace: bool = false,
        /// Who is at the other end. The keys below are for the modes that they name.
        pub mode: At<Mode> = "mqtt",
        /// tcp-server: where it listens.
        pub listen: Option<At<Local>>,
        /// tcp-server: a new client takes the port over; otherwise it is refused while another one is there.
        pub takeover: bool = false,
        /// tcp-server, udp: who may come: addresses and networks. tcp-server: empty lets everybody in who can reach the port.
        pub allow: At<Vec<Network>> = [],
        /// tcp-server, tcp-client with when = "data", call-back: the connection is ended when nothing was carried for so long;
        /// "0s" never ends it.
        pub idle: At<Duration> = "5m",
        /// tcp-server, tcp-client, call-back: what the port had sent before there was a connection is thrown away.
        pub flush: bool = true,
        /// tcp-server, tcp-client, call-back: the peer sets speed, parity and wires of the port by RFC 2217; the port's own
        /// come back after it.
        pub rfc2217: bool = false,
        /// tcp-client: where it connects to.
        pub connect: Option<At<Place>>,
        /// tcp-client: when there is a connection.
        pub when: At<When> = "always",
        /// tcp-client, call-back: a text that is sent first; `{id}`, `{imei}` and `[IMEI]` are replaced.
        pub identify: Option<At<String>>,
        /// tcp-client, call-back: whether TLS is spoken. Unset: false for tcp-client, true for call-back.
        pub tls: Option<At<bool>>,
        /// tcp-client, call-back: a PEM file with the certificates the peer's is checked against. Unset: the system's roots.
        pub ca_file: Option<At<PathBuf>>,
        /// tcp-client, call-back: a PEM file with weir's own certificate, then its issuers.
        pub client_certificate_file: Option<At<PathBuf>>,
        /// tcp-client, call-back: the PEM file of that certificate's private key.
        pub client_key_file: Option<At<SecretFile>>,
        /// call-back: the only places that an order may name.
        pub targets: At<Vec<Place>> = [],
        /// udp: where datagrams are heard and sent from.
        pub local: Option<At<Local>>,
        /// udp with routes: the port that datagrams are sent to.
        pub remote_port: Option<At<Count<1, 65_535>>>,
        /// udp: which gateway has the Modbus unit of a number. With routes a Modbus master is on this port; without, units.
        pub routes: At<Vec<Route>> = [],
    }
    remembers written
}

choices! {
    /// Who is at the other end of a tunnel.
    pub enum Mode {
        /// Whoever publishes at `rx_topic`.
        Mqtt = "mqtt",
        /// One TCP client at a time, which connects to `listen`.
        TcpServer = "tcp-server",
        /// The TCP server at `connect`.
        TcpClient = "tcp-client",
        /// Gateways that Modbus units or a Modbus master hang on, by datagrams.
        Udp = "udp",
        /// One of `targets`, connected to on an order.
        CallBack = "call-back",
    }
}

choices! {
    /// When a tcp-client is connected.
    pub enum When {
        /// All the time.
        Always = "always",
        /// When the port sends something, until it was silent for `idle`.
        Data = "data",
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
    modes::check(settings, problems);
}
