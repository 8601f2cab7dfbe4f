//! The remote control of a serial port inside a byte stream: Telnet (RFC 854, RFC 855) with the COM-PORT option of RFC 2217.
//!
//! Invariants: data is eight bits wide whether BINARY was agreed or not, and CR is followed by nothing of ours; whatever comes, a
//! subnegotiation that is not whole keeps at most [`LONGEST`] bytes; commands are answered by others, here is only what they look like.
//! Start with [`Decoder`]; `negotiation` agrees on options.

mod negotiation;
#[cfg(test)]
mod tests;

pub use negotiation::{Negotiation, Option as TelnetOption};

/// Interpret as command (RFC 854).
const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;
/// The COM-PORT option's number (RFC 2217, section 2).
const COM_PORT: u8 = 44;
/// What the numbers of the server's commands are above the client's.
const FROM_SERVER: u8 = 100;

/// No subnegotiation that means anything is longer; the rest of a longer one is skipped.
pub const LONGEST: usize = 512;

/// Who wants what of an option (RFC 854).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// The sender will use it.
    Will,
    /// It will not.
    Wont,
    /// The other side is asked to use it.
    Do,
    /// It is asked not to.
    Dont,
}

impl Verb {
    const ALL: [(u8, Self); 4] = [(251, Self::Will), (252, Self::Wont), (253, Self::Do), (254, Self::Dont)];

    fn of(byte: u8) -> std::option::Option<Self> {
        Self::ALL.into_iter().find(|(code, _)| *code == byte).map(|(_, verb)| verb)
    }

    fn code(self) -> u8 {
        Self::ALL.into_iter().find(|(_, verb)| *verb == self).map_or(252, |(code, _)| code)
    }
}

/// Which side sends a command: the one that uses the port or the one that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It uses a port that is elsewhere.
    Client,
    /// It has the port.
    Server,
}

/// A command of the COM-PORT option, or its answer (RFC 2217, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// SIGNATURE: who one is; empty asks for the other side's.
    Signature(Vec<u8>),
    /// SET-BAUDRATE in bits per second; 0 asks.
    Baud(u32),
    /// SET-DATASIZE in bits; 0 asks.
    DataSize(u8),
    /// SET-PARITY: 1 none, 2 odd, 3 even, 4 mark, 5 space; 0 asks.
    Parity(u8),
    /// SET-STOPSIZE: 1 one bit, 2 two, 3 one and a half; 0 asks.
    StopSize(u8),
    /// SET-CONTROL: flow control, break, DTR, RTS by the table of section 3.
    Control(u8),
    /// NOTIFY-LINESTATE; a client that sends it without a value asks.
    LineState(u8),
    /// NOTIFY-MODEMSTATE; a client that sends it without a value asks.
    ModemState(u8),
    /// FLOWCONTROL-SUSPEND: send no data until told otherwise.
    Suspend,
    /// FLOWCONTROL-RESUME.
    Resume,
    /// SET-LINESTATE-MASK.
    LineStateMask(u8),
    /// SET-MODEMSTATE-MASK.
    ModemStateMask(u8),
    /// PURGE-DATA: 1 what came from the line, 2 what goes to it, 3 both.
    Purge(u8),
}

impl Command {
    fn decode(code: u8, value: &[u8]) -> std::option::Option<Self> {
        let byte = || if let [byte] = value { Some(*byte) } else { None };
        // Some clients ask for a state without a value.
        let state = || if value.is_empty() { Some(0) } else { byte() };
        Some(match code {
            0 => Self::Signature(value.to_vec()),
            1 => Self::Baud(u32::from_be_bytes(value.try_into().ok()?)),
            2 => Self::DataSize(byte()?),
            3 => Self::Parity(byte()?),
            4 => Self::StopSize(byte()?),
            5 => Self::Control(byte()?),
            6 => Self::LineState(state()?),
            7 => Self::ModemState(state()?),
            8 if value.is_empty() => Self::Suspend,
            9 if value.is_empty() => Self::Resume,
            10 => Self::LineStateMask(byte()?),
            11 => Self::ModemStateMask(byte()?),
            12 => Self::Purge(byte()?),
            _ => return None,
        })
    }

    /// Its number from the client, and what follows that.
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Signature(text) => (0, text.clone()),
            Self::Baud(baud) => (1, baud.to_be_bytes().to_vec()),
            Self::DataSize(value) => (2, vec![*value]),
            Self::Parity(value) => (3, vec![*value]),
            Self::StopSize(value) => (4, vec![*value]),
            Self::Control(value) => (5, vec![*value]),
            Self::LineState(value) => (6, vec![*value]),
            Self::ModemState(value) => (7, vec![*value]),
            Self::Suspend => (8, Vec::new()),
            Self::Resume => (9, Vec::new()),
            Self::LineStateMask(value) => (10, vec![*value]),
            Self::ModemStateMask(value) => (11, vec![*value]),
            Self::Purge(value) => (12, vec![*value]),
        }
    }
}

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes for the line, or from it.
    Data(Vec<u8>),
    /// WILL, WONT, DO or DONT with the number of an option.
    Negotiate(Verb, u8),
    /// A command of the COM-PORT option.
    ComPort(Side, Command),
    /// Another command of Telnet (RFC 854), such as 246, "are you there".
    Telnet(u8),
    /// So many bytes that mean nothing here: other options' subnegotiations, damaged or overlong ones.
    Skipped(usize),
}

/// Writes an event as it travels; [`Event::Skipped`] writes nothing.
pub fn encode(event: &Event, buf: &mut Vec<u8>) {
    match event {
        Event::Data(bytes) => escape(bytes, buf),
        Event::Negotiate(verb, option) => buf.extend([IAC, verb.code(), *option]),
        Event::ComPort(side, command) => {
            let (code, value) = command.parts();
            buf.extend([IAC, SB, COM_PORT, if *side == Side::Server { code + FROM_SERVER } else { code }]);
            escape(&value, buf);
            buf.extend([IAC, SE]);
        }
        Event::Telnet(code) => buf.extend([IAC, *code]),
        Event::Skipped(_) => {}
    }
}

/// Writes data: IAC is doubled.
pub fn escape(bytes: &[u8], buf: &mut Vec<u8>) {
    for byte in bytes {
        buf.push(*byte);
        if *byte == IAC {
            buf.push(IAC);
        }
    }
}

/// Where in the stream the next byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Data,
    /// After IAC.
    Command,
    /// After IAC and a verb.
    Verb(Verb),
    /// In a subnegotiation.
    Inside,
    /// In a subnegotiation after IAC.
    InsideCommand,
}

/// Reads a stream piece by piece; any cutting gives the same events, data aside, which comes as it was cut.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    place: Place,
    /// The subnegotiation so far, at most [`LONGEST`] bytes.
    inside: Vec<u8>,
    /// How many bytes it has beyond that.
    beyond: usize,
}

impl Decoder {
    /// Starts at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a piece and returns what it completes, never more events than it has bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            if let Some(event) = self.step(*byte) {
                join(&mut events, event);
            }
        }
        events
    }

    fn step(&mut self, byte: u8) -> std::option::Option<Event> {
        match (self.place, byte) {
            (Place::Data, IAC) => self.go(Place::Command),
            (Place::Data, byte) => Some(Event::Data(vec![byte])),
            (Place::Command, IAC) => {
                self.place = Place::Data;
                Some(Event::Data(vec![IAC]))
            }
            (Place::Command, byte) => self.command(byte),
            (Place::Verb(verb), option) => {
                self.place = Place::Data;
                Some(Event::Negotiate(verb, option))
            }
            (Place::Inside, IAC) => self.go(Place::InsideCommand),
            (Place::Inside, byte) => self.keep(byte),
            (Place::InsideCommand, IAC) => {
                self.place = Place::Inside;
                self.keep(IAC)
            }
            (Place::InsideCommand, SE) => {
                self.place = Place::Data;
                Some(self.take_inside())
            }
            (Place::InsideCommand, byte) => {
                // It was never ended: the command in it is one, the rest is lost.
                let lost = self.inside.len() + self.beyond;
                self.inside.clear();
                self.beyond = 0;
                let event = self.command(byte);
                if lost > 0 && event.is_none() { Some(Event::Skipped(lost)) } else { event }
            }
        }
    }

    const fn go(&mut self, place: Place) -> std::option::Option<Event> {
        self.place = place;
        None
    }

    /// What the byte after IAC begins.
    fn command(&mut self, byte: u8) -> std::option::Option<Event> {
        self.place = Place::Data;
        match (byte, Verb::of(byte)) {
            (_, Some(verb)) => self.go(Place::Verb(verb)),
            (SB, _) => self.go(Place::Inside),
            (code, _) => Some(Event::Telnet(code)),
        }
    }

    fn keep(&mut self, byte: u8) -> std::option::Option<Event> {
        if self.inside.len() < LONGEST {
            self.inside.push(byte);
        } else {
            self.beyond = self.beyond.saturating_add(1);
        }
        None
    }

    fn take_inside(&mut self) -> Event {
        let inside = std::mem::take(&mut self.inside);
        let beyond = std::mem::take(&mut self.beyond);
        let whole = inside.len() + beyond;
        let command = match inside.split_first() {
            Some((&COM_PORT, [code, value @ ..])) if beyond == 0 => {
                let (side, code) = match code.checked_sub(FROM_SERVER) {
                    Some(code) => (Side::Server, code),
                    None => (Side::Client, *code),
                };
                Command::decode(code, value).map(|command| Event::ComPort(side, command))
            }
            _ => None,
        };
        command.unwrap_or(Event::Skipped(whole))
    }
}

/// Adds an event; data that follows data belongs to it.
fn join(events: &mut Vec<Event>, event: Event) {
    match (events.last_mut(), event) {
        (Some(Event::Data(before)), Event::Data(more)) => before.extend(more),
        (_, event) => events.push(event),
    }
}
