//! Text mode of the simulated modem.

use crate::model::Timestamp;
use crate::wire::modem::{Field, hex_of_text, text_of_hex};
use crate::wire::sms::{self, Body, Message};

/// The number that a field is.
pub(super) fn number<N: std::str::FromStr>(field: &Field) -> Option<N> {
    field.number()
}

/// What was typed in a character set, as text; `None` when it is none.
pub(super) fn plain(typed: &str, charset: &str) -> Option<String> {
    if charset == "UCS2" && !typed.is_empty() { text_of_hex(typed) } else { Some(typed.to_owned()) }
}

/// What is behind the index in a list, and the text in the next line.
pub(super) fn shown(status: u8, pdu: &[u8], charset: &str) -> String {
    let words = ["REC UNREAD", "REC READ", "STO UNSENT", "STO SENT"];
    let status = words.get(usize::from(status)).unwrap_or(&"REC READ");
    let of = |text: &str| if charset == "UCS2" { hex_of_text(text) } else { text.to_owned() };
    match sms::decode(pdu) {
        Ok(Message::Deliver(message)) => {
            let at = message.at.map(written).unwrap_or_default();
            let body = body(&message.data.body, charset);
            format!("\"{status}\",\"{}\",,\"{at}\"\r\n{body}", of(&message.from.to_string()))
        }
        Ok(Message::Submit(message)) => {
            format!("\"{status}\",\"{}\",,\r\n{}", of(&message.to.to_string()), body(&message.data.body, charset))
        }
        _ => format!("\"{status}\",\"\",,\r\n?"),
    }
}

fn body(body: &Body, charset: &str) -> String {
    match body {
        // What the character set can't show is told in hex, as modems do.
        Body::Ucs2(_) => hex_of_text(&body.text()),
        Body::Octets(octets) => data_encoding::HEXUPPER.encode(octets),
        Body::Gsm(_) if charset == "UCS2" => hex_of_text(&body.text()),
        Body::Gsm(_) => body.text().replace('\n', "\r\n"),
    }
}

/// A time as `26/11/22,15:00:00+04`.
fn written(at: Timestamp) -> String {
    let local = time::OffsetDateTime::from_unix_timestamp(at.as_millis() / 1000 + 3600);
    let local = local.unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (local.date(), local.time());
    format!(
        "{:02}/{:02}/{:02},{:02}:{:02}:{:02}+04",
        date.year() % 100,
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}
