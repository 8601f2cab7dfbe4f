//! Measures the store: `cargo test --release --test store_figures -- --ignored --nocapture`.
//! `WEIR_FIGURES_DIR` names the disk to measure (default: the temporary directory),
//! `WEIR_FIGURES_FRAMES` the number of frames (default: 1,000,000).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and this one reads the clock"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weir::model::{Body, Frame, Lane, Stamp, Telegram, TelegramKind, Timestamp};
use weir::setting::Size;
use weir::store::{Store, StoreSettings, SyncPolicy};

const FRAME: usize = 150;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn open(path: &Path) -> Store {
    let sync = SyncPolicy::Every(Duration::from_secs(1));
    Store::open(&StoreSettings { path: path.to_owned(), max_size: Size::from_bytes(2 << 30), sync }).unwrap()
}

fn frame(n: u64, lane: Lane) -> Frame {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    let bytes = std::iter::repeat_with(next).take(FRAME).collect();
    let telegram = Telegram { kind: TelegramKind::WirelessMbus, bytes, rssi: None, corrected_bits: 0 };
    let time = Stamp::synced(Timestamp::from_millis(n as i64));
    Frame { time, lane, body: Body::Telegram(telegram), origin: None }
}

fn proc(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn report(what: &str, frames: u64, since: Instant, written: u64) {
    let seconds = since.elapsed().as_secs_f64();
    println!(
        "{what}: {:.0} frames/s in {seconds:.2} s, RSS {} MB (peak {}), {:.2} x payload written",
        frames as f64 / seconds,
        proc("status", "VmRSS:") / 1024,
        proc("status", "VmHWM:") / 1024,
        (proc("io", "write_bytes:") - written) as f64 / (frames.max(1) * FRAME as u64) as f64,
    );
}

async fn step(name: &str, path: &Path, frames: u64) {
    let begun = Instant::now();
    let written = proc("io", "write_bytes:");
    let store = open(path);
    println!(
        "open: {:.0} ms, RSS {} MB, {} cached",
        begun.elapsed().as_secs_f64() * 1e3,
        proc("status", "VmRSS:") / 1024,
        store.status().borrow().cached
    );
    let begun = Instant::now();
    match name {
        "append" => {
            for n in 0..frames {
                store.append(frame(n, Lane::Ordinary)).await.unwrap();
            }
            store.sync().await.unwrap();
            report("append durable", frames, begun, written);
            println!("disk: {} MB", store.status().borrow().disk_bytes >> 20);
            // As kill -9 leaves it.
            std::process::exit(0);
        }
        "priority" => {
            for n in 0..1000 {
                let sequence = store.append(frame(n, Lane::Priority)).await.unwrap();
                store.status().wait_for(|s| s.durable >= sequence).await.unwrap();
            }
            report("priority, each durable", 1000, begun, written);
        }
        _ => {
            let mut drained = 0u64;
            loop {
                let batch = store.peek(Lane::Ordinary, 0, 500).await.unwrap();
                if batch.is_empty() {
                    break;
                }
                drained += batch.len() as u64;
                store.commit(Lane::Ordinary, batch.iter().map(|s| s.sequence).collect()).await.unwrap();
            }
            store.sync().await.unwrap();
            assert_eq!(drained, frames);
            report("drain by 500", frames, begun, written);
            println!("disk after drain: {} KB", store.status().borrow().disk_bytes >> 10);
        }
    }
    store.close().await.unwrap();
}

#[test]
#[ignore = "takes a minute and wants a release build"]
fn figures() {
    let frames = std::env::var("WEIR_FIGURES_FRAMES").map_or(1_000_000, |n| n.parse().unwrap());
    if let Ok(name) = std::env::var("WEIR_FIGURES_STEP") {
        return run(step(&name, Path::new(&std::env::var("WEIR_FIGURES_PATH").unwrap()), frames));
    }
    let root = std::env::var_os("WEIR_FIGURES_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(root).unwrap();
    for name in ["append", "priority", "drain"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["figures", "--exact", "--ignored", "--nocapture"]);
        child.env("WEIR_FIGURES_STEP", name).env("WEIR_FIGURES_PATH", dir.path().join("store"));
        assert!(child.status().unwrap().success());
    }
}
