//! Two sides and a net that loses, repeats and reorders: what is taken is what was pushed, each byte once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::wire::numbered;

const STEP: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);

/// A net that does to messages what it likes, each way.
struct Net {
    random: StdRng,
    /// In a hundred.
    lost: u32,
    repeated: u32,
    longest: Duration,
    /// Nothing gets through until then.
    down_until: Duration,
    under_way: [Vec<(Duration, Vec<u8>)>; 2],
}

impl Net {
    fn carry(&mut self, now: Duration, way: usize, message: &Message) {
        if now < self.down_until || self.random.random_range(0..100) < self.lost {
            return;
        }
        let copies = if self.random.random_range(0..100) < self.repeated { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.longest.mul_f64(self.random.random());
            let mut bytes = Vec::new();
            numbered::encode(message, &mut bytes);
            self.under_way[way].push((now + delay, bytes));
        }
    }

    fn arrived(&mut self, now: Duration, way: usize) -> Vec<Message> {
        let (here, later): (Vec<_>, Vec<_>) = self.under_way[way].drain(..).partition(|(at, _)| *at <= now);
        self.under_way[way] = later;
        here.iter().map(|(_, bytes)| numbered::decode(bytes).unwrap()).collect()
    }
}

/// What one side pushed and took in each of its sessions.
type Book = BTreeMap<(u32, u32, u32), (Vec<u8>, Vec<u8>)>;

struct World {
    now: Duration,
    net: Net,
    peers: [Peer; 2],
    books: [Book; 2],
    ended: [Vec<Reason>; 2],
    random: StdRng,
    /// Bytes that each side still wants to push, and whether it takes anything.
    to_push: [usize; 2],
    takes: [bool; 2],
}

fn name(peer: &Peer) -> Option<(u32, u32, u32)> {
    match &peer.state {
        State::Open { session, .. } => Some((session.caller, session.number, session.listener)),
        _ => None,
    }
}

impl World {
    fn new(seed: u64, lost: u32, repeated: u32, longest: Duration) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let net = Net {
            random: StdRng::from_rng(&mut random),
            lost,
            repeated,
            longest,
            down_until: Duration::ZERO,
            under_way: Default::default(),
        };
        let peers = [
            Peer::caller(PATIENCE, 4096, StdRng::from_rng(&mut random)),
            Peer::listener(PATIENCE, 1000, StdRng::from_rng(&mut random)),
        ];
        let (now, takes) = (Duration::ZERO, [true; 2]);
        Self { now, net, peers, books: Default::default(), ended: Default::default(), random, to_push: [0; 2], takes }
    }

    fn restart(&mut self, side: usize) {
        let random = StdRng::from_rng(&mut self.random);
        self.peers[side] =
            if side == 0 { Peer::caller(PATIENCE, 4096, random) } else { Peer::listener(PATIENCE, 1000, random) };
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        for side in 0..2 {
            for message in self.net.arrived(now, 1 - side) {
                self.peers[side].hear(now, &message);
            }
            let peer = &mut self.peers[side];
            while let Some(news) = peer.news() {
                if let News::Ended(reason) = news {
                    self.ended[side].push(reason);
                }
            }
            let count = self.random.random_range(0..3000).min(self.to_push[side]);
            if peer.room() > 0 && count > 0 {
                let mut bytes = vec![0; count];
                self.random.fill(&mut bytes[..]);
                peer.push(&bytes);
                self.to_push[side] -= count;
                let name = name(peer).unwrap();
                self.books[side].entry(name).or_default().0.extend(bytes);
            }
            if peer.has_bytes() && self.takes[side] {
                let most = self.random.random_range(1..9000);
                let taken = peer.take(now, most);
                let name = name(peer).unwrap();
                self.books[side].entry(name).or_default().1.extend(taken);
            }
            let mut said = 0;
            while let Some(message) = peer.next(now) {
                said += 1;
                assert!(said < 64, "it says the same for ever");
                self.net.carry(now, side, &message);
            }
            assert!(peer.due(now).is_none_or(|due| due > now || peer.room() > 0 || peer.due(now).is_some()));
        }
    }

    fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end && !done(self) {
            self.step();
        }
        done(self)
    }

    fn all_arrived(&self) -> bool {
        name(&self.peers[0]) == name(&self.peers[1])
            && self.to_push == [0, 0]
            && self.peers.iter().all(|peer| peer.is_done() && !peer.has_bytes())
    }

    /// In every session each side took a beginning of what the other one pushed.
    fn check(&self) {
        for side in 0..2 {
            for (name, (_, taken)) in &self.books[side] {
                let pushed = self.books[1 - side].get(name).map_or(&[][..], |(pushed, _)| pushed);
                assert!(
                    pushed.starts_with(taken),
                    "session {name:?}: side {side} took {} bytes that differ",
                    taken.len()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_streams_arrive_whole_whatever_the_net_does(
        seed in any::<u64>(), lost in 0u32..30, repeated in 0u32..30, delay in 0u64..1500, cuts in 0u32..6,
    ) {
        let mut world = World::new(seed, lost, repeated, Duration::from_millis(delay));
        world.to_push = [150_000, 100_000];
        for _ in 0..cuts {
            // Long enough that the silences of two breaks do not add up to more than the patience.
            let _ = world.run(Duration::from_secs(12), |_| false);
            // A broken session of either side, shorter than the patience; what was under way may be lost.
            world.net.down_until = world.now + Duration::from_secs(4);
            world.net.under_way = Default::default();
        }
        prop_assert!(world.run(Duration::from_secs(3000), World::all_arrived), "never done: {:?}", world.ended);
        world.check();
        let streams = world.books[0].len();
        if world.ended == [vec![], vec![]] {
            let [caller, listener] = world.books.each_ref().map(|book| book.values().next().unwrap());
            let lengths = [&caller.0, &listener.1, &listener.0, &caller.1].map(Vec::len);
            prop_assert_eq!(lengths, [150_000, 150_000, 100_000, 100_000], "{:?}", world.ended);
        }
        // Heavy loss may look like a cut; without, there is one session.
        prop_assert!(streams == 1 && world.ended == [vec![], vec![]] || lost > 10, "{:?}", world.ended);
    }

    #[test]
    fn a_restart_never_joins_two_streams(seed in any::<u64>(), lost in 0u32..15, restarts in proptest::collection::vec(0usize..2, 1..5)) {
        let mut world = World::new(seed, lost, 10, Duration::from_millis(700));
        let mut last = None;
        for side in restarts {
            world.to_push = [60_000, 60_000];
            let _ = world.run(Duration::from_secs(2), |_| false);
            let known = name(&world.peers[1 - side]).is_some();
            world.ended = Default::default();
            world.restart(side);
            last = known.then_some(side);
        }
        world.to_push = [20_000, 20_000];
        prop_assert!(world.run(Duration::from_secs(600), World::all_arrived));
        world.check();
        if let Some(side) = last {
            prop_assert!(!world.ended[1 - side].is_empty(), "the other side was not told");
        }
    }
}

#[test]
fn a_session_that_was_cut_for_longer_than_the_patience_is_over_on_both_sides() {
    let mut world = World::new(1, 0, 0, Duration::from_millis(50));
    world.to_push = [5000, 5000];
    assert!(world.run(Duration::from_secs(10), World::all_arrived));
    let first = name(&world.peers[0]).unwrap();
    // Nine seconds: it goes on.
    world.net.down_until = world.now + Duration::from_secs(9);
    world.to_push = [5000, 0];
    assert!(world.run(Duration::from_secs(20), World::all_arrived));
    assert_eq!((name(&world.peers[0]), &world.ended), (Some(first), &[vec![], vec![]]));
    // Eleven: what waited then is never delivered.
    world.net.down_until = world.now + Duration::from_secs(11);
    world.to_push = [700, 0];
    assert!(world.run(Duration::from_secs(60), |world| name(&world.peers[0]).is_some_and(|name| name != first)));
    assert_eq!(world.ended, [vec![Reason::Cut], vec![Reason::Cut]]);
    assert_eq!((world.books[0][&first].0.len(), world.books[1][&first].1.len()), (10_700, 10_000));
}

#[test]
fn what_waited_on_the_way_for_longer_than_the_patience_counts_for_nothing() {
    let (mut caller, mut listener) =
        (Peer::caller(PATIENCE, 64, StdRng::seed_from_u64(1)), Peer::listener(PATIENCE, 64, StdRng::seed_from_u64(2)));
    let now = Duration::from_secs(1);
    listener.hear(now, &caller.next(now).unwrap());
    caller.hear(now, &listener.next(now).unwrap());
    assert_eq!(caller.news(), Some(News::Begun));
    listener.hear(now, &caller.next(now).unwrap());
    assert_eq!(listener.news(), Some(News::Begun));
    caller.push(b"ask the meter");
    let request = caller.next(now).unwrap();
    assert_eq!(request.bytes, b"ask the meter");
    let mut later = now;
    for _ in 0..4 {
        // The session lives: signs of life go both ways, only the request hangs somewhere.
        later += Duration::from_secs(3);
        while let Some(message) = listener.next(later) {
            caller.hear(later, &message);
        }
        while let Some(message) = caller.next(later) {
            listener.hear(later, &Message { bytes: Vec::new(), ..message });
        }
    }
    assert_eq!((listener.has_bytes(), listener.late()), (false, 0));
    listener.hear(later, &request);
    assert_eq!((listener.has_bytes(), listener.late()), (false, 1));
    assert!(name(&listener).is_some());
}

#[test]
fn a_second_caller_is_told_that_the_line_is_taken_and_gets_it_after_the_first() {
    let mut world = World::new(3, 0, 0, Duration::ZERO);
    let has_it = |world: &World| matches!(world.peers[1].state, State::Open { proven: true, .. });
    assert!(world.run(Duration::from_secs(5), has_it));
    let [first, listener] = &mut world.peers;
    let mut now = world.now;
    let mut second = Peer::caller(PATIENCE, 64, StdRng::seed_from_u64(9));
    let mut turn = |first: &mut Peer, second: &mut Peer, listener: &mut Peer| {
        now += STEP;
        for _ in 0..8 {
            [&mut *first, &mut *second]
                .into_iter()
                .filter_map(|peer| peer.next(now))
                .for_each(|m| listener.hear(now, &m));
            while let Some(message) = listener.next(now) {
                first.hear(now, &message);
                second.hear(now, &message);
            }
        }
    };
    for _ in 0..200 {
        turn(first, &mut second, listener);
    }
    assert_eq!((second.news(), second.news()), (Some(News::Busy), None));
    assert!(name(first).is_some());
    first.end(Duration::from_secs(100), Reason::Closed);
    for _ in 0..200 {
        turn(first, &mut second, listener);
    }
    assert_eq!(second.news(), Some(News::Begun));
    assert!(name(first).is_none() && name(listener) == name(&second));
}

#[test]
fn nothing_grows_while_nobody_takes() {
    let mut world = World::new(4, 0, 0, Duration::from_millis(30));
    world.to_push = [1_000_000, 0];
    world.takes = [true, false];
    world.run(Duration::from_secs(60), |_| false);
    let pushed = 1_000_000 - world.to_push[0];
    assert!((64 << 10..(128 << 10) + 3000).contains(&pushed), "{pushed}");
    assert_eq!(world.ended, [vec![], vec![]], "a slow line is no cut");
    world.takes = [true, true];
    assert!(world.run(Duration::from_secs(600), World::all_arrived));
    world.check();
}

proptest! {
    #[test]
    fn no_message_of_anybody_does_harm(messages in proptest::collection::vec((1u8..5, 0u8..6, any::<[u8; 52]>(), 0usize..300), 0..40), calls in any::<bool>()) {
        let random = StdRng::seed_from_u64(7);
        let mut peer = if calls { Peer::caller(PATIENCE, 64, random) } else { Peer::listener(PATIENCE, 64, random) };
        let mut now = Duration::ZERO;
        let mut known = Session::default();
        for (kind, reason, rest, more) in messages {
            now += Duration::from_millis(300);
            let mut bytes = vec![b'W', b'T', 1, kind, reason & 1, if kind == 4 { reason } else { 0 }, 0, 0];
            bytes.extend(rest);
            bytes.resize(numbered::HEAD + more, 1);
            if let Ok(mut message) = numbered::decode(&bytes) {
                // Half of them name the session that there is.
                if rest[51] & 1 == 0 {
                    message.session = known;
                    message.echo = stamp(now);
                    message.offset &= 511;
                    message.arrived &= 511;
                }
                peer.hear(now, &message);
            }
            while let Some(message) = peer.next(now) {
                known = message.session;
            }
            prop_assert!(peer.take(now, usize::MAX).len() <= 1 << 16);
        }
    }
}

#[test]
fn a_call_that_reaches_a_restarted_listener_late_does_not_continue_the_old_session() {
    let mut caller = Peer::caller(PATIENCE, 64, StdRng::seed_from_u64(1));
    let mut listener = Peer::listener(PATIENCE, 64, StdRng::seed_from_u64(2));
    let now = Duration::from_secs(1);
    let call = caller.next(now).unwrap();
    listener.hear(now, &call);
    caller.hear(now, &listener.next(now).unwrap());
    listener.hear(now, &caller.next(now).unwrap());
    caller.push(b"one");
    listener.hear(now, &caller.next(now).unwrap());
    assert_eq!(listener.take(now, 9), b"one");
    let mut listener = Peer::listener(PATIENCE, 64, StdRng::seed_from_u64(3));
    listener.hear(now, &call);
    caller.hear(now, &listener.next(now).unwrap());
    assert_eq!((caller.news(), caller.news()), (Some(News::Begun), Some(News::Ended(Reason::Unknown))));
}
