//! IMST's iM871A-USB or iM170A as it talks over its line, with two sets of settings: in force, and in flash.

use std::collections::VecDeque;

use super::stick::{Radio, Stick};
use crate::wire::imst_hci::{
    Config, DEVICE, Decoder, Event, Field, Info, Message, RADIO, TELEGRAM, device, encode, raw_rssi,
};

/// A simulated module.
#[derive(Debug)]
pub struct Im871a {
    /// Who it is.
    pub info: Info,
    /// Its settings in force.
    pub config: Config,
    /// Its settings after a restart.
    pub flash: Config,
    /// Bits per second.
    pub baud: u32,
    /// Every request that it understood, byte for byte.
    pub told: Vec<Vec<u8>>,
    /// So many requests it does not hear.
    pub deaf: u32,
    /// What it says before each of its next answers, such as telegrams or noise.
    pub chatter: VecDeque<Vec<u8>>,
    /// Its clock, for time stamps.
    pub clock: u32,
    decoder: Decoder,
}

/// All sixteen settings as the maker sets them: it listens to meters in mode S2, without signal strength.
const FACTORY: [u8; 22] =
    [0xFF, 0, 2, 0x44, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x01, 0x37, 1, 0xFF, 7, 1, 0, 0, 0, 0, 1, 0];

impl Im871a {
    /// An iM871A (kind 0x33) or iM170A (0x36) as it comes from the maker.
    pub fn new(module: u8, firmware: u8, serial: u32) -> Self {
        let config = Config::read(&FACTORY).unwrap_or_default();
        Self {
            info: Info { module, mode: 0, firmware, hci: 0x17, serial },
            flash: config.clone(),
            config,
            baud: 57_600,
            told: Vec::new(),
            deaf: 0,
            chatter: VecDeque::new(),
            clock: 0,
            decoder: Decoder::new(),
        }
    }

    /// The identifiers of the requests so far.
    pub fn ids(&self) -> Vec<u8> {
        self.told.iter().filter_map(|bytes| bytes.get(2).copied()).collect()
    }

    fn answer(&mut self, request: &Message) -> Option<Vec<u8>> {
        let payload = match request.id {
            device::PING | device::RESET => Vec::new(),
            device::INFO => self.info.payload(),
            device::GET_CONFIG => self.config.payload(),
            device::SET_CONFIG => {
                let (store, settings) = request.payload.split_first()?;
                self.change(&Config::read(settings)?, *store != 0);
                Vec::new()
            }
            _ => return None,
        };
        if request.id == device::RESET {
            self.restart();
        }
        let id = request.id + 1;
        Some(written(&Message { endpoint: DEVICE, id, payload, checked: true, ..Message::default() }))
    }

    fn change(&mut self, order: &Config, store: bool) {
        // An iM871A before firmware 1.4 has no mode 0A, and none has higher ones.
        let highest = match (self.info.module, self.info.firmware) {
            (0x36, _) => 0x15,
            (_, 0x14..) => 0x0A,
            _ => 0x09,
        };
        if order.field(Field::LinkMode).is_some_and(|mode| mode > highest) {
            return;
        }
        self.config = self.config.clone().changed_by(order);
        self.info.mode = self.config.field(Field::DeviceMode).unwrap_or(0);
        if store {
            self.flash = self.config.clone();
        }
    }
}

impl Stick for Im871a {
    fn baud(&self) -> u32 {
        self.baud
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.decoder.push(bytes);
        let mut says = Vec::new();
        while let Some(event) = self.decoder.next() {
            let Event::Message(request) = event else { continue };
            if request.endpoint != DEVICE {
                continue;
            }
            if let Some(left) = self.deaf.checked_sub(1) {
                self.deaf = left;
                continue;
            }
            self.told.push(written(&request));
            says.extend(self.chatter.pop_front().unwrap_or_default());
            says.extend(self.answer(&request).unwrap_or_default());
        }
        says
    }
}

impl Radio for Im871a {
    type Strength = i16;

    /// What it says when it hears a telegram in the normal form.
    fn hears(&mut self, telegram: &[u8], dbm: i16) -> Vec<u8> {
        self.clock = self.clock.wrapping_add(1);
        let on = |field| self.config.field(field) == Some(1);
        written(&Message {
            endpoint: RADIO,
            id: TELEGRAM,
            payload: telegram.get(1..).unwrap_or_default().to_vec(),
            stamp: on(Field::Stamp).then_some(self.clock),
            rssi: on(Field::Rssi).then(|| raw_rssi(dbm)),
            checked: true,
        })
    }

    /// Loses power: what is not in flash is forgotten.
    fn restart(&mut self) -> Vec<u8> {
        self.config = self.flash.clone();
        self.clock = 0;
        self.decoder = Decoder::new();
        Vec::new()
    }
}

fn written(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Nothing here is longer than a message may be.
    let _ = encode(message, &mut bytes);
    bytes
}
