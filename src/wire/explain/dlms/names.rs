//! Words of the standard, and of what only programs call by a name.

use std::fmt::Debug;

use crate::wire::dlms::describe;

/// An APDU's name by its tag, as the standard spells it.
pub(super) const fn name(tag: u8) -> &'static str {
    match tag {
        0x01 => "initiate-request",
        0x05 => "read-request",
        0x06 => "write-request",
        0x08 => "initiate-response",
        0x0C => "read-response",
        0x0D => "write-response",
        0x0E => "confirmed-service-error",
        0x0F => "data-notification",
        0x16 => "unconfirmed-write-request",
        0x18 => "information-report-request",
        0x21..=0x38 => "glo-ciphered short-name service",
        0x41..=0x58 => "ded-ciphered short-name service",
        0x60 => "AARQ",
        0x61 => "AARE",
        0x62 => "RLRQ",
        0x63 => "RLRE",
        0xC0 => "get-request",
        0xC1 => "set-request",
        0xC2 => "event-notification-request",
        0xC3 => "action-request",
        0xC4 => "get-response",
        0xC5 => "set-response",
        0xC7 => "action-response",
        0xC8 => "glo-get-request",
        0xC9 => "glo-set-request",
        0xCA => "glo-event-notification-request",
        0xCB => "glo-action-request",
        0xCC => "glo-get-response",
        0xCD => "glo-set-response",
        0xCF => "glo-action-response",
        0xD0 => "ded-get-request",
        0xD1 => "ded-set-request",
        0xD2 => "ded-event-notification-request",
        0xD3 => "ded-action-request",
        0xD4 => "ded-get-response",
        0xD5 => "ded-set-response",
        0xD7 => "ded-action-response",
        0xD8 => "exception-response",
        0xD9 => "access-request",
        0xDA => "access-response",
        0xDB => "general-glo-ciphering",
        0xDC => "general-ded-ciphering",
        0xDD => "general-ciphering",
        0xDF => "general-signing",
        0xE0 => "general-block-transfer",
        _ => "unknown APDU",
    }
}

/// Whether an APDU of this tag, which tells no system title, is the client's.
pub(super) const fn is_of_client(tag: u8) -> bool {
    matches!(tag, 0x21 | 0x25 | 0x26 | 0x36 | 0x41 | 0x45 | 0x46 | 0x56 | 0xC8 | 0xC9 | 0xCB | 0xD0 | 0xD1 | 0xD3)
}

/// Three letters of the maker and a number (IEC 62056-5-3, clause 4.3.4).
pub(super) fn title_in_words(title: &[u8]) -> String {
    match title {
        [letters @ .., _, _, _, _, _] if letters.iter().all(u8::is_ascii_alphanumeric) => {
            format!("made by {}", String::from_utf8_lossy(letters))
        }
        _ => String::new(),
    }
}

/// An outcome as the standard spells it: `ReadWriteDenied` is `read-write-denied`.
pub(super) fn spelt(word: impl Debug) -> String {
    let mut text = String::new();
    for c in format!("{word:?}").chars() {
        if c.is_ascii_uppercase() && !text.is_empty() && !text.ends_with(['-', '(', ' ']) {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// The same of what may be missing.
pub(super) fn spelt_or<T: Debug>(word: Option<T>, missing: &str) -> String {
    word.map_or_else(|| missing.to_owned(), spelt)
}

/// What a class calls one of its attributes, behind its number.
pub(super) fn attribute(class: u16, number: i8) -> String {
    let class = describe(class, 0);
    let name = class.and_then(|class| class.attribute(number)).map_or("", |attribute| attribute.name);
    if name.is_empty() { number.to_string() } else { format!("{number} {name}") }
}

/// What a class calls one of its methods, behind its number.
pub(super) fn method(class: u16, number: i8) -> String {
    let class = describe(class, 0);
    let name = class.and_then(|class| class.method(number)).map_or("", |method| method.name);
    if name.is_empty() { number.to_string() } else { format!("{number} {name}") }
}

/// What a class is called, behind its number.
pub(super) fn class(number: u16) -> String {
    describe(number, 0).map_or_else(|| number.to_string(), |class| format!("{number} {}", class.name))
}

/// Whether an APDU of this tag may hold a password or key: an AARQ, what writes or acts, and what carries such an APDU.
pub(super) const fn may_hold_secret(tag: u8) -> bool {
    matches!(tag, 0x06 | 0x16 | 0x60 | 0xC1 | 0xC3 | 0xD9 | 0xE0 | 0xE6 | 0xE7)
}

/// The bit of an APDU's invoke id, and whether it is an answer with values; `None` of what has no such id.
pub(super) fn invoked(apdu: &[u8]) -> Option<(u16, bool)> {
    match apdu {
        [tag @ (0xC0 | 0xC1 | 0xC3 | 0xC4 | 0xC7), _, id, ..] => Some((1 << (id & 0x0F), matches!(tag, 0xC4 | 0xC7))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dlms::DataAccessResult;

    #[test]
    fn words_are_spelt_as_the_standard_does() {
        assert_eq!(spelt(DataAccessResult::ReadWriteDenied), "read-write-denied");
        assert_eq!((spelt_or(None::<u8>, "none").as_str(), class(3).as_str()), ("none", "3 Register"));
        assert!(attribute(3, 2).starts_with("2 ") && method(70, 1).starts_with("1 "));
        assert_eq!((attribute(3, 99), class(40_000)), ("99".to_owned(), "40000".to_owned()));
    }
}
