//! `[control]` of weir.toml.

use std::path::PathBuf;
use std::time::Duration;

use super::Right;
use super::firmware::FirmwareSettings;
use super::origin::masked_number;
use crate::setting::{At, Count, Problems, Topic};
use crate::{choices, settings};

settings! {
    /// Remote control: commands in AT style by MQTT, SMS, on a port and on this machine (docs/control.md).
    pub struct ControlSettings {
        /// Where commands are published, up to eight topics; one that all gateways share commands the whole fleet.
        pub at_topics: At<Vec<Topic>> = [],
        /// Where the answers go.
        pub reply_topic: Option<At<Topic>>,
        /// Who may do what. Unset: the topics of `at_topics` and the numbers of `sms.allow` may do everything but replace the
        /// firmware, users of this machine everything but unlock, what hangs on a port may observe.
        pub grant: Vec<Grant> = [],
        /// Signed commands, so that a stolen broker password does not command the fleet.
        pub signatures: Signatures = {},
        /// Commands a minute from one origin; more are refused.
        pub per_minute: At<Count<1, 600>> = 30,
        /// A change of the configuration goes back by itself unless it has proved itself within so long: "10s" to "24h"
        /// (docs/changes.md).
        pub confirm: At<Duration> = "10m",
        /// Commands on the line of a tunnel, inside `<MTXTUNNEL>` tags: the ports where that is allowed.
        pub line_ports: At<Vec<String>> = [],
        /// What the tags on a line are called.
        pub line_tag: At<String> = "MTXTUNNEL",
        /// A command on a port waits so long for what the device answers.
        pub serial_answer: At<Duration> = "5s",
        /// Commands by SMS.
        pub sms: SmsSettings = {},
        /// New firmware by command.
        pub firmware: FirmwareSettings = {},
    }
}

settings! {
    /// What somebody may do.
    pub struct Grant {
        /// `topic:...` (one of `at_topics`), `sms:+34...` (or `sms:*` for every number), `local:USER` (or `local:*`),
        /// `line:PORT`, `key:NAME` (who signs with that key).
        pub who: At<String>,
        /// What is allowed.
        pub rights: At<Vec<Right>>,
        /// Only when the command is signed by a key that has the right, too.
        pub signed: bool = false,
        /// Whether he may unlock a locked gateway and change it while it is locked.
        pub unlock: bool = false,
    }
}

settings! {
    /// Signed commands (docs/control.md): Ed25519 over the command, the gateway, the time and a nonce.
    pub struct Signatures {
        /// A file with one public key a line: its name and 32 bytes in base64.
        pub keys_file: Option<At<PathBuf>>,
        /// Whether commands must be signed.
        pub need: Need = "optional",
        /// A signed command is good from 30 s before its time until so long after it, once.
        pub window: At<Duration> = "5m",
    }
}

choices! {
    /// Which commands must be signed.
    pub enum Need {
        /// None; one that is signed must be signed well.
        Optional = "optional",
        /// Those that write, configure or replace the firmware.
        Changes = "changes",
        /// All from topics and phones.
        All = "all",
    }
}

settings! {
    /// Commands by SMS (docs/control.md).
    pub struct SmsSettings {
        /// The AT port of the modem, also without `[modem]`. Unset: what `[modem]` says, else the board.
        pub modem: Option<At<PathBuf>>,
        /// The numbers that may command, in international form.
        pub allow: At<Vec<String>> = [],
        /// Whether every number may command; `check` warns.
        pub allow_all: bool = false,
        /// Whether commands by SMS (`MTXTUNNEL AT...`) are carried out.
        pub enabled: bool = true,
        /// Whether they are answered by SMS.
        pub reply: bool = false,
        /// Short texts that stand for a command: `TEXT>AT command`.
        pub alias: At<Vec<String>> = [],
        /// What an alias is answered with: `result` is the command's own answer; anything else is sent as it is.
        pub alias_response: String = "result",
        /// What is sent when an alias' command fails.
        pub alias_error: String = "Error",
        /// An SMS that begins with it goes, without it, to the first tunnel's port; the device's answer comes back. As with RS232,
        /// `<HEX>0D</HEX>` stands for bytes, and the number needs the right to write.
        pub tunnel_prefix: Option<String>,
        /// A call from a number of `allow`, and the text `mtxtunnel on`, have the broker tried at once; this also answers with the IP
        /// address.
        pub send_ip: bool = false,
        /// SMS that weir sends by itself: events `start`, `offline`, `online`, `config`, `meter-silent`, `disk`.
        pub alert: Vec<Alert> = [],
    }
}

settings! {
    /// An SMS that weir sends by itself.
    pub struct Alert {
        /// What happened: `start`, `offline` (the broker was away for `after`), `online`, `config`, `meter-silent`, `disk`.
        pub on: At<String>,
        /// To whom.
        pub to: At<Vec<String>>,
        /// How long `offline`, `meter-silent` and `disk` must last before they are told; `online` is told after an absence of so long.
        pub after: Duration = "15m",
        /// At most one in this time, at least a minute.
        pub pause: At<Duration> = "1h",
        /// The text; `{id}`, `{imei}`, `{what}` and `{detail}` are replaced.
        pub text: String = "{id}: {what} {detail}",
    }
}

/// The shortest trial of a change.
pub const SHORTEST_TRIAL: Duration = Duration::from_secs(10);
/// The longest trial of a change.
pub const LONGEST_TRIAL: Duration = Duration::from_hours(24);

/// What an SMS that commands begins with.
const SMS_HEADER: &str = "MTXTUNNEL ";

impl SmsSettings {
    /// The command in an SMS, and whether an alias stands for it; `None` when it is no command.
    pub fn command_in(&self, text: &str) -> Option<(String, bool)> {
        let text = text.trim();
        if text.get(..SMS_HEADER.len()).is_some_and(|head| head.eq_ignore_ascii_case(SMS_HEADER)) {
            return text.get(SMS_HEADER.len()..).map(|command| (command.to_owned(), false));
        }
        // Signed commands stand for themselves.
        if text.starts_with('{') {
            return Some((text.to_owned(), false));
        }
        let aliases = self.alias.iter().filter_map(|alias| alias.split_once('>'));
        aliases
            .filter(|(short, _)| short.trim().eq_ignore_ascii_case(text))
            .map(|(_, command)| (command.trim().to_owned(), true))
            .next()
    }
}

/// The most topics: some brokers take no more in one subscription.
const MOST_TOPICS: usize = 8;

/// Says everything that is wrong with the settings.
pub fn check(settings: &ControlSettings, problems: &mut Problems) {
    if settings.at_topics.len() > MOST_TOPICS {
        problems.error(settings.at_topics.span(), format!("more than {MOST_TOPICS} topics; leave some out"));
    }
    if !settings.at_topics.is_empty() && settings.reply_topic.is_none() {
        let message = "commands are carried out, but nobody hears the answers: set reply_topic";
        problems.warning(settings.at_topics.span(), message);
    }
    for grant in &settings.grant {
        if super::trust::who(&grant.who).is_none() {
            let message = format!(
                "\"{}\" names nobody; write topic:..., sms:+34..., sms:*, local:USER, local:*, line:PORT or key:NAME",
                *grant.who
            );
            problems.error(grant.who.span(), message);
        }
        if let Some(number) = grant.who.trim().strip_prefix("sms:").map(str::trim).filter(|number| is_national(number))
        {
            problems.warning(grant.who.span(), national(number));
        }
        if grant.rights.is_empty() {
            problems.warning(grant.rights.span(), "grants nothing");
        }
    }
    let within = |at: &At<Duration>, range: std::ops::RangeInclusive<Duration>, what: &str, problems: &mut Problems| {
        if !range.contains(&**at) {
            problems.error(at.span(), format!("must be from {what}"));
        }
    };
    within(&settings.confirm, SHORTEST_TRIAL..=LONGEST_TRIAL, "\"10s\" to \"24h\"", problems);
    within(
        &settings.signatures.window,
        Duration::from_secs(10)..=Duration::from_hours(24),
        "\"10s\" to \"24h\"",
        problems,
    );
    within(
        &settings.serial_answer,
        Duration::from_millis(100)..=Duration::from_mins(1),
        "\"100ms\" to \"1m\"",
        problems,
    );
    signatures(&settings.signatures, problems);
    let tag = &settings.line_tag;
    if tag.is_empty() || tag.len() > 32 || !tag.chars().all(|c| c.is_ascii_alphanumeric()) {
        problems.error(tag.span(), "must be 1 to 32 letters and digits");
    }
    sms(&settings.sms, problems);
    super::firmware::check(&settings.firmware, problems);
}

fn signatures(settings: &Signatures, problems: &mut Problems) {
    match &settings.keys_file {
        None if settings.need != Need::Optional => {
            let message =
                "signed commands are needed, but there is no signatures.keys_file; nothing could be commanded";
            problems.error(settings.window.span(), message);
        }
        Some(path) => match crate::os::file::read_small(path, 64 << 10) {
            Ok(content) => {
                if let Err(why) = super::signed::keys(&String::from_utf8_lossy(&content)) {
                    problems.error(path.span(), format!("{}: {why}", path.display()));
                }
            }
            Err(error) => problems.warning(path.span(), format!("{} can't be read: {error}", path.display())),
        },
        None => {}
    }
}

fn sms(settings: &SmsSettings, problems: &mut Problems) {
    let number = |at: &At<Vec<String>>, problems: &mut Problems| {
        for number in at.iter().filter(|number| !super::verb::is_number(number)) {
            problems.error(at.span(), format!("\"{number}\" is no phone number; write it as +34666123456"));
        }
    };
    number(&settings.allow, problems);
    for number in settings.allow.iter().filter(|number| is_national(number)) {
        problems.warning(settings.allow.span(), national(number));
    }
    if settings.allow_all {
        problems.warning(settings.allow.span(), "allow_all: every phone on earth may command this gateway");
    }
    for alias in settings.alias.iter() {
        let command = alias.split_once('>').filter(|(text, _)| !text.trim().is_empty()).map(|(_, command)| command);
        if command.is_none_or(|command| crate::wire::at::decode(command).is_err()) {
            let message = format!("\"{alias}\" is no alias; write TEXT>AT command");
            problems.error(settings.alias.span(), message);
        }
    }
    for alert in &settings.alert {
        number(&alert.to, problems);
        if !ALERTS.contains(&alert.on.as_str()) {
            problems.error(alert.on.span(), format!("\"{}\" is no event; known are {}", *alert.on, ALERTS.join(", ")));
        }
        if alert.to.is_empty() {
            problems.error(alert.to.span(), "an alert to nobody; name at least one number");
        }
        if *alert.pause < Duration::from_mins(1) {
            problems.error(alert.pause.span(), "pause must be at least \"1m\": every alert costs a message");
        }
    }
}

/// Whether it is a phone number without its country code; one of a few digits is a short number, which has none.
fn is_national(number: &str) -> bool {
    super::verb::is_number(number) && !number.starts_with('+') && number.len() > 6
}

fn national(number: &str) -> String {
    let shown = masked_number(number);
    format!(
        "\"{shown}\" has no country code, but networks tell who sent an SMS with it: it could not command; write it like +34666123456"
    )
}

/// What weir tells by SMS by itself.
pub const ALERTS: [&str; 6] = ["start", "offline", "online", "config", "meter-silent", "disk"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Setting;

    #[test]
    fn numbers_that_could_never_command_are_named_masked() {
        let mut settings = ControlSettings::stand_in().unwrap();
        let numbers = ["+34666123456", "666123456", "2525"];
        settings.sms.allow = At::nowhere(numbers.map(str::to_owned).to_vec());
        let (who, rights) = (At::nowhere("sms: 0034666123456".to_owned()), At::nowhere(vec![Right::Observe]));
        settings.grant = vec![Grant { who, rights, signed: false, unlock: false }];
        let mut problems = Problems::new();
        check(&settings, &mut problems);
        let told: Vec<_> = problems.located("").into_iter().map(|problem| problem.message).collect();
        let starts = ["\"003********56\" has no country code", "\"666****56\" has no country code"];
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().zip(starts).all(|(told, start)| told.starts_with(start)), "{told:?}");
    }
}
