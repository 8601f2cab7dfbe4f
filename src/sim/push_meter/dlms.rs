//! The DLMS side of the simulated meter: a writer that shares nothing with the reader in `wire` but the cipher.

use super::{Registers, TITLE};
use crate::wire::gcm::Key;

/// How a DLMS meter pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One HDLC UI frame with groups of name, value, scaler and unit, as in Norway.
    Frame,
    /// Segments in several HDLC UI frames.
    Segments,
    /// Wired M-Bus frames with values one after the other, as in Austria.
    Mbus,
    /// General block transfer in HDLC UI frames, of which only the first has an LLC header.
    Blocks,
    /// The wrapper, with a push object list before the values.
    Wrapper,
}

/// The keys of a meter that ciphers.
pub type Keys = ([u8; 16], [u8; 16]);

const AUTHENTICATED_AND_ENCRYPTED: u8 = 0x30;
const ENERGY: [u8; 6] = [1, 0, 1, 8, 0, 255];

/// One push; `now` is written as RFC 3339.
pub(super) fn encode(form: Form, keys: Option<Keys>, registers: &Registers, now: &str, counter: u32) -> Vec<u8> {
    let mut apdu = vec![0x0F, 0x40];
    apdu.extend_from_slice(counter.to_be_bytes().get(1..).unwrap_or_default());
    apdu.extend(octets(&time(now)));
    apdu.extend(body(form, registers, now));
    let apdu = match keys {
        Some(keys) => seal(keys, counter, &apdu).unwrap_or_default(),
        None => apdu,
    };
    match form {
        Form::Frame => frame(false, &llc(&apdu)),
        Form::Segments => {
            let whole = llc(&apdu);
            let last = whole.len().div_ceil(120);
            (1..).zip(whole.chunks(120)).flat_map(|(number, part)| frame(number < last, part)).collect()
        }
        Form::Mbus => {
            let last = apdu.len().div_ceil(200);
            let parts = (1_u8..).zip(apdu.chunks(200));
            parts.flat_map(|(number, part)| mbus(number - 1, usize::from(number) == last, part)).collect()
        }
        Form::Blocks => {
            let last = apdu.len().div_ceil(100);
            let blocks = (1_u8..).zip(apdu.chunks(100)).map(|(number, part)| {
                let control = if usize::from(number) == last { 0xC0 } else { 0x40 };
                [&[0xE0, control, 0, number, 0, 0, short(part.len())], part].concat()
            });
            let framed = blocks.enumerate().map(|(at, block)| frame(false, &if at == 0 { llc(&block) } else { block }));
            framed.flatten().collect()
        }
        Form::Wrapper => {
            let length = u16::try_from(apdu.len()).unwrap_or_default().to_be_bytes();
            [&[0, 1, 0, 1, 0, 103], &length[..], &apdu].concat()
        }
    }
}

fn body(form: Form, registers: &Registers, now: &str) -> Vec<u8> {
    // The register holds tenths of watt-hours.
    let energy = registers.energy.first().copied().unwrap_or_default() / 100;
    let energy = [&[0x06][..], &u32::try_from(energy).unwrap_or(u32::MAX).to_be_bytes()].concat();
    let power = [&[0x06][..], &registers.power.to_be_bytes()].concat();
    let voltage = [&[0x12][..], &u16::try_from(registers.voltage).unwrap_or(u16::MAX).to_be_bytes()].concat();
    let values = [
        (ENERGY, energy, scaler_unit(-1, 30)),
        ([1, 0, 1, 7, 0, 255], power, scaler_unit(0, 27)),
        ([1, 0, 32, 7, 0, 255], voltage, scaler_unit(-1, 35)),
    ];
    let serial = tagged(0x0A, b"WEI0000123456789");
    match form {
        Form::Frame => {
            let id = [&[0x02, 2][..], &tagged(0x09, &[0, 0, 96, 1, 0, 255]), &serial].concat();
            let kind = [&[0x02, 2][..], &tagged(0x09, &[1, 1, 0, 2, 129, 255]), &tagged(0x0A, b"WEIR_V0001")].concat();
            let groups =
                values.map(|(name, value, scale)| [&[0x02, 3], &tagged(0x09, &name)[..], &value, &scale].concat());
            [&[0x01, 5], &kind[..], &id, &groups.concat()].concat()
        }
        Form::Segments | Form::Mbus | Form::Blocks => {
            let flat = values.map(|(name, value, scale)| [&tagged(0x09, &name)[..], &value, &scale].concat());
            [&[0x02, 11], &tagged(0x09, &time(now))[..], &flat.concat(), &tagged(0x09, b"181220000009")].concat()
        }
        Form::Wrapper => {
            let definition = |class: u8, name: [u8; 6], attribute: u8| {
                [&[0x02, 4, 0x12, 0, class], &tagged(0x09, &name)[..], &[0x0F, attribute, 0x12, 0, 0]].concat()
            };
            let mut list = vec![definition(40, [0, 8, 25, 9, 0, 255], 2)];
            let mut content = Vec::new();
            for (name, value, scale) in values {
                list.extend([definition(3, name, 2), definition(3, name, 3)]);
                content.extend([value, scale].concat());
            }
            [&[0x02, 7, 0x01, 7], &list.concat()[..], &content].concat()
        }
    }
}

fn scaler_unit(scaler: i8, unit: u8) -> Vec<u8> {
    let [scaler] = scaler.to_be_bytes();
    vec![0x02, 2, 0x0F, scaler, 0x16, unit]
}

/// Twelve octets of a time in UTC without a day of the week.
fn time(now: &str) -> [u8; 12] {
    let part = |from: usize, to: usize| now.get(from..to).and_then(|text| text.parse::<u16>().ok()).unwrap_or_default();
    let [high, low] = part(0, 4).to_be_bytes();
    let small = |from: usize| u8::try_from(part(from, from + 2)).unwrap_or_default();
    [high, low, small(5), small(8), 0xFF, small(11), small(14), small(17), 0xFF, 0, 0, 0]
}

/// A length that fits a byte.
fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or_default()
}

fn octets(bytes: &[u8]) -> Vec<u8> {
    [&[short(bytes.len())], bytes].concat()
}

fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag], &octets(bytes)[..]].concat()
}

fn seal((encryption, authentication): Keys, counter: u32, apdu: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().zip(TITLE.into_iter().chain(counter.to_be_bytes())) {
        *to = from;
    }
    let associated = [&[AUTHENTICATED_AND_ENCRYPTED][..], &authentication].concat();
    let mut text = apdu.to_vec();
    let tag = Key::new(&encryption)?.seal(nonce, &associated, &mut text)?;
    let inside = [&[AUTHENTICATED_AND_ENCRYPTED], &counter.to_be_bytes()[..], &text, &tag].concat();
    let length = u16::try_from(inside.len()).ok()?.to_be_bytes();
    Some([&tagged(0xDB, &TITLE)[..], &[0x82], &length, &inside].concat())
}

fn llc(apdu: &[u8]) -> Vec<u8> {
    [&[0xE6, 0xE7, 0x00], apdu].concat()
}

/// An HDLC UI frame from device 1, physical 17, to everybody's client.
fn frame(more: bool, information: &[u8]) -> Vec<u8> {
    let length = u16::try_from(2 + 1 + 2 + 1 + 2 + information.len() + 2).unwrap_or_default();
    let [high, low] = (0xA000 | u16::from(more) << 11 | length).to_be_bytes();
    let mut bytes = vec![high, low, 0x41, 0x02, 0x23, 0x13];
    bytes.extend(super::sml::crc(&bytes));
    bytes.extend_from_slice(information);
    bytes.extend(super::sml::crc(&bytes));
    [&[0x7E], &bytes[..], &[0x7E]].concat()
}

/// A frame of wired M-Bus for everybody.
fn mbus(number: u8, last: bool, data: &[u8]) -> Vec<u8> {
    let ci = number | if last { 0x10 } else { 0 };
    let inside = [&[0x53, 0xFF, ci, 0x01, 0x67], data].concat();
    let length = short(inside.len());
    let sum = inside.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [&[0x68, length, length, 0x68], &inside[..], &[sum, 0x16]].concat()
}
