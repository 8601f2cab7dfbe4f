//! What this machine asks and orders about the configuration, by the local door.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Changer, Started, State, Trying};
use crate::config::change::{Entry, Origin, Outcome, unified};
use crate::config::edit::Edit;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase", deny_unknown_fields)]
pub enum Order {
    /// How the running configuration stands, and what became of one.
    State {
        /// Its number.
        #[serde(default)]
        number: Option<u64>,
    },
    /// The last configurations.
    History,
    /// The text that runs, or of a number.
    Show {
        /// Its number.
        #[serde(default)]
        number: Option<u64>,
        /// Masked for others to read.
        #[serde(default)]
        masked: bool,
    },
    /// The difference between two.
    Diff {
        /// The older one; default: the one before the running one.
        #[serde(default)]
        from: Option<u64>,
        /// The newer one; default: the one that runs.
        #[serde(default)]
        to: Option<u64>,
    },
    /// The value of a key.
    Get {
        /// Its dotted name.
        key: String,
    },
    /// Sets keys; one without a value is removed.
    Set {
        /// Keys and values.
        changes: Vec<(String, Option<String>)>,
        /// Why, and how it is tried.
        #[serde(default)]
        how: How,
    },
    /// Takes a whole text.
    Apply {
        /// The text.
        text: String,
        /// Why, and how it is tried.
        #[serde(default)]
        how: How,
    },
    /// Takes an earlier one.
    Rollback {
        /// Its number; default: the last one that was kept.
        #[serde(default)]
        number: Option<u64>,
        /// Why, and how it is tried.
        #[serde(default)]
        how: How,
    },
}

impl Order {
    /// How the audit shows a change: keys, without values.
    pub fn summary(&self) -> String {
        match self {
            Self::Set { changes, .. } => {
                let keys: Vec<_> = changes.iter().map(|(key, _)| key.as_str()).collect();
                format!("config set {:.300}", keys.join(" "))
            }
            Self::Apply { .. } => "config apply".to_owned(),
            Self::Rollback { number, .. } => {
                format!("config rollback{}", number.map(|number| format!(" {number}")).unwrap_or_default())
            }
            _ => "config".to_owned(),
        }
    }

    /// Whether it changes something.
    pub const fn is_change(&self) -> bool {
        matches!(self, Self::Set { .. } | Self::Apply { .. } | Self::Rollback { .. })
    }
}

/// Why something is changed, and how it is tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct How {
    /// Why.
    #[serde(default)]
    pub why: String,
    /// How long it is tried, in seconds.
    #[serde(default)]
    pub confirm_s: Option<u64>,
    /// It is kept at once.
    #[serde(default)]
    pub now: bool,
}

impl How {
    fn trying(&self) -> Trying {
        if self.now { Trying::Not } else { Trying::from(self.confirm_s.map(Duration::from_secs)) }
    }
}

/// Carries out an order; a change is taken once the [`Started`] that tells of it is dropped.
///
/// # Errors
/// One sentence.
pub async fn carry_out(changer: &Changer, order: Order, who: Origin) -> Result<(Json, Option<Started>), String> {
    let taken = match order {
        Order::State { number } => return Ok((state(&changer.state(), number, &changer.history()), None)),
        Order::History => return Ok((changer.history().iter().map(entry).collect(), None)),
        Order::Show { number: None, masked: true } => return Ok((json!({ "text": changer.masked() }), None)),
        Order::Show { number: None, .. } => return Ok((json!({ "text": &*changer.text() }), None)),
        Order::Show { number: Some(number), .. } => {
            return changer
                .text_of(number)
                .await
                .map(|text| (json!({ "text": text }), None))
                .map_err(|e| e.to_string());
        }
        Order::Diff { from, to } => {
            return difference(changer, from, to).await.map(|text| (json!({ "text": text }), None));
        }
        Order::Get { key } => {
            return changer.get(&key).map(|value| (json!({ "value": value }), None)).map_err(|e| e.to_string());
        }
        Order::Set { changes, how } => {
            let edit = |(key, value): (String, Option<String>)| match value {
                Some(value) => Edit::Set(key, value),
                None => Edit::Unset(key),
            };
            let edits: Vec<_> = changes.into_iter().map(edit).collect();
            changer.edit(&edits, who, &how.why, how.trying()).await
        }
        Order::Apply { text, how } => changer.apply(text, who, &how.why, how.trying()).await,
        Order::Rollback { number, how } => changer.rollback(number, who, &how.why, how.trying()).await,
    };
    let started = taken.map_err(|refusal| refusal.to_string())?;
    Ok((json!({ "number": started.number, "sentence": started.sentence() }), Some(started)))
}

/// How it stands, as JSON: also in the status document.
pub(in crate::agent) fn standing(state: &State) -> Json {
    let trial = state.trial.as_ref();
    json!({
        "number": state.number,
        "trial": trial.map(|t| json!({ "left_s": t.left.as_millis().div_ceil(1000), "waiting_for": t.waiting_for })),
    })
}

fn state(state: &State, number: Option<u64>, history: &[Entry]) -> Json {
    let mut told = standing(state);
    let asked = number.and_then(|number| history.iter().find(|entry| entry.number == number));
    if let (Some(members), Some(asked)) = (told.as_object_mut(), asked) {
        members.insert("asked".into(), entry(asked));
    }
    told
}

/// An entry as `weir config history --json` prints it.
pub fn entry(entry: &Entry) -> Json {
    let (outcome, reason) = match &entry.outcome {
        Outcome::First => ("first", None),
        Outcome::OnTrial => ("on-trial", None),
        Outcome::Confirmed(how) => ("confirmed", Some(how)),
        Outcome::WentBack(why) => ("went-back", Some(why)),
    };
    json!({
        "number": entry.number,
        "at": entry.at.to_string(),
        "who": entry.who.to_string(),
        "why": entry.why,
        "outcome": outcome,
        "reason": reason,
    })
}

async fn difference(changer: &Changer, from: Option<u64>, to: Option<u64>) -> Result<String, String> {
    let to = to.unwrap_or_else(|| changer.state().number);
    let before = || changer.history().iter().map(|entry| entry.number).filter(|number| *number < to).max();
    let from = from.or_else(before).ok_or_else(|| format!("there is no configuration before {to}"))?;
    let old = changer.text_of(from).await.map_err(|e| e.to_string())?;
    let new = changer.text_of(to).await.map_err(|e| e.to_string())?;
    Ok(unified((&format!("configuration {from}"), &old), (&format!("configuration {to}"), &new)))
}
