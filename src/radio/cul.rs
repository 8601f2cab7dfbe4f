//! CUL, nanoCUL and other sticks with culfw or a-culfw: asked for their version, told the mode, then read line by line.
//!
//! Nothing is written into their memory: mode and report count until the power goes.

use std::collections::VecDeque;
use std::time::Duration;

use super::dialogue::{ask, set_baud, tell};
use super::driver::{Driver, Starting};
use super::source::Open;
use super::{RadioSettings, settings};
use crate::wire::cul::{Line, decode};
use crate::wire::radio_line::{Item, LineDecoder, Piece};

/// The words of `mode`. Mode C of the firmware hears T as well.
pub(super) const WORDS: &[&str] = &["C+T", "T", "C", "S"];

const VERSION: &[u8] = b"V\r\n";
/// Reports on, link quality and signal strength behind each telegram.
const REPORT: &[u8] = b"X21\r\n";
const ANSWERED: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// Opening the port of a nanoCUL resets it, and its boot loader takes up to two seconds.
const VERSION_TRIES: u32 = 5;
/// The speeds that firmware is made for.
const SPEEDS: [u32; 4] = [9600, 38_400, 57_600, 115_200];
/// The rest of a line follows without a pause.
const PATIENCE: Duration = Duration::from_secs(1);

/// A stick.
pub(super) struct Cul {
    mode: Option<&'static str>,
    decoder: LineDecoder,
    /// A line has begun.
    waiting: bool,
    /// It said its version without being asked.
    restarted: bool,
    /// The log was told that it has no mode C.
    told: bool,
    ready: VecDeque<Item>,
}

impl Cul {
    pub(super) fn new(radio: &RadioSettings) -> Result<Self, String> {
        let mode = settings::told(radio, WORDS)?;
        let (decoder, ready) = (LineDecoder::new(), VecDeque::new());
        Ok(Self { mode, decoder, waiting: false, restarted: false, told: false, ready })
    }

    async fn begin(&mut self, open: &mut Open) -> Result<String, String> {
        self.restarted = false;
        let mut spoke = false;
        let mut version = None;
        for _ in 0..VERSION_TRIES {
            version = self.request(open, VERSION, is_version, &mut spoke).await?;
            if version.is_some() {
                break;
            }
        }
        let Some(version) = version else { return Err(self.no_answer(open, spoke).await?) };
        let mode = self.set_mode(open).await?;
        tell(open, REPORT).await?;
        Ok(format!("CUL, {version}, mode {mode}"))
    }

    /// Says what to do when nothing answers: looks whether the stick has another speed.
    async fn no_answer(&mut self, open: &mut Open, mut spoke: bool) -> Result<String, String> {
        let usual = open.line().map(|line| line.speed().baud);
        for baud in SPEEDS.into_iter().filter(|baud| Some(*baud) != usual) {
            if set_baud(open, baud) && self.request(open, VERSION, is_version, &mut spoke).await?.is_some() {
                return Ok(format!("the stick's firmware talks at {baud} baud; write baud = {baud}"));
            }
        }
        Ok(if spoke {
            "something talks, but not as culfw does; set receiver to what is plugged in".to_owned()
        } else {
            "nothing answers as culfw does; check that device is that stick".to_owned()
        })
    }

    /// Returns the mode that the stick says it is in.
    async fn set_mode(&mut self, open: &mut Open) -> Result<&'static str, String> {
        let wanted = self.mode.unwrap_or("C+T");
        let (request, answer): (&[u8], _) = match wanted {
            "T" => (b"brt\r\n", "TMODE"),
            "S" => (b"brs\r\n", "SMODE"),
            _ => (b"brc\r\n", "CMODE"),
        };
        if self.is_set(open, request, answer).await? {
            return Ok(wanted);
        }
        if answer != "CMODE" {
            return Err(format!(
                "the stick's firmware has no mode {wanted} of wireless M-Bus; put a newer culfw on it"
            ));
        }
        if self.mode.is_some() {
            return Err(format!(
                "the stick's firmware has no mode {wanted}; put culfw r571 or newer on it, or write mode = \"T\""
            ));
        }
        if self.is_set(open, b"brt\r\n", "TMODE").await? {
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!("the stick's firmware has no mode C; it hears mode T only");
            }
            return Ok("T");
        }
        Err("the stick's firmware has no wireless M-Bus; put a newer culfw on it".to_owned())
    }

    async fn is_set(&mut self, open: &mut Open, request: &[u8], answer: &str) -> Result<bool, String> {
        for _ in 0..TRIES {
            let said = self.request(open, request, |text| text.ends_with("MODE") || text == "OFF", &mut false).await?;
            if let Some(said) = said {
                return Ok(said == answer);
            }
        }
        Ok(false)
    }

    /// Asks once and returns the answer that `is_answer` knows; `spoke` becomes true when anything came.
    async fn request(
        &mut self,
        open: &mut Open,
        request: &[u8],
        is_answer: fn(&str) -> bool,
        spoke: &mut bool,
    ) -> Result<Option<String>, String> {
        let answer = ask(open, request, ANSWERED, |bytes| {
            *spoke |= !bytes.is_empty();
            self.push(bytes);
            let mut found = None;
            while let Some(piece) = self.decoder.next() {
                let text = match &piece {
                    Piece::Line(line) => text_of(line).filter(|text| is_answer(text)),
                    Piece::Skipped { .. } => None,
                };
                match text {
                    Some(text) => found = Some(text),
                    None => self.ready.push_back(item(piece)),
                }
            }
            found
        });
        answer.await
    }
}

fn is_version(text: &str) -> bool {
    text.starts_with("V ")
}

/// A line that is an answer: printable, and no longer than any is.
fn text_of(line: &[u8]) -> Option<String> {
    match decode(line) {
        Line::Text(text) if text.len() < 100 && text.iter().all(|c| (b' '..=b'~').contains(c)) => {
            Some(String::from_utf8_lossy(text).into_owned())
        }
        _ => None,
    }
}

fn item(piece: Piece) -> Item {
    match piece {
        Piece::Skipped { bytes } => Item::Skipped { bytes },
        Piece::Line(line) => match decode(&line) {
            Line::Telegram(item, _quality) => item,
            Line::Text(_) => Item::Noise,
        },
    }
}

impl Driver for Cul {
    fn start<'a>(&'a mut self, open: &'a mut Open) -> Starting<'a> {
        Box::pin(async move { self.begin(open).await.map(Some) })
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.waiting = !matches!(last, b'\r' | b'\n');
        }
        self.decoder.push(bytes);
    }

    fn patience(&self) -> Option<Duration> {
        self.waiting.then_some(PATIENCE)
    }

    fn silence(&mut self) {
        self.waiting = false;
        self.decoder.finish();
    }

    fn next(&mut self) -> Option<Item> {
        if let Some(ready) = self.ready.pop_front() {
            return Some(ready);
        }
        let piece = self.decoder.next()?;
        // Some firmware greets with its version when it starts.
        self.restarted |= matches!(&piece, Piece::Line(line) if text_of(line).is_some_and(|text| is_version(&text)));
        Some(item(piece))
    }

    fn restarted(&self) -> bool {
        self.restarted
    }

    fn forgets(&self) -> bool {
        true
    }
}
