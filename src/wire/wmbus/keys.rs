//! The keys of meters, and the file that holds them.
//!
//! One meter a line, `NUMBER = KEY` or `NUMBER.MAN = KEY` or `NUMBER.MAN.VERSION.TYPE = KEY`: the
//! identification number of eight digits, the manufacturer's three letters, version and device type in
//! two hex digits each, the key in 32. `#` starts a comment, blank lines mean nothing. The line that
//! says most about a meter wins. Invariant: a key or a part of it is never in a message.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::meter::Meter;
use crate::wire::aes::KEY;

/// The largest file of keys that is worth reading, in bytes: some 20,000 meters.
pub const LARGEST_FILE: u64 = 1 << 20;

/// Keys by meter; never shown.
#[derive(Clone, Default)]
pub struct Keys {
    named: HashMap<Name, [u8; KEY]>,
    any: Option<[u8; KEY]>,
    /// Those of further files, which are tried in this order.
    further: Vec<Arc<Keys>>,
}

/// As much of an address as a line gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Name {
    id: u32,
    manufacturer: Option<u16>,
    kind: Option<(u8, u8)>,
}

/// A line that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {what}")]
pub struct KeyFault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it and how it should look.
    pub what: &'static str,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.len())
    }
}

impl Keys {
    /// No keys at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// One key for whatever meter.
    pub fn for_any(key: [u8; KEY]) -> Self {
        Self { any: Some(key), ..Self::default() }
    }

    /// The keys of several files together; a meter that several name has a key of each.
    pub fn of_all(files: impl IntoIterator<Item = Arc<Keys>>) -> Self {
        Self { further: files.into_iter().filter(|keys| !keys.is_empty()).collect(), ..Self::default() }
    }

    /// Reads the text of a file: the good lines, and what is wrong with the others.
    pub fn parse(text: &str) -> (Self, Vec<KeyFault>) {
        let (mut keys, mut faults) = (Self::default(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            match entry(line) {
                Ok((name, key)) => {
                    if keys.named.insert(name, key).is_some_and(|before| before != key) {
                        faults.push(KeyFault { line: number + 1, what: "gives another key to a meter that has one" });
                    }
                }
                Err(what) => faults.push(KeyFault { line: number + 1, what }),
            }
        }
        (keys, faults)
    }

    /// Reads a key as 32 hex digits.
    pub fn key(text: &str) -> Option<[u8; KEY]> {
        data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?.try_into().ok()
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        let further: usize = self.further.iter().map(|keys| keys.len()).sum();
        self.named.len() + usize::from(self.any.is_some()) + further
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys of a meter: of each file that of the line that says most about it.
    pub fn of(&self, meter: Meter) -> impl Iterator<Item = &[u8; KEY]> {
        let further = self.further.iter().filter_map(move |keys| keys.own(meter));
        self.own(meter).into_iter().chain(further)
    }

    fn own(&self, meter: Meter) -> Option<&[u8; KEY]> {
        let id = meter.id;
        let manufacturer = Some(meter.manufacturer & !Meter::LOCAL);
        let kind = Some((meter.version, meter.device));
        let names = [
            Name { id, manufacturer, kind },
            Name { id, manufacturer, kind: None },
            Name { id, manufacturer: None, kind: None },
        ];
        names.iter().find_map(|name| self.named.get(name)).or(self.any.as_ref())
    }
}

fn entry(line: &str) -> Result<(Name, [u8; KEY]), &'static str> {
    let (name, key) = line.split_once('=').ok_or("has no =; write NUMBER = KEY")?;
    let mut parts = name.trim().split('.');
    let id = parts.next().unwrap_or("");
    let id = hex(id, 8).ok_or("names no meter; its number has eight digits")?;
    let manufacturer = match parts.next() {
        None => None,
        Some(letters) => {
            let code = Meter::manufacturer_code(&letters.to_ascii_uppercase());
            Some(code.ok_or("names no manufacturer; it has three letters")?)
        }
    };
    let kind = match (parts.next(), parts.next(), parts.next()) {
        (None, None, None) => None,
        (Some(version), Some(device), None) => {
            let byte = |text| hex(text, 2).and_then(|byte| u8::try_from(byte).ok());
            Some(byte(version).zip(byte(device)).ok_or("has a version or type that is not two hex digits")?)
        }
        _ => return Err("names a meter in a form that is not NUMBER, NUMBER.MAN or NUMBER.MAN.VERSION.TYPE"),
    };
    let key = Keys::key(key).ok_or("has no key of 32 hex digits behind its =")?;
    Ok((Name { id, manufacturer, kind }, key))
}

fn hex(text: &str, digits: usize) -> Option<u32> {
    let sound = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    sound.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "# the street\n\n12345678 = 000102030405060708090A0B0C0D0E0F # kitchen\r\n\
                        12345678.KAM = 10101010101010101010101010101010\n\
                        12345678.kam.1B.16=20202020202020202020202020202020\n2124589c = 30303030303030303030303030303030";

    fn meter(letters: &str, id: u32, version: u8, device: u8) -> Meter {
        Meter { manufacturer: Meter::manufacturer_code(letters).unwrap(), id, version, device }
    }

    #[test]
    fn the_line_that_says_most_about_a_meter_wins() {
        let (keys, faults) = Keys::parse(FILE);
        assert_eq!((keys.len(), faults), (4, vec![]));
        let first = |meter| keys.of(meter).next().map(|key| key[1]);
        assert_eq!(first(meter("KAM", 0x1234_5678, 0x1B, 0x16)), Some(0x20));
        assert_eq!(first(meter("KAM", 0x1234_5678, 0x1C, 0x16)), Some(0x10));
        assert_eq!(first(meter("DME", 0x1234_5678, 0x1B, 0x16)), Some(0x01));
        assert_eq!(first(meter("SAP", 0x2124_589C, 1, 7)), Some(0x30));
        assert_eq!(first(meter("KAM", 0x1234_5679, 0x1B, 0x16)), None);
        let local = Meter { manufacturer: 0x8000 | 0x2C2D, ..meter("KAM", 0x1234_5678, 0x1B, 0x16) };
        assert_eq!(first(local), Some(0x20), "an address that is not unique world-wide is looked up alike");
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_the_others_count() {
        let secret = "aa0102030405060708090a0b0c0d0e0f";
        let text = format!(
            "12345678 = {secret}\n12345678 {secret}\n1234567 = {secret}\n12345678.KAMS = {secret}\n\
             12345678.KAM.1b = {secret}\n12345678.KAM.1b.1g = {secret}\n12345678.KAM = {secret}00\n\
             12345678 = bb0102030405060708090a0b0c0d0e0f\n+2345678 = {secret}"
        );
        let (keys, faults) = Keys::parse(&text);
        assert_eq!(keys.len(), 1);
        assert_eq!(faults.iter().map(|f| f.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 9]);
        let told = format!("{faults:?} {keys:?} {}", faults[0]);
        assert!(!told.contains("0102") && told.contains("line 2"), "{told}");
    }

    #[test]
    fn of_several_files_each_gives_its_key_in_their_order() {
        let file = |text: &str| Arc::new(Keys::parse(text).0);
        let other = "12345678 = bb0102030405060708090a0b0c0d0e0f";
        let all = Keys::of_all([file(FILE), file(""), file(other)]);
        let keys: Vec<u8> = all.of(meter("KAM", 0x1234_5678, 0x1B, 0x16)).map(|key| key[0]).collect();
        assert_eq!((keys, all.len(), all.is_empty()), (vec![0x20, 0xBB], 5, false));
        assert!(Keys::of_all([file("")]).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            let (keys, faults) = Keys::parse(&text);
            prop_assert!(keys.len() + faults.len() <= text.lines().count());
        }
    }
}
