//! The store as its users see it, against a plain map, with restarts and crashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::model::{Body, Telegram, TelegramKind, Timestamp};

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
    Frame { time: Timestamp::from_millis(tag as i64), lane, body: Body::Telegram(telegram) }
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
}

#[derive(Debug, Clone)]
enum Act {
    Append(Lane, usize),
    /// Commits every `nth` of the first `count` waiting, newest first when `backwards`.
    Commit {
        lane: Lane,
        count: usize,
        nth: usize,
        backwards: bool,
    },
    Sync,
    Reopen,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let lane = || prop_oneof![1 => Just(Lane::Priority), 4 => Just(Lane::Ordinary)];
    prop_oneof![
        40 => (lane(), prop_oneof![8 => 10usize..800, 1 => 5_000usize..40_000]).prop_map(|(l, n)| Act::Append(l, n)),
        8 => (lane(), 1usize..60, 1usize..4, any::<bool>())
            .prop_map(|(lane, count, nth, backwards)| Act::Commit { lane, count, nth, backwards }),
        4 => Just(Act::Sync),
        1 => Just(Act::Reopen),
        1 => Just(Act::Crash),
    ]
}

async fn follow(acts: Vec<Act>) {
    let root = tempfile::tempdir().unwrap();
    let mut path = root.path().join("0");
    let mut store = Store::open(&quiet(&path)).unwrap();
    let mut model: BTreeMap<Sequence, Frame> = BTreeMap::new();
    let mut committed: BTreeMap<Sequence, Frame> = BTreeMap::new();
    let mut highest = 0;
    for (step, act) in acts.into_iter().enumerate() {
        let mut crashed = false;
        match act {
            Act::Append(lane, size) => {
                let new = frame(lane, step as u64, size);
                let sequence = store.append(new.clone()).await.unwrap();
                assert!(sequence > highest, "a number was given twice");
                highest = sequence;
                model.insert(sequence, new);
            }
            Act::Commit { lane, count, nth, backwards } => {
                let waiting = store.peek(lane, 0, count).await.unwrap();
                let mut chosen: Vec<_> = waiting.iter().step_by(nth).map(|s| s.sequence).collect();
                if backwards {
                    chosen.reverse();
                }
                chosen.push(1 << 60);
                store.commit(lane, chosen.clone()).await.unwrap();
                committed.extend(chosen.iter().filter_map(|s| model.remove(s).map(|f| (*s, f))));
            }
            Act::Sync => {
                store.sync().await.unwrap();
                let durable = store.status().borrow().durable;
                assert!(model.keys().all(|s| *s <= durable));
            }
            Act::Reopen => {
                store.close().await.unwrap();
                store = Store::open(&quiet(&path)).unwrap();
            }
            Act::Crash => {
                store.ask(Request::Rest).await.unwrap();
                let durable = store.status().borrow().durable;
                let after = root.path().join(format!("{}", step + 1));
                copy(&path, &after);
                store.close().await.unwrap();
                path = after;
                store = Store::open(&quiet(&path)).unwrap();
                let mut found = all(&store, Lane::Priority).await;
                found.extend(all(&store, Lane::Ordinary).await);
                let found: BTreeMap<_, _> = found.into_iter().map(|s| (s.sequence, s.frame)).collect();
                for (sequence, kept) in model.range(..=durable) {
                    assert_eq!(found.get(sequence), Some(kept), "durable frame {sequence} was lost");
                }
                for (sequence, again) in &found {
                    assert!(model.get(sequence).or(committed.get(sequence)) == Some(again), "{sequence} is invented");
                }
                model = found;
                crashed = true;
            }
        }
        if crashed || step % 16 == 0 {
            for lane in [Lane::Priority, Lane::Ordinary] {
                let expected: Vec<_> = model.iter().filter(|(_, f)| f.lane == lane).collect();
                let found = all(&store, lane).await;
                assert_eq!(found.iter().map(|s| (&s.sequence, &s.frame)).collect::<Vec<_>>(), expected);
            }
        }
        let status = store.status().borrow().clone();
        consistent(&status);
        assert_eq!((status.cached, status.evicted), (model.len() as u64, 0));
    }
    store.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn the_store_keeps_what_a_plain_map_keeps(acts in proptest::collection::vec(act(), 1..160)) {
        run(follow(acts));
    }
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
fn a_damaged_block_is_counted_and_quarantined_and_the_rest_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let sequences = with_backlog(dir.path(), 256 << 20, 200, Lane::Ordinary).await;
        let db = databases(dir.path(), "ordinary").remove(0);
        let mut raw = fs::read(&db).unwrap();
        // Every copy of the frame with tag 100.
        let tag = 100u64.to_be_bytes();
        let hits: Vec<_> = raw
            .windows(12)
            .enumerate()
            .filter(|(_, w)| w.starts_with(&tag) && w[8..] == [100; 4])
            .map(|(i, _)| i)
            .collect();
        assert!(!hits.is_empty());
        for hit in hits {
            raw[hit] ^= 0x40;
        }
        fs::write(&db, raw).unwrap();
        let store = Store::open(&quiet(dir.path())).unwrap();
        let found = all(&store, Lane::Ordinary).await;
        let status = store.status().borrow().clone();
        consistent(&status);
        assert!((1..=6).contains(&status.damaged), "{status:?}");
        assert_eq!((status.received, status.evicted), (200, status.damaged));
        assert_eq!(found.len() as u64, 200 - status.damaged);
        assert!(found.iter().all(|s| s.sequence != sequences[100]) && found.is_sorted_by_key(|s| s.sequence));
        store.commit(Lane::Ordinary, found.iter().map(|s| s.sequence).collect()).await.unwrap();
        store.close().await.unwrap();
        let aside = fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("quarantine-"));
        assert_eq!(aside.count(), 1);
    });
}

#[test]
fn a_torn_database_opens_and_reports_what_is_gone() {
    for harm in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            with_backlog(dir.path(), 256 << 20, 400, Lane::Ordinary).await;
            let db = databases(dir.path(), "ordinary").remove(0);
            let raw = fs::read(&db).unwrap();
            match harm {
                0 => fs::write(&db, &raw[..raw.len() / 2]).unwrap(),
                1 => fs::write(&db, b"").unwrap(),
                2 => fs::remove_file(&db).unwrap(),
                _ => {
                    let mut raw = raw;
                    raw.chunks_mut(4096).step_by(3).for_each(|page| page.fill(0xA5));
                    fs::write(&db, raw).unwrap();
                }
            }
            let store = Store::open(&quiet(dir.path())).unwrap();
            let found = all(&store, Lane::Ordinary).await.len() as u64;
            let status = store.status().borrow().clone();
            consistent(&status);
            assert_eq!((status.received, status.cached, status.damaged), (400, found, 400 - found), "harm {harm}");
            assert!(found < 400);
            let sequence = store.append(frame(Lane::Ordinary, 9, 50)).await.unwrap();
            store.close().await.unwrap();
            let store = Store::open(&quiet(dir.path())).unwrap();
            assert_eq!(all(&store, Lane::Ordinary).await.last().unwrap().sequence, sequence);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn torn_counters_are_counted_anew_and_no_number_is_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let sequences = with_backlog(dir.path(), 256 << 20, 50, Lane::Ordinary).await;
        fs::write(dir.path().join("cursor"), [7; 8192]).unwrap();
        assert!(matches!(inspect(dir.path()), Err(StoreError::Counters { .. })));
        let store = Store::open(&quiet(dir.path())).unwrap();
        assert_eq!(all(&store, Lane::Ordinary).await.len(), 50);
        // Numbers above those on disk may have been given to frames that never touched it.
        assert!(store.append(frame(Lane::Ordinary, 9, 50)).await.unwrap() > sequences[49] + (1 << 32));
        consistent(&store.status().borrow());
        store.close().await.unwrap();
    });
}

#[test]
fn a_generation_that_could_not_be_removed_does_not_hide_the_one_written_instead() {
    for nonce in ["0000000000000000", "ffffffffffffffff"] {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            with_backlog(dir.path(), 256 << 20, 50, Lane::Ordinary).await;
            let written = databases(dir.path(), "ordinary").remove(0).parent().unwrap().to_owned();
            // As a crash leaves it.
            fs::remove_file(written.join("sealed")).unwrap();
            let (first, _) = written.file_name().unwrap().to_str().unwrap().rsplit_once('-').unwrap();
            fs::create_dir(written.with_file_name(format!("{first}-{nonce}"))).unwrap();
            let store = Store::open(&quiet(dir.path())).unwrap();
            assert_eq!(all(&store, Lane::Ordinary).await.len(), 50);
            assert_eq!(store.status().borrow().damaged, 0);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn reads_that_fail_do_not_keep_frames_from_becoming_durable() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        with_backlog(dir.path(), 256 << 20, 50, Lane::Ordinary).await;
        let db = databases(dir.path(), "ordinary").remove(0);
        let tick = settings(dir.path(), 256 << 20, SyncPolicy::Every(Duration::from_millis(20)));
        let store = Store::open(&tick).unwrap();
        let kept = fs::read(&db).unwrap();
        fs::remove_file(&db).unwrap();
        fs::create_dir(&db).unwrap();
        let sequence = store.append(frame(Lane::Ordinary, 9, 50)).await.unwrap();
        let mut status = store.status();
        let mut reads = 0u64;
        while store.status().borrow().durable < sequence {
            let _ = store.peek(Lane::Ordinary, 0, 10).await.unwrap();
            reads += 1;
            assert!(reads < 50, "the frame never becomes durable");
            let _ = tokio::time::timeout(Duration::from_millis(10), status.wait_for(|s| s.durable >= sequence)).await;
        }
        fs::remove_dir(&db).unwrap();
        fs::write(&db, kept).unwrap();
        assert_eq!(all(&store, Lane::Ordinary).await.len(), 51);
        assert_eq!(store.status().borrow().disk_error, None);
        store.close().await.unwrap();
    });
}

#[test]
fn a_full_store_gives_up_the_oldest_ordinary_frames_first_and_priority_frames_last() {
    let dir = tempfile::tempdir().unwrap();
    let small = 8 << 20;
    run(async {
        let priority = with_backlog(dir.path(), small, 300, Lane::Priority).await;
        let ordinary = with_backlog(dir.path(), small, 12_000, Lane::Ordinary).await;
        let store = Store::open(&settings(dir.path(), small, SyncPolicy::Every(HOUR))).unwrap();
        let status = store.status().borrow().clone();
        consistent(&status);
        assert!(status.evicted > 3_000 && status.disk_bytes <= small, "{status:?}");
        assert_eq!((status.received, status.damaged), (12_300, 0));
        let kept: Vec<_> = all(&store, Lane::Ordinary).await.iter().map(|s| s.sequence).collect();
        assert_eq!(kept, ordinary[ordinary.len() - kept.len()..], "the newest are kept");
        assert_eq!(all(&store, Lane::Priority).await.len(), priority.len());
        store.close().await.unwrap();
        with_backlog(dir.path(), small, 12_000, Lane::Priority).await;
        let store = Store::open(&settings(dir.path(), small, SyncPolicy::Every(HOUR))).unwrap();
        assert_eq!(all(&store, Lane::Ordinary).await.len(), 0, "ordinary frames made room");
        let kept = all(&store, Lane::Priority).await;
        assert!(kept.len() > 1000 && kept[0].sequence > priority[299]);
        consistent(&store.status().borrow());
        store.close().await.unwrap();
    });
}

#[test]
fn a_drained_store_gives_the_disk_back() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        with_backlog(dir.path(), 64 << 20, 10_000, Lane::Ordinary).await;
        let store = Store::open(&quiet(dir.path())).unwrap();
        assert!(store.status().borrow().disk_bytes > 7 << 20);
        while let Some(last) = store.peek(Lane::Ordinary, 0, 500).await.unwrap().last() {
            store.commit(Lane::Ordinary, (1..=last.sequence).collect()).await.unwrap();
        }
        store.sync().await.unwrap();
        let status = store.status().borrow().clone();
        assert_eq!((status.acknowledged, status.cached), (10_000, 0));
        assert!(status.disk_bytes < 2 << 20, "{status:?}");
        store.close().await.unwrap();
        assert_eq!(databases(dir.path(), "ordinary").len(), 0);
    });
}

#[test]
fn a_failing_disk_keeps_frames_in_memory_holds_appends_back_and_heals_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let tick = settings(dir.path(), 256 << 20, SyncPolicy::Every(Duration::from_millis(20)));
        let store = Store::open(&tick).unwrap();
        let row = dir.path().join("ordinary");
        fs::remove_dir(&row).unwrap();
        fs::write(&row, b"in the way").unwrap();
        let mut status = store.status();
        store.append(frame(Lane::Ordinary, 0, 700)).await.unwrap();
        status.wait_for(|s| s.disk_error.is_some()).await.unwrap();
        assert!(matches!(store.sync().await, Err(StoreError::Disk(_))));
        let mut taken = 1u64;
        let short = Duration::from_millis(300);
        while tokio::time::timeout(short, store.append(frame(Lane::Ordinary, taken, 700))).await.is_ok() {
            taken += 1;
            assert!(taken < 10_000, "nothing held the appends back");
        }
        assert_eq!(all(&store, Lane::Ordinary).await.len() as u64, taken, "what is in memory can be sent");
        fs::remove_file(&row).unwrap();
        fs::create_dir(&row).unwrap();
        status.wait_for(|s| s.disk_error.is_none() && s.durable >= taken).await.unwrap();
        store.close().await.unwrap();
        let store = Store::open(&tick).unwrap();
        assert_eq!(all(&store, Lane::Ordinary).await.len() as u64, taken);
        store.close().await.unwrap();
    });
}

/// Wants a small file system of its own in `WEIR_SMALL_DISK`, e.g.
/// `mount -t tmpfs -o size=32m none /mnt/small`.
#[test]
#[ignore = "wants a small file system in WEIR_SMALL_DISK"]
fn a_full_disk_loses_nothing_that_was_taken_and_heals_when_there_is_space() {
    let root = PathBuf::from(std::env::var_os("WEIR_SMALL_DISK").expect("WEIR_SMALL_DISK"));
    let path = root.join("store");
    let ballast = root.join("ballast");
    fs::write(&ballast, vec![1; 26 << 20]).unwrap();
    run(async {
        let tick = settings(&path, 256 << 20, SyncPolicy::Every(Duration::from_millis(20)));
        let store = Store::open(&tick).unwrap();
        let mut taken: Vec<Stored> = Vec::new();
        let wait = Duration::from_millis(500);
        for n in 0.. {
            let new = frame(Lane::Ordinary, n, 700);
            let Ok(sequence) = tokio::time::timeout(wait, store.append(new.clone())).await else { break };
            taken.push(Stored { sequence: sequence.unwrap(), frame: new });
        }
        let failing = store.status().borrow().clone();
        assert!(failing.disk_error.is_some(), "{failing:?}");
        assert_eq!(all(&store, Lane::Ordinary).await, taken);
        fs::remove_file(&ballast).unwrap();
        let last = taken.last().unwrap().sequence;
        store.status().wait_for(|s| s.disk_error.is_none() && s.durable >= last).await.unwrap();
        assert_eq!(all(&store, Lane::Ordinary).await, taken);
        store.close().await.unwrap();
        let store = Store::open(&tick).unwrap();
        assert_eq!(all(&store, Lane::Ordinary).await, taken);
        consistent(&store.status().borrow());
        store.close().await.unwrap();
    });
}
