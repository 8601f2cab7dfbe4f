//! The modem's stream: lines, prompts, and what comes unasked.

use std::collections::VecDeque;

use super::answer::{self, Network};
use super::code::{Fault, Kind};
use super::fields::{after, fields};

/// The longest line; longer ones are skipped. The longest answer, `AT+COPS=?` at a border, has about 1000 characters.
const LONGEST: usize = 4096;
/// Events that nobody took are lost beyond this, the oldest first.
const MOST: usize = 1024;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The end of an answer.
    End(Ending),
    /// The modem waits for the text of a message.
    Prompt,
    /// Something that comes unasked.
    Notice(Notice),
    /// Any other line: an answer, an echo, garbage.
    Text(String),
    /// So many bytes of a line that is too long.
    Skipped {
        /// How many.
        bytes: usize,
    },
}

/// How an answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// OK.
    Ok,
    /// ERROR, +CME ERROR or +CMS ERROR.
    Refused(Fault),
}

/// What comes unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A message was stored (+CMTI), or a report (+CDSI).
    Stored {
        /// Where, e.g. SM.
        storage: String,
        /// Its place there.
        index: u32,
    },
    /// A message that is not stored (+CMT), or a report (+CDS).
    Passed {
        /// What stands behind the colon.
        head: String,
        /// The line after it: a PDU, or the text.
        body: String,
    },
    /// The registration changed (+CREG, +CGREG, +CEREG).
    Network(Network),
    /// Somebody calls.
    Ring,
    /// Who calls (+CLIP); `None` when the caller hides it.
    Caller(Option<String>),
    /// The caller has hung up.
    HungUp,
    /// The state of the SIM (+CPIN) told unasked.
    Sim(String),
    /// The modem has started anew.
    Restarted,
}

/// Reads the stream.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    skipped: usize,
    /// `> ` is a prompt now.
    prompt: bool,
    /// The head of a +CMT or +CDS whose body comes next.
    head: Option<String>,
    ready: VecDeque<Event>,
}

impl Decoder {
    /// Starts at the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether `> ` at the beginning of a line is a prompt, until there was one.
    pub const fn await_prompt(&mut self, awaited: bool) {
        self.prompt = awaited;
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\r' | b'\n' => self.finish(),
                0 => {}
                _ if self.line.len() == LONGEST => self.skipped += 1,
                _ => self.line.push(byte),
            }
            if self.prompt && self.line.as_slice() == b"> " {
                self.line.clear();
                self.prompt = false;
                self.tell(Event::Prompt);
            }
        }
    }

    /// Ends the present line, as when nothing came for a while.
    pub fn finish(&mut self) {
        let line = std::mem::take(&mut self.line);
        if self.skipped > 0 {
            let bytes = line.len() + std::mem::take(&mut self.skipped);
            return self.tell(Event::Skipped { bytes });
        }
        let text = String::from_utf8_lossy(&line);
        // A prompt that is not waited for, or one of a modem that leaves out the blank.
        if text.trim().is_empty() {
            return;
        }
        if let Some(head) = self.head.take() {
            return self.tell(Event::Notice(Notice::Passed { head, body: text.trim_end().to_owned() }));
        }
        match heads(&text) {
            Some(head) => self.head = Some(head),
            None => self.tell(event(&text)),
        }
    }

    fn tell(&mut self, event: Event) {
        if self.ready.len() == MOST {
            self.ready.pop_front();
        }
        self.ready.push_back(event);
    }

    /// Takes the next event, if there is one.
    #[expect(clippy::should_implement_trait, reason = "the codecs' verb; it gives more after the next push")]
    pub fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }
}

fn heads(line: &str) -> Option<String> {
    after(line, "+CMT").or_else(|| after(line, "+CDS")).map(str::to_owned)
}

fn event(line: &str) -> Event {
    let trimmed = line.trim();
    let ending = match trimmed {
        "OK" => Some(Ending::Ok),
        "ERROR" | "COMMAND NOT SUPPORT" => Some(Ending::Refused(Fault::PLAIN)),
        _ => {
            let told = |name, kind| after(trimmed, name).map(|text| Ending::Refused(Fault::of(kind, text)));
            told("+CME ERROR", Kind::Equipment).or_else(|| told("+CMS ERROR", Kind::Message))
        }
    };
    if let Some(ending) = ending {
        return Event::End(ending);
    }
    notice(trimmed).map_or_else(|| Event::Text(line.trim_end().to_owned()), Event::Notice)
}

/// What comes unasked; `None` for what may be an answer.
fn notice(line: &str) -> Option<Notice> {
    match line {
        "RING" => return Some(Notice::Ring),
        "NO CARRIER" | "BUSY" | "NO ANSWER" | "MISSED_CALL" => return Some(Notice::HungUp),
        "RDY" | "^SYSSTART" | "START" => return Some(Notice::Restarted),
        _ => {}
    }
    if after(line, "+CRING").is_some() {
        return Some(Notice::Ring);
    }
    if let Some(rest) = after(line, "+CMTI").or_else(|| after(line, "+CDSI")) {
        let fields = fields(rest);
        let storage = fields.first()?.text.clone();
        return Some(Notice::Stored { storage, index: fields.get(1)?.number()? });
    }
    if let Some(rest) = after(line, "+CLIP") {
        let fields = fields(rest);
        // The answer to AT+CLIP? is two numbers.
        let number = fields.first().filter(|field| field.quoted)?;
        return Some(Notice::Caller(number.filled().map(str::to_owned)));
    }
    answer::network_notice(line).map(Notice::Network)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(chunks: &[&[u8]], prompt: bool) -> Vec<Event> {
        let mut decoder = Decoder::new();
        decoder.await_prompt(prompt);
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            found.extend(std::iter::from_fn(|| decoder.next()));
        }
        decoder.finish();
        found.extend(std::iter::from_fn(|| decoder.next()));
        found
    }

    #[test]
    fn an_answer_among_what_comes_unasked_is_taken_apart() {
        let stream = b"AT+CSQ\r\r\n+CMTI: \"SM\",3\r\n\r\n+CSQ: 20,99\r\n\r\nRING\r\n\r\n+CLIP: \"+34666\",145,,,,0\r\n\r\nOK\r\n";
        let found = events(&[stream], false);
        assert_eq!(
            found,
            [
                Event::Text("AT+CSQ".into()),
                Event::Notice(Notice::Stored { storage: "SM".into(), index: 3 }),
                Event::Text("+CSQ: 20,99".into()),
                Event::Notice(Notice::Ring),
                Event::Notice(Notice::Caller(Some("+34666".into()))),
                Event::End(Ending::Ok),
            ]
        );
    }

    #[test]
    fn a_prompt_has_no_line_end_and_is_one_only_when_it_is_awaited() {
        assert_eq!(events(&[b"\r\n> "], true), [Event::Prompt]);
        assert_eq!(events(&[b"\r\n> "], false), [Event::Text(">".into())]);
        assert_eq!(events(&[b"> quoted\r\n"], false), [Event::Text("> quoted".into())]);
    }

    #[test]
    fn a_message_that_is_passed_on_is_two_lines() {
        let found = events(&[b"+CMT: ,24\r\n0791\r\nOK\r\n"], false);
        assert_eq!(
            found,
            [Event::Notice(Notice::Passed { head: ",24".into(), body: "0791".into() }), Event::End(Ending::Ok)]
        );
    }

    #[test]
    fn refusals_are_told_with_code_or_words() {
        let found = events(&[b"+CMS ERROR: 500\r\n+CME ERROR: SIM busy\r\nERROR\r\n"], false);
        let told: Vec<_> = found
            .iter()
            .map(|event| match event {
                Event::End(Ending::Refused(fault)) => fault.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(told, ["CMS ERROR 500 (unknown)", "CME ERROR (SIM busy)", "ERROR"]);
    }

    #[test]
    fn an_answer_to_a_query_of_the_registration_is_no_notice() {
        for (line, is_notice) in [
            ("+CREG: 0,1", false),
            ("+CREG: 2,1,\"00C3\",\"0001A2B3\",7", false),
            ("+CREG: 1", true),
            ("+CEREG: 5,\"00C3\",\"0001A2B3\",7", true),
            ("+CLIP: 1,1", false),
        ] {
            let found = events(&[line.as_bytes(), b"\r\n"], false);
            assert_eq!(matches!(found[..], [Event::Notice(_)]), is_notice, "{line}");
        }
    }

    #[test]
    fn a_flood_without_line_ends_takes_no_memory() {
        let mut decoder = Decoder::new();
        for _ in 0..50 {
            decoder.push(&[0xAA; 5000]);
        }
        assert!(decoder.line.capacity() <= 2 * LONGEST);
        decoder.push(b"\r\nOK\r\n");
        assert_eq!(decoder.next(), Some(Event::Skipped { bytes: 250_000 }));
        assert_eq!(decoder.next(), Some(Event::End(Ending::Ok)));
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same(
            pieces in proptest::collection::vec(prop_oneof![
                Just(b"\r\nOK\r\n".to_vec()), Just(b"\r\n> ".to_vec()), Just(b"\r\n+CMTI: \"ME\",1\r\n".to_vec()),
                Just(b"\r\n+CMT: ,3\r\nABC\r\n".to_vec()), Just(b"+CREG: ".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..30),
            ], 0..20),
            cuts in proptest::collection::vec(1usize..40, 1..30),
            prompt: bool,
        ) {
            let stream: Vec<u8> = pieces.concat();
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(events(&chunks, prompt), events(&[&stream], prompt));
        }

        #[test]
        fn after_noise_the_next_answer_is_found(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new();
            decoder.push(&noise);
            // The noise may have been the head of a message whose body is the next line.
            decoder.push(b"\r\nx\r\n+CSQ: 1,99\r\nOK\r\n");
            let found: Vec<_> = std::iter::from_fn(|| decoder.next()).collect();
            let end = [Event::Text("+CSQ: 1,99".into()), Event::End(Ending::Ok)];
            prop_assert!(found.ends_with(&end));
        }
    }
}
