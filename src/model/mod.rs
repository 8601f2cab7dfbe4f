//! What everyone talks about: frames, readings, values and times.
//!
//! Invariants: a value never passes through a binary float on its way ([`Decimal`]); a frame is
//! complete when it is made and never changed afterwards. Nothing here reads a clock.
//! Start with [`Frame`].

mod decimal;
mod frame;
mod stamp;
mod timestamp;

pub use decimal::{Decimal, DecimalError};
pub use frame::{
    Body, CodedValue, Decoded, Frame, Interval, Lane, Origin, Quality, Reading, Rssi, Sequence, Stored, Telegram,
    TelegramKind, Value,
};
pub use stamp::{BootId, ClockState, Stamp, TimeQuality};
pub use timestamp::Timestamp;
