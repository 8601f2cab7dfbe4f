//! How far invocation counters may have been used: one file for each system title and encryption key.
//!
//! Invariant: a counter is given out once, and only when the file already says that it may have been used. Whoever
//! needs counters reserves [`BLOCK`] of them under a lock, beyond those that anybody reserved before: two entries of
//! weir.toml, or two processes, with the same title and key never use the same one. A restart skips what is left of a block.

use tracing::warn;

use super::material::{Mark, unasked};
use crate::meter::{Kept, MeterError};

/// How many counters one writing of the file makes room for.
pub(super) const BLOCK: u32 = 256;
/// Counters from here on are never jumped to because a meter says so: whoever forges such an answer shall
/// not use up all that are left.
const HIGHEST_JUMP: u32 = 0xFFFF_0000;
/// The first line of a file.
const HEAD: &str = "weir dlms counter 1";

/// The counters that this session may use.
#[derive(Debug, Default)]
pub(super) struct Counters {
    kept: Option<Kept>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    mark: Mark,
    /// The next one to use.
    next: u32,
    /// The first one that may not be used before the file says more.
    end: u32,
}

impl Counters {
    /// Keeps them over a restart.
    pub(super) fn keep_in(&mut self, kept: Kept) {
        self.kept = Some(kept);
    }

    /// Looks at the file of a title and key: whether there is one. When somebody else has reserved counters since, ours
    /// are left out: a meter wants them to rise.
    ///
    /// # Errors
    /// When the disk fails: counters that can't be known can't be used.
    pub(super) async fn look(&mut self, mark: Mark) -> Result<bool, MeterError> {
        let Some(kept) = &self.kept else { return Ok(self.row(mark).is_some()) };
        let content = kept.load(&file(mark)).await;
        let content = content.map_err(|error| unasked(format!("the invocation counter can't be read: {error}")))?;
        let end = content.as_deref().and_then(parse);
        if content.is_some() && end.is_none() {
            warn!(file = file(mark), "the kept invocation counter is damaged");
        }
        let Some(end) = end else { return Ok(false) };
        match self.rows.iter_mut().find(|row| row.mark == mark) {
            Some(row) if row.end >= end => {}
            Some(row) => (row.next, row.end) = (row.next.max(end), end),
            None => self.rows.push(Row { mark, next: end, end }),
        }
        Ok(true)
    }

    /// The next counter; it will not be given out again, to anybody.
    ///
    /// # Errors
    /// When it can't be stored, or all are used up.
    pub(super) async fn take(&mut self, mark: Mark) -> Result<u32, MeterError> {
        let mut row = self.row(mark).unwrap_or(Row { mark, next: 1, end: 1 });
        if row.next >= row.end {
            row = self.reserve(row).await?;
        }
        if row.next == u32::MAX {
            return Err(used_up());
        }
        self.put(Row { next: row.next + 1, ..row });
        Ok(row.next)
    }

    /// Goes on at `least` if the next counter is not beyond it; whether that is possible. It is reserved before it is used.
    pub(super) fn raise(&mut self, mark: Mark, least: u32) -> bool {
        if least > HIGHEST_JUMP {
            return false;
        }
        let row = self.row(mark).unwrap_or(Row { mark, next: least, end: least });
        self.put(Row { next: row.next.max(least), ..row });
        true
    }

    /// Whether the next counter of this key is one that a meter which took `seen` would refuse.
    pub(super) fn is_behind(&self, mark: Mark, seen: u32) -> bool {
        self.row(mark).is_some_and(|row| row.next <= seen)
    }

    /// A block of counters beyond all that anybody reserved, from `row.next` on; the file says so before this returns.
    async fn reserve(&self, row: Row) -> Result<Row, MeterError> {
        let least = row.next.max(row.end);
        let Some(kept) = &self.kept else { return block(row.mark, least).ok_or_else(used_up) };
        let name = file(row.mark);
        let reserved = kept.change(&name, move |before| {
            let reserved = before.as_deref().and_then(parse).unwrap_or(0);
            let row = block(row.mark, least.max(reserved));
            let end = row.map_or(u32::MAX, |row| row.end);
            Ok((format!("{HEAD}\nend {end}\n").into_bytes(), row))
        });
        let reserved = reserved.await.map_err(|error| {
            unasked(format!("the invocation counter can't be stored, and none is used before it is: {error}"))
        })?;
        reserved.ok_or_else(used_up)
    }

    fn row(&self, mark: Mark) -> Option<Row> {
        self.rows.iter().find(|row| row.mark == mark).copied()
    }

    fn put(&mut self, new: Row) {
        match self.rows.iter_mut().find(|row| row.mark == new.mark) {
            Some(row) => *row = new,
            None => self.rows.push(new),
        }
    }
}

fn block(mark: Mark, next: u32) -> Option<Row> {
    (next < u32::MAX).then(|| Row { mark, next, end: next.saturating_add(BLOCK) })
}

fn used_up() -> MeterError {
    unasked("the invocation counter of the encryption key is used up; give the meter a new key".to_owned())
}

fn file(mark: Mark) -> String {
    // No meter's own file is called so: those have a hyphen there.
    format!("dlmscounter{}", data_encoding::HEXLOWER.encode(&mark))
}

fn parse(content: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('\n')?;
    let (head, end) = text.split_once("\nend ")?;
    if head == HEAD { end.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KEY: Mark = [1; 8];

    fn counters(kept: &Kept) -> Counters {
        let mut counters = Counters::default();
        counters.keep_in(kept.clone());
        counters
    }

    #[tokio::test]
    async fn no_counter_is_given_out_twice_however_often_weir_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut used = Vec::new();
        for life in 0..20 {
            let mut counters = counters(&kept);
            for _ in 0..life * 40 {
                used.push(counters.take(KEY).await.unwrap());
            }
            // Another key has a row of its own.
            assert!(counters.take([2; 8]).await.unwrap() > life);
        }
        assert!(used.is_sorted_by(|a, b| a < b), "{used:?}");
        // Nor is the file written for each of them.
        assert!((*used.last().unwrap() as usize) < used.len() + 20 * BLOCK as usize);
    }

    #[tokio::test]
    async fn many_sessions_of_one_title_and_key_never_share_a_counter() {
        let folder = tempfile::tempdir().unwrap();
        let sides: Vec<_> = (0..4)
            .map(|_| {
                let kept = Kept::new(folder.path());
                tokio::spawn(async move {
                    let mut counters = counters(&kept);
                    let mut used = Vec::new();
                    for number in 0..600 {
                        if number % 50 == 0 {
                            counters.look(KEY).await.unwrap();
                        }
                        used.push(counters.take(KEY).await.unwrap());
                    }
                    used
                })
            })
            .collect();
        let mut all = Vec::new();
        for side in sides {
            let used = side.await.unwrap();
            assert!(used.is_sorted(), "{used:?}");
            all.extend(used);
        }
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 4 * 600);
    }

    #[tokio::test]
    async fn after_a_look_counters_go_on_behind_those_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let (mut one, mut other) = (counters(&kept), counters(&kept));
        assert!(!one.look(KEY).await.unwrap());
        let mut last = 0;
        for turn in 0..6 {
            let side = if turn % 2 == 0 { &mut one } else { &mut other };
            assert_eq!(side.look(KEY).await.unwrap(), turn > 0);
            for _ in 0..3 {
                let counter = side.take(KEY).await.unwrap();
                assert!(counter > last, "{counter} after {last}");
                last = counter;
            }
        }
    }

    #[tokio::test]
    async fn a_counter_that_can_not_be_stored_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("kept"));
        let mut counters = counters(&kept);
        let first = counters.take(KEY).await.unwrap();
        std::fs::remove_dir_all(folder.path().join("kept")).unwrap();
        std::fs::write(folder.path().join("kept"), "no folder").unwrap();
        for _ in 1..BLOCK {
            counters.take(KEY).await.unwrap();
        }
        assert!(counters.take(KEY).await.unwrap_err().to_string().contains("can't be stored"));
        assert!(counters.take(KEY).await.is_err());
        std::fs::remove_file(folder.path().join("kept")).unwrap();
        assert_eq!(counters.take(KEY).await.unwrap(), first + BLOCK);
    }

    #[tokio::test]
    async fn who_gives_up_while_a_block_is_stored_uses_none_of_it_and_goes_on_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut counters = counters(&kept);
        let mut taking = Box::pin(counters.take(KEY));
        // Polled once: the block is being stored, and nobody waits for the end.
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(taking.as_mut().poll(cx))).await.is_pending());
        drop(taking);
        assert_eq!(counters.row(KEY), None, "what is not stored is not free");
        let first = counters.take(KEY).await.unwrap();
        assert_eq!(kept.load(&file(KEY)).await.unwrap().as_deref().and_then(parse), Some(first + BLOCK));
    }

    #[tokio::test]
    async fn a_jump_is_stored_before_it_is_used_and_never_goes_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        let mut first = counters(&kept);
        first.take(KEY).await.unwrap();
        assert!(first.raise(KEY, 2008));
        assert_eq!(first.take(KEY).await.unwrap(), 2008);
        assert_eq!(counters(&kept).take(KEY).await.unwrap(), 2008 + BLOCK);
        assert!(!first.raise(KEY, u32::MAX));
        assert!(first.raise(KEY, 5));
        assert_eq!(first.take(KEY).await.unwrap(), 2009);
    }

    #[tokio::test]
    async fn counters_that_are_used_up_are_not_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        kept.store(&file(KEY), format!("{HEAD}\nend {}\n", u32::MAX - 1).into_bytes()).await.unwrap();
        let mut counters = counters(&kept);
        assert!(counters.look(KEY).await.unwrap());
        assert_eq!(counters.take(KEY).await.unwrap(), u32::MAX - 1);
        for _ in 0..3 {
            assert!(counters.take(KEY).await.unwrap_err().to_string().contains("used up"));
        }
    }
}
