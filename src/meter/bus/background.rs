//! Work for the time in which nobody else wants the line, such as reading load profiles back.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::meter::{MeterError, Session};
use crate::os::line::Line;

/// The end of a piece of work; it was counted and logged by whoever did it.
pub type Worked<'a> = Pin<Box<dyn Future<Output = Result<(), MeterError>> + Send + 'a>>;

/// Somebody who fills the gaps between readings, piece by piece. The bus asks only when no reading
/// is due and nobody asked for one.
pub trait Background: Send {
    /// How long there is surely nothing to do.
    fn idle(&self) -> Duration;

    /// The name of the meter that the next piece is about, when there is one that may begin now;
    /// `time_left` is the time until the line is needed for a reading. [`work`](Self::work) follows
    /// at once, unless the port can't be opened or has no such meter.
    fn next(&mut self, time_left: Duration) -> Option<String>;

    /// Does that piece; the line has the meter's speed, and is put right by the bus afterwards.
    fn work<'a>(&'a mut self, session: &'a mut dyn Session, line: &'a mut Line) -> Worked<'a>;
}
