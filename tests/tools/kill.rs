//! kill -9 at random moments: nothing is lost, nothing is taken twice.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use weir::os::random;

use super::rig::{Gateway, stderr};

const FRAMES: u64 = 4_000;

/// Rounds after which a test gives up waiting for its kills to come in time.
const MOST_ROUNDS: u32 = 200;

/// How long the command takes on this machine when nobody kills it: the kills are spread over that
/// time, because a fixed one is over before it begins here and never reached there.
fn undisturbed(child: Child) -> Duration {
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    begun.elapsed()
}

/// Kills the child at a random moment within `time`; true when it had not ended before.
fn killed_within(mut child: Child, time: Duration) -> bool {
    // Not a wait for something to happen: the moment of the kill is what is random.
    std::thread::sleep(time.mul_f64(random::generator().random_range(0.0..1.0)));
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
    let import = |to: &Gateway| to.command(&["import", file.to_str().unwrap()]).spawn().unwrap();
    let time = undisturbed(import(&Gateway::new("KAM2", [])));
    let (mut kills, mut halfway, mut rounds) = (0, 0, 0);
    while kills < 6 || halfway < 1 {
        rounds += 1;
        assert!(rounds <= MOST_ROUNDS, "no kill came in time: {kills}, {halfway} of them in the middle");
        let to = Gateway::new("KAM2", []);
        for _ in 0..3 {
            kills += u32::from(killed_within(import(&to), time));
            let here = to.by_origin().len();
            halfway += u32::from(here > 0 && here < FRAMES as usize);
        }
        to.json(&["import", file.to_str().unwrap()]);
        let arrived = to.by_origin();
        assert_eq!(arrived.into_values().collect::<BTreeSet<_>>(), (1..=FRAMES).collect());
        assert_eq!(to.json(&["import", file.to_str().unwrap()])["taken"], 0);
    }
    println!("{kills} kills, {halfway} of them in the middle of the frames: lost 0, twice 0");
}

#[test]
fn an_export_that_is_killed_leaves_every_frame_in_the_store_or_in_the_file() {
    let take = |gateway: &Gateway| {
        gateway.command(&["export", "--take", "--to", gateway.path("taken").to_str().unwrap()]).spawn().unwrap()
    };
    let time = undisturbed(take(&Gateway::new("KAM1", 1..=1_500)));
    let (mut kills, mut files, mut rounds) = (0, 0, 0);
    while kills < 4 {
        rounds += 1;
        assert!(rounds <= MOST_ROUNDS, "no kill came in time: {kills}");
        let (gateway, other) = (Gateway::new("KAM1", 1..=1_500), Gateway::new("KAM2", []));
        let file = gateway.path("taken");
        kills += u32::from(killed_within(take(&gateway), time));
        let mut found: BTreeSet<u64> = gateway.by_origin().into_values().collect();
        if file.exists() {
            files += 1;
            other.json(&["import", file.to_str().unwrap()]);
            found.extend(other.by_origin().into_values());
        } else {
            let _ = fs::remove_file(gateway.path("taken.part"));
        }
        assert_eq!(found, (1..=1_500).collect(), "round {rounds}");
    }
    println!("{kills} kills, {files} files: lost 0");
}
