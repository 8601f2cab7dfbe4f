//! The door to a port's bus: readings on demand, and the line itself for a while.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::holder::{Hold, Holder, Owner, Purpose};
use crate::model::Value;
use crate::os::line::{Line, Tap};

/// Jobs that may wait at a port; whoever comes then waits outside.
const WAITING: usize = 8;

/// What a borrower does with the line.
pub type Borrowed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the line was not lent, or was taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The port is not there.
    #[error("{0}")]
    NoLine(String),
    /// The borrower did not come to an end.
    #[error("the line was taken back after {} s; ask for it again, or for longer", .0.as_secs_f32())]
    Expired(Duration),
    /// The bus ended.
    #[error("the port is being closed")]
    Closed,
}

/// A reading asked for by a person, done before the scheduled ones. It gives no frame.
#[derive(Debug)]
pub(in crate::meter) struct Reading {
    /// The name of the meter.
    pub(in crate::meter) meter: String,
    /// Where the values go, or one sentence that says why there are none.
    pub(in crate::meter) reply: oneshot::Sender<Result<Vec<Value>, String>>,
}

/// An order of a protocol's own command, done before the scheduled readings.
#[derive(Debug)]
pub(in crate::meter) struct Inspection {
    /// The name of the meter.
    pub(in crate::meter) meter: String,
    /// What is wanted.
    pub(in crate::meter) order: serde_json::Value,
    /// Where it is told how far a long order has come: parts done, and all of them.
    pub(in crate::meter) progress: watch::Sender<(u32, u32)>,
    /// Where the answer goes, or one sentence that says why there is none.
    pub(in crate::meter) reply: oneshot::Sender<Result<serde_json::Value, String>>,
}

/// What a lease does, its result sent elsewhere.
pub(in crate::meter) type Work = Box<dyn for<'a> FnOnce(&'a mut Line) -> Borrowed<'a, ()> + Send>;

/// The line is wanted.
pub(in crate::meter) struct Lease {
    /// For so long at most.
    pub(in crate::meter) limit: Duration,
    pub(in crate::meter) owner: Owner,
    pub(in crate::meter) work: Work,
    /// Why the work was not done to its end; closed when nobody waits for it any more.
    pub(in crate::meter) ended: oneshot::Sender<LeaseError>,
}

/// What somebody wants of a port.
pub(in crate::meter) enum Job {
    Read(Reading),
    Inspect(Inspection),
    Lend(Lease),
}

/// Asks a port's bus for things; clones ask the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    port: Arc<str>,
    jobs: mpsc::Sender<Job>,
    tap: Tap,
    holder: Holder,
    owner: Owner,
}

/// The bus's side of its [`Handle`]s; clones are the same, for a bus that is started again.
#[derive(Debug, Clone)]
pub struct Inbox {
    pub(in crate::meter) jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    pub(in crate::meter) tap: Tap,
    pub(in crate::meter) holder: Holder,
}

impl Handle {
    /// Makes the door of a port.
    pub fn new(port: &str) -> (Self, Inbox) {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let (tap, holder) = (Tap::new(), Holder::default());
        let inbox = Inbox { jobs: Arc::new(Mutex::new(waiting)), tap: tap.clone(), holder: holder.clone() };
        (Self { port: port.into(), jobs, tap, holder, owner: Owner::new(Purpose::Lease, "") }, inbox)
    }

    /// The port's name in weir.toml.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The same door for somebody: whoever looks sees his name while he has the line.
    #[must_use]
    pub fn named(&self, owner: Owner) -> Self {
        Self { owner, ..self.clone() }
    }

    /// Who has the port now.
    pub fn hold(&self) -> Option<Hold> {
        self.holder.now()
    }

    /// How many bytes of the port nobody got since weir started, because they came when one borrower of the line had ended and the next
    /// one had not begun: the rest of an answer to the first, most likely, and never an answer to the second. What a borrower himself
    /// had read away counts, too.
    pub fn read_away(&self) -> u64 {
        self.holder.read_away()
    }

    /// How many wait for the port, besides who has it.
    pub fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Every byte on the port, for whoever wants to look; it goes on when the port is opened again.
    pub const fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Reads a meter now, before the scheduled readings; gives no frame.
    ///
    /// # Errors
    /// One sentence that says why there are no values.
    pub async fn read(&self, meter: &str) -> Result<Vec<Value>, String> {
        let (reply, answer) = oneshot::channel();
        let closed = |_| LeaseError::Closed.to_string();
        self.jobs
            .send(Job::Read(Reading { meter: meter.to_owned(), reply }))
            .await
            .map_err(|e| closed(e.to_string()))?;
        answer.await.map_err(|e| closed(e.to_string()))?
    }

    /// Has an order of a protocol's own command carried out on a meter now, before the scheduled readings.
    ///
    /// # Errors
    /// One sentence that says why there is no answer.
    pub async fn inspect(&self, meter: &str, order: serde_json::Value) -> Result<serde_json::Value, String> {
        self.inspect_telling(meter, order, &watch::Sender::new((0, 0))).await
    }

    /// As [`Handle::inspect`]; tells meanwhile how far a long order has come: parts done, and all of them.
    ///
    /// # Errors
    /// As [`Handle::inspect`].
    pub async fn inspect_telling(
        &self,
        meter: &str,
        order: serde_json::Value,
        progress: &watch::Sender<(u32, u32)>,
    ) -> Result<serde_json::Value, String> {
        let (reply, answer) = oneshot::channel();
        let closed = |_| LeaseError::Closed.to_string();
        let progress = progress.clone();
        self.jobs
            .send(Job::Inspect(Inspection { meter: meter.to_owned(), order, progress, reply }))
            .await
            .map_err(|e| closed(e.to_string()))?;
        answer.await.map_err(|e| closed(e.to_string()))?
    }

    /// Borrows the open line for `limit` at most (never more than [`LONGEST_LEASE`]) and does
    /// `work` with it, in the bus's own task and alone on the line. Readings that become due are
    /// given as nulls meanwhile. The bus sets the line right afterwards; when the limit comes
    /// first, `work` is dropped and the line is opened again. Dropping the call ends the lease.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn lend<T, F>(&self, limit: Duration, work: F) -> Result<T, LeaseError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Line) -> Borrowed<'a, T> + Send + 'static,
    {
        self.borrow(limit.min(LONGEST_LEASE), work).await
    }

    /// Borrows the line of a port that no meter hangs on, for as long as `work` takes; else as [`Handle::lend`].
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn keep<T, F>(&self, work: F) -> Result<T, LeaseError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Line) -> Borrowed<'a, T> + Send + 'static,
    {
        self.borrow(FOR_EVER, work).await
    }

    async fn borrow<T, F>(&self, limit: Duration, work: F) -> Result<T, LeaseError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Line) -> Borrowed<'a, T> + Send + 'static,
    {
        let (give, take) = oneshot::channel();
        let (ended, why) = oneshot::channel();
        let work: Work = Box::new(move |line| {
            Box::pin(async move {
                let _ = give.send(work(line).await);
            })
        });
        let lease = Lease { limit, owner: self.owner.clone(), work, ended };
        self.jobs.send(Job::Lend(lease)).await.map_err(|_| LeaseError::Closed)?;
        // Held over the wait: the bus notices when nobody waits any more.
        match take.await {
            Ok(given) => Ok(given),
            Err(_) => Err(why.await.unwrap_or(LeaseError::Closed)),
        }
    }
}

/// The longest time for which a line is lent at once.
pub const LONGEST_LEASE: Duration = Duration::from_hours(1);
/// Longer than any gateway runs, and short enough to add to any instant.
pub(super) const FOR_EVER: Duration = Duration::from_hours(24 * 365 * 30);
