//! What goes first when there is no room, and how the disk comes back.

use super::*;

#[test]
fn a_full_store_gives_up_the_oldest_ordinary_frames_first_and_priority_frames_last() {
    let dir = tempfile::tempdir().unwrap();
    let small = 4 << 20;
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
        let left: Vec<_> = all(&store, Lane::Ordinary).await.iter().map(|s| s.sequence).collect();
        assert!(left.len() < 500, "ordinary frames made room, {} are left", left.len());
        assert_eq!(left.last(), ordinary.last(), "the last reading of a meter stays");
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
        assert!(store.status().borrow().disk_bytes > 6 << 20);
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
        let long = Duration::from_secs(5);
        while tokio::time::timeout(long, store.append(frame(Lane::Ordinary, taken, 700))).await.is_ok() {
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
