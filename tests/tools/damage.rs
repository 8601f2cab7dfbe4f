//! Stores that were damaged: found, told, mended.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::rig::{Gateway, run, stderr, stdout};

/// Everything in a directory, byte for byte.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            all.extend(content(&entry));
        } else {
            all.insert(entry.clone(), fs::read(&entry).unwrap());
        }
    }
    all
}

fn generation(gateway: &Gateway, lane: &str) -> PathBuf {
    let mut all: Vec<_> = fs::read_dir(gateway.store().join(lane)).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all.remove(0)
}

/// The report of a check, and whether it says that all is well.
fn check(gateway: &Gateway) -> (Value, bool) {
    let output = gateway.weir(&["check", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(output.status.code(), Some(i32::from(report["sound"] == false)));
    let sound = report["sound"] == true;
    (report, sound)
}

/// Changes one byte of the fourth block in every copy of it.
fn bend(db: &Path) {
    let mut bytes = fs::read(db).unwrap();
    let places: Vec<_> = bytes.windows(4).enumerate().filter(|(_, w)| w == b"wEB1").map(|(at, _)| at).collect();
    let head = bytes[places[3]..places[3] + 20].to_vec();
    for at in places.into_iter().filter(|at| bytes[*at..].starts_with(&head)).collect::<Vec<_>>() {
        bytes[at + 200] ^= 1;
    }
    fs::write(db, bytes).unwrap();
}

#[test]
fn a_sound_store_is_told_with_its_figures_and_not_changed() {
    let gateway = Gateway::new("KAM1", 1..=400);
    let before = content(&gateway.store());
    let (report, sound) = check(&gateway);
    assert!(sound, "{report}");
    assert_eq!((&report["waiting"], &report["damaged"], &report["counters"]), (&400.into(), &0.into(), &"good".into()));
    let lanes: Vec<_> =
        report["generations"].as_array().unwrap().iter().map(|g| (g["lane"].clone(), g["frames"].clone())).collect();
    assert_eq!(lanes, [("priority".into(), 40.into()), ("ordinary".into(), 360.into())]);
    let words = stdout(&gateway.weir(&["check"]));
    assert!(words.contains("the store is sound: 400 frames wait, 0 are lost"), "{words}");
    gateway.json(&["repair", "--dry-run"]);
    gateway.export("file");
    assert_eq!(content(&gateway.store()), before, "looking has changed something");
    let done = gateway.weir(&["repair"]);
    assert!(stdout(&done).contains("nothing had to be done\n400 frames wait"), "{} {}", stdout(&done), stderr(&done));
}

#[test]
fn a_check_beside_a_running_agent_sees_what_is_durable() {
    let gateway = Gateway::new("KAM1", 1..=100);
    run(async {
        let store = gateway.open();
        for tag in 101..=160 {
            store.append(super::rig::frame(tag)).await.unwrap();
        }
        store.sync().await.unwrap();
        let (report, sound) = check(&gateway);
        assert!(sound && report["waiting"] == 160, "{report}");
        assert!(report["generations"].to_string().contains("being written"), "{report}");
        store.close().await.unwrap();
    });
}

#[test]
fn a_bent_block_costs_its_own_frames_only_and_repair_counts_them_once() {
    let gateway = Gateway::new("KAM1", 1..=400);
    bend(&generation(&gateway, "ordinary").join("db"));
    let (report, sound) = check(&gateway);
    let lost = report["damaged"].as_u64().unwrap();
    assert!(!sound && (1..=25).contains(&lost), "{report}");
    assert_eq!(report["waiting"], 400 - lost);
    let words = stdout(&gateway.weir(&["check"]));
    assert!(words.contains("DAMAGED") && words.contains("weir store repair"), "{words}");
    let exported = gateway.weir(&["export", "--to", gateway.path("rest").to_str().unwrap(), "--json"]);
    let object: Value = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!(
        (exported.status.code(), &object["frames"], &object["damaged"]),
        (Some(1), &(400 - lost).into(), &lost.into())
    );

    let before = content(&gateway.store());
    let dry = stdout(&gateway.weir(&["repair", "--dry-run"]));
    assert!(dry.contains(&format!("{lost} frames would be given up")), "{dry}");
    assert_eq!(content(&gateway.store()), before);
    let done = gateway.json(&["repair"]);
    assert_eq!(
        (&done["given_up"], &done["cached"], &done["after"]["sound"]),
        (&lost.into(), &(400 - lost).into(), &true.into()),
        "{done}"
    );
    for _ in 0..2 {
        assert_eq!(gateway.waiting().len() as u64, 400 - lost);
        let status = gateway.json(&["status"]);
        assert_eq!((&status["damaged"], &status["received"]), (&lost.into(), &400.into()), "{status}");
        assert!(check(&gateway).1);
    }
    assert_eq!(gateway.json(&["repair"])["given_up"], 0);
}

#[test]
fn a_torn_database_loses_what_was_torn_and_no_more() {
    let gateway = Gateway::new("KAM1", 1..=400);
    let db = generation(&gateway, "ordinary").join("db");
    let whole = fs::read(&db).unwrap();
    let blocks: Vec<_> = whole.windows(4).enumerate().filter(|(_, w)| w == b"wEB1").map(|(at, _)| at).collect();
    fs::write(&db, &whole[..blocks[blocks.len() / 2]]).unwrap();
    let (report, sound) = check(&gateway);
    let lost = report["damaged"].as_u64().unwrap();
    assert!(!sound && lost > 50 && lost < 350, "{report}");
    let done = gateway.json(&["repair"]);
    assert_eq!((&done["given_up"], &done["after"]["sound"]), (&lost.into(), &true.into()), "{done}");
    assert_eq!(gateway.waiting().len() as u64, 400 - lost);
}

#[test]
fn lost_counters_are_rebuilt_and_no_number_is_given_again() {
    let gateway = Gateway::new("KAM1", 1..=300);
    fs::write(gateway.store().join("cursor"), vec![7; 65_536]).unwrap();
    let (report, sound) = check(&gateway);
    assert!(!sound && report["counters"] == "lost" && report["waiting"] == 300, "{report}");
    let done = gateway.json(&["repair"]);
    assert!(done["done"].to_string().contains("counted anew") && done["after"]["sound"] == true, "{done}");
    gateway.feed([999]);
    let waiting = gateway.waiting();
    assert_eq!(waiting.len(), 301);
    assert!(*waiting.keys().last().unwrap() > 1 << 32, "nobody knows which numbers were given");
}

#[test]
fn a_torn_seal_a_damaged_key_and_record_are_found_and_mended() {
    let gateway = Gateway::new("KAM1", 1..=300);
    let old = gateway.key();
    fs::write(generation(&gateway, "priority").join("sealed"), b"x").unwrap();
    fs::write(gateway.store().join("key"), b"x").unwrap();
    fs::write(gateway.store().join("imports"), b"x").unwrap();
    let (report, sound) = check(&gateway);
    assert!(!sound && report["waiting"] == 300 && report["damaged"] == 0, "{report}");
    assert!(report["key"] != "good" && report["imports"] != "good" && report.to_string().contains("seal unreadable"));
    assert!(gateway.refused(&["key"]).contains("can't be used"));
    let done = gateway.json(&["repair"]);
    assert!(done["after"]["sound"] == true && done["cached"] == 300, "{done}");
    assert!(gateway.key() != old && done["done"].to_string().contains(&gateway.key()));
    assert!(gateway.store().join("key.damaged").exists() && gateway.store().join("imports.damaged").exists());
}

#[test]
fn trash_goes_and_what_was_put_aside_goes_only_when_asked() {
    let gateway = Gateway::new("KAM1", 1..=50);
    for name in ["trash-gen-1", "quarantine-gen-2"] {
        fs::create_dir(gateway.store().join(name)).unwrap();
        fs::write(gateway.store().join(name).join("db"), vec![1; 9000]).unwrap();
    }
    let (report, sound) = check(&gateway);
    assert!(
        sound && report["quarantine"][0]["name"] == "quarantine-gen-2" && report["trash"][0]["name"] == "trash-gen-1",
        "{report}"
    );
    let done = gateway.json(&["repair"]);
    assert!(done["done"].to_string().contains("1 directories of trash"), "{done}");
    assert!(gateway.store().join("quarantine-gen-2").exists());
    gateway.json(&["repair", "--purge"]);
    assert!(!gateway.store().join("quarantine-gen-2").exists());
    assert_eq!(gateway.waiting().len(), 50);
}
