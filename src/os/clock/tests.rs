//! The clock's stories: boots without a clock, boots that never learn the time, jumps, bad books.

use tokio::time::Instant;

use super::*;
use crate::model::{BootId, ClockState, TimeQuality};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(365 * 24);
const PATIENCE: Duration = Duration::from_mins(15);
const NOTHING: Timestamp = Timestamp::from_millis(0);

fn boot(n: u8) -> BootId {
    BootId::new([n; 8])
}

/// The true time at the start of these stories.
fn truth() -> Timestamp {
    BUILT.plus(40 * 24 * HOUR).plus(Duration::from_millis(123))
}

fn back(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(time.as_millis() - i64::try_from(by.as_millis()).unwrap())
}

fn machine(wall: Timestamp, n: u8, directory: Option<&Path>) -> (Dial, Clock) {
    let dial = Dial::new(wall, boot(n));
    (dial.clone(), Clock::of(dial, PATIENCE, directory))
}

/// Lets the keeper do what it does now.
async fn kept(clock: &Clock) {
    drop(clock.look());
    clock.save(&mut 0).await;
}

#[test]
fn frames_of_a_boot_without_a_clock_get_their_right_times_when_ntp_comes() {
    let (dial, clock) = machine(NOTHING, 1, None);
    let mut made = Vec::new();
    for n in 0..100 {
        dial.pass(Duration::from_millis(1_777 * n));
        let stamp = clock.stamp();
        assert_eq!((stamp.clock, clock.resolve(&stamp).1), (ClockState::Unsynced, TimeQuality::Unsynced));
        assert!(stamp.wall >= BUILT && clock.resolve(&stamp).0 >= BUILT, "never 1970");
        made.push((dial.read().0.as_millis(), stamp));
    }
    assert!(made.windows(2).all(|w| w[0].1.wall <= w[1].1.wall), "and never backwards");
    let off = dial.read().0.as_millis();
    dial.set(truth());
    dial.trust(true);
    dial.pass(SECOND);
    assert_eq!(clock.stamp().clock, ClockState::Synced);
    for (since_start, stamp) in made {
        let expected = Timestamp::from_millis(truth().as_millis() - off + since_start);
        assert_eq!(clock.resolve(&stamp), (expected, TimeQuality::Corrected));
    }
    let after = clock.stamp();
    assert_eq!(clock.resolve(&after), (truth().plus(SECOND), TimeQuality::Synced));
    assert_eq!((clock.health().jumps, clock.health().basis), (1, Basis::Clock));
}

#[tokio::test]
async fn a_later_boot_mends_what_an_earlier_one_left_if_that_ever_knew_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let (early, late) = {
        let (dial, clock) = machine(NOTHING, 1, Some(dir.path()));
        dial.pass(MINUTE);
        let early = clock.stamp();
        dial.set(truth());
        dial.trust(true);
        dial.pass(SECOND);
        kept(&clock).await;
        dial.trust(false);
        dial.pass(10 * MINUTE);
        dial.set(NOTHING);
        (early, clock.stamp())
    };
    // The second boot never learns the time: the best it can say is "later than the first".
    let never = {
        let (dial, clock) = machine(NOTHING, 2, Some(dir.path()));
        assert_eq!(clock.resolve(&early), (back(truth(), Duration::ZERO), TimeQuality::Corrected));
        dial.pass(MINUTE);
        let stamp = clock.stamp();
        assert_eq!(clock.resolve(&stamp), (truth().plus(SECOND + MINUTE), TimeQuality::Unsynced));
        assert_eq!(clock.health().basis, Basis::LastGood);
        clock.close().await;
        stamp
    };
    // The third does; the frames of all three still wait in the store.
    let (dial, clock) = machine(NOTHING, 3, Some(dir.path()));
    dial.set(truth().plus(YEAR));
    dial.trust(true);
    dial.pass(2 * SECOND);
    assert_eq!(clock.resolve(&early), (truth(), TimeQuality::Corrected));
    assert_eq!(clock.resolve(&late), (truth().plus(SECOND + 10 * MINUTE), TimeQuality::Corrected));
    assert_eq!(clock.resolve(&never), (truth().plus(SECOND + MINUTE), TimeQuality::Unsynced));
    assert_eq!(clock.stamp().clock, ClockState::Synced);
}

#[test]
fn jumps_of_a_clock_nobody_vouches_for_change_no_time() {
    for target in [
        truth().plus(2 * HOUR),
        truth(),
        truth().plus(10 * YEAR),
        back(truth(), 10 * YEAR),
        NOTHING,
        Timestamp::from_millis(-5),
        Timestamp::from_millis(i64::MAX),
        Timestamp::from_millis(i64::MIN),
    ] {
        let (dial, clock) = machine(truth(), 1, None);
        dial.trust(true);
        assert_eq!(clock.stamp().clock, ClockState::Synced);
        dial.pass(HOUR);
        // As the kernel does it: who sets the clock makes it unsynchronised.
        dial.trust(false);
        dial.set(target);
        let during = clock.stamp();
        assert_eq!(clock.resolve(&during), (truth().plus(HOUR), TimeQuality::Corrected), "{target}");
        assert_eq!((during.wall, clock.now()), (truth().plus(HOUR), truth().plus(HOUR)), "{target}");
        assert_eq!((clock.health().jumps, clock.health().basis), (1, Basis::Book), "{target}");
        dial.pass(MINUTE);
        dial.set(truth().plus(HOUR + MINUTE));
        dial.trust(true);
        dial.pass(SECOND);
        assert_eq!(clock.resolve(&clock.stamp()), (truth().plus(HOUR + MINUTE + SECOND), TimeQuality::Synced));
        assert_eq!(clock.resolve(&during), (truth().plus(HOUR), TimeQuality::Corrected), "{target}");
        assert_eq!(clock.health().jumps, 2);
    }
}

#[test]
fn a_clock_that_is_vouched_for_is_followed_at_once_but_never_before_the_build() {
    let (dial, clock) = machine(truth(), 1, None);
    dial.trust(true);
    clock.stamp();
    for (target, believed) in [
        (truth().plus(HOUR), true),
        (truth(), true),
        (truth().plus(10 * YEAR), true),
        (truth(), true),
        (back(truth(), 10 * YEAR), false),
        (NOTHING, false),
        (truth(), true),
    ] {
        dial.set(target);
        let stamp = clock.stamp();
        let (time, quality) = clock.resolve(&stamp);
        if believed {
            assert_eq!((time, quality), (target, TimeQuality::Synced));
        } else {
            assert_eq!((time, quality), (truth(), TimeQuality::Corrected), "{target}");
        }
    }
    assert_eq!(clock.health().jumps, 7);
}

#[test]
fn a_frame_between_two_trusted_times_takes_the_nearer_one() {
    let (dial, clock) = machine(back(truth(), HOUR), 1, None);
    dial.trust(true);
    for _ in 0..120 {
        dial.pass(MINUTE);
        clock.stamp();
    }
    dial.trust(false);
    dial.pass(2 * MINUTE);
    let (near_old, wrong) = (clock.stamp(), dial.read().0);
    dial.pass(20 * MINUTE);
    let near_new = clock.stamp();
    dial.pass(MINUTE);
    dial.set(dial.read().0.plus(HOUR));
    dial.trust(true);
    let now = clock.stamp();
    assert_eq!(now.clock, ClockState::Synced);
    assert_eq!(clock.resolve(&near_old), (wrong, TimeQuality::Corrected), "the clock was trusted 2 minutes before");
    assert_eq!(clock.resolve(&near_new), (back(now.wall, MINUTE), TimeQuality::Corrected));
}

#[test]
fn what_the_clock_says_counts_when_nothing_better_is_known() {
    let (dial, clock) = machine(truth(), 1, None);
    assert_eq!(clock.resolve(&clock.stamp()), (truth(), TimeQuality::Unsynced));
    assert_eq!(clock.health().basis, Basis::Unconfirmed);
    dial.set(back(BUILT, HOUR));
    assert_eq!((clock.now(), clock.health().basis), (BUILT, Basis::Built));
    dial.pass(MINUTE);
    assert_eq!(clock.now(), BUILT.plus(MINUTE));
}

#[tokio::test(start_paused = true)]
async fn ordinary_frames_wait_for_an_unset_clock_until_it_is_set_or_patience_ends() {
    let (dial, clock) = machine(truth(), 1, None);
    assert!(!clock.holds(), "a clock that may be right holds up nothing");
    dial.set(back(BUILT, 2 * MINUTE));
    assert!(clock.holds());
    dial.set(back(BUILT, MINUTE));
    assert!(!clock.holds(), "a minute behind may be the clock");

    let (dial, clock) = machine(NOTHING, 1, None);
    assert!(clock.holds());
    let start = Instant::now();
    let set = async {
        sleep(MINUTE).await;
        dial.pass(MINUTE);
        dial.set(truth());
        clock.stamp();
    };
    tokio::join!(clock.released(), set);
    assert_eq!(start.elapsed(), MINUTE);

    let (dial, clock) = machine(NOTHING, 1, None);
    let start = Instant::now();
    let pass = async {
        for _ in 0..PATIENCE.as_secs() {
            sleep(SECOND).await;
            dial.pass(SECOND);
        }
    };
    tokio::join!(clock.released(), pass);
    assert_eq!(start.elapsed().as_secs(), PATIENCE.as_secs());
    let impatient = Clock::of(Dial::new(NOTHING, boot(1)), Duration::ZERO, None);
    assert!(!impatient.holds());
}

#[test]
fn the_book_is_written_when_it_learns_and_once_an_hour() {
    let (dial, clock) = machine(truth(), 1, None);
    dial.trust(true);
    let mut writes = Vec::new();
    for minute in 0..600 {
        clock.stamp();
        let (mut state, _) = clock.look();
        if std::mem::take(&mut state.unsaved) {
            let good = state.book.good();
            state.saved(good);
            writes.push(minute);
        }
        drop(state);
        dial.pass(MINUTE);
        if minute == 100 {
            dial.set(dial.read().0.plus(3 * SECOND));
        }
        if minute == 200 {
            dial.set(dial.read().0.plus(SECOND));
        }
    }
    assert_eq!(writes, [0, 60, 101, 161, 221, 281, 341, 401, 461, 521, 581]);
}

#[tokio::test]
async fn a_bad_book_costs_what_it_knew_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(BOOK);
    let bad: [&[u8]; 5] = [b"", b"weir clock book 1\ngood ", &[0xFF; 1000], &[b'a'; 200_000], b"weir clock book 9\n"];
    for content in bad {
        std::fs::write(&path, content).unwrap();
        let (dial, clock) = machine(NOTHING, 1, Some(dir.path()));
        assert_eq!(clock.now(), BUILT);
        dial.set(truth());
        dial.trust(true);
        dial.pass(SECOND);
        kept(&clock).await;
        let (_, next) = machine(NOTHING, 2, Some(dir.path()));
        assert_eq!(next.now(), truth().plus(SECOND), "it is whole again");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(machine(NOTHING, 1, Some(dir.path())).1.now(), BUILT);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_the_book_stops_nothing_and_gets_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("not-there-yet");
    let (dial, clock) = machine(truth(), 1, Some(&place));
    dial.trust(true);
    let mut failures = 0;
    drop(clock.look());
    clock.save(&mut failures).await;
    clock.save(&mut failures).await;
    assert_eq!(failures, 2, "it stays unsaved");
    assert_eq!(clock.resolve(&clock.stamp()), (truth(), TimeQuality::Synced));
    let keeper = clock.clone();
    let task = tokio::spawn(async move { keeper.keep().await });
    sleep(SECOND).await;
    std::fs::create_dir(&place).unwrap();
    while !place.join(BOOK).exists() {
        sleep(LOOK_EVERY).await;
    }
    task.abort();
    let (_, next) = machine(NOTHING, 2, Some(&place));
    assert_eq!(next.now(), truth());
}

#[test]
fn a_boot_id_and_an_uptime_come_from_the_real_machine() {
    let clock = Clock::system();
    let (one, two) = (clock.stamp(), clock.stamp());
    assert_eq!(one.boot, two.boot);
    assert!(one.boot != BootId::UNKNOWN && one.uptime > 0 && two.uptime >= one.uptime);
    assert!(one.wall >= BUILT);
}

#[test]
fn no_build_is_older_than_the_newest_release_in_the_changelog() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/CHANGELOG.md")).unwrap();
    let dates = page.lines().filter(|l| l.starts_with("## [")).filter_map(|l| l.rsplit_once(" - "));
    for (_, date) in dates {
        let released = Timestamp::parse(&format!("{}T00:00:00Z", date.trim())).unwrap();
        assert!(BUILT >= released, "set RELEASED in src/os/clock/state.rs to {date}");
    }
}
