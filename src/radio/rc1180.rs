//! Radiocrafts RC1180-MBUS and RC1180-MBUS3: its memory is read and changed where it differs, then it is heard.
//!
//! Invariants: the module hears nothing while it is in configuration, so that is left as soon as it can be, also
//! after an error; memory is written only where it differs, all at once, and the end of the writing is waited for.

use std::collections::VecDeque;
use std::time::Duration;

use super::dialogue::{ask, tell};
use super::driver::{Driver, Starting};
use super::source::Open;
use super::{RadioSettings, settings};
use crate::wire::radio_line::Item;
use crate::wire::rc1180::{Decoder, Memory, PROMPT, command};

/// The words of `mode`. The first module hears T and S only.
pub(super) const WORDS: &[&str] = &["C+T", "T", "C", "S"];

const TRIES: u32 = 3;
const ANSWERED: Duration = Duration::from_secs(1);
/// 256 bytes take 135 ms.
const LISTED: Duration = Duration::from_secs(2);
/// The module writes its flash memory meanwhile.
const WRITTEN: Duration = Duration::from_secs(3);
/// A module that took a command for the length of a packet forgets it after its time-out, two seconds from its maker.
const FORGOTTEN: Duration = Duration::from_millis(2500);
/// The rest of a telegram follows without a pause; this is far more than an adapter or a network makes of that.
const PATIENCE: Duration = Duration::from_millis(300);
/// No dialogue needs so much; a babbler must not fill the memory.
const MOST_HELD: usize = 64 * 1024;

/// A module.
pub(super) struct Rc1180 {
    mode: Option<&'static str>,
    decoder: Decoder,
    ready: VecDeque<Item>,
    /// Its memory does not keep what is written.
    forgetful: bool,
}

impl Rc1180 {
    pub(super) fn new(radio: &RadioSettings) -> Result<Self, String> {
        let mode = settings::told(radio, WORDS)?;
        Ok(Self { mode, decoder: Decoder::new(true), ready: VecDeque::new(), forgetful: false })
    }

    async fn begin(&mut self, open: &mut Open) -> Result<String, String> {
        let mut heard = Vec::new();
        let memory = match self.enter(open, &mut heard).await {
            Ok(memory) => memory,
            Err(reason) => {
                // Without its memory nobody knows where a telegram ends.
                self.ready.extend((!heard.is_empty()).then_some(Item::Skipped { bytes: heard.len() }));
                return Err(reason);
            }
        };
        let configured = self.configure(open, memory).await;
        tell(open, &[command::LEAVE]).await?;
        let (before, after) = configured?;
        // What came before it was asked is as its memory was then.
        self.decoder = Decoder::new(before.rssi());
        self.decoder.push(&heard);
        self.end_of_part();
        self.decoder = Decoder::new(after.rssi());
        let name = if after.is_first() { "RC1180-MBUS" } else { "RC1180-MBUS3" };
        Ok(format!("{name}, address {}", after.address()))
    }

    /// Brings the module into configuration and reads its memory; what it had heard before goes to `heard`.
    async fn enter(&mut self, open: &mut Open, heard: &mut Vec<u8>) -> Result<Memory, String> {
        let mut said_something = false;
        for attempt in 0..TRIES {
            if attempt > 0 {
                // The module may be in configuration already, where it has just listed its memory, or wait for the
                // packet that it took the command for.
                let mut said = Vec::new();
                ask(open, &[], FORGOTTEN, |bytes| {
                    said.extend_from_slice(bytes);
                    None::<()>
                })
                .await?;
                hold(heard, &mut said);
            }
            let mut said = Vec::new();
            // The prompt is the last byte: a telegram that is being told has that byte inside too.
            ask(open, &[command::ENTER], ANSWERED, |bytes| {
                said.extend_from_slice(bytes);
                (bytes.is_empty() && said.last() == Some(&PROMPT)).then_some(())
            })
            .await?;
            said_something |= !said.is_empty();
            if said.last() == Some(&PROMPT) {
                said.pop();
            }
            hold(heard, &mut said);
            let memory = ask(open, &[command::LIST], LISTED, |bytes| {
                said.extend_from_slice(bytes);
                Memory::listed(&said)
            });
            if let Some(memory) = memory.await? {
                return Ok(memory);
            }
            hold(heard, &mut said);
        }
        Err(if said_something || !heard.is_empty() {
            "something talks, but not as an RC1180 does; set receiver to what is plugged in, or baud to what it was set to".to_owned()
        } else {
            "nothing answers as an RC1180 does; check that device is that stick and that baud is 19200 or what it was set to"
                .to_owned()
        })
    }

    /// Writes what differs; the memory as it was, and as it is.
    async fn configure(&mut self, open: &mut Open, before: Memory) -> Result<(Memory, Memory), String> {
        let wanted = self.wanted(&before)?;
        let differing: Vec<_> = wanted.into_iter().filter(|&(address, value)| before.at(address) != value).collect();
        if differing.is_empty() || self.forgetful {
            return Ok((before.clone(), before));
        }
        tracing::info!(changes = differing.len(), "a receiver's memory is written");
        // In one piece, so that it never stops in the middle.
        let mut request = vec![command::WRITE];
        request.extend(differing.iter().flat_map(|&(address, value)| [address, value]));
        request.push(command::WRITTEN);
        let mut prompts = 0;
        // One prompt for the command, one when the memory is written.
        ask(open, &request, WRITTEN, |bytes| {
            prompts += bytes.iter().filter(|byte| **byte == PROMPT).count();
            (prompts >= 2).then_some(())
        })
        .await?;
        let mut said = Vec::new();
        let after = ask(open, &[command::LIST], LISTED, |bytes| {
            said.extend_from_slice(bytes);
            Memory::listed(&said)
        });
        let after = after
            .await?
            .ok_or("the module does not list its memory after it was written; unplug it and plug it in again")?;
        if differing.iter().any(|&(address, value)| after.at(address) != value) {
            self.forgetful = true;
            tracing::warn!("a receiver does not keep its memory; it is heard as it is");
        }
        Ok((before, after))
    }

    /// What the memory shall be, by address.
    fn wanted(&self, memory: &Memory) -> Result<Vec<(u8, u8)>, String> {
        let mut wanted = vec![(Memory::RSSI, 1), (Memory::INTERFACE, 0)];
        if !memory.is_first() {
            wanted.extend([(Memory::FILTER, 2), (Memory::DECRYPT, 0)]);
        }
        wanted.extend(match (memory.is_first(), self.mode) {
            (true, None | Some("T")) => vec![(Memory::CHANNEL, 0x0C), (Memory::RATE, 3), (Memory::MODE, 1)],
            (true, Some("S")) => vec![(Memory::CHANNEL, 0x0B), (Memory::RATE, 2), (Memory::MODE, 0)],
            (true, Some(word)) => {
                return Err(format!("this RC1180-MBUS hears modes T and S only, not {word}; write mode = \"T\""));
            }
            (false, None | Some("C+T")) => vec![(Memory::MODE, 10)],
            (false, Some("T")) => vec![(Memory::MODE, 1)],
            (false, Some("C")) => vec![(Memory::MODE, 9)],
            (false, Some(_)) => vec![(Memory::MODE, 3)],
        });
        Ok(wanted)
    }

    /// What is incomplete will not go on.
    fn end_of_part(&mut self) {
        self.decoder.silence();
        self.ready.extend(std::iter::from_fn(|| self.decoder.next()));
    }
}

/// Keeps what the module said, the oldest of a babbler left out.
fn hold(heard: &mut Vec<u8>, said: &mut Vec<u8>) {
    heard.append(said);
    heard.drain(..heard.len().saturating_sub(MOST_HELD));
}

impl Driver for Rc1180 {
    fn start<'a>(&'a mut self, open: &'a mut Open) -> Starting<'a> {
        Box::pin(async move { self.begin(open).await.map(Some) })
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
        self.ready.pop_front().or_else(|| self.decoder.next())
    }
}
