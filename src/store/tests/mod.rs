//! The store as its users see it, against a plain map, with restarts and crashes.

mod books;
mod damage;
mod fair;
mod full;
mod model;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::model::{Body, Frame, Stamp, Telegram, TelegramKind, Timestamp};

const HOUR: Duration = Duration::from_hours(1);

fn settings(path: &Path, max_size: u64, sync: SyncPolicy) -> StoreSettings {
    StoreSettings { path: path.to_owned(), max_size: Size::from_bytes(max_size), sync }
}

fn quiet(path: &Path) -> StoreSettings {
    settings(path, 256 << 20, SyncPolicy::Every(HOUR))
}

fn frame(lane: Lane, tag: u64, size: usize) -> Frame {
    let mut bytes = tag.to_be_bytes().to_vec();
    bytes.resize(size.max(8), tag as u8);
    let telegram = Telegram { kind: TelegramKind::WirelessMbus, bytes, rssi: None, corrected_bits: 0 };
    let time = Stamp::synced(Timestamp::from_millis(tag as i64));
    Frame { time, lane, body: Body::Telegram(telegram), origin: None }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

async fn all(store: &Store, lane: Lane) -> Vec<Stored> {
    let mut found: Vec<Stored> = Vec::new();
    loop {
        let after = found.last().map_or(0, |s| s.sequence);
        let more = store.peek(lane, after, 500).await.unwrap();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The databases of a lane, oldest first.
fn databases(path: &Path, lane: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(path.join(lane)).unwrap().map(|e| e.unwrap().path().join("db")).collect();
    found.sort();
    found
}

fn consistent(status: &Status) {
    assert_eq!(status.received, status.acknowledged + status.evicted + status.cached, "{status:?}");
    assert!(status.given() >= status.durable, "{status:?}");
}

#[test]
fn a_frame_acknowledged_before_its_tick_never_touches_flash() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Store::open(&quiet(dir.path())).unwrap();
        for n in 0..1000 {
            let sequence = store.append(frame(Lane::Ordinary, n, 200)).await.unwrap();
            store.commit(Lane::Ordinary, vec![sequence]).await.unwrap();
        }
        store.sync().await.unwrap();
        assert!(databases(dir.path(), "ordinary").is_empty());
        store.close().await.unwrap();
    });
    let status = inspect(dir.path()).unwrap();
    assert_eq!((status.received, status.acknowledged, status.cached), (1000, 1000, 0));
}

#[test]
fn the_tick_makes_ordinary_frames_durable_and_priority_frames_do_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Store::open(&quiet(dir.path())).unwrap();
        let mut status = store.status();
        let sequence = store.append(frame(Lane::Priority, 1, 50)).await.unwrap();
        status.wait_for(|s| s.durable >= sequence).await.unwrap();
        assert_eq!(databases(dir.path(), "priority").len(), 1);
        store.close().await.unwrap();
        let tick = settings(dir.path(), 256 << 20, SyncPolicy::Every(Duration::from_millis(30)));
        let store = Store::open(&tick).unwrap();
        let sequence = store.append(frame(Lane::Ordinary, 2, 50)).await.unwrap();
        store.status().wait_for(|s| s.durable >= sequence).await.unwrap();
        assert_eq!(databases(dir.path(), "ordinary").len(), 1);
        store.close().await.unwrap();
        let store = Store::open(&settings(dir.path(), 256 << 20, SyncPolicy::Always)).unwrap();
        let sequence = store.append(frame(Lane::Ordinary, 3, 50)).await.unwrap();
        assert!(store.status().borrow().durable >= sequence, "\"always\" answers when it is durable");
        store.close().await.unwrap();
    });
}

#[test]
fn a_second_weir_is_refused_and_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&quiet(dir.path())).unwrap();
    let refused = Store::open(&quiet(dir.path())).unwrap_err();
    assert!(refused.to_string().starts_with("another weir is using the store"), "{refused}");
    assert_eq!(inspect(dir.path()).unwrap().cached, 0, "the counters can be read all the same");
    run(store.close()).unwrap();
    let file = dir.path().join("lock");
    let refused = Store::open(&quiet(&file)).unwrap_err();
    assert!(refused.to_string().contains("can't be used: create it"), "{refused}");
    assert!(matches!(inspect(&dir.path().join("nowhere")), Err(StoreError::Missing { .. })));
}

#[test]
fn a_frame_beyond_the_limit_is_refused_and_one_at_it_survives() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Store::open(&quiet(dir.path())).unwrap();
        let refused = store.append(frame(Lane::Ordinary, 1, MAX_FRAME)).await;
        assert!(matches!(refused, Err(StoreError::FrameTooLarge { .. })));
        let large = frame(Lane::Ordinary, 2, MAX_FRAME - 64);
        store.append(large.clone()).await.unwrap();
        store.append(frame(Lane::Ordinary, 3, 10)).await.unwrap();
        store.close().await.unwrap();
        let store = Store::open(&quiet(dir.path())).unwrap();
        let found = all(&store, Lane::Ordinary).await;
        assert_eq!((found.len(), &found[0].frame), (2, &large));
        store.close().await.unwrap();
    });
}

#[test]
fn frames_given_together_are_numbered_in_their_order_and_a_refused_one_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Store::open(&quiet(dir.path())).unwrap();
        // More than the memory of the lane: the first ones must be written while the last ones wait.
        let size = |n| if n == 7 { MAX_FRAME } else { 100_000 };
        let outcomes = store.append_all((0..40).map(|n| frame(Lane::Ordinary, n, size(n)))).await;
        assert!(matches!(outcomes[7], Err(StoreError::FrameTooLarge { .. })));
        let numbers: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();
        let found = all(&store, Lane::Ordinary).await;
        assert_eq!(found.iter().map(|s| s.sequence).collect::<Vec<_>>(), numbers);
        let tags: Vec<_> = (0..40).filter(|n| *n != 7).map(|n| frame(Lane::Ordinary, n, size(n))).collect();
        assert_eq!(found.into_iter().map(|s| s.frame).collect::<Vec<_>>(), tags);
        store.close().await.unwrap();
    });
}

/// A closed store with 40 generations' worth of small blocks, and its path.
async fn with_backlog(path: &Path, max_size: u64, frames: u64, lane: Lane) -> Vec<Sequence> {
    let store = Store::open(&settings(path, max_size, SyncPolicy::Every(HOUR))).unwrap();
    let mut sequences = Vec::new();
    for n in 0..frames {
        sequences.push(store.append(frame(lane, n, 700)).await.unwrap());
        if n % 100 == 99 {
            store.sync().await.unwrap();
        }
    }
    store.close().await.unwrap();
    sequences
}

#[test]
fn frames_of_both_lanes_that_come_together_have_the_next_numbers_in_their_order() {
    for sync in [SyncPolicy::Every(HOUR), SyncPolicy::Always] {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let store = Store::open(&settings(dir.path(), 256 << 20, sync)).unwrap();
            let lane = |n: u64| if n.is_multiple_of(3) { Lane::Priority } else { Lane::Ordinary };
            let outcomes = store.append_all((0..700).map(|n| frame(lane(n), n, 60))).await;
            let numbers: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
            assert_eq!(numbers, (numbers[0]..numbers[0] + 700).collect::<Vec<_>>());
            for lane_of in [Lane::Priority, Lane::Ordinary] {
                let stored = all(&store, lane_of).await;
                assert!(stored.iter().all(|s| s.frame == frame(lane_of, s.sequence - numbers[0], 60)));
                assert_eq!(stored.len() as u64, (0..700).filter(|n| lane(*n) == lane_of).count() as u64);
            }
            if matches!(sync, SyncPolicy::Always) {
                assert_eq!(store.status().borrow().durable, numbers[699]);
            }
            consistent(&store.status().borrow());
        });
    }
}
