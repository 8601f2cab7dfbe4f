//! What the IEC 62056-21 tests need: settings, readers, and Python peers as child processes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use weir::meter::{MeterError, MeterSettings, Session, protocol};
use weir::model::{Interval, Quality, Timestamp, Value};
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::sim::iec_meter::{Control, State};

/// Settings of a meter, to be changed by the test.
pub(crate) fn settings() -> MeterSettings {
    MeterSettings::parse("name = \"meter\"\nport = \"port\"\nprotocol = \"iec62056-21\"\n").unwrap()
}

/// Settings with more lines.
pub(crate) fn configured(more: &str) -> MeterSettings {
    MeterSettings::parse(&format!("name = \"meter\"\nport = \"port\"\nprotocol = \"iec62056-21\"\n{more}")).unwrap()
}

/// A file with a password, and the directory that holds it.
pub(crate) fn password_file(password: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, format!("{password}\n")).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// A session on an open line.
pub(crate) struct Reader {
    pub(crate) session: Box<dyn Session>,
    pub(crate) line: Line,
}

impl Reader {
    pub(crate) async fn open(device: &Path, settings: &MeterSettings) -> Self {
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        let line = Line::open(&Endpoint::Device(device.into()), speed, Direction::Automatic).await.unwrap();
        let session = protocol("iec62056-21").unwrap().session(settings).unwrap();
        Self { session, line }
    }

    pub(crate) async fn profile(&mut self, after: Timestamp, until: Timestamp) -> Result<Vec<Interval>, MeterError> {
        let profile = self.session.profile().unwrap();
        profile.read(&mut self.line, after, until).await
    }

    pub(crate) async fn read(&mut self) -> Result<Vec<Value>, MeterError> {
        self.session.read(&mut self.line).await
    }
}

/// Waits until the meter has heard every break: nothing answers it.
pub(crate) async fn ended(control: &Control) -> State {
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let state = control.state().clone();
        if state.breaks + state.timeouts == state.sessions {
            return state;
        }
        assert!(tokio::time::Instant::now() < limit, "a session is still open: {state:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// The text of a value; fails when it is not there.
pub(crate) fn text<'a>(values: &'a [Value], name: &str) -> &'a str {
    let value = values.iter().find(|v| v.name == name).unwrap_or_else(|| panic!("no {name} in {values:?}"));
    assert_eq!(value.quality, Quality::Good, "{name}");
    value.value.as_deref().unwrap()
}

/// The Python of the peers' virtual environment.
pub(crate) fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = std::env::var_os("WEIR_VENV").map_or_else(|| root.join(".venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: run tests/run, which makes the peers' environment", python.display());
    python
}

/// The path of a peer's script.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// The independent meter, ended with the value.
pub(crate) struct PythonMeter {
    child: Child,
    pub(crate) device: PathBuf,
}

impl PythonMeter {
    /// Starts tests/peers/iec_meter.py and waits until it says where it is.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(python());
        // It goes by the real time: with a reaction of 250 ms it would speak before a busy reader has changed its rate.
        command.arg(script("iec_meter.py")).args(["--strict-baud", "--tr", "1000"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let device = first.split("meter on ").nth(1).unwrap_or_else(|| panic!("it said {first}")).trim().into();
        // Its log must be drained, or the meter stops when the pipe is full.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("meter: {line}")));
        Self { child, device }
    }
}

impl Drop for PythonMeter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
