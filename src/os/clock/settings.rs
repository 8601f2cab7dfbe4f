//! `[clock]` of weir.toml.

use std::path::PathBuf;
use std::time::Duration;

use crate::setting::{Node, Printed, Problems, Setting, Shape};
use crate::settings;

settings! {
    /// When the wall clock is believed, and what happens until then.
    pub struct ClockSettings {
        /// Who says that the wall clock is right. "kernel": an NTP client that keeps the kernel's
        /// clock (chronyd with rtcsync, ntpd, systemd-timesyncd). "always": a host that keeps it.
        /// A path: the clock is right while this file is there, for a script that sets the clock
        /// from a modem or GPS.
        pub trust: Trust = "kernel",
        /// How long after the start ordinary frames may wait for a clock that has obviously not
        /// been set yet; priority frames never wait.
        pub patience: Duration = "15m",
    }
}

impl Default for ClockSettings {
    fn default() -> Self {
        Self { trust: Trust::Kernel, patience: Duration::from_mins(15) }
    }
}

/// Who says that the wall clock is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The kernel, told by an NTP client.
    Kernel,
    /// Everybody: it always is.
    Always,
    /// Whoever makes this file.
    File(PathBuf),
}

impl Setting for Trust {
    fn shape() -> Shape {
        Shape::Value("`\"kernel\"`, `\"always\"`, or the absolute path of a file")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let what = "\"kernel\", \"always\" or an absolute path in quotes";
        match node.text(what, problems)? {
            "kernel" => Some(Self::Kernel),
            "always" => Some(Self::Always),
            path if path.starts_with('/') => Some(Self::File(path.into())),
            other => node.refused(&format!("is \"{other}\", but must be {what}"), problems),
        }
    }

    fn stand_in() -> Option<Self> {
        Some(Self::Kernel)
    }

    fn printed(&self) -> Printed {
        match self {
            Self::Kernel => Printed::text("kernel"),
            Self::Always => Printed::text("always"),
            Self::File(path) => path.printed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use toml::de::{DeTable, DeValue};

    use super::*;

    fn read(text: &str) -> Result<ClockSettings, String> {
        let table = DeValue::Table(DeTable::parse(text).unwrap().into_inner());
        let mut problems = Problems::new();
        let settings = ClockSettings::read(&Node::new(&table, 0..0, "clock"), &mut problems);
        let problems: String = problems.located(text).iter().map(ToString::to_string).collect();
        settings.filter(|_| problems.is_empty()).ok_or(problems)
    }

    #[test]
    fn the_clock_is_trusted_by_word_or_by_file() {
        let (unset, default) = (read("").unwrap(), ClockSettings::default());
        assert_eq!((&unset.trust, unset.patience), (&default.trust, default.patience));
        assert_eq!(read("trust = 'always'").unwrap().trust, Trust::Always);
        let file = read("trust = '/run/gps'\npatience = '0s'").unwrap();
        assert_eq!((&file.trust, file.patience), (&Trust::File("/run/gps".into()), Duration::ZERO));
        assert_eq!(file.trust.printed(), Printed::text("/run/gps"));
        let refused = read("trust = 'ntp'").unwrap_err();
        assert!(refused.contains("clock.trust is \"ntp\", but must be \"kernel\", \"always\" or"), "{refused}");
    }
}
