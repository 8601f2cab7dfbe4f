//! The invocation counters of pushes that were believed: what is not newer is a replay (IEC 62056-5-3, clause 5.3.7.3).

use ring::digest::{SHA256, digest};

use crate::wire::dlms::open::TITLE;

/// Meters behind one port whose counters are known; of more than these nothing is taken.
const MOST: usize = 16;
/// The first byte of what is kept, for a later form.
const FORM: u8 = 1;
/// A part of a hash of the keys: with other keys counters begin anew.
const MARK: usize = 8;

/// The newest counter of each meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replay {
    mark: [u8; MARK],
    newest: Vec<([u8; TITLE], u32)>,
}

impl Replay {
    /// Knows no meter yet.
    pub(super) fn new(keys: &[&[u8]]) -> Self {
        let all = [b"weir push counters", keys.concat().as_slice()].concat();
        let mark = digest(&SHA256, &all).as_ref().first_chunk().copied().unwrap_or_default();
        Self { mark, newest: Vec::new() }
    }

    /// Whether a counter of a meter is newer than all before.
    pub(super) fn is_new(&self, title: [u8; TITLE], counter: u32) -> bool {
        match self.newest.iter().find(|(known, _)| *known == title) {
            Some((_, newest)) => counter > *newest,
            None => self.newest.len() < MOST,
        }
    }

    /// Takes note of a counter that was new and whose message was believed.
    pub(super) fn accept(&mut self, title: [u8; TITLE], counter: u32) {
        match self.newest.iter_mut().find(|(known, _)| *known == title) {
            Some((_, newest)) => *newest = counter.max(*newest),
            None => self.newest.push((title, counter)),
        }
    }

    /// What is kept over a restart.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend(self.mark);
        for (title, counter) in &self.newest {
            bytes.extend(title);
            bytes.extend(counter.to_be_bytes());
        }
        bytes
    }

    /// Takes over what was kept; of other keys nothing.
    pub(super) fn take_over(&mut self, kept: &[u8]) {
        let Some(entries) = kept.strip_prefix(&[FORM]).and_then(|rest| rest.strip_prefix(&self.mark)) else { return };
        for entry in entries.chunks_exact(TITLE + 4) {
            if let Some((title, counter)) = entry.split_first_chunk()
                && let Ok(counter) = counter.try_into()
                && self.newest.len() < MOST
            {
                self.accept(*title, u32::from_be_bytes(counter));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_counters_are_new_for_each_meter_and_over_a_restart() {
        let mut replay = Replay::new(&[&[1; 16]]);
        assert!(replay.is_new([1; TITLE], 0));
        replay.accept([1; TITLE], 5);
        let seen = |replay: &Replay| [4, 5, 6].map(|counter| replay.is_new([1; TITLE], counter));
        assert_eq!(seen(&replay), [false, false, true]);
        assert!(replay.is_new([2; TITLE], 1));
        let mut again = Replay::new(&[&[1; 16]]);
        again.take_over(&replay.to_bytes());
        assert_eq!(again, replay);
        let mut other = Replay::new(&[&[2; 16]]);
        other.take_over(&replay.to_bytes());
        assert!(other.is_new([1; TITLE], 1), "another key begins anew");
    }

    #[test]
    fn a_full_book_takes_no_further_meter_and_nonsense_is_no_book() {
        let mut replay = Replay::new(&[]);
        for number in 0..20_u8 {
            if replay.is_new([number; TITLE], 1) {
                replay.accept([number; TITLE], 1);
            }
        }
        assert_eq!(replay.to_bytes().len(), 1 + MARK + MOST * (TITLE + 4));
        let before = replay.clone();
        for nonsense in [&[][..], &[FORM], &[9; 40], &replay.to_bytes()[..12]] {
            replay.take_over(nonsense);
        }
        assert_eq!(replay, before);
    }
}
