//! Understands a text, and decides whether its origin may have it done.

use std::fmt::Write;

use rand::Rng;
use tokio::time::Instant;

use super::letter::Letter;
use super::rate::{Rates, Taken};
use super::settings::Need;
use super::signed::{Envelope, Verifier};
use super::trust::Trust;
use super::verb::{VERBS, Verb};
use super::{Command, ControlSettings, Origin, Right};
use crate::model::Stamp;
use crate::os::random;
use crate::setting::Identity;
use crate::wire::at::{self, Spoken};

/// What becomes of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is a command that is to be carried out.
    Do(Errand),
    /// It was answered here.
    Answered {
        /// The answer.
        reply: String,
    },
    /// It is not to be carried out.
    Refused {
        /// What the sender is told; `None`: a stranger, who is told nothing.
        reply: Option<String>,
        /// What the audit keeps.
        entry: Entry,
    },
    /// It is for another gateway, or one of far too many.
    Ignored,
}

/// A command that is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// What.
    pub command: Command,
    /// How its answer is written.
    pub letter: Letter,
    /// Who asks, for the audit; what becomes of it is still to be filled in.
    pub entry: Entry,
    /// Whether who asks may do it also while the gateway is locked.
    pub unlock: bool,
}

impl Errand {
    /// Why it must not be begun although it was accepted: the gateway was locked while it waited.
    pub fn objection(&self, locked: bool) -> Option<&'static str> {
        barred(locked && self.command.right().changes(), self.unlock)
    }
}

/// A line of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it came from.
    pub who: Origin,
    /// Whose signature it bears.
    pub key: Option<String>,
    /// The command, without what is private in it.
    pub command: String,
    /// `begun`, `done`, `failed` or `refused`; `warned` where weir itself has to tell something.
    pub outcome: &'static str,
    /// One sentence, or nothing.
    pub detail: String,
}

/// Decides; one for all origins.
pub struct Desk {
    identity: Identity,
    trust: Trust,
    need: Need,
    verifier: Verifier,
    rates: Rates,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What a text says, before anybody asks who sent it.
struct Read {
    command: Result<Command, String>,
    letter: Letter,
}

impl Desk {
    /// Makes the desk of a gateway.
    pub fn new(settings: &ControlSettings, identity: &Identity) -> Self {
        let signatures = &settings.signatures;
        let keys_file = signatures.keys_file.as_ref().map(|path| (**path).clone());
        Self {
            identity: identity.clone(),
            trust: Trust::new(settings, identity),
            need: signatures.need,
            verifier: Verifier::new(keys_file, *signatures.window),
            rates: Rates::new(settings.per_minute.value()),
        }
    }

    /// Decides about a text that came just now; `locked` says whether the gateway is.
    pub fn judge(&mut self, text: &[u8], origin: &Origin, now: &Stamp, locked: bool) -> Verdict {
        if !self.trust.knows(origin) {
            let refused = |sentence| refused(None, origin, None, "a text", sentence);
            return match self.rates.take_of_strangers(Instant::now()) {
                Taken::One => refused("a stranger"),
                Taken::None => refused("a stranger; too many came in a short time, and no more are written down"),
                Taken::Silent => Verdict::Ignored,
            };
        }
        match self.rates.take(origin, Instant::now()) {
            Taken::One => {}
            Taken::None => {
                let sentence = "too many commands came in a short time, and no more are answered; wait a minute";
                let letter = Letter { id: None, echo: "AT".into(), json: false };
                return refused(Some(&letter), origin, None, "a text", sentence);
            }
            Taken::Silent => return Verdict::Ignored,
        }
        let (envelope, json) = match opened(text) {
            Ok(opened) => opened,
            Err((letter, sentence)) => return refused(Some(&letter), origin, None, "a text", &sentence),
        };
        if !envelope.is_for(&self.identity) {
            return Verdict::Ignored;
        }
        let Read { command, letter } = read(&envelope, json);
        let key = match self.verifier.verify(&envelope, now) {
            Ok(key) => key,
            Err(sentence) => return refused(Some(&letter), origin, None, &letter.echo, &sentence),
        };
        if command == Ok(Command::Challenge) {
            let mut bytes = [0; 16];
            random::generator().fill_bytes(&mut bytes);
            return Verdict::Answered { reply: letter.done(&self.verifier.challenge(bytes)) };
        }
        let command = match command {
            Ok(command) => command,
            Err(sentence) => return refused(Some(&letter), origin, key, &letter.echo, &sentence),
        };
        let wanted = (command.right(), command == Command::Unlock);
        match self.objection(wanted, (origin, key.as_deref()), locked) {
            Some(sentence) => refused(Some(&letter), origin, key, &letter.echo, &sentence),
            None => {
                let unlock = self.trust.allowed(origin, key.as_deref()).unlock;
                let entry = Entry {
                    who: origin.clone(),
                    key,
                    command: letter.echo.clone(),
                    outcome: "done",
                    detail: String::new(),
                };
                Verdict::Do(Errand { command, letter, entry, unlock })
            }
        }
    }

    /// Decides about a deed that is ordered by other means than a text; `what` is how the audit shows it.
    ///
    /// # Errors
    /// The line of the audit; its detail is the sentence for who ordered it.
    pub fn admit(&self, what: &str, right: Right, origin: &Origin, locked: bool) -> Result<Entry, Box<Entry>> {
        let entry =
            |outcome, detail| Entry { who: origin.clone(), key: None, command: what.to_owned(), outcome, detail };
        match self.objection((right, false), (origin, None), locked) {
            None => Ok(entry("done", String::new())),
            Some(sentence) => Err(Box::new(entry("refused", sentence))),
        }
    }

    /// Why what needs a right must not be done.
    fn objection(
        &self,
        (right, unlocks): (Right, bool),
        (origin, key): (&Origin, Option<&str>),
        locked: bool,
    ) -> Option<String> {
        let allowed = self.trust.allowed(origin, key);
        let changes = right.changes();
        let remote = matches!(origin, Origin::Topic(_) | Origin::Phone(_));
        let must_sign = match self.need {
            Need::Optional => false,
            Need::Changes => changes && remote,
            Need::All => remote,
        };
        if must_sign && key.is_none() {
            return Some("this gateway takes only signed commands of this kind; sign it (docs/control.md)".to_owned());
        }
        if !allowed.rights.has(right) {
            let hint = if key.is_none() { ", or sign it with a key that may" } else { "" };
            return Some(format!("{origin} may not {}; grant it in [[control.grant]]{hint}", right.word()));
        }
        barred(locked && changes || unlocks, allowed.unlock).map(str::to_owned)
    }
}

/// What the lock says of what it stands before.
fn barred(by_lock: bool, unlock: bool) -> Option<&'static str> {
    (by_lock && !unlock).then_some("the gateway is locked; unlock it from the platform or an authorised phone")
}

fn refused(letter: Option<&Letter>, origin: &Origin, key: Option<String>, command: &str, sentence: &str) -> Verdict {
    let who = origin.clone();
    let entry = Entry { who, key, command: command.to_owned(), outcome: "refused", detail: sentence.to_owned() };
    Verdict::Refused { reply: letter.map(|letter| letter.failed(sentence)), entry }
}

/// The text's envelope, and whether it was JSON; a plain text is one without signature.
fn opened(text: &[u8]) -> Result<(Envelope, bool), (Letter, String)> {
    let letter = |json| Letter { id: None, echo: "AT".into(), json };
    let Ok(text) = std::str::from_utf8(text) else {
        return Err((letter(false), "a command is a text in UTF-8".to_owned()));
    };
    let text = text.trim();
    if !text.starts_with('{') {
        return Ok((Envelope { at: text.to_owned(), ..Envelope::default() }, false));
    }
    match serde_json::from_str::<Envelope>(text) {
        Ok(envelope) if envelope.id.as_deref().is_none_or(at::is_id) => Ok((envelope, true)),
        Ok(_) => Err((letter(true), "an id has 1 to 64 letters, digits, '.', '_', '-'".to_owned())),
        Err(error) => Err((letter(true), format!("the JSON is no command: {:.200}", error.to_string()))),
    }
}

fn read(envelope: &Envelope, json: bool) -> Read {
    let failed = |sentence: String| Read {
        command: Err(sentence),
        letter: Letter { id: envelope.id.clone(), echo: "AT".into(), json },
    };
    let line = match at::decode(&envelope.at) {
        Ok(line) => line,
        Err(error) => return failed(format!("this is no AT command: {error}; AT^MTXTUNNEL=HELP lists them")),
    };
    let id = envelope.id.clone().or_else(|| line.id.map(str::to_owned));
    match line.spoken {
        Spoken::Standard(text) => {
            let ping = text.eq_ignore_ascii_case("AT");
            let command = if ping { Command::Ping } else { Command::Modem(text.to_owned()) };
            Read { command: Ok(command), letter: Letter { id, echo: standard(text), json } }
        }
        Spoken::Own { header, ref name, arguments } => {
            let name = if name.is_empty() { "HELP" } else { name };
            let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
                let short: String = name.chars().take_while(|c| c.is_ascii_alphanumeric()).take(24).collect();
                let sentence = format!("there is no command \"{short}\"; {header}=HELP lists them");
                return Read { command: Err(sentence), letter: Letter { id, echo: format!("{header}={short}"), json } };
            };
            let arguments = arguments.unwrap_or_default();
            let echo = echo(header, verb, arguments);
            let command =
                (verb.read)(arguments).ok_or_else(|| format!("write it as {header}={}{}", verb.name, verb.usage));
            Read { command, letter: Letter { id, echo, json } }
        }
    }
}

/// A standard command as its answer and the audit show it: what is set may be a PIN.
fn standard(text: &str) -> String {
    let (head, set) = text.split_once('=').map_or((text, ""), |(head, _)| (head, "=***"));
    format!("{}{set}", head.chars().take(64).collect::<String>())
}

/// A command as its answer and the audit show it.
fn echo(header: &str, verb: &Verb, arguments: &str) -> String {
    const LONGEST: usize = 200;
    if (verb.private)(arguments) {
        let first = arguments.split_once(',').map_or("", |(first, _)| first);
        let masked: String = first.chars().take(3).chain("***".chars()).collect();
        let first = if verb.name == "SMS" { masked.as_str() } else { first };
        let shown =
            if first.trim_start().starts_with('{') || first.is_empty() { String::new() } else { format!(",{first}") };
        return format!("{header}={}{shown},***", verb.name);
    }
    let address = (verb.name == "UPDATEFW").then(|| without_secrets(arguments));
    let arguments = address.as_deref().unwrap_or(arguments);
    let separator = if arguments.is_empty() { "" } else { "," };
    let short: String = arguments.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{header}={}{separator}{short}", verb.name)
}

/// What names an address without its user, password and query, which may be secrets; of what follows only a hash.
fn without_secrets(arguments: &str) -> String {
    let (scheme, rest) = arguments.split_once("://").unwrap_or(("", arguments));
    let hash = |part: &&str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let hash = || rest.split(',').map(str::trim).find(hash).map_or_else(String::new, |hash| format!(",{hash}"));
    match rest.find(['?', '#']) {
        _ if scheme == "file" => arguments.to_owned(),
        // Where a password ends can't be told for sure.
        _ if rest.contains('@') => format!("{scheme}://***{}", hash()),
        Some(end) => format!("{scheme}://{}?***{}", rest.get(..end).unwrap_or_default(), hash()),
        None => arguments.to_owned(),
    }
}

/// The answer to `HELP`: all commands, or how one is written.
///
/// # Errors
/// There is no such command.
pub fn help(name: Option<&str>) -> Result<String, String> {
    let mut text = String::new();
    let wanted = |verb: &&Verb| name.is_none_or(|name| verb.name.eq_ignore_ascii_case(name.trim()));
    for verb in VERBS.iter().filter(wanted) {
        let _ = writeln!(text, "AT^MTXTUNNEL={}{}: {}", verb.name, verb.usage, verb.about);
    }
    if text.is_empty() { Err("there is no such command; AT^MTXTUNNEL=HELP lists them".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
