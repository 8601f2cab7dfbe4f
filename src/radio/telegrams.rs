//! `[telegrams]` of weir.toml: what becomes of what all receivers hear.

use std::time::Duration;

use super::desk::Pattern;
use crate::setting::{At, Problems};
use crate::wire::wmbus::Reason;
use crate::{choices, settings};

settings! {
    /// What becomes of the telegrams that all receivers hear. Meters are named "KAM.12345678.1b.16": manufacturer,
    /// number, version and device type as `weir radio` shows them; "*" stands for any part, "?" for any digit, and parts may be left
    /// out at the end.
    pub struct TelegramsSettings {
        /// The meters whose telegrams are forwarded; empty: all.
        pub allow: Vec<At<String>> = [],
        /// The meters whose telegrams are not forwarded.
        pub deny: Vec<At<String>> = [],
        /// How long an ordinary telegram waits for better receptions of itself by other receivers; an urgent one never waits.
        pub gather: At<Duration> = "500ms",
        /// How long the same telegram is recognised: from other receivers, repeaters, or a receiver that gives it twice.
        pub window: At<Duration> = "10s",
        /// What makes a telegram urgent.
        pub urgent: Vec<At<Urgency>> = ["openlinkiq-priority", "access-demand", "alarm-data", "alarm-message", "alarm-status"],
        /// How often a meter that stays in alarm is urgent again; its other telegrams are ordinary until something changes.
        pub reminder: At<Duration> = "1d",
        /// Meters of which not every telegram is wanted; the first entry that names a meter counts.
        pub sample: Vec<SampleSettings> = [],
    }
}

settings! {
    /// Meters of which only the newest telegram of each period is wanted. Urgent telegrams always pass.
    pub struct SampleSettings {
        /// Which meters.
        pub meters: Vec<At<String>> = ["*"],
        /// The period, aligned to the clock: "15m" means up to :00, :15, :30 and :45.
        pub every: At<Duration> = "15m",
    }
}

impl Default for TelegramsSettings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            gather: At::nowhere(Duration::from_millis(500)),
            window: At::nowhere(Duration::from_secs(10)),
            urgent: [
                Urgency::OpenlinkiqPriority,
                Urgency::AccessDemand,
                Urgency::AlarmData,
                Urgency::AlarmMessage,
                Urgency::AlarmStatus,
            ]
            .map(At::nowhere)
            .into(),
            reminder: At::nowhere(Duration::from_hours(24)),
            sample: Vec::new(),
        }
    }
}

choices! {
    /// What can make a telegram urgent; all but the last show without a key.
    pub enum Urgency {
        /// The control field of an OpenlinkIQ frame has its priority bit (bit 0) set.
        OpenlinkiqPriority = "openlinkiq-priority",
        /// A meter is being installed (C field SND-IR).
        Installation = "installation",
        /// The meter demands access (ACC-DMD).
        AccessDemand = "access-demand",
        /// The meter offers access (ACC-NR).
        AccessOffer = "access-offer",
        /// The meter marks the telegram by itself (extended link layer, bit P); some makers always set it.
        LinkPriority = "link-priority",
        /// The telegram is an alarm message (CI 71, 74, 75).
        AlarmMessage = "alarm-message",
        /// The application's status says alarm (status bits 0 and 1).
        AlarmStatus = "alarm-status",
        /// An answer says that alarm data wait (bit ACD of RSP-UD).
        AlarmData = "alarm-data",
        /// The meter's error flags, which stand among its values, are not zero; only where a receiver decodes
        /// (`forward`).
        ErrorFlags = "error-flags",
    }
}

impl Urgency {
    /// The reason that it names.
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::OpenlinkiqPriority => Reason::PriorityBit,
            Self::Installation => Reason::Installation,
            Self::AccessDemand => Reason::AccessDemand,
            Self::AccessOffer => Reason::AccessOffer,
            Self::LinkPriority => Reason::LinkPriority,
            Self::AlarmMessage => Reason::AlarmMessage,
            Self::AlarmStatus => Reason::AlarmStatus,
            Self::AlarmData => Reason::AlarmData,
            Self::ErrorFlags => Reason::ErrorFlags,
        }
    }
}

/// The longest time that a telegram may be held or recognised.
const LONGEST_WINDOW: Duration = Duration::from_mins(5);

/// Says everything that is wrong with these settings; `decodes`: some receiver does.
pub(super) fn check(settings: &TelegramsSettings, decodes: bool, problems: &mut Problems) {
    let opened = settings.urgent.iter().find(|reason| ***reason == Urgency::ErrorFlags);
    if let Some(reason) = opened.filter(|_| !decodes) {
        let message = "error-flags has no effect: they stand among the values, and no [[radio]] decodes them (forward = \"both\" or \"decoded\")";
        problems.warning(reason.span(), message);
    }
    let sampled = settings.sample.iter().flat_map(|sample| &sample.meters);
    for pattern in settings.allow.iter().chain(&settings.deny).chain(sampled) {
        if Pattern::parse(pattern).is_none() {
            let message =
                format!("\"{}\" names no meters; write such as \"KAM.12345678.1b.16\" or \"KAM.*\"", **pattern);
            problems.error(pattern.span(), message);
        }
    }
    for sample in settings.sample.iter().filter(|sample| sample.every.is_zero()) {
        problems.error(sample.every.span(), "every is zero; write how often a telegram is wanted, such as \"15m\"");
    }
    if *settings.window > LONGEST_WINDOW {
        problems.error(
            settings.window.span(),
            "window is longer than \"5m\", in which meters may well send the same again",
        );
    }
    if *settings.gather > *settings.window {
        problems.error(settings.gather.span(), "gather is longer than window");
    }
    if settings.reminder.is_zero() {
        problems.error(settings.reminder.span(), "reminder is zero; write how often an alarm that stays is told again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Setting;

    #[test]
    fn a_reason_has_the_same_word_in_settings_and_explanations() {
        let crate::setting::Shape::Choice(words) = Urgency::shape() else { panic!("no choice") };
        let words: Vec<_> = words.into_iter().map(|(word, _)| word).collect();
        let all: Vec<_> = Reason::ALL.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, all);
        assert_eq!(Urgency::AlarmData.reason().word(), Urgency::AlarmData.word());
    }

    #[test]
    fn the_defaults_of_the_file_and_of_the_type_are_the_same() {
        assert_eq!(TelegramsSettings::stand_in().unwrap().printed(), TelegramsSettings::default().printed());
    }
}
