//! Time that waits for this process: what a busy machine takes away from it is nobody's silence.

use std::time::Duration;

/// Lets the paused time of `#[tokio::test(start_paused = true)]` go on with the real one, but never more
/// than some milliseconds at once, and only when the runtime has nothing left to do.
///
/// So a time limit runs out because the other side is silent, never because this process, which is
/// often both sides, was not given the processor. It is never faster than the real time that other
/// processes have.
#[expect(clippy::disallowed_methods, reason = "the real time is what it goes by")]
pub(crate) fn hold() {
    const LEAST: Duration = Duration::from_millis(1);
    const MOST: Duration = Duration::from_millis(20);
    tokio::spawn(async {
        let (mut before, mut owed) = (std::time::Instant::now(), Duration::ZERO);
        loop {
            std::thread::sleep(LEAST);
            let now = std::time::Instant::now();
            owed += (now - before).min(MOST);
            before = now;
            // The runtime counts in whole milliseconds and rounds up.
            let whole = LEAST * u32::try_from(owed.as_millis()).unwrap_or_default();
            owed -= whole;
            tokio::time::sleep(whole).await;
        }
    });
}
