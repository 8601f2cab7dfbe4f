//! The books of traffic: amounts by UTC day and month, bounded whatever the clock does.
//!
//! Invariants: nothing added is lost from `total`; at most [`DAYS`] days and [`MONTHS`] months are
//! kept beside the present ones. What was counted while the clock could not be right (before
//! [`SANE`]) waits under [`UNKNOWN`] and goes to the day the clock turns out to show. Days that lie
//! ahead of the present were written by a wrong clock: they are moved to the present day as soon
//! as more of the kept days lie behind it than ahead. No clock, no file.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use time::format_description::BorrowedFormatItem;
use time::macros::{date, format_description};
use time::{Date, OffsetDateTime};

use super::tally::Amount;
use crate::model::Timestamp;

/// Days kept beside the present one.
pub(super) const DAYS: usize = 31;
/// Months kept beside the present one.
pub(super) const MONTHS: usize = 13;
/// Weir is not older than this: an earlier date is a clock that was never set.
const SANE: Date = date!(2025 - 01 - 01);
/// Where amounts wait while the date is not known.
pub(super) const UNKNOWN: Date = date!(1970 - 01 - 01);
const FORM: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// The UTC day of a time; `None` when the clock can't be right.
pub(super) fn day_of(now: Timestamp) -> Option<Date> {
    let date = OffsetDateTime::from_unix_timestamp(now.as_millis().div_euclid(1000)).ok()?.date();
    (date >= SANE).then_some(date)
}

pub(super) fn month_of(day: Date) -> Date {
    day.replace_day(1).unwrap_or(day)
}

/// The books.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Daybook {
    pub(super) total: Amount,
    pub(super) days: BTreeMap<Date, Amount>,
    /// By their first day.
    pub(super) months: BTreeMap<Date, Amount>,
}

impl Daybook {
    /// Books an amount under `today`; `None`: the date is not known.
    pub(super) fn add(&mut self, today: Option<Date>, amount: Amount) {
        self.total = self.total.plus(amount);
        let day = today.unwrap_or(UNKNOWN);
        self.book(day, amount);
        if today.is_some() {
            self.come_true(day);
        }
        prune(&mut self.days, day, DAYS);
        prune(&mut self.months, month_of(day), MONTHS);
    }

    /// What was booked from `first` to `last`, both included.
    pub(super) fn sum(&self, first: Date, last: Date) -> Amount {
        if first > last {
            return Amount::default();
        }
        self.days.range(first..=last).fold(Amount::default(), |sum, (_, amount)| sum.plus(*amount))
    }

    fn book(&mut self, day: Date, amount: Amount) {
        if amount == Amount::default() {
            return;
        }
        for (book, key) in [(&mut self.days, day), (&mut self.months, month_of(day))] {
            let entry = book.entry(key).or_default();
            *entry = entry.plus(amount);
        }
    }

    /// Moves what a wrong clock wrote to the present day.
    fn come_true(&mut self, today: Date) {
        let known = self.days.range(SANE..).map(|(day, _)| *day);
        let ahead: Vec<_> = known.clone().filter(|day| *day > today).collect();
        let behind = known.filter(|day| *day < today).count();
        let mut wrong = if behind > ahead.len() { ahead } else { Vec::new() };
        wrong.push(UNKNOWN);
        for day in wrong {
            let Some(amount) = self.days.remove(&day) else { continue };
            if let Some(month) = self.months.get_mut(&month_of(day)) {
                month.sent = month.sent.saturating_sub(amount.sent);
                month.received = month.received.saturating_sub(amount.received);
                month.packets = month.packets.saturating_sub(amount.packets);
                if *month == Amount::default() {
                    self.months.remove(&month_of(day));
                }
            }
            self.book(today, amount);
        }
    }

    /// The books as JSON.
    pub(super) fn to_json(&self) -> Json {
        let triple = |a: &Amount| json!([a.sent, a.received, a.packets]);
        let object = |book: &BTreeMap<Date, Amount>| {
            Json::Object(book.iter().map(|(day, amount)| (day.to_string(), triple(amount))).collect::<Map<_, _>>())
        };
        json!({ "total": triple(&self.total), "days": object(&self.days), "months": object(&self.months) })
    }

    /// Reads the books back; `None` when they are no such thing.
    pub(super) fn from_json(json: &Json) -> Option<Self> {
        let triple = |json: &Json| match json.as_array()?.as_slice() {
            [sent, received, packets] => {
                Some(Amount { sent: sent.as_u64()?, received: received.as_u64()?, packets: packets.as_u64()? })
            }
            _ => None,
        };
        let book = |key: &str| -> Option<BTreeMap<Date, Amount>> {
            let entries = json.get(key)?.as_object()?;
            entries.iter().map(|(day, amount)| Some((Date::parse(day, FORM).ok()?, triple(amount)?))).collect()
        };
        Some(Self { total: triple(json.get("total")?)?, days: book("days")?, months: book("months")? })
    }
}

/// Forgets the oldest entries; never the present one, nor what waits for its date.
fn prune(book: &mut BTreeMap<Date, Amount>, present: Date, limit: usize) {
    loop {
        let others = || book.keys().copied().filter(|key| *key != present && *key != UNKNOWN);
        let oldest = others().next().filter(|_| others().count() > limit);
        match oldest {
            Some(oldest) => drop(book.remove(&oldest)),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(sent: u64) -> Amount {
        Amount { sent, received: sent * 2, packets: 1 }
    }

    #[test]
    fn a_day_and_its_month_grow_together_and_old_ones_go() {
        let mut daybook = Daybook::default();
        let mut day = date!(2026 - 01 - 01);
        for _ in 0..500 {
            daybook.add(Some(day), amount(10));
            daybook.add(Some(day), amount(1));
            day = day.next_day().unwrap();
        }
        assert_eq!((daybook.days.len(), daybook.months.len()), (DAYS + 1, MONTHS + 1));
        assert_eq!(daybook.total.sent, 5500);
        assert_eq!(daybook.days.last_key_value().unwrap().1.sent, 11);
        assert_eq!(daybook.months[&date!(2027 - 04 - 01)].sent, 30 * 11);
        assert_eq!(daybook.sum(date!(2027 - 05 - 01), date!(2027 - 05 - 02)).received, 44);
    }

    #[test]
    fn what_was_counted_before_the_clock_was_set_goes_to_the_day_it_shows_then() {
        let mut daybook = Daybook::default();
        let unset = day_of(Timestamp::from_millis(86_400_000 * 40));
        daybook.add(unset, amount(5));
        daybook.add(unset, amount(2));
        assert_eq!(daybook.days.keys().collect::<Vec<_>>(), [&UNKNOWN]);
        let today = day_of(Timestamp::parse("2026-11-22T01:00:00Z").unwrap());
        daybook.add(today, amount(1));
        assert_eq!(daybook.days, BTreeMap::from([(today.unwrap(), Amount { sent: 8, received: 16, packets: 3 })]));
        assert_eq!(daybook.months.keys().collect::<Vec<_>>(), [&date!(2026 - 11 - 01)]);
    }

    #[test]
    fn days_of_a_clock_that_ran_ahead_come_back_to_the_present() {
        let mut daybook = Daybook::default();
        for day in [date!(2026 - 11 - 18), date!(2026 - 11 - 19), date!(2038 - 01 - 19), date!(2026 - 11 - 20)] {
            daybook.add(Some(day), amount(1));
        }
        assert_eq!(daybook.days.len(), 3);
        assert_eq!(daybook.days[&date!(2026 - 11 - 20)].sent, 2);
        assert_eq!((daybook.months.len(), daybook.months[&date!(2026 - 11 - 01)].sent), (1, 4));
    }

    #[test]
    fn a_clock_set_back_by_mistake_does_not_gather_the_past_into_one_day() {
        let mut daybook = Daybook::default();
        for day in 1..=20 {
            daybook.add(Some(Date::from_calendar_date(2026, time::Month::November, day).unwrap()), amount(1));
        }
        let before = daybook.days.clone();
        daybook.add(Some(date!(2026 - 08 - 01)), amount(7));
        daybook.add(Some(date!(2026 - 08 - 02)), amount(7));
        daybook.add(Some(date!(2026 - 11 - 21)), amount(1));
        assert!(before.iter().all(|(day, amount)| daybook.days[day] == *amount));
        assert_eq!(daybook.total.sent, 35);
    }

    proptest! {
        #[test]
        fn whatever_the_clock_does_nothing_is_lost_and_the_books_stay_small(
            jumps in prop::collection::vec((0i64..30_000, 0u64..1000), 1..120),
        ) {
            let mut daybook = Daybook::default();
            let mut sum = 0;
            for (days, sent) in jumps {
                let today = day_of(Timestamp::from_millis(days * 86_400_000));
                let elsewhere = daybook.days.clone();
                daybook.add(today, amount(sent));
                sum += sent;
                prop_assert!(daybook.days.len() <= DAYS + 2 && daybook.months.len() <= MONTHS + 2);
                prop_assert_eq!(daybook.total.sent, sum);
                // Unless the oldest days had to go, every byte is under some day.
                if elsewhere.len() < DAYS {
                    let booked: u64 = elsewhere.values().map(|a| a.sent).sum();
                    prop_assert_eq!(daybook.days.values().map(|a| a.sent).sum::<u64>(), booked + sent);
                }
                prop_assert_eq!(Daybook::from_json(&daybook.to_json()), Some(daybook.clone()));
            }
        }
    }
}
