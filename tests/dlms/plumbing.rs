//! A session over TCP, and the meter it talks to.

use std::path::Path;

use serde_json::Value as Json;
use weir::meter::{MeterSettings, Session, protocol};
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::wire::dlms::{DataBuf, encode};

use crate::peers::{self, Peer};

/// A session with a gurux-dlms meter over the wrapper, as these settings say.
pub(crate) struct Meter {
    pub(crate) session: Box<dyn Session>,
    pub(crate) line: Line,
    _peer: Peer,
    folder: tempfile::TempDir,
}

impl Meter {
    pub(crate) async fn start(settings: &str, flags: &[&str]) -> Self {
        let port = peers::free_port();
        let port = port.to_string();
        let peer = Peer::python("dlms_meter.py", &[&["--wrapper", &port], flags].concat(), "ready");
        let (session, line) = connect(&port, &format!("timeout = \"5s\"\n{settings}")).await;
        Self { session, line, _peer: peer, folder: tempfile::tempdir().unwrap() }
    }

    /// One whose nature `dlms_meter.py` explains at METER_NATURE.
    pub(crate) async fn with_nature(settings: &str, nature: &Json, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        become_so(folder.path(), nature);
        let port = peers::free_port().to_string();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (nature, log) = (file("nature"), file("log"));
        let own = [("METER_NATURE", nature.as_str()), ("METER_LOG", log.as_str())];
        let peer = Peer::python_with("dlms_meter.py", &["--wrapper", &port], &[&own[..], variables].concat(), "ready");
        let (session, line) = connect(&port, &format!("timeout = \"5s\"\n{settings}")).await;
        Self { session, line, _peer: peer, folder }
    }

    /// It is so from now on, whoever talks to it.
    pub(crate) fn become_so(&self, nature: &Json) {
        become_so(self.folder.path(), nature);
    }

    /// What the meter wrote down of these.
    pub(crate) fn log(&self, of: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter_map(|line| Some(line.strip_prefix(of)?.trim().to_owned())).collect()
    }
}

/// Never half a file.
fn become_so(folder: &Path, nature: &Json) {
    std::fs::write(folder.join("next"), nature.to_string()).unwrap();
    std::fs::rename(folder.join("next"), folder.join("nature")).unwrap();
}

/// A value as the meter codes it, in hexadecimal digits.
pub(crate) fn hex(value: &DataBuf) -> String {
    data_encoding::HEXLOWER.encode(&encode(value).unwrap())
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
