//! What makes a telegram urgent, as far as that shows without a key.
//!
//! Each source of urgency is a [`Reason`] of its own, so that each can be switched: what one maker
//! uses for leaks, another sets in every telegram. Nothing here limits how often a meter is urgent.

use std::fmt;

use super::Telegram;
use super::application::Content;
use super::layers::Upper;

/// A source of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// C field 46, SND-IR: somebody installs the meter and waits.
    Installation = 1 << 0,
    /// C field 48, ACC-DMD: the meter demands access because it has something urgent.
    AccessDemand = 1 << 1,
    /// C field 47, ACC-NR: the meter offers access, without data.
    Access = 1 << 2,
    /// The ACD bit of an answer (C fields 28 and 38): alarm data wait to be fetched.
    AlarmWaiting = 1 << 3,
    /// The priority bit of the extended link layer.
    LinkPriority = 1 << 4,
    /// CI fields 71, 74 and 75: the telegram is an alarm.
    AlarmFrame = 1 << 5,
    /// The status of the transport header says alarm (both low bits set).
    StatusAlarm = 1 << 6,
    /// Error flags among the values are not zero; this one shows only in an opened telegram.
    ErrorFlags = 1 << 7,
}

impl Reason {
    /// Every reason with its word, for settings and logs.
    pub const ALL: &[(&str, Self)] = &[
        ("installation", Self::Installation),
        ("access-demand", Self::AccessDemand),
        ("access", Self::Access),
        ("alarm-waiting", Self::AlarmWaiting),
        ("link-priority", Self::LinkPriority),
        ("alarm-frame", Self::AlarmFrame),
        ("status-alarm", Self::StatusAlarm),
        ("error-flags", Self::ErrorFlags),
    ];
}

/// A set of reasons.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reasons(u8);

impl Reasons {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(u8::MAX);

    /// The same and one more.
    #[must_use]
    pub const fn with(self, reason: Reason) -> Self {
        Self(self.0 | reason as u8)
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

    /// Tells whether a reason is among them.
    pub const fn has(self, reason: Reason) -> bool {
        self.0 & reason as u8 != 0
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

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.words()).finish()
    }
}

/// The reasons that a telegram shows to everyone.
pub fn urgency(telegram: &Telegram<'_>) -> Reasons {
    const RELAYED: u8 = 0x80;
    let control = telegram.control.byte() & !RELAYED;
    of_layers(&telegram.upper())
        .with_if(control == 0x46, Reason::Installation)
        .with_if(control == 0x47, Reason::Access)
        .with_if(control == 0x48, Reason::AccessDemand)
        .with_if(control & 0x6F == 0x28, Reason::AlarmWaiting)
}

/// The reasons above the link layer; those of an OpenlinkIQ telegram besides its priority bit.
pub fn of_layers(upper: &Upper<'_>) -> Reasons {
    let ci = upper.tpl.as_ref().map_or(0, |tpl| tpl.ci);
    let header = upper.tpl.as_ref().and_then(|tpl| tpl.header);
    Reasons::NONE
        .with_if(upper.ell.is_some_and(super::Ell::is_priority), Reason::LinkPriority)
        .with_if(matches!(ci, 0x71 | 0x74 | 0x75), Reason::AlarmFrame)
        .with_if(header.is_some_and(super::TplHeader::is_alarm), Reason::StatusAlarm)
}

/// The reasons among the values of an opened telegram; those of earlier times do not count.
pub fn of_values(content: &Content) -> Reasons {
    let flags = content.values.iter().filter(|value| value.record.name == "error_flags");
    let set = flags.filter_map(|value| value.record.value.as_deref()).any(|flags| flags.bytes().any(|b| b != b'0'));
    Reasons::NONE.with_if(set, Reason::ErrorFlags)
}

#[cfg(test)]
mod tests {
    use super::super::application::Value;
    use super::super::decode;
    use super::*;
    use crate::wire::mbus::Record;

    fn words(control: u8, payload: &[u8]) -> Vec<&'static str> {
        let length = u8::try_from(9 + payload.len()).unwrap();
        let bytes = [&[length, control, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16], payload].concat();
        urgency(&decode(&bytes).unwrap()).words().collect()
    }

    #[test]
    fn each_source_of_urgency_is_a_reason_of_its_own() {
        let quiet = [0x7A, 1, 0, 0, 0];
        assert!(words(0x44, &quiet).is_empty() && words(0x08, &quiet).is_empty() && words(0x18, &quiet).is_empty());
        assert_eq!(words(0x46, &quiet), ["installation"]);
        assert_eq!(words(0xC8, &quiet), ["access-demand"], "relayed");
        assert_eq!(words(0x47, &quiet), ["access"]);
        assert_eq!((words(0x28, &quiet), words(0x38, &quiet)), (vec!["alarm-waiting"], vec!["alarm-waiting"]));
        assert_eq!(words(0x44, &[0x8C, 0x08, 1, 0x78]), ["link-priority"]);
        assert!(words(0x44, &[0x8C, 0xF7, 1, 0x78]).is_empty());
        assert_eq!(words(0x44, &[0x74, 1, 0, 0, 0]), ["alarm-frame"]);
        assert_eq!(words(0x44, &[0x71, 1]), ["alarm-frame"]);
        assert_eq!(words(0x44, &[0x7A, 1, 0x03, 0, 5]), ["status-alarm"]);
        assert!(words(0x44, &[0x7A, 1, 0xFD, 0, 5]).is_empty(), "busy, and every other bit");
        assert_eq!(words(0x46, &[0x8C, 0x08, 1, 0x75, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x0B, 0, 0]).len(), 4);
    }

    #[test]
    fn error_flags_count_when_they_are_set_now() {
        let content = |name: &str, value: &str| {
            let record = Record { name: name.into(), value: Some(value.into()), unit: String::new(), real: false };
            Content { values: vec![Value { record, obis: None }], more: false, fault: None }
        };
        assert!(of_values(&content("error_flags", "16")).has(Reason::ErrorFlags));
        assert!(of_values(&content("error_flags", "0")).is_empty());
        assert!(of_values(&content("error_flags[1]", "16")).is_empty());
    }

    #[test]
    fn every_reason_is_one_bit_with_a_word() {
        let all = Reason::ALL.iter().fold(Reasons::NONE, |set, (_, reason)| set.with(*reason));
        assert_eq!((all, all.words().count()), (Reasons::ALL, 8));
        assert_eq!(all.and(Reasons::NONE.with(Reason::Access)).words().collect::<Vec<_>>(), ["access"]);
    }
}
