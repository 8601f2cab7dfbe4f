//! A meter behind a serial server that answers from a recorded table, with one fault at one answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, sleep_until};
use weir::meter::{MeterError, MeterSettings, Session, protocol};
use weir::model::Value;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::wire::iec62056::Parity;

/// A request and its answers: the first at once, the others each after an acknowledgement.
pub(crate) type Exchange = (Vec<u8>, Vec<Vec<u8>>);

/// What happens to one answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    None,
    /// It comes so much later.
    Late(Duration),
    /// Only its first characters come.
    Short(usize),
    /// It comes twice, so long after the first.
    Doubled(Duration),
    /// The request comes back before it.
    Echoed,
    /// A character is another one.
    Corrupted(usize, u8),
    /// Another answer of the table comes instead of it, or before it.
    Foreign {
        which: usize,
        instead: bool,
    },
}

/// What the meter heard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Piece>>>);

/// Bytes that came at once, and when.
type Piece = (Instant, Vec<u8>);

impl Heard {
    /// The bytes, seven bits each, with the time they came.
    pub(crate) fn bytes(&self) -> Vec<Piece> {
        self.0.lock().unwrap().clone()
    }
}

/// Sends a block with STX, `end` and its check.
pub(crate) fn block(body: &str, end: u8) -> Vec<u8> {
    let mut bytes = [body.as_bytes(), &[end]].concat();
    bytes.push(bytes.iter().fold(0, |sum, b| sum ^ b));
    [&[2], bytes.as_slice()].concat()
}

/// A command of programming mode.
pub(crate) fn command(text: &str) -> Vec<u8> {
    let mut bytes = [text.as_bytes(), &[3]].concat();
    bytes.push(bytes.iter().fold(0, |sum, b| sum ^ b));
    [&[1], bytes.as_slice()].concat()
}

/// A session with a meter that has this table; the fault happens at its answer of number `at`.
pub(crate) struct Scripted {
    pub(crate) session: Box<dyn Session>,
    pub(crate) line: Line,
    pub(crate) heard: Heard,
}

impl Scripted {
    pub(crate) async fn start(
        settings: &MeterSettings,
        table: Vec<Exchange>,
        parity: Parity,
        at: usize,
        fault: Fault,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
        let heard = Heard::default();
        tokio::spawn(serve(listener, table, parity, at, fault, heard.clone()));
        hold_back();
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        let line = Line::open(&endpoint, speed, Direction::Automatic).await.unwrap();
        let session = protocol("iec62056-21").unwrap().session(settings).unwrap();
        Self { session, line, heard }
    }

    pub(crate) async fn read(&mut self) -> Result<Vec<Value>, MeterError> {
        self.session.read(&mut self.line).await
    }
}

/// Virtual time leaps to the next timer even while bytes are on their way in the system; so it is
/// held back to a hundred times the real one.
pub(crate) fn hold_back() {
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::thread::sleep(Duration::from_micros(150));
        }
    });
}

async fn serve(listener: TcpListener, table: Vec<Exchange>, parity: Parity, at: usize, fault: Fault, heard: Heard) {
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reading, writing) = stream.into_split();
    let writing = Arc::new(tokio::sync::Mutex::new(writing));
    let mut buffer = [0; 512];
    let mut asked: Vec<u8> = Vec::new();
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let mut last: Vec<u8> = Vec::new();
    let mut number = 0;
    while let Ok(count @ 1..) = reading.read(&mut buffer).await {
        let seven: Vec<u8> = buffer[..count].iter().map(|b| b & 0x7F).collect();
        heard.0.lock().unwrap().push((Instant::now(), seven.clone()));
        asked.extend(&seven);
        let answer = if asked.ends_with(&[0x15]) {
            last.clone()
        } else if asked == [6] && !waiting.is_empty() {
            waiting.remove(0)
        } else if let Some((_, answers)) = table.iter().find(|(request, _)| asked.ends_with(request)) {
            waiting.clone_from(answers);
            waiting.remove(0)
        } else {
            continue;
        };
        let request = std::mem::take(&mut asked);
        last.clone_from(&answer);
        let fault = if number == at { fault.clone() } else { Fault::None };
        number += 1;
        let foreign: Vec<u8> = table.iter().flat_map(|(_, answers)| answers.iter().flatten()).copied().collect();
        let others: Vec<&Vec<u8>> = table.iter().flat_map(|(_, answers)| answers).collect();
        let (delay, bytes) = match fault {
            Fault::None => (0, vec![answer]),
            Fault::Late(delay) => (u64::try_from(delay.as_millis()).unwrap(), vec![answer]),
            Fault::Short(length) => (0, vec![answer[..length.min(answer.len())].to_vec()]),
            Fault::Doubled(gap) => {
                let writing = Arc::clone(&writing);
                tokio::spawn(send(writing, answer.clone(), parity, Instant::now() + Duration::from_millis(250) + gap));
                (0, vec![answer])
            }
            Fault::Echoed => {
                tokio::spawn(send(Arc::clone(&writing), request, parity, Instant::now()));
                (0, vec![answer])
            }
            Fault::Corrupted(place, with) => {
                let mut wrong = answer.clone();
                let length = wrong.len();
                wrong[place % length] ^= with & 0x7F;
                (0, vec![wrong])
            }
            Fault::Foreign { which, instead } if !foreign.is_empty() => {
                let other = others[which % others.len()].clone();
                // An answer without an id that comes alone can't be told from the right one (docs/adding-a-meter.md).
                let names_an_id = !other.starts_with(b"\x02(") || other.starts_with(b"\x02(ER");
                let instead = instead && names_an_id;
                (0, if instead { vec![other] } else { vec![other, answer] })
            }
            Fault::Foreign { .. } => (0, vec![answer]),
        };
        let due = Instant::now() + Duration::from_millis(250 + delay);
        tokio::spawn(send(Arc::clone(&writing), bytes.concat(), parity, due));
    }
}

async fn send(writing: Arc<tokio::sync::Mutex<OwnedWriteHalf>>, mut bytes: Vec<u8>, parity: Parity, due: Instant) {
    sleep_until(due).await;
    parity.apply(&mut bytes);
    let _ = writing.lock().await.write_all(&bytes).await;
}
