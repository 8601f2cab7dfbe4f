//! What time it is: the one place that asks.

use std::time::SystemTime;

use crate::model::Timestamp;

/// Reads the wall clock.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the place the rule points to")]
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}
