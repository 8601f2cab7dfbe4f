use std::path::Path;

use super::*;
use crate::meter::protocol;
use crate::wire::dlms::hdlc::{self, Address, Control};
use crate::wire::dlms::open::seal;

const NAME: [u8; TITLE] = *b"WEI\0\0\0\0\x01";
const BOTH: &str = "key_file = \"F/ek\"\nauthentication_key_file = \"F/ak\"\n";

/// The settings of a meter whose keys lie in `folder`.
fn settings(folder: &Path, more: &str) -> Result<MeterSettings, String> {
    for (name, digits) in [("ek", "01"), ("ak", "02"), ("long", "0303")] {
        std::fs::write(folder.join(name), digits.repeat(16)).unwrap();
    }
    let more = more.replace("\"F/", &format!("\"{}/", folder.display()));
    MeterSettings::parse(&format!("name = \"m\"\nport = \"p\"\nprotocol = \"dlms-push\"\n{more}"))
}

fn listener(more: &str) -> Box<dyn Listener> {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), more).unwrap();
    protocol("dlms-push").unwrap().listener(&settings).unwrap()
}

fn problems(more: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), more).unwrap();
    let mut problems = Problems::new();
    crate::meter::check(&settings, &mut problems);
    problems.located("").iter().map(ToString::to_string).collect()
}

/// A plain push of one register in tenths of watt-hours.
fn push(energy: u8) -> Vec<u8> {
    let scale = [2, 2, 0x0F, 0xFF, 0x16, 30];
    [&[0x0F, 0, 0, 0, 1, 0, 2, 3, 9, 6, 1, 0, 1, 8, 0, 255, 0x11, energy][..], &scale].concat()
}

fn framed(apdu: &[u8]) -> Vec<u8> {
    let information = [&hdlc::LLC_RESPONSE, apdu].concat();
    let (destination, source, control) = (Address::Single(32), Address::Single(1), Control::Ui);
    hdlc::Frame { segmented: false, destination, source, control, information }.encode().unwrap()
}

fn sealed(control: u8, title: [u8; TITLE], counter: u32, apdu: &[u8]) -> Vec<u8> {
    let keys = Keys::new(&[1; 16], Some(&[2; 16])).unwrap();
    seal(&keys, title, control, counter, apdu).unwrap()
}

/// The energy that a message gives, or why it gives none.
fn heard(listener: &mut dyn Listener, apdu: &[u8]) -> Result<String, String> {
    let mut found = listener.push(&framed(apdu));
    assert_eq!(found.len(), 1);
    let values = found.remove(0).map_err(|e| e.to_string())?;
    Ok(values.iter().find(|v| v.name.contains("1.8.0")).unwrap().value.clone().unwrap())
}

fn refusal(listener: &mut dyn Listener, apdu: &[u8]) -> String {
    heard(listener, apdu).unwrap_err()
}

#[test]
fn a_plain_meter_is_heard_and_a_ciphered_one_asks_for_its_key() {
    let mut listener = listener("");
    let found = listener.push(&framed(&push(7))).remove(0).unwrap();
    let expected =
        Value { name: "1-0:1.8.0*255".into(), value: Some("0.7".into()), unit: "Wh".into(), quality: Quality::Good };
    assert_eq!(found, [expected]);
    assert!(refusal(listener.as_mut(), &sealed(0x30, NAME, 1, &push(7))).contains("set key_file"));
    assert!(listener.to_keep().is_none(), "a plain meter has no counters");
}

#[test]
fn with_keys_only_what_the_meter_sealed_is_believed_and_only_once() {
    let mut listener = listener(BOTH);
    let listener = listener.as_mut();
    assert_eq!(heard(listener, &sealed(0x30, NAME, 5, &push(7))).as_deref(), Ok("0.7"));
    for old in [5, 4] {
        assert!(refusal(listener, &sealed(0x30, NAME, old, &push(8))).contains("replay"));
    }
    assert!(refusal(listener, &push(9)).contains("not ciphered"));
    assert!(refusal(listener, &sealed(0x20, NAME, 6, &push(9))).contains("no tag"));
    assert!(refusal(listener, &sealed(0x00, NAME, 6, &push(9))).contains("no tag"));
    let mut forged = sealed(0x30, NAME, 4_000_000_000, &push(9));
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(refusal(listener, &forged).contains("tag is wrong"));
    assert_eq!(
        heard(listener, &sealed(0x30, NAME, 6, &push(8))).as_deref(),
        Ok("0.8"),
        "a forged counter locks nobody out"
    );
    assert_eq!(heard(listener, &sealed(0x10, NAME, 7, &push(9))).as_deref(), Ok("0.9"), "a tag alone is enough");
}

/// As [`sealed`], under the broadcast key.
fn broadcast(counter: u32, apdu: &[u8]) -> Vec<u8> {
    seal(&Keys::new(&[3; 16], Some(&[2; 16])).unwrap(), NAME, 0x70, counter, apdu).unwrap()
}

#[test]
fn pushes_to_many_are_opened_with_their_own_key_and_have_counters_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broadcast"), "03".repeat(16)).unwrap();
    let more = format!("{BOTH}[push]\nbroadcast_key_file = {:?}", folder.path().join("broadcast"));
    let mut first = listener(&more);
    heard(first.as_mut(), &sealed(0x30, NAME, 9, &push(7))).unwrap();
    assert_eq!(heard(first.as_mut(), &broadcast(5, &push(8))).as_deref(), Ok("0.8"));
    assert!(refusal(first.as_mut(), &broadcast(5, &push(9))).contains("replay"));
    // Neither key opens what was sealed with the other.
    assert!(refusal(first.as_mut(), &sealed(0x70, NAME, 10, &push(9))).contains("tag is wrong"));
    let kept = first.to_keep().unwrap();
    let mut second = listener(&more);
    second.take_over(&kept);
    assert!(refusal(second.as_mut(), &broadcast(5, &push(9))).contains("replay"));
    assert!(refusal(second.as_mut(), &sealed(0x30, NAME, 9, &push(9))).contains("replay"));
    assert!(heard(second.as_mut(), &broadcast(6, &push(9))).is_ok());
    assert!(heard(second.as_mut(), &sealed(0x30, NAME, 10, &push(9))).is_ok());
    let mut without = listener(BOTH);
    assert!(refusal(without.as_mut(), &broadcast(5, &push(9))).contains("set push.broadcast_key_file"));
}

#[test]
fn counters_outlive_a_restart() {
    let mut first = listener(BOTH);
    assert!(first.to_keep().is_some());
    heard(first.as_mut(), &sealed(0x30, NAME, 5, &push(7))).unwrap();
    let kept = first.to_keep().unwrap();
    assert!(first.to_keep().is_none(), "nothing has changed since");
    let mut second = listener(BOTH);
    second.take_over(&kept);
    assert!(refusal(second.as_mut(), &sealed(0x30, NAME, 5, &push(7))).contains("replay"));
    assert!(heard(second.as_mut(), &sealed(0x30, NAME, 6, &push(7))).is_ok());
}

#[test]
fn without_a_tag_a_push_is_taken_when_the_settings_say_so_or_no_tag_can_be_verified() {
    let mut told = listener(&format!("{BOTH}[push]\nuntagged = true"));
    assert!(heard(told.as_mut(), &sealed(0x20, NAME, 1, &push(7))).is_ok());
    assert!(refusal(told.as_mut(), &sealed(0x20, NAME, 1, &push(7))).contains("replay"));
    let mut half = listener("key_file = \"F/ek\"");
    assert!(heard(half.as_mut(), &sealed(0x20, NAME, 1, &push(7))).is_ok());
    assert!(heard(half.as_mut(), &sealed(0x30, NAME, 2, &push(7))).is_ok());
    // What does not become a push by decryption has not spent its counter.
    assert!(refusal(half.as_mut(), &sealed(0x20, NAME, 900, &[0x55; 30])).contains("can't be read"));
    assert!(heard(half.as_mut(), &sealed(0x30, NAME, 3, &push(7))).is_ok());
}

#[test]
fn another_meters_pushes_are_refused_when_the_title_is_set() {
    let mut listener = listener(&format!("{BOTH}[push]\nsystem_title = \"5745490000000001\""));
    assert!(heard(listener.as_mut(), &sealed(0x30, NAME, 1, &push(7))).is_ok());
    let other = refusal(listener.as_mut(), &sealed(0x30, *b"WEI\0\0\0\0\x02", 9, &push(7)));
    assert!(other.contains("another meter") && other.contains("5745490000000002"), "{other}");
    // An event notification under a cipher tells no title: the set one is taken.
    let general = sealed(0x30, NAME, 2, &[&[0xC2, 0, 0, 3, 1, 0, 1, 8, 0, 255, 2, 0x11][..], &[5]].concat());
    let service = [&[0xCA][..], &general[10..]].concat();
    assert_eq!(heard(listener.as_mut(), &service).as_deref(), Ok("5"));
}

#[test]
fn an_event_notification_without_a_title_needs_one_in_the_settings() {
    let general = sealed(0x30, NAME, 2, &push(7));
    let service = [&[0xCA][..], &general[10..]].concat();
    assert!(refusal(listener(BOTH).as_mut(), &service).contains("system title"));
}

#[test]
fn what_follows_a_plain_push_makes_it_doubtful() {
    let longer = [push(7), vec![1, 2]].concat();
    assert!(refusal(listener("").as_mut(), &longer).contains("belong to nothing"));
    assert!(heard(listener(BOTH).as_mut(), &sealed(0x30, NAME, 1, &longer)).is_ok(), "its tag vouches for it");
}

#[test]
fn a_pause_of_seconds_inside_a_push_is_waited_for() {
    assert!(listener("").pause() > Duration::from_secs(3));
}

#[test]
fn wanted_values_alone_are_kept_and_missing_ones_are_null() {
    let mut listener = listener("values = [\"1.8.0\", \"2.8.0\"]");
    let found = listener.push(&framed(&push(7))).remove(0).unwrap();
    let shown: Vec<_> = found.iter().map(|v| (v.name.as_str(), v.value.as_deref(), v.quality)).collect();
    assert_eq!(shown, [("1.8.0", Some("0.7"), Quality::Good), ("2.8.0", None, Quality::Refused)]);
}

#[test]
fn every_mistake_in_the_settings_is_told_in_a_sentence() {
    let told = |more: &str, expected: &str| {
        let problems = problems(more);
        assert!(problems.iter().any(|p| p.contains(expected)), "{more}: {problems:?}");
    };
    told("authentication_key_file = \"F/ak\"", "needs key_file");
    told("key_file = \"F/ek\"\nauthentication_key_file = \"F/long\"", "two suites");
    assert_eq!(problems("key_file = \"F/long\"\nauthentication_key_file = \"F/long\""), Vec::<String>::new());
    told("key_file = \"F/none\"", "can't be read");
    told("key_file = \"F/ek\"", "can't be verified");
    told("[push]\nsystem_title = \"12\"", "set key_file");
    told(&format!("{BOTH}[push]\nsystem_title = \"12\""), "16 hexadecimal digits");
    told("address = 1", "address is for meters that are asked");
    assert_eq!(problems(BOTH), Vec::<String>::new());
    assert_eq!(problems(""), Vec::<String>::new());
    let folder = tempfile::tempdir().unwrap();
    let wrong = settings(folder.path(), "[push]\nuntagged = true").unwrap();
    assert!(protocol("dlms-push").unwrap().listener(&wrong).is_err());
}
