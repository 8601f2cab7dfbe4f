//! The data budget of a SIM's month, and what is done when traffic runs ahead of it.
//!
//! The rule, whole: a day's share is nine tenths of the budget by the days of the month; *ahead* is
//! how many shares have been used beyond the days that have passed. Step k of `budget.order` is
//! taken when traffic is k days ahead, and given back when it is less than k - 1 days ahead, one step
//! a day at most, so that a backlog goes in the cheapest way. When 97 % of the budget are used, every
//! step is taken.
//! Frames are never dropped, and priority frames never wait. No clock, no input or output.

use std::time::Duration;

use time::{Date, Month};

use super::books::{Daybook, day_of};
use crate::model::Timestamp;
use crate::setting::{At, Count, Problems, Size};
use crate::{choices, settings};

settings! {
    /// How much data a month may cost, and what is done to stay below: docs/budget.md.
    pub struct BudgetSettings {
        /// The most data a month, both directions together. Unset: traffic is counted, nothing is
        /// held back.
        pub monthly: Option<At<Size>>,
        /// The day of the month on which the SIM's month begins (UTC); in a month that is too
        /// short, its last day.
        pub renews: Count<1, 31> = 1,
        /// What is done, one step more for each day that traffic is ahead of the budget. Leave
        /// "compress" out when a consumer can't read zlib, "defer" when frames must not wait.
        pub order: At<Vec<Step>> = ["batch", "compress", "defer"],
        /// What a packet's IP and TCP headers cost; carriers bill them. Packets are estimated.
        /// "0B": only bytes of TCP count.
        pub headers: Size = "52B",
    }
}

choices! {
    /// One way to spend less.
    pub enum Step {
        /// Ordinary frames go every 15 minutes only, with further steps every hour; pings every
        /// 15 minutes.
        Batch = "batch",
        /// Payloads are deflated, as by `uplink.compression`.
        Compress = "compress",
        /// Ordinary frames wait in the store; pings every 15 minutes.
        Defer = "defer",
    }
}

/// Ordinary frames go every so often when "batch" is the last step taken.
const GATHER: Duration = Duration::from_mins(15);
/// The same with a further step.
const GATHER_LONG: Duration = Duration::from_hours(1);
/// The ping's period while frames are gathered or wait.
const QUIET: u16 = 900;
/// Per cent of the budget that the days share; without the rest, traffic that is always a day
/// ahead would end in a month's end without ordinary frames.
const SHARED: i128 = 90;
/// Per cent of the budget beyond which every step is taken.
const NEARLY_ALL: i128 = 97;
const DAY: i128 = 86_400_000;
const ONE_DAY: Duration = Duration::from_hours(24);
/// The pace is that of so many days, today included.
const PACE_DAYS: i64 = 7;

/// Tells what is wrong with `[budget]` beyond single values.
pub fn check(budget: &BudgetSettings, problems: &mut Problems) {
    if let Some(monthly) = budget.monthly.as_ref().filter(|m| m.bytes() < 100_000) {
        problems.error(
            monthly.span(),
            "budget.monthly is below 100 kB, which connecting once a day takes alone; raise it, or leave it unset",
        );
    }
    let twice = |step: &Step| budget.order.iter().filter(|s| *s == step).count() > 1;
    if budget.order.iter().any(twice) {
        problems.error(budget.order.span(), "budget.order names a step twice");
    }
    if budget.order.is_empty() && budget.monthly.is_some() {
        problems.warning(budget.order.span(), "budget.order is empty: nothing is done to stay within budget.monthly");
    }
}

/// What a session has to do to spend less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Ordinary frames go once in so long.
    pub gather: Option<Duration>,
    /// Payloads are deflated.
    pub compress: bool,
    /// Ordinary frames wait.
    pub defer: bool,
    /// The least keep-alive, in seconds.
    pub quiet: Option<u16>,
}

/// The present SIM's month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its first day.
    pub first: Date,
    /// The first day of the next one.
    pub next: Date,
}

impl Period {
    /// The month that `today` belongs to when months begin on the day `renews`.
    pub fn of(today: Date, renews: u8) -> Self {
        let begins = |year: i32, month: Month| {
            let day = renews.clamp(1, month.length(year));
            Date::from_calendar_date(year, month, day).unwrap_or(today)
        };
        let before =
            |year: i32, month: Month| (if month == Month::January { year - 1 } else { year }, month.previous());
        let after = |year: i32, month: Month| (if month == Month::December { year + 1 } else { year }, month.next());
        let (year, month) = (today.year(), today.month());
        let this = begins(year, month);
        if this <= today {
            let (year, month) = after(year, month);
            Self { first: this, next: begins(year, month) }
        } else {
            let (year, month) = before(year, month);
            Self { first: begins(year, month), next: this }
        }
    }

    fn millis(self) -> i128 {
        i128::from((self.next - self.first).whole_days()).max(1) * DAY
    }
}

/// Where traffic stands against the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The SIM's month.
    pub period: Period,
    /// What was billed in it, headers included.
    pub used: u64,
    /// What it will be at its end at the pace of the last days.
    pub forecast: u64,
    /// Milliseconds of the shared budget used beyond the time that has passed; negative: behind.
    pub ahead: i64,
}

/// The budget's rule.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Bytes a month, when there is a budget.
    pub monthly: Option<u64>,
    /// The steps in their order.
    pub order: Vec<Step>,
    /// Bytes that each packet costs beside its data.
    pub headers: u64,
    renews: u8,
}

impl Budget {
    /// Takes the settings.
    pub fn new(settings: &BudgetSettings) -> Self {
        Self {
            monthly: settings.monthly.as_ref().map(|m| m.bytes().max(1)),
            order: settings.order.to_vec(),
            headers: settings.headers.bytes(),
            renews: u8::try_from(settings.renews.value()).unwrap_or(1),
        }
    }

    /// What it is, to know it again.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let order: Vec<_> = self.order.iter().map(|s| s.word()).collect();
        serde_json::json!({ "monthly": self.monthly, "renews": self.renews, "order": order })
    }

    /// Traffic that is worth a look at the budget before its time, in bytes.
    pub(super) fn alarm(&self) -> u64 {
        self.monthly.map_or(u64::MAX, |monthly| monthly / 200)
    }

    /// Where traffic stands now; `None` when nobody knows what day it is.
    pub(super) fn standing(&self, daybook: &Daybook, now: Timestamp) -> Option<Standing> {
        let today = day_of(now)?;
        let period = Period::of(today, self.renews);
        let used = daybook.sum(period.first, today).billed(self.headers);
        let midnight = |day: Date| i128::from(day.midnight().assume_utc().unix_timestamp()) * 1000;
        let elapsed = i128::from(now.as_millis()) - midnight(period.first);
        let spent = self
            .monthly
            .map_or(elapsed, |budget| i128::from(used) * period.millis() * 100 / SHARED / i128::from(budget));
        let ahead = i64::try_from(spent - elapsed).unwrap_or(i64::MAX);
        // The pace: from the first of the last days that has an entry until now.
        let earliest = today.saturating_sub(time::Duration::days(PACE_DAYS - 1));
        let since = daybook.days.range(earliest..=today).next().map_or(today, |(day, _)| *day);
        let lasted = (i128::from(now.as_millis()) - midnight(since)).max(DAY / 24);
        let recent = i128::from(daybook.sum(since, today).billed(self.headers));
        let left = (period.millis() - elapsed).max(0);
        let forecast = i128::from(used) + recent * left / lasted;
        Some(Standing { period, used, forecast: u64::try_from(forecast).unwrap_or(u64::MAX), ahead })
    }

    /// How many steps to take when `taken` are, and have been for the time `held`.
    pub(super) fn steps(&self, standing: &Standing, taken: usize, held: Duration) -> usize {
        let Some(monthly) = self.monthly else { return 0 };
        let all = self.order.len();
        if i128::from(standing.used) * 100 >= i128::from(monthly) * NEARLY_ALL {
            return all;
        }
        let days = |days: usize| days as i128 * DAY;
        let ahead = i128::from(standing.ahead);
        let reached = (1..=all).rev().find(|k| ahead >= days(*k)).unwrap_or(0);
        let kept = (1..=taken.min(all)).rev().find(|k| ahead >= days(*k - 1)).unwrap_or(0);
        let wanted = reached.max(kept);
        let back = if held >= ONE_DAY { taken.saturating_sub(1) } else { taken };
        wanted.max(back.min(all))
    }

    /// What the first `taken` steps ask of a session.
    pub(super) fn policy(&self, taken: usize) -> Policy {
        let taken = self.order.get(..taken).unwrap_or(&self.order);
        let [batch, compress, defer] = [Step::Batch, Step::Compress, Step::Defer].map(|s| taken.contains(&s));
        let alone = taken.last() == Some(&Step::Batch);
        Policy {
            gather: batch.then_some(if alone { GATHER } else { GATHER_LONG }),
            compress,
            defer,
            quiet: (batch || defer).then_some(QUIET),
        }
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
