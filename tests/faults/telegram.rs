//! The telegrams: each has a number and follows wholly from it.

use data_encoding::{BASE64, HEXUPPER};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir::wire::mbal::{self, Mbal};
use weir::wire::wmbus::Meter;

/// One in so many is a priority frame.
const PRIORITY_EVERY: u64 = 10;

pub fn is_priority(number: u64) -> bool {
    number.is_multiple_of(PRIORITY_EVERY)
}

/// Telegram `number`, about 150 bytes.
pub fn telegram(number: u64) -> Vec<u8> {
    let mut filling = [0u8; 120];
    StdRng::seed_from_u64(number).fill(&mut filling);
    let body = [&number.to_le_bytes()[..], &filling].concat();
    let manufacturer = Meter::manufacturer_code("KAM").unwrap();
    let meter = Meter { manufacturer, id: 0x7100_0000 + (number % 50) as u32, version: 0x1B, device: 0x16 };
    let frame = Mbal { control: u8::from(is_priority(number)), meter, command: 0x40, mbus: &body };
    let mut bytes = Vec::new();
    mbal::encode(&frame, &mut bytes).unwrap();
    bytes
}

/// The line with which a receiver brings it.
pub fn line(number: u64) -> String {
    format!("{};-70;0\n", HEXUPPER.encode(&telegram(number)))
}

/// A frame in a message: the number of its telegram, `None` when it is not byte for byte one of
/// ours, and the sequence that the gateway gave it.
pub type Found = (Option<u64>, u64);

/// The frames of a message, weir's or (a bare telegram) the bridge's.
pub fn frames_of(payload: &[u8]) -> Vec<Found> {
    if payload.first() != Some(&b'{') {
        let number = number_of(payload);
        return vec![(number, number.unwrap_or(0))];
    }
    let json: Value = serde_json::from_slice(payload).unwrap_or_default();
    let frames = json["frames"].as_array().map_or(&[][..], Vec::as_slice);
    let frame = |frame: &Value| {
        let bytes = BASE64.decode(frame["frame"].as_str().unwrap_or_default().as_bytes()).unwrap_or_default();
        (number_of(&bytes), frame["meta"]["sequence"].as_u64().unwrap_or(0))
    };
    frames.iter().map(frame).collect()
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    let frame = mbal::decode(bytes).ok()?;
    let number = u64::from_le_bytes(*frame.mbus.first_chunk()?);
    (telegram(number) == bytes).then_some(number)
}
