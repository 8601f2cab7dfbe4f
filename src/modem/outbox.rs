//! Messages to be sent, part by part, tried again when the network is busy or away.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::dialogue::{Answer, Broken, Dialogue};
use super::start::Form;
use super::{Modem, ModemError, Sent, Status};
use crate::wire::modem::hex_of_text;
use crate::wire::sms::{Address, Submit, UserData, split};

/// Messages that may wait, and parts a message may have.
const MOST: usize = 16;
pub(super) const MOST_PARTS: u8 = 10;
/// How long the network may take for a part (3GPP TS 27.005 has none; modems' manuals say a minute or two).
const SENDING: Duration = Duration::from_secs(120);

struct Item {
    to: Address,
    left: VecDeque<UserData>,
    sent: u8,
    attempt: u32,
    due: Instant,
    answer: oneshot::Sender<Result<Sent, ModemError>>,
}

/// What waits to be sent.
#[derive(Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    /// Parts of one message have it in common, those of the next one have another.
    reference: u8,
}

impl Outbox {
    /// Takes a text to be sent; answers at once when it can't be.
    pub(super) fn push(&mut self, number: &str, text: &str, answer: oneshot::Sender<Result<Sent, ModemError>>) {
        let item = self.item(number, text);
        match item {
            Err(error) => drop(answer.send(Err(error))),
            Ok((to, left)) => {
                self.items.push_back(Item { to, left, sent: 0, attempt: 1, due: Instant::now(), answer });
            }
        }
    }

    fn item(&mut self, number: &str, text: &str) -> Result<(Address, VecDeque<UserData>), ModemError> {
        let to = Address::parse(number).ok_or(ModemError::Number)?;
        self.reference = self.reference.wrapping_add(1);
        let parts = split(text, self.reference, MOST_PARTS).ok_or(ModemError::TooLong(MOST_PARTS))?;
        if self.items.len() >= MOST {
            return Err(ModemError::Busy);
        }
        Ok((to, parts.into()))
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.items.iter().map(|item| item.due).min()
    }

    /// Sends one part of the message that is due.
    pub(super) async fn send(
        &mut self,
        dialogue: &mut Dialogue,
        form: Form,
        modem: &Modem,
        status: &mut Status,
    ) -> Result<(), Broken> {
        let now = Instant::now();
        let Some(at) = self.items.iter().position(|item| item.due <= now) else { return Ok(()) };
        let Some(mut item) = self.items.remove(at) else { return Ok(()) };
        let Some(part) = item.left.front() else { return Ok(()) };
        let answer = match transmit(dialogue, form, &item.to, part).await {
            Ok(answer) => answer,
            Err(broken) => {
                status.counters.not_sent += 1;
                let _ = item.answer.send(Err(ModemError::Silent("a message".to_owned())));
                return Err(broken);
            }
        };
        let Some(fault) = answer.fault() else {
            item.left.pop_front();
            (item.sent, item.attempt) = (item.sent + 1, 1);
            if item.left.is_empty() {
                status.counters.sent += 1;
                debug!(parts = item.sent, "a message was sent");
                let _ = item.answer.send(Ok(Sent::Accepted { parts: item.sent }));
            } else {
                self.items.push_front(item);
            }
            return Ok(());
        };
        if fault.may_pass() && item.attempt < modem.settings.send_attempts.value() {
            debug!(%fault, attempt = item.attempt, "a message was refused and is tried again");
            item.due = now + *modem.settings.send_pause * 2u32.saturating_pow(item.attempt - 1);
            item.attempt += 1;
            self.items.push_back(item);
            return Ok(());
        }
        status.counters.not_sent += 1;
        warn!(%fault, attempts = item.attempt, "a message was refused and is not sent");
        let _ = item.answer.send(Ok(Sent::Refused { parts: item.sent, reason: fault.to_string() }));
        Ok(())
    }
}

async fn transmit(dialogue: &mut Dialogue, form: Form, to: &Address, part: &UserData) -> Result<Answer, Broken> {
    let number = to.to_string();
    let (command, text) = match form {
        Form::Pdu => {
            let mut pdu = Vec::new();
            // Parts are cut so that they fit.
            let length = Submit::new(to.clone(), part.clone()).encode(&mut pdu).unwrap_or_default();
            (format!("AT+CMGS={length}"), data_encoding::HEXUPPER.encode(&pdu))
        }
        Form::TextUcs2 => (format!("AT+CMGS=\"{}\"", hex_of_text(&number)), hex_of_text(&part.body.text())),
        Form::Text => {
            let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
            (format!("AT+CMGS=\"{number}\""), part.body.text().chars().map(plain).collect())
        }
    };
    dialogue.ask_with_text(&command, &text, SENDING).await
}
