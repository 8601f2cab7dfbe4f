//! Wired M-Bus (EN 13757-2 and -3): asks slaves for their user data, all telegrams of it.
//!
//! A read starts from a known state, so that no telegram is lost or taken twice: SND_NKE (primary)
//! or a selection (secondary) resets the slave's frame count bit; each telegram is asked for with
//! the toggled bit, a repetition with the same one. When the slave does not confirm SND_NKE, the
//! bit goes on from the last answered request. Where it may then send again what it sent before (its
//! last answer was lost, or it did reset its bit), all telegrams up to the last one are read first and
//! given to nobody: they may be as old as the last reading. An answer counts only when its address (primary) or
//! its header (secondary) is the meter's, and all telegrams of a read must come from one meter.
//!
//! Values are named as `docs/adding-a-meter.md` says. A read with a telegram missing fails as a
//! whole. Keys are not supported: an encrypted answer is refused with a sentence.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{Driver, MeterError, MeterSettings, Protocol, Reply, Session};
use crate::model::{Quality, Value};
use crate::os::line::{Line, Speed};
use crate::setting::Problems;
use crate::wire::mbus::{
    Answer, BAUD_SWITCH, CI_APPLICATION_RESET, FCB, Frame, POINT_TO_POINT, REQ_UD2, SELECTED, SND_NKE, SND_UD,
    Telegram, answer,
};
use crate::wire::wmbus::Meter;

mod address;
mod link;
mod search;
mod values;

pub use address::Secondary;
pub use search::{Found, Progress, identify, search};

use address::Target;
use link::{Link, Verdict};

/// The row of this protocol in the table of protocols.
pub const ROW: Protocol = Protocol { name: "m-bus", driver: Driver::Asks(session), check };

/// After a change of rate a slave needs a moment before it listens.
const BAUD_PAUSE: Duration = Duration::from_millis(50);

fn session(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    Ok(Box::new(Master {
        link: Link::new(settings.name.to_string(), settings.timeout, settings.pause),
        target: address::target(settings)?,
        retries: settings.retries.value(),
        application_reset: settings.application_reset.map(|code| u8::try_from(code.value()).unwrap_or(0)),
        baud: settings.switch_baud.map(|baud| baud.value()),
        telegram_limit: usize::try_from(settings.max_telegrams.value()).unwrap_or(1),
        wanted: settings.values.clone(),
        next_fcb: FCB,
        in_doubt: true,
        known: settings.values.iter().map(|name| (name.clone(), String::new())).collect(),
    }))
}

/// Says everything in a meter's settings that can't work with this protocol.
pub fn check(settings: &MeterSettings, problems: &mut Problems) {
    if let (Some(at), Err(fault)) = (&settings.address, address::target(settings)) {
        problems.error(at.span(), format!("address: {fault}"));
    }
    let whole = settings.protocol.span();
    for (number, name) in settings.values.iter().enumerate() {
        if settings.values.iter().take(number).any(|earlier| earlier == name) {
            problems.error(whole.clone(), format!("values has \"{name}\" twice; keep one"));
        }
    }
    if let Some(baud) = settings.switch_baud
        && baud_switch(baud.value()).is_none()
    {
        let rates = BAUD_SWITCH.iter().map(|(rate, _)| rate.to_string()).collect::<Vec<_>>().join(", ");
        problems.error(whole, format!("switch_baud is {}, but M-Bus knows {rates}", baud.value()));
    }
}

fn baud_switch(baud: u32) -> Option<u8> {
    BAUD_SWITCH.iter().find(|(rate, _)| *rate == baud).map(|(_, ci)| *ci)
}

/// The session with one slave.
struct Master {
    link: Link,
    target: Target,
    retries: u32,
    application_reset: Option<u8>,
    baud: Option<u32>,
    telegram_limit: usize,
    wanted: Vec<String>,
    /// The frame count bit of the next request that is no repetition.
    next_fcb: u8,
    /// It is not known which frame count bit the slave heard last: it may take the next request for a repetition.
    in_doubt: bool,
    /// Names and units of the last reading, for readings that fail.
    known: Vec<(String, String)>,
}

fn acknowledged(frame: Frame) -> Verdict<()> {
    match frame {
        Frame::Acknowledge => Verdict::Answer(()),
        _ => Verdict::Other("a frame came where E5 was expected"),
    }
}

impl Master {
    async fn read_all(&mut self, line: &mut Line) -> Result<Vec<Value>, MeterError> {
        self.link.begin(line).await?;
        let port = line.speed();
        let telegrams = match self.baud.filter(|baud| *baud != port.baud) {
            None => self.telegrams(line).await,
            Some(baud) => {
                let fast = Speed { baud, ..port };
                self.change_rate(line, port, fast).await?;
                let result = self.telegrams(line).await;
                // Best effort: a slave goes back by itself when it is left alone.
                let back = self.change_rate(line, fast, port).await;
                debug!(?back, "the meter's rate was changed back");
                line.set_speed(port)?;
                result
            }
        };
        let values = values::values(&telegrams?, &self.wanted);
        self.known = values.iter().map(|v| (v.name.clone(), v.unit.clone())).collect();
        Ok(values)
    }

    /// Tells the slave to change its rate and follows it; a slave that hears nothing at the old
    /// rate may already be at the new one.
    async fn change_rate(&mut self, line: &mut Line, from: Speed, to: Speed) -> Result<(), MeterError> {
        let Some(ci) = baud_switch(to.baud) else { return line.set_speed(to).map_err(MeterError::from) };
        line.set_speed(from)?;
        let told = match self.reach(line).await {
            Ok(address) => {
                let request = Frame::Long { control: SND_UD | self.next_fcb, address, ci, data: Vec::new() };
                self.link.ask(line, &request, self.retries, acknowledged).await
            }
            Err(error) => Err(error),
        };
        match told {
            Err(error) if error.must_reopen() => return Err(error),
            Err(error) => {
                self.in_doubt = true;
                debug!(%error, to = to.baud, "the change of rate was not confirmed");
            }
            Ok(()) => self.next_fcb ^= FCB,
        }
        line.set_speed(to)?;
        tokio::time::sleep(BAUD_PAUSE).await;
        Ok(())
    }

    /// Brings the slave's link layer into its first state and gives the address that reaches it.
    async fn reach(&mut self, line: &mut Line) -> Result<u8, MeterError> {
        match &self.target {
            Target::Secondary(secondary) => {
                self.link.ask(line, &secondary.select(), self.retries, acknowledged).await?;
                (self.next_fcb, self.in_doubt) = (FCB, false);
                Ok(SELECTED)
            }
            Target::Primary(address) => {
                let address = *address;
                let reset = Frame::Short { control: SND_NKE, address };
                match self.link.ask(line, &reset, 0, acknowledged).await {
                    Ok(()) => (self.next_fcb, self.in_doubt) = (FCB, false),
                    Err(error) if error.must_reopen() => return Err(error),
                    Err(error) => {
                        debug!(%error, address, "SND_NKE was not confirmed; the frame count goes on");
                        // A slave that did hear it takes a request without the bit for a repetition.
                        self.in_doubt |= self.next_fcb != FCB;
                    }
                }
                Ok(address)
            }
        }
    }

    async fn telegrams(&mut self, line: &mut Line) -> Result<Vec<Telegram>, MeterError> {
        let address = self.reach(line).await?;
        let stale = if self.in_doubt { self.let_pass(line, address).await? } else { Vec::new() };
        if let Some(code) = self.application_reset {
            let (control, ci) = (SND_UD | self.next_fcb, CI_APPLICATION_RESET);
            let request = Frame::Long { control, address, ci, data: vec![code] };
            self.in_doubt = true;
            self.link.ask(line, &request, self.retries, acknowledged).await?;
            self.in_doubt = false;
            self.next_fcb ^= FCB;
        }
        let mut telegrams: Vec<Telegram> = Vec::new();
        let mut seen: Vec<Frame> = Vec::new();
        while telegrams.len() < self.telegram_limit {
            let meter = telegrams.first().and_then(|first| first.header).map(|header| header.meter);
            let earlier = if telegrams.is_empty() { &stale } else { &seen };
            let (frame, telegram) = self.request(line, address, meter, earlier).await?;
            let more = telegram.more;
            telegrams.push(telegram);
            seen.push(frame);
            if !more {
                break;
            }
        }
        if address == SELECTED && matches!(self.target, Target::Secondary(_)) {
            let deselect = Frame::Short { control: SND_NKE, address };
            match self.link.ask(line, &deselect, 0, acknowledged).await {
                Err(error) if error.must_reopen() => return Err(error),
                result => debug!(?result, "the meter was deselected"),
            }
        }
        Ok(telegrams)
    }

    /// Reads telegrams up to the last one for nobody: after an answer the slave's frame count bit is known, and
    /// after its last telegram it begins anew. Gives what can't be the first telegram of the reading: all but the first
    /// one, of which a copy may still come late.
    async fn let_pass(&mut self, line: &mut Line, address: u8) -> Result<Vec<Frame>, MeterError> {
        debug!(address, "what the slave may repeat from before is let pass");
        let mut passed: Vec<Frame> = Vec::new();
        for _ in 0..self.telegram_limit {
            let (frame, telegram) = self.request(line, address, None, &passed).await?;
            passed.push(frame);
            if !telegram.more {
                break;
            }
        }
        let first = passed.first().cloned();
        passed.retain(|frame| Some(frame) != first.as_ref());
        // A second copy of it must not be taken for the first telegram of the reading.
        self.link.begin(line).await?;
        Ok(passed)
    }

    /// Asks for the telegram after those that were seen.
    async fn request(
        &mut self,
        line: &mut Line,
        address: u8,
        meter: Option<Meter>,
        seen: &[Frame],
    ) -> Result<(Frame, Telegram), MeterError> {
        let request = Frame::Short { control: REQ_UD2 | self.next_fcb, address };
        let (mut repeats, mut empty) = (false, false);
        let target = &self.target;
        let judge = |frame: Frame| {
            if seen.contains(&frame) {
                // A second copy, or the meter does not heed the frame count bit.
                repeats = true;
                return Verdict::Other("an earlier telegram came again");
            }
            empty |= frame == Frame::Acknowledge;
            judge(target, meter, frame)
        };
        // Noted before the first await, so that a reading that is dropped leaves it noted.
        self.in_doubt = true;
        let result = self.link.ask(line, &request, self.retries, judge).await;
        match result {
            Ok(found) => {
                self.next_fcb ^= FCB;
                self.in_doubt = false;
                Ok(found)
            }
            Err(error) if error.must_reopen() => Err(error),
            Err(_) if repeats => {
                let text = "it sends a telegram again instead of the next one; if it always does, set max_telegrams";
                Err(MeterError::Damaged(text.to_owned()))
            }
            Err(MeterError::Damaged(_)) if empty => Err(MeterError::Refused("it has no data (E5)".to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// Whether a frame is the answer of the meter that was asked; `meter` is who sent the telegrams before.
fn judge(target: &Target, meter: Option<Meter>, frame: Frame) -> Verdict<(Frame, Telegram)> {
    let Frame::Long { address, .. } = &frame else { return Verdict::Other("E5 came where data was expected") };
    if let Target::Primary(own) = target
        && !matches!(*own, SELECTED | POINT_TO_POINT)
        && own != address
    {
        return Verdict::Other("an answer of another address came");
    }
    let (answer, header) = match answer::decode(&frame) {
        Ok(Answer::Telegram(telegram)) => {
            let header = telegram.header;
            (Ok(telegram), header)
        }
        Ok(Answer::Encrypted(header)) => {
            let mode = header.security_mode();
            let text = format!(
                "its answer is encrypted (mode {mode}); weir has no keys for wired M-Bus, so read it unencrypted"
            );
            (Err(MeterError::Refused(text)), Some(header))
        }
        Ok(Answer::Refused(why)) => return Verdict::Wrong(MeterError::Refused(why)),
        Err(error) => return Verdict::Wrong(MeterError::Damaged(error.to_string())),
    };
    let sender = header.map(|header| header.meter);
    let meant = match (target, sender) {
        (Target::Secondary(secondary), Some(sender)) => secondary.matches(&sender),
        (Target::Secondary(_), None) => false,
        (Target::Primary(_), _) => true,
    };
    if !meant || meter.is_some_and(|meter| sender.is_some_and(|sender| sender != meter)) {
        return Verdict::Other("an answer of another meter came");
    }
    match answer {
        Ok(telegram) => Verdict::Answer((frame, telegram)),
        Err(error) => Verdict::Wrong(error),
    }
}

impl Session for Master {
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(self.read_all(line))
    }

    /// The wanted names; without any, what the last reading had.
    fn absent(&self, quality: Quality) -> Vec<Value> {
        let null =
            |(name, unit): &(String, String)| Value { name: name.clone(), value: None, unit: unit.clone(), quality };
        self.known.iter().map(null).collect()
    }

    fn late_until(&self) -> Option<Instant> {
        self.link.late_until()
    }
}

#[cfg(test)]
mod tests {
    fn checked(toml: &str) -> Vec<String> {
        crate::meter::settings::checked("m-bus", toml)
    }

    #[test]
    fn settings_that_can_not_work_are_named() {
        for good in [
            "address = 0",
            "address = 254",
            "address = \"12345678.LUG.04.07\"\nvalues = [\"energy[1]\"]\nswitch_baud = 9600",
        ] {
            assert_eq!(checked(good), Vec::<String>::new());
        }
        assert!(checked("address = 251")[0].contains("251 is no M-Bus address"));
        assert!(checked("address = \"1234\"")[0].contains("no secondary address"));
        assert!(checked("switch_baud = 1000")[0].contains("M-Bus knows 300"));
        let found = checked("profile = \"x\"\nvalues = [\"a\", \"a\"]\nload_profile = { id = \"1\" }");
        assert_eq!(found.len(), 3, "{found:#?}");
    }
}
