//! A session on an open line, without a bus.

use weir::meter::{MeterError, MeterSettings, Session, Writer, Written, protocol};
use weir::model::Value;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};

pub(crate) struct Device {
    endpoint: Endpoint,
    pub(crate) session: Box<dyn Session>,
    pub(crate) line: Line,
}

pub(crate) async fn line(endpoint: &Endpoint) -> Line {
    let speed = Speed { baud: 115_200, framing: Framing::EIGHT_N_ONE };
    Line::open(endpoint, speed, Direction::Automatic).await.unwrap()
}

impl Device {
    /// Opens the line to a meter of which `text` says the rest of its settings.
    pub(crate) async fn open(endpoint: Endpoint, text: &str) -> Self {
        let settings = MeterSettings::parse(&format!("name = \"m\"\nport = \"p\"\n{text}\n")).unwrap();
        let session = protocol(&settings.protocol).unwrap().session(&settings).unwrap();
        let line = line(&endpoint).await;
        Self { endpoint, session, line }
    }

    /// Reads, and opens the line again when it must, as the bus would for the next reading.
    pub(crate) async fn read(&mut self) -> Result<Vec<Value>, MeterError> {
        let result = self.session.read(&mut self.line).await;
        if matches!(&result, Err(error) if error.must_reopen()) {
            self.line = line(&self.endpoint).await;
        }
        result
    }

    pub(crate) async fn write(&mut self, name: &str, text: &str) -> Result<Written, MeterError> {
        let writer: &mut dyn Writer = self.session.writer().unwrap();
        writer.write(&mut self.line, name, text).await
    }

    pub(crate) async fn texts(&mut self) -> Vec<String> {
        texts(&self.read().await.unwrap())
    }
}

/// The values as texts, or their qualities.
pub(crate) fn texts(values: &[Value]) -> Vec<String> {
    values.iter().map(|v| v.value.clone().unwrap_or_else(|| v.quality.word().to_owned())).collect()
}
