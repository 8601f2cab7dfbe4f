//! Closing the books: every number is told of, and a crash in between neither loses nor forges a manifest.

use std::collections::BTreeSet;

use super::super::manifest::{Manifest, Signed, chain::Chain};
use super::*;

fn day(n: i64) -> Stamp {
    Stamp::synced(Timestamp::from_millis(n * 86_400_000))
}

async fn close_books(store: &Store, n: i64) -> u64 {
    store.close_books("gw1".into(), day(0).wall, day(n)).await.unwrap()
}

fn manifests(path: &Path) -> Vec<Signed> {
    let mut files: Vec<_> = fs::read_dir(path.join("manifests")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().map(|f| Signed::parse(&fs::read_to_string(f).unwrap()).unwrap()).collect()
}

/// All of them, checked as a chain.
fn checked(path: &Path) -> Vec<Manifest> {
    let mut chain = Chain::new(None, None);
    let all = manifests(path);
    all.iter().for_each(|m| drop(chain.push(m).unwrap()));
    all.iter().map(|m| m.verify().unwrap()).collect()
}

fn numbers(spans: &[super::super::manifest::Span]) -> BTreeSet<Sequence> {
    assert!(spans.iter().all(|s| s.is_exact()), "{spans:?}");
    spans.iter().flat_map(|s| s.first..=s.last).collect()
}

#[test]
fn a_manifest_tells_of_every_number_and_travels_as_a_frame() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Store::open(&quiet(dir.path())).unwrap();
        for n in 0..100 {
            let lane = if n % 9 == 0 { Lane::Priority } else { Lane::Ordinary };
            store.append(frame(lane, n, 100)).await.unwrap();
        }
        let waiting = all(&store, Lane::Ordinary).await;
        store.commit(Lane::Ordinary, waiting.iter().take(40).map(|s| s.sequence).collect()).await.unwrap();
        assert_eq!(close_books(&store, 1).await, 1);
        let frames = all(&store, Lane::Ordinary).await;
        let Body::Manifest(line) = &frames.last().unwrap().frame.body else { panic!("no manifest: {frames:?}") };
        assert_eq!(Signed::parse(line).unwrap(), manifests(dir.path())[0]);
        let first = checked(dir.path()).remove(0);
        assert_eq!((first.first, first.last, first.counts.pending, first.counts.acknowledged), (1, 100, 60, 40));
        assert_eq!(first.counts.received, 100);

        assert_eq!(close_books(&store, 2).await, 2);
        let second = checked(dir.path()).remove(1);
        assert_eq!((second.first, second.last), (101, 101), "the manifest itself has a number");
        store.close().await.unwrap();
    });
    let status = inspect(dir.path()).unwrap();
    assert_eq!((status.manifests, status.closed_at), (2, day(2).wall));
}

#[test]
fn what_a_full_store_gave_up_stands_in_the_next_manifest() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Store::open(&settings(dir.path(), 4 << 20, SyncPolicy::Every(HOUR))).unwrap();
        for n in 0..9_000 {
            store.append(frame(Lane::Ordinary, n, 700)).await.unwrap();
        }
        close_books(&store, 1).await;
        let manifest = checked(dir.path()).remove(0);
        let left: BTreeSet<_> = all(&store, Lane::Ordinary).await.iter().map(|s| s.sequence).collect();
        let evicted = numbers(&manifest.evicted);
        assert!(evicted.len() > 1_000 && evicted.len() as u64 == manifest.counts.evicted);
        let told: BTreeSet<_> = evicted.union(&left).copied().collect();
        assert_eq!(told, (1..=manifest.last + 1).collect(), "every number is evicted or pending");
        store.close().await.unwrap();
    });
}

#[test]
fn a_crash_at_any_step_of_closing_the_books_leaves_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (live, early, late) = (dir.path().join("live"), dir.path().join("early"), dir.path().join("late"));
    run(async {
        let store = Store::open(&quiet(&live)).unwrap();
        for n in 0..30 {
            store.append(frame(Lane::Ordinary, n, 100)).await.unwrap();
        }
        store.sync().await.unwrap();
        copy(&live, &early);
        close_books(&store, 1).await;
        store.ask(Request::Rest).await.unwrap();
        copy(&live, &late);
        store.close().await.unwrap();

        // The file of the manifest was written, the cursor and the frame were not.
        copy(&live.join("manifests"), &early.join("manifests"));
        fs::copy(live.join("key"), early.join("key")).unwrap();
        for path in [&early, &late] {
            let store = Store::open(&quiet(path)).unwrap();
            let sent: Vec<_> = all(&store, Lane::Ordinary).await;
            let carried = sent.iter().filter(|s| matches!(s.frame.body, Body::Manifest(_))).count();
            assert_eq!(carried, 1, "{}", path.display());
            store.append(frame(Lane::Ordinary, 99, 100)).await.unwrap();
            assert_eq!(close_books(&store, 2).await, 2);
            let chain = checked(path);
            assert_eq!((chain[0].last, chain[1].first), (30, 31));
            assert!(chain[1].counts.skipped > 0 && !chain[1].skipped.is_empty(), "the crash is told");
            store.close().await.unwrap();
        }
        // Neither file nor cursor: the same manifest is made again.
        let strange = fs::read(live.join("manifests/000001.json")).unwrap();
        fs::remove_dir_all(early.join("manifests")).unwrap();
        fs::create_dir(early.join("manifests")).unwrap();
        fs::write(early.join("manifests/000003.json"), strange).unwrap();
        let store = Store::open(&quiet(&early)).unwrap();
        assert_eq!(store.status().borrow().manifests, 2, "a manifest that does not follow is not adopted");
        store.close().await.unwrap();
    });
}

#[test]
fn frames_gone_without_a_trace_are_told_as_skipped_in_a_span_that_holds_them() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        with_backlog(dir.path(), 256 << 20, 400, Lane::Ordinary).await;
        let db = databases(dir.path(), "ordinary").remove(0);
        fs::remove_file(db.with_file_name("sealed")).unwrap();
        let raw = fs::read(&db).unwrap();
        fs::write(&db, &raw[..raw.len() / 2]).unwrap();
        let store = Store::open(&quiet(dir.path())).unwrap();
        assert!(store.status().borrow().skipped > 100);
        assert_eq!(store.status().borrow().given(), 400);
        close_books(&store, 1).await;
        store.close().await.unwrap();
    });
    assert!(checked(dir.path()).remove(0).counts.skipped > 100);
}
