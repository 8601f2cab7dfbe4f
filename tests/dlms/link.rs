//! Links: HDLC through a serial server and over a pseudo-terminal, the wrapper, and what may go wrong there.

use std::path::Path;
use std::time::Duration;

use weir::meter::{MeterError, MeterSettings, Session, protocol};
use weir::model::Value;
use weir::os::line::{Direction, Endpoint, Framing, Line, LineError, Speed};

use crate::peers::{self, Peer};

/// The name that the meter of gurux gives.
const NAME: &str = "GRX0000000000001";

/// A session on an open line.
pub(crate) struct Reader {
    pub(crate) session: Box<dyn Session>,
    pub(crate) line: Line,
}

impl Reader {
    pub(crate) async fn open(endpoint: &Endpoint, settings: &str) -> Self {
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        let line = Line::open(endpoint, speed, Direction::Automatic).await.unwrap();
        let settings = format!("name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\n{settings}");
        let settings = MeterSettings::parse(&settings).unwrap();
        Self { session: protocol("dlms").unwrap().session(&settings).unwrap(), line }
    }

    pub(crate) async fn tcp(port: u16, settings: &str) -> Self {
        Self::open(&Endpoint::parse(&format!("tcp://127.0.0.1:{port}")), settings).await
    }

    pub(crate) async fn device(path: &Path, settings: &str) -> Self {
        Self::open(&Endpoint::Device(path.to_owned()), settings).await
    }

    pub(crate) async fn read(&mut self) -> Result<Vec<Value>, MeterError> {
        self.session.read(&mut self.line).await
    }

    pub(crate) async fn name(&mut self) -> String {
        self.read().await.unwrap()[0].value.clone().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_behind_a_serial_server_is_read_over_hdlc_again_and_again() {
    crate::pace::hold();
    let port = peers::free_port();
    let _meter = Peer::python("dlms_meter.py", &["--hdlc", &port.to_string()], "ready");
    for settings in
        ["", "dlms.window = 3\ndlms.information_field = 2030", "address = 17", "dlms.address_bytes = 4\naddress = 1"]
    {
        let mut reader = Reader::tcp(port, settings).await;
        for _ in 0..3 {
            assert_eq!(reader.name().await, NAME, "{settings}");
        }
        assert_eq!(reader.line.take_notes().damaged, 0, "{settings}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_on_a_serial_line_is_read_over_hdlc() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let (_pair, ours, theirs) = Peer::socat_pair(directory.path());
    let _meter = Peer::python("dlms_meter.py", &["--tty", &theirs.display().to_string()], "ready");
    let mut reader = Reader::device(&ours, "timeout = \"5s\"").await;
    for _ in 0..3 {
        assert_eq!(reader.name().await, NAME);
    }
    assert_eq!(reader.line.take_notes().damaged, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_meter_that_stays_silent_has_its_connection_closed() {
    crate::pace::hold();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut reader = Reader::tcp(port, "timeout = \"50ms\"\ndlms.link = \"wrapper\"").await;
    let _held = listener.accept().await.unwrap();
    let error = reader.read().await.unwrap_err();
    assert!(error.is_silence() && error.must_reopen(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_hdlc_meter_costs_its_tries_and_no_more() {
    crate::pace::hold();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut reader = Reader::tcp(port, "timeout = \"50ms\"\nretries = 2").await;
    let _held = listener.accept().await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = reader.read().await.unwrap_err();
    assert!(matches!(error, MeterError::Line(LineError::Silent(_))), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
