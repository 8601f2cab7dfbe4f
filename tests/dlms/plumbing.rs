//! A session over TCP, and the meter it talks to.

use weir::meter::{MeterSettings, Session, protocol};
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};

use crate::peers::{self, Peer};

/// A session with a gurux-dlms meter over the wrapper, as these settings say.
pub(crate) struct Meter {
    pub(crate) session: Box<dyn Session>,
    pub(crate) line: Line,
    _peer: Peer,
}

impl Meter {
    pub(crate) async fn start(settings: &str, flags: &[&str]) -> Self {
        let port = peers::free_port();
        let port = port.to_string();
        let peer = Peer::python("dlms_meter.py", &[&["--wrapper", &port], flags].concat(), "ready");
        let (session, line) = connect(&port, &format!("timeout = \"5s\"\n{settings}")).await;
        Self { session, line, _peer: peer }
    }
}

/// A session over TCP to this port.
pub(crate) async fn connect(port: &str, settings: &str) -> (Box<dyn Session>, Line) {
    let endpoint = Endpoint::parse(&format!("tcp://127.0.0.1:{port}"));
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    let line = Line::open(&endpoint, speed, Direction::Automatic).await.unwrap();
    let settings = format!("name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\n{settings}");
    let settings = MeterSettings::parse(&settings).unwrap();
    (protocol("dlms").unwrap().session(&settings).unwrap(), line)
}
