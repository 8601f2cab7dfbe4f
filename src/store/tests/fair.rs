//! Who gives up frames when the store is full, and that every number is accounted for.

use super::*;
use crate::model::Reading;

fn reading(meter: &str, number: u64, size: usize) -> Frame {
    let value = crate::model::Value {
        name: "e".into(),
        value: Some("7".repeat(size)),
        unit: String::new(),
        quality: crate::model::Quality::Good,
    };
    let body = Body::Reading(Reading { meter: meter.into(), values: vec![value] });
    Frame { time: Stamp::synced(Timestamp::from_millis(number as i64)), lane: Lane::Ordinary, body, origin: None }
}

fn meter(stored: &Stored) -> String {
    super::super::source::source(&stored.frame)
}

#[test]
fn a_loud_meter_starves_no_quiet_one_and_the_counts_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let small = 8 << 20;
    run(async {
        let store = Store::open(&settings(dir.path(), small, SyncPolicy::Every(HOUR))).unwrap();
        let mut quiet = Vec::new();
        let mut given = 0;
        for n in 0..30_000u64 {
            if n % 500 == 0 {
                let name = format!("quiet-{}", n / 500 % 7);
                quiet.push(store.append(reading(&name, n, 300)).await.unwrap());
            }
            given = store.append(reading("loud", n, 300)).await.unwrap();
            if n % 1000 == 0 {
                store.sync().await.unwrap();
                consistent(&store.status().borrow());
            }
        }
        store.sync().await.unwrap();
        let status = store.status().borrow().clone();
        assert!(status.disk_bytes <= small && status.evicted > 5_000, "{status:?}");
        assert_eq!((status.skipped, status.given(), status.damaged), (0, given, 0));
        assert_eq!(*status.evicted_by_meter, BTreeMap::from([("loud".to_owned(), status.evicted)]));
        let left = all(&store, Lane::Ordinary).await;
        assert!(left.windows(2).all(|w| w[0].sequence < w[1].sequence), "the order has changed");
        let kept: Vec<_> = left.iter().filter(|s| meter(s) != "loud").map(|s| s.sequence).collect();
        assert_eq!(kept, quiet, "a quiet meter has lost frames");
        let loud: Vec<_> = left.iter().filter(|s| meter(s) == "loud").map(|s| s.sequence).collect();
        let oldest = loud[0];
        let whole = (oldest..=given).filter(|n| !quiet.contains(n)).collect::<Vec<_>>();
        assert_eq!(loud, whole, "the loud meter's oldest went first");
        let generations = databases(dir.path(), "ordinary").len();
        assert!(generations < 40, "leftovers pile up: {generations} generations");
        store.close().await.unwrap();

        let store = Store::open(&settings(dir.path(), small, SyncPolicy::Every(HOUR))).unwrap();
        let again = store.status().borrow().clone();
        assert_eq!((again.cached, again.evicted, again.given()), (left.len() as u64, status.evicted, given));
        assert_eq!(all(&store, Lane::Ordinary).await, left);
        for chunk in left.chunks(500) {
            store.commit(Lane::Ordinary, chunk.iter().map(|s| s.sequence).collect()).await.unwrap();
        }
        store.sync().await.unwrap();
        let end = store.status().borrow().clone();
        assert!(end.cached == 0 && end.disk_bytes < 2 << 20, "{end:?}");
        store.close().await.unwrap();
    });
}

#[test]
fn the_last_reading_of_every_meter_outlives_a_flood_of_others() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Store::open(&settings(dir.path(), 4 << 20, SyncPolicy::Every(HOUR))).unwrap();
        let mut last = BTreeMap::new();
        for n in 0..20_000u64 {
            let name = format!("meter-{}", (n * n / 7) % 60 / (1 + n % 5));
            last.insert(name.clone(), store.append(reading(&name, n, 500)).await.unwrap());
        }
        store.sync().await.unwrap();
        let left = all(&store, Lane::Ordinary).await;
        let newest: BTreeMap<_, _> = left.iter().map(|s| (meter(s), s.sequence)).collect();
        assert_eq!(newest, last);
        store.close().await.unwrap();
    });
}

#[test]
fn after_a_crash_every_number_is_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let (live, dead) = (dir.path().join("live"), dir.path().join("dead"));
    run(async {
        let store = Store::open(&quiet(&live)).unwrap();
        for n in 0..50 {
            store.append(frame(Lane::Ordinary, n, 100)).await.unwrap();
        }
        store.sync().await.unwrap();
        store.commit(Lane::Ordinary, (1..=20).collect()).await.unwrap();
        store.sync().await.unwrap();
        // In memory only, and one of them acknowledged there.
        for n in 50..60 {
            store.append(frame(Lane::Ordinary, n, 100)).await.unwrap();
        }
        store.commit(Lane::Ordinary, vec![55]).await.unwrap();
        store.ask(Request::Rest).await.unwrap();
        copy(&live, &dead);
        store.close().await.unwrap();

        let store = Store::open(&quiet(&dead)).unwrap();
        let status = store.status().borrow().clone();
        assert_eq!((status.received, status.acknowledged, status.cached), (50, 20, 30));
        let first = store.append(frame(Lane::Ordinary, 99, 100)).await.unwrap();
        assert_eq!(first, status.given() + 1, "received and skipped numbers are all there are");
        assert!(first > 60);
        store.close().await.unwrap();
        let cursor::Found::Good(cursor) = cursor::read(&dead.join("cursor")).unwrap() else { panic!("no cursor") };
        let skipped = cursor.ledger.skipped.as_slice();
        assert_eq!(skipped.len(), 1);
        assert_eq!((skipped[0].first, skipped[0].last, skipped[0].frames), (51, first - 1, first - 51));
    });
}

#[test]
fn what_a_crash_left_on_disk_behind_the_counters_is_not_called_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let (live, dead) = (dir.path().join("live"), dir.path().join("dead"));
    run(async {
        let store = Store::open(&quiet(&live)).unwrap();
        for n in 0..40 {
            store.append(frame(if n % 10 == 3 { Lane::Priority } else { Lane::Ordinary }, n, 100)).await.unwrap();
            store.ask(Request::Rest).await.unwrap();
        }
        store.append(frame(Lane::Priority, 40, 100)).await.unwrap();
        store.ask(Request::Rest).await.unwrap();
        // Only priority frames are on disk: 4, 14, 24, 34, 41; the counters were never written.
        copy(&live, &dead);
        store.close().await.unwrap();
        let store = Store::open(&quiet(&dead)).unwrap();
        let first = store.append(frame(Lane::Ordinary, 99, 100)).await.unwrap();
        store.close().await.unwrap();
        let cursor::Found::Good(cursor) = cursor::read(&dead.join("cursor")).unwrap() else { panic!("no cursor") };
        let skipped: Vec<_> = cursor.ledger.skipped.as_slice().iter().map(|s| (s.first, s.last)).collect();
        assert_eq!(skipped, [(1, 3), (5, 13), (15, 23), (25, 33), (35, 40), (42, first - 1)]);
    });
}
