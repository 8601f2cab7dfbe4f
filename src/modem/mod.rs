//! The cellular modem: its state, short messages both ways, missed calls.
//!
//! One task owns the AT port ([`Modem::run`]); everybody else has a [`Handle`]. Invariants: a modem that is not there, hangs
//! or tells garbage delays nobody else, and is told once; every wait has an end; a PIN that the SIM refused is not tried again,
//! also not after a restart; a message is deleted only after it was handed over, and a message that can't be read is deleted,
//! so that the storage is never full; no number, PIN or text is logged above DEBUG. With ModemManager the port is never
//! opened: `manager` asks `mmcli` instead.
//!
//! Start with `course` (the port over the time), then `session`; `dialogue` is one command and its answer.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, watch};

use crate::os::clock::Clock;
use crate::os::line::Endpoint;

mod call;
mod course;
mod dialogue;
mod handle;
mod inbox;
mod inquiry;
mod manager;
mod outbox;
mod permit;
mod pin;
mod session;
mod settings;
mod start;
mod status;

pub use handle::{Handle, Incoming, Sent};
use handle::{ORDERS, Order};
pub use settings::{Manager, ModemSettings, check};
pub use status::{Counters, State, Status};

/// Why something can't be done with the modem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModemError {
    /// Neither the settings nor the board name a port.
    #[error("no AT port is known: set device in [modem], or choose a board that has a modem")]
    NoDevice,
    /// It can't be reached just now.
    #[error("the modem can't be used now: {0}")]
    Absent(String),
    /// It did not answer in time; whether it did what it was told is not known.
    #[error("the modem did not answer {0} in time; it is started anew")]
    Silent(String),
    /// It refused.
    #[error("the modem refused {command}: {reason}")]
    Refused {
        /// The command without its parameters.
        command: String,
        /// Why, e.g. `CME ERROR 10 (no SIM is inserted)`.
        reason: String,
    },
    /// The receiver's number is none.
    #[error("this is no telephone number; write it like +34666123456")]
    Number,
    /// The text needs more parts than may be sent.
    #[error("the text is too long; at most {0} parts are sent")]
    TooLong(u8),
    /// The text can't be given to ModemManager.
    #[error("mmcli can't take a text that has both kinds of quotes; leave one of them out")]
    Quotes,
    /// The command must not be passed on.
    #[error("{0}")]
    Forbidden(String),
    /// Too much waits to be sent.
    #[error("too many messages wait to be sent; try again later")]
    Busy,
    /// The order was given up because the dialogue broke off.
    #[error("the dialogue with the modem broke off; whether it was done is not known")]
    Interrupted,
    /// Nobody owns the modem any more.
    #[error("the modem is not used any more; weir is stopping")]
    Ended,
}

/// The owner of the modem. May be cloned to be started again; one of them runs at a time.
#[derive(Debug, Clone)]
pub struct Modem {
    settings: ModemSettings,
    endpoint: Option<Endpoint>,
    /// Where it remembers PINs that were refused.
    folder: PathBuf,
    clock: Clock,
    incoming: mpsc::Sender<Incoming>,
    orders: Arc<Mutex<mpsc::Receiver<Order>>>,
    status: Arc<watch::Sender<Status>>,
    /// Messages are left in the storage and calls alone.
    only_watches: bool,
}

impl Modem {
    /// Makes the owner and a handle. `board` is the board's AT port, `folder` where small files are kept over a restart;
    /// what comes goes to `incoming`. When that is full, messages wait in the modem's storage.
    ///
    /// # Errors
    /// [`ModemError::NoDevice`] when nobody names a port and ModemManager is not to be asked.
    pub fn new(
        settings: ModemSettings,
        board: Option<PathBuf>,
        folder: impl Into<PathBuf>,
        clock: Clock,
        incoming: mpsc::Sender<Incoming>,
    ) -> Result<(Self, Handle), ModemError> {
        let endpoint = settings.device.as_ref().map(|device| Endpoint::parse(device));
        let endpoint = endpoint.or_else(|| board.map(Endpoint::Device));
        if endpoint.is_none() && settings.manager == Manager::None {
            return Err(ModemError::NoDevice);
        }
        let (orders, taken) = mpsc::channel(ORDERS);
        let (tell, status) = watch::channel(Status { by: "weir", ..Status::default() });
        let handle = Handle { orders, status, allow: settings.allow.clone() };
        let (orders, status) = (Arc::new(Mutex::new(taken)), Arc::new(tell));
        let folder = folder.into();
        let modem = Self { settings, endpoint, folder, clock, incoming, orders, status, only_watches: false };
        Ok((modem, handle))
    }

    /// Leaves messages in the storage and calls alone: for a look while nobody takes them.
    #[must_use]
    pub fn only_watching(self) -> Self {
        Self { only_watches: true, ..self }
    }

    /// Tells everybody who listens, when something changed.
    fn publish(&self, status: &Status) {
        self.status.send_if_modified(|told| {
            let changed = told != status;
            if changed {
                told.clone_from(status);
            }
            changed
        });
    }

    /// Owns the modem until no handle is left. Dropping the future closes the port.
    ///
    /// # Errors
    /// None so far: what fails is tried again.
    pub async fn run(self) -> Result<(), ModemError> {
        let orders = self.orders.clone();
        let mut orders = orders.lock().await;
        course::follow(&self, &mut orders).await;
        Ok(())
    }
}
