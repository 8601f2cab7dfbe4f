//! kill -9 at random moments: nothing is lost, nothing is taken twice.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;
use std::time::Duration;

use rand::RngExt;
use weir::os::random;

use super::rig::{Gateway, stderr};

const FRAMES: u64 = 4_000;

/// Kills the child `delay` after something begins or when it has ended; true when it was killed.
fn kill_after(mut child: Child, begins: impl Fn() -> bool, delay: Duration) -> bool {
    while !begins() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Not a wait for something to happen: the moment of the kill is what is random.
    std::thread::sleep(delay);
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let killed = output.status.code().is_none();
    assert!(killed || output.status.success(), "{}", stderr(&output));
    killed
}

#[test]
fn an_import_that_is_killed_loses_nothing_and_takes_nothing_twice() {
    let from = Gateway::new("KAM1", 1..=FRAMES);
    let file = from.export("file");
    let mut random = random::generator();
    let (mut kills, mut halfway) = (0, 0);
    for _ in 0..2 {
        let to = Gateway::new("KAM2", []);
        for _ in 0..3 {
            let record = to.store().join("imports");
            let before = fs::read(&record).ok();
            let child = to.command(&["import", file.to_str().unwrap()]).spawn().unwrap();
            let begins = || fs::read(&record).ok() != before;
            kills += u32::from(kill_after(child, begins, Duration::from_millis(random.random_range(0..60))));
            let here = to.by_origin().len();
            halfway += u32::from(here > 0 && here < FRAMES as usize);
        }
        to.json(&["import", file.to_str().unwrap()]);
        let arrived = to.by_origin();
        assert_eq!(arrived.into_values().collect::<BTreeSet<_>>(), (1..=FRAMES).collect());
        assert_eq!(to.json(&["import", file.to_str().unwrap()])["taken"], 0);
    }
    println!("{kills} kills, {halfway} of them in the middle of the frames: lost 0, twice 0");
    assert!(kills >= 2 && halfway >= 1, "no kill came in time: {kills}, {halfway}");
}

#[test]
fn an_export_that_is_killed_leaves_every_frame_in_the_store_or_in_the_file() {
    let mut random = random::generator();
    let (mut kills, mut files) = (0, 0);
    for round in 0..8 {
        let (gateway, other) = (Gateway::new("KAM1", 1..=1_500), Gateway::new("KAM2", []));
        let file = gateway.path("taken");
        let child = gateway.command(&["export", "--take", "--to", file.to_str().unwrap()]).spawn().unwrap();
        kills += u32::from(kill_after(child, || true, Duration::from_millis(random.random_range(10..400))));
        let mut found: BTreeSet<u64> = gateway.by_origin().into_values().collect();
        if file.exists() {
            files += 1;
            other.json(&["import", file.to_str().unwrap()]);
            found.extend(other.by_origin().into_values());
        } else {
            let _ = fs::remove_file(gateway.path("taken.part"));
        }
        assert_eq!(found, (1..=1_500).collect(), "round {round}");
    }
    println!("{kills} kills, {files} files: lost 0");
    assert!(kills > 0, "no kill came in time");
}
