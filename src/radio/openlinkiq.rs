//! An OpenlinkIQ front end: its messages with what followed a sync word (docs/radio.md), or MBAL frames in hex lines.
//!
//! Which of the two comes is known from the bytes: both are checked by sums that noise does not have. Until the first
//! good message or telegram both readings run. A frame whose block is broken is mended on another thread.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::driver::{Lines, Starting, Work};
use super::source::Open;
use super::{Driver, RadioSettings};
use crate::wire::hex_line;
use crate::wire::openlinkiq_line::{Capture, Decoder, Event, Message, Time, encode};
use crate::wire::radio_line::Item;

/// The words of the setting `mode`; the first is the default.
pub(super) const MODES: &[&str] = &["auto", "lines", "frames"];

/// How long the rest of a message may take: the longest takes half a second at 115,200 bits a second.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a front end may take to say its name.
const ANSWER: Duration = Duration::from_secs(1);

/// What comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Lines,
    Frames,
}

struct FrontEnd {
    /// What the settings say.
    told: Form,
    form: Form,
    lines: Lines,
    frames: Decoder,
    /// What came without its end.
    partial: bool,
    /// A frame for another thread.
    hard: Option<Capture>,
    age: Duration,
    name: Option<String>,
}

/// Makes the driver.
///
/// # Errors
/// When there is no such mode.
pub(super) fn make(settings: &RadioSettings) -> Result<Box<dyn Driver>, String> {
    let told = match settings.mode.as_deref() {
        None | Some("auto") => Form::Unknown,
        Some("lines") => Form::Lines,
        Some("frames") => Form::Frames,
        Some(other) => return Err(format!("it has no mode \"{other}\"")),
    };
    Ok(Box::new(FrontEnd::new(told)))
}

impl FrontEnd {
    fn new(told: Form) -> Self {
        Self {
            told,
            form: told,
            lines: Lines::new(hex_line::decode_mbal),
            frames: Decoder::new(),
            partial: false,
            hard: None,
            age: Duration::ZERO,
            name: None,
        }
    }

    /// Asks for the name and waits a moment for it; who can't hear is heard all the same.
    async fn ask(&mut self, source: &mut Open) -> Result<(), String> {
        let mut question = Vec::new();
        let Some(line) = source.line() else { return Ok(()) };
        if encode(&Message::Name(String::new()), &mut question).is_err() {
            return Ok(());
        }
        let until = Instant::now() + ANSWER;
        let _ = timeout_at(until, line.write_all(&question)).await;
        let mut buffer = [0; 1024];
        // Telegrams that come meanwhile wait in the decoder; it must not be asked for more than it holds.
        let mut room = 16;
        while let Ok(read) = timeout_at(until, source.read(&mut buffer)).await {
            let count = read.map_err(|error| format!("reading failed: {error}"))?;
            let came = buffer.get(..count).unwrap_or_default();
            self.push(came);
            room -= 1;
            if count == 0 || room == 0 || came.windows(3).any(|three| three == [b'O', b'L', 0]) {
                break;
            }
        }
        Ok(())
    }

    /// Takes the next event of the messages; `None` when there is none that matters.
    fn event(&mut self) -> Option<Item> {
        while self.hard.is_none() {
            match self.frames.next()? {
                Event::Message(message) => {
                    self.form = Form::Frames;
                    match message {
                        // An empty one is the question, perhaps an echo of ours.
                        Message::Name(name) if name.is_empty() => {}
                        Message::Name(name) => self.name = Some(name.replace(char::is_control, ".")),
                        Message::Heard(capture) if capture.is_costly() => self.hard = Some(capture),
                        Message::Heard(capture) => {
                            self.age = age(&capture);
                            return Some(capture.item());
                        }
                    }
                }
                // As long as lines may come, what is no message is theirs.
                _ if self.form == Form::Unknown => {}
                Event::Damaged(fault) => return Some(Item::Damaged(fault)),
                Event::Skipped { bytes } => return Some(Item::Skipped { bytes }),
            }
        }
        None
    }
}

const fn age(capture: &Capture) -> Duration {
    match capture.time {
        Time::Ago(age) => age,
        Time::Unknown | Time::Utc(_) => Duration::ZERO,
    }
}

impl Driver for FrontEnd {
    fn start<'a>(&'a mut self, source: &'a mut Open) -> Starting<'a> {
        // Another front end may be there now.
        *self = Self::new(self.told);
        Box::pin(async move {
            if self.told == Form::Frames {
                self.ask(source).await?;
            }
            Ok(None)
        })
    }

    fn push(&mut self, bytes: &[u8]) {
        self.partial = true;
        if self.form != Form::Lines {
            self.frames.push(bytes);
        }
        if self.form != Form::Frames {
            self.lines.push(bytes);
        }
    }

    fn patience(&self) -> Option<Duration> {
        (self.partial && self.form != Form::Lines).then_some(PATIENCE)
    }

    fn silence(&mut self) {
        self.partial = false;
        self.frames.silence();
        if self.form != Form::Frames {
            self.lines.silence();
        }
    }

    fn next(&mut self) -> Option<Item> {
        self.age = Duration::ZERO;
        if self.form != Form::Lines
            && let Some(item) = self.event()
        {
            return Some(item);
        }
        if self.form == Form::Frames || self.hard.is_some() {
            return None;
        }
        let item = self.lines.next()?;
        if matches!(item, Item::Heard(_)) {
            self.form = Form::Lines;
        }
        Some(item)
    }

    fn work(&mut self) -> Option<Work> {
        let capture = self.hard.take()?;
        self.age = age(&capture);
        Some(Box::new(move || capture.item()))
    }

    fn age(&self) -> Duration {
        self.age
    }

    fn introduced(&mut self) -> Option<String> {
        self.name.take()
    }
}
