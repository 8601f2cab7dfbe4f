//! What makes a telegram urgent: the reasons, their words, and how each is found.
//!
//! Each source of urgency is a [`Reason`] of its own, so that each can be switched: what one maker
//! uses for leaks, another sets in every telegram. Nothing here limits how often a meter is urgent. Start with [`urgency`].

use std::fmt;

use super::application::Content;
use super::layers::{Ell, TplHeader};
use crate::model::TelegramKind;
use crate::wire::telegram::Facts;

/// A source of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Reason {
    /// C field 46, or MBAL's function 6: SND-IR, somebody installs the meter and waits.
    Installation = 1 << 0,
    /// C field 48, ACC-DMD: the meter demands access because it has something urgent.
    AccessDemand = 1 << 1,
    /// C field 47, ACC-NR: the meter offers access, without data.
    AccessOffer = 1 << 2,
    /// The priority bit of the extended link layer.
    LinkPriority = 1 << 3,
    /// CI fields 71, 74 and 75: the telegram is an alarm.
    AlarmMessage = 1 << 4,
    /// The status of the transport header says alarm (both low bits set).
    AlarmStatus = 1 << 5,
    /// The ACD bit of an answer (C fields 28 and 38): alarm data wait to be fetched.
    AlarmData = 1 << 6,
    /// Error flags among the values are not zero; this one shows only in an opened telegram.
    ErrorFlags = 1 << 7,
    /// Bit 0 of MBAL's control field: the meter prioritises the frame.
    PriorityBit = 1 << 8,
}

impl Reason {
    /// Every reason with its word, for settings, logs and explanations.
    pub const ALL: &[(&str, Self)] = &[
        ("openlinkiq-priority", Self::PriorityBit),
        ("installation", Self::Installation),
        ("access-demand", Self::AccessDemand),
        ("access-offer", Self::AccessOffer),
        ("link-priority", Self::LinkPriority),
        ("alarm-message", Self::AlarmMessage),
        ("alarm-status", Self::AlarmStatus),
        ("alarm-data", Self::AlarmData),
        ("error-flags", Self::ErrorFlags),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, reason)| *reason == self).map_or("", |(word, _)| word)
    }
}

/// A set of reasons.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reasons(u16);

impl Reasons {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(0x01FF);
    /// Those that a meter may keep up for months; the others are events by themselves.
    pub const LASTING: Self = Self::NONE
        .with(Reason::LinkPriority)
        .with(Reason::AlarmStatus)
        .with(Reason::AlarmData)
        .with(Reason::ErrorFlags);

    /// The same and one more.
    #[must_use]
    pub const fn with(self, reason: Reason) -> Self {
        Self(self.0 | reason as u16)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Tells whether a reason is among them.
    pub const fn has(self, reason: Reason) -> bool {
        self.0 & reason as u16 != 0
    }

    /// Tells whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their words.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Reason::ALL.iter().filter(move |(_, reason)| self.has(*reason)).map(|(word, _)| *word)
    }

    const fn with_if(self, there: bool, reason: Reason) -> Self {
        if there { self.with(reason) } else { self }
    }
}

impl FromIterator<Reason> for Reasons {
    fn from_iter<T: IntoIterator<Item = Reason>>(reasons: T) -> Self {
        reasons.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.words()).finish()
    }
}

/// What a telegram says about urgency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// The reasons it gives.
    pub found: Reasons,
    /// The lasting reasons that it could have given: of the others it says nothing.
    pub visible: Reasons,
}

impl Shown {
    /// What this and another look at the same telegram say together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { found: self.found.or(other.found), visible: self.visible.or(other.visible) }
    }

    /// Without the reasons that are not among `wanted`.
    #[must_use]
    pub const fn wanted(self, wanted: Reasons) -> Self {
        Self { found: self.found.and(wanted), visible: self.visible.and(wanted) }
    }
}

/// What a telegram shows to everyone.
pub fn urgency(facts: &Facts<'_>) -> Shown {
    const RELAYED: u8 = 0x80;
    const FUNCTION: u8 = 0xF0;
    // The lower half of MBAL's command is not public; its upper half is the function.
    let (control, installs) = match facts.kind {
        TelegramKind::WirelessMbus => (facts.control & !RELAYED, facts.control & !RELAYED == 0x46),
        TelegramKind::OpenlinkIq => (0, facts.control & FUNCTION == 0x60),
    };
    let answers = control & 0x4F == 0x08;
    let (ell, tpl) = (facts.upper.ell, facts.upper.tpl.as_ref());
    let header = tpl.and_then(|tpl| tpl.header);
    let found = Reasons::NONE
        .with_if(facts.priority_bit, Reason::PriorityBit)
        .with_if(installs, Reason::Installation)
        .with_if(control == 0x47, Reason::AccessOffer)
        .with_if(control == 0x48, Reason::AccessDemand)
        .with_if(control & 0x6F == 0x28, Reason::AlarmData)
        .with_if(ell.is_some_and(Ell::is_priority), Reason::LinkPriority)
        .with_if(matches!(tpl.map_or(0, |tpl| tpl.ci), 0x71 | 0x74 | 0x75), Reason::AlarmMessage)
        .with_if(header.is_some_and(TplHeader::is_alarm), Reason::AlarmStatus);
    let visible = Reasons::NONE
        .with_if(answers, Reason::AlarmData)
        .with_if(ell.is_some(), Reason::LinkPriority)
        .with_if(header.is_some(), Reason::AlarmStatus);
    Shown { found, visible }
}

/// What the values of an opened telegram show; those of earlier times do not count.
pub fn of_values(content: &Content) -> Shown {
    let mut flags = content.values.iter().filter(|value| value.record.name == "error_flags").peekable();
    let visible = Reasons::NONE.with_if(flags.peek().is_some(), Reason::ErrorFlags);
    let set = flags.filter_map(|value| value.record.value.as_deref()).any(|flags| flags.bytes().any(|b| b != b'0'));
    Shown { found: Reasons::NONE.with_if(set, Reason::ErrorFlags), visible }
}

#[cfg(test)]
mod tests {
    use super::super::application::Value;
    use super::*;
    use crate::wire::mbus::Record;
    use crate::wire::telegram::facts;

    fn words(control: u8, payload: &[u8]) -> Vec<&'static str> {
        let length = u8::try_from(9 + payload.len()).unwrap();
        let bytes = [&[length, control, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16], payload].concat();
        urgency(&facts(TelegramKind::WirelessMbus, &bytes).unwrap()).found.words().collect()
    }

    #[test]
    fn each_source_of_urgency_is_a_reason_of_its_own() {
        let quiet = [0x7A, 1, 0, 0, 0];
        assert!(words(0x44, &quiet).is_empty() && words(0x08, &quiet).is_empty() && words(0x18, &quiet).is_empty());
        assert_eq!(words(0x46, &quiet), ["installation"]);
        assert_eq!(words(0xC8, &quiet), ["access-demand"], "relayed");
        assert_eq!(words(0x47, &quiet), ["access-offer"]);
        assert_eq!((words(0x28, &quiet), words(0x38, &quiet)), (vec!["alarm-data"], vec!["alarm-data"]));
        assert_eq!(words(0x44, &[0x8C, 0x08, 1, 0x78]), ["link-priority"]);
        assert!(words(0x44, &[0x8C, 0xF7, 1, 0x78]).is_empty());
        assert_eq!(words(0x44, &[0x74, 1, 0, 0, 0]), ["alarm-message"]);
        assert_eq!(words(0x44, &[0x71, 1]), ["alarm-message"]);
        assert_eq!(words(0x44, &[0x7A, 1, 0x03, 0, 5]), ["alarm-status"]);
        assert!(words(0x44, &[0x7A, 1, 0xFD, 0, 5]).is_empty(), "busy, and every other bit");
        assert_eq!(words(0x46, &[0x8C, 0x08, 1, 0x75, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x0B, 0, 0]).len(), 4);
    }

    #[test]
    fn openlinkiqs_command_is_no_c_field() {
        let of = |control| {
            let mut frame = vec![0, 0x2D, 0x2C, 1, 2, 3, 4, 5, 6, control];
            frame.extend(super::super::format::CRC.checksum(&frame).to_be_bytes());
            frame.extend([0x7A, 1, 0, 0, 0]);
            urgency(&facts(TelegramKind::OpenlinkIq, &frame).unwrap()).found.words().collect::<Vec<_>>()
        };
        assert_eq!(of(0x60), ["installation"]);
        for ordinary in [0x40, 0x46, 0x47, 0x48, 0x28] {
            assert!(of(ordinary).is_empty(), "{ordinary:02x}");
        }
    }

    #[test]
    fn error_flags_count_when_they_are_set_now() {
        let content = |name: &str, value: &str| {
            let record = Record { name: name.into(), value: Some(value.into()), unit: String::new(), real: false };
            Content { values: vec![Value { record, obis: None }], more: false, fault: None }
        };
        let shown = |name: &str, value: &str| {
            let Shown { found, visible } = of_values(&content(name, value));
            (found.has(Reason::ErrorFlags), visible.has(Reason::ErrorFlags))
        };
        assert_eq!(shown("error_flags", "16"), (true, true));
        assert_eq!(shown("error_flags", "0"), (false, true), "it could have told");
        assert_eq!(shown("error_flags[1]", "16"), (false, false));
    }

    #[test]
    fn every_reason_is_one_bit_with_a_word() {
        let all = Reason::ALL.iter().fold(Reasons::NONE, |set, (_, reason)| set.with(*reason));
        assert_eq!((all, all.words().count()), (Reasons::ALL, 9));
        assert_eq!(all.and(Reasons::NONE.with(Reason::AccessOffer)).words().collect::<Vec<_>>(), ["access-offer"]);
    }
}
