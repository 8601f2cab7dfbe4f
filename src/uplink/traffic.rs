//! The account of traffic: joins the counters, the books, their file and the budget.
//!
//! Invariants: the file is written at most every [`SAVE_EVERY`], at shutdown and when the day
//! changes, so a crash loses at most that much; a disk that refuses is told once and counting goes
//! on in memory; a file that can't be read is put aside, never believed. Connections only touch
//! [`Tally`]; [`Traffic::run`] does the rest.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::books::{Daybook, day_of, month_of};
use super::budget::{Budget, BudgetSettings, Policy, Standing, Step};
use super::stopped;
use super::tally::{Amount, Tally};
use crate::model::Timestamp;
use crate::os::file::{read_small, write_atomic};

/// The file's name beside the store's own.
const FILE: &str = "traffic";
/// A larger one is not ours.
const LARGEST_FILE: u64 = 64 << 10;
/// How often counters go into the books and the budget is looked at.
const TICK: Duration = Duration::from_secs(30);
/// How often the file is written.
const SAVE_EVERY: Duration = Duration::from_mins(10);

/// What has been sent and received, and where that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// By UTC day, oldest first; `1970-01-01`: before the clock was set.
    pub days: Vec<(String, Amount)>,
    /// By calendar month, oldest first.
    pub months: Vec<(String, Amount)>,
    /// This UTC day.
    pub today: Amount,
    /// This calendar month (UTC).
    pub this_month: Amount,
    /// Since the file was begun.
    pub total: Amount,
    /// The budget for a SIM's month, if there is one.
    pub monthly: Option<u64>,
    /// The present SIM's month; `None` while the date is not known.
    pub standing: Option<Standing>,
    /// The steps taken to spend less, in their order.
    pub steps: Vec<Step>,
    /// When these figures were made.
    pub written: Timestamp,
    /// Why the file can't be written, while it can't.
    pub disk_error: Option<String>,
}

/// Why there are no figures to show.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// Nothing was written yet.
    #[error(
        "there are no figures in {path} yet: they are written 10 minutes after the agent started, and when it stops"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read.
    #[error("the figures in {path} can't be read: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A source of the present time.
type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// A handle to the account; clones share it.
#[derive(Clone)]
pub struct Traffic(Arc<Shared>);

struct Shared {
    file: PathBuf,
    clock: Clock,
    budget: Budget,
    tally: Arc<Tally>,
    books: Mutex<Books>,
    policy: watch::Sender<Policy>,
    account: watch::Sender<Account>,
}

#[derive(Debug, Default)]
struct Books {
    daybook: Daybook,
    /// How many steps of the budget's order are taken.
    taken: usize,
    /// Since when.
    since: Timestamp,
    /// What the file holds.
    saved: Option<(Daybook, usize)>,
    disk_error: Option<String>,
}

impl std::fmt::Debug for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traffic").field("file", &self.0.file).finish_non_exhaustive()
    }
}

impl Traffic {
    /// Takes up the account kept in `directory` (the store's). It never fails: without a file it
    /// begins anew, a damaged one is put aside and told.
    pub fn open(
        directory: &Path,
        settings: &BudgetSettings,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let file = directory.join(FILE);
        let budget = Budget::new(settings);
        let mut books = Books::default();
        match read(&file) {
            Ok(Kept { daybook, taken, since, rule, .. }) => {
                // The steps of another budget mean nothing.
                let (taken, since) = if rule == budget.to_json() { (taken, since) } else { Default::default() };
                books.saved = Some((daybook.clone(), taken));
                (books.daybook, books.taken, books.since) = (daybook, taken, since);
            }
            Err(TrafficError::Missing { .. }) => {}
            Err(error) => {
                let aside = file.with_extension("damaged");
                let _ = std::fs::rename(&file, &aside);
                warn!(%error, aside = %aside.display(), "the traffic counters begin anew; the old file was put aside");
            }
        }
        let (policy, _) = watch::channel(Policy::default());
        let (account, _) = watch::channel(Account::default());
        let shared = Shared {
            file,
            clock: Box::new(clock),
            budget,
            tally: Arc::default(),
            books: Mutex::new(books),
            policy,
            account,
        };
        let traffic = Self(Arc::new(shared));
        traffic.settle();
        traffic
    }

    /// What connections count into.
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.0.tally)
    }

    /// What the budget asks of sessions, and a signal when that changes.
    pub fn policy(&self) -> watch::Receiver<Policy> {
        self.0.policy.subscribe()
    }

    /// The figures, up to half a minute old.
    pub fn account(&self) -> Account {
        self.0.account.borrow().clone()
    }

    /// Keeps the books until `shutdown` turns true.
    ///
    /// # Errors
    /// None; a room returns a `Result`.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> Result<(), TrafficError> {
        let mut saved_at = Instant::now();
        let mut saved_day = day_of((self.0.clock)());
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => return Ok(()),
                () = sleep(TICK) => {}
                () = self.0.tally.passed(self.0.budget.alarm()) => {}
            }
            self.settle();
            let today = day_of((self.0.clock)());
            if today != saved_day || saved_at.elapsed() >= SAVE_EVERY {
                (saved_at, saved_day) = (Instant::now(), today);
                let this = self.clone();
                // Syncing a file takes long on a bad card.
                let _ = tokio::task::spawn_blocking(move || this.save()).await;
            }
        }
    }

    /// Books what was counted and writes the file; for the end, after the last session.
    pub fn close(&self) {
        self.settle();
        self.save();
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Books what was counted, judges it and tells everybody.
    pub fn settle(&self) {
        let Shared { clock, budget, tally, policy, account, .. } = &*self.0;
        let mut books = self.books();
        let now = clock();
        books.daybook.add(day_of(now), tally.take());
        let standing = budget.standing(&books.daybook, now);
        if let Some(standing) = &standing {
            // A clock that was set back must not hold a step for ever.
            books.since = books.since.min(now);
            let taken = budget.steps(standing, books.taken, now.since(books.since));
            if taken != books.taken {
                tell(budget, standing, books.taken, taken);
                (books.taken, books.since) = (taken, now);
            }
        }
        let wanted = budget.policy(if budget.monthly.is_some() { books.taken } else { 0 });
        policy.send_if_modified(|p| {
            let changed = *p != wanted;
            *p = wanted;
            changed
        });
        account.send_replace(books.daybook.account(budget, books.taken, now, books.disk_error.clone()));
    }

    /// Writes the file when it would differ.
    fn save(&self) {
        let (daybook, taken, since) = {
            let books = self.books();
            (books.daybook.clone(), books.taken, books.since)
        };
        if self.books().saved.as_ref().is_some_and(|saved| *saved == (daybook.clone(), taken)) {
            return;
        }
        let written = (self.0.clock)();
        let json = json!({
            "version": 1, "written": written.as_millis(), "steps": taken, "since": since.as_millis(),
            "budget": self.0.budget.to_json(), "books": daybook.to_json(),
        });
        let outcome = write_atomic(&self.0.file, json.to_string().as_bytes(), 0o644);
        let mut books = self.books();
        match outcome {
            Ok(()) => {
                books.saved = Some((daybook, taken));
                if books.disk_error.take().is_some() {
                    info!("the traffic counters are on the disk again");
                }
            }
            Err(error) => {
                let error = error.to_string();
                if books.disk_error.is_none() {
                    warn!(file = %self.0.file.display(), error, "the traffic counters can't be written; they go on in memory");
                }
                books.disk_error = Some(error);
            }
        }
    }
}

/// One line for a change of steps.
fn tell(budget: &Budget, standing: &Standing, before: usize, after: usize) {
    let steps: Vec<_> = budget.order.iter().take(after).map(|s| s.word()).collect();
    let steps = steps.join(", ");
    let (used, monthly, forecast) = (standing.used, budget.monthly.unwrap_or(0), standing.forecast);
    if after > before {
        warn!(steps, used, monthly, forecast, "traffic runs ahead of the data budget; weir spends less");
    } else {
        info!(steps, used, monthly, forecast, "traffic is nearer to the data budget again; weir spends more freely");
    }
}

impl Daybook {
    fn account(&self, budget: &Budget, taken: usize, now: Timestamp, disk_error: Option<String>) -> Account {
        let month = |day: &time::Date| day.to_string().chars().take(7).collect();
        let today = day_of(now);
        let of_day = today.and_then(|day| self.days.get(&day)).copied();
        let of_month = today.and_then(|day| self.months.get(&month_of(day))).copied();
        Account {
            days: self.days.iter().map(|(day, amount)| (day.to_string(), *amount)).collect(),
            months: self.months.iter().map(|(day, amount)| (month(day), *amount)).collect(),
            today: of_day.unwrap_or_default(),
            this_month: of_month.unwrap_or_default(),
            total: self.total,
            monthly: budget.monthly,
            standing: budget.standing(self, now),
            steps: budget.order.iter().take(if budget.monthly.is_some() { taken } else { 0 }).copied().collect(),
            written: now,
            disk_error,
        }
    }
}

/// Reads the account kept in `directory` without opening it, whether an agent runs or not; while
/// one runs it is up to ten minutes old.
///
/// # Errors
/// [`TrafficError`].
pub fn inspect(directory: &Path, settings: &BudgetSettings, now: Timestamp) -> Result<Account, TrafficError> {
    let kept = read(&directory.join(FILE))?;
    let budget = Budget::new(settings);
    let taken = if kept.rule == budget.to_json() { kept.taken } else { 0 };
    let mut account = kept.daybook.account(&budget, taken, now, None);
    account.written = kept.written;
    Ok(account)
}

/// What the file holds.
struct Kept {
    daybook: Daybook,
    taken: usize,
    since: Timestamp,
    written: Timestamp,
    /// The budget that the steps belong to.
    rule: Json,
}

fn read(path: &Path) -> Result<Kept, TrafficError> {
    let unreadable = |why: String| TrafficError::Unreadable { path: path.to_owned(), why };
    let bytes = read_small(path, LARGEST_FILE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TrafficError::Missing { path: path.to_owned() },
        _ => unreadable(error.to_string()),
    })?;
    let json: Json = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
    let parsed = || {
        let version = json.get("version")?.as_u64()?;
        let taken = usize::try_from(json.get("steps")?.as_u64()?).ok()?;
        let time = |key| json.get(key).and_then(Json::as_i64).map(Timestamp::from_millis);
        let daybook = Daybook::from_json(json.get("books")?)?;
        let rule = json.get("budget").cloned().unwrap_or_default();
        (version == 1).then_some(Kept { daybook, taken, since: time("since")?, written: time("written")?, rule })
    };
    parsed().ok_or_else(|| unreadable("it is not a traffic file of version 1".to_owned()))
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
