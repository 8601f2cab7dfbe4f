//! A Radiocrafts RC1180-MBUS or RC1180-MBUS3 with its configuration memory.

use super::stick::{Radio, Stick};
use crate::wire::rc1180::{Memory, PROMPT, command, encode};

/// The module.
#[derive(Debug, Clone)]
pub struct Rc1180Stick {
    /// Its configuration memory.
    pub memory: Memory,
    /// How often its flash memory was written.
    pub writes: u32,
    /// Telegrams that were on the air while it was in configuration, which it did not hear.
    pub missed: u32,
    /// A telegram that it hears just before it comes into configuration.
    pub last: Option<(Vec<u8>, u8)>,
    /// The next so many bytes are not heard.
    pub deaf: u32,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Listening,
    /// So many bytes of a packet that is to be sent are still to come.
    Packet(u8),
    Configuration,
    /// Address and value pairs so far, and an address whose value is still to come.
    Writing(Vec<(u8, u8)>, Option<u8>),
}

impl Rc1180Stick {
    /// The first module, in mode S and without signal strength, as its maker sends it.
    pub fn new() -> Self {
        let values = [0x0B, 5, 2, 0, 0, 0, 0x64];
        Self::with(&values, 0x80)
    }

    /// The third module, in mode T1 and without signal strength.
    pub fn third() -> Self {
        let values = [0x01, 5, 0, 1, 0, 0, 0x64];
        Self::with(&values, 0)
    }

    fn with(values: &[u8], longest: u8) -> Self {
        let mut memory = Memory::new([0xFF; Memory::LENGTH]);
        // The prompt is in it too.
        for address in 0..0x80 {
            memory.set(address, PROMPT);
        }
        for (address, value) in (0..).zip(values) {
            memory.set(address, *value);
        }
        let address = [0x0C, 0xAE, 0x12, 0x34, 0x56, 0x78, 0x01, 0x07];
        for (at, value) in (Memory::ADDRESS..).zip(address) {
            memory.set(at, value);
        }
        memory.set(Memory::LONGEST, longest);
        memory.set(Memory::BAUD, 5);
        memory.set(Memory::INTERFACE, 0);
        memory.set(Memory::FILTER, 2);
        memory.set(Memory::DECRYPT, 0);
        Self { memory, writes: 0, missed: 0, last: None, deaf: 0, state: State::Listening }
    }

    fn take_byte(&mut self, byte: u8, said: &mut Vec<u8>) {
        self.state = match std::mem::replace(&mut self.state, State::Configuration) {
            State::Listening if byte == command::ENTER => {
                if let Some((telegram, raw)) = self.last.take() {
                    encode(&telegram, self.memory.rssi().then_some(raw), said);
                }
                said.push(PROMPT);
                State::Configuration
            }
            State::Listening => State::Packet(byte),
            State::Packet(left) if left > 1 => State::Packet(left - 1),
            State::Packet(_) => State::Listening,
            State::Configuration => match byte {
                command::LIST => {
                    said.extend(self.memory.bytes());
                    said.push(PROMPT);
                    State::Configuration
                }
                command::WRITE => {
                    said.push(PROMPT);
                    State::Writing(Vec::new(), None)
                }
                command::LEAVE => State::Listening,
                _ => State::Configuration,
            },
            State::Writing(mut pairs, Some(address)) => {
                pairs.push((address, byte));
                State::Writing(pairs, None)
            }
            State::Writing(pairs, None) if byte == command::WRITTEN => {
                self.writes += 1;
                for (address, value) in pairs {
                    self.memory.set(address, value);
                }
                said.push(PROMPT);
                State::Configuration
            }
            State::Writing(pairs, None) => State::Writing(pairs, Some(byte)),
        };
    }
}

impl Default for Rc1180Stick {
    fn default() -> Self {
        Self::new()
    }
}

impl Stick for Rc1180Stick {
    fn baud(&self) -> u32 {
        19_200
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        for &byte in bytes {
            if self.deaf > 0 {
                self.deaf -= 1;
            } else {
                self.take_byte(byte, &mut said);
            }
        }
        said
    }
}

impl Radio for Rc1180Stick {
    type Strength = u8;

    fn hears(&mut self, telegram: &[u8], raw: u8) -> Vec<u8> {
        let mut said = Vec::new();
        if matches!(self.state, State::Listening | State::Packet(_)) {
            encode(telegram, self.memory.rssi().then_some(raw), &mut said);
        } else {
            self.missed += 1;
        }
        said
    }

    fn restart(&mut self) -> Vec<u8> {
        self.state = State::Listening;
        Vec::new()
    }
}
