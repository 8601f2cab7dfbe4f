//! Mirror: which broker has acknowledged what, and what may therefore be given up.
//!
//! Invariants: a frame is given up only when every required broker has acknowledged it; a broker
//! is never taken to have a frame that it did not acknowledge in a message of its own. Forgetting an
//! acknowledgement only repeats frames.

use crate::model::{Lane, Sequence};

use super::intervals::{Intervals, Span};

/// What one broker has acknowledged of the priority and of the ordinary lane.
pub(super) type Lanes = [Intervals; 2];

/// One broker's account.
#[derive(Debug, Clone)]
struct Account {
    /// Stands for the broker in the progress file.
    key: u64,
    required: bool,
    lanes: Lanes,
}

/// The accounts of all brokers, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    accounts: Vec<Account>,
    /// Something was acknowledged since [`Ledger::progress`] was last asked.
    changed: bool,
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Priority => 0,
        Lane::Ordinary => 1,
    }
}

fn of(lanes: &Lanes, lane: Lane) -> &Intervals {
    let [priority, ordinary] = lanes;
    if index(lane) == 0 { priority } else { ordinary }
}

fn of_mut(lanes: &mut Lanes, lane: Lane) -> &mut Intervals {
    let [priority, ordinary] = lanes;
    if index(lane) == 0 { priority } else { ordinary }
}

impl Ledger {
    /// Opens accounts for brokers, given by key and whether they are required; a broker finds its
    /// earlier progress by its key.
    pub(super) fn new(brokers: impl IntoIterator<Item = (u64, bool)>, progress: &[(u64, Lanes)]) -> Self {
        let earlier = |key| progress.iter().find(|(k, _)| *k == key).map(|(_, lanes)| lanes.clone());
        let account = |(key, required)| Account { key, required, lanes: earlier(key).unwrap_or_default() };
        Self { accounts: brokers.into_iter().map(account).collect(), changed: false }
    }

    /// Notes that broker number `broker` acknowledged a message: the spans it closes and the
    /// frames it carried. Returns those of them that every required broker has acknowledged now.
    pub(super) fn acknowledge(
        &mut self,
        broker: usize,
        lane: Lane,
        spans: &[Span],
        mut frames: Vec<Sequence>,
    ) -> Vec<Sequence> {
        if let Some(account) = self.accounts.get_mut(broker) {
            for span in spans {
                of_mut(&mut account.lanes, lane).insert(*span);
            }
            self.changed = true;
        }
        frames.retain(|frame| self.is_settled(lane, *frame));
        frames
    }

    /// Notes that the lane holds nothing in these spans that the broker still lacks.
    pub(super) fn close_gap(&mut self, broker: usize, lane: Lane, span: Span) {
        if let Some(account) = self.accounts.get_mut(broker) {
            of_mut(&mut account.lanes, lane).insert(span);
        }
    }

    /// Whether the broker has acknowledged the frame.
    pub(super) fn has(&self, broker: usize, lane: Lane, frame: Sequence) -> bool {
        self.accounts.get(broker).is_some_and(|a| of(&a.lanes, lane).contains(frame))
    }

    /// The number up to which the broker lacks nothing behind `after`.
    pub(super) fn covered_to(&self, broker: usize, lane: Lane, after: Sequence) -> Sequence {
        self.accounts.get(broker).map_or(after, |a| of(&a.lanes, lane).covered_to(after))
    }

    /// Whether every required broker has acknowledged the frame.
    pub(super) fn is_settled(&self, lane: Lane, frame: Sequence) -> bool {
        let mut required = self.accounts.iter().filter(|a| a.required).peekable();
        required.peek().is_some() && required.all(|a| of(&a.lanes, lane).contains(frame))
    }

    /// No frame above this number is settled.
    pub(super) fn settled_below(&self, lane: Lane) -> Sequence {
        let required = self.accounts.iter().filter(|a| a.required);
        required.map(|a| of(&a.lanes, lane).highest()).min().unwrap_or(0)
    }

    /// What [`Ledger::progress`] gave out was not kept and is to be given again.
    pub(super) const fn not_kept(&mut self) {
        self.changed = true;
    }

    /// What is worth keeping on disk, if anything changed since the last time; nothing above
    /// `limit`.
    pub(super) fn progress(&mut self, limit: Sequence) -> Option<Vec<(u64, Lanes)>> {
        std::mem::take(&mut self.changed).then(|| {
            let cut = |a: &Account| (a.key, a.lanes.each_ref().map(|lane| lane.up_to(limit)));
            self.accounts.iter().map(cut).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::super::caution::{Cargo, Caution};
    use super::super::queue::{Parcel, Queue, pack_alone};
    use super::super::source::{SharedLedger, Source, lock};
    use super::*;
    use crate::model::{Body, Frame, Reading, Stamp, Timestamp};
    use crate::os::clock::Clock;
    use crate::setting::Size;
    use crate::store::{Store, StoreSettings, SyncPolicy};

    /// What happens to the mirror next.
    #[derive(Debug, Clone)]
    enum Event {
        /// So many frames come in.
        Append(bool, usize),
        /// A broker's session sends a message of at most so many bytes.
        Send(usize, usize),
        /// The broker acknowledges one of the messages under way, in any order.
        Acknowledge(usize, usize),
        /// The broker's session is lost.
        Lose(usize),
        /// The first message under way is refused and set aside.
        Refuse(usize),
        /// What was set aside first is sent again.
        Again(usize),
        /// The store gives up a frame by itself.
        Evict(usize),
        /// The progress is written.
        Write,
        /// The uplink starts again with what was written last.
        Restart,
    }

    fn event() -> impl Strategy<Value = Event> {
        let broker = 0..3usize;
        prop_oneof![
            3 => (any::<bool>(), 1..6usize).prop_map(|(priority, n)| Event::Append(priority, n)),
            6 => (broker.clone(), 100..900usize).prop_map(|(b, bytes)| Event::Send(b, bytes)),
            6 => (broker.clone(), 0..4usize).prop_map(|(b, n)| Event::Acknowledge(b, n)),
            2 => broker.clone().prop_map(Event::Lose),
            1 => broker.clone().prop_map(Event::Refuse),
            1 => broker.prop_map(Event::Again),
            1 => (0..20usize).prop_map(Event::Evict),
            1 => Just(Event::Write),
            1 => Just(Event::Restart),
        ]
    }

    /// A broker's session.
    struct Side {
        source: Source,
        queues: Vec<Queue>,
        caution: Caution,
        under_way: Vec<Parcel>,
    }

    impl Side {
        fn new(store: &Store, ledger: &SharedLedger, broker: usize) -> Self {
            let source = Source::Mirror { store: store.clone(), ledger: ledger.clone(), broker };
            let queues = [Lane::Priority, Lane::Ordinary].map(|lane| Queue::new(lane, &source)).into();
            Self { source, queues, caution: Caution::new(900, Duration::from_mins(1)), under_way: Vec::new() }
        }

        fn lose(&mut self) {
            self.under_way.clear();
            self.queues = [Lane::Priority, Lane::Ordinary].map(|lane| Queue::new(lane, &self.source)).into();
        }

        async fn send(&mut self, bytes: usize) -> bool {
            for queue in &mut self.queues {
                queue.wake();
                queue.refill(&self.source, &self.caution, 5).await.unwrap();
                if let Some(parcel) = queue.pack(bytes, &self.caution, &Clock::system()) {
                    self.under_way.push(parcel);
                    return true;
                }
            }
            false
        }

        /// Sends the first frame that was set aside.
        async fn again(&mut self) -> bool {
            let late = Instant::now() + Duration::from_hours(1000);
            while let Some((lane, frame, after)) = self.caution.due_frame(late) {
                if let Some(stored) = self.source.one(lane, frame).await.unwrap() {
                    self.under_way.push(pack_alone(&stored, lane, after, &Clock::system()));
                    return true;
                }
                self.caution.forget(lane, frame);
            }
            false
        }

        async fn acknowledge(&mut self, which: usize) -> Vec<(Lane, Sequence)> {
            if self.under_way.is_empty() {
                return Vec::new();
            }
            let parcel = self.under_way.remove(which % self.under_way.len());
            let Cargo::Frames { lane, .. } = parcel.cargo else { panic!("frames only") };
            self.caution.acknowledged(&parcel.cargo, 100, Instant::now());
            let frames: Vec<_> = parcel.sequences.iter().map(|s| (lane, *s)).collect();
            self.source.acknowledge(lane, &parcel.spans, parcel.sequences).await.unwrap();
            frames
        }

        /// The first message under way, if it is of one frame, is refused often enough.
        fn refuse(&mut self) {
            let one = self.under_way.iter().find(|p| p.sequences.len() == 1);
            if let Some(cargo) = one.map(|p| p.cargo) {
                for _ in 0..5 {
                    self.caution.lost(&cargo, 100, Instant::now());
                }
            }
            self.lose();
        }
    }

    const BROKERS: [(u64, bool); 3] = [(1, true), (2, true), (3, false)];

    async fn waiting(store: &Store) -> BTreeSet<(Lane, Sequence)> {
        let mut all = BTreeSet::new();
        for lane in [Lane::Priority, Lane::Ordinary] {
            all.extend(store.peek(lane, 0, 10_000).await.unwrap().iter().map(|f| (lane, f.sequence)));
        }
        all
    }

    fn sides(store: &Store, progress: &[(u64, Lanes)]) -> (SharedLedger, Vec<Side>) {
        let ledger = Arc::new(Mutex::new(Ledger::new(BROKERS, progress)));
        let sides = (0..BROKERS.len()).map(|n| Side::new(store, &ledger, n)).collect();
        (ledger, sides)
    }

    async fn story(events: Vec<Event>) {
        let directory = tempfile::tempdir().unwrap();
        let (path, max_size) = (directory.path().to_owned(), Size::from_bytes(64 << 20));
        let sync = SyncPolicy::Every(Duration::from_secs(600));
        let store = Store::open(&StoreSettings { path, max_size, sync }).unwrap();
        let mut written = Vec::new();
        let (mut ledger, mut sides) = sides(&store, &written);
        // The model: what came, what is gone, what each broker acknowledged as far as it is
        // remembered, and what of that was written.
        let (mut came, mut gone) = (BTreeSet::new(), BTreeSet::new());
        let mut acknowledged: BTreeMap<usize, BTreeSet<(Lane, Sequence)>> = BTreeMap::new();
        let mut on_disk = acknowledged.clone();
        for event in events {
            match event {
                Event::Append(priority, count) => {
                    let lane = if priority { Lane::Priority } else { Lane::Ordinary };
                    for _ in 0..count {
                        let body = Body::Reading(Reading { meter: "m".into(), values: vec![] });
                        let frame = Frame { time: Stamp::synced(Timestamp::from_millis(0)), lane, body, origin: None };
                        came.insert((lane, store.append(frame).await.unwrap()));
                    }
                }
                Event::Send(broker, bytes) => drop(sides[broker].send(bytes).await),
                Event::Acknowledge(broker, which) => {
                    acknowledged.entry(broker).or_default().extend(sides[broker].acknowledge(which).await);
                }
                Event::Lose(broker) => sides[broker].lose(),
                Event::Refuse(broker) => sides[broker].refuse(),
                Event::Again(broker) => drop(sides[broker].again().await),
                Event::Evict(which) => {
                    if let Some((lane, frame)) = waiting(&store).await.iter().nth(which) {
                        store.commit(*lane, vec![*frame]).await.unwrap();
                        gone.insert((*lane, *frame));
                    }
                }
                Event::Write => {
                    written = lock(&ledger).progress(Sequence::MAX).unwrap_or(written);
                    on_disk.clone_from(&acknowledged);
                }
                Event::Restart => {
                    (ledger, sides) = super::tests::sides(&store, &written);
                    acknowledged.clone_from(&on_disk);
                }
            }
            let has = |broker: usize, frame| acknowledged.get(&broker).is_some_and(|a| a.contains(frame));
            gone.extend(came.iter().filter(|f| has(0, f) && has(1, f)));
            let expected: BTreeSet<_> = came.difference(&gone).copied().collect();
            assert_eq!(waiting(&store).await, expected);
            for broker in 0..BROKERS.len() {
                for both in &came {
                    let known = lock(&ledger).has(broker, both.0, both.1);
                    let true_or_gone = has(broker, both) || !expected.contains(both);
                    assert!(!known || true_or_gone, "broker {broker} is thought to have {both:?}");
                }
            }
        }
        // Faults end, and everything arrives everywhere.
        for side in &mut sides {
            side.lose();
            while side.send(500).await || side.again().await {
                side.acknowledge(0).await;
            }
        }
        assert_eq!(waiting(&store).await, BTreeSet::new());
        store.close().await.unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn a_frame_goes_when_every_required_broker_has_it_and_nobody_is_skipped(
            events in prop::collection::vec(event(), 1..120),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(story(events));
        }
    }

    #[test]
    fn a_broker_new_in_the_configuration_has_nothing_and_one_that_left_is_forgotten() {
        let mut ledger = Ledger::new([(1, true), (2, true)], &[]);
        let span = [Span { after: 0, last: 9 }];
        assert!(ledger.acknowledge(0, Lane::Ordinary, &span, vec![3, 9]).is_empty());
        assert_eq!(ledger.acknowledge(1, Lane::Ordinary, &span, vec![3, 9]), [3, 9]);
        let progress = ledger.progress(5).unwrap();
        assert!(ledger.progress(5).is_none(), "nothing new to write");
        ledger.not_kept();
        assert_eq!(ledger.progress(5).unwrap(), progress, "what could not be written is given again");
        let ledger = Ledger::new([(2, true), (7, true)], &progress);
        assert!(ledger.has(0, Lane::Ordinary, 5) && !ledger.has(0, Lane::Ordinary, 6), "nothing beyond the limit");
        assert!(!ledger.has(0, Lane::Priority, 5) && !ledger.has(1, Lane::Ordinary, 1));
        assert_eq!((ledger.settled_below(Lane::Ordinary), ledger.is_settled(Lane::Ordinary, 3)), (0, false));
    }
}
