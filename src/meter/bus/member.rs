//! A meter on a port: its session, its place in the schedule, its own speed.

use std::path::Path;
use std::time::Duration;

use super::schedule::Slots;
use crate::meter::{Kept, MeterSettings, Session, protocol};
use crate::model::{Body, Frame, Lane, Quality, Reading, Stamp, Value};
use crate::os::line::{Echo, Framing, Speed};

/// A meter on a port.
pub struct Meter {
    pub(super) name: String,
    /// Protocol and address: two entries with the same are one device.
    pub(super) identity: String,
    pub(super) session: Box<dyn Session>,
    pub(super) slots: Slots,
    baud: Option<u32>,
    framing: Option<Framing>,
    /// Its answers are numbered, so that no copy of a request is ever an echo.
    numbered: bool,
    /// The quality of the failure that was logged.
    pub(super) told: Option<Quality>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("name", &self.name).field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Meter {
    /// Makes a meter and its session.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings; `check` says it with its place.
    pub fn new(settings: &MeterSettings) -> Result<Self, String> {
        let row = protocol(&settings.protocol).ok_or_else(|| {
            format!("protocol \"{}\" of meter \"{}\" is not known to this build", *settings.protocol, *settings.name)
        })?;
        let address = settings.address.as_ref().map_or_else(|| "1".to_owned(), |a| a.to_string());
        Ok(Self {
            baud: settings.baud.as_ref().map(|baud| baud.value()),
            framing: settings.framing,
            numbered: row.name == "modbus-tcp",
            slots: Slots::new(*settings.every, settings.stretch.value()),
            ..Self::of(&settings.name, format!("{} {address}", row.name), row.session(settings)?, *settings.every)
        })
    }

    /// Keeps what its session must remember over a restart in this folder.
    #[must_use]
    pub fn kept_in(mut self, folder: &Path) -> Self {
        self.session.keep_in(Kept::new(folder));
        self
    }

    /// Makes a meter of a session, whatever it speaks.
    pub(super) fn of(name: &str, identity: String, session: Box<dyn Session>, every: Duration) -> Self {
        let slots = Slots::new(every, 1);
        Self { name: name.to_owned(), identity, session, slots, baud: None, framing: None, numbered: false, told: None }
    }

    /// Its name in weir.toml.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The speed it is asked at, on a port of this speed.
    pub(super) fn speed(&self, port: Speed) -> Speed {
        Speed { baud: self.baud.unwrap_or(port.baud), framing: self.framing.unwrap_or(port.framing) }
    }

    /// What its line is to think of echoes, on a port for which this is set.
    pub(super) const fn echo(&self, port: Echo) -> Echo {
        if self.numbered { Echo::No } else { port }
    }

    /// A frame with these values.
    pub(super) fn frame(&self, time: Stamp, values: Vec<Value>) -> Frame {
        let reading = Reading { meter: self.name.clone(), values };
        Frame { time, lane: Lane::Ordinary, body: Body::Reading(reading), origin: None }
    }

    /// A frame for a slot in which it was not asked.
    pub(super) fn nulls(&self, time: Stamp) -> Frame {
        self.frame(time, self.session.absent(Quality::NoAnswer))
    }
}
