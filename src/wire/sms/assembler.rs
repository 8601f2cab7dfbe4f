//! Long messages out of their parts (3GPP TS 23.040, 9.2.3.24.1).

use std::time::Duration;

use super::address::Address;
use super::body::{Body, Part};
use super::pdu::Deliver;
use crate::model::Timestamp;

/// Parts that may wait, of everybody together and of one sender: nobody can fill the memory, nor one the place of all.
const MOST: usize = 128;
const MOST_OF_ONE: usize = 48;

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole<T> {
    /// Who sent it.
    pub from: Address,
    /// What it says.
    pub text: String,
    /// When the service centre got its last part.
    pub at: Option<Timestamp>,
    /// What its parts were pushed with, in their order.
    pub tags: Vec<T>,
}

/// What came of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed<T> {
    /// The message that is whole now.
    pub whole: Option<Whole<T>>,
    /// The tags of parts that are given up: those that came before, and the oldest when there are too many.
    pub given_up: Vec<T>,
}

#[derive(Debug, Clone)]
struct Waiting<T> {
    from: Address,
    part: Part,
    body: Body,
    at: Option<Timestamp>,
    tag: T,
    since: Duration,
}

impl<T> Waiting<T> {
    fn belongs_to(&self, from: &Address, part: Part) -> bool {
        self.from == *from && Part { number: 0, ..self.part } == Part { number: 0, ..part }
    }
}

/// Keeps parts until their message is whole: at most 128 of them, 48 of a sender, for as long as they are told to.
#[derive(Debug, Clone)]
pub struct Assembler<T> {
    waiting: Vec<Waiting<T>>,
    longest: Duration,
}

impl<T: Clone + PartialEq> Assembler<T> {
    /// Keeps a part for at most `longest`.
    pub const fn new(longest: Duration) -> Self {
        Self { waiting: Vec::new(), longest }
    }

    /// Takes a message that came. `now` is the time since any fixed moment; `tag` is given back with it.
    pub fn push(&mut self, message: &Deliver, tag: T, now: Duration) -> Pushed<T> {
        let Some(part) = message.data.part().filter(|part| part.of > 1) else {
            let (from, text, at) = (message.from.clone(), message.data.body.text(), message.at);
            return Pushed { whole: Some(Whole { from, text, at, tags: vec![tag] }), given_up: Vec::new() };
        };
        let from = message.from.clone();
        let same = |w: &Waiting<T>| w.belongs_to(&from, part) && w.part.number == part.number;
        let mut given_up = Vec::new();
        // The newer copy counts: a reference may come round again.
        if let Some(at) = self.waiting.iter().position(same) {
            let older = self.waiting.remove(at);
            given_up.extend((older.tag != tag).then_some(older.tag));
        }
        let body = message.data.body.clone();
        self.waiting.push(Waiting { from: from.clone(), part, body, at: message.at, tag, since: now });
        let of_it = self.waiting.iter().filter(|w| w.belongs_to(&from, part)).count();
        if of_it == usize::from(part.of) {
            return Pushed { whole: self.take(&from, part), given_up };
        }
        given_up.extend(self.make_room(&from));
        Pushed { whole: None, given_up }
    }

    /// Whether the part that was pushed with `tag` still waits.
    pub fn holds(&self, tag: &T) -> bool {
        self.waiting.iter().any(|w| w.tag == *tag)
    }

    /// How many parts wait.
    pub const fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Gives up the parts that have waited too long.
    pub fn expire(&mut self, now: Duration) -> Vec<T> {
        let longest = self.longest;
        self.give_up(|w| now.saturating_sub(w.since) >= longest)
    }

    /// Gives up the oldest part of all, and what belongs to it.
    pub fn give_up_oldest(&mut self) -> Vec<T> {
        let Some((from, part)) = self.oldest(|_| true) else { return Vec::new() };
        self.give_up(|w| w.belongs_to(&from, part))
    }

    fn oldest(&self, among: impl Fn(&Waiting<T>) -> bool) -> Option<(Address, Part)> {
        self.waiting.iter().filter(|w| among(w)).min_by_key(|w| w.since).map(|w| (w.from.clone(), w.part))
    }

    fn make_room(&mut self, from: &Address) -> Vec<T> {
        let mut given_up = Vec::new();
        while self.waiting.iter().filter(|w| w.from == *from).count() > MOST_OF_ONE {
            let Some((from, part)) = self.oldest(|w| w.from == *from) else { break };
            given_up.extend(self.give_up(|w| w.belongs_to(&from, part)));
        }
        while self.waiting.len() > MOST {
            given_up.extend(self.give_up_oldest());
        }
        given_up
    }

    fn give_up(&mut self, which: impl Fn(&Waiting<T>) -> bool) -> Vec<T> {
        let tags = self.waiting.iter().filter(|w| which(w)).map(|w| w.tag.clone()).collect();
        self.waiting.retain(|w| !which(w));
        tags
    }

    fn take(&mut self, from: &Address, part: Part) -> Option<Whole<T>> {
        let mut parts: Vec<_> = self.waiting.iter().filter(|w| w.belongs_to(from, part)).cloned().collect();
        self.waiting.retain(|w| !w.belongs_to(from, part));
        parts.sort_by_key(|w| w.part.number);
        let at = parts.iter().filter_map(|w| w.at).max();
        let tags = parts.iter().map(|w| w.tag.clone()).collect();
        // Joined before they are read: senders cut within characters.
        let body = parts.into_iter().map(|w| w.body).reduce(|mut all, next| {
            all.append(&next);
            all
        })?;
        Some(Whole { from: from.clone(), text: body.text(), at, tags })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sms::{Element, UserData, split};

    const DAY: Duration = Duration::from_hours(24);

    fn parts(from: &str, text: &str, reference: u8) -> Vec<Deliver> {
        let from = Address::parse(from).unwrap();
        let parts = split(text, reference, 255).unwrap();
        parts.into_iter().map(|data| Deliver::new(from.clone(), Timestamp::default(), data)).collect()
    }

    #[test]
    fn parts_wait_for_each_other_and_for_nobody_elses() {
        let mut assembler = Assembler::new(DAY);
        let text = "b".repeat(400);
        let (mine, yours) = (parts("+341", &text, 7), parts("+342", &text, 7));
        for (tag, part) in [(0, &mine[2]), (1, &yours[1]), (2, &mine[0]), (3, &yours[0])] {
            assert_eq!(assembler.push(part, tag, Duration::ZERO), Pushed { whole: None, given_up: vec![] });
        }
        let whole = assembler.push(&mine[1], 4, Duration::ZERO).whole.unwrap();
        assert_eq!((whole.text, whole.tags), (text, vec![2, 4, 0]));
        assert!(assembler.holds(&1) && !assembler.holds(&0) && assembler.waiting() == 2);
    }

    #[test]
    fn a_part_that_comes_twice_counts_once_and_the_old_copy_is_given_up() {
        let mut assembler = Assembler::new(DAY);
        let mine = parts("+341", &"b".repeat(400), 7);
        assembler.push(&mine[0], 1, Duration::ZERO);
        assert!(assembler.push(&mine[0], 1, Duration::ZERO).given_up.is_empty());
        assert_eq!(assembler.push(&mine[0], 2, Duration::ZERO).given_up, [1]);
        assert_eq!(assembler.waiting(), 1);
    }

    #[test]
    fn what_never_becomes_whole_is_given_up_after_its_time() {
        let mut assembler = Assembler::new(DAY);
        assembler.push(&parts("+341", &"b".repeat(400), 7)[0], 1, DAY);
        assert_eq!(assembler.expire(DAY + DAY / 2), Vec::<i32>::new());
        assert_eq!(assembler.expire(DAY * 2), [1]);
        assert_eq!(assembler.waiting(), 0);
    }

    #[test]
    fn a_flood_of_one_sender_takes_neither_the_memory_nor_the_place_of_others() {
        let mut assembler = Assembler::new(DAY);
        let other = &parts("+342", &"b".repeat(400), 7)[0];
        assembler.push(other, 10_000, Duration::ZERO);
        let mut given_up = 0;
        for (at, reference) in (0u8..=255).enumerate() {
            let part = &parts("+341", &"b".repeat(400), reference)[0];
            let at = i32::try_from(at).unwrap();
            given_up += assembler.push(part, at, Duration::from_secs(1)).given_up.len();
        }
        assert_eq!((assembler.waiting(), given_up), (49, 256 - 48));
        assert!(assembler.holds(&10_000));
    }

    #[test]
    fn a_character_that_was_cut_in_two_is_whole_again() {
        let mut assembler = Assembler::new(DAY);
        let units: Vec<u16> = "\u{1F600}".encode_utf16().collect();
        let part = |number: u8| {
            let header = vec![Element { id: 8, data: vec![1, 2, 2, number] }];
            let data = UserData { header, body: Body::Ucs2(vec![units[usize::from(number - 1)]]) };
            Deliver::new(Address::parse("+341").unwrap(), Timestamp::default(), data)
        };
        assembler.push(&part(1), 1, DAY);
        assert_eq!(assembler.push(&part(2), 2, DAY).whole.unwrap().text, "\u{1F600}");
    }

    proptest! {
        #[test]
        fn any_order_gives_the_text(text in "[ -~€ł]{0,700}", order in proptest::collection::vec(any::<u32>(), 30)) {
            let mut shuffled: Vec<_> = parts("+341", &text, 9).into_iter().zip(order).collect();
            shuffled.sort_by_key(|(_, key)| *key);
            let mut assembler = Assembler::new(DAY);
            let count = shuffled.len();
            let mut whole = Vec::new();
            for (at, (part, _)) in shuffled.iter().enumerate() {
                let pushed = assembler.push(part, at, DAY);
                prop_assert_eq!(pushed.whole.is_some(), at + 1 == count);
                whole.extend(pushed.whole);
            }
            prop_assert_eq!(&whole[0].text, &text);
            prop_assert_eq!(assembler.waiting(), 0);
        }
    }
}
