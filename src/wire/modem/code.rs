//! Why a modem refuses: +CME ERROR (3GPP TS 27.007, 9.2) and +CMS ERROR (3GPP TS 27.005, 3.2.5).

use std::fmt;

/// Which list a code is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain ERROR, which tells nothing.
    Plain,
    /// The modem itself (+CME ERROR).
    Equipment,
    /// A short message (+CMS ERROR).
    Message,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which list its code is of.
    pub kind: Kind,
    /// The code; `None` when the modem told words instead.
    pub code: Option<u16>,
    /// The modem's own words, when it told some.
    pub words: Option<String>,
}

impl Fault {
    /// A plain ERROR.
    pub const PLAIN: Self = Self { kind: Kind::Plain, code: None, words: None };

    /// Reads what stands behind `+CME ERROR:` or `+CMS ERROR:`.
    pub fn of(kind: Kind, text: &str) -> Self {
        let text = text.trim();
        match text.parse() {
            Ok(code) => Self { kind, code: Some(code), words: None },
            Err(_) => Self { kind, code: None, words: Some(text.chars().take(100).collect()) },
        }
    }

    /// What the code means; `None` when it is not in the list or there is none.
    pub fn meaning(&self) -> Option<&'static str> {
        let list = match self.kind {
            Kind::Plain => return None,
            Kind::Equipment => EQUIPMENT,
            Kind::Message => MESSAGE,
        };
        list.iter().find(|(code, _)| Some(*code) == self.code).map(|(_, meaning)| *meaning)
    }

    /// Whether the same may succeed a little later: a busy network or modem, no service just now.
    pub fn may_pass(&self) -> bool {
        let later: &[u16] = match self.kind {
            Kind::Plain => return true,
            Kind::Equipment => &[14, 30, 31, 32, 100, 515],
            Kind::Message => &[27, 38, 41, 42, 47, 192, 194, 195, 197, 300, 314, 331, 332, 500, 512, 513, 514, 532],
        };
        match &self.words {
            Some(words) => {
                let words = words.to_ascii_lowercase();
                ["busy", "timeout", "no network", "temporary", "unknown"].iter().any(|word| words.contains(word))
            }
            None => self.code.is_none_or(|code| later.contains(&code)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Plain => return f.write_str("ERROR"),
            Kind::Equipment => "CME ERROR",
            Kind::Message => "CMS ERROR",
        };
        match (self.code, &self.words, self.meaning()) {
            (Some(code), _, Some(meaning)) => write!(f, "{name} {code} ({meaning})"),
            (Some(code), _, None) => write!(f, "{name} {code}"),
            (None, Some(words), _) => write!(f, "{name} ({words})"),
            (None, None, _) => f.write_str(name),
        }
    }
}

const EQUIPMENT: &[(u16, &str)] = &[
    (0, "modem failure"),
    (1, "no connection to the modem"),
    (3, "operation not allowed"),
    (4, "operation not supported"),
    (5, "the phone's own SIM is wanted"),
    (10, "no SIM is inserted"),
    (11, "the SIM wants its PIN"),
    (12, "the SIM wants its PUK"),
    (13, "SIM failure"),
    (14, "the SIM is busy"),
    (15, "wrong SIM"),
    (16, "wrong PIN"),
    (17, "the SIM wants its PIN2"),
    (18, "the SIM wants its PUK2"),
    (20, "memory full"),
    (21, "no such index"),
    (22, "not found"),
    (23, "memory failure"),
    (24, "the text is too long"),
    (25, "the text has characters it must not have"),
    (26, "the number is too long"),
    (27, "the number has characters it must not have"),
    (30, "no network service"),
    (31, "the network took too long"),
    (32, "only emergency calls are allowed"),
    (40, "the network lock wants its PIN"),
    (50, "wrong parameters"),
    (100, "unknown"),
    (103, "illegal subscriber"),
    (106, "illegal modem"),
    (107, "packet service not allowed"),
    (111, "network not allowed here"),
    (112, "area not allowed"),
    (113, "no roaming in this area"),
    (515, "the modem is still busy"),
];

const MESSAGE: &[(u16, &str)] = &[
    (1, "nobody has this number"),
    (8, "barred by the operator"),
    (10, "the subscriber is barred"),
    (21, "the network rejected the message"),
    (22, "the receiver's memory is full"),
    (27, "the receiver cannot be reached"),
    (28, "the network does not know the subscriber"),
    (29, "the network does not offer this"),
    (30, "the network does not know the subscriber"),
    (38, "the network is out of order"),
    (41, "temporary network failure"),
    (42, "the network is congested"),
    (47, "the network has no resources"),
    (50, "the service is not subscribed"),
    (69, "the network does not offer this"),
    (96, "the message lacks something"),
    (111, "protocol error"),
    (127, "interworking error"),
    (192, "the service centre is busy"),
    (193, "there is no service centre's subscription"),
    (194, "the service centre has failed"),
    (195, "the network has failed"),
    (196, "the network rejected the message"),
    (197, "the message waits at the network"),
    (208, "the SIM's storage is full"),
    (209, "the SIM cannot store messages"),
    (210, "error in the modem"),
    (211, "the storage is full"),
    (300, "modem failure"),
    (301, "the modem's message service is reserved"),
    (302, "operation not allowed"),
    (303, "operation not supported"),
    (304, "wrong parameter of the PDU"),
    (305, "wrong parameter of the text"),
    (310, "no SIM is inserted"),
    (311, "the SIM wants its PIN"),
    (312, "the phone's own SIM is wanted"),
    (313, "SIM failure"),
    (314, "the SIM is busy"),
    (315, "wrong SIM"),
    (316, "the SIM wants its PUK"),
    (317, "the SIM wants its PIN2"),
    (318, "the SIM wants its PUK2"),
    (320, "memory failure"),
    (321, "no such index"),
    (322, "the storage is full"),
    (330, "the number of the service centre is not known"),
    (331, "no network service"),
    (332, "the network took too long"),
    (340, "no confirmation was expected"),
    (500, "unknown"),
    (512, "the modem failed to send"),
    (513, "the radio link was lost"),
    (514, "the modem is busy"),
    (517, "the SIM is not ready"),
    (532, "the modem is busy"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_told_with_its_meaning_and_words_as_they_are() {
        assert_eq!(Fault::of(Kind::Message, " 500").to_string(), "CMS ERROR 500 (unknown)");
        assert_eq!(Fault::of(Kind::Equipment, "10").to_string(), "CME ERROR 10 (no SIM is inserted)");
        assert_eq!(Fault::of(Kind::Equipment, "SIM not inserted").to_string(), "CME ERROR (SIM not inserted)");
        assert_eq!(Fault::of(Kind::Message, "9999").to_string(), "CMS ERROR 9999");
        assert_eq!(Fault::PLAIN.to_string(), "ERROR");
    }

    #[test]
    fn only_what_may_pass_is_worth_trying_again() {
        assert!(Fault::of(Kind::Message, "42").may_pass() && Fault::PLAIN.may_pass());
        assert!(!Fault::of(Kind::Message, "1").may_pass() && !Fault::of(Kind::Equipment, "10").may_pass());
        assert!(Fault::of(Kind::Message, "SIM busy").may_pass());
        assert!(!Fault::of(Kind::Equipment, "SIM PIN required").may_pass());
    }
}
