//! The network ends of a tunnel: the agent between a line and peers that nobody here wrote.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test may fail loudly"
)]

#[path = "tunnel_network/calls.rs"]
mod calls;
#[path = "tunnel_network/com_port.rs"]
mod com_port;
#[path = "tunnel_network/modbus.rs"]
mod modbus;
#[path = "peers/mod.rs"]
mod peers;
#[path = "tunnel_network/settings.rs"]
mod settings;
#[path = "tunnel_network/streams.rs"]
mod streams;

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use weir::agent::{self, Agent};
use weir::tunnel::Status;

use self::peers::broker::LIMIT;

/// An agent in this process whose broker is not there, and its store.
struct Site {
    agent: Agent,
    _store: tempfile::TempDir,
}

impl Site {
    /// Must be called inside a runtime.
    fn new(rest: &str) -> Self {
        let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let text = format!(
            "[gateway]\nid = \"gw1\"\n[broker]\nurl = \"tcp://127.0.0.1:1\"\n[store]\npath = \"{}\"\n{rest}",
            store.path().display()
        );
        let loaded = weir::config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
        Self { agent: agent::start(&loaded.settings).unwrap(), _store: store }
    }

    fn status(&self) -> Status {
        self.agent.evidence.tunnels[0].health.status()
    }

    /// Polls until the tunnel's status is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) {
        let give_up = Instant::now() + LIMIT;
        while !wanted(&self.status()) {
            assert!(Instant::now() < give_up, "never: {what}; {:?}", self.status());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A port that leads to `device`, and a tunnel on it.
fn tables(device: &Path, tunnel: &str) -> String {
    format!("[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[tunnel]]\nport = \"line\"\n{tunnel}", device.display())
}

/// Connects as soon as somebody listens there.
async fn connected(port: u16) -> TcpStream {
    let give_up = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < give_up, "nobody listens: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn heard(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(LIMIT, stream.read_exact(&mut bytes)).await.expect("the peer is sent its bytes").unwrap();
    bytes
}

/// Whether the other side hangs up without a word.
async fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(timeout(LIMIT, stream.read(&mut [0; 100])).await.expect("it is closed"), Ok(1..))
}
