//! The frames JSON, version 1: `{"version":1,"frames":[...]}` (docs/mqtt.md).
//!
//! A message is built frame by frame with its exact length known, so that it never grows beyond
//! the limit; no clock, no input or output.

use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;

use crate::model::{
    Body, CodedValue, Decoded, Origin, Rssi, Sequence, Stored, Telegram, TelegramKind, TimeQuality, Timestamp, Value,
};
use crate::wire::telegram;

const HEAD: &[u8] = br#"{"version":1,"frames":["#;
const TAIL: &[u8] = b"]}";

/// A message under construction.
#[derive(Debug)]
pub struct Message {
    payload: Vec<u8>,
    limit: usize,
    sequences: Vec<Sequence>,
}

/// What became of a frame offered to a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is part of the message.
    Fits,
    /// It is part of the message, alone, and the message is longer than the limit.
    Oversized,
    /// The message is full without it: send it and offer the frame to the next one.
    Full,
}

impl Message {
    /// Starts a message whose payload should not exceed `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { payload: HEAD.to_vec(), limit, sequences: Vec::new() }
    }

    /// Adds a frame, with what is known of its time, if it fits. A frame that fits no message at
    /// all gets one of its own, because it must not hold up those behind it.
    pub fn add(&mut self, stored: &Stored, time: (Timestamp, TimeQuality)) -> Added {
        let before = self.payload.len();
        if !self.sequences.is_empty() {
            self.payload.push(b',');
        }
        write_frame(stored, time, &mut self.payload);
        let fits = self.payload.len() + TAIL.len() <= self.limit;
        if !fits && !self.sequences.is_empty() {
            self.payload.truncate(before);
            return Added::Full;
        }
        self.sequences.push(stored.sequence);
        if fits { Added::Fits } else { Added::Oversized }
    }

    /// Closes the message: its payload and the frames it carries.
    pub fn finish(mut self) -> (Vec<u8>, Vec<Sequence>) {
        self.payload.extend_from_slice(TAIL);
        (self.payload, self.sequences)
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum FrameJson<'a> {
    Telegram {
        frametype: &'static str,
        timestamp: String,
        frame: String,
        meta: TelegramMeta<'a>,
    },
    Reading {
        frametype: &'static str,
        timestamp: String,
        meter: &'a str,
        values: Vec<ValueJson<'a>>,
        meta: Meta<'a>,
    },
    Manifest {
        frametype: &'static str,
        timestamp: String,
        manifest: &'a str,
        meta: Meta<'a>,
    },
    Interval(IntervalJson<'a>),
    Decoded {
        frametype: &'static str,
        timestamp: String,
        meter: &'a str,
        values: Vec<CodedJson<'a>>,
        meta: TelegramMeta<'a>,
    },
}

#[derive(Serialize)]
struct IntervalJson<'a> {
    frametype: &'static str,
    timestamp: String,
    meter: &'a str,
    profile: &'a str,
    metertime: &'a str,
    period: u32,
    status: &'a str,
    values: Vec<ValueJson<'a>>,
    meta: ReadMeta<'a>,
}

#[derive(Serialize)]
struct ReadMeta<'a> {
    read: String,
    #[serde(flatten)]
    every: Meta<'a>,
}

#[derive(Serialize)]
struct TelegramMeta<'a> {
    rssi: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rssirelative: Option<i16>,
    noofcorrectedbits: u16,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(flatten)]
    every: Meta<'a>,
}

/// What `meta` holds in every frame.
#[derive(Serialize)]
struct Meta<'a> {
    sequence: Sequence,
    clock: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<OriginJson<'a>>,
}

#[derive(Serialize)]
struct OriginJson<'a> {
    gateway: &'a str,
    sequence: Sequence,
}

#[derive(Serialize)]
struct ValueJson<'a> {
    name: &'a str,
    value: Option<&'a str>,
    unit: &'a str,
    quality: &'static str,
}

#[derive(Serialize)]
struct CodedJson<'a> {
    #[serde(flatten)]
    value: ValueJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    obis: Option<&'a str>,
}

fn write_frame(stored: &Stored, (time, quality): (Timestamp, TimeQuality), out: &mut Vec<u8>) {
    let frame = &stored.frame;
    let timestamp = time.to_string();
    let origin = frame.origin.as_ref().map(|Origin { gateway, sequence }| OriginJson { gateway, sequence: *sequence });
    let meta = Meta { sequence: stored.sequence, clock: quality.word(), origin };
    let json = match &frame.body {
        Body::Telegram(telegram) => telegram_json(telegram, None, timestamp, meta),
        Body::Copies(telegram, copies) => telegram_json(telegram, Some(*copies), timestamp, meta),
        Body::Decoded(decoded) => decoded_json(decoded, timestamp, meta),
        Body::Reading(reading) => FrameJson::Reading {
            frametype: "Reading",
            timestamp,
            meter: &reading.meter,
            values: reading.values.iter().map(value_json).collect(),
            meta,
        },
        Body::Interval(interval) => FrameJson::Interval(IntervalJson {
            frametype: "Interval",
            timestamp: interval.end.to_string(),
            meter: &interval.meter,
            profile: &interval.profile,
            metertime: &interval.meter_time,
            period: interval.period,
            status: &interval.status,
            values: interval.values.iter().map(value_json).collect(),
            meta: ReadMeta { read: timestamp, every: meta },
        }),
        Body::Manifest(line) => FrameJson::Manifest { frametype: "Manifest", timestamp, manifest: line, meta },
    };
    // Writing to memory can't fail, and every type above has a JSON form.
    let _ = serde_json::to_writer(out, &json);
}

fn value_json(value: &Value) -> ValueJson<'_> {
    ValueJson { name: &value.name, value: value.value.as_deref(), unit: &value.unit, quality: value.quality.word() }
}

fn decoded_json<'a>(decoded: &'a Decoded, timestamp: String, every: Meta<'a>) -> FrameJson<'a> {
    let (rssi, rssirelative) = strength(decoded.rssi);
    let coded =
        |CodedValue { value, obis }: &'a CodedValue| CodedJson { value: value_json(value), obis: obis.as_deref() };
    FrameJson::Decoded {
        frametype: "Reading",
        timestamp,
        meter: &decoded.meter,
        values: decoded.values.iter().map(coded).collect(),
        meta: TelegramMeta {
            rssi,
            rssirelative,
            noofcorrectedbits: decoded.corrected_bits,
            id: HEXLOWER.encode(&decoded.id),
            copies: (decoded.copies > 1).then_some(decoded.copies),
            address: decoded.address.as_deref(),
            every,
        },
    }
}

/// In dBm, or on the receiver's own scale.
const fn strength(rssi: Option<Rssi>) -> (Option<i16>, Option<i16>) {
    match rssi {
        Some(Rssi::Dbm(dbm)) => (Some(dbm), None),
        Some(Rssi::Relative(level)) => (None, Some(level)),
        None => (None, None),
    }
}

fn telegram_json<'a>(telegram: &Telegram, copies: Option<u16>, timestamp: String, every: Meta<'a>) -> FrameJson<'a> {
    let (rssi, rssirelative) = strength(telegram.rssi);
    let id = HEXLOWER.encode(&telegram::id(telegram.kind, &telegram.bytes));
    FrameJson::Telegram {
        frametype: match telegram.kind {
            TelegramKind::OpenlinkIq => "OpenlinkIQ",
            TelegramKind::WirelessMbus => "wM-Bus",
        },
        timestamp,
        frame: BASE64.encode(&telegram.bytes),
        meta: TelegramMeta {
            rssi,
            rssirelative,
            noofcorrectedbits: telegram.corrected_bits,
            id,
            copies,
            address: None,
            every,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Frame, Lane, Quality, Reading, Stamp, Telegram};

    fn telegram(sequence: Sequence, bytes: Vec<u8>, rssi: Option<Rssi>) -> Stored {
        let body = Body::Telegram(Telegram { kind: TelegramKind::OpenlinkIq, bytes, rssi, corrected_bits: 0 });
        let time = Stamp::synced(Timestamp::parse("2021-11-13T21:54:01Z").unwrap());
        Stored { sequence, frame: Frame { time, lane: Lane::Ordinary, body, origin: None } }
    }

    fn time(stored: &Stored) -> (Timestamp, TimeQuality) {
        (stored.frame.time.wall, TimeQuality::Synced)
    }

    fn one(stored: &Stored) -> String {
        let mut message = Message::new(1 << 20);
        assert_eq!(message.add(stored, time(stored)), Added::Fits);
        String::from_utf8(message.finish().0).unwrap()
    }

    #[test]
    fn an_openlinkiq_frame_has_the_documents_form() {
        assert_eq!(
            one(&telegram(123, vec![1, 2, 0xFF], Some(Rssi::Dbm(-87)))),
            r#"{"version":1,"frames":[{"frametype":"OpenlinkIQ","timestamp":"2021-11-13T21:54:01Z","frame":"AQL/","meta":{"rssi":-87,"noofcorrectedbits":0,"id":"a3d04b03c1043b7b","sequence":123,"clock":"synced"}}]}"#
        );
    }

    #[test]
    fn an_unknown_strength_is_null_and_a_relative_one_has_its_own_name() {
        assert!(one(&telegram(1, vec![], None)).contains(r#""meta":{"rssi":null,"noofcorrectedbits":0,"#));
        let relative = one(&telegram(1, vec![], Some(Rssi::Relative(97))));
        assert!(relative.contains(r#""meta":{"rssi":null,"rssirelative":97,"noofcorrectedbits":0,"#));
    }

    #[test]
    fn a_reading_keeps_exact_numbers_as_text_and_null_for_what_is_missing() {
        let value = |name: &str, value: Option<&str>, quality| Value {
            name: name.into(),
            value: value.map(str::to_owned),
            unit: "k\"Wh".into(),
            quality,
        };
        let values = vec![value("e", Some("12345.600"), Quality::Good), value("p", None, Quality::NoAnswer)];
        let mut stored = telegram(9, vec![], None);
        stored.frame.body = Body::Reading(Reading { meter: "m\n1".into(), values });
        assert_eq!(
            one(&stored),
            r#"{"version":1,"frames":[{"frametype":"Reading","timestamp":"2021-11-13T21:54:01Z","meter":"m\n1","values":[{"name":"e","value":"12345.600","unit":"k\"Wh","quality":"good"},{"name":"p","value":null,"unit":"k\"Wh","quality":"no-answer"}],"meta":{"sequence":9,"clock":"synced"}}]}"#
        );
    }

    #[test]
    fn the_time_is_the_resolved_one_and_says_how_good_it_is() {
        let stored = telegram(1, vec![], None);
        for quality in [TimeQuality::Unsynced, TimeQuality::Corrected, TimeQuality::Synced] {
            let mut message = Message::new(1 << 20);
            message.add(&stored, (Timestamp::from_millis(1_800_000_000_999), quality));
            let text = String::from_utf8(message.finish().0).unwrap();
            assert!(text.contains(r#""timestamp":"2027-01-15T08:00:00Z""#), "{text}");
            assert!(text.contains(&format!(r#""clock":"{}""#, quality.word())), "{text}");
        }
    }

    #[test]
    fn an_imported_frame_names_the_gateway_that_made_it() {
        let mut stored = telegram(5, vec![], None);
        stored.frame.origin = Some(Origin { gateway: "gw \"2\"".into(), sequence: 77 });
        assert!(
            one(&stored).contains(r#""sequence":5,"clock":"synced","origin":{"gateway":"gw \"2\"","sequence":77}}"#)
        );
    }

    #[test]
    fn a_frame_too_large_for_any_message_goes_alone() {
        let mut message = Message::new(200);
        let mut add = |stored: Stored| message.add(&stored, time(&stored));
        assert_eq!(add(telegram(1, vec![0; 500], None)), Added::Oversized);
        assert_eq!(add(telegram(2, vec![], None)), Added::Full);
        assert_eq!(message.finish().1, [1]);
    }

    proptest! {
        #[test]
        fn messages_stay_below_the_limit_and_lose_no_frame(
            sizes in prop::collection::vec(0usize..120, 1..60), limit in 400usize..2000,
        ) {
            let frames: Vec<_> =
                sizes.iter().zip(1u64..).map(|(&size, n)| telegram(n, vec![n as u8; size], None)).collect();
            let (mut at, mut seen) = (0, Vec::new());
            while at < frames.len() {
                let mut message = Message::new(limit);
                while at < frames.len() && message.add(&frames[at], time(&frames[at])) == Added::Fits {
                    at += 1;
                }
                let (payload, sequences) = message.finish();
                prop_assert!(payload.len() <= limit && !sequences.is_empty());
                let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                let told: Vec<_> =
                    json["frames"].as_array().unwrap().iter().map(|f| f["meta"]["sequence"].as_u64().unwrap()).collect();
                prop_assert_eq!(&told, &sequences);
                seen.extend(told);
            }
            prop_assert_eq!(seen, (1..=frames.len() as u64).collect::<Vec<_>>());
        }
    }
}
