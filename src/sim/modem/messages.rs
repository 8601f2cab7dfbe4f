//! The simulated modem's storage: messages come, are listed, read, written, sent, deleted.

use super::{Answer, End, Modem, Prompt, Stored, end, ok, text};
use crate::model::Timestamp;
use crate::wire::modem::fields;
use crate::wire::sms::{self, Address, Body, Deliver, Message, Submit, UserData, split};

/// The zone of the simulated service centre, in quarters of an hour.
const ZONE: i8 = 4;

impl Modem {
    /// A message comes from the network, in parts when it is long. Returns what the modem says to it; what finds no room
    /// waits in the network.
    pub fn deliver(&mut self, from: &str, text: &str, at: Timestamp) -> Vec<u8> {
        self.reference = self.reference.wrapping_add(1);
        let from = Address::parse(from).unwrap_or_else(|| Address::Name(from.to_owned()));
        let parts = split(text, self.reference, 255).unwrap_or_default();
        let pdus = parts.into_iter().filter_map(|part| {
            let mut pdu = Vec::new();
            let centre = Address::parse("+34609090909");
            Deliver { centre, ..Deliver::new(from.clone(), at, part) }.encode(ZONE, &mut pdu).ok()?;
            Some(pdu)
        });
        let pdus: Vec<_> = pdus.collect();
        pdus.into_iter().flat_map(|pdu| self.deliver_pdu(pdu)).collect()
    }

    /// A PDU comes from the network, whatever it is.
    pub fn deliver_pdu(&mut self, pdu: Vec<u8>) -> Vec<u8> {
        self.waiting.push_back(pdu);
        self.take_waiting()
    }

    /// Messages in the storage.
    pub fn stored(&self) -> usize {
        self.storage.len()
    }

    /// The first stored message as a PDU.
    pub fn first_pdu(&self) -> Option<Vec<u8>> {
        self.storage.values().next().map(|stored| stored.pdu.clone())
    }

    /// Messages that find no room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn take_waiting(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while self.has_room() {
            let Some(pdu) = self.waiting.pop_front() else { break };
            let index = self.store(0, pdu);
            if self.volatile.announce == 1 {
                said.extend(format!("\r\n+CMTI: \"SM\",{index}\r\n").bytes());
            }
        }
        said
    }

    fn has_room(&self) -> bool {
        self.storage.len() < usize::try_from(self.make.capacity).unwrap_or(usize::MAX)
    }

    fn store(&mut self, status: u8, pdu: Vec<u8>) -> u32 {
        let index = (1..=u32::MAX).find(|index| !self.storage.contains_key(index)).unwrap_or_default();
        self.storage.insert(index, Stored { status, pdu });
        index
    }

    pub(super) fn message_command(&mut self, name: &str, rest: &str) -> Option<Answer> {
        if !name.starts_with("+C") {
            return None;
        }
        let value = rest.strip_prefix('=').unwrap_or_default().trim();
        if matches!(name, "+CMGL" | "+CMGR" | "+CMGS" | "+CMGW" | "+CMGD" | "+CMSS" | "+CPMS" | "+CSCA")
            && !self.is_unlocked()
        {
            return Some(end(End::Message(if self.make.sim { 311 } else { 310 })));
        }
        Some(match (name, rest) {
            ("+CMGF", "?") => ok(format!("+CMGF: {}", u8::from(self.volatile.text_mode))),
            ("+CMGF", "=?") => ok(if self.make.pdu_mode { "+CMGF: (0,1)" } else { "+CMGF: (1)" }),
            ("+CMGF", _) => {
                if value == "0" && !self.make.pdu_mode {
                    return Some(end(End::Error));
                }
                self.volatile.text_mode = value == "1";
                end(End::Ok)
            }
            ("+CSCS", "?") => ok(format!("+CSCS: \"{}\"", self.volatile.charset)),
            ("+CSCS", "=?") => ok("+CSCS: (\"GSM\",\"IRA\",\"UCS2\")"),
            ("+CSCS", _) => {
                value.trim_matches('"').clone_into(&mut self.volatile.charset);
                end(End::Ok)
            }
            ("+CSMS", "?") => ok("+CSMS: 0,1,1,1"),
            ("+CSMS", _) => ok("+CSMS: 1,1,1"),
            ("+CSMP", "?") => {
                let [first, validity, protocol, coding] = self.volatile.parameters;
                ok(format!("+CSMP: {first},{validity},{protocol},{coding}"))
            }
            ("+CSMP", _) => {
                for (to, from) in self.volatile.parameters.iter_mut().zip(value.split(',')) {
                    *to = from.trim().parse().unwrap_or(*to);
                }
                end(End::Ok)
            }
            ("+CSDH", _) => {
                self.volatile.details = value == "1";
                end(End::Ok)
            }
            ("+CNMA" | "+CMMS", _) => end(End::Ok),
            ("+CSCA", "?") => ok("+CSCA: \"+34609090909\",145"),
            ("+CSCA", _) => end(End::Ok),
            ("+CNMI", "?") => ok(format!("+CNMI: 2,{},0,0,0", self.volatile.announce)),
            ("+CNMI", "=?") => ok("+CNMI: (0-2),(0,1),(0),(0),(0,1)"),
            ("+CNMI", _) => {
                self.volatile.announce = value.split(',').nth(1).and_then(|mt| mt.parse().ok()).unwrap_or(0);
                end(End::Ok)
            }
            ("+CPMS", "=?") => ok("+CPMS: (\"SM\"),(\"SM\"),(\"SM\")"),
            ("+CPMS", _) => self.storages(rest, value),
            ("+CMGL", "=?") if self.volatile.text_mode => {
                ok("+CMGL: (\"REC UNREAD\",\"REC READ\",\"STO UNSENT\",\"STO SENT\",\"ALL\")")
            }
            ("+CMGL", "=?") => ok("+CMGL: (0-4)"),
            ("+CMGL", _) => self.list(value),
            ("+CMGR", _) => self.read(value),
            ("+CMGD", "=?") => ok(format!("+CMGD: (1-{}),(0-4)", self.make.capacity)),
            ("+CMGD", _) => self.delete(value),
            ("+CMGS", _) => self.prompt_for(value, true),
            ("+CMGW", _) => self.prompt_for(value, false),
            ("+CMSS", _) => self.send_stored(value),
            _ => return None,
        })
    }

    fn storages(&mut self, rest: &str, value: &str) -> Answer {
        let (used, total) = (self.storage.len(), self.make.capacity);
        if rest == "?" {
            let one = format!("\"SM\",{used},{total}");
            return ok(format!("+CPMS: {one},{one},{one}"));
        }
        if fields(value).iter().any(|field| field.text != "SM") {
            return end(End::Message(302));
        }
        ok(format!("+CPMS: {used},{total},{used},{total},{used},{total}"))
    }

    fn list(&mut self, value: &str) -> Answer {
        let words = ["REC UNREAD", "REC READ", "STO UNSENT", "STO SENT", "ALL"];
        let wanted = value.trim_matches('"');
        let wanted = words.iter().position(|word| *word == wanted).or_else(|| wanted.parse().ok()).unwrap_or(0);
        let found: Vec<_> = self
            .storage
            .iter()
            .filter(|(_, stored)| wanted == 4 || usize::from(stored.status) == wanted)
            .map(|(index, stored)| (*index, stored.clone()))
            .collect();
        let mut lines = Vec::new();
        for (index, stored) in found {
            lines.push(format!("+CMGL: {index},{}", self.shown(&stored, true)));
            self.mark_read(index);
        }
        (lines, End::Ok)
    }

    fn read(&mut self, value: &str) -> Answer {
        let Some((index, stored)) = value.parse().ok().and_then(|i| Some((i, self.storage.get(&i)?.clone()))) else {
            return end(End::Message(321));
        };
        self.mark_read(index);
        ok(format!("+CMGR: {}", self.shown(&stored, false)))
    }

    fn mark_read(&mut self, index: u32) {
        if let Some(stored) = self.storage.get_mut(&index)
            && stored.status == 0
        {
            stored.status = 1;
        }
    }

    /// What stands behind the index, and the body.
    fn shown(&self, stored: &Stored, listed: bool) -> String {
        if self.volatile.text_mode {
            let details = self.volatile.details.then_some(listed);
            return text::shown(stored.status, &stored.pdu, &self.volatile.charset, details);
        }
        let centre = stored.pdu.first().map_or(0, |length| usize::from(*length) + 1);
        let length = stored.pdu.len().saturating_sub(centre);
        format!("{},,{length}\r\n{}", stored.status, data_encoding::HEXUPPER.encode(&stored.pdu))
    }

    fn delete(&mut self, value: &str) -> Answer {
        let parts = fields(value);
        let which = parts.get(1).and_then(super::text::number).unwrap_or(0u8);
        if self.make.keeps_deleted {
            return end(End::Message(500));
        }
        match which {
            0 => {
                let index: Option<u32> = parts.first().and_then(super::text::number);
                if index.and_then(|index| self.storage.remove(&index)).is_none() {
                    return end(End::Message(321));
                }
            }
            1 => self.storage.retain(|_, stored| stored.status != 1),
            2 => self.storage.retain(|_, stored| !matches!(stored.status, 1 | 3)),
            3 => self.storage.retain(|_, stored| stored.status == 0),
            _ => self.storage.clear(),
        }
        // What waited comes now; a real modem announces it a little later.
        let said = String::from_utf8(self.take_waiting()).unwrap_or_default();
        (said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(), End::Ok)
    }

    fn prompt_for(&mut self, value: &str, sends: bool) -> Answer {
        let first = fields(value).first().map(|field| field.text.clone()).unwrap_or_default();
        if self.volatile.text_mode {
            if sends && text::plain(&first, &self.volatile.charset).and_then(|n| Address::parse(&n)).is_none() {
                return end(End::Message(305));
            }
        } else if first.parse::<u8>().is_err() {
            return end(End::Message(304));
        }
        self.prompt = Some(Prompt { sends, number: first, typed: Vec::new() });
        end(End::Prompt)
    }

    pub(super) fn text_given(&mut self, prompt: &Prompt) -> Answer {
        let Some(pdu) = self.pdu_of(prompt) else { return end(End::Message(304)) };
        if !prompt.sends {
            if !self.has_room() {
                return end(End::Message(322));
            }
            let is_submit = matches!(sms::decode(&pdu), Ok(Message::Submit(_)));
            let index = self.store(if is_submit { 2 } else { 1 }, pdu);
            return ok(format!("+CMGW: {index}"));
        }
        self.send("+CMGS", &pdu)
    }

    fn send(&mut self, name: &str, pdu: &[u8]) -> Answer {
        let Ok(Message::Submit(submit)) = sms::decode(pdu) else { return end(End::Message(304)) };
        if let Some(code) = self.make.refuse_sending.pop_front() {
            return end(End::Message(code));
        }
        self.reference = self.reference.wrapping_add(1);
        self.sent.push(submit);
        ok(format!("{name}: {}", self.reference))
    }

    fn send_stored(&mut self, value: &str) -> Answer {
        let index: Option<u32> = fields(value).first().and_then(super::text::number);
        let Some(pdu) = index.and_then(|index| self.storage.get(&index)).map(|stored| stored.pdu.clone()) else {
            return end(End::Message(321));
        };
        let answer = self.send("+CMSS", &pdu);
        if let (End::Ok, Some(stored)) = (&answer.1, index.and_then(|index| self.storage.get_mut(&index))) {
            stored.status = 3;
        }
        answer
    }

    /// The PDU of what was typed: as it is, or made of number and text.
    fn pdu_of(&self, prompt: &Prompt) -> Option<Vec<u8>> {
        let typed = String::from_utf8_lossy(&prompt.typed).into_owned();
        if !self.volatile.text_mode {
            let pdu = data_encoding::HEXUPPER_PERMISSIVE.decode(typed.trim().as_bytes()).ok()?;
            let behind = pdu.len().checked_sub(usize::from(*pdu.first()?) + 1)?;
            return (prompt.number.parse() == Ok(behind)).then_some(pdu);
        }
        let to = text::plain(&prompt.number, &self.volatile.charset)?;
        let to = Address::parse(&to).or_else(|| to.is_empty().then(|| Address::National(String::new())))?;
        let words = text::plain(&typed.replace("\r\n", "\n").replace('\r', "\n"), &self.volatile.charset)?;
        let [_, validity, protocol, coding] = self.volatile.parameters;
        let body = if coding == 8 { Body::Ucs2(words.encode_utf16().collect()) } else { Body::of(&words) };
        let submit = Submit { validity: Some(validity), protocol, ..Submit::new(to, UserData::plain(body)) };
        let mut pdu = Vec::new();
        submit.encode(&mut pdu).ok()?;
        Some(pdu)
    }
}
