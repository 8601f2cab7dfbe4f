//! The store under `kill -9`: a child appends and commits under load and tells what is durable; it
//! is killed at random moments, the store is opened again and held to what the child said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail loudly; the child speaks on its standard output"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::RngExt;
use weir::model::{Body, Frame, Lane, Sequence, Stamp, Telegram, TelegramKind, Timestamp};
use weir::os::random;
use weir::setting::Size;
use weir::store::{Store, StoreSettings, SyncPolicy};

const ROLE: &str = "WEIR_STORE_CHILD";

fn settings(path: &Path, tick: Duration) -> StoreSettings {
    StoreSettings { path: path.to_owned(), max_size: Size::from_bytes(256 << 20), sync: SyncPolicy::Every(tick) }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

/// The frame that gets the number `sequence`, if the lane is as `lane_of` says.
fn frame(lane: Lane, tag: u64) -> Frame {
    let mut bytes = tag.to_be_bytes().to_vec();
    bytes.resize(20 + (tag % 700) as usize, tag as u8);
    let telegram = Telegram { kind: TelegramKind::OpenlinkIq, bytes, rssi: None, corrected_bits: 0 };
    let time = Stamp::synced(Timestamp::from_millis(tag as i64));
    Frame { time, lane, body: Body::Telegram(telegram), origin: None }
}

fn tag_of(frame: &Frame) -> u64 {
    let Body::Telegram(telegram) = &frame.body else { panic!("not ours") };
    assert_eq!(telegram.bytes.len(), 20 + (u64::from_be_bytes(telegram.bytes[..8].try_into().unwrap()) % 700) as usize);
    u64::from_be_bytes(telegram.bytes[..8].try_into().unwrap())
}

fn child_command(test: &str, role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role).env("WEIR_STORE_PATH", path);
    command
}

fn child_path() -> std::path::PathBuf {
    std::env::var_os("WEIR_STORE_PATH").unwrap().into()
}

/// Appends for ever; prints `d <sequence>` when durable, `c <sequence>...` before a commit.
async fn append_under_load() {
    let store = Store::open(&settings(&child_path(), Duration::from_millis(5))).unwrap();
    let mut status = store.status();
    let mut random = random::generator();
    println!("ready");
    for tag in 0u64.. {
        let lane = if random.random_range(0..20) == 0 { Lane::Priority } else { Lane::Ordinary };
        let sequence = store.append(frame(lane, tag)).await.unwrap();
        println!("a {sequence}");
        if status.has_changed().unwrap() {
            let durable = status.borrow_and_update().durable;
            println!("d {durable}");
        }
        if tag % 50 == 49 && random.random_range(0..3) > 0 {
            let waiting = store.peek(lane, 0, 40).await.unwrap();
            let chosen: Vec<_> = waiting.iter().map(|s| s.sequence).filter(|_| random.random_range(0..8) > 0).collect();
            let listed: Vec<_> = chosen.iter().map(u64::to_string).collect();
            println!("c {}", listed.join(" "));
            store.commit(lane, chosen).await.unwrap();
        }
    }
}

#[test]
fn nothing_durable_is_lost_by_kill_9() {
    if std::env::var_os(ROLE).is_some() {
        run(append_under_load());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut random = random::generator();
    let (mut waiting, mut committed) = (BTreeSet::<Sequence>::new(), BTreeSet::<Sequence>::new());
    let (mut highest, mut repeated, mut checked) = (0, 0, 0);
    for round in 0..30 {
        let mut child = child_command("nothing_durable_is_lost_by_kill_9", "load", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut appended, mut durable, mut said) = (Vec::new(), 0, 0);
        let moment = random.random_range(1..3000);
        while let Some(Ok(line)) = lines.next() {
            let Some((word, rest)) = line.split_once(' ') else { continue };
            match word {
                "a" => appended.extend(rest.parse::<Sequence>()),
                "d" => durable = rest.parse().unwrap_or(durable),
                "c" => committed.extend(rest.split(' ').filter_map(|s| s.parse::<Sequence>().ok())),
                _ => continue,
            }
            said += 1;
            if said == moment {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(appended.first().is_none_or(|first| *first > highest), "a number was used twice");
        highest = appended.last().copied().unwrap_or(highest).max(highest);
        waiting.extend(&appended);
        waiting.retain(|s| !committed.contains(s));

        let found = run(async {
            let store = Store::open(&settings(&path, Duration::from_secs(1))).unwrap();
            let status = store.status().borrow().clone();
            assert_eq!(status.received, status.acknowledged + status.evicted + status.cached, "{status:?}");
            assert_eq!((status.damaged, status.disk_error), (0, None));
            let mut found = BTreeSet::new();
            for lane in [Lane::Priority, Lane::Ordinary] {
                let mut last = 0;
                loop {
                    let more = store.peek(lane, last, 500).await.unwrap();
                    for stored in &more {
                        assert!(stored.sequence > last, "the order of a lane changed");
                        assert_eq!(stored.frame, frame(lane, tag_of(&stored.frame)), "a frame changed");
                        last = stored.sequence;
                        found.insert(stored.sequence);
                    }
                    if more.is_empty() {
                        break;
                    }
                }
            }
            assert_eq!(found.len() as u64, status.cached);
            store.close().await.unwrap();
            found
        });
        let owed: Vec<_> =
            waiting.iter().filter(|s| **s <= durable || **s < appended.first().copied().unwrap_or(0)).collect();
        checked += owed.len();
        let lost: Vec<_> = owed.into_iter().filter(|s| !found.contains(s)).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}, durable through {durable}");
        repeated += found.intersection(&committed).count();
        // What was not durable may be gone; what is here now stays.
        highest = highest.max(found.last().copied().unwrap_or(0));
        committed.retain(|s| !found.contains(s));
        waiting = found;
    }
    println!("30 kills: {checked} durable frames checked, 0 lost, {repeated} acknowledged frames repeated");
    assert!(checked > 1000, "the load was too small to prove anything: {checked}");
    assert!(repeated <= 30 * 200, "more than a tick's acknowledgements were forgotten: {repeated}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_stays_flat_while_a_backlog_grows_and_drains() {
    if std::env::var_os(ROLE).is_some() {
        return run(async {
            let store = Store::open(&settings(&child_path(), Duration::from_millis(50))).unwrap();
            let mut peaks = Vec::new();
            for tag in 0..200_000u64 {
                store.append(frame(Lane::Ordinary, tag * 700 + 130)).await.unwrap();
                if tag == 50_000 || tag == 199_999 {
                    store.sync().await.unwrap();
                    peaks.push(resident_kib());
                }
            }
            let mut drained = 0;
            while let Ok(batch) = store.peek(Lane::Ordinary, 0, 500).await
                && !batch.is_empty()
            {
                drained += batch.len();
                store.commit(Lane::Ordinary, batch.iter().map(|s| s.sequence).collect()).await.unwrap();
            }
            store.sync().await.unwrap();
            let status = store.status().borrow().clone();
            println!("peaks {} {} {} {drained} {}", peaks[0], peaks[1], resident_kib(), status.disk_bytes);
            store.close().await.unwrap();
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "memory_stays_flat_while_a_backlog_grows_and_drains";
    let output = child_command(test, "memory", &dir.path().join("store")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().find_map(|l| l.split_once("peaks ")).unwrap_or_else(|| panic!("no figures: {text}")).1;
    let figures: Vec<u64> = figures.split(' ').map(|n| n.parse().unwrap()).collect();
    println!("KiB at 50,000, at 200,000, drained; frames drained; bytes on disk then: {figures:?}");
    assert!(figures[1] < figures[0] + 6 * 1024, "memory grows with the backlog: {figures:?}");
    assert!(figures[2] < figures[0] + 10 * 1024, "memory grows with draining: {figures:?}");
    assert_eq!(figures[3], 200_000);
    assert!(figures[4] < 2 << 20, "a drained store keeps the disk: {figures:?}");
}
