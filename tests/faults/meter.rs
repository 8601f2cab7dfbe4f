//! Hands the telegrams to the gateway: as lines of a receiver to weir, as messages to a bridge.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::ledger::Ledger;
use super::mqtt::{Packet, acknowledge, connect, publish};
use super::telegram::{is_priority, line, telegram};

/// Between two telegrams.
pub const PACE: Duration = Duration::from_millis(8);
/// Between two that were handed over before.
const HURRY: Duration = Duration::from_millis(1);
/// Messages that may wait for their PUBACK at the bridge.
const WINDOW: usize = 20;

/// Ended when dropped.
pub struct Meter {
    task: JoinHandle<()>,
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn pause(ledger: &Ledger) -> Duration {
    if ledger.hurries() { HURRY } else { PACE }
}

async fn next(ledger: &Ledger) -> u64 {
    loop {
        match ledger.next() {
            Some(number) => return number,
            None => sleep(PACE).await,
        }
    }
}

impl Meter {
    /// A receiver whose lines weir fetches at the TCP port returned.
    pub async fn receiver(ledger: Ledger) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                ledger.line_opened();
                loop {
                    let gone = async {
                        let mut byte = [0];
                        let _ = stream.peek(&mut byte).await;
                    };
                    let number = tokio::select! {
                        number = next(&ledger) => number,
                        () = gone => break,
                    };
                    if stream.write_all(line(number).as_bytes()).await.is_err() {
                        break;
                    }
                    sleep(pause(&ledger)).await;
                }
            }
        });
        (Self { task }, port)
    }

    /// A client of the bridge's own broker at `port`.
    pub fn client(ledger: Ledger, port: u16) -> Self {
        let task = tokio::spawn(async move {
            loop {
                let _ = hand_over(&ledger, port).await;
                sleep(Duration::from_millis(20)).await;
            }
        });
        Self { task }
    }
}

async fn hand_over(ledger: &Ledger, port: u16) -> io::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    to.write_all(&connect("meter", true)).await?;
    if Packet::read(&mut from).await?.is_none() {
        return Ok(());
    }
    let (packets, mut heard) = tokio::sync::mpsc::channel(WINDOW);
    let reader = tokio::spawn(async move {
        while let Ok(Some(packet)) = Packet::read(&mut from).await {
            if packets.send(packet).await.is_err() {
                return;
            }
        }
    });
    let _ended = Meter { task: reader };
    let mut under_way: VecDeque<(u16, u64)> = VecDeque::new();
    let mut id = 0u16;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            packet = heard.recv() => {
                let Some(packet) = packet else { return Ok(()) };
                if let Some(acknowledged) = packet.acknowledged()
                    && let Some(at) = under_way.iter().position(|(id, _)| *id == acknowledged)
                {
                    under_way.remove(at).into_iter().for_each(|(_, number)| ledger.confirm(number));
                }
                if let Some(publish) = packet.publish() {
                    to.write_all(&acknowledge(publish.id)).await?;
                }
            }
            () = sleep_until(due), if under_way.len() < WINDOW => {
                due = Instant::now() + pause(ledger);
                let Some(number) = ledger.next() else { continue };
                id = id % 60_000 + 1;
                under_way.push_back((id, number));
                let topic = if is_priority(number) { "event/gw1" } else { "data/gw1" };
                to.write_all(&publish(topic, id, &telegram(number))).await?;
            }
        }
    }
}
