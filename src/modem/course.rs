//! The modem over the time: found, spoken to, lost, found again.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, info, warn};

use super::dialogue::{Broken, Dialogue};
use super::handle::Order;
use super::inbox::Inbox;
use super::manager::{self, Claim};
use super::session::{Over, STEADY, serve};
use super::{Manager, Modem, ModemError, State, Status};
use crate::os::arrival::Arrival;
use crate::os::line::{Direction, Endpoint, Framing, Line, LineError, Speed};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest for a SIM that is too busy for its PIN: each trial of it is written down twice.
const LONGEST_BUSY: Duration = Duration::from_mins(16);
/// A device that has just come gets its link and its rights in this time.
const SETTLE: Duration = Duration::from_millis(200);

/// Speaks to the modem until no handle is left.
pub(super) async fn follow(modem: &Modem, orders: &mut mpsc::Receiver<Order>) {
    let mut status = modem.status.borrow().clone();
    let mut inbox = Inbox::new(*modem.settings.parts_for);
    // Since when ModemManager runs without having the modem.
    let mut since: Option<Instant> = None;
    let mut trouble = Trouble { pause: FIRST_PAUSE, last: String::new(), losses: 0 };
    loop {
        let claim = match modem.settings.manager {
            Manager::None => Claim::None,
            Manager::ModemManager => Claim::Owned,
            Manager::Auto => manager::claim(modem).await,
        };
        let waits =
            claim == Claim::NotYet && since.get_or_insert_with(Instant::now).elapsed() < *modem.settings.manager_wait;
        let (managed, begun) = (claim == Claim::Owned, Instant::now());
        let over = match &modem.endpoint {
            // It tries the ports of a new modem for half a minute; whoever else opens them meanwhile spoils that.
            _ if waits => Err((State::Absent, "ModemManager runs and may still be looking for the modem".to_owned())),
            Some(endpoint) if !managed => {
                at_port(modem, endpoint, orders, (&mut status, &mut inbox), trouble.losses > 0).await
            }
            _ if managed => manager::serve(modem, orders, &mut status).await.map_err(|why| (State::Absent, why)),
            _ => Err((State::Absent, ModemError::NoDevice.to_string())),
        };
        let why = match over {
            Ok(Over::NobodyAsks) => return,
            Ok(Over::Again) => {
                trouble.last.clear();
                continue;
            }
            Err(why) => why,
        };
        if status.state == State::Ready {
            since = None;
        }
        trouble.note(modem, &mut status, why, begun.elapsed() >= STEADY);
        if !trouble.wait(modem, orders, managed).await {
            return;
        }
    }
}

/// Opens the port and speaks to what is there until it breaks off.
async fn at_port(
    modem: &Modem,
    endpoint: &Endpoint,
    orders: &mut mpsc::Receiver<Order>,
    (status, inbox): (&mut Status, &mut Inbox),
    flapping: bool,
) -> Result<Over, (State, String)> {
    let speed = Speed { baud: modem.settings.baud.value(), framing: Framing::EIGHT_N_ONE };
    let line =
        Line::open(endpoint, speed, Direction::Automatic).await.map_err(|error| (State::Absent, error.to_string()))?;
    status.by = "weir";
    let mut dialogue = Dialogue::new(line);
    dialogue.flapping = flapping;
    loop {
        match serve(modem, &mut dialogue, orders, (status, inbox)).await {
            Ok(Over::Again) => {}
            Ok(over) => return Ok(over),
            Err(Broken::Line(LineError::Gone)) => return Err((State::Absent, "the modem was unplugged".to_owned())),
            Err(broken) => return Err((State::Silent, broken.to_string())),
        }
    }
}

/// What went wrong, told once, and the pause before the next attempt.
struct Trouble {
    pause: Duration,
    last: String,
    /// How often a modem that worked was lost soon after.
    losses: u64,
}

impl Trouble {
    fn note(&mut self, modem: &Modem, status: &mut Status, (state, why): (State, String), steady: bool) {
        let worked = status.state == State::Ready;
        if worked && steady {
            (self.pause, self.losses) = (FIRST_PAUSE, 0);
        }
        self.losses += u64::from(worked);
        // One that comes and goes is told once, then counted, whatever it is lost by.
        if worked && self.losses > 1 || !worked && self.losses > 0 && state != State::Absent {
            debug!(problem = why, losses = self.losses, "the modem is lost again");
        } else if why == self.last && !worked {
            debug!(problem = why, "the modem still can't be used");
        } else if worked {
            warn!(problem = why, "the modem is lost; it is looked for again");
        } else if state == State::Absent {
            error!(
                problem = why,
                "the modem can't be used; there are no messages and no state of it until it is there"
            );
        } else {
            warn!(problem = why, "the modem can't be used");
        }
        self.last.clone_from(&why);
        status.state = state;
        status.fault = Some(why);
        status.forget_network();
        modem.publish(status);
    }

    /// The pause that is due; the one after it is longer.
    fn next(&mut self) -> Duration {
        let longest = if self.last == manager::BUSY { LONGEST_BUSY } else { LONGEST_PAUSE };
        let pause = self.pause.min(longest);
        self.pause = (pause * 2).min(longest);
        pause
    }

    /// Waits for the next attempt, or for the device; false when no handle is left.
    async fn wait(&mut self, modem: &Modem, orders: &mut mpsc::Receiver<Order>, managed: bool) -> bool {
        let due = Instant::now() + self.next();
        let mut arrival = match &modem.endpoint {
            Some(Endpoint::Device(path)) if !managed && !path.exists() => Arrival::of(path).ok(),
            _ => None,
        };
        loop {
            let came = async {
                match &mut arrival {
                    Some(arrival) => arrival.come().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(due) => return true,
                () = came => {
                    info!("something came where the modem was");
                    self.pause = FIRST_PAUSE;
                    sleep(SETTLE).await;
                    return true;
                }
                order = orders.recv() => match order {
                    Some(order) => order.refuse(ModemError::Absent(self.last.clone())),
                    None => return false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sim_that_modemmanager_finds_busy_is_left_alone_longer_than_anything_else() {
        let mut trouble = Trouble { pause: FIRST_PAUSE, last: manager::BUSY.to_owned(), losses: 0 };
        let pauses: Vec<_> = (0..12).map(|_| trouble.next().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 960, 960]);
        trouble.last = "gone".to_owned();
        assert_eq!([trouble.next(), trouble.next()], [LONGEST_PAUSE; 2]);
    }
}
