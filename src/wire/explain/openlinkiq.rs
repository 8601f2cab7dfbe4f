//! OpenlinkIQ's frame on the air in words: its header, what was mended, then the MBAL frame in it.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::{Explanation, Layer, Row, layers};
use crate::wire::openlinkiq::{self, Frame, length_on_air};
use crate::wire::{DecodeError, mbal};

pub(super) fn explain(bytes: &[u8]) -> Result<Explanation, DecodeError> {
    let received = openlinkiq::decode(bytes)?;
    let mbal = mbal::decode(&received.mbal)?;
    let mut json = Map::new();
    json.insert("format".into(), json!("openlinkiq-rf"));
    json.insert("length".into(), json!(bytes.len()));
    let mut found = vec![frame(&received, bytes, &mut json), layers::mbal(&mbal, &received.mbal, &mut json)];
    found.extend(layers::upper(&mbal.upper(), mbal.mbus, &mut json));
    let title = match received.corrected_bits() {
        0 => format!("OpenlinkIQ frame on the air, {} bytes, received without an error", bytes.len()),
        bits => format!("OpenlinkIQ frame on the air, {} bytes, {bits} wrong bits mended", bytes.len()),
    };
    Ok(Explanation { title, layers: found, json })
}

/// Tells whether the bytes are one whole frame and nothing else.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    bytes.len() <= openlinkiq::LONGEST
        && openlinkiq::decode(bytes).is_ok_and(|frame| length_on_air(frame.mbal.len(), frame.rate) == bytes.len())
}

/// What stands around the MBAL frame.
fn frame(received: &Frame, bytes: &[u8], json: &mut Map<String, Value>) -> Layer {
    let Frame { rate, mbal, header_corrected, block_corrected, iterations } = received;
    json.insert("rate".into(), json!(rate.word()));
    json.insert("mbal".into(), json!(HEXLOWER.encode(mbal)));
    json.insert("corrected_bits".into(), json!(received.corrected_bits()));
    json.insert("header_corrected_bits".into(), json!(header_corrected));
    json.insert("block_corrected_bits".into(), json!(block_corrected));
    json.insert("iterations".into(), json!(iterations));
    let row = |field, meaning| Row { field, bytes: String::new(), meaning };
    let code = match iterations {
        0 => "not needed: the CRC-32 of the block is good as received".to_owned(),
        1 => format!("{block_corrected} of the block's bits mended in 1 iteration"),
        many => format!("{block_corrected} of the block's bits mended in {many} iterations"),
    };
    let sent = length_on_air(mbal.len(), *rate);
    let rest = match bytes.len() {
        all if all > sent => format!("{} bytes after the frame's end are passed over", all - sent),
        all if all < sent => format!("{} bytes of parity are missing", sent - all),
        _ => "complete".to_owned(),
    };
    let block = format!("an MBAL frame of {} bytes and its CRC-32", mbal.len());
    let header = format!("rate {}, {header_corrected} of 82 bits mended", rate.word());
    Layer {
        title: "physical layer (OpenlinkIQ)",
        rows: vec![
            Row { field: "header", bytes: HEXLOWER.encode(bytes.get(..12).unwrap_or(bytes)), meaning: header },
            row("block", block),
            row("turbo code", code),
            row("length", rest),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, explain};
    use crate::wire::openlinkiq::{Rate, encode};

    fn frame() -> Vec<u8> {
        let hex = include_str!("../../../tests/fixtures/openlinkiq-rf/water-installation/input.hex");
        data_encoding::HEXLOWER.decode(hex.trim().as_bytes()).unwrap()
    }

    #[test]
    fn a_frame_is_recognised_and_the_mbal_frame_in_it_is_explained() {
        let explanation = explain(&frame(), None).unwrap();
        let json = explanation.to_json();
        assert_eq!((&json["format"], &json["rate"]), (&"openlinkiq-rf".into(), &"1/2".into()));
        assert_eq!((&json["priority"], &json["corrected_bits"]), (&true.into(), &0.into()));
        assert_eq!((&json["manufacturer"], &json["id"]), (&"KAW".into(), &"12341234".into()));
        let text = explanation.to_string();
        assert!(text.contains("not needed") && text.contains("SND-IR") && text.contains("AES-128-CBC"), "{text}");
        let mbal = json["mbal"].as_str().unwrap();
        let inner = explain(&data_encoding::HEXLOWER.decode(mbal.as_bytes()).unwrap(), Some(Format::Mbal)).unwrap();
        assert_eq!(inner.layers, explanation.layers[1..], "the same as the MBAL frame by itself");
    }

    #[test]
    fn what_was_mended_is_told() {
        let mut wrong = frame();
        wrong[1] ^= 0x01;
        wrong[30] ^= 0x18;
        wrong.extend([0xAA, 0x55]);
        let explanation = explain(&wrong, Some(Format::OpenlinkIq)).unwrap();
        let json = explanation.to_json();
        let counted = ["corrected_bits", "header_corrected_bits", "block_corrected_bits"].map(|key| json[key].clone());
        assert_eq!(counted, [3, 1, 2].map(serde_json::Value::from));
        let text = explanation.to_string();
        assert!(text.contains("3 wrong bits mended") && text.contains("2 bytes after the frame's end"), "{text}");
        let cut = explain(&frame()[..100], Some(Format::OpenlinkIq)).unwrap().to_string();
        assert!(cut.contains("18 bytes of parity are missing"), "{cut}");
    }

    #[test]
    fn only_a_whole_frame_is_recognised_unless_it_is_said_to_be_one() {
        let mbal = &frame()[12..61];
        let mut third = Vec::new();
        encode(mbal, Rate::Third, &mut third).unwrap();
        assert_eq!(explain(&third, None).unwrap().to_json()["rate"], "1/3");
        assert!(explain(&third[..150], None).is_err());
        assert!(explain(&third[..150], Some(Format::OpenlinkIq)).is_ok());
        assert!(explain(mbal, Some(Format::OpenlinkIq)).is_err());
    }
}
