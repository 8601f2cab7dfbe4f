//! Receivers on a pseudo-terminal that are asked and told something: what they have in common.
//!
//! A [`Stick`] turns bytes into bytes; [`plug`] puts it on a pseudo-terminal, where it understands nothing and is
//! understood by nobody unless the reader has set its speed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::os::pty::Pty;

/// A simulated receiver.
pub trait Stick: Send + 'static {
    /// Bits per second on its line.
    const BAUD: u32;

    /// Takes what a host sent and returns what it says to that.
    fn told(&mut self, bytes: &[u8]) -> Vec<u8>;

    /// Hears a telegram in the normal form, with the byte of signal strength that its radio gives; returns what it says.
    fn hears(&mut self, telegram: &[u8], raw: u8) -> Vec<u8>;

    /// Starts again, as after a moment without power.
    fn restart(&mut self);
}

enum Order {
    Hear(Vec<u8>, u8),
    Say(Vec<u8>),
    Restart,
}

/// A stick in its socket. Dropping it pulls it out.
#[derive(Debug)]
pub struct Plugged<S> {
    path: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
    stick: Arc<Mutex<S>>,
    task: JoinHandle<io::Result<()>>,
}

/// Plugs a stick in. Must be called inside a tokio runtime.
///
/// # Errors
/// The system's error, for instance when there are no more pseudo-terminals.
pub fn plug<S: Stick>(stick: S) -> io::Result<Plugged<S>> {
    let pty = Pty::open()?;
    let path = pty.path().to_owned();
    let stick = Arc::new(Mutex::new(stick));
    let (orders, taken) = mpsc::unbounded_channel();
    let task = tokio::spawn(run(pty, stick.clone(), taken));
    Ok(Plugged { path, orders, stick, task })
}

async fn run<S: Stick>(
    mut pty: Pty,
    stick: Arc<Mutex<S>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let said = tokio::select! {
            count = pty.receive(&mut buffer) => {
                let bytes = buffer.get(..count?).unwrap_or_default();
                if pty.baud()? == S::BAUD { with(&stick, |stick| stick.told(bytes)) } else { Vec::new() }
            }
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Hear(telegram, raw)) => with(&stick, |stick| stick.hears(&telegram, raw)),
                Some(Order::Say(bytes)) => bytes,
                Some(Order::Restart) => with(&stick, |stick| {
                    stick.restart();
                    Vec::new()
                }),
            },
        };
        // At another speed every byte is another one.
        let garbled = pty.baud()? != S::BAUD;
        let said: Vec<u8> = if garbled { said.iter().map(|byte| byte ^ 0x66).collect() } else { said };
        pty.send(&said).await?;
    }
}

fn with<S, T>(stick: &Mutex<S>, look: impl FnOnce(&mut S) -> T) -> T {
    look(&mut stick.lock().unwrap_or_else(PoisonError::into_inner))
}

impl<S: Stick> Plugged<S> {
    /// The device file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the stick hear a telegram in the normal form.
    pub fn hears(&self, telegram: &[u8], raw: u8) {
        let _ = self.orders.send(Order::Hear(telegram.to_vec(), raw));
    }

    /// Puts bytes on its line that it did not say.
    pub fn noise(&self, bytes: &[u8]) {
        let _ = self.orders.send(Order::Say(bytes.to_vec()));
    }

    /// Takes its power for a moment.
    pub fn restart(&self) {
        let _ = self.orders.send(Order::Restart);
    }

    /// Looks at the stick, or changes it.
    pub fn look<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        with(&self.stick, look)
    }

    /// Pulls the stick out after it has said everything; its memory stays as it is.
    pub async fn unplug(self) -> Option<S> {
        drop(self.orders);
        let _ = self.task.await;
        Arc::into_inner(self.stick).map(|stick| stick.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
