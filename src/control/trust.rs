//! Who may do what: the grants of the settings as one table.

use super::{ControlSettings, Origin, Right, Rights};
use crate::setting::Identity;

/// Whom a row is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Topic(String),
    /// `None`: every number.
    Phone(Option<String>),
    /// `None`: every user of this machine.
    Local(Option<String>),
    /// `None`: every port.
    Line(Option<String>),
    /// Who signs with the key of this name.
    Key(String),
}

/// Reads `topic:a/b`, `sms:+34...`, `local:root`, `line:rs232-1`, `key:ops`; `*` stands for all but topics and keys.
pub(super) fn who(text: &str) -> Option<Who> {
    let (kind, name) = text.split_once(':')?;
    let name = name.trim();
    let any_or = |name: &str| (name != "*").then(|| name.to_owned());
    let whom = match kind.trim() {
        "topic" if name != "*" => Who::Topic(name.to_owned()),
        "sms" if name == "*" || super::verb::is_number(name) => Who::Phone(any_or(name)),
        "local" => Who::Local(any_or(name)),
        "line" => Who::Line(any_or(name)),
        "key" if name != "*" => Who::Key(name.to_owned()),
        _ => return None,
    };
    (!name.is_empty()).then_some(whom)
}

/// What one may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Allowed {
    pub(super) rights: Rights,
    /// Also while the gateway is locked, and unlock it.
    pub(super) unlock: bool,
}

struct Row {
    who: Who,
    allowed: Allowed,
    signed: bool,
}

/// The table.
pub(super) struct Trust {
    rows: Vec<Row>,
    /// Keys have rows of their own; else a good signature has the rights of all.
    keys_named: bool,
}

const ALL_BUT_FIRMWARE: [Right; 4] = [Right::Observe, Right::Read, Right::Write, Right::Configure];

impl Trust {
    /// Makes the table of the settings.
    pub(super) fn new(settings: &ControlSettings, identity: &Identity) -> Self {
        let mut rows: Vec<Row> = settings
            .grant
            .iter()
            .filter_map(|grant| {
                let who = match who(&grant.who)? {
                    Who::Topic(topic) => Who::Topic(crate::setting::substituted(&topic, identity)?),
                    other => other,
                };
                let allowed = Allowed { rights: Rights::of(&grant.rights), unlock: grant.unlock };
                Some(Row { who, allowed, signed: grant.signed })
            })
            .collect();
        if rows.is_empty() {
            rows = usual(settings, identity);
        }
        let keys_named = rows.iter().any(|row| matches!(row.who, Who::Key(_)));
        if keys_named {
            // Who signs may do so at any of the topics.
            let topics = settings.at_topics.iter().filter_map(|topic| topic.of(identity)).map(Who::Topic);
            rows.extend(topics.map(|who| Row { who, allowed: Allowed::default(), signed: false }));
        }
        Self { rows, keys_named }
    }

    /// What an origin may do; `key` is whose signature its command bears.
    pub(super) fn allowed(&self, origin: &Origin, key: Option<&str>) -> Allowed {
        let of_key = key.map(|key| self.of_key(key));
        let mut allowed = Allowed::default();
        for row in self.rows.iter().filter(|row| row.who.is(origin)) {
            let granted = match (row.signed, of_key) {
                (false, _) => row.allowed,
                // Both must allow it.
                (true, Some(key)) => row.allowed.and(key),
                (true, None) => continue,
            };
            allowed = allowed.or(granted);
        }
        // A key has its rights wherever its commands come from.
        of_key.filter(|_| self.keys_named).map_or(allowed, |key| allowed.or(key))
    }

    fn of_key(&self, name: &str) -> Allowed {
        if !self.keys_named {
            return Allowed { rights: Rights::of(&Right::ALL), unlock: true };
        }
        let rows = self.rows.iter().filter(|row| row.who == Who::Key(name.to_owned()));
        rows.fold(Allowed::default(), |allowed, row| allowed.or(row.allowed))
    }

    /// Whether an origin is anybody at all: a stranger gets no answer.
    pub(super) fn knows(&self, origin: &Origin) -> bool {
        self.rows.iter().any(|row| row.who.is(origin))
    }
}

/// What holds when nobody wrote a grant.
fn usual(settings: &ControlSettings, identity: &Identity) -> Vec<Row> {
    let row = |who, rights: &[Right], unlock| Row {
        who,
        allowed: Allowed { rights: Rights::of(rights), unlock },
        signed: false,
    };
    let topics = settings.at_topics.iter().filter_map(|topic| topic.of(identity)).map(Who::Topic);
    let mut rows: Vec<Row> = topics.map(|who| row(who, &ALL_BUT_FIRMWARE, true)).collect();
    let numbers = settings.sms.allow.iter().cloned().map(Some).map(Who::Phone);
    rows.extend(numbers.map(|who| row(who, &ALL_BUT_FIRMWARE, true)));
    if settings.sms.allow_all {
        rows.push(row(Who::Phone(None), &ALL_BUT_FIRMWARE, false));
    }
    rows.push(row(Who::Local(None), &Right::ALL, false));
    rows.push(row(Who::Line(None), &[Right::Observe], false));
    rows
}

impl Who {
    fn is(&self, origin: &Origin) -> bool {
        let fits = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        match (self, origin) {
            (Self::Topic(wanted), Origin::Topic(topic)) => wanted == topic,
            (Self::Phone(wanted), Origin::Phone(number)) => fits(wanted, number),
            (Self::Local(wanted), Origin::Local(user)) => fits(wanted, user),
            (Self::Line(wanted), Origin::Line(port)) => fits(wanted, port),
            _ => false,
        }
    }
}

impl Allowed {
    const fn or(self, other: Self) -> Self {
        Self { rights: self.rights.or(other.rights), unlock: self.unlock || other.unlock }
    }

    const fn and(self, other: Self) -> Self {
        Self { rights: self.rights.and(other.rights), unlock: self.unlock && other.unlock }
    }
}
