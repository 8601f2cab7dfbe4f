//! What a meter knows of its telegrams: made, handed to the gateway, confirmed.
//!
//! The meter is one with a load profile: what the gateway had not confirmed when it was killed,
//! and did not deliver either, is handed to it again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Pages {
    made: u64,
    /// No new ones for now.
    held: bool,
    hurried: bool,
    again: VecDeque<u64>,
    /// Handed over more than once.
    repeated: HashSet<u64>,
    /// Handed over in this life of the gateway, in this order.
    life: Vec<u64>,
    unconfirmed: BTreeSet<u64>,
    /// Those of an earlier life, by the first sequence that life gave.
    lives: BTreeMap<u64, Vec<u64>>,
    lines: usize,
    round: usize,
    /// In which round each was confirmed.
    confirmed: HashMap<u64, usize>,
}

impl Pages {
    fn confirm(&mut self, number: u64) {
        self.unconfirmed.remove(&number);
        self.confirmed.insert(number, self.round);
    }
}

#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Pages>>);

impl Ledger {
    /// The next telegram to hand over; `None` while there is none.
    pub fn next(&self) -> Option<u64> {
        let mut pages = self.0.lock().unwrap();
        let number = match pages.again.pop_front() {
            Some(number) => {
                pages.repeated.insert(number);
                number
            }
            None if pages.held => return None,
            None => {
                pages.made += 1;
                pages.made - 1
            }
        };
        pages.life.push(number);
        pages.unconfirmed.insert(number);
        Some(number)
    }

    /// Whether the next one is to follow at once: something of an earlier life waits, or it was said so.
    pub fn hurries(&self) -> bool {
        let pages = self.0.lock().unwrap();
        pages.hurried || !pages.again.is_empty()
    }

    pub fn hurry(&self, hurried: bool) {
        self.0.lock().unwrap().hurried = hurried;
    }

    /// How many different telegrams were handed over at least once.
    pub fn made(&self) -> u64 {
        self.0.lock().unwrap().made
    }

    /// Whether it was handed over more than once.
    pub fn was_repeated(&self, number: u64) -> bool {
        self.0.lock().unwrap().repeated.contains(&number)
    }

    pub fn unconfirmed(&self) -> usize {
        self.0.lock().unwrap().unconfirmed.len()
    }

    /// How many were handed over in this life.
    pub fn handed(&self) -> u64 {
        self.0.lock().unwrap().life.len() as u64
    }

    /// Stops or restarts the making of new ones.
    pub fn hold(&self, held: bool) {
        self.0.lock().unwrap().held = held;
    }

    /// The gateway took responsibility for it.
    pub fn confirm(&self, number: u64) {
        self.0.lock().unwrap().confirm(number);
    }

    /// A round begins.
    pub fn round(&self, round: usize) {
        self.0.lock().unwrap().round = round;
    }

    /// In which round the gateway took responsibility for it.
    pub fn confirmed_in(&self, number: u64) -> Option<usize> {
        self.0.lock().unwrap().confirmed.get(&number).copied()
    }

    /// Counts the connections that the gateway made to its receiver in this life.
    pub fn line_opened(&self) {
        self.0.lock().unwrap().lines += 1;
    }

    /// A life of weir is over. It numbered what it was handed from `first` on, and what it numbered
    /// up to `durable` it called durable.
    ///
    /// # Panics
    /// When the gateway opened the line twice: the numbering is not known then.
    pub fn numbered(&self, first: u64, durable: u64) {
        let mut pages = self.0.lock().unwrap();
        assert!(std::mem::take(&mut pages.lines) <= 1, "weir lost its receiver's line without a reason");
        let life = std::mem::take(&mut pages.life);
        for (number, _) in life.iter().zip(first..).take_while(|(_, sequence)| *sequence <= durable) {
            pages.confirm(*number);
        }
        if !life.is_empty() {
            pages.lives.insert(first, life);
        }
    }

    /// A life is over: what is neither confirmed nor `delivered` is handed over again.
    pub fn life_over(&self, delivered: impl Fn(u64) -> bool) {
        let mut pages = self.0.lock().unwrap();
        pages.life.clear();
        pages.unconfirmed.retain(|number| !delivered(*number));
        pages.again = pages.unconfirmed.iter().copied().collect();
    }

    /// The telegram that must have got this sequence.
    pub fn of_sequence(&self, sequence: u64) -> Option<u64> {
        let pages = self.0.lock().unwrap();
        let (first, life) = pages.lives.range(..=sequence).next_back()?;
        life.get(usize::try_from(sequence - first).unwrap()).copied()
    }
}
