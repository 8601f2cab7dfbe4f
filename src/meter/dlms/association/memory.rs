//! What must outlive a restart besides counters: the client's title, and what came of showing a password or key.
//!
//! Invariants: a title whose counters were lost is given up for another one, never begun again; what the meter refused
//! is not shown again before [`DAY`] is over, nor what it left without a clear answer [`UNCLEAR`] times in a row. Secrets
//! that never worked are counted before they are shown, so that no crash gives another try.

use std::fmt::Write;
use std::time::Duration;

use rand::RngExt;
use tracing::warn;

use super::counters::Counters;
use super::material::{Mark, unasked};
use crate::meter::{Kept, MeterError};
use crate::model::Timestamp;
use crate::wire::dlms::protect::SystemTitle;

/// How long what the meter refused is not shown again.
const DAY: Duration = Duration::from_hours(24);
/// So often in a row the meter may leave a password or key without a clear answer; many lock themselves at the third try.
const UNCLEAR: u32 = 2;
/// How long one that has worked before is left alone then: at first it is rather the line that fails.
const PAUSES: [Duration; 2] = [Duration::from_hours(1), Duration::from_hours(4)];
/// How many keys are known to have been used; the oldest one goes first.
const KEYS: usize = 16;
/// The first line of the file.
const HEAD: &str = "weir dlms 2";

/// What is remembered of one meter.
#[derive(Debug)]
pub(super) struct Memory {
    /// The invocation counters.
    pub(super) counters: Counters,
    kept: Option<Kept>,
    name: String,
    /// What the file held when it was read or written last.
    filed: Option<Vec<u8>>,
    known: Known,
}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    title: SystemTitle,
    /// Titles with keys whose counters were ever used: a file of each must be there.
    used: Vec<Mark>,
    /// What the meter refused, and when.
    refused: Option<(Mark, i64)>,
    /// What the meter gave no clear answer to, how often in a row, and when at last.
    tried: Option<(Mark, u32, i64)>,
    /// What the meter accepted last.
    proven: Option<Mark>,
    /// When the meter broke the connection because the public client called.
    shut: Option<i64>,
}

/// Why something is not shown to the meter now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Barred {
    /// Until then.
    pub(super) until: Timestamp,
    /// How often in a row there was no clear answer; 0 when there was one.
    pub(super) tries: u32,
}

impl Memory {
    /// Remembers things of this meter, for as long as weir runs until [`Self::keep_in`] says where else.
    pub(super) fn new(meter: &str) -> Self {
        Self {
            counters: Counters::default(),
            kept: None,
            name: format!("dlms-{meter}"),
            filed: None,
            known: Known { title: random_title(), ..Known::default() },
        }
    }

    /// Keeps things over a restart.
    pub(super) fn keep_in(&mut self, kept: Kept) {
        self.counters.keep_in(kept.clone());
        self.kept = Some(kept);
        self.filed = None;
    }

    /// Reads the file; another process may have changed it.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) async fn load(&mut self) -> Result<(), MeterError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let content = kept.load(&self.name).await;
        let content = content.map_err(|error| unasked(format!("what is kept of the meter can't be read: {error}")))?;
        if content.is_some() && content == self.filed {
            return Ok(());
        }
        match (content.as_deref().and_then(parse), &self.filed) {
            (Some(known), _) => {
                self.known = known;
                self.filed = content;
                return Ok(());
            }
            (None, Some(_)) if content.is_none() => {
                // Whoever takes the file away wants refusals to be forgotten.
                let Known { title, used, .. } = std::mem::take(&mut self.known);
                self.known = Known { title, used, ..Known::default() };
            }
            (None, _) if content.is_some() => {
                warn!(file = self.name, "what is kept of the meter is damaged; begun anew with a new system title");
                self.known = Known { title: random_title(), ..Known::default() };
            }
            (None, _) => {}
        }
        self.store().await
    }

    /// The title of this client where the settings name none: random, so that no earlier counter was used with it.
    pub(super) const fn title(&self) -> SystemTitle {
        self.known.title
    }

    /// Takes another title, because the counters of the one before are lost.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn renew_title(&mut self) -> Result<(), MeterError> {
        self.known.title = random_title();
        self.store().await
    }

    /// Whether counters of this title and key were ever used for this meter.
    pub(super) fn has_used(&self, mark: Mark) -> bool {
        self.known.used.contains(&mark)
    }

    /// Remembers that counters of this title and key are used from now on.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn note_used(&mut self, mark: Mark) -> Result<(), MeterError> {
        if self.has_used(mark) {
            return Ok(());
        }
        self.known.used.push(mark);
        if self.known.used.len() > KEYS {
            self.known.used.remove(0);
        }
        self.store().await
    }

    /// Why these secrets must not be shown now, if so.
    pub(super) fn bars(&self, mark: Mark, now: Timestamp) -> Option<Barred> {
        if let Some((_, at)) = self.known.refused.filter(|(refused, _)| *refused == mark)
            && let Some(until) = within(at, DAY, now)
        {
            return Some(Barred { until, tries: 0 });
        }
        let (_, tries, at) = self.known.tried.filter(|(tried, ..)| *tried == mark)?;
        let over = usize::try_from(tries.checked_sub(UNCLEAR)?).unwrap_or(usize::MAX);
        let pause = PAUSES.get(over).filter(|_| self.is_proven(mark)).copied().unwrap_or(DAY);
        within(at, pause, now).map(|until| Barred { until, tries })
    }

    /// Whether the meter accepted these secrets before.
    fn is_proven(&self, mark: Mark) -> bool {
        self.known.proven == Some(mark)
    }

    /// Counts that these secrets are shown, before they are.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn count(&mut self, mark: Mark, now: Timestamp) -> Result<(), MeterError> {
        let tries = self.tries(mark).saturating_add(1);
        self.known.tried = Some((mark, tries, now.as_millis()));
        // What has worked until now needs no writing at each reading.
        if tries == 1 && self.is_proven(mark) { Ok(()) } else { self.store().await }
    }

    /// Takes the last [`Self::count`] back: the answer had nothing to do with the secrets.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn uncount(&mut self, mark: Mark) -> Result<(), MeterError> {
        let Some((tried, tries, at)) = self.known.tried.filter(|(tried, ..)| *tried == mark) else { return Ok(()) };
        self.known.tried = tries.checked_sub(1).filter(|left| *left > 0).map(|left| (tried, left, at));
        self.store().await
    }

    /// How often in a row these secrets were shown without a clear answer.
    pub(super) fn tries(&self, mark: Mark) -> u32 {
        self.known.tried.map_or(0, |(tried, tries, _)| if tried == mark { tries } else { 0 })
    }

    /// Whether a fault may be the line's: once in a row it may, with secrets that worked before.
    pub(super) fn may_be_chance(&self, mark: Mark) -> bool {
        self.is_proven(mark) && self.tries(mark) <= 1
    }

    /// Remembers that the meter refused these secrets.
    ///
    /// # Errors
    /// When it can't be stored; it is remembered for this process then.
    pub(super) async fn refuse(&mut self, mark: Mark, now: Timestamp) -> Result<(), MeterError> {
        self.known.refused = Some((mark, now.as_millis()));
        self.known.tried = None;
        self.store().await
    }

    /// Remembers that the meter accepted these secrets.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn welcome(&mut self, mark: Mark) -> Result<(), MeterError> {
        (self.known.tried, self.known.refused, self.known.proven) = (None, None, Some(mark));
        self.store().await
    }

    /// Remembers that the meter broke the connection because the public client called.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn shut(&mut self, now: Timestamp) -> Result<(), MeterError> {
        self.known.shut = Some(now.as_millis());
        self.store().await
    }

    /// Whether the public client had better not call.
    pub(super) fn is_shut(&self, now: Timestamp) -> bool {
        self.known.shut.is_some_and(|at| within(at, DAY, now).is_some())
    }

    /// Writes what is new.
    async fn store(&mut self) -> Result<(), MeterError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let content = text(&self.known).into_bytes();
        if self.filed.as_ref() == Some(&content) {
            return Ok(());
        }
        let stored = kept.store(&self.name, content.clone()).await;
        stored.map_err(|error| {
            unasked(format!("what is known of the meter can't be stored, and it is not asked before it is: {error}"))
        })?;
        self.filed = Some(content);
        Ok(())
    }
}

/// The end of a time that began at `at`, if it is not over; a clock that was set back does not make it longer.
fn within(at: i64, time: Duration, now: Timestamp) -> Option<Timestamp> {
    let until = Timestamp::from_millis(at).plus(time);
    (now < until && now.plus(time) >= until).then_some(until)
}

fn text(known: &Known) -> String {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let mut text = format!("{HEAD}\ntitle {}\n", hex(&known.title));
    for mark in &known.used {
        let _ = writeln!(text, "used {}", hex(mark));
    }
    if let Some((mark, at)) = &known.refused {
        let _ = writeln!(text, "refused {} {at}", hex(mark));
    }
    if let Some((mark, tries, at)) = &known.tried {
        let _ = writeln!(text, "tried {} {tries} {at}", hex(mark));
    }
    if let Some(mark) = &known.proven {
        let _ = writeln!(text, "proven {}", hex(mark));
    }
    if let Some(at) = known.shut {
        let _ = writeln!(text, "shut {at}");
    }
    text
}

fn parse(content: &[u8]) -> Option<Known> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) || !text.ends_with('\n') {
        return None;
    }
    let eight = |hex: &str| -> Option<Mark> { data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok() };
    let title = eight(lines.next()?.strip_prefix("title ")?)?;
    let mut known = Known { title, ..Known::default() };
    for line in lines {
        match *line.split(' ').collect::<Vec<_>>().as_slice() {
            ["used", mark] => known.used.push(eight(mark)?),
            ["refused", mark, at] => known.refused = Some((eight(mark)?, at.parse().ok()?)),
            ["tried", mark, tries, at] => known.tried = Some((eight(mark)?, tries.parse().ok()?, at.parse().ok()?)),
            ["proven", mark] => known.proven = Some(eight(mark)?),
            ["shut", at] => known.shut = Some(at.parse().ok()?),
            _ => return None,
        }
    }
    Some(known)
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
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    async fn memory(kept: &Kept) -> Memory {
        let mut memory = Memory::new("m");
        memory.keep_in(kept.clone());
        memory.load().await.unwrap();
        memory
    }

    #[tokio::test]
    async fn a_refusal_lasts_a_day_or_until_the_secret_changes() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        memory(&kept).await.refuse(KEY, NOW).await.unwrap();
        let mut memory = memory(&kept).await;
        assert_eq!(memory.bars(KEY, NOW), Some(Barred { until: NOW.plus(DAY), tries: 0 }));
        assert!(memory.bars([2; 8], NOW).is_none());
        assert!(memory.bars(KEY, NOW.plus(DAY)).is_none());
        assert!(memory.bars(KEY, Timestamp::from_millis(0)).is_none(), "a clock set back");
        memory.welcome(KEY).await.unwrap();
        assert!(memory.bars(KEY, NOW).is_none());
    }

    #[tokio::test]
    async fn what_never_worked_is_shown_twice_in_a_day_whatever_crashes() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut shown = 0;
        for quarter in 0..3 * 96 {
            // Each life ends right behind the showing.
            let mut memory = memory(&kept).await;
            let now = NOW.plus(Duration::from_mins(15 * quarter));
            if memory.bars(KEY, now).is_none() {
                memory.count(KEY, now).await.unwrap();
                shown += 1;
            }
        }
        assert_eq!(shown, 2 + 2);
    }

    #[tokio::test]
    async fn what_worked_before_is_tried_again_after_an_hour_then_later_and_later() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut memory = memory(&kept).await;
        memory.welcome(KEY).await.unwrap();
        let before = memory.filed.clone();
        memory.count(KEY, NOW).await.unwrap();
        assert!(memory.may_be_chance(KEY));
        assert_eq!(memory.filed, before, "nothing is written at each reading");
        memory.welcome(KEY).await.unwrap();
        assert_eq!(memory.filed, before);
        let mut shown = Vec::new();
        for quarter in 0..3 * 96 {
            let now = NOW.plus(Duration::from_mins(15 * quarter));
            if memory.bars(KEY, now).is_none() {
                memory.count(KEY, now).await.unwrap();
                shown.push(quarter / 4);
            }
        }
        assert_eq!(shown, [0, 0, 1, 5, 29, 53]);
    }

    #[tokio::test]
    async fn an_answer_that_is_about_something_else_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        for _ in 0..5 {
            let mut memory = memory(&kept).await;
            assert!(memory.bars(KEY, NOW).is_none());
            memory.count(KEY, NOW).await.unwrap();
            memory.uncount(KEY).await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_takes_the_file_away_lets_weir_try_again_and_the_title_stays() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut memory = memory(&kept).await;
        let title = memory.title();
        memory.note_used([7; 8]).await.unwrap();
        memory.refuse(KEY, NOW).await.unwrap();
        std::fs::remove_file(folder.path().join("dlms-m")).unwrap();
        memory.load().await.unwrap();
        assert!(memory.bars(KEY, NOW).is_none());
        assert_eq!((memory.title(), memory.has_used([7; 8])), (title, true));
    }

    #[tokio::test]
    async fn what_another_process_learnt_is_known_at_the_next_reading() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let (mut one, mut other) = (memory(&kept).await, memory(&kept).await);
        one.refuse(KEY, NOW).await.unwrap();
        other.load().await.unwrap();
        assert!(other.bars(KEY, NOW).is_some());
        assert_eq!(other.title(), one.title());
    }

    #[tokio::test]
    async fn a_damaged_file_begins_anew_under_another_title() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let before = memory(&kept).await.title();
        for damage in ["", "weir dlms 2\ntitle 00", "weir dlms 2\ntitle 0011223344556677\nused x\n"] {
            kept.store("dlms-m", damage.into()).await.unwrap();
            assert_ne!(memory(&kept).await.title(), before);
        }
    }

    #[tokio::test]
    async fn everything_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut first = memory(&kept).await;
        first.welcome([3; 8]).await.unwrap();
        first.note_used([4; 8]).await.unwrap();
        first.shut(NOW).await.unwrap();
        first.count(KEY, NOW).await.unwrap();
        assert_eq!(memory(&kept).await.known, first.known);
        assert!(first.is_shut(NOW) && !first.is_shut(NOW.plus(DAY)));
    }
}
