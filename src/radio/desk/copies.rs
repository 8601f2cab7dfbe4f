//! The same telegram by several receivers and repeaters: one frame, with its best reception.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Rssi;
use crate::wire::radio_line::Reception;
use crate::wire::telegram::Id;

/// The most telegrams that are remembered: what the air carries in the longest window, and far
/// more than in the usual one.
pub(super) const REMEMBERED: usize = 4096;

/// Telegrams that were heard lately.
#[derive(Debug)]
pub(super) struct Copies<T> {
    gather: Duration,
    window: Duration,
    known: HashMap<Id, Known<T>>,
    /// In the order of their first reception, and so of their release and of their end.
    order: VecDeque<(Instant, Id)>,
    /// How many at the front of `order` were released by their time.
    released: usize,
}

#[derive(Debug)]
struct Known<T> {
    /// What waits for better receptions; `None` once it was released.
    waiting: Option<Gathered<T>>,
}

/// A telegram with its best reception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gathered<T> {
    /// The best reception.
    pub(super) reception: Reception,
    /// How many there were.
    pub(super) copies: u16,
    /// What came with the best one.
    pub(super) with: T,
}

impl<T> Copies<T> {
    /// Remembers telegrams for `window` and holds those that may wait for `gather`.
    pub(super) fn new(gather: Duration, window: Duration) -> Self {
        Self { gather, window, known: HashMap::new(), order: VecDeque::new(), released: 0 }
    }

    /// Whether a telegram was heard within the window; if so its reception is counted, and kept when it
    /// is the best so far and the telegram still waits; `change` then changes what came with the former one. What does not
    /// count any more is forgotten.
    pub(super) fn is_copy(&mut self, id: Id, reception: &Reception, change: impl FnOnce(&mut T), now: Instant) -> bool {
        self.forget(now);
        let Some(known) = self.known.get_mut(&id) else { return false };
        if let Some(waiting) = &mut known.waiting {
            waiting.copies = waiting.copies.saturating_add(1);
            if is_better(reception, &waiting.reception) {
                waiting.reception = reception.clone();
                change(&mut waiting.with);
            }
        }
        true
    }

    /// Remembers a telegram that is no copy, and holds it when it may wait; else it is given back at once. When too
    /// many are remembered the oldest is forgotten, and given back if it still waits.
    pub(super) fn add(&mut self, id: Id, telegram: Gathered<T>, may_wait: bool, now: Instant) -> Vec<Gathered<T>> {
        let mut out = Vec::new();
        if self.order.len() >= REMEMBERED {
            out.extend(self.forget_oldest());
        }
        let waits = may_wait && !self.gather.is_zero();
        let mut telegram = Some(telegram);
        let waiting = if waits { telegram.take() } else { None };
        self.known.insert(id, Known { waiting });
        self.order.push_back((now, id));
        out.extend(telegram);
        out
    }

    /// When the next telegram has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.order.get(self.released).map(|(first, _)| *first + self.gather)
    }

    /// The next telegram that has waited long enough, or any that waits when `all` are wanted.
    pub(super) fn release(&mut self, now: Instant, all: bool) -> Option<Gathered<T>> {
        while let Some((first, id)) = self.order.get(self.released) {
            if !all && *first + self.gather > now {
                return None;
            }
            self.released += 1;
            if let Some(waiting) = self.known.get_mut(id).and_then(|known| known.waiting.take()) {
                return Some(waiting);
            }
        }
        None
    }

    /// Forgets what is older than the window; only what was released is.
    fn forget(&mut self, now: Instant) {
        while self.released > 0
            && self.order.front().is_some_and(|(first, _)| now.saturating_duration_since(*first) >= self.window)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> Option<Gathered<T>> {
        let (_, id) = self.order.pop_front()?;
        self.released = self.released.saturating_sub(1);
        self.known.remove(&id)?.waiting
    }
}

/// Whether one reception is better than another: stronger, and of equal ones with fewer mended bits. A
/// known strength is better than none; relative ones are not compared with absolute ones.
fn is_better(new: &Reception, old: &Reception) -> bool {
    let fewer = new.corrected_bits < old.corrected_bits;
    match (new.rssi, old.rssi) {
        (Some(Rssi::Dbm(new)), Some(Rssi::Dbm(old))) | (Some(Rssi::Relative(new)), Some(Rssi::Relative(old))) => {
            new > old || (new == old && fewer)
        }
        (Some(Rssi::Dbm(_)), _) | (Some(Rssi::Relative(_)), None) => true,
        (Some(Rssi::Relative(_)), Some(Rssi::Dbm(_))) | (None, Some(_)) => false,
        (None, None) => fewer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TelegramKind;

    const GATHER: Duration = Duration::from_millis(500);
    const WINDOW: Duration = Duration::from_secs(10);

    fn reception(rssi: i16) -> Reception {
        let kind = TelegramKind::WirelessMbus;
        Reception { kind, bytes: vec![1], rssi: Some(Rssi::Dbm(rssi)), corrected_bits: 0, time: None }
    }

    fn id(number: u16) -> Id {
        let [a, b] = number.to_be_bytes();
        [a, b, 0, 0, 0, 0, 0, 0]
    }

    /// Takes a telegram as the desk does; what comes out at once.
    fn take(copies: &mut Copies<u8>, number: u16, rssi: i16, now: Instant) -> Option<Vec<Gathered<u8>>> {
        let reception = reception(rssi);
        if copies.is_copy(id(number), &reception, |with| *with = 8, now) {
            return None;
        }
        Some(copies.add(id(number), Gathered { reception, copies: 1, with: 7 }, true, now))
    }

    #[tokio::test]
    async fn the_best_reception_of_several_is_released_once_with_their_number() {
        let mut copies = Copies::new(GATHER, WINDOW);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(take(&mut copies, 1, -90, start), Some(vec![]));
        assert_eq!(take(&mut copies, 1, -60, after(100)), None);
        assert_eq!(take(&mut copies, 1, -80, after(200)), None);
        assert_eq!(copies.release(after(499), false), None);
        assert_eq!(copies.due(), Some(after(500)));
        let released = copies.release(after(500), false).unwrap();
        assert_eq!((released.copies, released.reception, released.with), (3, reception(-60), 8));
        assert_eq!((copies.release(after(600), false), copies.due()), (None, None));
        assert_eq!(take(&mut copies, 1, -50, after(9999)), None, "a repeater's copy is no new telegram");
        assert_eq!(copies.release(after(20_000), true), None);
        assert_eq!(take(&mut copies, 1, -50, after(10_000)), Some(vec![]), "after the window it is new");
    }

    #[tokio::test]
    async fn memory_is_bounded_and_what_waits_is_given_back_rather_than_forgotten() {
        let mut copies = Copies::new(GATHER, WINDOW);
        let now = Instant::now();
        let mut out = 0;
        for number in 0..10_000 {
            out += take(&mut copies, number, -50, now).unwrap().len();
        }
        assert_eq!((copies.known.len(), copies.order.len()), (REMEMBERED, REMEMBERED));
        while copies.release(now + GATHER, false).is_some() {
            out += 1;
        }
        assert_eq!(out, 10_000);
        assert_eq!(take(&mut copies, 9_999, -50, now + GATHER), None);
    }

    #[test]
    fn known_strengths_are_compared_on_their_own_scale() {
        let with = |rssi, corrected_bits| Reception { rssi, corrected_bits, ..reception(0) };
        let (dbm, relative) = (|n| Some(Rssi::Dbm(n)), |n| Some(Rssi::Relative(n)));
        for (better, worse) in [
            (with(dbm(-50), 0), with(dbm(-51), 0)),
            (with(dbm(-50), 1), with(dbm(-50), 2)),
            (with(dbm(-120), 0), with(None, 0)),
            (with(dbm(-120), 0), with(relative(99), 0)),
            (with(relative(99), 0), with(relative(98), 0)),
            (with(relative(1), 0), with(None, 0)),
            (with(None, 0), with(None, 1)),
        ] {
            assert!(is_better(&better, &worse) && !is_better(&worse, &better), "{better:?} {worse:?}");
        }
    }
}
