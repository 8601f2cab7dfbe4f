//! The port that a peer uses by RFC 2217: what it asks is done to the line, as far as the line can.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::os::line::{Framing, Held, Line, Parity, Speed, Wire};
use crate::wire::rfc2217::{self, Command, Decoder, Event, Negotiation, Side};

/// Before the speed changes, what was sent leaves at the old one; but nobody waits longer.
const DRAIN: Duration = Duration::from_secs(10);
/// Wires are looked at so often.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// A client's view of the port.
#[derive(Debug)]
pub(super) struct ComPort {
    decoder: Decoder,
    negotiation: Negotiation,
    /// The client takes no data for now.
    pub(super) suspended: bool,
    /// What the client wants the wires to be: break, DTR, RTS.
    wires: [bool; 3],
    /// Which changes of the modem's wires the client wants to hear of.
    mask: u8,
    /// What it was told of them last.
    told: Option<u8>,
}

/// What a client's bytes ask for beside data.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Bytes for the line.
    pub(super) data: Vec<u8>,
    /// What goes back, as it travels.
    pub(super) reply: Vec<u8>,
    /// What came from the line and was not sent yet is not wanted.
    pub(super) drop_received: bool,
    /// The speed that the line has now because the client said so.
    pub(super) speed: Option<Speed>,
    /// What was written meanwhile.
    pub(super) written: Vec<u8>,
}

impl ComPort {
    pub(super) fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            negotiation: Negotiation::default(),
            suspended: false,
            wires: [false, true, true],
            mask: 255,
            told: None,
        }
    }

    /// What is said first.
    pub(super) fn open(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.negotiation.open().iter().for_each(|event| rfc2217::encode(event, &mut bytes));
        bytes
    }

    /// Takes bytes of the client and does what they ask; data that is not `fresh` is left out. `unsent` is what of the line's data
    /// was not written yet; what was written has left it at `busy_until`.
    pub(super) async fn hear(
        &mut self,
        (bytes, fresh): (&[u8], bool),
        line: &mut Line,
        unsent: &mut Vec<u8>,
        busy_until: Instant,
    ) -> Asked {
        let mut asked = Asked::default();
        for event in self.decoder.push(bytes) {
            match event {
                Event::Data(data) if fresh => asked.data.extend(data),
                Event::Negotiate(verb, option) => {
                    if let Some(answer) = self.negotiation.hear(verb, option) {
                        rfc2217::encode(&answer, &mut asked.reply);
                    }
                }
                Event::ComPort(Side::Client, command) => {
                    let changes = matches!(
                        command,
                        Command::Baud(1..) | Command::DataSize(1..) | Command::Parity(1..) | Command::StopSize(1..)
                    );
                    if changes {
                        unsent.append(&mut asked.data);
                        asked.written.extend(settle(line, unsent, busy_until).await);
                    }
                    if let Some(answer) = self.obey(command, line, unsent, &mut asked).await {
                        rfc2217::encode(&Event::ComPort(Side::Server, answer), &mut asked.reply);
                    }
                }
                Event::Data(_) | Event::ComPort(Side::Server, _) | Event::Telnet(_) | Event::Skipped(_) => {}
            }
        }
        asked
    }

    async fn obey(
        &mut self,
        command: Command,
        line: &mut Line,
        unsent: &mut Vec<u8>,
        asked: &mut Asked,
    ) -> Option<Command> {
        let now = line.speed();
        Some(match command {
            Command::Baud(baud) => {
                let wanted = (50..=4_000_000).contains(&baud).then_some(Speed { baud, ..now });
                Command::Baud(set(line, wanted, asked).baud)
            }
            Command::DataSize(bits) => {
                let wanted = matches!(bits, 7 | 8).then(|| framed(now, |framing| framing.data_bits = bits));
                Command::DataSize(set(line, wanted, asked).framing.data_bits)
            }
            Command::Parity(number) => {
                let known = PARITIES.into_iter().find(|(code, _)| *code == number);
                let wanted = known.map(|(_, parity)| framed(now, |framing| framing.parity = parity));
                Command::Parity(parity_number(set(line, wanted, asked).framing.parity))
            }
            Command::StopSize(bits) => {
                let wanted = matches!(bits, 1 | 2).then(|| framed(now, |framing| framing.stop_bits = bits));
                Command::StopSize(set(line, wanted, asked).framing.stop_bits)
            }
            Command::Control(number) => Command::Control(self.control(number, line)),
            Command::Purge(which) => {
                if matches!(which, 1 | 3) {
                    asked.drop_received = true;
                    let _ = line.discard_waiting().await;
                }
                if matches!(which, 2 | 3) {
                    unsent.clear();
                    asked.data.clear();
                    let _ = line.discard_unsent();
                }
                Command::Purge(which)
            }
            Command::Suspend | Command::Resume => {
                self.suspended = command == Command::Suspend;
                return None;
            }
            // An empty one asks.
            Command::Signature(text) if text.is_empty() => {
                Command::Signature(concat!("weir ", env!("CARGO_PKG_VERSION")).into())
            }
            Command::Signature(_) => return None,
            // The kernel does not say which character had an error, so there is nothing to notify.
            Command::LineStateMask(_) => Command::LineStateMask(0),
            Command::LineState(_) => Command::LineState(0),
            Command::ModemStateMask(mask) => {
                self.mask = mask;
                Command::ModemStateMask(mask)
            }
            Command::ModemState(_) => {
                let state = modem_state(line);
                self.told = Some(state);
                Command::ModemState(state)
            }
        })
    }

    /// SET-CONTROL (RFC 2217, section 3): what is answered. A wire that the line does not have is answered as if it had it, because
    /// clients give up otherwise; flow control is never on.
    fn control(&mut self, number: u8, line: &mut Line) -> u8 {
        let [on_break, dtr, rts] = &mut self.wires;
        let (wire, state, on_number) = match number {
            4..=6 => (Wire::Break, on_break, 5),
            7..=9 => (Wire::Dtr, dtr, 8),
            10..=12 => (Wire::Rts, rts, 11),
            13..=16 | 18 => return 14,
            _ => return 1,
        };
        // The first number of the three asks, the second is on, the third off.
        if number >= on_number {
            *state = number == on_number;
            line.switch(wire, *state);
        }
        if *state { on_number } else { on_number + 1 }
    }

    /// What the client is told of the wires, when they changed; `None` when it knows.
    pub(super) fn look(&mut self, line: &mut Line) -> Option<Vec<u8>> {
        if !self.negotiation.has_com_port() || self.mask == 0 {
            return None;
        }
        let state = modem_state(line);
        // The upper half is the state, the lower says what changed (RFC 2217, section 3).
        let changed = (state ^ self.told.unwrap_or(state)) >> 4;
        if self.told.is_some() && changed & (self.mask >> 4 | self.mask) & 0x0F == 0 {
            return None;
        }
        self.told = Some(state);
        let mut bytes = Vec::new();
        rfc2217::encode(&Event::ComPort(Side::Server, Command::ModemState(state | changed)), &mut bytes);
        Some(bytes)
    }

    /// Sets the wires as this client wants them, on a line that it just got.
    pub(super) fn rejoin(&self, line: &mut Line) {
        let [on_break, dtr, rts] = self.wires;
        for (wire, on, usual) in [(Wire::Break, on_break, false), (Wire::Dtr, dtr, true), (Wire::Rts, rts, true)] {
            if on != usual {
                line.switch(wire, on);
            }
        }
    }

    /// Sets the wires as they were before this client.
    pub(super) fn leave(&self, line: &mut Line) {
        let [on_break, dtr, rts] = self.wires;
        for (wire, on, usual) in [(Wire::Break, on_break, false), (Wire::Dtr, dtr, true), (Wire::Rts, rts, true)] {
            if on != usual {
                line.switch(wire, usual);
            }
        }
    }
}

/// Parity by its number (RFC 2217, section 3); mark and space no line of ours has.
const PARITIES: [(u8, Parity); 3] = [(1, Parity::None), (2, Parity::Odd), (3, Parity::Even)];

fn parity_number(parity: Parity) -> u8 {
    PARITIES.into_iter().find(|(_, known)| *known == parity).map_or(1, |(number, _)| number)
}

fn framed(speed: Speed, change: impl FnOnce(&mut Framing)) -> Speed {
    let mut framing = speed.framing;
    change(&mut framing);
    Speed { framing, ..speed }
}

/// Sets the speed if there is one that the line can have; returns what it is then.
fn set(line: &mut Line, wanted: Option<Speed>, asked: &mut Asked) -> Speed {
    if let Some(wanted) = wanted {
        match line.set_speed(wanted) {
            Ok(()) => asked.speed = Some(wanted),
            Err(error) => tracing::debug!(%error, baud = wanted.baud, "the line refuses a client's speed"),
        }
    }
    line.speed()
}

/// Writes what waits and waits until it has left the wire; returns what was written.
pub(super) async fn settle(line: &mut Line, unsent: &mut Vec<u8>, busy_until: Instant) -> Vec<u8> {
    let limit = Instant::now() + DRAIN;
    let bytes = std::mem::take(unsent);
    let left = if bytes.is_empty() {
        busy_until
    } else {
        // A port that takes nothing any more will be found gone soon.
        let _ = timeout_at(limit, line.write_all(&bytes)).await;
        busy_until.max(Instant::now()) + line.speed().time_of(bytes.len())
    };
    sleep_until(left.min(limit)).await;
    line.drained(limit.saturating_duration_since(Instant::now())).await;
    bytes
}

/// The wires in the upper half of a byte; a line without wires is as one whose other side is ready.
fn modem_state(line: &mut Line) -> u8 {
    let held = line.held().unwrap_or(Held { cts: true, dsr: true, ring: false, carrier: true });
    u8::from(held.cts) << 4 | u8::from(held.dsr) << 5 | u8::from(held.ring) << 6 | u8::from(held.carrier) << 7
}
