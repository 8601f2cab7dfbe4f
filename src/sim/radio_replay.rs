//! A receiver that hears made-up meters: the lines of rtl_wmbus, or bare hex of wireless M-Bus or
//! MBAL, with the duplicates, damage and log text of a real one.
//!
//! Everything follows from the step's number, so two runs give the same telegrams; [`Tally`]
//! counts what a gateway should have forwarded.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::model::Timestamp;
use crate::os::pty::Pty;
use crate::wire::mbal::{self, Mbal};
use crate::wire::wmbus::{self, Control, Meter};

/// What the lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// rtl_wmbus: most telegrams twice, some with a bad CRC.
    RtlWmbus,
    /// Wireless M-Bus as `HEX;RSSI`.
    HexLines,
    /// MBAL frames as `HEX;RSSI;CORRECTEDBITS`, some prioritised, some with a damaged header.
    OpenlinkIq,
}

/// What a gateway should make of the lines sent so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Different sound telegrams: what must be forwarded.
    pub telegrams: u64,
    /// Those of them that are prioritised.
    pub priority: u64,
    /// Second copies, to be dropped.
    pub duplicates: u64,
    /// Damaged telegrams, to be dropped.
    pub damaged: u64,
    /// Lines of log text, to be dropped.
    pub noise: u64,
}

/// The lines of one step, and the telegram that should arrive because of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Text to send, with line ends.
    pub text: String,
    /// The telegram's bytes as they should be forwarded.
    pub telegram: Vec<u8>,
    /// Whether it is prioritised.
    pub priority: bool,
}

/// A simulated receiver.
#[derive(Debug)]
pub struct RadioReplay {
    lines: Lines,
    step: u32,
    tally: Tally,
}

/// Manufacturer, version, device type and first number of each meter.
const METERS: &[(&str, u8, u8, u32)] = &[
    ("KAM", 0x1B, 0x16, 0x7142_0001),
    ("KAW", 0x1B, 0x06, 0x6100_2210),
    ("KAM", 0x40, 0x04, 0x1372_8811),
    ("APA", 0x05, 0x07, 0x0046_1203),
    ("TCH", 0x95, 0x08, 0x3300_7719),
    ("EBZ", 0x02, 0x02, 0x0123_9876),
    ("HYD", 0x70, 0x07, 0x2124_589C),
];
/// One step in so many has the extra.
const PRIORITY_EVERY: u32 = 10;
const DAMAGED_EVERY: u32 = 7;
const NOISE_EVERY: u32 = 5;

impl RadioReplay {
    /// Starts with the first meter.
    pub const fn new(lines: Lines) -> Self {
        Self { lines, step: 0, tally: Tally { telegrams: 0, priority: 0, duplicates: 0, damaged: 0, noise: 0 } }
    }

    /// What was sent so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Makes the lines of the next telegram, received at `time`.
    pub fn next(&mut self, time: Timestamp) -> Step {
        self.step = self.step.wrapping_add(1);
        let mut text = String::new();
        if self.step.is_multiple_of(NOISE_EVERY) {
            let _ = writeln!(text, "receiver: exact sample rate is 1600000.{} Hz", self.step);
            self.tally.noise += 1;
        }
        let priority = self.lines == Lines::OpenlinkIq && self.step.is_multiple_of(PRIORITY_EVERY);
        let telegram = self.telegram(priority);
        self.tally.telegrams += 1;
        self.tally.priority += u64::from(priority);
        let damaged = self.step.is_multiple_of(DAMAGED_EVERY);
        self.tally.damaged += u64::from(damaged);
        self.print(&telegram, damaged, time, &mut text);
        Step { text, telegram, priority }
    }

    fn print(&mut self, telegram: &[u8], damaged: bool, time: Timestamp, text: &mut String) {
        let hex = HEXLOWER.encode(telegram);
        let strength = 60 + self.step % 40;
        // One digit of the header lost: the length or the header's CRC no longer fits.
        let cut = hex.get(1..).unwrap_or("");
        match self.lines {
            Lines::RtlWmbus => {
                let time = time.to_string().replace('T', " ").replace('Z', ".250000");
                let number = self.step;
                let line = |good: u8, out: &mut String| {
                    let _ = writeln!(out, "T1;{good};1;{time};{strength};{strength};{number:08X};0x{hex}");
                };
                if damaged {
                    line(0, text);
                }
                line(1, text);
                // Two demodulators run in the real program, and most telegrams come out of both.
                if !self.step.is_multiple_of(4) {
                    line(1, text);
                    self.tally.duplicates += 1;
                }
            }
            Lines::HexLines => {
                if damaged {
                    let _ = writeln!(text, "{cut};-{strength}");
                }
                let _ = writeln!(text, "{hex};-{strength}");
            }
            Lines::OpenlinkIq => {
                if damaged {
                    let _ = writeln!(text, "{cut};-{strength};0");
                }
                let _ = writeln!(text, "{hex};-{strength};{}", self.step % 6);
            }
        }
    }

    fn telegram(&self, priority: bool) -> Vec<u8> {
        let count = self.step as usize;
        let meter = METERS.iter().cycle().nth(count % METERS.len()).copied().unwrap_or(("KAM", 0, 7, 1));
        let (letters, version, device, id) = meter;
        let manufacturer = Meter::manufacturer_code(letters).unwrap_or(0);
        let meter = Meter { manufacturer, id, version, device };
        let body = self.body(priority);
        let mut bytes = Vec::new();
        // Neither can fail: the body is far shorter than a frame may be.
        let _ = match (self.lines, Control::known(0x44)) {
            (Lines::RtlWmbus | Lines::HexLines, Some(control)) => {
                wmbus::encode(&wmbus::Telegram { control, meter, payload: &body }, &mut bytes)
            }
            _ => mbal::encode(&Mbal { control: u8::from(priority), meter, command: 0x40, mbus: &body }, &mut bytes),
        };
        bytes
    }

    /// A short transport header in mode 0 and a few records (EN 13757-3): volume in litres,
    /// energy in kWh, flow temperature in tenths of a degree, error flags.
    fn body(&self, alarm: bool) -> Vec<u8> {
        let [access, ..] = self.step.to_le_bytes();
        let mut body = vec![0x7A, access, if alarm { 0x03 } else { 0x00 }, 0x00, 0x00];
        body.extend([0x0C, 0x13]);
        body.extend(bcd(100_000 + self.step * 3));
        body.extend([0x04, 0x06]);
        body.extend((5_000 + self.step).to_le_bytes());
        body.extend([0x02, 0x5A, 200u8.wrapping_add(access % 50), 0x01]);
        body.extend([0x02, 0xFD, 0x17, u8::from(alarm), 0x00]);
        body
    }

    /// Sends `count` telegrams over a connection, one each `pace`, stamped by `now`.
    ///
    /// # Errors
    /// The system's error, such as when the gateway closed the connection.
    pub async fn play(
        &mut self,
        out: &mut (impl AsyncWrite + Unpin),
        count: usize,
        pace: Duration,
        now: fn() -> Timestamp,
    ) -> io::Result<()> {
        for _ in 0..count {
            let step = self.next(now());
            out.write_all(step.text.as_bytes()).await?;
            tokio::time::sleep(pace).await;
        }
        out.flush().await
    }

    /// Sends `count` telegrams over a simulated serial line, one each `pace`.
    ///
    /// # Errors
    /// The system's error.
    pub async fn play_serial(
        &mut self,
        pty: &mut Pty,
        count: usize,
        pace: Duration,
        now: fn() -> Timestamp,
    ) -> io::Result<()> {
        for _ in 0..count {
            let step = self.next(now());
            pty.send(step.text.as_bytes()).await?;
            tokio::time::sleep(pace).await;
        }
        Ok(())
    }
}

/// Eight BCD digits, little endian.
fn bcd(number: u32) -> [u8; 4] {
    let digits = format!("{:08}", number % 100_000_000);
    u32::from_str_radix(&digits, 16).unwrap_or(0).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::radio_line::Item;
    use crate::wire::{hex_line, rtl_wmbus};

    #[test]
    fn what_the_tally_says_is_what_a_reader_of_the_lines_finds() {
        type Decode = fn(&[u8]) -> Vec<Item>;
        let forms: [(Lines, Decode); 3] = [
            (Lines::RtlWmbus, rtl_wmbus::decode),
            (Lines::HexLines, hex_line::decode_wmbus),
            (Lines::OpenlinkIq, hex_line::decode_mbal),
        ];
        for (lines, decode) in forms {
            let mut replay = RadioReplay::new(lines);
            let mut found = Tally::default();
            for _ in 0..200 {
                let step = replay.next(Timestamp::from_millis(1_800_000_000_000));
                let mut copies = 0;
                for item in step.text.lines().flat_map(|line| decode(line.as_bytes())) {
                    match item {
                        Item::Heard(heard) => {
                            assert_eq!(heard.bytes, step.telegram);
                            copies += 1;
                        }
                        Item::Damaged(_) => found.damaged += 1,
                        Item::Noise | Item::Skipped { .. } => found.noise += 1,
                    }
                }
                found.telegrams += 1;
                found.duplicates += copies - 1;
                found.priority += u64::from(step.priority);
            }
            assert_eq!(found, replay.tally());
            assert!(found.noise > 0 && found.damaged > 0, "{found:?}");
            assert_eq!(found.priority > 0, lines == Lines::OpenlinkIq);
        }
    }

    #[test]
    fn no_two_telegrams_are_alike() {
        let mut replay = RadioReplay::new(Lines::RtlWmbus);
        let telegrams: std::collections::BTreeSet<_> =
            (0..1000).map(|_| replay.next(Timestamp::default()).telegram).collect();
        assert_eq!(telegrams.len(), 1000);
    }
}
