//! Whether a backlog makes anything dearer: appending, draining the store alone and over the
//! uplink at 0, some and very many cached frames; and the disk a drained backlog leaves behind.

use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use weir::model::Lane;
use weir::store::{Store, SyncPolicy};

use crate::Scale;
use crate::append::bare_log;
use crate::drain::{published, write_lines};
use crate::rig::{
    Agent, Broker, Certificates, Receptor, Setup, directory, fill_store, frame, free_port, open_store, run,
};
use crate::table::{Figure, median};

/// The backlog a broker's restart leaves, and what one batch of the uplink is.
const SOME: u64 = 1000;
const BATCH: usize = 500;
const TOGETHER: u64 = 64;
const TICK: Duration = Duration::from_secs(1);
/// A little more than one full generation of the store: from there on all are alike.
const GENERATION: u64 = 30_000;
/// A run this small is repeated.
const REPEATS: usize = 9;
/// Parts of a long drain that are held against each other.
const PARTS: u64 = 10;
const DISK_AIM: f64 = 2.0;
const MIB: f64 = 1048576.0;

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let mut figures = appends(scale);
    figures.extend(drains(scale));
    figures.extend(uplink(scale));
    figures
}

/// How long `frames` more took to become durable behind a backlog.
fn append(path: &Path, backlog: u64, frames: u64) -> f64 {
    run(async {
        let store = open_store(path, SyncPolicy::Every(TICK));
        add(&store, 0..backlog).await;
        store.sync().await.unwrap();
        let begun = Instant::now();
        add(&store, backlog..backlog + frames).await;
        store.sync().await.unwrap();
        let rate = frames as f64 / begun.elapsed().as_secs_f64();
        store.close().await.unwrap();
        rate
    })
}

async fn add(store: &Store, numbers: std::ops::Range<u64>) {
    let mut next = numbers.start;
    while next < numbers.end {
        let end = numbers.end.min(next + TOGETHER);
        let batch = (next..end).map(|n| frame(n, Lane::Ordinary));
        assert!(store.append_all(batch).await.iter().all(Result::is_ok));
        next = end;
    }
}

fn appends(scale: &Scale) -> Vec<Figure> {
    let (many, frames) = (scale.backlog, scale.backlog / PARTS);
    let (mut bare, mut none, mut some) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.repeats {
        let home = directory();
        let begun = Instant::now();
        bare_log(&home.path().join("log"), frames, Some(TICK));
        bare.push(frames as f64 / begun.elapsed().as_secs_f64());
        none.push(append(&home.path().join("none"), 0, frames));
        some.push(append(&home.path().join("some"), SOME, frames));
    }
    let home = directory();
    let many_rate = append(&home.path().join("many"), many, frames);
    let (bare, none, some) = (median(bare), median(none), median(some));
    let figure = |backlog: u64, rate: f64| {
        Figure::new(format!("append, {backlog} cached"), rate, "frames/s")
            .against("bare log, fdatasync each 1 s", bare)
            .note(format!("{frames} frames more, until all are durable"))
    };
    vec![
        figure(0, none),
        figure(SOME, some),
        figure(many, many_rate),
        Figure::new(format!("append, {many} cached"), many_rate, "frames/s").against("0 cached", none),
    ]
}

/// Peeks and commits batches until `frames` are gone; the seconds that took.
async fn drain(store: &Store, frames: u64) -> f64 {
    let begun = Instant::now();
    let mut left = frames;
    while left > 0 {
        let batch = store.peek(Lane::Ordinary, 0, BATCH.min(left as usize)).await.unwrap();
        assert!(!batch.is_empty(), "the store has given up frames");
        left -= batch.len() as u64;
        store.commit(Lane::Ordinary, batch.iter().map(|stored| stored.sequence).collect()).await.unwrap();
    }
    begun.elapsed().as_secs_f64()
}

/// The seconds it takes to read a bare log of so many frames and check every one.
fn read_bare(path: &Path, frames: u64) -> f64 {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let begun = Instant::now();
    let mut log = BufReader::with_capacity(1 << 16, fs::File::open(path).unwrap());
    let mut bytes = Vec::new();
    for _ in 0..frames {
        let mut header = [0; 8];
        log.read_exact(&mut header).unwrap();
        let [l0, l1, l2, l3, sum @ ..] = header;
        bytes.resize(u32::from_le_bytes([l0, l1, l2, l3]) as usize, 0);
        log.read_exact(&mut bytes).unwrap();
        assert_eq!(crc.checksum(&bytes), u32::from_le_bytes(sum));
    }
    begun.elapsed().as_secs_f64()
}

/// The store alone: nanoseconds per frame to peek and commit, at each backlog.
fn drains(scale: &Scale) -> Vec<Figure> {
    let home = directory();
    let at = |name: &str| home.path().join(name);
    let (many, once) = (scale.backlog, scale.backlog.min(SOME));
    bare_log(&at("log"), many, Some(TICK));
    let bare = median((0..scale.repeats).map(|_| read_bare(&at("log"), many) / many as f64).collect());
    let none = run(async {
        let store = open_store(&at("none"), SyncPolicy::Every(TICK));
        let (mut spent, mut taken) = (0.0, 0);
        while taken < many / PARTS {
            let end = taken + BATCH as u64;
            add(&store, taken..end).await;
            spent += drain(&store, BATCH as u64).await;
            taken = end;
        }
        spent / taken as f64
    });
    let alone = |frames: u64| {
        let times = (0..REPEATS).map(|n| {
            let path = at(&format!("{frames}-{n}"));
            fill_store(&path, frames);
            run(async { drain(&open_store(&path, SyncPolicy::Every(TICK)), frames).await / frames as f64 })
        });
        median(times.collect())
    };
    let (full, some) = (many.min(GENERATION), alone(once));
    let one = alone(full);
    fill_store(&at("many"), many);
    let (parts, left) = run(async {
        let store = open_store(&at("many"), SyncPolicy::Every(TICK));
        let part = many / PARTS;
        let mut parts = Vec::new();
        for _ in 0..PARTS {
            parts.push(drain(&store, part).await / part as f64);
        }
        store.sync().await.unwrap();
        (parts, taken(&at("many")))
    });
    let whole = parts.iter().sum::<f64>() / PARTS as f64;
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    let figure = |backlog: u64, seconds: f64, how: &str| {
        Figure::new(format!("drain of the store alone, {backlog} cached"), 1.0 / seconds, "frames/s")
            .against("bare log, read and checked", 1.0 / bare)
            .note(format!("{:.0} ns a frame, peek and commit by {BATCH}{how}", seconds * 1e9))
    };
    let cost = |what: String, seconds: f64, against: String, other: f64| {
        Figure::new(what, seconds * 1e9, "ns/frame").against(against, other * 1e9)
    };
    vec![
        figure(0, none, ", from memory: each batch as it comes"),
        figure(once, some, ", from disk"),
        figure(full, one, ", from disk: one full generation"),
        figure(many, whole, ", from disk"),
        cost(format!("drain cost, {many} cached"), whole, format!("{once} cached"), some),
        cost(format!("drain cost, {many} cached"), whole, format!("{full} cached"), one),
        cost(format!("drain cost, first tenth of {many}"), first, "last tenth".to_owned(), last)
            .note("above 1: a backlog makes draining dearer"),
        Figure::new(format!("disk after {many} were drained, store alone"), left, "MB").against("aim", DISK_AIM),
    ]
}

/// What a directory takes on disk, with everything in it, in MB.
fn taken(path: &Path) -> f64 {
    let own = |path: &Path| fs::symlink_metadata(path).map_or(0.0, |m| (m.blocks() * 512) as f64 / MIB);
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    own(path) + inside.map(|e| if e.path().is_dir() { taken(&e.path()) } else { own(&e.path()) }).sum::<f64>()
}

/// The real binary and mosquitto.
fn uplink(scale: &Scale) -> Vec<Figure> {
    let home = directory();
    let certificates = Certificates::make(home.path());
    let port = free_port();
    let _broker = Broker::start(home.path(), &certificates, port);
    let (receptor, radio) = Receptor::start();
    let setup = |store: &str, radio: Option<u16>, tells: u64| Setup {
        store: home.path().join(store),
        broker: port,
        ca: certificates.ca.clone(),
        uplink: "",
        radio,
        keys: None,
        tells_every: Some(Duration::from_millis(tells)),
        malloc: true,
    };
    let lines = |frames: u64| {
        let path = home.path().join(format!("lines-{frames}"));
        write_lines(&path, frames);
        median((0..scale.repeats).map(|_| published(&path, &certificates.ca, port, frames)).collect())
    };
    let (many, live, once) = (scale.backlog, scale.drain, scale.backlog.min(SOME));
    let (theirs, theirs_once) = (lines(live), lines(once));

    let none = {
        let (mut agent, _) = Agent::start(&setup("none", Some(radio), 25));
        agent.until_counters("connected", |c| c.connected);
        let begun = Instant::now();
        let line = receptor.send(live);
        agent.until_counters("through", |c| c.received >= live && c.cached == 0);
        let rate = live as f64 / begun.elapsed().as_secs_f64();
        agent.stop();
        drop(line);
        rate
    };
    let some = median(
        (0..REPEATS)
            .map(|n| {
                let name = format!("some-{n}");
                fill_store(&home.path().join(&name), once);
                let (mut agent, _) = Agent::start(&setup(&name, None, 5));
                let took = agent.until_counters("drained", |c| c.connected && c.cached == 0);
                agent.stop();
                once as f64 / took.as_secs_f64()
            })
            .collect(),
    );
    let (whole, halves, left) = long(&setup("many", None, 25), many);
    let baseline = "mosquitto_pub -l -q 1, TLS";
    let note = "from the start of the process, handshake included";
    let halves = halves.map(|(first, last)| {
        Figure::new(format!("drain over TLS, cost of the first half of {many}"), first * 1e9, "ns/frame")
            .against("second half", last * 1e9)
            .note("above 1: a backlog makes draining dearer")
    });
    let mut figures = vec![
        Figure::new("through, 0 cached", none, "frames/s")
            .against(baseline, theirs)
            .note(format!("{live} frames, from the receiver's first line to the last acknowledgement")),
        Figure::new(format!("drain over TLS, {once} cached"), some, "frames/s")
            .against(baseline, theirs_once)
            .note(note),
        Figure::new(format!("drain over TLS, {many} cached"), whole, "frames/s")
            .against(baseline, theirs)
            .note(format!("{note}; mosquitto_pub sends {live}")),
        Figure::new(format!("disk after {many} were drained"), left, "MB").against("aim", DISK_AIM),
    ];
    figures.extend(halves);
    figures
}

/// Drains a long backlog; the rate, the seconds per frame in both halves unless it was too short to
/// tell, and what is left on disk.
fn long(setup: &Setup, frames: u64) -> (f64, Option<(f64, f64)>, f64) {
    fill_store(&setup.store, frames);
    let (mut agent, _) = Agent::start(setup);
    let mut seen: Vec<(Instant, u64)> = Vec::new();
    let took = agent.until_counters("drained", |c| {
        // Before the first frame went, nothing is draining yet.
        if c.cached == frames {
            seen.clear();
        }
        seen.push((Instant::now(), c.cached));
        c.connected && c.cached == 0
    });
    // The last generation goes with the next tick.
    std::thread::sleep(2 * TICK);
    let left = taken(&setup.store);
    agent.stop();
    let middle = seen.iter().find(|(_, cached)| *cached <= frames / 2);
    let cost = |from: &(Instant, u64), to: &(Instant, u64)| {
        let gone = from.1 - to.1;
        (gone > 0).then(|| (to.0 - from.0).as_secs_f64() / gone as f64)
    };
    let halves = || Some((cost(seen.first()?, middle?)?, cost(middle?, seen.last()?)?));
    (frames as f64 / took.as_secs_f64(), halves(), left)
}
