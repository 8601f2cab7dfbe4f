//! The one door to the configuration while weir runs: whoever changes it, by whatever way, comes here.
//!
//! A [`Changer`] lives longer than one agent: a change that is taken stops the agent in order and starts it with the
//! new settings in the same process. Invariants: one change at a time; who asked can answer before the agent is stopped
//! (it is, once [`Started`] is dropped, or after [`ANSWER_TIME`]); files are never written on the runtime's thread.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::base::{propose_base, running_text};
use self::trial::Proof;
use super::Evidence;
use crate::config::change::{
    self, Book, Entry, History, Origin, Outcome, Prepared, Proposal, Refusal, Trial, prepare, spoken,
};
use crate::config::edit::{self, Edit};
use crate::config::{self, Loaded};
use crate::model::Stamp;
use crate::os::clock::Clock;

mod base;
pub mod order;
#[cfg(test)]
mod tests;
pub(super) mod trial;
mod trying;

/// How long an answer may take before the agent is stopped for the change that it tells of.
pub const ANSWER_TIME: Duration = Duration::from_secs(10);

pub use trying::Trying;

/// A change that was taken; the agent is started anew with it when this is dropped.
#[derive(Debug)]
pub struct Started {
    /// The number of the configuration.
    pub number: u64,
    /// How long it has to prove itself; `None`: it needs not.
    pub limit: Option<Duration>,
    _answering: oneshot::Sender<()>,
}

impl Started {
    /// One sentence for whoever asked.
    pub fn sentence(&self) -> String {
        match self.limit {
            Some(limit) => format!(
                "configuration {} is on trial; unless it proves itself within {} the one before is taken again",
                self.number,
                spoken(limit)
            ),
            None => format!("configuration {} is taken without a trial", self.number),
        }
    }
}

/// How the running configuration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The number of the one that runs.
    pub number: u64,
    /// While it is on trial.
    pub trial: Option<TrialState>,
}

/// How a trial stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialState {
    /// The time it has left.
    pub left: Duration,
    /// What it still waits for, in words.
    pub waiting_for: Vec<String>,
}

/// What everybody may look at without waiting for a disk.
#[derive(Debug, Clone)]
struct View {
    book: Book,
    /// The text that runs, or will after the next start.
    text: Arc<str>,
    waiting_for: Vec<String>,
    /// Counts the reasons to start the agent anew.
    restarts: u64,
}

#[derive(Debug)]
struct Shared {
    history: Mutex<History>,
    view: watch::Sender<View>,
    clock: Clock,
    /// What the running agent tells, and what its configuration was started for.
    live: Mutex<Option<(Evidence, Proof)>>,
}

/// Makes a new text of the current one.
type Make = Box<dyn FnOnce(&str) -> Result<String, Refusal> + Send>;

/// Changes the configuration; clones are the same.
#[derive(Debug, Clone)]
pub struct Changer {
    shared: Arc<Shared>,
}

impl Changer {
    /// Opens the book of the store that the base file names. When the file was edited since, it is proposed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open(base: &str, store: &Path, clock: Clock) -> Result<Self, Refusal> {
        let now = clock.stamp();
        let (mut history, edited) = History::open(store, base, &now)?;
        if edited && let Err(problem) = propose_base(&mut history, base, &now) {
            error!(%problem, "the base file was edited, but can't be taken up; what was accepted before runs on");
        }
        let text = running_text(&mut history, base)?;
        Ok(Self::of(history, text, clock))
    }

    /// Looks at the book of a store without holding it, for what changes nothing.
    ///
    /// # Errors
    /// [`Refusal::Disk`].
    pub fn look(base: &str, store: &Path, clock: Clock) -> Result<Self, Refusal> {
        let history = History::look(store, base, &clock.stamp())?;
        let text = history.text(history.book().current()).unwrap_or_else(|_| base.to_owned());
        Ok(Self::of(history, text, clock))
    }

    fn of(history: History, text: String, clock: Clock) -> Self {
        let book = history.book().clone();
        let view = View { book, text: text.into(), waiting_for: Vec::new(), restarts: 0 };
        let (view, live) = (watch::Sender::new(view), Mutex::default());
        Self { shared: Arc::new(Shared { history: Mutex::new(history), view, clock, live }) }
    }

    /// How the running configuration stands.
    pub fn state(&self) -> State {
        let view = self.shared.view.borrow();
        let now = self.shared.clock.stamp();
        let trial =
            view.book.trial().map(|trial| TrialState { left: trial.left(&now), waiting_for: view.waiting_for.clone() });
        State { number: view.book.current(), trial }
    }

    /// The last configurations, the newest last.
    pub fn history(&self) -> Vec<Entry> {
        self.shared.view.borrow().book.entries().to_vec()
    }

    /// The value of a key in the running configuration as text: as written, else its default; `None` when it is unset.
    ///
    /// # Errors
    /// [`Refusal::Key`].
    pub fn get(&self, key: &str) -> Result<Option<String>, Refusal> {
        let text = self.text();
        Ok(edit::value(&text, key)?)
    }

    /// The text of the running configuration.
    pub fn text(&self) -> Arc<str> {
        self.shared.view.borrow().text.clone()
    }

    /// The running configuration for others to read: user names of brokers and phone numbers are masked; secrets are
    /// only names of files.
    pub fn masked(&self) -> String {
        change::masked(&self.text())
    }

    /// The text of a configuration of the history.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Disk`].
    pub async fn text_of(&self, number: u64) -> Result<String, Refusal> {
        self.with(move |history, _| history.text(number)).await
    }

    /// Sets keys, all or none; `confirm` is how long the change has to prove itself (default: `control.confirm`).
    ///
    /// # Errors
    /// [`Refusal`]: nothing has changed then.
    pub async fn set(
        &self,
        changes: &[(&str, &str)],
        who: Origin,
        why: &str,
        confirm: Option<Duration>,
    ) -> Result<Started, Refusal> {
        let edits: Vec<_> = changes.iter().map(|(key, value)| Edit::Set((*key).into(), (*value).into())).collect();
        self.edit(&edits, who, why, Trying::from(confirm)).await
    }

    /// Makes edits, all or none.
    ///
    /// # Errors
    /// As [`Changer::set`].
    pub async fn edit(&self, edits: &[Edit], who: Origin, why: &str, trying: Trying) -> Result<Started, Refusal> {
        let edits = edits.to_vec();
        // Of what is current when its turn comes: another change, or the way back, may come before it.
        self.make(Box::new(move |current| Ok(edit::edited(current, &edits)?)), who, why, trying).await
    }

    /// Takes a whole configuration's text.
    ///
    /// # Errors
    /// As [`Changer::set`].
    pub async fn apply(&self, text: String, who: Origin, why: &str, trying: Trying) -> Result<Started, Refusal> {
        self.make(Box::new(move |_| Ok(text)), who, why, trying).await
    }

    async fn make(&self, text: Make, who: Origin, why: &str, trying: Trying) -> Result<Started, Refusal> {
        let (changer, why) = (self.clone(), why.to_owned());
        // Who asked may go away meanwhile: what was written must be started all the same, or nobody judges it.
        let taking = tokio::spawn(async move { changer.take(text, who, why, trying).await });
        taking.await.map_err(|_| Refusal::Ending)?
    }

    async fn take(&self, text: Make, who: Origin, why: String, trying: Trying) -> Result<Started, Refusal> {
        let (reached, answered) = self.proved();
        let result = self.with(move |history, now| {
            history.note(reached, &answered)?;
            let current = history.text(history.book().current())?;
            let text = text(&current)?;
            let prepared = prepare(&current, &text, &who)?;
            let limit = trying.limit(&prepared.loaded.settings)?;
            // Also those that answered before the last start: a meter may be read once a day.
            let answered = history.book().answered();
            let wanted = proposal(prepared, (who, why), limit, &answered);
            let number = history.propose(&text, wanted, None, now)?;
            Ok((number, limit))
        });
        let (number, limit) = result.await?;
        info!(number, "a change of the configuration was taken; weir starts anew with it");
        Ok(self.started(number, limit))
    }

    /// Takes an earlier configuration again, on trial like any other; without a number the last one that was kept. While
    /// one is on trial and no number is given, that trial ends and the one before is taken at once.
    ///
    /// # Errors
    /// As [`Changer::set`]; [`Refusal::Unknown`], [`Refusal::NothingBefore`].
    pub async fn rollback(
        &self,
        number: Option<u64>,
        who: Origin,
        why: &str,
        trying: Trying,
    ) -> Result<Started, Refusal> {
        if number.is_none() && self.state().trial.is_some() {
            let changer = self.clone();
            let back = tokio::spawn(async move {
                changer.go_back(&format!("taken back by {who}")).await?;
                Ok(changer.started(changer.state().number, None))
            });
            return back.await.map_err(|_| Refusal::Ending)?;
        }
        let before = || self.shared.view.borrow().book.before().map(|entry| entry.number);
        let number = number.or_else(before).ok_or(Refusal::NothingBefore)?;
        let text = self.text_of(number).await?;
        let why = if why.is_empty() { format!("back to configuration {number}") } else { why.to_owned() };
        self.apply(text, who, &why, trying).await
    }

    /// Waits until it is decided what becomes of a configuration; `None` when it is not known (any more).
    pub async fn outcome(&self, number: u64) -> Option<Outcome> {
        let mut view = self.shared.view.subscribe();
        let decided = |view: &View| view.book.entry(number).is_none_or(|entry| entry.outcome.is_final());
        let view = view.wait_for(decided).await.ok()?;
        view.book.entry(number).map(|entry| entry.outcome.clone())
    }

    /// Takes up the base file after a person has edited it (SIGHUP). False when it is what is known already.
    ///
    /// # Errors
    /// [`Refusal`]; what runs goes on then.
    pub async fn reload(&self, base: String) -> Result<bool, Refusal> {
        let (reached, answered) = self.proved();
        let taken = self.with(move |history, now| {
            history.note(reached, &answered)?;
            propose_base(history, &base, now)
        });
        let taken = taken.await?;
        if taken {
            self.restart();
        }
        Ok(taken)
    }

    /// Waits until the agent is to be started anew; `since` is what [`Changer::begin`] gave.
    pub async fn restarted(&self, since: u64) {
        let _ = self.shared.view.subscribe().wait_for(|view| view.restarts != since).await;
    }

    /// Counts a start and gives what is to be started, and the mark for [`Changer::restarted`]. A trial whose time or
    /// starts are used up goes back, and so does a configuration that is not right (any more); at last to `base`.
    ///
    /// # Errors
    /// [`Refusal`] when there is nothing that can be started.
    pub async fn begin(&self, base: &str) -> Result<(Loaded, u64), Refusal> {
        let since = self.shared.view.borrow().restarts;
        let ended = self.with(|history, now| history.begin(now)).await?;
        tell_end(ended.as_ref());
        let wrong = |text: &str| config::parse(text).map_err(Refusal::Wrong);
        let problem = match wrong(&self.text()) {
            Ok(loaded) => return Ok((loaded, since)),
            Err(problem) => problem,
        };
        if self.go_back(&problem.to_string()).await?
            && let Ok(loaded) = wrong(&self.text())
        {
            return Ok((loaded, since));
        }
        let loaded = wrong(base)?;
        error!(%problem, "this version of weir can't use the accepted configuration; the base file counts again");
        let base = base.to_owned();
        self.with(move |history, _| history.begin_anew(&base)).await?;
        Ok((loaded, since))
    }

    /// Keeps the one on trial, when it is still this one.
    pub(super) async fn confirm(&self, number: u64, how: &'static str) -> Result<(), Refusal> {
        // Another one may have taken its place meanwhile, which nobody has tried.
        let confirmed = self.with(move |history, _| match history.book().trial() {
            Some(trial) if trial.number == number => history.confirm(how),
            _ => Ok(None),
        });
        if let Some(number) = confirmed.await? {
            info!(number, how, "the configuration on trial was confirmed");
        }
        Ok(())
    }

    /// Takes the one before again; false when none is on trial. The agent must be started anew afterwards.
    ///
    /// # Errors
    /// [`Refusal::Disk`].
    pub async fn go_back(&self, why: &str) -> Result<bool, Refusal> {
        let why = why.to_owned();
        let ended = self.with(move |history, _| history.go_back(&why)).await?;
        tell_end(ended.as_ref());
        Ok(ended.is_some())
    }

    /// The same, when it is this one that is on trial.
    pub(super) async fn go_back_from(&self, number: u64, why: String) -> Result<bool, Refusal> {
        let ended = self.with(move |history, _| match history.book().trial() {
            Some(trial) if trial.number == number => history.go_back(&why),
            _ => Ok(None),
        });
        let ended = ended.await?;
        tell_end(ended.as_ref());
        Ok(ended.is_some())
    }

    /// Has the agent started anew.
    pub(super) fn restart(&self) {
        self.shared.view.send_modify(|view| view.restarts += 1);
    }

    /// The trial of this configuration.
    fn trial(&self, number: u64) -> Option<Trial> {
        self.shared.view.borrow().book.trial().filter(|trial| trial.number == number).cloned()
    }

    /// The same, and the time it has left.
    fn trial_left(&self, number: u64) -> Option<(Trial, Duration)> {
        let trial = self.trial(number)?;
        let left = trial.left(&self.shared.clock.stamp());
        Some((trial, left))
    }

    /// Shows what the trial still waits for.
    fn waits_for(&self, what: Vec<String>) {
        self.shared.view.send_if_modified(|view| {
            let changed = view.waiting_for != what;
            view.waiting_for = what;
            changed
        });
    }

    fn started(&self, number: u64, limit: Option<Duration>) -> Started {
        let (answering, answered) = oneshot::channel::<()>();
        let changer = self.clone();
        tokio::spawn(async move {
            let _ = timeout(ANSWER_TIME, answered).await;
            changer.restart();
        });
        Started { number, limit, _answering: answering }
    }

    /// Makes the running agent known.
    fn attach(&self, evidence: &Evidence, proof: &Proof) {
        // Without the way back to here.
        let mut evidence = evidence.clone();
        evidence.changer = None;
        *self.live() = Some((evidence, proof.clone()));
    }

    fn live(&self) -> MutexGuard<'_, Option<(Evidence, Proof)>> {
        self.shared.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running configuration, when its broker has been reached; ports on which a meter has answered.
    fn proved(&self) -> (Option<u64>, Vec<String>) {
        self.live().as_ref().map(|(evidence, proof)| proof.so_far(evidence)).unwrap_or_default()
    }

    /// Writes what a disk refused before.
    async fn write_again(&self) {
        if lock(&self.shared.history).is_unwritten() {
            let _ = self.with(|history, _| Ok(history.write_again())).await;
        }
    }

    /// Notes the ports on which a meter answers, for a change that is made while weir does not run.
    async fn note_answered(&self) {
        let (_, answered) = self.proved();
        let known = self.shared.view.borrow().book.answered();
        if answered.iter().any(|port| !known.contains(port)) {
            let result = self.with(move |history, _| history.note(None, &answered)).await;
            result.unwrap_or_else(|error| warn!(%error, "which ports answer could not be noted"));
        }
    }

    /// Does something with the history on a thread that may wait for the disk, then shows everybody what became of it.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut History, &Stamp) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut history = lock(&shared.history);
            let result = work(&mut history, &shared.clock.stamp());
            let text = history.text(history.book().current());
            shared.view.send_if_modified(|view| {
                let changed = view.book != *history.book();
                view.book = history.book().clone();
                if let Ok(text) = text {
                    view.text = text.into();
                }
                changed
            });
            result
        });
        done.await.map_err(|_| Refusal::Ending)?
    }
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

fn proposal(
    prepared: Prepared,
    (who, why): (Origin, String),
    limit: Option<Duration>,
    answered: &[String],
) -> Proposal {
    let ports = prepared.ports.into_iter().filter(|port| answered.contains(port)).collect();
    Proposal { who, why, hash: prepared.hash, limit, ports, base: None }
}

fn tell_end(ended: Option<&(u64, String)>) {
    if let Some((number, why)) = ended {
        warn!(number, why, "the configuration on trial was given up; the one before it is taken again");
    }
}
