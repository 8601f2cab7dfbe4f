//! A TCP relay that can delay, stall in one direction or both, or be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub to_broker: bool,
    pub to_agent: bool,
    pub cut: bool,
}

impl Flow {
    pub const ALL: Self = Self { to_broker: true, to_agent: true, cut: false };
    pub const NONE: Self = Self { to_broker: false, to_agent: false, cut: false };
    pub const CUT: Self = Self { to_broker: false, to_agent: false, cut: true };
}

/// The relay; it ends with the test.
pub struct Line {
    pub port: u16,
    pub accepted: Arc<AtomicUsize>,
    flow: watch::Sender<Flow>,
    task: JoinHandle<()>,
}

impl Line {
    /// Passes everything on after `delay`, as much as comes.
    pub async fn start(to: u16, delay: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (flow, seen) = watch::channel(Flow::ALL);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let mut gate = seen.clone();
                if gate.borrow().cut {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let seen = seen.clone();
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    let (from_agent, to_agent) = near.into_split();
                    let (from_broker, to_broker) = far.into_split();
                    tokio::select! {
                        () = pass(from_agent, to_broker, delay, seen.clone(), |flow| flow.to_broker) => {}
                        () = pass(from_broker, to_agent, delay, seen, |flow| flow.to_agent) => {}
                        _ = async { gate.wait_for(|flow| flow.cut).await.is_ok() } => {}
                    }
                });
            }
        });
        Self { port, accepted, flow, task }
    }

    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }

    pub fn url(&self) -> String {
        format!("url = \"tcp://127.0.0.1:{}\"\n", self.port)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes on while `open`; ends when one side hangs up.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut flow: watch::Receiver<Flow>,
    open: impl Fn(&Flow) -> bool,
) {
    let (hold, mut held) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let mut gate = flow.clone();
    let read = async {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(n) = from.read(&mut chunk).await {
            if n == 0 {
                // What passes nothing does not tell that the other side has hung up either.
                let _ = gate.wait_for(&open).await;
                return;
            }
            if hold.send((Instant::now() + delay, chunk[..n].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = held.recv().await {
            sleep_until(due).await;
            flow.wait_for(&open).await.unwrap();
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
