//! A simulated receiver plugged into a pseudo-terminal: what it is told it answers, what it hears it says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::os::pty::Pty;

/// A receiver that is spoken to.
pub trait Stick: Send + 'static {
    /// Bits per second; at another speed it understands nothing.
    fn baud(&self) -> u32;

    /// Whether it understands what comes at a speed; what is behind USB takes any.
    fn understands(&self, baud: u32) -> bool {
        baud == self.baud()
    }

    /// Takes what the reader sent and returns what the stick says to it.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8>;
}

/// A stick in its socket. Dropping it unplugs it.
#[derive(Debug)]
pub struct Plugged<S> {
    stick: Arc<Mutex<S>>,
    path: PathBuf,
    say: mpsc::Sender<Vec<u8>>,
    told: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

/// Sayings that may wait for the line.
const WAITING: usize = 64;

impl<S: Stick> Plugged<S> {
    /// Plugs a stick in. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Pty::open`].
    pub fn plug(stick: S) -> io::Result<Self> {
        let pty = Pty::open()?;
        let path = pty.path().to_owned();
        let stick = Arc::new(Mutex::new(stick));
        let (say, sayings) = mpsc::channel(WAITING);
        let (tell, told) = watch::channel(0);
        let task = tokio::spawn(run(pty, stick.clone(), sayings, tell));
        Ok(Self { stick, path, say, told, task })
    }

    /// The device file that a reader opens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stick itself; do not hold it over an await.
    pub fn stick(&self) -> MutexGuard<'_, S> {
        self.stick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it say `bytes` by itself.
    pub async fn say(&self, bytes: Vec<u8>) {
        // The task ends with this.
        let _ = self.say.send(bytes).await;
    }

    /// Waits until something that it was told makes `is` true.
    pub async fn until(&self, mut is: impl FnMut(&S) -> bool) {
        let mut told = self.told.clone();
        // It fails only when the line does; the stick then stays as it is.
        let _ = told.wait_for(|_| is(&self.stick())).await;
    }
}

impl<S> Drop for Plugged<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run<S: Stick>(
    mut pty: Pty,
    stick: Arc<Mutex<S>>,
    mut sayings: mpsc::Receiver<Vec<u8>>,
    tell: watch::Sender<u64>,
) {
    let mut buffer = [0; 1024];
    loop {
        let says = tokio::select! {
            got = pty.receive(&mut buffer) => {
                let Ok(count) = got else { return };
                let speed = pty.baud().unwrap_or(0);
                let mut stick = stick.lock().unwrap_or_else(PoisonError::into_inner);
                if stick.understands(speed) { stick.take(buffer.get(..count).unwrap_or_default()) } else { Vec::new() }
            }
            said = sayings.recv() => match said {
                Some(said) => said,
                None => return,
            },
        };
        if pty.send(&says).await.is_err() {
            return;
        }
        tell.send_modify(|told| *told += 1);
    }
}
