//! `[control]` of weir.toml, as far as changes of the configuration need it.

use std::time::Duration;

use crate::setting::{At, Later, Problems};
use crate::settings;

/// The shortest trial.
pub const SHORTEST_TRIAL: Duration = Duration::from_secs(10);
/// The longest trial.
pub const LONGEST_TRIAL: Duration = Duration::from_hours(24);

settings! {
    /// Remote control by MQTT and SMS.
    pub struct ControlSettings {
        /// A change of the configuration goes back by itself unless it has proved itself within so long: "10s" to "24h"
        /// (docs/changes.md).
        pub confirm: At<Duration> = "10m",
        /// Topics at which commands are taken.
        pub at_topics: Option<Later>,
        /// Where commands are answered.
        pub reply_topic: Option<Later>,
        /// Commands by SMS.
        pub sms: Option<Later>,
    }
}

/// Says what is wrong with it.
pub(in crate::config) fn check(settings: &ControlSettings, problems: &mut Problems) {
    if super::bounded(*settings.confirm).is_err() {
        problems.error(settings.confirm.span(), "control.confirm must be from \"10s\" to \"24h\"");
    }
}
