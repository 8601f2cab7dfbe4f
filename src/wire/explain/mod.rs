//! A frame's bytes in words, layer by layer, for `weir decode`: as a table and as JSON.
//!
//! [`explain`] finds out by lengths and CRCs what the bytes are, unless it is told. An [`Explainer`]
//! has keys too, and remembers the formats that compact frames need.

mod content;
pub mod dlms;
mod layers;
mod mbus;
mod openlinkiq;

use std::fmt;

use serde_json::{Map, Value, json};

use super::dlms::open::Keys as DlmsKeys;
use super::wmbus::format::{self, FrameFormat};
use super::wmbus::{Formats, Keys};
use super::{DecodeError, mbal, wmbus};

/// What the bytes are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A wireless M-Bus telegram: without CRCs, or in frame format A or B with them.
    Wmbus,
    /// OpenlinkIQ's frame on the air, from behind the sync word.
    OpenlinkIq,
    /// An MBAL frame of OpenlinkIQ.
    Mbal,
    /// A wired M-Bus frame.
    Mbus,
    /// DLMS/COSEM: in HDLC, wired M-Bus or wrapper frames, or as it is.
    Dlms,
}

impl Format {
    /// Every format with its word.
    pub const ALL: &[(&str, Self)] = &[
        ("wmbus", Self::Wmbus),
        ("openlinkiq-rf", Self::OpenlinkIq),
        ("mbal", Self::Mbal),
        ("mbus", Self::Mbus),
        ("dlms", Self::Dlms),
    ];

    /// Finds a format by its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, format)| *format)
    }
}

/// One layer of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it is.
    pub title: &'static str,
    /// Its fields in the order of the wire.
    pub rows: Vec<Row>,
}

/// One field of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The field's name in the standard.
    pub field: &'static str,
    /// Its bytes as they travel, in hex.
    pub bytes: String,
    /// What they mean.
    pub meaning: String,
}

/// A frame in words. `Display` writes the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// One line that says what the frame is.
    pub title: String,
    /// Its layers from the lowest up.
    pub layers: Vec<Layer>,
    json: Map<String, Value>,
}

impl Explanation {
    /// The same as a JSON object; a field the frame does not have is left out.
    pub fn to_json(&self) -> Value {
        Value::Object(self.json.clone())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDEST_BYTES: usize = 24;
        let rows = || self.layers.iter().flat_map(|layer| &layer.rows);
        let field = rows().map(|row| row.field.len()).max().unwrap_or(0);
        let bytes = rows().map(|row| row.bytes.len()).filter(|n| *n <= WIDEST_BYTES).max().unwrap_or(0);
        writeln!(f, "{}", self.title)?;
        for layer in &self.layers {
            writeln!(f, "\n{}", layer.title)?;
            for row in &layer.rows {
                if row.bytes.len() > WIDEST_BYTES {
                    writeln!(f, "  {:field$}  {}", row.field, row.meaning)?;
                    for part in row.bytes.as_bytes().chunks(64) {
                        writeln!(f, "  {:field$}  {}", "", String::from_utf8_lossy(part))?;
                    }
                } else {
                    writeln!(f, "  {:field$}  {:bytes$}  {}", row.field, row.bytes, row.meaning)?;
                }
            }
        }
        Ok(())
    }
}

/// Explains a frame without any keys; without `format` it finds out by CRCs and lengths what the bytes are.
///
/// # Errors
/// Where the bytes are not what they are said to be, or, without `format`, that nothing fits.
pub fn explain(bytes: &[u8], format: Option<Format>) -> Result<Explanation, DecodeError> {
    Explainer::new(Keys::none()).explain(bytes, format)
}

/// Explains frames, with keys and with the formats of those it explained before.
#[derive(Debug)]
pub struct Explainer {
    keys: Keys,
    dlms: Option<DlmsKeys>,
    /// The system title of who sent DLMS that tells none.
    title: Option<[u8; 8]>,
    formats: Formats,
}

impl Explainer {
    /// Takes the keys of the meters.
    pub fn new(keys: Keys) -> Self {
        Self { keys, dlms: None, title: None, formats: Formats::default() }
    }

    /// Opens ciphered DLMS with these keys.
    #[must_use]
    pub fn with_dlms(self, keys: Option<DlmsKeys>) -> Self {
        Self { dlms: keys, ..self }
    }

    /// Takes this system title for DLMS that tells none.
    #[must_use]
    pub fn with_title(self, title: Option<[u8; 8]>) -> Self {
        Self { title, ..self }
    }

    /// Explains a frame; without `format` it finds out by CRCs and lengths what the bytes are.
    ///
    /// # Errors
    /// As [`explain`].
    pub fn explain(&mut self, bytes: &[u8], format: Option<Format>) -> Result<Explanation, DecodeError> {
        // Two checks in each HDLC frame, or all lengths of the others.
        if format == Some(Format::Dlms) || (format.is_none() && dlms::is_sure(bytes)) {
            return dlms::explain_of(bytes, self.dlms.as_ref(), self.title);
        }
        let mut found = outside(bytes, format)?;
        let (keys, formats) = (&self.keys, &mut self.formats);
        match found.json.get("format").and_then(Value::as_str) {
            Some("wmbus") => content::of_telegram(&mut found, &unframed(bytes).0, keys, formats),
            Some("mbus") => content::of_wired(&mut found, bytes, keys, formats),
            Some("mbal") => content::of_mbal(&mut found, bytes, keys, formats),
            // A frame on the air has its MBAL frame with it.
            Some("openlinkiq-rf") => {
                let inner = found.json.get("mbal").and_then(Value::as_str);
                let inner = inner.and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
                content::of_mbal(&mut found, &inner.unwrap_or_default(), keys, formats);
            }
            _ => {}
        }
        Ok(found)
    }
}

/// Explains all that needs no key; DLMS is [`dlms::explain`]'s.
fn outside(bytes: &[u8], format: Option<Format>) -> Result<Explanation, DecodeError> {
    match format {
        Some(Format::Dlms) => dlms::explain(bytes, None),
        Some(Format::OpenlinkIq) => openlinkiq::explain(bytes),
        Some(Format::Mbal) => explain_mbal(bytes),
        Some(Format::Wmbus) => explain_wmbus(bytes),
        Some(Format::Mbus) => mbus::explain(bytes),
        // Lengths, checksum and stop character of a frame are stricter than what follows.
        None if bytes.len() > 1 && mbus::explain(bytes).is_ok() => mbus::explain(bytes),
        // The first block of format A ends in the same CRC as an MBAL header, but the L field that
        // it starts with fits no MBAL control field: the stricter reading goes first.
        None if format::decode(FrameFormat::A, bytes).is_ok() => explain_wmbus(bytes),
        // A CRC-32 and a CRC-16 at lengths of its own: nothing else is taken for it.
        None if openlinkiq::is_whole(bytes) => openlinkiq::explain(bytes),
        None => explain_mbal(bytes).or_else(|_| explain_wmbus(bytes)).map_err(|fault| {
            let found =
                format!("{} bytes whose lengths and checksums fit none (as wireless M-Bus: {fault})", bytes.len());
            DecodeError::new(
                0,
                "a telegram of wireless M-Bus, a frame of wired M-Bus, of OpenlinkIQ or an MBAL frame",
                found,
            )
        }),
    }
}

/// A telegram in the normal form, and how its link layer was laid out.
fn unframed(bytes: &[u8]) -> (Vec<u8>, &'static str) {
    // CRCs first: a frame of format B also has an L field that fits its length.
    let sound = |format| {
        let telegram = format::decode(format, bytes).ok()?;
        wmbus::decode(&telegram).is_ok().then_some(telegram)
    };
    match (sound(FrameFormat::A), sound(FrameFormat::B)) {
        (Some(telegram), _) => (telegram, "A"),
        (None, Some(telegram)) => (telegram, "B"),
        (None, None) => (bytes.to_vec(), "normal"),
    }
}

fn explain_wmbus(bytes: &[u8]) -> Result<Explanation, DecodeError> {
    let (stripped, layout) = unframed(bytes);
    let telegram = wmbus::decode(&stripped)?;
    let note = match layout {
        "normal" => "without link CRCs",
        "A" => "frame format A, its CRCs are good and left out below",
        _ => "frame format B, its CRCs are good and left out below",
    };
    let mut json = Map::new();
    json.insert("format".into(), json!("wmbus"));
    json.insert("frame_format".into(), json!(layout));
    json.insert("length".into(), json!(stripped.len()));
    let mut found = vec![layers::link(&telegram, &stripped, &mut json)];
    found.extend(layers::upper(&telegram.upper(), telegram.payload, &mut json));
    Ok(Explanation { title: format!("wireless M-Bus telegram, {} bytes, {note}", stripped.len()), layers: found, json })
}

fn explain_mbal(bytes: &[u8]) -> Result<Explanation, DecodeError> {
    let frame = mbal::decode(bytes)?;
    let mut json = Map::new();
    json.insert("format".into(), json!("mbal"));
    json.insert("length".into(), json!(bytes.len()));
    let mut found = vec![layers::mbal(&frame, bytes, &mut json)];
    found.extend(layers::upper(&frame.upper(), frame.mbus, &mut json));
    Ok(Explanation { title: format!("OpenlinkIQ MBAL frame, {} bytes", bytes.len()), layers: found, json })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn telegram() -> Vec<u8> {
        let meter = wmbus::Meter::from_wire([0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16]);
        let payload = [0x7A, 0x2A, 0x07, 0x20, 0x05, 0x2F, 0x2F];
        let control = wmbus::Control::known(0x46).unwrap();
        let mut bytes = Vec::new();
        wmbus::encode(&wmbus::Telegram { control, meter, payload: &payload }, &mut bytes).unwrap();
        bytes
    }

    fn frame() -> Vec<u8> {
        let meter = wmbus::Meter::from_wire([0x37, 0x2C, 0x34, 0x12, 0x34, 0x12, 0x1B, 0x16]);
        let mut bytes = Vec::new();
        mbal::encode(&mbal::Mbal { control: 1, meter, command: 0x60, mbus: &[0x7A, 1, 0, 0, 5, 9] }, &mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn the_three_forms_of_a_telegram_are_told_apart_and_explained_alike() {
        let normal = explain(&telegram(), None).unwrap().to_json();
        assert_eq!(normal["manufacturer"], "KAM");
        assert_eq!((&normal["id"], &normal["version"], &normal["type"]), (&json!("12345678"), &json!(27), &json!(22)));
        assert_eq!((&normal["ci"], &normal["security_mode"]), (&json!("7a"), &json!(5)));
        assert_eq!((&normal["function"], &normal["status"]), (&json!("SND-IR"), &json!(["alarm", "power low"])));
        for (format, word) in [(FrameFormat::A, "A"), (FrameFormat::B, "B")] {
            let mut framed = Vec::new();
            format::encode(format, &telegram(), &mut framed).unwrap();
            let mut json = explain(&framed, None).unwrap().to_json();
            assert_eq!(json["frame_format"], word);
            json["frame_format"] = json!("normal");
            assert_eq!(json, normal);
        }
    }

    #[test]
    fn an_mbal_frame_is_recognised_and_its_layers_are_named() {
        let explanation = explain(&frame(), None).unwrap();
        let json = explanation.to_json();
        assert_eq!(
            (&json["format"], &json["priority"], &json["control"]),
            (&json!("mbal"), &json!(true), &json!("01"))
        );
        assert_eq!((&json["manufacturer"], &json["function"]), (&json!("KAW"), &json!("SND-IR")));
        assert_eq!((&json["mbus"], &json["security_mode"]), (&json!("7a0100000509"), &json!(5)));
        assert_eq!((&json["records"], &json["decrypted"]), (&json!([]), &json!(false)));
        let text = explanation.to_string();
        assert!(text.contains("KAW") && text.contains("12341234") && text.contains("AES-128-CBC"), "{text}");
    }

    #[test]
    fn the_table_lines_up_and_shows_long_bodies_below() {
        let meter = wmbus::Meter::from_wire([0; 8]);
        let mut bytes = Vec::new();
        let mbus = [&[0x78][..], &[0xAB; 100]].concat();
        mbal::encode(&mbal::Mbal { control: 0, meter, command: 0x40, mbus: &mbus }, &mut bytes).unwrap();
        let text = explain(&bytes, Some(Format::Mbal)).unwrap().to_string();
        assert!(text.lines().all(|line| line.len() <= 100 && !line.ends_with("  ")), "{text}");
        assert_eq!(text.matches("ab").count(), 100, "{text}");
    }

    #[test]
    fn what_it_is_said_to_be_and_is_not_is_refused_with_the_place() {
        assert_eq!(explain(&telegram(), Some(Format::Mbal)).unwrap_err().offset, 10);
        assert!(explain(&frame(), Some(Format::Wmbus)).is_err());
        let nothing = explain(b"hello, world, hello", None).unwrap_err();
        assert!(nothing.to_string().contains("fit none"), "{nothing}");
        assert_eq!((Format::parse("mbal"), Format::parse("MBAL")), (Some(Format::Mbal), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_explained_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            mended in any::<bool>(),
        ) {
            if mended && bytes.len() > 1 {
                bytes[0] = u8::try_from(bytes.len() - 1).unwrap();
                bytes[1] = 0x44;
            }
            for format in std::iter::once(None).chain(Format::ALL.iter().map(|(_, format)| Some(*format))) {
                if let Ok(explanation) = explain(&bytes, format) {
                    prop_assert!(!explanation.to_string().is_empty() && explanation.to_json().is_object());
                }
            }
        }
    }
}
