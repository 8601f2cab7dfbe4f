//! What must outlive a restart: the client's title, how far invocation counters may have been used, and that a
//! password was refused.
//!
//! Invariant: a counter is given out only when the file already says that it may have been used. The
//! file is written once for [`BLOCK`] counters, and a restart skips what is left of a block.

use std::fmt::Write;
use std::time::Duration;

use rand::RngExt;
use tracing::warn;

use super::material::{Mark, unasked};
use crate::meter::{Kept, MeterError};
use crate::model::Timestamp;
use crate::wire::dlms::protect::SystemTitle;

/// How many counters one writing of the file makes room for.
pub(super) const BLOCK: u32 = 256;
/// Counters from here on are never jumped to because a meter says so: whoever forges such an answer shall
/// not use up all that are left.
const HIGHEST_JUMP: u32 = 0xFFFF_0000;
/// How many keys' counters are kept; the oldest one goes first.
const KEYS: usize = 16;
/// How long a refused password is not tried again.
const REFUSAL: Duration = Duration::from_hours(24);
/// The first line of the file.
const HEAD: &str = "weir dlms 1";

/// What is remembered of one meter.
#[derive(Debug)]
pub(super) struct Memory {
    kept: Option<Kept>,
    name: String,
    loaded: bool,
    title: SystemTitle,
    counters: Vec<Counter>,
    refusal: Option<(Mark, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Counter {
    mark: Mark,
    /// The next one to use.
    next: u32,
    /// The first one that may not be used before the file says more.
    end: u32,
}

impl Memory {
    /// Remembers things of this meter, for as long as weir runs until [`Self::keep_in`] says where else.
    pub(super) fn new(meter: &str) -> Self {
        Self {
            kept: None,
            name: format!("dlms-{meter}"),
            loaded: false,
            title: random_title(),
            counters: Vec::new(),
            refusal: None,
        }
    }

    /// Keeps things over a restart.
    pub(super) fn keep_in(&mut self, kept: Kept) {
        self.kept = Some(kept);
        self.loaded = false;
    }

    /// Whether things outlive this process.
    pub(super) const fn lasts(&self) -> bool {
        self.kept.is_some()
    }

    /// Reads the file, once.
    ///
    /// # Errors
    /// When the disk fails: counters that can't be known can't be used.
    pub(super) async fn load(&mut self) -> Result<(), MeterError> {
        let Some(kept) = self.kept.as_ref().filter(|_| !self.loaded) else { return Ok(()) };
        let content = kept.load(&self.name).await;
        let content = content.map_err(|error| unasked(format!("the invocation counters can't be read: {error}")))?;
        match content.map(|content| parse(&content)) {
            Some(Some((title, counters, refusal))) => {
                (self.title, self.counters, self.refusal) = (title, counters, refusal);
                self.loaded = true;
            }
            found => {
                if found.is_some() {
                    warn!(file = self.name, "the kept invocation counters are damaged; begun anew with a new title");
                }
                self.store().await?;
                self.loaded = true;
            }
        }
        Ok(())
    }

    /// The title of this client where the settings name none: random, so that no earlier counter was used with it.
    pub(super) const fn title(&self) -> SystemTitle {
        self.title
    }

    /// Whether a counter of this key was ever used here.
    pub(super) fn knows(&self, mark: Mark) -> bool {
        self.counters.iter().any(|counter| counter.mark == mark)
    }

    /// The next counter of this key; it will not be given out again.
    ///
    /// # Errors
    /// When it can't be stored, or all are used up.
    pub(super) async fn take(&mut self, mark: Mark) -> Result<u32, MeterError> {
        if !self.knows(mark) {
            self.counters.push(Counter { mark, next: 1, end: 1 });
            if self.counters.len() > KEYS {
                self.counters.remove(0);
            }
        }
        let Some(place) = self.counters.iter().position(|counter| counter.mark == mark) else {
            return Err(unasked("there is no invocation counter".to_owned()));
        };
        let counter = self.counters.get(place).cloned();
        let Some(Counter { next, end, .. }) = counter.filter(|counter| counter.next < u32::MAX) else {
            let message = "the invocation counter of the encryption key is used up; give the meter a new key";
            return Err(unasked(message.to_owned()));
        };
        if next >= end {
            self.set(place, next, next.saturating_add(BLOCK));
            if let Err(error) = self.store().await {
                // What is not stored is not free.
                self.set(place, next, end);
                return Err(error);
            }
        }
        if let Some(counter) = self.counters.get_mut(place) {
            counter.next = next + 1;
        }
        Ok(next)
    }

    fn set(&mut self, place: usize, next: u32, end: u32) {
        if let Some(counter) = self.counters.get_mut(place) {
            (counter.next, counter.end) = (next, end);
        }
    }

    /// Goes on at `least` with this key's counter if it is not beyond it; whether that is possible.
    pub(super) fn raise(&mut self, mark: Mark, least: u32) -> bool {
        if least > HIGHEST_JUMP {
            return false;
        }
        match self.counters.iter_mut().find(|counter| counter.mark == mark) {
            Some(counter) if counter.next < least => {
                // The end stays where it is: the next counter is stored before it is used.
                counter.next = least;
            }
            Some(_) => {}
            None => self.counters.push(Counter { mark, next: least, end: least }),
        }
        true
    }

    /// Whether the next counter of this key is one that a meter which took `seen` would refuse.
    pub(super) fn is_behind(&self, mark: Mark, seen: u32) -> bool {
        self.counters.iter().any(|counter| counter.mark == mark && counter.next <= seen)
    }

    /// Until when these secrets must not be sent again, because the meter refused them.
    pub(super) fn refused_until(&self, mark: Mark, now: Timestamp) -> Option<Timestamp> {
        let (refused, at) = self.refusal?;
        let until = Timestamp::from_millis(at).plus(REFUSAL);
        // A clock that was set back does not make the wait longer than a day.
        let waits = refused == mark && now < until && now.plus(REFUSAL) >= until;
        waits.then_some(until)
    }

    /// Remembers that the meter refused these secrets.
    ///
    /// # Errors
    /// When it can't be stored; it is remembered for this process then.
    pub(super) async fn refuse(&mut self, mark: Mark, now: Timestamp) -> Result<(), MeterError> {
        self.refusal = Some((mark, now.as_millis()));
        self.store().await
    }

    /// Forgets a refusal, when there is one.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn welcome(&mut self) -> Result<(), MeterError> {
        if self.refusal.take().is_some() { self.store().await } else { Ok(()) }
    }

    async fn store(&self) -> Result<(), MeterError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let stored = kept.store(&self.name, self.text().into_bytes()).await;
        stored.map_err(|error| {
            unasked(format!("the invocation counter can't be stored, and none is used before it is: {error}"))
        })
    }

    fn text(&self) -> String {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let mut text = format!("{HEAD}\ntitle {}\n", hex(&self.title));
        for counter in &self.counters {
            let _ = writeln!(text, "counter {} {}", hex(&counter.mark), counter.end);
        }
        if let Some((mark, at)) = &self.refusal {
            let _ = writeln!(text, "refused {} {at}", hex(mark));
        }
        text
    }
}

type Remembered = (SystemTitle, Vec<Counter>, Option<(Mark, i64)>);

fn parse(content: &[u8]) -> Option<Remembered> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) || !text.ends_with('\n') {
        return None;
    }
    let eight = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok();
    let title = eight(lines.next()?.strip_prefix("title ")?)?;
    let (mut counters, mut refusal) = (Vec::new(), None);
    for line in lines {
        let mut words = line.split(' ');
        match (words.next()?, eight(words.next()?)?, words.next()?) {
            ("counter", mark, end) => {
                let end = end.parse().ok()?;
                counters.push(Counter { mark, next: end, end });
            }
            ("refused", mark, at) => refusal = Some((mark, at.parse().ok()?)),
            _ => return None,
        }
    }
    Some((title, counters, refusal))
}

/// Three letters of a manufacturer, and five bytes that nobody else has.
fn random_title() -> SystemTitle {
    let [a, b, c, d, e]: [u8; 5] = crate::os::random::generator().random();
    [b'W', b'E', b'I', a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Mark = [1; 8];

    async fn memory(kept: &Kept) -> Memory {
        let mut memory = Memory::new("m");
        memory.keep_in(kept.clone());
        memory.load().await.unwrap();
        memory
    }

    #[tokio::test]
    async fn no_counter_is_given_out_twice_however_often_weir_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut used = Vec::new();
        let mut title = None;
        for life in 0..20 {
            let mut memory = memory(&kept).await;
            assert_eq!(*title.get_or_insert(memory.title()), memory.title());
            for _ in 0..life * 40 {
                used.push(memory.take(KEY).await.unwrap());
            }
            // Another key has a row of its own.
            assert!(memory.take([2; 8]).await.unwrap() > life);
        }
        assert!(used.is_sorted_by(|a, b| a < b), "{used:?}");
        // Nor is the file written for each of them.
        assert!((*used.last().unwrap() as usize) < used.len() + 20 * BLOCK as usize);
    }

    #[tokio::test]
    async fn a_counter_that_can_not_be_stored_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("kept"));
        let mut memory = memory(&kept).await;
        let first = memory.take(KEY).await.unwrap();
        std::fs::remove_dir_all(folder.path().join("kept")).unwrap();
        std::fs::write(folder.path().join("kept"), "no folder").unwrap();
        for _ in 1..BLOCK {
            memory.take(KEY).await.unwrap();
        }
        assert!(memory.take(KEY).await.unwrap_err().to_string().contains("can't be stored"));
        assert!(memory.take(KEY).await.is_err());
        std::fs::remove_file(folder.path().join("kept")).unwrap();
        assert_eq!(memory.take(KEY).await.unwrap(), first + BLOCK);
    }

    #[tokio::test]
    async fn a_jump_is_stored_before_it_is_used_and_never_goes_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut first = memory(&kept).await;
        first.take(KEY).await.unwrap();
        assert!(first.raise(KEY, 2008));
        assert_eq!(first.take(KEY).await.unwrap(), 2008);
        assert_eq!(memory(&kept).await.take(KEY).await.unwrap(), 2008 + BLOCK);
        assert!(!first.raise(KEY, u32::MAX));
        assert!(first.raise(KEY, 5));
        assert_eq!(first.take(KEY).await.unwrap(), 2009);
    }

    #[tokio::test]
    async fn counters_that_are_used_up_are_not_begun_again() {
        let mut memory = Memory::new("m");
        memory.counters.push(Counter { mark: KEY, next: u32::MAX - 1, end: u32::MAX - 1 });
        assert_eq!(memory.take(KEY).await.unwrap(), u32::MAX - 1);
        assert!(memory.take(KEY).await.unwrap_err().to_string().contains("used up"));
    }

    #[tokio::test]
    async fn a_refusal_lasts_a_day_or_until_the_secret_changes() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let now = Timestamp::from_millis(1_800_000_000_000);
        memory(&kept).await.refuse(KEY, now).await.unwrap();
        let mut memory = memory(&kept).await;
        assert!(memory.refused_until(KEY, now).is_some());
        assert!(memory.refused_until([2; 8], now).is_none());
        assert!(memory.refused_until(KEY, now.plus(REFUSAL)).is_none());
        assert!(memory.refused_until(KEY, Timestamp::from_millis(0)).is_none(), "a clock set back");
        memory.welcome().await.unwrap();
        assert!(memory.refused_until(KEY, now).is_none());
    }

    #[tokio::test]
    async fn a_damaged_file_begins_anew_under_another_title() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let before = memory(&kept).await.title();
        for damage in ["", "weir dlms 1\ntitle 00", "weir dlms 1\ntitle 0011223344556677\ncounter x\n"] {
            kept.store("dlms-m", damage.into()).await.unwrap();
            assert_ne!(memory(&kept).await.title(), before);
        }
    }
}
