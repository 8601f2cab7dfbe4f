//! Values of earlier lists of the same meter.
//!
//! Customer interfaces send a short list every few seconds and the registers once an hour. A reading has what
//! the newest list says, and what earlier lists said of other objects; those with the meter's own time of
//! that list (`id#time`), for they were read then.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Quality, Value};

/// How long a value of an earlier list is told: the slowest lists come every hour.
const LASTS: Duration = Duration::from_secs(2 * 3600);
/// The most values that are remembered.
const MOST: usize = 256;

/// What earlier lists said.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    values: Vec<(Instant, Value, String)>,
}

impl Earlier {
    /// Adds to the values of a new list what earlier ones said; remembers the new ones when their time is known.
    pub(super) fn complete(&mut self, values: &mut Vec<Value>, time: Option<&str>, now: Instant) {
        let new = |value: &Value| values.iter().any(|v| v.name == value.name);
        self.values.retain(|(heard, value, _)| now.duration_since(*heard) < LASTS && !new(value));
        let carried = self.values.iter().flat_map(|(_, value, time)| {
            let name = format!("{}#time", value.name);
            [value.clone(), Value { name, value: Some(time.clone()), unit: String::new(), quality: Quality::Good }]
        });
        let carried: Vec<_> = carried.collect();
        if let Some(time) = time {
            let room = MOST.saturating_sub(self.values.len());
            self.values.extend(values.iter().take(room).map(|value| (now, value.clone(), time.to_owned())));
        }
        values.extend(carried);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, text: &str) -> Value {
        Value { name: name.into(), value: Some(text.into()), unit: String::new(), quality: Quality::Good }
    }

    fn names(values: &[Value]) -> Vec<(&str, &str)> {
        values.iter().map(|v| (v.name.as_str(), v.value.as_deref().unwrap())).collect()
    }

    #[test]
    fn a_value_of_an_earlier_list_comes_with_its_time_until_it_is_old() {
        let mut earlier = Earlier::default();
        let start = Instant::now();
        let mut hourly = vec![value("energy", "7"), value("power", "1")];
        earlier.complete(&mut hourly, Some("12:00"), start);
        assert_eq!(names(&hourly), [("energy", "7"), ("power", "1")]);
        let mut short = vec![value("power", "2")];
        earlier.complete(&mut short, None, start + Duration::from_secs(60));
        assert_eq!(names(&short), [("power", "2"), ("energy", "7"), ("energy#time", "12:00")]);
        let mut short = vec![value("power", "3")];
        earlier.complete(&mut short, None, start + LASTS);
        assert_eq!(names(&short), [("power", "3")]);
    }
}
