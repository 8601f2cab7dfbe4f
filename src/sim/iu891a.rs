//! IMST's iU891A-XL as it talks over its line.

use std::collections::VecDeque;

use super::stick::{Radio, Stick};
use crate::wire::iu891a::{Config, DEVICE, Decoder, Event, GATEWAY, Message, Reported, WAKE, device, encode, gateway};

/// A simulated stick.
#[derive(Debug)]
pub struct Iu891a {
    /// 0x6E is an iU891A-XL.
    pub module: u8,
    /// Its serial number.
    pub serial: u32,
    /// Minor and major version; without, it does not know the question.
    pub firmware: Option<[u8; 2]>,
    /// Its settings in force.
    pub config: Config,
    /// Its settings after a restart.
    pub default: Config,
    /// Bits per second.
    pub baud: u32,
    /// Every request that it understood, byte for byte.
    pub told: Vec<Vec<u8>>,
    /// So many requests it does not hear.
    pub deaf: u32,
    /// What it says before each of its next answers, such as telegrams or noise.
    pub chatter: VecDeque<Vec<u8>>,
    /// The status of the answer to the next change of settings, instead of 0.
    pub refuses: Option<u8>,
    /// Its clock, in seconds since 1970.
    pub clock: u32,
    /// `C0` that came in a row: fewer than it needs to wake up, and it does not hear the request behind them.
    ends: usize,
    awake: bool,
    decoder: Decoder,
}

/// What its clock shows at its start: 2000-01-01.
const EPOCH: u32 = 946_684_800;
/// With fewer `C0` in a row it sleeps on.
const WAKES: usize = 20;

impl Iu891a {
    /// A stick as it comes from the maker: it listens to nothing.
    pub fn new(serial: u32) -> Self {
        let config = Config { mode: 0, options: Config::TELL | Config::FILTER, pins: 0, led: 50, recalibrate: 60_000 };
        Self {
            module: 0x6E,
            serial,
            firmware: Some([2, 1]),
            config,
            default: config,
            baud: 115_200,
            told: Vec::new(),
            deaf: 0,
            chatter: VecDeque::new(),
            refuses: None,
            clock: EPOCH,
            ends: 0,
            awake: false,
            decoder: Decoder::new(),
        }
    }

    /// Service and identifier of the requests so far.
    pub fn ids(&self) -> Vec<(u8, u8)> {
        let about = |bytes: &Vec<u8>| Some((*bytes.get(1)?, *bytes.get(2)?));
        self.told.iter().filter_map(about).collect()
    }

    fn answer(&mut self, request: &Message) -> Option<Vec<u8>> {
        let body = match (request.service, request.id) {
            (DEVICE, device::PING) => vec![0],
            (DEVICE, device::INFO) => [&[0, self.module][..], &self.serial.to_le_bytes(), &[0; 8]].concat(),
            (DEVICE, device::FIRMWARE) => match self.firmware {
                Some(version) => [&[0][..], &version, &[7, 0], b"01.02.2024", b"WMBus Gateway"].concat(),
                None => vec![2],
            },
            (GATEWAY, gateway::GET_CONFIG) => [vec![0], self.config.bytes()].concat(),
            (GATEWAY, gateway::SET_CONFIG) => {
                let status = self.refuses.take().unwrap_or(0);
                if status == 0 {
                    self.config = Config::read(&request.body)?;
                }
                vec![status]
            }
            _ => return None,
        };
        Some(written(&Message { service: request.service, id: request.id + 1, body }))
    }
}

impl Stick for Iu891a {
    fn baud(&self) -> u32 {
        self.baud
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            self.ends = if WAKE.contains(byte) { self.ends + 1 } else { 0 };
            self.awake |= self.ends >= WAKES;
            if self.awake {
                self.decoder.push(&[*byte]);
            }
        }
        let mut says = Vec::new();
        while let Some(event) = self.decoder.next() {
            let Event::Message(request) = event else { continue };
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

impl Radio for Iu891a {
    type Strength = i8;

    /// What it says when it hears a telegram in the normal form, ten seconds after the last one; nothing when it is
    /// off or may not tell.
    fn hears(&mut self, telegram: &[u8], dbm: i8) -> Vec<u8> {
        self.clock = self.clock.wrapping_add(10);
        if self.config.mode == 0 || self.config.options & Config::TELL == 0 {
            return Vec::new();
        }
        let mode = if self.config.mode == 3 { 2 } else { self.config.mode };
        written(&Message::telegram(Reported { clock: self.clock, status: [0, 0], mode, rssi: dbm }, telegram))
    }

    /// Loses power: the default settings are in force, and the clock starts anew.
    fn restart(&mut self) -> Vec<u8> {
        self.config = self.default;
        (self.clock, self.awake, self.ends) = (EPOCH, false, 0);
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
