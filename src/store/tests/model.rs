//! The store against a plain map: any order of appends, commits, syncs, restarts and crashes.

use proptest::prelude::*;

use super::*;

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
