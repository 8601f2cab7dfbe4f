//! IMST's iU891A-XL, and the modules that speak as it does.
//!
//! weir asks who it is and what it is set to, and changes the settings in force only when they
//! differ; its default settings, which are in flash, stay as they are. A restart forgets the settings in
//! force; its clock, which starts anew, betrays it.

use std::collections::VecDeque;
use std::time::Duration;

use super::driver::{Driver, Starting};
use super::settings::told;
use super::source::Open;
use super::{RadioSettings, dialogue, stranger};
use crate::wire::iu891a::{Config, DEVICE, Decoder, Event, GATEWAY, Message, WAKE, device, encode, gateway};
use crate::wire::radio_line::Item;

/// The word in `receiver = "..."`.
pub(super) const NAME: &str = "iu891a";
/// Bits per second, fixed in the stick.
pub(super) const BAUD: u32 = 115_200;
/// What it can listen to.
pub(super) const MODES: &[&str] = &["C+T", "T", "C", "S"];

/// How often each question is asked.
const TRIES: u32 = 3;
/// How long each answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the rest of a message may take: even by way of a slow network.
const REST: Duration = Duration::from_secs(1);
/// A clock that goes back by less is only set right, in seconds.
const JITTER: u32 = 2;

fn code(mode: &str) -> u8 {
    match mode {
        "S" => 1,
        "T" => 2,
        "C" => 5,
        _ => 3,
    }
}

const fn kind(module: u8) -> Option<&'static str> {
    match module {
        0x6D => Some("iM891A-XL"),
        0x6E => Some("iU891A-XL"),
        0x71 => Some("iU893A-XL"),
        0xA3 => Some("iM881A-XL"),
        _ => None,
    }
}

/// What a status other than 0 means.
const fn refusal(status: u8) -> &'static str {
    match status {
        2 => "it does not know the command",
        3 => "a wrong parameter",
        4 => "not in its present mode",
        6 => "it is busy",
        7 => "a wrong length",
        10 => "not now",
        11 => "not allowed",
        _ => "an error",
    }
}

/// The driver.
pub(super) struct Iu891a {
    mode: &'static str,
    decoder: Decoder,
    ready: VecDeque<Item>,
    /// The stick's clock at the last telegram.
    clock: Option<u32>,
    /// It went back.
    restarted: bool,
    /// The log was told that it does not show its settings.
    told: bool,
}

impl Iu891a {
    /// Makes the driver of `settings`.
    pub(super) fn make(settings: &RadioSettings) -> Result<Box<dyn Driver>, String> {
        Ok(Box::new(Self {
            mode: told(settings, MODES)?.unwrap_or("C+T"),
            decoder: Decoder::new(),
            ready: VecDeque::new(),
            clock: None,
            restarted: false,
            told: false,
        }))
    }

    /// Takes bytes, or a silence; returns the body of the answer that is wanted when it is there.
    fn take(&mut self, bytes: &[u8], wanted: Option<(u8, u8)>) -> Option<Vec<u8>> {
        if bytes.is_empty() {
            self.decoder.silence();
        } else {
            self.decoder.push(bytes);
        }
        let mut answer = None;
        while let Some(event) = self.decoder.next() {
            match event {
                Event::Damaged(fault) => self.ready.push_back(Item::Damaged(fault)),
                Event::Skipped { bytes } => self.ready.push_back(Item::Skipped { bytes }),
                Event::Message(message) => {
                    if let Some((reported, _)) = message.reported() {
                        self.restarted |= self.clock.is_some_and(|last| reported.clock < last.saturating_sub(JITTER));
                        self.clock = Some(reported.clock);
                    }
                    match message.item() {
                        Some(item) => self.ready.push_back(item),
                        None if Some((message.service, message.id)) == wanted => answer = Some(message.body),
                        None => {}
                    }
                }
            }
        }
        answer
    }

    /// Asks until there is an answer: its status and the rest; `None` when there is none.
    async fn ask(&mut self, open: &mut Open, about: (u8, u8), body: &[u8]) -> Result<Option<(u8, Vec<u8>)>, String> {
        let (service, id) = about;
        let mut request = WAKE.to_vec();
        encode(&Message::new(service, id, body), &mut request).map_err(|fault| fault.to_string())?;
        for _ in 0..TRIES {
            let wanted = Some((service, id + 1));
            let answer = dialogue::ask(open, &request, PATIENCE, |bytes| self.take(bytes, wanted)).await?;
            if let Some((status, rest)) = answer.as_deref().and_then(<[u8]>::split_first) {
                return Ok(Some((*status, rest.to_vec())));
            }
        }
        Ok(None)
    }

    /// Asks for something that can't be done without; `what` the stick does not do then.
    async fn need(&mut self, open: &mut Open, about: (u8, u8), body: &[u8], what: &str) -> Result<Vec<u8>, String> {
        match self.ask(open, about, body).await? {
            Some((0, rest)) => Ok(rest),
            Some((status, _)) => {
                let why = refusal(status);
                Err(format!("the stick does not {what}, status {status} ({why}); update its firmware"))
            }
            None => Err(format!("the stick does not {what}; unplug it and plug it in again")),
        }
    }

    async fn config(&mut self, open: &mut Open) -> Result<Config, String> {
        let bytes = self.need(open, (GATEWAY, gateway::GET_CONFIG), &[], "tell its settings").await?;
        let short = || format!("the stick tells {} bytes of settings, not 11; update its firmware", bytes.len());
        Config::read(&bytes).ok_or_else(short)
    }

    async fn begin(&mut self, open: &mut Open) -> Result<Option<String>, String> {
        (self.clock, self.restarted) = (None, false);
        if self.ask(open, (DEVICE, device::PING), &[]).await?.is_none() {
            let baud = open.line().map_or(BAUD, |line| line.speed().baud);
            return Err(stranger::name(open, NAME, baud, !self.ready.is_empty()).await?);
        }
        let info = self.need(open, (DEVICE, device::INFO), &[], "tell who it is").await?;
        let Some((&[module, s0, s1, s2, s3], _)) = info.split_first_chunk() else {
            return Err("the stick does not tell its kind and serial number; update its firmware".to_owned());
        };
        let kind = kind(module).ok_or_else(|| {
            format!("a module of kind {module:02x} answers, which is no iU891A-XL (6e) or the like; it is not driven")
        })?;
        let mut who = kind.to_owned();
        // Only for people: a stick that does not tell is driven alike.
        if let Some((0, version)) = self.ask(open, (DEVICE, device::FIRMWARE), &[]).await?
            && let [minor, major, ..] = version[..]
        {
            who += &format!(", firmware {major}.{minor}");
        }
        who += &format!(", serial {:08x}, mode {}", u32::from_le_bytes([s0, s1, s2, s3]), self.mode);
        let before = self.config(open).await?;
        let wanted =
            Config { mode: code(self.mode), options: (before.options | Config::TELL) & !Config::FILTER, ..before };
        if before != wanted {
            let order = wanted.bytes();
            self.need(open, (GATEWAY, gateway::SET_CONFIG), &order, "take its settings").await?;
            if self.config(open).await? != wanted && !std::mem::replace(&mut self.told, true) {
                tracing::warn!(
                    mode = self.mode,
                    "receiver does not show the settings that it was given; update its firmware"
                );
            }
        }
        Ok(Some(who))
    }
}

impl Driver for Iu891a {
    fn start<'a>(&'a mut self, open: &'a mut Open) -> Starting<'a> {
        Box::pin(self.begin(open))
    }

    fn push(&mut self, bytes: &[u8]) {
        let _ = self.take(bytes, None);
    }

    fn patience(&self) -> Option<Duration> {
        self.decoder.is_incomplete().then_some(REST)
    }

    fn silence(&mut self) {
        let _ = self.take(&[], None);
    }

    fn next(&mut self) -> Option<Item> {
        self.ready.pop_front()
    }

    fn restarted(&self) -> bool {
        self.restarted
    }

    fn forgets(&self) -> bool {
        true
    }
}
