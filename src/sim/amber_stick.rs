//! An AMBER AMB8465-M or AMB3665 with its flash memory.

use std::collections::VecDeque;

use super::stick::{Radio, Stick};
use crate::wire::amber::{Form, Parameters, command, encode, encode_telegram};

/// The stick. What it hears before it was told a mode is heard in the mode of its memory.
#[derive(Debug, Clone)]
pub struct AmberStick {
    /// The parameters in its flash memory.
    pub flash: Vec<u8>,
    /// How often its flash memory was written.
    pub writes: u32,
    /// How often it was reset by a command.
    pub resets: u32,
    /// The mode that it listens in.
    pub mode: u8,
    /// Telegrams that it hears just before it answers each of the next commands.
    pub meanwhile: VecDeque<(Vec<u8>, u8)>,
    /// The next so many commands are not heard.
    pub deaf: u32,
    /// It acknowledges writing and writes nothing.
    pub worn: bool,
    /// How telegrams come: what was in flash memory when it started.
    form: Form,
    partial: Vec<u8>,
}

/// Answers begin with it.
const ANSWER: u8 = 0x80;
const SERIAL: [u8; 4] = [0x16, 0x00, 0x21, 0x3C];
const FIRMWARE: [u8; 3] = [2, 7, 1];

impl AmberStick {
    /// An AMB8465-M as its maker sends it: bare telegrams, no signal strength, mode S2.
    pub fn new() -> Self {
        Self::of(Parameters::OF_868)
    }

    /// An AMB3665.
    pub fn for_169() -> Self {
        Self::of(Parameters::OF_169)
    }

    fn of(parameters: usize) -> Self {
        let mut stick = Self {
            flash: vec![0; parameters],
            writes: 0,
            resets: 0,
            mode: 0,
            meanwhile: VecDeque::new(),
            deaf: 0,
            worn: false,
            form: Form { framed: false, rssi: false },
            partial: Vec::new(),
        };
        stick.set(Parameters::MODE, 0x03);
        stick.restart();
        stick
    }

    /// Changes a parameter as its maker's program would; it counts from the next start on.
    pub fn set(&mut self, address: u8, value: u8) {
        if let Some(byte) = self.flash.get_mut(usize::from(address)) {
            *byte = value;
        }
    }

    fn at(&self, address: u8) -> u8 {
        self.flash.get(usize::from(address)).copied().unwrap_or(0)
    }

    /// Carries a command out and returns the data of its answer.
    fn carry_out(&mut self, command: u8, data: &[u8]) -> Option<Vec<u8>> {
        match (command, data) {
            (command::GET, [from, count]) => {
                let start = usize::from(*from);
                let values: Vec<u8> = self.flash.iter().skip(start).take((*count).into()).copied().collect();
                let length = u8::try_from(values.len()).ok()?;
                Some([vec![*from, length], values].concat())
            }
            (command::SET, [from, count, values @ ..]) if usize::from(*count) == values.len() => {
                self.writes += 1;
                if !self.worn {
                    for (address, value) in (*from..).zip(values) {
                        self.set(address, *value);
                    }
                }
                Some(vec![0])
            }
            (command::MODE, [mode]) => {
                self.mode = *mode;
                Some(vec![0])
            }
            (command::SERIAL, []) => Some(SERIAL.to_vec()),
            (command::FIRMWARE, []) => Some(FIRMWARE.to_vec()),
            (command::RESET, []) => {
                self.resets += 1;
                Some(vec![0])
            }
            _ => None,
        }
    }
}

impl Default for AmberStick {
    fn default() -> Self {
        Self::new()
    }
}

impl Stick for AmberStick {
    fn baud(&self) -> u32 {
        9600
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        self.partial.extend_from_slice(bytes);
        loop {
            let start = self.partial.iter().position(|&byte| byte == 0xFF).unwrap_or(self.partial.len());
            self.partial.drain(..start);
            let Some(&[_, command, length]) = self.partial.first_chunk::<3>() else { return said };
            let length = usize::from(length) + 4;
            let Some(message) = self.partial.get(..length).map(<[u8]>::to_vec) else { return said };
            let sum = message.iter().fold(0, |sum, byte| sum ^ byte);
            self.partial.drain(..if sum == 0 { length } else { 1 });
            if sum != 0 {
                continue;
            }
            if self.deaf > 0 {
                self.deaf -= 1;
                continue;
            }
            if let Some((telegram, raw)) = self.meanwhile.pop_front() {
                said.extend(self.hears(&telegram, raw));
            }
            let data = message.get(3..length - 1).unwrap_or_default();
            if let Some(data) = self.carry_out(command, data) {
                encode(command | ANSWER, &data, &mut said);
            }
            if command == command::RESET {
                self.restart();
            }
        }
    }
}

impl Radio for AmberStick {
    type Strength = u8;

    fn hears(&mut self, telegram: &[u8], raw: u8) -> Vec<u8> {
        let mut said = Vec::new();
        encode_telegram(telegram, self.form, raw, &mut said);
        said
    }

    fn restart(&mut self) -> Vec<u8> {
        self.form = Form { framed: self.at(Parameters::FRAMED) != 0, rssi: self.at(Parameters::RSSI) != 0 };
        self.mode = self.at(Parameters::MODE);
        self.partial.clear();
        Vec::new()
    }
}
