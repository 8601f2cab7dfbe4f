//! What others ask of a session beside its bytes: another speed, the line for a command; and commands from the line itself.

use tokio::time::Instant;

use super::super::pipe::MOST;
use super::super::{NO_CALLS, Order, PATIENCE};
use super::Desk;
use crate::os::line::{Line, Speed};

impl Desk {
    /// Whether somebody wants the line for a command.
    pub(in crate::tunnel) const fn is_asked(&self) -> bool {
        self.wanted.is_some()
    }

    /// When the line is given away for a command: between two frames, where the line is quiet at `free`; at last in any case.
    pub(in crate::tunnel) fn yields_to_command(&self, quiet: bool, free: Instant) -> Option<Instant> {
        let at_last = self.wanted.as_ref().map(|(_, since)| *since + PATIENCE)?;
        Some(if quiet { free.min(at_last) } else { at_last })
    }

    /// Who does not wait for the line any more does not get it.
    pub(in crate::tunnel) fn forget_who_gave_up(&mut self) {
        self.wanted.iter_mut().for_each(|(replies, _)| replies.retain(|reply| !reply.is_closed()));
        self.wanted = self.wanted.take().filter(|(replies, _)| !replies.is_empty());
    }

    /// Tells whoever wants the line that it is given away.
    pub(in crate::tunnel) fn give_way(&mut self) {
        for reply in self.wanted.take().into_iter().flat_map(|(replies, _)| replies) {
            // Nobody waits any more: that is their affair.
            let _ = reply.send(Ok(()));
        }
    }

    /// What was on its way to the line is dropped: it would be written late.
    pub(in crate::tunnel) fn forget_under_way(&mut self) {
        let lost = self.pipe.to_line.len() + self.unheard.len();
        self.pipe.to_line.clear();
        self.unheard.clear();
        if lost > 0 {
            self.health.dropped_request();
            tracing::debug!(bytes = lost, "a request was on its way when the line was taken back; it is dropped");
        }
    }

    /// Does what was ordered; without a line a speed is for the next time with it.
    pub(in crate::tunnel) fn obey(&mut self, order: Order, line: Option<&mut Line>) {
        match order {
            Order::Speed(speed, reply) => {
                let done = line.map_or(Ok(()), |line| line.set_speed(speed).map_err(|error| error.to_string()));
                if done.is_ok() {
                    (self.ordered, self.chosen) = (Some(speed), None);
                }
                // Nobody waits any more: that is their affair.
                let _ = reply.send(done);
            }
            Order::Yield(reply) if line.is_none() => drop(reply.send(Ok(()))),
            Order::Yield(reply) => self.wanted.get_or_insert_with(|| (Vec::new(), Instant::now())).0.push(reply),
            Order::CallBack { reply, .. } => {
                self.health.change(|status| status.refused += 1);
                let _ = reply.send(Err(if self.terms.calls {
                    format!("the tunnel is busy with {}; order again when that has ended", self.name)
                } else {
                    NO_CALLS.to_owned()
                }));
            }
        }
    }

    /// Takes what is no command of what came from the line; when to look again.
    pub(super) fn hear_tagged(&mut self, speed: Speed) -> Option<Instant> {
        let tagged = self.tagged.as_mut()?;
        let gap = self.terms.gather.max(speed.time_of(7) / 2);
        let (bytes, last) = tagged.take(MOST, gap);
        if !bytes.is_empty() {
            self.fresh = Some((self.fresh.map_or(last, |(first, _)| first), last));
            self.data.extend(bytes);
        }
        tagged.due(gap)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot, watch};

    use super::*;
    use crate::tunnel::Health;
    use crate::tunnel::terms::Terms;

    fn desk(health: &Health) -> Desk {
        let terms = Terms {
            gather: Duration::from_millis(20),
            largest: 4096,
            max_age: Duration::from_secs(10),
            hold: None,
            idle: None,
            flush: true,
            rfc2217: false,
            remove_echo: false,
            calls: false,
        };
        Desk::new(terms, mpsc::channel(1).1, health.clone(), watch::channel(0).1)
    }

    #[test]
    fn what_was_on_its_way_when_the_line_was_taken_back_is_dropped_and_counted() {
        let health = Health::new();
        let mut desk = desk(&health);
        desk.forget_under_way();
        assert_eq!(health.status().dropped_requests, 0);
        desk.pipe.to_line.extend_from_slice(b"half a requ");
        desk.forget_under_way();
        assert_eq!((desk.pipe.to_line.len(), health.status().dropped_requests), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_gets_the_line_between_two_frames_and_at_last_in_any_case() {
        let mut desk = desk(&Health::new());
        let now = Instant::now();
        let free = now + Duration::from_millis(20);
        assert_eq!(desk.yields_to_command(true, free), None, "nobody wants it");
        let (reply, mut told) = oneshot::channel();
        desk.wanted = Some((vec![reply], now));
        assert_eq!(desk.yields_to_command(true, free), Some(free));
        assert_eq!(desk.yields_to_command(false, free), Some(now + PATIENCE), "a frame is under way");
        desk.forget_who_gave_up();
        desk.give_way();
        assert_eq!(told.try_recv(), Ok(Ok(())));
        let (reply, gone) = oneshot::channel();
        desk.wanted = Some((vec![reply], now));
        drop(gone);
        desk.forget_who_gave_up();
        assert!(!desk.is_asked(), "who gave up does not get it");
    }
}
