//! How characters travel: bits per second, framing, and who turns an RS485 transceiver.

use std::fmt;
use std::time::Duration;

/// Parity of a serial character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parity {
    /// No parity bit.
    None,
    /// An even number of ones.
    Even,
    /// An odd number of ones.
    Odd,
}

/// How a character is framed, written `8N1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Framing {
    /// 7 or 8.
    pub data_bits: u8,
    /// The parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

impl Framing {
    /// Eight data bits, no parity, one stop bit.
    pub const EIGHT_N_ONE: Self = Self { data_bits: 8, parity: Parity::None, stop_bits: 1 };

    /// Reads `8N1`, `7E1`, `8N2` ...
    pub fn parse(text: &str) -> Option<Self> {
        let [data, parity, stop] = text.as_bytes() else { return None };
        Some(Self {
            data_bits: match data {
                b'7' => 7,
                b'8' => 8,
                _ => return None,
            },
            parity: match parity {
                b'N' | b'n' => Parity::None,
                b'E' | b'e' => Parity::Even,
                b'O' | b'o' => Parity::Odd,
                _ => return None,
            },
            stop_bits: match stop {
                b'1' => 1,
                b'2' => 2,
                _ => return None,
            },
        })
    }

    /// Bits on the wire for one character, start bit included.
    pub const fn bits_per_character(self) -> u32 {
        let parity = match self.parity {
            Parity::None => 0,
            Parity::Even | Parity::Odd => 1,
        };
        1 + self.data_bits as u32 + parity + self.stop_bits as u32
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        write!(f, "{}{parity}{}", self.data_bits, self.stop_bits)
    }
}

/// How the kernel's driver turns an RS485 transceiver with the RTS wire (`struct serial_rs485`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turnaround {
    /// The level of RTS while sending; it has the other level while receiving.
    pub high_on_send: bool,
    /// The wait between turning to sending and the first bit, in whole milliseconds.
    pub before: Duration,
    /// The wait between the last bit and turning to receiving, in whole milliseconds.
    pub after: Duration,
}

impl Turnaround {
    /// RTS is high while sending, and nothing waits.
    pub const PLAIN: Self = Self { high_on_send: true, before: Duration::ZERO, after: Duration::ZERO };
}

impl Default for Turnaround {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// Who turns an RS485 transceiver from receiving to sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The kernel, by TIOCSRS485.
    Kernel(Turnaround),
    /// Nobody: RS232, or a transceiver that does it itself.
    Automatic,
}

/// Speed and framing of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Speed {
    /// Bits per second.
    pub baud: u32,
    /// Character framing.
    pub framing: Framing,
}

impl Speed {
    /// How long `count` characters take on the wire.
    pub fn time_of(self, count: usize) -> Duration {
        let bits = u64::from(self.framing.bits_per_character()).saturating_mul(count as u64);
        Duration::from_micros(bits.saturating_mul(1_000_000) / u64::from(self.baud.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_reads_what_it_prints_and_counts_its_bits() {
        for (text, bits) in [("8N1", 10), ("7E1", 10), ("8E1", 11), ("8N2", 11), ("7O2", 11)] {
            let framing = Framing::parse(text).unwrap();
            assert_eq!((framing.to_string().as_str(), framing.bits_per_character()), (text, bits));
        }
        assert!(["", "8N", "9N1", "8X1", "8N3", "8N1 "].iter().all(|t| Framing::parse(t).is_none()));
    }

    #[test]
    fn a_character_takes_its_bits_at_the_baud_rate() {
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        assert_eq!(speed.time_of(96), Duration::from_millis(100));
    }
}
