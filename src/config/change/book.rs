//! What became of every configuration, and what is to become of one on trial: values only, no files, no clock.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LONGEST_TRIAL;
use crate::control::masked_number;
use crate::model::{BootId, Stamp, Timestamp};

/// So many configurations are remembered.
pub const REMEMBERED: usize = 10;
/// A configuration that was started so often without being confirmed is given up.
pub const STARTS: u32 = 3;
/// The longest reason that is kept, in characters.
const LONGEST_WHY: usize = 300;

/// Who wants a change, as text: by which way, and who there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin(String);

impl Origin {
    /// A person who edited the base file.
    pub fn file() -> Self {
        Self("file".to_owned())
    }

    /// Somebody on this machine, by user name or number.
    pub fn local(user: &str) -> Self {
        Self::of("local", user)
    }

    /// Who published at this topic.
    pub fn mqtt(topic: &str) -> Self {
        Self::of("mqtt", topic)
    }

    /// Who sent a message from this number; only its beginning and its end are kept.
    pub fn sms(number: &str) -> Self {
        Self::of("sms", &masked_number(number))
    }

    /// Any other way.
    pub fn of(way: &str, who: &str) -> Self {
        Self(brief(&format!("{way}:{who}")))
    }

    /// Whether it is the base file.
    pub fn is_file(&self) -> bool {
        self.0 == "file"
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text on one line of bounded length.
fn brief(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_WHY).collect()
}

/// What became of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was none before it.
    First,
    /// It is being tried.
    OnTrial,
    /// It was kept; why, in one phrase.
    Confirmed(String),
    /// The one before it was taken again; why, in one phrase.
    WentBack(String),
}

impl Outcome {
    /// Whether it is decided.
    pub fn is_final(&self) -> bool {
        *self != Self::OnTrial
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("the first"),
            Self::OnTrial => f.write_str("on trial"),
            Self::Confirmed(how) => write!(f, "confirmed: {how}"),
            Self::WentBack(why) => write!(f, "went back: {why}"),
        }
    }
}

/// One configuration of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number; they count up and are never given twice.
    pub number: u64,
    /// When it was proposed, by the gateway's clock.
    pub at: Timestamp,
    /// Who wanted it.
    pub who: Origin,
    /// Why, in the words of who wanted it.
    pub why: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What its text must hash to.
    pub(super) hash: String,
    /// Whether the broker was ever reached with it.
    pub(super) reached: bool,
}

/// A configuration that has to prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Which one.
    pub number: u64,
    /// How long it has.
    limit_ms: u64,
    /// The boot and the uptime it counts from.
    boot: BootId,
    since_ms: u64,
    /// How often weir was started with it.
    starts: u32,
    /// Ports whose settings changed and on which a meter answered before: one must answer again.
    pub ports: Vec<String>,
    /// Whether the broker was reached before: then it must be reached again.
    pub broker: bool,
    /// Whether it is kept as soon as weir has started with it.
    #[serde(default)]
    pub at_once: bool,
}

impl Trial {
    /// How much time is left.
    pub fn left(&self, now: &Stamp) -> Duration {
        let used = if self.starts > 0 && now.boot == self.boot { now.uptime.saturating_sub(self.since_ms) } else { 0 };
        Duration::from_millis(self.limit_ms.saturating_sub(used))
    }
}

/// What somebody wants.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Who.
    pub who: Origin,
    /// Why.
    pub why: String,
    /// What its text hashes to.
    pub hash: String,
    /// How long it has to prove itself; `None`: it is kept as soon as weir has started with it.
    pub limit: Option<Duration>,
    /// Ports on which a meter must answer.
    pub ports: Vec<String>,
    /// The hash of the base file, when this is it.
    pub base: Option<String>,
}

/// All that is known; kept in one small file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    format: u32,
    /// The hash of the base file that was taken up last.
    pub(super) base: String,
    /// The accepted configuration.
    active: u64,
    trial: Option<Trial>,
    /// By number, the newest last.
    entries: Vec<Entry>,
    /// Ports on which a meter answered in the last life.
    #[serde(default)]
    pub(super) answered: BTreeSet<String>,
}

impl Book {
    /// A book that begins with the base file.
    pub(super) fn first(hash: String, now: &Stamp) -> Self {
        let entry = Entry {
            number: 1,
            at: now.wall,
            who: Origin::file(),
            why: String::new(),
            outcome: Outcome::First,
            hash: hash.clone(),
            reached: false,
        };
        Self { format: 1, base: hash, active: 1, trial: None, entries: vec![entry], answered: BTreeSet::new() }
    }

    /// Puts the base file behind all others as the accepted one; its number.
    pub(super) fn begin_anew(&mut self, hash: String) -> u64 {
        let number = self.entries.last().map_or(1, |entry| entry.number + 1);
        let at = self.entries.last().map_or_else(Timestamp::default, |entry| entry.at);
        let (who, outcome) = (Origin::file(), Outcome::Confirmed("what was accepted before can't be read".to_owned()));
        self.entries.push(Entry { number, at, who, why: String::new(), outcome, hash: hash.clone(), reached: false });
        (self.base, self.active, self.trial) = (hash, number, None);
        self.forget();
        number
    }

    /// Ports on which a meter answered in the last life.
    pub fn answered(&self) -> Vec<String> {
        self.answered.iter().cloned().collect()
    }

    /// Whether it makes sense: what it speaks of is there.
    pub(super) fn is_sound(&self) -> bool {
        let trial = self.trial.as_ref().is_none_or(|trial| self.entry(trial.number).is_some());
        let ascending = self.entries.iter().zip(self.entries.iter().skip(1)).all(|(a, b)| a.number < b.number);
        self.format == 1 && ascending && trial && self.entry(self.active).is_some()
    }

    /// The configuration that is to run: the one on trial, else the accepted one.
    pub fn current(&self) -> u64 {
        self.trial.as_ref().map_or(self.active, |trial| trial.number)
    }

    /// The accepted configuration.
    pub const fn active(&self) -> u64 {
        self.active
    }

    /// The one on trial.
    pub const fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref()
    }

    /// The last configurations, the newest last.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One of them.
    pub fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.number == number)
    }

    /// The newest other configuration that was kept, before the accepted one.
    pub fn before(&self) -> Option<&Entry> {
        let active = self.entry(self.active)?;
        let kept = |e: &&Entry| matches!(e.outcome, Outcome::First | Outcome::Confirmed(_));
        self.entries.iter().rev().filter(kept).find(|e| e.number < self.active && e.hash != active.hash)
    }

    /// Takes a proposal on trial (a running trial must have ended) and returns its number.
    pub(super) fn propose(&mut self, proposal: Proposal, now: &Stamp) -> u64 {
        let number = self.entries.last().map_or(1, |entry| entry.number + 1);
        let Proposal { who, why, hash, limit, ports, base } = proposal;
        let outcome = Outcome::OnTrial;
        self.entries.push(Entry { number, at: now.wall, who, why: brief(&why), outcome, hash, reached: false });
        if let Some(base) = base {
            self.base = base;
        }
        let at_once = limit.is_none();
        let limit_ms = u64::try_from(limit.unwrap_or(LONGEST_TRIAL).as_millis()).unwrap_or(u64::MAX);
        let broker = self.entry(self.active).is_some_and(|entry| entry.reached);
        let (boot, since_ms) = (now.boot, now.uptime);
        self.trial = Some(Trial { number, limit_ms, boot, since_ms, starts: 0, ports, broker, at_once });
        self.forget();
        number
    }

    /// Counts a start. A trial that has had its time or its starts goes back; its number and why.
    pub(super) fn begin(&mut self, now: &Stamp) -> Option<(u64, String)> {
        let trial = self.trial.as_mut()?;
        if trial.starts >= STARTS {
            return self.go_back(&format!("weir was started {STARTS} times with it, and it was not confirmed"));
        }
        if trial.left(now).is_zero() {
            return self.go_back("its time ran out while weir was not running");
        }
        if trial.starts == 0 || trial.boot != now.boot {
            (trial.boot, trial.since_ms) = (now.boot, now.uptime);
        }
        trial.starts += 1;
        None
    }

    /// Keeps the one on trial.
    pub(super) fn confirm(&mut self, how: &str) -> Option<u64> {
        let trial = self.trial.take()?;
        self.active = trial.number;
        self.decide(trial.number, Outcome::Confirmed(brief(how)));
        Some(trial.number)
    }

    /// Takes the accepted one again; the number of the one given up and why.
    pub(super) fn go_back(&mut self, why: &str) -> Option<(u64, String)> {
        let trial = self.trial.take()?;
        self.decide(trial.number, Outcome::WentBack(brief(why)));
        Some((trial.number, why.to_owned()))
    }

    /// Notes that the broker was reached with a configuration.
    pub(super) fn reach(&mut self, number: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == number) {
            entry.reached = true;
        }
    }

    fn decide(&mut self, number: u64, outcome: Outcome) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == number) {
            entry.outcome = outcome;
        }
    }

    /// Keeps the last ten, and in any case the accepted one and the one on trial.
    fn forget(&mut self) {
        while self.entries.len() > REMEMBERED {
            let keep = [self.active, self.current()];
            let Some(oldest) = self.entries.iter().position(|entry| !keep.contains(&entry.number)) else { return };
            self.entries.remove(oldest);
        }
    }
}
