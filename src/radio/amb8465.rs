//! AMBER AMB8465-M, AMB8665, AMB3665 and Wuerth Metis: asked who they are, told what differs, then heard.
//!
//! Invariants: flash memory is written only where it differs, and followed by one reset; a stick whose memory does not
//! keep what is written is heard as it is, never written again. How a telegram ends stands in the parameters only, so what comes
//! before they are known is kept and read afterwards.

use std::collections::VecDeque;
use std::time::Duration;

use super::dialogue::{ask, set_baud};
use super::driver::{Driver, Starting};
use super::source::Open;
use super::{RadioSettings, settings};
use crate::wire::amber::{Decoder, Event, Form, Parameters, command, encode, find_answer};
use crate::wire::radio_line::Item;

/// What it can listen to: the setting's word and the stick's number.
const MODES: [(&str, u8); 4] = [("C+T", 0x09), ("T", 0x08), ("C", 0x0E), ("S", 0x03)];
/// The words of `mode`; N is what the sticks for 169 MHz hear.
pub(super) const WORDS: &[&str] = &["C+T", "T", "C", "S", "N"];

/// The answer may wait behind a telegram of 265 ms, and a stick that starts takes a moment.
const ANSWERED: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// The rest of a telegram follows without a pause; this is far more than an adapter or a network makes of that.
const PATIENCE: Duration = Duration::from_millis(300);
/// The speeds that a stick may have been set to.
const SPEEDS: [u32; 5] = [9600, 19_200, 38_400, 57_600, 115_200];
/// No dialogue needs so much; a babbler must not fill the memory.
const MOST_HELD: usize = 64 * 1024;

/// A stick.
pub(super) struct Amb8465 {
    /// The mode that the settings name.
    mode: Option<&'static str>,
    decoder: Decoder,
    ready: VecDeque<Item>,
    /// What was said in the dialogue so far.
    held: Vec<u8>,
    /// Its memory does not keep what is written.
    forgetful: bool,
}

impl Amb8465 {
    pub(super) fn new(radio: &RadioSettings) -> Result<Self, String> {
        let decoder = Decoder::new(Form { framed: true, rssi: true });
        let mode = settings::told(radio, WORDS)?;
        Ok(Self { mode, decoder, ready: VecDeque::new(), held: Vec::new(), forgetful: false })
    }

    async fn begin(&mut self, open: &mut Open) -> Result<String, String> {
        let Some(mut parameters) = self.parameters(open).await? else {
            return Err(self.no_answer(open).await?);
        };
        let mode = self.mode_of(&parameters)?;
        let serial = self.request(open, command::SERIAL, &[], 2).await?;
        let firmware = self.request(open, command::FIRMWARE, &[], 1).await?;
        let wanted = wanted(mode);
        if !self.forgetful && differs(&parameters, &wanted) {
            parameters = self.configure(open, parameters, &wanted).await?;
        }
        self.replay(parameters.form());
        if let Some(mode) = mode {
            match self.set_mode(open, mode).await? {
                Some(()) => {}
                None if parameters.at(Parameters::MODE) == mode => {}
                None => return Err("the stick does not take its mode; unplug it and plug it in again".to_owned()),
            }
            self.replay(parameters.form());
        }
        Ok(described(&parameters, serial.as_deref(), firmware.as_deref()))
    }

    async fn parameters(&mut self, open: &mut Open) -> Result<Option<Parameters>, String> {
        for _ in 0..TRIES {
            let read = self.request(open, command::GET, &[0, 0x80], 1).await?;
            if let Some(parameters) = read.as_deref().and_then(Parameters::of) {
                return Ok(Some(parameters));
            }
        }
        Ok(None)
    }

    /// Writes what differs, resets the stick once, and returns what its parameters are then.
    async fn configure(
        &mut self,
        open: &mut Open,
        before: Parameters,
        wanted: &[(u8, u8)],
    ) -> Result<Parameters, String> {
        for &(address, value) in wanted.iter().filter(|(address, value)| before.at(*address) != *value) {
            tracing::info!(address, value, was = before.at(address), "a receiver's parameter is written");
            // Whether it was is seen afterwards; a second write would only wear the memory.
            self.request(open, command::SET, &[address, 1, value], 1).await?;
        }
        // Parameters count from the reset on; what came before is read as they were.
        self.request(open, command::RESET, &[], 1).await?;
        self.replay(before.form());
        self.end_of_part();
        let after = self.parameters(open).await?;
        let after = after.ok_or("the stick does not come back from its reset; unplug it and plug it in again")?;
        if differs(&after, wanted) {
            self.forgetful = true;
            tracing::warn!("a receiver does not keep its parameters; it is heard as it is");
        }
        Ok(after)
    }

    async fn set_mode(&mut self, open: &mut Open, mode: u8) -> Result<Option<()>, String> {
        let answer = self.request(open, command::MODE, &[mode], TRIES).await?;
        Ok(answer.filter(|status| status.first() == Some(&0)).map(|_| ()))
    }

    /// Asks until the stick answers, so many times; keeps everything it says.
    async fn request(
        &mut self,
        open: &mut Open,
        command: u8,
        data: &[u8],
        tries: u32,
    ) -> Result<Option<Vec<u8>>, String> {
        let mut request = Vec::new();
        encode(command, data, &mut request);
        for _ in 0..tries {
            let mut said = Vec::new();
            let answer = ask(open, &request, ANSWERED, |bytes| {
                said.extend_from_slice(bytes);
                find_answer(&said, command).map(<[u8]>::to_vec)
            });
            let answer = answer.await;
            self.hold(&said);
            if let Some(answer) = answer? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn hold(&mut self, said: &[u8]) {
        self.held.extend_from_slice(said);
        let surplus = self.held.len().saturating_sub(MOST_HELD);
        if surplus > 0 {
            self.held.drain(..surplus);
            self.ready.push_back(Item::Skipped { bytes: surplus });
        }
    }

    /// Reads what was said in the dialogue, now that its form is known.
    fn replay(&mut self, form: Form) {
        self.decoder.set_form(form);
        self.decoder.push(&std::mem::take(&mut self.held));
        self.take_all();
    }

    /// What is incomplete will not go on.
    fn end_of_part(&mut self) {
        self.decoder.silence();
        self.take_all();
    }

    fn take_all(&mut self) {
        while let Some(event) = self.decoder.next() {
            if let Event::Heard(item) = event {
                self.ready.push_back(item);
            }
        }
    }

    /// The number of the mode that this stick shall have; none for those of 169 MHz, which have but one.
    fn mode_of(&self, parameters: &Parameters) -> Result<Option<u8>, String> {
        match (self.mode, parameters.is_169()) {
            (None | Some("N"), true) => Ok(None),
            (Some(word), true) => {
                Err(format!("this is an AMB3665 for 169 MHz, which hears no mode {word}; write mode = \"N\""))
            }
            (Some("N"), false) => Err("this stick is for 868 MHz and hears no mode N; write mode = \"C+T\"".to_owned()),
            (word, false) => {
                let word = word.unwrap_or("C+T");
                Ok(MODES.iter().find(|(known, _)| *known == word).map(|(_, number)| *number))
            }
        }
    }

    /// Says what to do when nothing answers: looks whether the stick has another speed.
    async fn no_answer(&mut self, open: &mut Open) -> Result<String, String> {
        let usual = open.line().map(|line| line.speed().baud);
        for baud in SPEEDS.into_iter().filter(|baud| Some(*baud) != usual) {
            if set_baud(open, baud) && self.request(open, command::GET, &[0, 0x80], 1).await?.is_some() {
                return Ok(format!("the stick is set to {baud} baud; write baud = {baud}"));
            }
        }
        Ok(if self.held.is_empty() {
            "nothing answers as an AMBER or Metis stick does; check that device is that stick".to_owned()
        } else {
            "something talks, but not as an AMBER or Metis stick does; set receiver to what is plugged in".to_owned()
        })
    }
}

/// What the parameters shall be, by address: those of [`Parameters`].
fn wanted(mode: Option<u8>) -> Vec<(u8, u8)> {
    let mut wanted = vec![(Parameters::FRAMED, 1), (Parameters::RSSI, 1)];
    if let Some(mode) = mode {
        // The mode is kept too, so that a stick that starts again by itself listens as before.
        wanted.extend([(Parameters::AES, 0), (Parameters::MODE, mode)]);
    }
    wanted
}

fn differs(parameters: &Parameters, wanted: &[(u8, u8)]) -> bool {
    wanted.iter().any(|&(address, value)| parameters.at(address) != value)
}

fn described(parameters: &Parameters, serial: Option<&[u8]>, firmware: Option<&[u8]>) -> String {
    let mut text = if parameters.is_169() { "AMB3665" } else { "AMB8465-M, AMB8665 or Metis" }.to_owned();
    if let Some(serial) = serial {
        text += &format!(", serial {}", data_encoding::HEXLOWER.encode(serial));
    }
    if let Some(firmware) = firmware {
        let numbers: Vec<_> = firmware.iter().map(u8::to_string).collect();
        text += &format!(", firmware {}", numbers.join("."));
    }
    text
}

impl Driver for Amb8465 {
    fn start<'a>(&'a mut self, open: &'a mut Open) -> Starting<'a> {
        Box::pin(async move {
            self.held.clear();
            self.end_of_part();
            let found = self.begin(open).await;
            let unread = std::mem::take(&mut self.held).len();
            if unread > 0 {
                // Without its parameters nobody knows where a telegram ends.
                self.ready.push_back(Item::Skipped { bytes: unread });
            }
            found.map(Some)
        })
    }

    fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    fn patience(&self) -> Option<Duration> {
        self.decoder.is_waiting().then_some(PATIENCE)
    }

    fn silence(&mut self) {
        self.decoder.silence();
    }

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if let Event::Heard(item) = self.decoder.next()? {
                return Some(item);
            }
        }
    }
}
