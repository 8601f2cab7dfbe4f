//! What the M-Bus tests need: slaves, a running line, a session on it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::PathBuf;

use weir::meter::{MeterError, MeterSettings, Session, protocol};
use weir::model::{Quality, Value};
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::sim::mbus_meter::{Control, MbusLine, Slave};
use weir::wire::wmbus::Meter;

pub(crate) const SPEED: Speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };

/// Settings of a meter: what stands below `[[meter]]` besides the obvious.
pub(crate) fn settings(more: &str) -> MeterSettings {
    MeterSettings::parse(&format!(
        "name = \"meter\"\nport = \"port\"\nprotocol = \"m-bus\"\ntimeout = \"150ms\"\n{more}"
    ))
    .unwrap()
}

/// A slave of manufacturer WEI for water.
pub(crate) fn slave(primary: u8, id: u32) -> Slave {
    let manufacturer = Meter::manufacturer_code("WEI").unwrap();
    Slave::new(primary, Meter { manufacturer, id, version: 1, device: 7 })
}

/// Records of one telegram: volume in storage `storage`, `litres`.
pub(crate) fn volume(storage: u8, litres: u32) -> Vec<u8> {
    let mut record =
        if storage == 0 { vec![0x04, 0x13] } else { vec![0x84 | ((storage & 1) << 6), storage >> 1, 0x13] };
    record.extend(litres.to_le_bytes());
    record
}

/// A line with slaves, running on the test's runtime.
pub(crate) fn start(slaves: Vec<Slave>) -> (PathBuf, Control) {
    let control = Control::new(slaves);
    let line = MbusLine::open(control.clone()).unwrap();
    let path = line.path().unwrap().to_owned();
    tokio::spawn(line.run());
    (path, control)
}

/// A session on an open line.
pub(crate) struct Reader {
    pub(crate) session: Box<dyn Session>,
    pub(crate) line: Line,
}

impl Reader {
    pub(crate) async fn open(device: PathBuf, settings: &MeterSettings) -> Self {
        Self::on(Endpoint::Device(device), settings).await
    }

    pub(crate) async fn on(endpoint: Endpoint, settings: &MeterSettings) -> Self {
        let line = Line::open(&endpoint, SPEED, Direction::Automatic).await.unwrap();
        Self { session: protocol("m-bus").unwrap().session(settings).unwrap(), line }
    }

    pub(crate) async fn read(&mut self) -> Result<Vec<Value>, MeterError> {
        self.line.set_speed(SPEED).unwrap();
        self.session.read(&mut self.line).await
    }
}

/// The text of a value; fails when it is not there.
pub(crate) fn text<'a>(values: &'a [Value], name: &str) -> &'a str {
    let value = values.iter().find(|v| v.name == name).unwrap_or_else(|| panic!("no {name} in {values:?}"));
    assert_eq!(value.quality, Quality::Good, "{name}");
    value.value.as_deref().unwrap()
}
