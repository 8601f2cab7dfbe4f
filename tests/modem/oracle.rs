//! The codec of short messages against two that nobody here wrote: python-messaging and python-gsmmodem.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use data_encoding::HEXUPPER_PERMISSIVE;
use rand::{RngExt, SeedableRng};
use serde_json::{Value as Json, json};
use weir::model::Timestamp;
use weir::wire::sms::{self, Address, Assembler, Body, Deliver, Message, split};

use super::peers::python;

struct Codecs {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Codecs {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/sms_codec.py");
        let mut child =
            Command::new(python()).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn ask(&mut self, question: &Json) -> Json {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        let answer = self.lines.next().expect("the codecs answer; tests/run installs them").unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Codecs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers and texts of all lengths and alphabets.
fn messages(seed: u64, count: usize) -> Vec<(String, String)> {
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let gsm: Vec<char> =
        "abc XYZ 0123 @£$¥èéùìò ÅåΔ_ΦΓ ÆæßÉ !\"#%&'()*+,-./:;<=>? ÄÖÑÜ§ äöñüà €[]{}\\~^|".chars().collect();
    let wide: Vec<char> = "abc жизнь łódź 电表 ελλ €".chars().collect();
    (0..count)
        .map(|at| {
            let letters = if at % 3 == 0 { &wide } else { &gsm };
            let length = [1, 20, 69, 70, 71, 134, 135, 159, 160, 161, 300, 500][rng.random_range(0..12)];
            let text: String = (0..length).map(|_| letters[rng.random_range(0..letters.len())]).collect();
            let digits: String =
                (0..rng.random_range(5..13)).map(|_| char::from(b'0' + rng.random_range(0..10))).collect();
            (format!("+{}{digits}", rng.random_range(1..9)), text)
        })
        .collect()
}

#[test]
fn what_two_other_codecs_make_of_a_text_is_read_as_that_text() {
    let mut codecs = Codecs::start();
    let mut parts = 0;
    for (number, text) in messages(7, 150) {
        let made = codecs.ask(&json!({ "submit": [number, text] }));
        for codec in ["messaging", "gsmmodem"] {
            let mut whole: Option<Body> = None;
            for pdu in made[codec].as_array().unwrap() {
                let octets = HEXUPPER_PERMISSIVE.decode(pdu[0].as_str().unwrap().as_bytes()).unwrap();
                let Ok(Message::Submit(submit)) = sms::decode(&octets) else { panic!("{codec}: {pdu}") };
                assert_eq!(submit.to.to_string(), number, "{codec}: {pdu}");
                // What is read and written again is the same, octet for octet.
                let mut again = Vec::new();
                let length = submit.encode(&mut again).unwrap();
                assert_eq!(length, usize::try_from(pdu[1].as_u64().unwrap()).unwrap(), "{codec}: {pdu}");
                assert_eq!(again[1..], octets[1..], "{codec}: {pdu}");
                parts += 1;
                match &mut whole {
                    Some(whole) => whole.append(&submit.data.body),
                    None => whole = Some(submit.data.body),
                }
            }
            assert_eq!(whole.unwrap().text(), text, "{codec}");
        }
    }
    assert!(parts > 400, "{parts}");
}

#[test]
fn what_we_make_of_a_text_two_other_codecs_read_as_that_text() {
    let mut codecs = Codecs::start();
    let at = Timestamp::parse("2026-11-22T15:00:59Z").unwrap();
    for (number, text) in messages(11, 100) {
        let mut read = [String::new(), String::new()];
        let mut assembler = Assembler::new(std::time::Duration::from_secs(60));
        for part in split(&text, 9, 20).unwrap() {
            let named = part.part().map(|part| json!([part.reference, part.of, part.number])).unwrap_or(Json::Null);
            let deliver = Deliver {
                centre: Address::parse("+34609090909"),
                ..Deliver::new(Address::parse(&number).unwrap(), at, part)
            };
            let mut pdu = Vec::new();
            deliver.encode(4, &mut pdu).unwrap();
            let told = codecs.ask(&json!({ "deliver": data_encoding::HEXUPPER.encode(&pdu) }));
            for (codec, read) in ["messaging", "gsmmodem"].iter().zip(&mut read) {
                assert_eq!(told[codec][0], json!(number), "{codec}: {told}");
                assert_eq!(told[codec][3], named, "{codec}: {told}");
                read.push_str(told[codec][1].as_str().unwrap());
            }
            assert_eq!(told["messaging"][2], "2026-11-22T15:00:59Z", "{told}");
            if let Some(whole) = assembler.push(&deliver, (), std::time::Duration::ZERO).whole {
                assert_eq!(whole.text, text);
            }
        }
        assert_eq!(read[0], text, "python-messaging");
        // It takes septet 5F for a grave accent; 23.038 has the section sign there, as python-messaging.
        assert_eq!(read[1], text.replace('§', "`"), "python-gsmmodem");
    }
}
