//! Appending to the store against a bare append-only log on the same disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use weir::model::Lane;
use weir::store::SyncPolicy;

use crate::Scale;
use crate::rig::{TELEGRAM, directory, frame, open_store, run, telegram};
use crate::table::{Figure, median};

/// As many frames as the agent's intake takes at once when they come faster than they are stored.
const TOGETHER: usize = 64;
const TICK: Duration = Duration::from_secs(1);

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let (mut ours, mut lonely) = (Vec::new(), Vec::new());
    let mut bare = Vec::new();
    let mut written = (0.0, 0.0);
    for _ in 0..scale.repeats {
        let begun = bytes_written();
        bare.push(rate(scale.backlog, |dir| bare_log(&dir.join("log"), scale.backlog, Some(TICK))));
        let between = bytes_written();
        ours.push(rate(scale.backlog, |dir| appended(&dir.join("store"), scale.backlog, TOGETHER)));
        let payload = (scale.backlog * TELEGRAM as u64) as f64;
        written = ((bytes_written() - between) / payload, (between - begun) / payload);
        lonely.push(rate(scale.backlog / 4, |dir| appended(&dir.join("store"), scale.backlog / 4, 1)));
    }
    let mut single = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..scale.repeats {
        single[0].push(rate(scale.singles, |dir| bare_log(&dir.join("log"), scale.singles, None)));
        single[1].push(rate(scale.singles, |dir| {
            one_by_one(&dir.join("store"), scale.singles, Lane::Ordinary, SyncPolicy::Always);
        }));
        single[2].push(rate(scale.singles, |dir| {
            one_by_one(&dir.join("store"), scale.singles, Lane::Priority, SyncPolicy::Every(TICK));
        }));
    }
    let [each, always, priority] = single.map(median);
    let (frames, bare) = (scale.backlog, median(bare));
    vec![
        Figure::new("append, sync \"1s\"", median(ours), "frames/s")
            .against("bare log, fdatasync each 1 s", bare)
            .note(format!("{frames} frames of {TELEGRAM} bytes, {TOGETHER} at a time, as the agent does")),
        Figure::new("append, sync \"1s\", one at a time", median(lonely), "frames/s")
            .against("bare log, fdatasync each 1 s", bare)
            .note("waits for each frame's number"),
        Figure::new("written to disk, sync \"1s\"", written.0, "x payload").against("bare log", written.1),
        Figure::new("append, sync \"always\"", always, "frames/s")
            .against("bare log, fdatasync each frame", each)
            .note("one after the other"),
        Figure::new("append, priority lane", priority, "frames/s")
            .against("bare log, fdatasync each frame", each)
            .note("one after the other, each durable"),
    ]
}

fn rate(frames: u64, work: impl FnOnce(&Path)) -> f64 {
    let directory = directory();
    // What others have left in the page cache is not ours to write.
    File::open(directory.path()).unwrap().sync_all().unwrap();
    let begun = Instant::now();
    work(directory.path());
    frames as f64 / begun.elapsed().as_secs_f64()
}

/// The plainest durable log: length, CRC and bytes; `None` syncs after each record.
pub fn bare_log(path: &Path, frames: u64, tick: Option<Duration>) {
    let file = File::create(path).unwrap();
    let mut log = BufWriter::with_capacity(1 << 16, &file);
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let mut synced = Instant::now();
    for n in 0..frames {
        let bytes = telegram(n);
        log.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
        log.write_all(&crc.checksum(&bytes).to_le_bytes()).unwrap();
        log.write_all(&bytes).unwrap();
        if tick.is_none_or(|tick| synced.elapsed() >= tick) {
            log.flush().unwrap();
            file.sync_data().unwrap();
            synced = Instant::now();
        }
    }
    log.flush().unwrap();
    file.sync_data().unwrap();
}

/// From an empty directory to everything durable.
fn appended(path: &Path, frames: u64, together: usize) {
    run(async {
        let store = open_store(path, SyncPolicy::Every(TICK));
        let mut next = 0;
        while next < frames {
            let end = frames.min(next + together as u64);
            let batch = (next..end).map(|n| frame(n, Lane::Ordinary));
            assert!(store.append_all(batch).await.iter().all(Result::is_ok));
            next = end;
        }
        store.sync().await.unwrap();
    });
}

fn one_by_one(path: &Path, frames: u64, lane: Lane, sync: SyncPolicy) {
    run(async {
        let store = open_store(path, sync);
        let mut status = store.status();
        for n in 0..frames {
            let sequence = store.append(frame(n, lane)).await.unwrap();
            status.wait_for(|s| s.durable >= sequence).await.unwrap();
        }
    });
}

/// What this process has made the disk write, in bytes.
fn bytes_written() -> f64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}
