//! A timer that rings on time: tokio's own counts in whole milliseconds, which at 115,200 bits
//! per second is a dozen characters.

use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until};

/// A timer of the kernel's, exact to some ten microseconds.
#[derive(Debug)]
pub struct Alarm {
    /// To the runtime a timer is one more file that becomes readable.
    timer: Option<Receiver>,
}

impl Alarm {
    /// Makes a timer; where the kernel has none left, waits are exact to a millisecond. Must be
    /// called inside a tokio runtime.
    pub fn new() -> Self {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).ok();
        Self { timer: timer.and_then(|fd| Receiver::from_owned_fd_unchecked(fd).ok()) }
    }

    /// Returns at `moment`, never before it.
    pub async fn until(&mut self, moment: Instant) {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let rang = match &mut self.timer {
            Some(timer) => ring(timer, left).await,
            None => Err(io::Error::other("no timer")),
        };
        if rang.is_err() || Instant::now() < moment {
            sleep_until(moment).await;
        }
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets the timer, whatever it was set to before, and waits for it.
async fn ring(timer: &mut Receiver, after: Duration) -> io::Result<()> {
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    let it_value = Timespec {
        tv_sec: after.as_secs().try_into().map_err(io::Error::other)?,
        tv_nsec: after.subsec_nanos().into(),
    };
    timerfd_settime(&*timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: none, it_value })?;
    // Setting it anew has emptied it: this is the ring of this wait.
    timer.read_u64().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_moment_and_not_before() {
        let mut alarm = Alarm::new();
        let mut late: Vec<Duration> = Vec::new();
        for micros in [0, 100, 300, 1750, 20, 2500] {
            let moment = Instant::now() + Duration::from_micros(micros);
            alarm.until(moment).await;
            late.push(Instant::now().checked_duration_since(moment).unwrap());
        }
        assert!(late.iter().min().unwrap() < &Duration::from_millis(1), "{late:?}");
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_ring_into_the_next() {
        let mut alarm = Alarm::new();
        let soon = Instant::now() + Duration::from_millis(50);
        let given_up = tokio::time::timeout(Duration::ZERO, alarm.until(soon)).await;
        assert!(given_up.is_err());
        std::thread::sleep(Duration::from_millis(60));
        let moment = Instant::now() + Duration::from_millis(3);
        alarm.until(moment).await;
        assert!(Instant::now() >= moment);
    }
}
