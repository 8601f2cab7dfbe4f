//! What the agent's start does, at once and for the whole store: recover, count anew, tidy up.

use std::fs;
use std::path::Path;

use super::carry::{owned, put_known_aside};
use super::check::{Report, check};
use super::generation::Generation;
use super::key::{self, Key};
use super::survey::{LANES, Survey};
use super::{Status, Store, StoreError, StoreSettings, row};
use crate::model::Sequence;

/// Frames read at a time.
const STEP: usize = 1_000;

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The store before.
    pub before: Report,
    /// The store afterwards.
    pub after: Report,
    /// Its counters afterwards.
    pub status: Status,
    /// Frames that were counted as damaged by this repair.
    pub given_up: u64,
    /// What was done, one sentence each.
    pub done: Vec<String>,
}

/// Repairs the store: reads every waiting frame, gives up (and counts) those that can't be read,
/// rebuilds lost counters, replaces a damaged key, removes trash and with `purge` what was put
/// aside. `progress` is told the bytes looked at before the repair.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Locked`], [`StoreError::Owner`], [`StoreError::Directory`],
/// [`StoreError::Disk`], [`StoreError::Key`].
pub async fn repair(
    settings: &StoreSettings,
    purge: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Repaired, StoreError> {
    let path = &settings.path;
    Survey::open(path)?;
    owned(path)?;
    // Before anything else: what is locked is in use and not to be judged.
    let before = {
        let _lock = super::recovery::lock(path)?;
        check(path, progress)?
    };
    let damaged_before = super::inspect(path).map_or(0, |s| s.damaged);
    let store = Store::open(settings)?;
    for (lane, _) in LANES {
        let mut after: Sequence = 0;
        while let Some(last) = store.peek(lane, after, STEP).await?.last() {
            after = last.sequence;
        }
    }
    store.sync().await?;
    if let Some(error) = store.status().borrow().disk_error.clone() {
        return Err(StoreError::Disk(error));
    }
    let mut done = Vec::new();
    mend(path, &before, &mut done)?;
    if purge {
        row::sweep(path, 0).map_err(|source| StoreError::Directory { path: path.clone(), source })?;
    }
    let status = store.status().borrow().clone();
    store.close().await?;
    let given_up = status.damaged.saturating_sub(damaged_before);
    if given_up > 0 {
        done.push(format!("{given_up} unreadable frames were given up and counted"));
    }
    let after = check(path, &mut |_| {})?;
    tell(path, &before, &after, &mut done);
    Ok(Repaired { before, after, status, given_up, done })
}

/// Mends what the agent's start leaves: seals that promise too much, a damaged key or record.
fn mend(path: &Path, before: &Report, done: &mut Vec<String>) -> Result<(), StoreError> {
    for (lane, name) in LANES {
        for tally in before.generations.iter().filter(|g| g.lane == lane && g.damaged > 0) {
            let Some(mut generation) = Generation::found(&path.join(name).join(&tally.name)) else { continue };
            let missing = generation.load(Sequence::MAX);
            if missing.is_ok_and(|missing| missing > 0) && generation.frames > 0 {
                generation.seal_found().map_err(|source| StoreError::Directory { path: path.to_owned(), source })?;
                done.push(format!("{name}/{} is sealed anew with the {} frames it has", tally.name, generation.frames));
            }
        }
    }
    if before.key.is_some() {
        let file = key::path_in(path);
        let made = Key::open_or_create(&file);
        let key = made.map_err(|source| StoreError::Key { path: file, source })?;
        done.push(format!("the damaged key was put aside as key.damaged; the new one is {}", key.text()));
    }
    if before.imports.is_some() {
        let aside = put_known_aside(path);
        aside.map_err(|source| StoreError::Directory { path: path.to_owned(), source })?;
        done.push("the damaged record of imports was put aside as imports.damaged".into());
    }
    Ok(())
}

/// Says what changed in the directory.
fn tell(path: &Path, before: &Report, after: &Report, done: &mut Vec<String>) {
    if before.counters_lost && !after.counters_lost {
        done.push("the counters were unreadable: put aside as cursor.damaged and counted anew".into());
    }
    let gone = |was: &[(String, u64)]| was.iter().filter(|(name, _)| !path.join(name).exists()).count();
    for (what, count) in [("trash", gone(&before.trash)), ("damage put aside before", gone(&before.quarantine))] {
        if count > 0 {
            done.push(format!("{count} directories of {what} were removed"));
        }
    }
    let new = after.quarantine.iter().filter(|q| !before.quarantine.contains(q)).count();
    if new > 0 {
        done.push(format!("{new} damaged directories were put aside as quarantine-*"));
    }
    if fs::exists(path.join("cursor.damaged")).unwrap_or(false) && !before.counters_lost {
        done.push("cursor.damaged, put aside before, is still there: remove it when nobody wants to look at it".into());
    }
}
