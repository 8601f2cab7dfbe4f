//! Which options of Telnet both sides use (RFC 855), agreed without ever answering an answer.

use super::{Event, Verb};

/// An option that weir knows as the side that has the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Option {
    /// TRANSMIT-BINARY (RFC 856).
    Binary,
    /// ECHO (RFC 857): the client shall not echo by itself.
    Echo,
    /// SUPPRESS-GO-AHEAD (RFC 858).
    SuppressGoAhead,
    /// COM-PORT-OPTION (RFC 2217).
    ComPort,
}

impl Option {
    const ALL: [(u8, Self); 4] = [(0, Self::Binary), (1, Self::Echo), (3, Self::SuppressGoAhead), (44, Self::ComPort)];

    /// Its number.
    pub fn number(self) -> u8 {
        Self::ALL.into_iter().find(|(_, option)| *option == self).map_or(0, |(number, _)| number)
    }

    fn of(number: u8) -> std::option::Option<(usize, Self)> {
        Self::ALL.into_iter().enumerate().find(|(_, (known, _))| *known == number).map(|(at, (_, option))| (at, option))
    }
}

/// How one side stands to an option (RFC 1143 without its queue).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stand {
    #[default]
    Off,
    /// Asked for by us, not answered yet.
    Asked,
    On,
}

/// The state of all options of one connection.
#[derive(Debug, Clone, Default)]
pub struct Negotiation {
    /// By the place in [`Option::ALL`]: what we do, and what the other side does.
    ours: [Stand; 4],
    theirs: [Stand; 4],
}

impl Negotiation {
    /// What the side that has the port asks for at the beginning.
    pub fn open(&mut self) -> Vec<Event> {
        let wanted = [
            (Verb::Will, Option::Binary),
            (Verb::Do, Option::Binary),
            (Verb::Will, Option::SuppressGoAhead),
            (Verb::Do, Option::SuppressGoAhead),
            (Verb::Do, Option::ComPort),
        ];
        let mut events = Vec::new();
        for (verb, option) in wanted {
            let side = if verb == Verb::Will { &mut self.ours } else { &mut self.theirs };
            if let Some(stand) = Option::of(option.number()).and_then(|(at, _)| side.get_mut(at)) {
                *stand = Stand::Asked;
            }
            events.push(Event::Negotiate(verb, option.number()));
        }
        events
    }

    /// Takes what the other side said of an option; what is to be said to that, if anything.
    pub fn hear(&mut self, verb: Verb, number: u8) -> std::option::Option<Event> {
        let refusal = match verb {
            Verb::Do => Verb::Wont,
            Verb::Will => Verb::Dont,
            // What is not done is not done.
            Verb::Wont | Verb::Dont => return self.hear_no(verb, number),
        };
        let Some((at, option)) = Option::of(number) else { return Some(Event::Negotiate(refusal, number)) };
        let (side, consent) = match verb {
            Verb::Do => (&mut self.ours, Verb::Will),
            _ => (&mut self.theirs, Verb::Do),
        };
        // A line echoes or does not; weir never wants its own bytes back.
        if option == Option::Echo && verb == Verb::Will {
            return Some(Event::Negotiate(Verb::Dont, number));
        }
        let stand = side.get_mut(at)?;
        let before = std::mem::replace(stand, Stand::On);
        (before == Stand::Off).then_some(Event::Negotiate(consent, number))
    }

    fn hear_no(&mut self, verb: Verb, number: u8) -> std::option::Option<Event> {
        let (at, _) = Option::of(number)?;
        let (side, confirmation) = match verb {
            Verb::Dont => (&mut self.ours, Verb::Wont),
            _ => (&mut self.theirs, Verb::Dont),
        };
        let stand = side.get_mut(at)?;
        let before = std::mem::replace(stand, Stand::Off);
        (before == Stand::On).then_some(Event::Negotiate(confirmation, number))
    }

    /// Whether the client speaks the COM-PORT option.
    pub fn has_com_port(&self) -> bool {
        let on = |side: &[Stand; 4]| Option::of(44).and_then(|(at, _)| side.get(at)) == Some(&Stand::On);
        on(&self.theirs) || on(&self.ours)
    }
}
