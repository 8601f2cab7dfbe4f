//! Messages out of the modem's storage: read, handed over, deleted.
//!
//! A message is handed over before it is deleted; when weir ends between the two it is handed over twice. What waits for its
//! missing parts stays in the storage, so that a restart loses nothing; when the storage gets full, the oldest parts go.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::dialogue::{Answer, Broken, Dialogue};
use super::start::{Form, Found};
use super::{Incoming, Modem, Status};
use crate::wire::modem::{Listed, clock, listed, room, text_of_hex};
use crate::wire::sms::{self, Assembler, Message, Whole};

/// Where a message lies, and its body: another message may take its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    index: Option<u32>,
    body: String,
}

struct Entry {
    place: Place,
    listed: Listed,
}

/// Places that must stay free for what comes.
const SPARE: u32 = 3;
/// Listing a full storage over a slow line takes its time.
const LISTING: Duration = Duration::from_secs(60);
/// Messages that were handed over but could not be deleted.
const SETTLED: usize = 512;

/// What is remembered of messages over the time.
pub(super) struct Inbox {
    assembler: Assembler<Place>,
    /// Handed over already, but not gone from the storage.
    settled: HashSet<Place>,
    began: Instant,
    /// Nobody takes messages just now, and that was told.
    blocked: bool,
}

impl Inbox {
    pub(super) fn new(parts_for: Duration) -> Self {
        let assembler = Assembler::new(parts_for);
        Self { assembler, settled: HashSet::new(), began: Instant::now(), blocked: false }
    }

    /// Looks through the storage. `storage`: the one that a notice named, when it is another one than usual.
    pub(super) async fn collect(
        &mut self,
        dialogue: &mut Dialogue,
        found: &Found,
        storage: Option<&str>,
        (modem, status): (&Modem, &mut Status),
    ) -> Result<(), Broken> {
        if let Some(storage) = storage {
            dialogue.ask(&format!("AT+CPMS=\"{storage}\"")).await?;
        }
        let done = self.look_through(dialogue, found, modem, status).await;
        if storage.is_some()
            && let Some(usual) = &found.storage
        {
            dialogue.ask(&format!("AT+CPMS=\"{usual}\"")).await?;
        }
        done
    }

    async fn look_through(
        &mut self,
        dialogue: &mut Dialogue,
        found: &Found,
        modem: &Modem,
        status: &mut Status,
    ) -> Result<(), Broken> {
        let entries = list(dialogue, found.form, status).await?;
        self.settled.retain(|place| entries.iter().any(|entry| entry.place == *place));
        let mut gone = Vec::new();
        let mut own = Vec::new();
        for entry in &entries {
            if self.settled.contains(&entry.place) {
                gone.push(entry.place.clone());
            } else if !entry.listed.came {
                own.push(entry.place.clone());
            } else if !self.assembler.holds(&entry.place) && !self.take(entry, found.form, modem, status, &mut gone) {
                break;
            }
        }
        let expired = self.assembler.expire(self.began.elapsed());
        self.give_up(expired, status, &mut gone);
        // All of them at once: a deletion that breaks off must not hand the others over again.
        for place in gone.iter().filter(|place| place.index.is_some()) {
            if self.settled.len() < SETTLED {
                self.settled.insert(place.clone());
            }
        }
        for place in gone {
            self.delete(dialogue, place).await?;
        }
        self.make_room(dialogue, own, status).await
    }

    /// Takes a message that was not stored.
    pub(super) fn take_passed(&mut self, body: &str, form: Form, modem: &Modem, status: &mut Status) {
        if form == Form::Pdu {
            let listed = Listed { index: None, came: true, from: None, at: None };
            let entry = Entry { place: Place { index: None, body: body.to_owned() }, listed };
            self.take(&entry, form, modem, status, &mut Vec::new());
        }
    }

    /// Hands a message over when it is whole; false when nobody takes any just now.
    fn take(&mut self, entry: &Entry, form: Form, modem: &Modem, status: &mut Status, gone: &mut Vec<Place>) -> bool {
        let slot = match modem.incoming.try_reserve() {
            Ok(slot) => slot,
            Err(TrySendError::Full(()) | TrySendError::Closed(())) => {
                if !std::mem::replace(&mut self.blocked, true) {
                    warn!("nobody takes messages just now; they wait in the modem's storage");
                }
                return false;
            }
        };
        self.blocked = false;
        let whole = if form == Form::Pdu { self.assemble(entry, status, gone) } else { text(entry, form) };
        if let Some(Whole { from, text, at, tags }) = whole {
            debug!(%from, parts = tags.len(), "a message came");
            slot.send(Incoming::Sms { from: from.to_string(), text, at: at.unwrap_or_else(|| modem.clock.now()) });
            status.counters.received += 1;
            gone.extend(tags);
        }
        true
    }

    fn assemble(&mut self, entry: &Entry, status: &mut Status, gone: &mut Vec<Place>) -> Option<Whole<Place>> {
        let octets = data_encoding::HEXUPPER_PERMISSIVE.decode(entry.place.body.trim().as_bytes());
        match octets.ok().and_then(|octets| sms::decode(&octets).ok()) {
            Some(Message::Deliver(deliver)) => {
                let pushed = self.assembler.push(&deliver, entry.place.clone(), self.began.elapsed());
                self.give_up(pushed.given_up, status, gone);
                pushed.whole
            }
            // Nobody asks for reports; one that came is of no use.
            Some(Message::Report(_)) => {
                gone.push(entry.place.clone());
                None
            }
            Some(Message::Submit(_)) | None => {
                status.counters.undecodable += 1;
                info!(undecodable = status.counters.undecodable, "a message can't be read and is deleted");
                gone.push(entry.place.clone());
                None
            }
        }
    }

    fn give_up(&mut self, places: Vec<Place>, status: &mut Status, gone: &mut Vec<Place>) {
        if places.is_empty() {
            return;
        }
        status.counters.incomplete += places.len() as u64;
        info!(parts = places.len(), "a long message never became whole; its parts are deleted");
        gone.extend(places);
    }

    async fn delete(&mut self, dialogue: &mut Dialogue, place: Place) -> Result<(), Broken> {
        let Some(index) = place.index else { return Ok(()) };
        // Remembered first: a deletion that fails must not hand the message over again.
        if self.settled.len() < SETTLED {
            self.settled.insert(place.clone());
        }
        if dialogue.ask(&format!("AT+CMGD={index}")).await?.is_ok() {
            self.settled.remove(&place);
        }
        Ok(())
    }

    /// Sees that the storage has room: what was sent from it goes first, then the oldest parts.
    async fn make_room(&mut self, dialogue: &mut Dialogue, own: Vec<Place>, status: &mut Status) -> Result<(), Broken> {
        let Some(room) = dialogue.ask("AT+CPMS?").await?.find(room) else { return Ok(()) };
        status.storage = Some((room.used, room.total));
        let spare = SPARE.min(room.total / 4);
        let needed = (room.used + spare).saturating_sub(room.total);
        let mut freed = 0;
        for place in own {
            if freed < needed {
                self.delete(dialogue, place).await?;
                freed += 1;
            }
        }
        while freed < needed {
            let oldest = self.assembler.give_up_oldest();
            if oldest.is_empty() {
                break;
            }
            freed += u32::try_from(oldest.len()).unwrap_or(u32::MAX);
            let mut gone = Vec::new();
            self.give_up(oldest, status, &mut gone);
            for place in gone {
                self.delete(dialogue, place).await?;
            }
        }
        if freed > 0 {
            status.storage = dialogue.ask("AT+CPMS?").await?.find(crate::wire::modem::room).map(|r| (r.used, r.total));
        }
        Ok(())
    }
}

async fn list(dialogue: &mut Dialogue, form: Form, status: &Status) -> Result<Vec<Entry>, Broken> {
    let all = if form == Form::Pdu { "AT+CMGL=4" } else { "AT+CMGL=\"ALL\"" };
    let answer = dialogue.ask_within(all, LISTING).await?;
    if answer.is_ok() {
        return Ok(entries(&answer, form, None));
    }
    // One damaged message can spoil the list.
    let mut found = Vec::new();
    let (_, total) = status.storage.unwrap_or((0, 0));
    for index in 0..=total.min(300) {
        let answer = dialogue.ask(&format!("AT+CMGR={index}")).await?;
        if answer.is_ok() {
            found.extend(entries(&answer, form, Some(index)));
        }
    }
    Ok(found)
}

/// Takes a list apart: a head, then a PDU or the lines of a text.
fn entries(answer: &Answer, form: Form, index: Option<u32>) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    for line in &answer.lines {
        if let Some(listed) = listed(line) {
            let index = listed.index.or(index);
            found.push(Entry { place: Place { index, body: String::new() }, listed });
        } else if let Some(entry) = found.last_mut() {
            let body = &mut entry.place.body;
            if form == Form::Pdu && !body.is_empty() {
                continue;
            }
            if !body.is_empty() {
                body.push('\n');
            }
            body.push_str(line);
        }
    }
    found
}

/// A message of text mode.
fn text(entry: &Entry, form: Form) -> Option<Whole<Place>> {
    let plain = |text: &str| match form {
        Form::TextUcs2 => text_of_hex(text).unwrap_or_else(|| text.to_owned()),
        Form::Pdu | Form::Text => text.to_owned(),
    };
    let from = plain(entry.listed.from.as_deref().unwrap_or_default());
    let from = sms::Address::parse(&from).unwrap_or(sms::Address::Name(from));
    let at = entry.listed.at.as_deref().and_then(clock);
    Some(Whole { from, text: plain(&entry.place.body), at, tags: vec![entry.place.clone()] })
}
