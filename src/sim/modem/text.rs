//! Text mode of the simulated modem.

use crate::model::Timestamp;
use crate::wire::modem::{Field, hex_of_text, text_of_hex};
use crate::wire::sms::{self, Address, Body, Message, alphabet};

/// The number that a field is.
pub(super) fn number<N: std::str::FromStr>(field: &Field) -> Option<N> {
    field.number()
}

/// What was typed in a character set, as text; `None` when it is none.
pub(super) fn plain(typed: &str, charset: &str) -> Option<String> {
    match charset {
        "UCS2" if !typed.is_empty() => text_of_hex(typed),
        "GSM" => Some(alphabet::decode(typed.as_bytes())),
        _ => Some(typed.to_owned()),
    }
}

/// What is behind the index in a list, and the text in the next line. `details`: more is shown (`+CSDH=1`), less of it in a
/// list.
pub(super) fn shown(status: u8, pdu: &[u8], charset: &str, details: Option<bool>) -> String {
    let words = ["REC UNREAD", "REC READ", "STO UNSENT", "STO SENT"];
    let status = words.get(usize::from(status)).unwrap_or(&"REC READ");
    let of = |text: &str| if charset == "UCS2" { hex_of_text(text) } else { text.to_owned() };
    let (who, at, coding, said) = match sms::decode(pdu) {
        Ok(Message::Deliver(message)) => (message.from, message.at, message.coding, message.data.body),
        Ok(Message::Submit(message)) => (message.to, None, message.coding, message.data.body),
        _ => return format!("\"{status}\",\"\",,\r\n?"),
    };
    let at = at.map(|at| format!("\"{}\"", written(at))).unwrap_or_default();
    let body = body(&said, charset);
    let kind = who.type_octet();
    let more = match details {
        None => String::new(),
        Some(true) => format!(",{kind},{}", body.len()),
        Some(false) => {
            let centre = Address::International("34609090909".to_owned());
            format!(",{kind},4,0,{coding},\"{}\",{},{}", of(&centre.to_string()), centre.type_octet(), body.len())
        }
    };
    format!("\"{status}\",\"{}\",,{at}{more}\r\n{body}", of(&who.to_string()))
}

fn body(body: &Body, charset: &str) -> String {
    match body {
        // What the character set can't show is told in hex, as modems do.
        Body::Ucs2(_) => hex_of_text(&body.text()),
        Body::Octets(octets) => data_encoding::HEXUPPER.encode(octets),
        Body::Gsm(_) if charset == "UCS2" => hex_of_text(&body.text()),
        Body::Gsm(septets) if charset == "GSM" => septets.iter().map(|septet| char::from(*septet)).collect(),
        Body::Gsm(_) => body.text(),
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
