//! No invocation counter of a system title and key is used twice, whoever uses them and whatever file is lost.

use std::collections::BTreeSet;

use weir::meter::bus::{self, Meter, Port};
use weir::meter::{MeterError, MeterSettings};
use weir::os::clock::Clock;
use weir::os::line::{Endpoint, Framing, Speed};

use crate::association::{Bench, CIPHERED};

const TITLED: &str = "system_title = \"5745490000000007\"\n";

/// A meter's entry with another name.
fn entry(bench: &Bench, name: &str, more: &str) -> MeterSettings {
    let text = bench.text(1, "gmac", &format!("{CIPHERED}{more}"));
    MeterSettings::parse(&text.replace("name = \"m\"", &format!("name = \"{name}\""))).unwrap()
}

fn port(bench: &Bench) -> Port {
    let endpoint = Endpoint::parse(&format!("tcp://127.0.0.1:{}", bench.port));
    Port::plain("p", endpoint, Speed { baud: 9600, framing: Framing::EIGHT_N_ONE })
}

async fn read(bench: &Bench, settings: &MeterSettings) -> Result<(), MeterError> {
    let mut meter = Meter::new(settings).unwrap().kept_in(&bench.path("kept"));
    bus::read_once(&port(bench), &mut meter).await.map(|_| ())
}

/// Says that no counter was seen twice under one title; how many titles there were.
fn titles(bench: &Bench) -> usize {
    let log = bench.log();
    let used: Vec<_> = log.iter().filter_map(|l| l.strip_prefix("IC ").or(l.strip_prefix("GMAC "))).collect();
    assert!(used.len() > 8, "{log:?}");
    assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len(), "{log:?}");
    used.iter().filter_map(|used| used.split_once(' ').map(|(title, _)| title)).collect::<BTreeSet<_>>().len()
}

fn lose(bench: &Bench, part: &str) -> usize {
    let files = std::fs::read_dir(bench.path("kept")).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = files.filter(|path| path.to_string_lossy().contains(part)).collect();
    found.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    found.len()
}

#[tokio::test(start_paused = true)]
async fn two_entries_with_one_title_and_key_and_a_renamed_one_never_share_a_counter() {
    crate::pace::hold();
    // The meter wants counters that rise, whoever asks.
    let bench = Bench::new(&[("METER_STRICT", "100")]);
    for turn in 0..6 {
        let name = ["one", "two", "renamed"][turn % 3];
        read(&bench, &entry(&bench, name, TITLED)).await.unwrap();
    }
    assert_eq!(titles(&bench), 1);
    assert_eq!(bench.count("STALE"), 0, "{:?}", bench.log());
}

#[tokio::test(start_paused = true)]
async fn sessions_that_last_and_take_turns_never_share_a_counter() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_STRICT", "100")]);
    let mut meters =
        ["one", "two"].map(|name| Meter::new(&entry(&bench, name, TITLED)).unwrap().kept_in(&bench.path("kept")));
    for turn in 0..6 {
        bus::read_once(&port(&bench), &mut meters[turn % 2]).await.unwrap();
    }
    assert_eq!(titles(&bench), 1);
    assert_eq!(bench.count("STALE"), 0, "{:?}", bench.log());
}

#[tokio::test(start_paused = true)]
async fn a_lost_file_of_counters_gives_the_client_a_new_title() {
    crate::pace::hold();
    let bench = Bench::new(&[]);
    let settings = entry(&bench, "m", "");
    for _ in 0..3 {
        read(&bench, &settings).await.unwrap();
        read(&bench, &settings).await.unwrap();
        assert_eq!(lose(&bench, "dlmscounter"), 1);
    }
    assert_eq!(titles(&bench), 3);
    // What the meter's own file says is lost with it.
    lose(&bench, "dlms-m");
    read(&bench, &settings).await.unwrap();
    assert_eq!(titles(&bench), 4);
}

#[tokio::test(start_paused = true)]
async fn a_title_of_the_settings_whose_counters_nobody_knows_is_not_used() {
    crate::pace::hold();
    // The public client can't read the counter.
    let bench = Bench::new(&[("METER_STRICT", "100"), ("METER_BLIND", "1")]);
    let settings = entry(&bench, "m", TITLED);
    for lost in [false, true] {
        if lost {
            assert_eq!(lose(&bench, "dlmscounter"), 1);
        }
        let before = bench.count("IC");
        let error = read(&bench, &settings).await.unwrap_err();
        assert!(matches!(&error, MeterError::Unasked(why) if why.contains("--first-counter")), "{error}");
        assert_eq!(bench.count("IC"), before, "nothing ciphered was sent");
        // Somebody says it.
        let order = serde_json::json!({ "object": "0-0:43.1.0*255", "first_counter": if lost { 5000 } else { 200 } });
        let mut meter = Meter::new(&settings).unwrap().kept_in(&bench.path("kept"));
        let mut silent = |_, _| {};
        bus::inspect_once(&port(&bench), &mut meter, &Clock::system(), &order, &mut silent).await.unwrap();
        let again = bus::inspect_once(&port(&bench), &mut meter, &Clock::system(), &order, &mut silent).await;
        assert!(again.unwrap_err().to_string().contains("never set back"));
        read(&bench, &settings).await.unwrap();
        read(&bench, &settings).await.unwrap();
    }
    assert_eq!(titles(&bench), 1);
    assert_eq!(bench.count("STALE"), 0, "{:?}", bench.log());
}
