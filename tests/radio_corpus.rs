//! Real telegrams and worked examples against the codecs. They are test data kept outside the
//! project; where they are missing the tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when its data is missing"
)]

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use proptest::prelude::*;
use serde_json::{Value, json};
use weir::model::TelegramKind;
use weir::wire::explain::{Format, explain};
use weir::wire::radio_line::Item;
use weir::wire::wmbus::format::{self, FrameFormat};
use weir::wire::{hex_line, mbal, rtl_wmbus, wmbus};

/// Finds test data kept beside the checkout; says so when it is not there.
fn data(inside: &str, variable: &str, path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(inside);
    let places =
        [std::env::var_os(variable).map(PathBuf::from), Some(beside), Some(Path::new("/work/shared").join(inside))];
    let found = places.into_iter().flatten().map(|place| place.join(path)).find(|file| file.exists());
    if found.is_none() {
        eprintln!("note: {path} is not there (set {variable} to its directory); nothing was tested with it");
    }
    found
}

/// The real telegrams: bytes and what is known about them.
fn corpus() -> Vec<(Vec<u8>, Value)> {
    let Some(file) = data("data", "WEIR_DATA", "wmbus/telegrams.jsonl") else { return Vec::new() };
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let read = |entry: Value| (bytes(entry["telegram"].as_str().unwrap()), entry["header"].clone());
    let telegrams: Vec<_> = lines.map(read).collect();
    assert!(telegrams.len() > 50);
    telegrams
}

fn examples() -> Vec<Value> {
    let Some(file) = data("reference", "WEIR_REFERENCE", "openlinkiq_vectors.json") else { return Vec::new() };
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(hex.trim().as_bytes()).unwrap()
}

fn framed(format: FrameFormat, telegram: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    format::encode(format, telegram, &mut frame).ok().map(|()| frame)
}

#[test]
fn every_real_telegram_has_the_header_that_is_known_of_it() {
    for (telegram, known) in corpus() {
        let hex = HEXLOWER.encode(&telegram);
        let read = wmbus::decode(&telegram).unwrap();
        assert_eq!(read.meter.to_wire(), telegram[2..10], "{hex}");
        let upper = read.upper();
        assert_eq!(upper.fault, None, "{hex}");
        let tpl = upper.tpl.unwrap();
        assert_eq!(json!(format!("{:02x}", tpl.ci)), known["ci"], "{hex}");
        let header = tpl.header;
        let of = |value: Option<Value>| value.unwrap_or(Value::Null);
        assert_eq!(of(header.map(|h| json!(h.security_mode()))), known["mode"], "{hex}");
        assert_eq!(of(header.map(|h| json!(format!("{:02x}", h.status)))), known["sts"], "{hex}");
        assert_eq!(of(header.map(|h| json!(h.is_alarm()))), known["alarm_sts"], "{hex}");
        assert_eq!(of(upper.ell.map(|e| json!(format!("{:02x}", e.ci)))), known["ell"], "{hex}");
        assert_eq!(of(upper.ell.map(|e| json!(e.is_priority()))), known["ell_prio"], "{hex}");
        let afl = upper.afl.map(|a| json!(format!("{:04x}", a.control)));
        assert_eq!(of(afl), known["afl"], "{hex}");
    }
}

/// All telegrams, all bits: some 93 telegrams of 600 bits and two formats.
#[test]
fn every_real_telegram_comes_back_from_formats_a_and_b_and_every_flipped_bit_is_refused() {
    for (telegram, _) in corpus() {
        for format in [FrameFormat::A, FrameFormat::B] {
            let mut frame = framed(format, &telegram).unwrap();
            assert_eq!(format::decode(format, &frame).unwrap(), telegram);
            for bit in 0..frame.len() * 8 {
                frame[bit / 8] ^= 1 << (bit % 8);
                assert!(format::decode(format, &frame).is_err(), "{format:?} bit {bit}");
                frame[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn every_real_telegram_is_explained_alike_in_all_its_forms() {
    for (telegram, known) in corpus() {
        // Some are stored as frames of format B, with their CRC: those already have their form.
        if format::decode(FrameFormat::B, &telegram).is_ok() {
            continue;
        }
        let normal = explain(&telegram, None).unwrap();
        assert!(normal.to_string().lines().count() > 8);
        let normal = normal.to_json();
        assert_eq!((&normal["ci"], &normal["security_mode"]), (&known["ci"], &known["mode"]));
        for format in [FrameFormat::A, FrameFormat::B] {
            let mut json = explain(&framed(format, &telegram).unwrap(), None).unwrap().to_json();
            assert_eq!(json["frame_format"], json!(format!("{format:?}")));
            json["frame_format"] = json!("normal");
            assert_eq!(json, normal);
        }
    }
}

#[test]
fn every_real_telegram_passes_as_a_line_and_no_shortened_one_does() {
    for (telegram, _) in corpus() {
        let hex = HEXLOWER.encode(&telegram);
        let start = "T1;1;1;2026-11-21 22:13:18.000001;117;88;12345678;0x";
        for length in (0..=hex.len()).rev() {
            let line = format!("{start}{}", &hex[..length]);
            let sound = matches!(&rtl_wmbus::decode(line.as_bytes())[..], [Item::Heard(r)] if r.bytes == telegram);
            assert_eq!(sound, length == hex.len(), "{line}");
            let sound = matches!(&hex_line::decode_wmbus(&hex.as_bytes()[..length])[..], [Item::Heard(_)]);
            assert_eq!(sound, length == hex.len(), "{length} of {hex}");
        }
    }
}

#[test]
fn the_worked_examples_of_openlinkiq_are_read_and_written_byte_for_byte() {
    for example in examples() {
        let frame = bytes(example["mbal"].as_str().unwrap());
        let read = mbal::decode(&frame).unwrap();
        assert_eq!(json!(read.control), example["control"]);
        assert_eq!(json!(read.is_priority()), example["priority"]);
        assert_eq!(json!(read.command), example["command"]);
        assert_eq!(json!(read.function()), example["function"]);
        assert_eq!(read.mbus, bytes(example["mbus"].as_str().unwrap()));
        let mode = read.upper().tpl.unwrap().header.unwrap().security_mode();
        assert_eq!(json!(mode), example["tpl_mode"]);
        let mut again = Vec::new();
        mbal::encode(&read, &mut again).unwrap();
        assert_eq!(again, frame);
        let json = explain(&frame, None).unwrap().to_json();
        assert_eq!((&json["format"], &json["mbus"]), (&json!("mbal"), &example["mbus"]));
        for bit in 0..mbal::HEADER * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(mbal::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn the_fixtures_are_explained_as_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut cases = 0;
    for (codec, format) in [("mbal", Format::Mbal), ("wmbus", Format::Wmbus), ("openlinkiq-rf", Format::OpenlinkIq)] {
        for case in fs::read_dir(folder.join(codec)).unwrap() {
            let case = case.unwrap().path();
            let input = bytes(&fs::read_to_string(case.join("input.hex")).unwrap());
            let expected: Value =
                serde_json::from_str(&fs::read_to_string(case.join("expected.json")).unwrap()).unwrap();
            for format in [Some(format), None] {
                let found = explain(&input, format).unwrap().to_json();
                assert_eq!(found, expected, "{}", case.display());
            }
            cases += 1;
        }
    }
    assert!(cases >= 9);
}

proptest! {
    #[test]
    fn mutated_real_lines_are_judged_without_a_panic_and_only_whole_ones_pass(
        which in any::<prop::sample::Index>(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let corpus = corpus();
        if corpus.is_empty() {
            return Ok(());
        }
        let telegram = &which.get(&corpus).0;
        let line = format!("C1;1;1;2026-11-21 22:13:18.000;9;8;12345678;0x{}", HEXLOWER.encode(telegram));
        let mut line = line.into_bytes();
        for (place, byte) in places {
            let at = place.index(line.len());
            line[at] = byte;
        }
        line.truncate(cut.index(line.len()) + 1);
        for items in [rtl_wmbus::decode(&line), hex_line::decode_wmbus(&line), hex_line::decode_mbal(&line)] {
            for item in items {
                if let Item::Heard(heard) = item {
                    prop_assert_eq!(heard.kind, TelegramKind::WirelessMbus);
                    prop_assert_eq!(usize::from(heard.bytes[0]), heard.bytes.len() - 1);
                }
            }
        }
    }
}
