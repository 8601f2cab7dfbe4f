//! IMST's iM871A-USB (868 MHz) and iM170A (169 MHz).
//!
//! weir asks who it is and what it is set to, and changes link mode and signal strength only when
//! they differ, in its memory and never in its flash. A restart of the module forgets that; telegrams
//! without signal strength betray it.

use std::collections::VecDeque;
use std::time::Duration;

use super::driver::{Driver, Starting};
use super::settings::told;
use super::source::Open;
use super::{RadioSettings, dialogue, stranger};
use crate::wire::imst_hci::{Config, DEVICE, Decoder, Event, Field, Info, Message, device, encode};
use crate::wire::radio_line::Item;

/// The word in `receiver = "..."`.
pub(super) const NAME: &str = "im871a";
/// Bits per second, fixed in the module.
pub(super) const BAUD: u32 = 57_600;
/// What it can listen to: the first six an iM871A, the rest an iM170A.
pub(super) const MODES: &[&str] = &[
    "C+T", "T", "C", "S", "S1m", "R2", "N1a", "N1b", "N1c", "N1d", "N1e", "N1f", "N2a", "N2b", "N2c", "N2d", "N2e",
    "N2f",
];

/// How often each question is asked.
const TRIES: u32 = 3;
/// How long each answer may take; the module needs a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the rest of a message may take: even by way of a slow network.
const REST: Duration = Duration::from_secs(1);
/// The first firmware that listens to C and T at once.
const BOTH_SINCE: u8 = 0x14;
const BOTH: &str = "C+T";

/// A module that speaks this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    Im871a,
    Im170a,
}

impl Module {
    const fn of(info: &Info) -> Option<Self> {
        match info.module {
            0x33 => Some(Self::Im871a),
            0x36 => Some(Self::Im170a),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Im871a => "iM871A",
            Self::Im170a => "iM170A",
        }
    }

    /// Its number for a mode; `None` when it can't listen to that.
    fn code(self, mode: &str) -> Option<u8> {
        Some(match (self, mode) {
            (Self::Im871a, "S") => 0x00,
            (Self::Im871a, "S1m") => 0x01,
            (Self::Im871a, "T") => 0x03,
            (Self::Im871a, "R2") => 0x05,
            (Self::Im871a, "C") => 0x06,
            (Self::Im871a, BOTH) => 0x0A,
            (Self::Im170a, "N1a") => 0x0A,
            (Self::Im170a, "N2a") => 0x0B,
            (Self::Im170a, "N1b") => 0x0C,
            (Self::Im170a, "N2b") => 0x0D,
            (Self::Im170a, "N1c") => 0x0E,
            (Self::Im170a, "N2c") => 0x0F,
            (Self::Im170a, "N1d") => 0x10,
            (Self::Im170a, "N2d") => 0x11,
            (Self::Im170a, "N1e") => 0x12,
            (Self::Im170a, "N2e") => 0x13,
            (Self::Im170a, "N1f") => 0x14,
            (Self::Im170a, "N2f") => 0x15,
            _ => return None,
        })
    }

    /// What it listens to when the settings say nothing.
    const fn usual(self, firmware: u8) -> &'static str {
        match self {
            Self::Im871a if firmware >= BOTH_SINCE => BOTH,
            Self::Im871a => "T",
            Self::Im170a => "N1a",
        }
    }
}

/// The driver.
pub(super) struct Im871a {
    mode: Option<&'static str>,
    decoder: Decoder,
    ready: VecDeque<Item>,
    /// Telegrams should have their signal strength now.
    expects_strength: bool,
    /// One came without.
    restarted: bool,
    /// The log was told that it does not show its settings.
    told: bool,
}

impl Im871a {
    /// Makes the driver of `settings`.
    pub(super) fn make(settings: &RadioSettings) -> Result<Box<dyn Driver>, String> {
        Ok(Box::new(Self {
            mode: told(settings, MODES)?,
            decoder: Decoder::new(),
            ready: VecDeque::new(),
            expects_strength: false,
            restarted: false,
            told: false,
        }))
    }

    /// Takes bytes, or a silence; returns the answer `id` when it is there.
    fn take(&mut self, bytes: &[u8], id: Option<u8>) -> Option<Vec<u8>> {
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
                Event::Message(message) => match message.item() {
                    Some(item) => {
                        if message.rssi.is_none() && std::mem::take(&mut self.expects_strength) {
                            self.restarted = true;
                        }
                        self.ready.push_back(item);
                    }
                    None if message.endpoint == DEVICE && Some(message.id) == id => answer = Some(message.payload),
                    None => {}
                },
            }
        }
        answer
    }

    /// Asks until there is an answer; `None` when there is none.
    async fn ask(&mut self, open: &mut Open, id: u8, payload: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let mut request = Vec::new();
        encode(&Message::request(id, payload), &mut request).map_err(|fault| fault.to_string())?;
        for _ in 0..TRIES {
            let answer = dialogue::ask(open, &request, PATIENCE, |bytes| self.take(bytes, Some(id + 1))).await?;
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    async fn config(&mut self, open: &mut Open) -> Result<Config, String> {
        let answer = self.ask(open, device::GET_CONFIG, &[]).await?;
        let read = answer.and_then(|payload| Config::read(&payload));
        read.ok_or_else(|| "the module does not tell its settings; unplug it and plug it in again".to_owned())
    }

    async fn begin(&mut self, open: &mut Open) -> Result<Option<String>, String> {
        self.expects_strength = false;
        let suspected = std::mem::take(&mut self.restarted);
        if self.ask(open, device::PING, &[]).await?.is_none() {
            let baud = open.line().map_or(BAUD, |line| line.speed().baud);
            return Err(stranger::name(open, NAME, baud, !self.ready.is_empty()).await?);
        }
        let answer = self.ask(open, device::INFO, &[]).await?;
        let info = answer
            .and_then(|payload| Info::read(&payload))
            .ok_or("the module answers, but does not tell who it is; unplug it and plug it in again")?;
        let (module, mode, code) = choose(&info, self.mode)?;
        let before = self.config(open).await?;
        let order = order(&before, code);
        if let Some(order) = &order {
            // The first byte: not to the flash.
            let payload = [&[0][..], &order.payload()].concat();
            if self.ask(open, device::SET_CONFIG, &payload).await?.is_none() {
                return Err("the module does not take its settings; unplug it and plug it in again".to_owned());
            }
            let after = self.config(open).await?;
            let taken = after.field(Field::LinkMode) == Some(code) && after.field(Field::Rssi) == Some(1);
            if !taken && !std::mem::replace(&mut self.told, true) {
                tracing::warn!(mode, "receiver does not show the settings that it was given; update its firmware");
            }
            self.expects_strength = after.field(Field::Rssi) == Some(1);
        } else {
            // When nothing was forgotten, this module leaves the strength out for other reasons.
            self.expects_strength = !suspected;
        }
        let digits = format!("{}.{:x}", info.firmware >> 4, info.firmware & 0x0F);
        Ok(Some(format!("{}, firmware {digits}, serial {:08x}, mode {mode}", module.name(), info.serial)))
    }
}

/// Decides what the module shall listen to.
fn choose(info: &Info, wanted: Option<&'static str>) -> Result<(Module, &'static str, u8), String> {
    let module = Module::of(info).ok_or_else(|| {
        format!(
            "a module of kind {:02x} answers, which is neither iM871A (33) nor iM170A (36); it is not driven",
            info.module
        )
    })?;
    let mode = wanted.unwrap_or_else(|| module.usual(info.firmware));
    let code = module.code(mode).ok_or_else(|| {
        let can: Vec<_> = MODES.iter().filter(|mode| module.code(mode).is_some()).copied().collect();
        format!("an {} can't listen to mode \"{mode}\"; set mode to one of {}", module.name(), can.join(", "))
    })?;
    if mode == BOTH && info.firmware < BOTH_SINCE {
        return Err(format!(
            "firmware {}.{:x} of the iM871A can't listen to C and T at once; set mode = \"T\" or \"C\", or update it to 1.4",
            info.firmware >> 4,
            info.firmware & 0x0F
        ));
    }
    Ok((module, mode, code))
}

/// What must be changed; `None` when nothing must. A time stamp does no harm, but the order that others are known to
/// give this module switches it off with the signal strength on.
fn order(config: &Config, code: u8) -> Option<Config> {
    let is = |field, value| config.field(field) == Some(value);
    let may = |field, value| config.field(field).is_none_or(|is| is == value);
    if is(Field::LinkMode, code) && is(Field::Rssi, 1) && may(Field::DeviceMode, 0) && may(Field::PowerSaving, 0) {
        return None;
    }
    let mut order = Config::default().with(Field::LinkMode, code).with(Field::Rssi, 1).with(Field::Stamp, 0);
    for field in [Field::DeviceMode, Field::PowerSaving] {
        if !may(field, 0) {
            order = order.with(field, 0);
        }
    }
    Some(order)
}

impl Driver for Im871a {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_belongs_to_one_module_and_has_a_number_of_its_own() {
        for mode in MODES {
            let numbers = [Module::Im871a, Module::Im170a].map(|module| module.code(mode));
            assert_eq!(numbers.iter().flatten().count(), 1, "{mode}");
        }
        for module in [Module::Im871a, Module::Im170a] {
            let numbers: Vec<_> = MODES.iter().filter_map(|mode| module.code(mode)).collect();
            let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
            assert_eq!(distinct.len(), numbers.len());
            assert!([0x13, 0x14].iter().all(|firmware| module.code(module.usual(*firmware)).is_some()));
        }
    }

    #[test]
    fn only_what_differs_is_changed_and_meters_modes_are_left() {
        let factory = Config::default().with(Field::DeviceMode, 0).with(Field::LinkMode, 3).with(Field::Rssi, 0);
        let bytes = |config: Option<Config>| config.map(|config| config.payload());
        assert_eq!(bytes(order(&factory, 0x0A)), Some(vec![0x02, 0x0A, 0x30, 1, 0]));
        let listening = factory.clone().with(Field::LinkMode, 0x0A).with(Field::Rssi, 1).with(Field::Stamp, 1);
        assert_eq!(order(&listening, 0x0A), None);
        assert!(order(&listening, 3).is_some());
        let meter = listening.clone().with(Field::DeviceMode, 1).with(Field::PowerSaving, 1);
        assert_eq!(bytes(order(&meter, 0x0A)), Some(vec![0x03, 0, 0x0A, 0x38, 0, 1, 0]));
    }

    #[test]
    fn what_a_module_cannot_do_is_said_in_a_sentence() {
        let info = |module, firmware| Info { module, mode: 0, firmware, hci: 0x16, serial: 1 };
        let fault = |module, firmware, mode| choose(&info(module, firmware), mode).unwrap_err();
        assert!(fault(0x33, 0x14, Some("N1a")).contains("one of C+T, T, C, S, S1m, R2"));
        assert!(fault(0x36, 0x14, Some("T")).contains("one of N1a"));
        assert!(fault(0x33, 0x13, Some("C+T")).contains("firmware 1.3"));
        assert!(fault(0x10, 0x14, None).contains("kind 10"));
        assert_eq!(choose(&info(0x33, 0x13), None).unwrap().1, "T");
        assert_eq!(choose(&info(0x36, 0x13), None).unwrap(), (Module::Im170a, "N1a", 0x0A));
    }
}
