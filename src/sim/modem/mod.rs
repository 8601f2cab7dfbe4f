//! A cellular modem on its AT port, exact enough for gammu and smstools: PDU and text mode, a SIM with a PIN, a storage with a
//! capacity, calls, and the faults that modems have.
//!
//! [`Modem`] turns bytes into bytes; [`crate::sim::stick::Plugged`] puts it on a pseudo-terminal. What the network does
//! ([`Modem::deliver`], [`Modem::ring`]) returns what the modem says to it, for [`crate::sim::stick::Plugged::say`].

use std::collections::{BTreeMap, VecDeque};

use super::stick::Stick;
use crate::wire::sms::Submit;

mod messages;
mod network;
mod text;

/// Commands that are remembered.
const REMEMBERED: usize = 2000;

/// How a simulated modem is made, and its faults; all of it may be changed while it runs.
#[derive(Debug, Clone)]
pub struct Make {
    /// The SIM's PIN; `None`: it wants none.
    pub pin: Option<String>,
    /// Whether there is a SIM.
    pub sim: bool,
    /// Messages that the storage holds.
    pub capacity: u32,
    /// Whether it knows PDU mode.
    pub pdu_mode: bool,
    /// Signal, 0 to 31 or 99.
    pub csq: u8,
    /// `+CREG`'s state, e.g. 1 at home, 5 roaming.
    pub registration: u8,
    /// The operator's name.
    pub operator: String,
    /// It takes everything and says nothing.
    pub mute: bool,
    /// It says garbage to everything.
    pub babbles: bool,
    /// It says nothing to commands that begin so.
    pub mute_to: Vec<String>,
    /// It refuses commands that begin so.
    pub refuses: Vec<String>,
    /// Codes that the next messages to be sent are refused with.
    pub refuse_sending: VecDeque<u16>,
    /// It keeps what it is told to delete.
    pub keeps_deleted: bool,
    /// Its number.
    pub imei: String,
    /// Commands after whose answer it starts anew by itself, each once.
    pub restarts_at: Vec<String>,
    /// The code that a PIN is refused with, whatever it is, without its being counted.
    pub pin_fault: Option<u16>,
}

impl Default for Make {
    fn default() -> Self {
        Self {
            pin: None,
            sim: true,
            capacity: 20,
            pdu_mode: true,
            csq: 20,
            registration: 1,
            operator: "Movistar".to_owned(),
            mute: false,
            babbles: false,
            mute_to: Vec::new(),
            refuses: Vec::new(),
            refuse_sending: VecDeque::new(),
            keeps_deleted: false,
            imei: "356938035643809".to_owned(),
            restarts_at: Vec::new(),
            pin_fault: None,
        }
    }
}

/// What is lost when it starts anew.
#[derive(Debug, Clone)]
struct Volatile {
    echo: bool,
    cmee: u8,
    text_mode: bool,
    /// `+CSDH`: text mode shows more.
    details: bool,
    charset: String,
    /// `+CSMP`: first octet, validity, protocol, coding.
    parameters: [u8; 4],
    announce: u8,
    clip: bool,
    creg: [u8; 3],
    cops_format: u8,
    unlocked: bool,
    functionality: u8,
    registered: bool,
}

/// What is typed after a prompt.
#[derive(Debug, Clone)]
struct Prompt {
    /// To be sent, or only stored.
    sends: bool,
    /// In text mode: whom it is for.
    number: String,
    typed: Vec<u8>,
}

/// A stored message.
#[derive(Debug, Clone)]
struct Stored {
    /// 0: new, 1: read, 2: own and not sent, 3: own and sent.
    status: u8,
    pdu: Vec<u8>,
}

/// The simulated modem.
#[derive(Debug)]
pub struct Modem {
    /// How it is made.
    pub make: Make,
    /// What was sent.
    pub sent: Vec<Submit>,
    /// The commands that it was told, the newest last.
    pub asked: VecDeque<String>,
    /// PINs that were shown to the SIM.
    pub pins_shown: u32,
    /// Calls that were ended.
    pub hung_up: u32,
    /// How often it started anew.
    pub restarts: u32,
    volatile: Volatile,
    pin_tries: u8,
    line: Vec<u8>,
    prompt: Option<Prompt>,
    storage: BTreeMap<u32, Stored>,
    /// What the network keeps while the storage is full.
    waiting: VecDeque<Vec<u8>>,
    reference: u8,
    rings: bool,
}

const FRESH: [u8; 4] = [17, 167, 0, 0];

impl Volatile {
    fn new() -> Self {
        Self {
            echo: true,
            cmee: 0,
            text_mode: false,
            details: false,
            charset: "GSM".to_owned(),
            parameters: FRESH,
            announce: 0,
            clip: false,
            creg: [0; 3],
            cops_format: 0,
            unlocked: false,
            functionality: 1,
            registered: true,
        }
    }
}

/// How a command ends.
enum End {
    Ok,
    Error,
    /// +CME ERROR.
    Equipment(u16),
    /// +CMS ERROR.
    Message(u16),
    /// A prompt; nothing more is said now.
    Prompt,
}

/// The lines of an answer and its end.
type Answer = (Vec<String>, End);

fn ok(line: impl Into<String>) -> Answer {
    (vec![line.into()], End::Ok)
}

fn end(end: End) -> Answer {
    (Vec::new(), end)
}

impl Modem {
    /// Switches one on.
    pub fn new(make: Make) -> Self {
        let text_mode = !make.pdu_mode;
        Self {
            make,
            sent: Vec::new(),
            asked: VecDeque::new(),
            pins_shown: 0,
            hung_up: 0,
            restarts: 0,
            volatile: Volatile { text_mode, ..Volatile::new() },
            pin_tries: 3,
            line: Vec::new(),
            prompt: None,
            storage: BTreeMap::new(),
            waiting: VecDeque::new(),
            reference: 0,
            rings: false,
        }
    }

    /// Whether it was asked something that begins so.
    pub fn was_asked(&self, start: &str) -> bool {
        self.asked.iter().any(|asked| asked.starts_with(start))
    }

    /// Somebody calls; `number` is `None` when it is hidden. Returns what the modem says for one ring.
    pub fn ring(&mut self, number: Option<&str>) -> Vec<u8> {
        self.rings = true;
        let mut said = "\r\nRING\r\n".to_owned();
        if self.volatile.clip {
            let kind = number.map_or(128, |number| if number.starts_with('+') { 145 } else { 129 });
            said += &format!("\r\n+CLIP: \"{}\",{kind},\"\",0,\"\",0\r\n", number.unwrap_or_default());
        }
        said.into_bytes()
    }

    /// Starts anew, as after a moment without power; returns what it says then.
    pub fn restart(&mut self) -> Vec<u8> {
        self.volatile = Volatile { text_mode: !self.make.pdu_mode, ..Volatile::new() };
        self.prompt = None;
        self.line.clear();
        self.restarts += 1;
        b"\r\nRDY\r\n".to_vec()
    }

    fn typed(&mut self, byte: u8, said: &mut Vec<u8>) {
        if self.volatile.echo {
            said.push(byte);
        }
        if self.prompt.is_some() {
            return self.typed_text(byte, said);
        }
        match byte {
            b'\r' => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim().to_owned();
                self.command_line(&line, said);
            }
            0x1B | b'\n' => self.line.clear(),
            0x08 => drop(self.line.pop()),
            _ if self.line.len() < 1000 => self.line.push(byte),
            _ => {}
        }
    }

    fn typed_text(&mut self, byte: u8, said: &mut Vec<u8>) {
        let Some(prompt) = &mut self.prompt else { return };
        match byte {
            0x1B => {
                self.prompt = None;
                said.extend(b"\r\nOK\r\n");
            }
            0x1A => {
                if let Some(prompt) = self.prompt.take() {
                    let answer = self.text_given(&prompt);
                    self.say(answer, said);
                }
            }
            _ if prompt.typed.len() < 2000 => prompt.typed.push(byte),
            _ => {}
        }
    }

    fn command_line(&mut self, line: &str, said: &mut Vec<u8>) {
        if line.is_empty() {
            return;
        }
        if self.asked.len() == REMEMBERED {
            self.asked.pop_front();
        }
        self.asked.push_back(line.to_owned());
        let upper = line.to_ascii_uppercase();
        let begins = |list: &[String]| list.iter().any(|start| upper.starts_with(start.as_str()));
        if self.make.mute || begins(&self.make.mute_to) {
            return;
        }
        if begins(&self.make.refuses) {
            return self.say(end(End::Error), said);
        }
        let Some(body) = upper.strip_prefix("AT") else { return };
        let body = line.get(line.len() - body.len()..).unwrap_or_default();
        let mut lines = Vec::new();
        for command in apart(body) {
            let (told, ended) = self.command(&command);
            lines.extend(told);
            if !matches!(ended, End::Ok) {
                return self.say((lines, ended), said);
            }
        }
        self.say((lines, End::Ok), said);
        if let Some(at) = self.make.restarts_at.iter().position(|start| upper.starts_with(start.as_str())) {
            self.make.restarts_at.remove(at);
            said.extend(self.restart());
        }
    }

    fn say(&self, (lines, ended): Answer, said: &mut Vec<u8>) {
        for line in lines {
            said.extend(format!("\r\n{line}\r\n").bytes());
        }
        let plain = self.volatile.cmee == 0;
        said.extend(match ended {
            End::Ok => b"\r\nOK\r\n".to_vec(),
            End::Error => b"\r\nERROR\r\n".to_vec(),
            End::Equipment(_) if plain => b"\r\nERROR\r\n".to_vec(),
            End::Equipment(code) => format!("\r\n+CME ERROR: {code}\r\n").into_bytes(),
            End::Message(code) => format!("\r\n+CMS ERROR: {code}\r\n").into_bytes(),
            End::Prompt => b"\r\n> ".to_vec(),
        });
    }

    /// One command, without AT.
    fn command(&mut self, command: &str) -> Answer {
        let at = command.find(['=', '?']).unwrap_or(command.len());
        let (name, rest) = command.split_at_checked(at).unwrap_or((command, ""));
        let name = name.trim().to_ascii_uppercase();
        let rest = rest.trim();
        self.basic(&name)
            .or_else(|| self.own(&name, rest))
            .or_else(|| self.network_command(&name, rest))
            .or_else(|| self.message_command(&name, rest))
            .unwrap_or_else(|| end(End::Error))
    }

    fn basic(&mut self, name: &str) -> Option<Answer> {
        match name {
            "" | "V1" | "Q0" | "Z" | "&F" | "&W" | "X4" | "S0" | "&D2" | "&C1" | "+IFC" | "&K0" => {}
            "E" | "E0" => self.volatile.echo = false,
            "E1" => self.volatile.echo = true,
            "H" | "H0" | "+CHUP" => {
                if std::mem::take(&mut self.rings) {
                    self.hung_up += 1;
                }
            }
            "I" => {
                return Some((
                    vec!["weir".to_owned(), "simulated modem".to_owned(), "Revision: 1.0".to_owned()],
                    End::Ok,
                ));
            }
            _ => return None,
        }
        Some(end(End::Ok))
    }

    fn own(&mut self, name: &str, rest: &str) -> Option<Answer> {
        Some(match (name, rest) {
            ("+CGMI" | "+GMI", "") => ok("weir"),
            ("+CGMM" | "+GMM", "") => ok("SIM-1"),
            ("+CGMR" | "+GMR", "") => ok("1.0"),
            ("+CGSN" | "+GSN", "") => ok(self.make.imei.clone()),
            ("+CIMI", "") if self.is_unlocked() => ok("214070123456789"),
            ("+CCID" | "+ICCID", "" | "?") if self.make.sim => ok(format!("{name}: 8934071100123456789F")),
            ("+CCID" | "+ICCID" | "+CIMI", _) => end(End::Equipment(if self.make.sim { 11 } else { 10 })),
            ("+GCAP", "") => ok("+GCAP: +CGSM"),
            ("+CPAS", "") => ok(format!("+CPAS: {}", if self.rings { 3 } else { 0 })),
            ("+CCLK", "?") => ok("+CCLK: \"26/11/22,15:00:00+04\""),
            ("+CMEE", "?") => ok(format!("+CMEE: {}", self.volatile.cmee)),
            ("+CMEE", "=?") => ok("+CMEE: (0-1)"),
            ("+CMEE", _) => match rest.trim_start_matches('=').parse() {
                Ok(mode @ 0..=1) => {
                    self.volatile.cmee = mode;
                    end(End::Ok)
                }
                _ => end(End::Equipment(3)),
            },
            ("+CLIP", _) => {
                self.volatile.clip = rest == "=1";
                end(End::Ok)
            }
            ("+CPIN", "?") => self.pin_state(),
            ("+CPIN", _) => self.pin_shown(rest),
            ("+CFUN", "?") => ok(format!("+CFUN: {}", self.volatile.functionality)),
            ("+CFUN", "=1,1") => {
                self.restart();
                end(End::Ok)
            }
            ("+CFUN", _) => match rest.trim_start_matches('=').parse() {
                Ok(level @ (0 | 1 | 4)) => {
                    self.volatile.functionality = level;
                    self.volatile.registered = level == 1;
                    end(End::Ok)
                }
                _ => end(End::Equipment(3)),
            },
            _ => return None,
        })
    }

    fn is_unlocked(&self) -> bool {
        self.make.sim && (self.make.pin.is_none() || self.volatile.unlocked)
    }

    fn pin_state(&self) -> Answer {
        match (self.make.sim, self.pin_tries, self.is_unlocked()) {
            (false, _, _) => end(End::Equipment(10)),
            (_, 0, _) => ok("+CPIN: SIM PUK"),
            (_, _, true) => ok("+CPIN: READY"),
            _ => ok("+CPIN: SIM PIN"),
        }
    }

    fn pin_shown(&mut self, rest: &str) -> Answer {
        if self.is_unlocked() || self.pin_tries == 0 {
            return end(End::Equipment(3));
        }
        self.pins_shown += 1;
        if let Some(code) = self.make.pin_fault {
            return end(End::Equipment(code));
        }
        let shown = rest.trim_start_matches('=').trim_matches('"');
        if self.make.pin.as_deref() == Some(shown) {
            self.volatile.unlocked = true;
            self.pin_tries = 3;
            return end(End::Ok);
        }
        self.pin_tries -= 1;
        end(End::Equipment(if self.pin_tries == 0 { 12 } else { 16 }))
    }
}

/// Takes a line of commands apart: extended ones end with a semicolon, basic ones with their digits.
fn apart(body: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word = String::new();
    let mut inside = false;
    for c in body.chars() {
        let extended = word.starts_with(['+', '^', '$', '#', '%']);
        match c {
            ';' if !inside => found.push(std::mem::take(&mut word)),
            ' ' if !inside && word.is_empty() => {}
            c if !extended && !word.is_empty() && word != "&" && (c.is_ascii_alphabetic() || "&+^".contains(c)) => {
                found.push(std::mem::replace(&mut word, c.to_string()));
            }
            c => {
                inside ^= c == '"';
                word.push(c);
            }
        }
    }
    if !word.is_empty() || found.is_empty() {
        found.push(word);
    }
    found
}

impl Stick for Modem {
    fn baud(&self) -> u32 {
        115_200
    }

    fn understands(&self, _baud: u32) -> bool {
        true
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.make.babbles {
            return bytes.iter().flat_map(|byte| [byte ^ 0xA5, 0xFF, b'~']).cycle().take(3000).collect();
        }
        let mut said = Vec::new();
        bytes.iter().for_each(|byte| self.typed(*byte, &mut said));
        if self.make.mute {
            said.clear();
        }
        said
    }
}
