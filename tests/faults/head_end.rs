//! The subscriber: a persistent session of QoS 1 that writes down what arrives before it acknowledges.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::mqtt::{CONNACK, Packet, SUBACK, acknowledge, connect, ping, subscribe_to_all};
use super::telegram::frames_of;

/// What arrived.
#[derive(Debug, Default)]
pub struct Book {
    /// How often each telegram arrived.
    pub arrivals: HashMap<u64, u32>,
    /// The telegram of each sequence.
    pub sequences: HashMap<u64, u64>,
    /// Frames that are no telegram of ours, or came under a sequence that was another's.
    pub wrong: Vec<String>,
    /// Frames, repeats too.
    heard: u64,
    /// The broker confirmed the subscription in this session.
    pub listening: bool,
}

impl Book {
    fn write(&mut self, topic: &[u8], payload: &[u8]) {
        if !topic.starts_with(b"data/") && !topic.starts_with(b"event/") {
            return;
        }
        for (number, sequence) in frames_of(payload) {
            let Some(number) = number else {
                self.wrong.push(format!("sequence {sequence} is no telegram that was made"));
                continue;
            };
            *self.arrivals.entry(number).or_default() += 1;
            self.heard += 1;
            let before = *self.sequences.entry(sequence).or_insert(number);
            if before != number {
                self.wrong.push(format!("sequence {sequence} was telegram {before} and {number}"));
            }
        }
    }
}

pub struct HeadEnd {
    pub book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

impl HeadEnd {
    pub fn start(port: u16) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let shared = book.clone();
        let task = tokio::spawn(async move {
            loop {
                let _ = listen(port, &shared).await;
                shared.lock().unwrap().listening = false;
                sleep(Duration::from_millis(20)).await;
            }
        });
        Self { book, task }
    }

    pub fn has(&self, number: u64) -> bool {
        self.book.lock().unwrap().arrivals.contains_key(&number)
    }

    /// How many different telegrams arrived.
    pub fn arrived(&self) -> u64 {
        self.book.lock().unwrap().arrivals.len() as u64
    }

    /// How many frames arrived, repeats too.
    pub fn heard(&self) -> u64 {
        self.book.lock().unwrap().heard
    }

    pub fn listening(&self) -> bool {
        self.book.lock().unwrap().listening
    }
}

impl Drop for HeadEnd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(port: u16, book: &Mutex<Book>) -> io::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    to.write_all(&connect("head-end", false)).await?;
    loop {
        let packet = match timeout(Duration::from_secs(20), from.fill_buf_ready()).await {
            Ok(ready) => {
                ready?;
                let Some(packet) = Packet::read(&mut from).await? else { return Ok(()) };
                packet
            }
            Err(_) => {
                to.write_all(&ping()).await?;
                continue;
            }
        };
        match (packet.kind(), packet.publish()) {
            (CONNACK, _) => to.write_all(&subscribe_to_all()).await?,
            (SUBACK, _) => book.lock().unwrap().listening = true,
            (_, Some(publish)) => {
                book.lock().unwrap().write(publish.topic, publish.payload);
                to.write_all(&acknowledge(publish.id)).await?;
            }
            _ => {}
        }
    }
}

/// Waiting for bytes that can be given up without losing any.
trait Ready {
    async fn fill_buf_ready(&mut self) -> io::Result<()>;
}

impl<T: tokio::io::AsyncRead + Unpin> Ready for BufReader<T> {
    async fn fill_buf_ready(&mut self) -> io::Result<()> {
        tokio::io::AsyncBufReadExt::fill_buf(self).await.map(|_| ())
    }
}
