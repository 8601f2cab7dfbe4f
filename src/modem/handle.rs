//! How others reach the modem.

use tokio::sync::{mpsc, oneshot, watch};

use super::{ModemError, Status, permit};
use crate::model::Timestamp;

/// Orders that may wait.
pub(super) const ORDERS: usize = 8;

/// What came from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message.
    Sms {
        /// The sender's number, `+34...` when it is international, or a name.
        from: String,
        /// What it says.
        text: String,
        /// When the service centre got it; when it was read, if that is no date.
        at: Timestamp,
    },
    /// A missed call.
    Call {
        /// The caller's number; `None` when it is hidden.
        from: Option<String>,
        /// When it rang.
        at: Timestamp,
    },
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The network took all parts.
    Accepted {
        /// How many parts it took.
        parts: u8,
    },
    /// The network or the modem refused a part; none after it was sent.
    Refused {
        /// How many parts were taken before.
        parts: u8,
        /// Why, e.g. `CMS ERROR 500 (unknown)`.
        reason: String,
    },
}

#[derive(Debug)]
pub(super) enum Order {
    Send { number: String, text: String, answer: oneshot::Sender<Result<Sent, ModemError>> },
    Command { text: String, answer: oneshot::Sender<Result<Vec<String>, ModemError>> },
    Reregister { answer: oneshot::Sender<Result<(), ModemError>> },
    Reset { answer: oneshot::Sender<Result<(), ModemError>> },
}

impl Order {
    /// Answers that it can't be carried out.
    pub(super) fn refuse(self, error: ModemError) {
        match self {
            Self::Send { answer, .. } => drop(answer.send(Err(error))),
            Self::Command { answer, .. } => drop(answer.send(Err(error))),
            Self::Reregister { answer } | Self::Reset { answer } => drop(answer.send(Err(error))),
        }
    }
}

/// Speaks to the modem's owner. May be cloned.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) allow: Vec<String>,
}

impl Handle {
    /// What is known of the modem, always the newest.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Sends a text; waits until the network has taken all its parts or it can't be sent. A refusal is a value.
    ///
    /// # Errors
    /// [`ModemError`] when the number is none, the text is too long, or the modem is not there.
    pub async fn send(&self, number: &str, text: &str) -> Result<Sent, ModemError> {
        let (number, text) = (number.to_owned(), text.to_owned());
        self.order(|answer| Order::Send { number, text, answer }).await
    }

    /// Passes one AT command on and gives the lines of its answer, the last one (OK or an error) too.
    ///
    /// # Errors
    /// [`ModemError`] when the command would break the dialogue, or the modem is not there.
    pub async fn command(&self, text: &str) -> Result<Vec<String>, ModemError> {
        let text = text.trim().to_owned();
        permit::check(&text, &self.allow).map_err(ModemError::Forbidden)?;
        self.order(|answer| Order::Command { text, answer }).await
    }

    /// Leaves the network and looks for it anew.
    ///
    /// # Errors
    /// [`ModemError`] when the modem refuses or is not there.
    pub async fn reregister(&self) -> Result<(), ModemError> {
        self.order(|answer| Order::Reregister { answer }).await
    }

    /// Starts the modem anew.
    ///
    /// # Errors
    /// [`ModemError`] when the modem refuses or is not there.
    pub async fn reset(&self) -> Result<(), ModemError> {
        self.order(|answer| Order::Reset { answer }).await
    }

    async fn order<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, ModemError>>) -> Order,
    ) -> Result<T, ModemError> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(make(answer)).await.map_err(|_| ModemError::Ended)?;
        answered.await.map_err(|_| ModemError::Interrupted)?
    }
}
