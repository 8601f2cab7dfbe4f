//! A sign of life for a person who waits.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// What is over sooner needs no sign.
const SOON: Duration = Duration::from_secs(2);

/// Does the work; on a terminal it tells after two seconds what takes so long, and for how long already.
pub(super) async fn told<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut out = std::io::stderr();
    if !out.is_terminal() {
        return work.await;
    }
    let (mut work, began) = (std::pin::pin!(work), Instant::now());
    let mut pause = SOON;
    loop {
        tokio::select! {
            done = &mut work => {
                if pause < SOON {
                    let _ = write!(out, "\r\x1b[K");
                }
                return done;
            }
            () = sleep(pause) => {
                pause = Duration::from_secs(1);
                let _ = write!(out, "\r\x1b[K{what} ... {} s", began.elapsed().as_secs());
                let _ = out.flush();
            }
        }
    }
}
