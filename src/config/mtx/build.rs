//! Parameters to a draft of weir.toml, and what is said of each.

use super::draft::Draft;
use super::form::{Around, Form, is_zero, on_off, quoted, with_imei};
use super::table::Becomes;
use super::understand::{Lint, Understood};

mod bridge;

/// The stock template of the status message; `None` until the status document knows templates.
const STATUS_TEMPLATE: Option<&str> = Some("mtx");

/// So many of a numbered family are taken up.
const MOST_OF_A_FAMILY: usize = 64;

/// What became of a parameter, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It decided what was built.
    Used,
    /// It is a key of weir.toml.
    Mapped,
    /// It does nothing here.
    Ignored,
    /// Nobody knows it.
    Unknown,
}

impl Fate {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Mapped => "mapped",
            Self::Ignored => "ignored",
            Self::Unknown => "unknown",
        }
    }
}

/// What became of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// In one word.
    pub fate: Fate,
    /// The key and its value, or why not.
    pub became: String,
}

/// What a config.txt does not say, but this gateway knows.
pub(super) struct Gateway<'a> {
    /// The board's name, for sentences.
    pub(super) board: &'a str,
    /// Its ports in order; `[mtx] ports` of site.toml says another one.
    pub(super) ports: Vec<String>,
    /// Whether there is a modem.
    pub(super) modem: bool,
    /// Whether `[IMEI]` will be known.
    pub(super) imei: bool,
    /// Whether site.toml names where a call-back or client may connect to.
    pub(super) centre: bool,
    /// Where the secret of a parameter is kept.
    pub(super) secret: &'a dyn Fn(&str) -> String,
}

/// What is made of a file.
pub(super) struct Built<'a> {
    all: &'a [Understood],
    gateway: &'a Gateway<'a>,
    pub(super) draft: Draft,
    pub(super) outcomes: Vec<Option<Outcome>>,
    pub(super) lints: Vec<Lint>,
    comm: Option<String>,
    comm2: Option<String>,
    /// The port whose tunnel must have its mode, and whether only named addresses may connect there.
    bridged: Option<(String, bool)>,
}

/// Makes the draft.
pub(super) fn build<'a>(all: &'a [Understood], gateway: &'a Gateway<'a>) -> Built<'a> {
    let (draft, outcomes) = (Draft::default(), vec![None; all.len()]);
    let mut built = Built { all, gateway, draft, outcomes, lints: Vec::new(), comm: None, comm2: None, bridged: None };
    built.ports();
    built.broker();
    built.tunnel();
    built.second_port();
    if built.switch("FIREWALL_enabled") == Some(false) {
        built.used("FIREWALL_enabled", "nothing is filtered by address");
    }
    built.control();
    built.status();
    built.watchdog();
    built.rest();
    built
}

impl Built<'_> {
    /// The parameter that counts, unless it is empty.
    fn index(&self, name: &str) -> Option<usize> {
        self.all
            .iter()
            .position(|p| p.name() == name && p.found.is_some() && p.instead.is_none() && !p.value.is_empty())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.index(name).and_then(|at| self.all.get(at)).map(|p| p.value.as_str())
    }

    /// A value of on or off; another one is told and counts as missing.
    fn switch(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        match on_off(value) {
            Ok(on) => Some(on),
            Err(why) => {
                self.warn(name, format!("{name} {why}; the line does not count"));
                None
            }
        }
    }

    fn warn(&mut self, name: &str, message: impl Into<String>) {
        let line = self.index(name).and_then(|at| self.all.get(at)).map_or(0, |p| p.line);
        self.lints.push(Lint::warning(line, message));
    }

    fn say(&mut self, name: &str, fate: Fate, became: impl Into<String>) {
        if let Some(slot) = self.index(name).and_then(|at| self.outcomes.get_mut(at)) {
            *slot = Some(Outcome { fate, became: became.into() });
        }
    }

    fn used(&mut self, name: &str, became: impl Into<String>) {
        self.say(name, Fate::Used, became);
    }

    fn ignored(&mut self, names: &[&str], why: &str) {
        names.iter().for_each(|name| self.say(name, Fate::Ignored, why));
    }

    /// Maps parameters of the table onto their keys.
    fn map(&mut self, names: &[&str]) {
        for name in names {
            if let Some(at) = self.index(name) {
                self.map_one(at);
            }
        }
    }

    /// Maps a numbered family, in the order of its numbers.
    fn map_all(&mut self, row: &str) {
        let of_row = |p: &Understood| p.found.as_ref().filter(|f| f.row.name == row).and_then(|f| f.number);
        let mut found: Vec<_> = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, p)| p.instead.is_none() && !p.value.is_empty())
            .filter_map(|(at, p)| of_row(p).map(|number| (number, at)))
            .collect();
        found.sort_unstable();
        let beyond = found.split_off(found.len().min(MOST_OF_A_FAMILY));
        let line = beyond.first().and_then(|(_, at)| self.all.get(*at)).map(|p| p.line);
        if let Some(line) = line {
            let message = format!("more than {MOST_OF_A_FAMILY} {row}: {} lines do not count", beyond.len());
            self.lints.push(Lint::warning(line, message));
        }
        for (_, at) in beyond {
            if let Some(slot) = self.outcomes.get_mut(at) {
                *slot = Some(Outcome { fate: Fate::Ignored, became: format!("more than {MOST_OF_A_FAMILY} of them") });
            }
        }
        found.into_iter().for_each(|(_, at)| self.map_one(at));
    }

    fn map_one(&mut self, at: usize) {
        let Some(parameter) = self.all.get(at) else { return };
        let Some(found) = &parameter.found else { return };
        let Becomes::Key(key, form) = found.row.becomes else { return };
        let (comm, comm2) = (self.comm.clone().unwrap_or_default(), self.comm2.clone().unwrap_or_default());
        let key = key.replace("{comm}", &comm).replace("{comm2}", &comm2);
        let old = self.draft.value(&key).map(str::to_owned);
        // Elements are put in the order of their numbers, so that none is missing.
        let number = found.number.map(|_| usize::MAX);
        let around = Around { old: old.as_deref(), number, comm: &comm };
        let mut value = parameter.value.clone();
        if matches!(form, Form::Name | Form::Topic) && !self.gateway.imei {
            value = with_imei(&value, "{id}");
        } else if matches!(form, Form::Name | Form::Topic) {
            value = with_imei(&value, "[IMEI]");
        }
        let abroad = value.strip_prefix("00").filter(|_| found.row.name == "SMS_validPhone#");
        if let Some(number) = abroad.map(|number| format!("+{number}")) {
            let message = format!("{} is understood as {number}: phones' numbers come with +", found.name);
            self.lints.push(Lint::note(parameter.line, message));
            value = number;
        }
        match form.to_weir(&value, around) {
            Ok(Some(new)) => {
                self.draft.set(&key, &new, Some(at), "");
                let became =
                    if number.is_some() { format!("{key} has {}", quoted(&value)) } else { format!("{key} = {new}") };
                let outcome = Outcome { fate: Fate::Mapped, became };
                if let Some(slot) = self.outcomes.get_mut(at) {
                    *slot = Some(outcome);
                }
            }
            Ok(None) => {}
            Err(why) => {
                let message = format!("{} {why}; the line does not count", found.name);
                if let Some(slot) = self.outcomes.get_mut(at) {
                    *slot = Some(Outcome { fate: Fate::Ignored, became: message.clone() });
                }
                self.lints.push(Lint::warning(parameter.line, message));
            }
        }
    }

    /// Takes back a parameter that a weir.toml can't hold.
    pub(super) fn reject(&mut self, at: usize, why: &str) {
        let Some(parameter) = self.all.get(at) else { return };
        let message = format!("{} does not count: {why}", parameter.name());
        self.lints.push(Lint::warning(parameter.line, message.clone()));
        if let Some(slot) = self.outcomes.get_mut(at) {
            *slot = Some(Outcome { fate: Fate::Ignored, became: message });
        }
    }

    fn ports(&mut self) {
        let inverted = self.switch("MTX_invertedCom").unwrap_or(false);
        let mut ports = self.gateway.ports.iter().take(2).cloned().collect::<Vec<_>>();
        if inverted && ports.len() == 2 {
            ports.reverse();
        }
        let shown = format!("the first port is {}, the second {}", named(ports.first()), named(ports.get(1)));
        self.used("MTX_invertedCom", shown);
        (self.comm, self.comm2) = (ports.first().cloned(), ports.get(1).cloned());
        if inverted && self.comm2.is_none() {
            let message = format!("MTX_invertedCom needs a second port, but the board {} has none", self.gateway.board);
            self.warn("MTX_invertedCom", message);
        }
        let names = ["COMM_baudrate", "COMM_bitsperchar", "COMM_parity", "COMM_stopbits"];
        match self.comm.clone() {
            Some(port) => {
                self.draft.ports.push(port);
                self.map(&names);
            }
            None => {
                let message = format!("the board {} names no serial port; name one in site.toml", self.gateway.board);
                self.ignored(&names, &message);
                self.lints.push(Lint::warning(0, message));
            }
        }
        for name in ["COMM_autorts", "COMM_autocts", "COMM2_autorts", "COMM2_autocts"] {
            if self.switch(name) == Some(true) {
                self.warn(name, format!("{name} is on, but weir's lines have no hardware flow control"));
            }
        }
    }

    fn broker(&mut self) {
        const NAMES: [&str; 5] = ["MQTT_server", "MQTT_id", "MQTT_login", "MQTT_keepalive", "MQTT_password"];
        if self.switch("MQTT_enabled") == Some(false) {
            self.used("MQTT_enabled", "MQTT_server does not count");
            return self.ignored(&NAMES, "MQTT_enabled is off");
        }
        self.used("MQTT_enabled", "there is a broker");
        self.map(&["MQTT_server", "MQTT_id", "MQTT_login", "MQTT_keepalive"]);
        if self.value("MQTT_password").is_some() && self.value("MQTT_login").is_none() {
            let why = "MQTT has no password without a user name (MQTT_login)";
            self.warn("MQTT_password", format!("MQTT_password does not count: {why}"));
            return self.ignored(&["MQTT_password"], why);
        }
        self.secret("MQTT_password", "broker[1].password_file");
    }

    /// Has a key name where a secret is kept.
    fn secret(&mut self, name: &str, key: &str) {
        let Some(at) = self.index(name) else { return };
        let place = quoted(&(self.gateway.secret)(name));
        self.draft.set(key, &place, Some(at), "");
        self.say(name, Fate::Mapped, format!("{key} = {place}"));
    }

    fn control(&mut self) {
        self.map_all("MQTT_attopic#");
        self.map(&["MQTT_atrtopic"]);
        let by_sms =
            self.all.iter().any(|p| p.name().starts_with("SMS_validPhone")) || self.value("SMS_allPhones").is_some();
        self.map(&["SMS_ATEnabled", "SMS_ATResponse", "SMS_allPhones", "SMS_sendIP", "SMS_tunnelString"]);
        self.map_all("SMS_validPhone#");
        self.map_all("SMS_alias#");
        self.map(&["SMS_aliasResponse", "SMS_aliasError"]);
        if by_sms && self.value("SMS_ATEnabled").is_none() {
            self.draft.set("control.sms.enabled", "false", None, "SMS_ATEnabled is missing");
        }
        self.draft.modem = self.gateway.modem;
        if self.gateway.modem {
            return self.secret("MTX_PIN", "modem.pin_file");
        }
        let why = format!("the board {} names no modem: write [modem] with device into site.toml", self.gateway.board);
        self.ignored(&["MTX_PIN"], &why);
        if by_sms || self.value("MTX_PIN").is_some() {
            let name = if self.value("MTX_PIN").is_some() { "MTX_PIN" } else { "SMS_ATEnabled" };
            self.warn(name, format!("{why}; until then nothing comes by SMS"));
        }
    }

    fn status(&mut self) {
        const NAMES: [&str; 3] = ["DNS_mqttTopic", "DNS_extended", "DNS_period"];
        let on = self.switch("DNS_enabled").unwrap_or(false);
        let mode = self.value("DNS_mode").unwrap_or("mqtt").to_ascii_lowercase();
        let never = self.value("DNS_period").is_some_and(|period| period.parse() == Ok(0u64));
        let why = match (on, mode.as_str(), self.value("DNS_mqttTopic")) {
            (false, ..) => "DNS_enabled is not on",
            _ if never => "DNS_period is 0",
            (true, "mqtt", Some(_)) => "",
            (true, "mqtt", None) => "DNS_mqttTopic is missing",
            (true, ..) => "weir sends the status message by MQTT only",
        };
        if !why.is_empty() {
            if on {
                let name = if never { "DNS_period" } else { "DNS_enabled" };
                self.warn(name, format!("there is no status message: {why}"));
            }
            self.used("DNS_enabled", "no status message");
            self.ignored(&["DNS_mode"], why);
            return self.ignored(&NAMES, why);
        }
        self.used("DNS_enabled", "[status]");
        self.used("DNS_mode", "[status]");
        self.map(&NAMES);
        if let Some(template) = STATUS_TEMPLATE {
            self.draft.set("status.template", &quoted(template), self.index("DNS_mode"), "");
        }
    }

    fn watchdog(&mut self) {
        self.map(&["MTX_ping"]);
        let after = self.draft.value("watchdog.ping.after").map(str::to_owned);
        match after {
            Some(after) if is_zero(&after) => {
                if let Some(at) = self.index("MTX_ping") {
                    self.draft.forget(at);
                }
                self.used("MTX_ping", "no ping");
                self.ignored(&["MTX_pingIP"], "MTX_ping is 0");
            }
            Some(_) => self.map(&["MTX_pingIP"]),
            None => self.ignored(&["MTX_pingIP"], "MTX_ping is missing"),
        }
    }

    /// Says of all others why they do nothing.
    fn rest(&mut self) {
        let apn = format!("gsm.apn {}", self.value("GPRS_apn").unwrap_or("APN"));
        for (parameter, outcome) in self.all.iter().zip(&mut self.outcomes) {
            if outcome.is_some() {
                continue;
            }
            let (fate, became) = match (&parameter.found, parameter.instead) {
                (None, _) => (Fate::Unknown, "nobody knows it".to_owned()),
                (_, Some(line)) => (Fate::Ignored, format!("line {line} counts instead")),
                (Some(_), None) if parameter.value.is_empty() => (Fate::Ignored, "empty: unset".to_owned()),
                (Some(found), None) => (Fate::Ignored, found.row.about.replace("gsm.apn APN", &apn)),
            };
            *outcome = Some(Outcome { fate, became });
        }
    }
}

fn named(port: Option<&String>) -> &str {
    port.map_or("missing", String::as_str)
}
