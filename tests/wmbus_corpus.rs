//! Real telegrams with keys and worked examples against what opens and reads them. They are test data
//! kept outside the project; where they are missing the tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when its data is missing"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use proptest::prelude::*;
use serde_json::{Value, json};
use weir::model::TelegramKind;
use weir::wire::aes::Aes128;
use weir::wire::explain::Explainer;
use weir::wire::telegram::facts;
use weir::wire::wmbus::chips::{self, BitOrder, LineCode};
use weir::wire::wmbus::format::{self, FrameFormat};
use weir::wire::wmbus::{Content, Formats, How, Keys, Locked, Reason, Telegram, Unread, decode, records, urgency};
use weir::wire::{mbal, wmbus};

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

/// One real telegram and what is known about it.
struct Entry {
    bytes: Vec<u8>,
    header: Value,
    key: Option<[u8; 16]>,
    /// Whether the key opens it by a way of the standard.
    opens: bool,
}

impl Entry {
    fn telegram(&self) -> Telegram<'_> {
        decode(&self.bytes).unwrap()
    }

    fn hex(&self) -> String {
        HEXLOWER.encode(&self.bytes)
    }
}

fn corpus() -> Vec<Entry> {
    let Some(file) = data("data", "WEIR_DATA", "wmbus/telegrams.jsonl") else { return Vec::new() };
    let text = fs::read_to_string(file).unwrap();
    let read = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let key = entry["key"].as_str().map(|hex| bytes(hex).try_into().unwrap());
        let opens = entry["decrypts"] == true;
        Entry { bytes: bytes(entry["telegram"].as_str().unwrap()), header: entry["header"].clone(), key, opens }
    };
    text.lines().map(read).collect()
}

fn examples() -> Vec<Value> {
    let Some(file) = data("reference", "WEIR_REFERENCE", "openlinkiq_vectors.json") else { return Vec::new() };
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(hex.trim().as_bytes()).unwrap()
}

fn text(content: &Content) -> Vec<String> {
    let one = |v: &wmbus::Value| format!("{}={:?}{}", v.record.name, v.record.value, v.record.unit);
    content.values.iter().map(one).collect()
}

#[test]
fn every_keyed_telegram_opens_with_its_key_and_with_no_other() {
    let corpus = corpus();
    let keyed: Vec<_> = corpus.iter().filter(|entry| entry.opens).collect();
    assert!(corpus.is_empty() || keyed.len() >= 7, "{}", keyed.len());
    for entry in keyed {
        let (telegram, key) = (entry.telegram(), entry.key.unwrap());
        let opened = telegram.open(&Keys::for_any(key)).unwrap();
        assert_eq!(opened.how, How::Decrypted, "{}", entry.hex());
        let sender = telegram.open(&Keys::none());
        assert!(matches!(sender, Err(Locked::NoKey(meter)) if meter == opened.meter), "{sender:?}");
        for bit in 0..128 {
            let mut wrong = key;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let found = telegram.open(&Keys::for_any(wrong));
            assert!(matches!(found, Err(Locked::WrongKey { .. })), "{} {found:?}", entry.hex());
        }
        let meter = opened.meter;
        let line = format!("{}.{} = {}", meter.number(), meter.letters(), HEXLOWER.encode(&key));
        let (keys, faults) = Keys::parse(&line);
        assert!(faults.is_empty() && telegram.open(&keys).is_ok(), "a line of the file of keys finds it");
    }
}

#[test]
fn nearly_every_opened_telegram_with_values_is_read_to_its_end() {
    let mut formats = Formats::default();
    let (mut read, mut broken) = (0, Vec::new());
    for entry in corpus() {
        let keys = entry.key.filter(|_| entry.opens).map_or_else(Keys::none, Keys::for_any);
        let opened = match entry.telegram().open(&keys) {
            Ok(opened) => opened,
            // A few are stored as they were on the air, without a published key.
            Err(locked) => {
                assert!(entry.header["mode"] != 0 && entry.header["ci"] != "78", "{} {locked}", entry.hex());
                continue;
            }
        };
        match records(&opened, &mut formats) {
            Ok(content) => {
                assert!(!content.values.is_empty(), "{} {content:?}", entry.hex());
                read += 1;
                broken.extend(content.fault.map(|fault| format!("{} {fault}", entry.hex())));
            }
            Err(Unread::Manufacturer(_)) => assert!(opened.ci & 0xE0 == 0xA0),
            Err(unread) => assert!(matches!(unread, Unread::Compact(_)), "{} {unread}", entry.hex()),
        }
    }
    assert!(read == 0 || read > 70, "{read}");
    // Some recordings were altered by hand to hide whose they are, some makers send no records of the standard.
    assert!(broken.len() * 10 <= read, "{read} {broken:#?}");
}

/// Some meters send a full frame and a compact one of the same moment: the CRC of the full frame in the
/// compact one says so.
#[test]
fn compact_frames_give_the_values_of_the_full_frame_that_they_stand_for() {
    let corpus = corpus();
    let opened: Vec<_> = corpus.iter().filter_map(|entry| entry.telegram().open(&Keys::none()).ok()).collect();
    let mut pairs = 0;
    for full in opened.iter().filter(|o| o.ci == 0x78) {
        let mut formats = Formats::default();
        let expected = records(full, &mut formats).unwrap();
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_EN_13757).checksum(&full.body).to_le_bytes();
        for compact in opened.iter().filter(|o| o.ci == 0x79 && o.meter == full.meter) {
            if compact.body.get(2..4) == Some(&crc) {
                assert!(records(compact, &mut Formats::default()).is_err(), "its format is not known yet");
                assert_eq!(text(&records(compact, &mut formats).unwrap()), text(&expected));
                let mut damaged = compact.clone();
                *damaged.body.last_mut().unwrap() ^= 1;
                assert!(records(&damaged, &mut formats).is_err());
                pairs += 1;
            }
        }
    }
    assert!(corpus.is_empty() || pairs >= 1);
}

#[test]
fn the_worked_examples_of_openlinkiq_open_and_one_flipped_bit_opens_nothing_authenticated() {
    for example in examples() {
        let frame = bytes(example["mbal"].as_str().unwrap());
        let keys = example["key"].as_str().map_or_else(Keys::none, |key| Keys::for_any(Keys::key(key).unwrap()));
        let read = mbal::decode(&frame).unwrap();
        let open = |mbus: &[u8]| wmbus::open(read.meter, mbus, mbal::HEADER, &keys);
        match example["tpl_mode"].as_u64().unwrap() {
            10 => {
                let told = open(read.mbus).unwrap_err().to_string();
                assert!(told.contains("mode 10") && told.contains("not opened"), "{told}");
            }
            mode => {
                let opened = open(read.mbus).unwrap();
                let plain = HEXLOWER.encode(&opened.body);
                assert_eq!((json!(plain), opened.how == How::Decrypted), (example["plain"].clone(), mode != 0));
                let content = records(&opened, &mut Formats::default()).unwrap();
                assert!(content.fault.is_none() && content.values.len() > 3, "{content:?}");
                if mode == 7 {
                    flipped_bits_open_nothing(read.mbus, open);
                }
            }
        }
    }
}

fn flipped_bits_open_nothing(mbus: &[u8], open: impl Fn(&[u8]) -> Result<wmbus::Opened, Locked>) {
    // Counter, code, access number, status, body; lengths, flags and CI fields make another message.
    let covered = (5..17).chain(18..mbus.len());
    for bit in covered.flat_map(|byte| (0..8).map(move |bit| byte * 8 + bit)) {
        let mut changed = mbus.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&changed).is_err(), "bit {bit}");
    }
}

/// The telegram is kept in clear text; encrypted with its published key it must be, byte for byte, what
/// the meter sent, of which only the digest stands here.
#[test]
fn the_extended_link_layer_of_a_real_meter_opens_with_its_key() {
    const KEY: &str = "28F64A24988064A079AA2C807D6102AE";
    const SENT: &str = "e8be5ca7cb322e9a4ab26dce9101dbcfc44e6a375833ff3c57aac6240e26ecf5";
    let Some(entry) = corpus().into_iter().find(|e| e.bytes.starts_with(&bytes("2a442d2c998734761b168d2091d37cac21")))
    else {
        return;
    };
    let key = Keys::key(KEY).unwrap();
    let mut sent = entry.bytes.clone();
    let counter = [&sent[2..10], &[sent[11] & !0x12], &sent[13..17], &[0; 3]].concat().try_into().unwrap();
    Aes128::new(&key).ctr(counter, &mut sent[17..]);
    let digest = ring::digest::digest(&ring::digest::SHA256, &sent);
    assert_eq!(HEXLOWER.encode(digest.as_ref()), SENT);

    let telegram = decode(&sent).unwrap();
    let opened = telegram.open(&Keys::for_any(key)).unwrap();
    assert_eq!((opened.how, opened.ci), (How::Decrypted, 0x78));
    assert_eq!(opened.body, entry.bytes[20..]);
    assert!(matches!(telegram.open(&Keys::for_any([0; 16])), Err(Locked::WrongKey { .. })));
    assert!(matches!(telegram.open(&Keys::none()), Err(Locked::NoKey(_))));
    let found = Explainer::new(Keys::for_any(key)).explain(&sent, None).unwrap().to_json();
    assert_eq!((&found["decrypted"], &found["ci"]), (&json!(true), &json!("78")));
    assert_eq!(found["records"][1]["obis"], "8-0:1.0.0*255");
    assert!(found.get("unread").is_none());
}

#[test]
fn every_real_telegram_comes_back_from_its_chips_in_both_bit_orders() {
    for entry in corpus() {
        let mut frame = Vec::new();
        format::encode(FrameFormat::A, &entry.bytes, &mut frame).unwrap();
        for code in [LineCode::ThreeOfSix, LineCode::Manchester] {
            for order in [BitOrder::HighFirst, BitOrder::LowFirst] {
                let mut heard = Vec::new();
                chips::encode(code, order, &frame, &mut heard);
                heard.extend([0xA5; 7]);
                let found = chips::decode(code, order, &heard).unwrap();
                assert_eq!(format::decode(FrameFormat::A, &found.bytes).unwrap(), entry.bytes);
            }
        }
    }
}

#[test]
fn the_urgency_of_every_real_telegram_is_what_its_header_says() {
    for entry in corpus() {
        let reasons = urgency(&facts(TelegramKind::WirelessMbus, &entry.bytes).unwrap()).found;
        let known = |key: &str| entry.header[key] == true;
        assert_eq!(reasons.has(Reason::AlarmStatus), known("alarm_sts"), "{}", entry.hex());
        assert_eq!(reasons.has(Reason::LinkPriority), known("ell_prio"), "{}", entry.hex());
        assert_eq!(reasons.has(Reason::Installation), entry.bytes[1] == 0x46, "{}", entry.hex());
        let json = Explainer::new(Keys::none()).explain(&entry.bytes, None).unwrap().to_json();
        if json["frame_format"] == "normal" {
            let urgent: Vec<_> = json["urgency"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert!(reasons.words().all(|word| urgent.contains(&word)), "{urgent:?}");
            assert_eq!(json["priority"], json!(!urgent.is_empty()));
        }
    }
}

/// What `weir decode ARGUMENTS` prints, and its exit code.
fn weir(arguments: &[&str]) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_weir")).arg("decode").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (run.status.code(), text(&run.stdout), text(&run.stderr))
}

#[test]
fn weir_decode_takes_a_key_or_a_file_of_keys_and_never_repeats_either() {
    let Some(entry) = corpus().into_iter().find(|entry| entry.opens) else { return };
    let (telegram, key) = (entry.hex(), HEXLOWER.encode(&entry.key.unwrap()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("meter-keys");
    let meter = entry.telegram().open(&Keys::for_any(entry.key.unwrap())).unwrap().meter;
    fs::write(&file, format!("# one\n{} = {key}\n", meter.number())).unwrap();
    for given in [key.as_str(), file.to_str().unwrap()] {
        let (code, out, err) = weir(&["--json", "--key", given, &telegram]);
        let found: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &found["decrypted"], err.as_str()), (Some(0), &json!(true), ""));
        assert!(!found["records"].as_array().unwrap().is_empty() && !out.contains(&key));
        let (_, table, _) = weir(&["--key", given, &telegram]);
        assert!(table.contains("proven right") && !table.contains(&key), "{table}");
    }
    fs::write(&file, format!("1234 = {key}\n")).unwrap();
    for given in [&key[1..], file.to_str().unwrap()] {
        let (code, out, err) = weir(&["--key", given, &telegram]);
        assert_eq!((code, out.as_str()), (Some(64), ""));
        assert!(!err.contains(&key[1..]) && err.lines().count() == 1, "{err}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn mutated_real_telegrams_are_opened_and_read_without_a_panic(
        which in any::<prop::sample::Index>(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let corpus = corpus();
        if corpus.is_empty() {
            return Ok(());
        }
        let entry = which.get(&corpus);
        let mut bytes = entry.bytes.clone();
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        bytes[0] = u8::try_from(bytes.len() - 1).unwrap();
        let mut explainer = Explainer::new(entry.key.map_or_else(Keys::none, Keys::for_any));
        for bytes in [&entry.bytes, &bytes] {
            if let Ok(found) = explainer.explain(bytes, None) {
                prop_assert!(found.to_json().is_object() && !found.to_string().is_empty());
            }
        }
    }
}
