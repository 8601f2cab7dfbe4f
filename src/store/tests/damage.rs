//! What comes back from damaged, torn and unreadable files.

use super::*;

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

/// The one database of the ordinary lane after a change of its bytes.
fn spoil(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let db = databases(path, "ordinary").remove(0);
    let mut raw = fs::read(&db).unwrap();
    change(&mut raw);
    fs::write(&db, raw).unwrap();
}

#[test]
fn what_is_gone_is_counted_once_however_often_the_store_starts() {
    // With a frame acknowledged the generation is looked at by the start itself.
    for acknowledged in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let sequences = with_backlog(dir.path(), 256 << 20, 400, Lane::Ordinary).await;
            let store = Store::open(&quiet(dir.path())).unwrap();
            store.commit(Lane::Ordinary, sequences[..acknowledged].to_vec()).await.unwrap();
            store.close().await.unwrap();
            spoil(dir.path(), |raw| raw.truncate(raw.len() / 2));
            let mut lost = 0;
            for start in 0..3 {
                let store = Store::open(&quiet(dir.path())).unwrap();
                let left = all(&store, Lane::Ordinary).await.len() as u64;
                let status = store.status().borrow().clone();
                lost = if start == 0 { 400 - acknowledged as u64 - left } else { lost };
                assert!(lost > 100);
                assert_eq!((status.given(), status.damaged, status.cached), (400, lost, left), "start {start}");
                store.close().await.unwrap();
            }
        });
    }
}

#[test]
fn damage_to_what_was_acknowledged_is_no_loss_and_takes_no_waiting_frame_along() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let sequences = with_backlog(dir.path(), 256 << 20, 400, Lane::Ordinary).await;
        let store = Store::open(&quiet(dir.path())).unwrap();
        store.commit(Lane::Ordinary, sequences[..100].to_vec()).await.unwrap();
        store.close().await.unwrap();
        spoil(dir.path(), |raw| raw[..4096].fill(0xA5));
        for _ in 0..2 {
            let store = Store::open(&quiet(dir.path())).unwrap();
            assert_eq!(all(&store, Lane::Ordinary).await.len(), 300);
            let status = store.status().borrow().clone();
            assert_eq!((status.given(), status.damaged, status.cached), (400, 0, 300));
            store.close().await.unwrap();
        }
        let store = Store::open(&quiet(dir.path())).unwrap();
        store.commit(Lane::Ordinary, sequences[100..350].to_vec()).await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(all(&store, Lane::Ordinary).await.len(), 50);
        store.close().await.unwrap();
    });
}
