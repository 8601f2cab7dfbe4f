//! IEC 62056-21 (formerly IEC 61107): the readable messages of a meter's local port.
//!
//! Characters have seven data bits and even parity; the line carries them as eight bits without
//! parity and this room does the parity ([`Parity`]), because that also works over serial servers
//! and pseudo-terminals. Both directions are spoken here, so a reader recognises the echo of its
//! own words and a simulator uses the same code. Start with [`Message`], [`Decoder`] and [`data`];
//! [`profile`] reads the load profiles and event logs of programming mode.

pub mod data;
mod decoder;
pub mod profile;

pub use decoder::{BLOCK_LIMIT, Damage, Decoder, Event, LINE_LIMIT};

const SOH: u8 = 0x01;
pub(crate) const STX: u8 = 0x02;
pub(crate) const ETX: u8 = 0x03;
const EOT: u8 = 0x04;
const ACK: u8 = 0x06;
const LF: u8 = 0x0A;
const CR: u8 = 0x0D;
const NAK: u8 = 0x15;
const SEVEN_BITS: u8 = 0x7F;

/// Bits per second of every sign-on (clause 6.3.1).
pub const SIGN_ON_BAUD: u32 = 300;

/// One message of the protocol (clause 6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `/?address!`: the host asks a meter to identify itself; an empty address asks any.
    Request {
        /// Up to 32 characters.
        address: String,
    },
    /// `/XXXZident`: the meter's answer.
    Identification(Identification),
    /// `ACK V Z Y`: the host chooses protocol, rate and mode.
    OptionSelect(OptionSelect),
    /// A bare ACK.
    Acknowledge,
    /// NAK: the host asks for the block again.
    Repeat,
    /// What stood between STX and ETX, seven bits each; the block check was right.
    Block(Vec<u8>),
    /// What stood between STX and EOT: more blocks follow once it is acknowledged (clause 6.3.13).
    Part(Vec<u8>),
    /// A command of programming mode, or the meter's `P0`.
    Command(Command),
}

/// A command message: `SOH C D STX data ETX` (clause 6.3.12, 6.4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// C: `P` password, `W` write, `R` read, `E` execute, `B` break.
    pub letter: char,
    /// D: which variant, a digit.
    pub number: char,
    /// What stood after STX; `None` for a command without data, such as the break.
    pub data: Option<Vec<u8>>,
    /// It ended with EOT: more of its data follow once it is acknowledged.
    pub more: bool,
}

impl Command {
    /// The break `B0` that ends a session.
    pub const BREAK: Self = Self { letter: 'B', number: '0', data: None, more: false };

    /// Makes a command with data.
    pub fn new(letter: char, number: char, data: impl Into<Vec<u8>>) -> Self {
        Self { letter, number, data: Some(data.into()), more: false }
    }
}

/// Who a meter says it is (clause 6.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// The three letters of the FLAG association.
    pub manufacturer: String,
    /// The character that tells the protocol mode and the rate.
    pub baud: char,
    /// The characters W of the sequences `\W`; `2` announces mode E.
    pub enhanced: Vec<char>,
    /// The meter's own text.
    pub model: String,
}

/// The host's choice (clause 6.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSelect {
    /// V: `0` is the normal protocol.
    pub protocol: char,
    /// Z: the rate, as in the identification; `0` stays at 300 Bd.
    pub baud: char,
    /// Y: `0` is the data readout, `1` programming mode.
    pub mode: char,
}

/// The protocol mode and rate that an identification announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Data at 300 Bd without acknowledgement.
    A,
    /// Data at this many bits per second without acknowledgement.
    B(u32),
    /// Data at this many bits per second after the host's acknowledgement; also mode E meters.
    C(u32),
    /// A character that the standard keeps for later (7-9, G-I).
    Reserved,
}

impl Identification {
    /// The protocol mode that the baud character stands for (clause 6.3.14).
    pub fn mode(&self) -> Mode {
        match self.baud {
            z @ '0'..='6' => Mode::C(SIGN_ON_BAUD << (u32::from(z) - u32::from('0'))),
            z @ 'A'..='F' => Mode::B((2 * SIGN_ON_BAUD) << (u32::from(z) - u32::from('A'))),
            '7'..='9' | 'G'..='I' => Mode::Reserved,
            _ => Mode::A,
        }
    }

    /// Tells whether the meter may answer after 20 ms instead of 200 ms: its third letter is lower case.
    pub fn reacts_fast(&self) -> bool {
        self.manufacturer.chars().nth(2).is_some_and(|c| c.is_ascii_lowercase())
    }

    /// The line as the meter sends it, without `/` and the end of the line.
    pub fn line(&self) -> String {
        let enhanced: String = self.enhanced.iter().flat_map(|&w| ['\\', w]).collect();
        format!("{}{}{enhanced}{}", self.manufacturer, self.baud, self.model)
    }

    /// Reads what stands between `/` and the end of the line; blanks at the end don't count.
    fn from_line(text: &str) -> Option<Self> {
        let text = text.trim_end();
        let manufacturer = text.get(..3).filter(|m| m.chars().all(|c| c.is_ascii_alphabetic()))?;
        let baud = text.get(3..)?.chars().next()?;
        let mut model = text.get(4..)?;
        let mut enhanced = Vec::new();
        while let Some(after) = model.strip_prefix('\\') {
            let Some(w) = after.chars().next() else { break };
            enhanced.push(w);
            model = after.get(1..)?;
        }
        Some(Self { manufacturer: manufacturer.to_owned(), baud, enhanced, model: model.to_owned() })
    }
}

/// Writes a message as seven-bit characters, the block check included.
pub fn encode(message: &Message, to: &mut Vec<u8>) {
    match message {
        Message::Request { address } => to.extend(format!("/?{address}!\r\n").bytes()),
        Message::Identification(ident) => {
            to.extend(format!("/{}\r\n", ident.line()).bytes());
        }
        Message::OptionSelect(OptionSelect { protocol, baud, mode }) => {
            to.push(ACK);
            to.extend(format!("{protocol}{baud}{mode}\r\n").bytes());
        }
        Message::Acknowledge => to.push(ACK),
        Message::Repeat => to.push(NAK),
        Message::Block(body) => block(body, ETX, to),
        Message::Part(body) => block(body, EOT, to),
        Message::Command(command) => {
            let end = if command.more { EOT } else { ETX };
            let mut counted = format!("{}{}", command.letter, command.number).into_bytes();
            if let Some(data) = &command.data {
                counted.push(STX);
                counted.extend_from_slice(data);
            }
            counted.push(end);
            to.push(SOH);
            to.extend_from_slice(&counted);
            to.push(checksum(&counted));
        }
    }
}

fn block(body: &[u8], end: u8, to: &mut Vec<u8>) {
    to.push(STX);
    to.extend_from_slice(body);
    to.push(end);
    to.push(checksum(body.iter().chain(&[end])));
}

/// The block check character: all characters after the first SOH or STX up to and including ETX
/// or EOT, exclusive-ored, seven bits (clause 6.3.10; ISO 1155).
pub fn checksum<'a>(characters: impl IntoIterator<Item = &'a u8>) -> u8 {
    characters.into_iter().fold(0, |sum, c| sum ^ c) & SEVEN_BITS
}

/// How a stream of eight-bit characters carries seven-bit ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// Bit 7 makes the number of ones even, as the standard wants it.
    Even,
    /// Bit 7 carries nothing: a converter took the parity away, or the meter sends none.
    Absent,
}

impl Parity {
    /// Finds out how `raw` was sent; `None` when some characters have even parity and some not.
    pub fn of(raw: &[u8]) -> Option<Self> {
        let high = raw.iter().filter(|b| **b > SEVEN_BITS).count();
        if raw.iter().all(|b| !strip_even_parity(*b).1) {
            Some(Self::Even)
        } else {
            (high == 0 || high == raw.len()).then_some(Self::Absent)
        }
    }

    /// Prepares seven-bit characters for a line of eight bits.
    pub fn apply(self, characters: &mut [u8]) {
        if self == Self::Even {
            for c in characters {
                *c = add_even_parity(*c);
            }
        }
    }
}

/// Sets bit 7 so that the number of ones is even.
pub const fn add_even_parity(character: u8) -> u8 {
    let seven = character & SEVEN_BITS;
    if seven.count_ones() % 2 == 1 { seven | !SEVEN_BITS } else { seven }
}

/// Takes bit 7 away and tells whether the parity was wrong.
pub const fn strip_even_parity(byte: u8) -> (u8, bool) {
    (byte & SEVEN_BITS, byte.count_ones() % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_check_agrees_with_what_independent_implementations_sent() {
        for (characters, check) in [
            ("P1\x02(00000000)\x03", b'a'),
            ("R1\x021.8.0()\x03", b'Z'),
            ("B0\x03", b'q'),
            ("P0\x02()\x03", 0x60),
            ("1.8.0(001234.567*kWh)\x03", b'['),
        ] {
            assert_eq!(checksum(characters.as_bytes()), check, "{characters:?}");
        }
    }

    #[test]
    fn messages_are_written_as_the_standard_spells_them() {
        let written = |message| {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            bytes
        };
        assert_eq!(written(Message::Request { address: String::new() }), b"/?!\r\n");
        assert_eq!(written(Message::Request { address: "00123".into() }), b"/?00123!\r\n");
        let option = OptionSelect { protocol: '0', baud: '5', mode: '0' };
        assert_eq!(written(Message::OptionSelect(option)), [6, b'0', b'5', b'0', 13, 10]);
        assert_eq!(written(Message::Block(b"1.8.0(001234.567*kWh)".into())), b"\x021.8.0(001234.567*kWh)\x03[");
        assert_eq!(written(Message::Repeat), [0x15]);
        assert_eq!(written(Message::Part(b"(1)".into())), [2, b'(', b'1', b')', 4, b'(' ^ b'1' ^ b')' ^ 4]);
        let command = |letter, data: &str| Message::Command(Command::new(letter, '1', data));
        assert_eq!(written(command('P', "(00000000)")), b"\x01P1\x02(00000000)\x03a");
        assert_eq!(written(command('R', "1.8.0()")), b"\x01R1\x021.8.0()\x03Z");
        assert_eq!(written(Message::Command(Command::BREAK)), b"\x01B0\x03q");
    }

    #[test]
    fn the_baud_character_tells_mode_and_rate() {
        let mode =
            |baud| Identification { manufacturer: "TST".into(), baud, enhanced: vec![], model: String::new() }.mode();
        assert_eq!([mode('0'), mode('5'), mode('6')], [Mode::C(300), Mode::C(9600), Mode::C(19_200)]);
        assert_eq!([mode('A'), mode('E'), mode('F')], [Mode::B(600), Mode::B(9600), Mode::B(19_200)]);
        assert_eq!([mode('7'), mode('G'), mode('J'), mode(' ')], [Mode::Reserved, Mode::Reserved, Mode::A, Mode::A]);
    }

    #[test]
    fn identifications_of_real_meters_are_taken_apart() {
        let of = |text| Identification::from_line(text).unwrap();
        let landis = of(r"LGZ4\2ZMD120APt.G03");
        assert_eq!((landis.manufacturer.as_str(), landis.baud, landis.model.as_str()), ("LGZ", '4', "ZMD120APt.G03"));
        assert_eq!(landis.enhanced, ['2']);
        assert_eq!(of(r"ELS5\@V9.30 ").model, "V9.30");
        assert_eq!(of(r"ACE0\3k260V01.18").enhanced, ['3']);
        assert!(of("ISk5ME162").reacts_fast() && !landis.reacts_fast());
        assert_eq!(of("TST5\\").model, "\\");
        assert!(Identification::from_line("TST").is_none() && Identification::from_line("").is_none());
    }

    #[test]
    fn parity_is_told_from_its_absence_and_from_damage() {
        let mut line = b"/TST5SIM\r\n".to_vec();
        assert_eq!(Parity::of(&line), Some(Parity::Absent));
        Parity::Even.apply(&mut line);
        assert_eq!(Parity::of(&line), Some(Parity::Even));
        assert!(line.iter().all(|b| !strip_even_parity(*b).1));
        line[3] ^= 0x10;
        assert_eq!(Parity::of(&line), None);
        assert_eq!(strip_even_parity(line[3]).0 ^ 0x10, b'T');
    }
}
