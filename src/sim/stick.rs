//! Simulated receivers on a pseudo-terminal: what one is told it answers, what it hears it says.
//!
//! A [`Stick`] turns bytes into bytes; [`plug`] puts it on a pseudo-terminal, where it understands nothing and is
//! understood by nobody unless the reader has set its speed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::os::pty::Pty;

/// A receiver that is spoken to.
pub trait Stick: Send + 'static {
    /// Bits per second on its line.
    fn baud(&self) -> u32;

    /// Whether it understands what comes at a speed; what is behind USB takes any.
    fn understands(&self, baud: u32) -> bool {
        baud == self.baud()
    }

    /// Takes what a reader sent and returns what the stick says to it.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8>;
}

/// A stick with its radio and its power.
pub trait Radio: Stick {
    /// How its radio gives the signal strength.
    type Strength: Send + 'static;

    /// Hears a telegram in the normal form; returns what it says.
    fn hears(&mut self, telegram: &[u8], strength: Self::Strength) -> Vec<u8>;

    /// Starts again, as after a moment without power; returns what it says.
    fn restart(&mut self) -> Vec<u8>;
}

type Order<S> = Box<dyn FnOnce(&mut S) -> Vec<u8> + Send>;

/// A stick in its socket. Dropping it pulls it out.
#[derive(Debug)]
pub struct Plugged<S> {
    stick: Arc<Mutex<S>>,
    path: PathBuf,
    /// `None` when it is being pulled out.
    orders: Option<mpsc::UnboundedSender<Order<S>>>,
    /// Changes after everything that happened.
    happened: watch::Receiver<()>,
    task: JoinHandle<io::Result<()>>,
}

/// Plugs a stick in. Must be called inside a tokio runtime.
///
/// # Errors
/// As [`Pty::open`].
pub fn plug<S: Stick>(stick: S) -> io::Result<Plugged<S>> {
    let pty = Pty::open()?;
    let path = pty.path().to_owned();
    let stick = Arc::new(Mutex::new(stick));
    let (orders, taken) = mpsc::unbounded_channel();
    let (happens, happened) = watch::channel(());
    let task = tokio::spawn(run(pty, stick.clone(), taken, happens));
    Ok(Plugged { stick, path, orders: Some(orders), happened, task })
}

async fn run<S: Stick>(
    mut pty: Pty,
    stick: Arc<Mutex<S>>,
    mut orders: mpsc::UnboundedReceiver<Order<S>>,
    happens: watch::Sender<()>,
) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let mut said = tokio::select! {
            count = pty.receive(&mut buffer) => {
                let bytes = buffer.get(..count?).unwrap_or_default();
                let speed = pty.baud()?;
                with(&stick, |stick| if stick.understands(speed) { stick.take(bytes) } else { Vec::new() })
            }
            order = orders.recv() => match order {
                Some(order) => with(&stick, order),
                None => return Ok(()),
            },
        };
        let speed = pty.baud()?;
        if !with(&stick, |stick| stick.understands(speed)) {
            // At another speed every byte is another one.
            said.iter_mut().for_each(|byte| *byte ^= 0x66);
        }
        pty.send(&said).await?;
        happens.send_replace(());
    }
}

fn with<S, T>(stick: &Mutex<S>, look: impl FnOnce(&mut S) -> T) -> T {
    look(&mut stick.lock().unwrap_or_else(PoisonError::into_inner))
}

impl<S: Stick> Plugged<S> {
    /// The device file that a reader opens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the stick, or changes it.
    pub fn look<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        with(&self.stick, look)
    }

    /// The stick itself, until the guard is dropped: never over an await.
    pub fn stick(&self) -> MutexGuard<'_, S> {
        self.stick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something that it was told, or did, makes `is` true; for ever when its line is gone.
    pub async fn until(&self, mut is: impl FnMut(&S) -> bool) {
        let mut happened = self.happened.clone();
        while happened.wait_for(|()| self.look(|stick| is(stick))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Puts bytes on its line.
    pub fn say(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.order(|_| bytes);
    }

    /// Pulls it out after it has said everything; its memory stays as it is.
    pub async fn unplug(mut self) -> Option<S> {
        self.orders = None;
        // How its line ended is nothing to its memory.
        let _ = (&mut self.task).await;
        let stick = self.stick.clone();
        drop(self);
        Arc::into_inner(stick).map(|stick| stick.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn order(&self, order: impl FnOnce(&mut S) -> Vec<u8> + Send + 'static) {
        if let Some(orders) = &self.orders {
            // It fails when the line is gone.
            let _ = orders.send(Box::new(order));
        }
    }
}

impl<S: Radio> Plugged<S> {
    /// Lets it hear a telegram in the normal form.
    pub fn hears(&self, telegram: &[u8], strength: S::Strength) {
        let telegram = telegram.to_vec();
        self.order(move |stick| stick.hears(&telegram, strength));
    }

    /// Takes its power for a moment.
    pub fn restart(&self) {
        self.order(S::restart);
    }
}

impl<S> Drop for Plugged<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
