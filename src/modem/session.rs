//! One dialogue with a modem that answers, until it breaks off.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::call::Calls;
use super::dialogue::{Answer, Broken, Dialogue, name};
use super::handle::Order;
use super::inbox::Inbox;
use super::inquiry::inquire;
use super::outbox::Outbox;
use super::start::{Form, Found, Start, start};
use super::{Incoming, Modem, ModemError, State, Status};
use crate::wire::modem::{Ending, Fault, Notice};

/// When a SIM that was missing or locked is looked at again.
const LOCKED_PAUSE: Duration = Duration::from_secs(30);
/// A SIM that is too busy for its PIN is left alone longer each time: up to 16 minutes.
const MOST_DOUBLINGS: u32 = 5;
/// An answer to what a person asked; a search for networks takes minutes.
const PASSED_ON: Duration = Duration::from_secs(30);
const NETWORKS: Duration = Duration::from_secs(200);
/// A notice is answered by a look through the storage, but several at once by one.
const TOGETHER: Duration = Duration::from_millis(200);

/// A modem that worked so long works: that it is lost then is news.
pub(super) const STEADY: Duration = Duration::from_mins(10);

/// Why a session ended by itself.
pub(super) enum Over {
    /// No handle is left.
    NobodyAsks,
    /// It is to begin anew: the SIM may be there now.
    Again,
}

/// What a session needs, beside the dialogue.
struct Session<'m> {
    modem: &'m Modem,
    status: &'m mut Status,
    inbox: &'m mut Inbox,
    outbox: Outbox,
    calls: Calls,
    /// When it is time for a look through the storage, and which one.
    look: (Instant, Option<String>),
    inquiry: Instant,
}

/// Starts the modem and serves everybody until the dialogue breaks off.
///
/// # Errors
/// Why it broke off; the port is to be opened again then.
pub(super) async fn serve(
    modem: &Modem,
    dialogue: &mut Dialogue,
    orders: &mut mpsc::Receiver<Order>,
    (status, inbox): (&mut Status, &mut Inbox),
) -> Result<Over, Broken> {
    let before = (status.state, status.fault.clone());
    let begun = start(modem, dialogue, status).await?;
    while let Some(notice) = dialogue.notice() {
        if matches!(notice, Notice::Restarted) {
            return Err(Broken::Restarted);
        }
    }
    status.counters.starts += 1;
    status.state = begun.state();
    let now = Instant::now();
    let (outbox, calls) = (Outbox::default(), Calls::default());
    let mut session = Session { modem, status, inbox, outbox, calls, look: (now, None), inquiry: now };
    match begun {
        Start::Ready(found) => {
            session.status.fault = None;
            let (model, pdu) = (session.status.model.clone(), found.form == Form::Pdu);
            if dialogue.flapping {
                debug!(model, pdu, "the modem is ready, again");
            } else {
                info!(model, pdu, "the modem is ready");
            }
            session.ready(dialogue, &found, orders).await
        }
        Start::Locked(why) => {
            session.status.forget_network();
            session.status.fault = Some(why.clone());
            if before == (State::Locked, Some(why.clone())) {
                debug!(problem = why, "the modem still can't be used");
            } else {
                warn!(problem = why, "the modem can't be used");
            }
            session.locked(dialogue, orders, &why).await
        }
    }
}

/// How long a SIM that can't be used is left alone.
fn locked_pause(busy: u32) -> Duration {
    LOCKED_PAUSE * (1 << busy.saturating_sub(1).min(MOST_DOUBLINGS))
}

impl Session<'_> {
    async fn ready(
        &mut self,
        dialogue: &mut Dialogue,
        found: &Found,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<Over, Broken> {
        let begun = Instant::now();
        loop {
            while let Some(notice) = dialogue.notice() {
                self.notice(dialogue, found, notice).await?;
            }
            if dialogue.flapping && begun.elapsed() >= STEADY {
                dialogue.flapping = false;
                info!("the modem works steadily again");
            }
            self.modem.publish(self.status);
            let due = self.due();
            if due <= Instant::now() {
                self.work(dialogue, found).await?;
                self.status.counters.silences += std::mem::take(&mut dialogue.silences);
                continue;
            }
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.order(dialogue, order).await?,
                    None => return Ok(Over::NobodyAsks),
                },
                heard = dialogue.listen() => heard?,
                () = sleep_until(due) => {}
            }
        }
    }

    async fn locked(
        &mut self,
        dialogue: &mut Dialogue,
        orders: &mut mpsc::Receiver<Order>,
        why: &str,
    ) -> Result<Over, Broken> {
        self.modem.publish(self.status);
        let again = Instant::now() + locked_pause(dialogue.busy);
        loop {
            tokio::select! {
                () = sleep_until(again) => return Ok(Over::Again),
                heard = dialogue.listen() => {
                    heard?;
                    while let Some(notice) = dialogue.notice() {
                        if matches!(notice, Notice::Restarted) {
                            return Ok(Over::Again);
                        }
                    }
                }
                order = orders.recv() => match order {
                    None => return Ok(Over::NobodyAsks),
                    Some(order @ (Order::Command { .. } | Order::Reset { .. })) => self.order(dialogue, order).await?,
                    Some(order) => order.refuse(ModemError::Absent(why.to_owned())),
                },
            }
        }
    }

    fn due(&self) -> Instant {
        let messages = (!self.modem.only_watches).then_some(self.look.0);
        let all = [messages, Some(self.inquiry), self.outbox.due(), self.calls.due()];
        all.into_iter().flatten().min().unwrap_or(self.inquiry)
    }

    /// Does one thing that is due: what others wait for first.
    async fn work(&mut self, dialogue: &mut Dialogue, found: &Found) -> Result<(), Broken> {
        let now = Instant::now();
        if self.calls.due().is_some_and(|due| due <= now) {
            self.missed(dialogue, None).await
        } else if self.outbox.due().is_some_and(|due| due <= now) {
            self.outbox.send(dialogue, found.form, self.modem, self.status).await
        } else if self.look.0 <= now && !self.modem.only_watches {
            let storage = self.look.1.take();
            let about = (self.modem, &mut *self.status);
            self.inbox.collect(dialogue, found, storage.as_deref(), about).await?;
            self.look.0 = Instant::now() + *self.modem.settings.messages_every;
            Ok(())
        } else if self.inquiry <= now {
            inquire(dialogue, found, self.status).await?;
            self.inquiry = Instant::now() + *self.modem.settings.status_every;
            Ok(())
        } else {
            Ok(())
        }
    }

    async fn notice(&mut self, dialogue: &mut Dialogue, found: &Found, notice: Notice) -> Result<(), Broken> {
        let now = Instant::now();
        match notice {
            Notice::Stored { storage, .. } => {
                let usual = found.storage.as_ref().is_none_or(|usual| *usual == storage);
                let plain = storage.len() <= 4 && storage.bytes().all(|c| c.is_ascii_alphanumeric());
                self.look = (now + TOGETHER, (!usual && plain).then_some(storage));
            }
            Notice::Passed { body, .. } => self.inbox.take_passed(&body, found.form, self.modem, self.status),
            Notice::Network(network) => {
                let same = self.status.registration == Some(network.registration.word());
                if !same {
                    debug!(registration = network.registration.word(), "the registration changed");
                    self.inquiry = now;
                }
            }
            Notice::Ring => self.calls.ring(now),
            Notice::Caller(number) => {
                if self.calls.caller(now, number.as_deref()) {
                    self.missed(dialogue, number).await?;
                }
            }
            Notice::HungUp => {
                if self.calls.over() {
                    self.tell_call(None);
                }
            }
            Notice::Restarted => return Err(Broken::Restarted),
            Notice::Sim(_) => {}
        }
        Ok(())
    }

    /// A call whose number is known, or hidden.
    async fn missed(&mut self, dialogue: &mut Dialogue, number: Option<String>) -> Result<(), Broken> {
        self.calls.caller(Instant::now(), number.as_deref());
        if self.modem.only_watches {
            return Ok(());
        }
        self.tell_call(number);
        // ATH alone leaves a ringing call alone with some modems.
        if self.modem.settings.hang_up && !dialogue.ask("AT+CHUP").await?.is_ok() {
            dialogue.ask("ATH").await?;
        }
        Ok(())
    }

    fn tell_call(&mut self, number: Option<String>) {
        if self.modem.only_watches {
            return;
        }
        let from = number.map(|number| number.chars().filter(|c| !c.is_control()).take(40).collect());
        let call = Incoming::Call { from, at: self.modem.clock.now() };
        self.status.counters.calls += 1;
        if self.modem.incoming.try_send(call).is_err() {
            self.status.counters.calls_lost += 1;
            debug!(lost = self.status.counters.calls_lost, "nobody takes calls just now; one is lost");
        }
    }

    async fn order(&mut self, dialogue: &mut Dialogue, order: Order) -> Result<(), Broken> {
        match order {
            Order::Send { number, text, answer } => {
                self.outbox.push(&number, &text, answer);
                Ok(())
            }
            Order::Command { text, answer } => {
                let limit = if text.ends_with("=?") { NETWORKS } else { PASSED_ON };
                let passed = dialogue.ask_within(&text, limit).await;
                let (told, broken) = split(&text, passed);
                let _ = answer.send(told.map(|answer| lines(&answer)));
                broken
            }
            Order::Reregister { answer } => {
                info!("the modem is told to look for its network anew");
                self.inquiry = Instant::now() + Duration::from_secs(2);
                let (told, broken) = reregister(dialogue).await;
                let _ = answer.send(told);
                broken
            }
            Order::Reset { answer } => {
                info!("the modem is told to start anew");
                let asked = dialogue.ask_within("AT+CFUN=1,1", Duration::from_secs(15)).await;
                let (told, broken) = split("AT+CFUN=1,1", asked);
                let told = told.and_then(|answer| accepted("AT+CFUN", &answer));
                let done = told.is_ok();
                let _ = answer.send(told);
                broken?;
                if done { Err(Broken::Reset) } else { Ok(()) }
            }
        }
    }
}

/// What is told to who asked, and whether the dialogue goes on.
fn split(command: &str, asked: Result<Answer, Broken>) -> (Result<Answer, ModemError>, Result<(), Broken>) {
    match asked {
        Ok(answer) => (Ok(answer), Ok(())),
        Err(broken) => (Err(ModemError::Silent(name(command).to_owned())), Err(broken)),
    }
}

fn accepted(command: &str, answer: &Answer) -> Result<(), ModemError> {
    let refused = |fault: &Fault| ModemError::Refused { command: command.to_owned(), reason: fault.to_string() };
    answer.fault().map_or(Ok(()), |fault| Err(refused(fault)))
}

/// Leaves the network and looks for it again; by the radio switch when the modem can't otherwise.
async fn reregister(dialogue: &mut Dialogue) -> (Result<(), ModemError>, Result<(), Broken>) {
    let mut last = Ok(());
    for (leave, come) in [("AT+COPS=2", "AT+COPS=0"), ("AT+CFUN=4", "AT+CFUN=1")] {
        for (at, command) in [leave, come].into_iter().enumerate() {
            let (told, broken) = split(command, dialogue.ask_within(command, NETWORKS).await);
            last = told.and_then(|answer| accepted(command, &answer));
            if broken.is_err() {
                return (last, broken);
            }
            if last.is_err() && at == 0 {
                break;
            }
        }
        if last.is_ok() {
            break;
        }
    }
    (last, Ok(()))
}

/// The lines of an answer, its end too.
fn lines(answer: &Answer) -> Vec<String> {
    let end = match &answer.end {
        Ending::Ok => "OK".to_owned(),
        Ending::Refused(fault) => fault.to_string(),
    };
    answer.lines.iter().cloned().chain([end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_sim_is_left_alone_longer_each_time_and_any_other_as_long_as_ever() {
        let pauses: Vec<_> = [0, 1, 2, 3, 6, 7, u32::MAX].map(|busy| locked_pause(busy).as_secs()).into();
        assert_eq!(pauses, [30, 30, 60, 120, 960, 960, 960]);
    }
}
