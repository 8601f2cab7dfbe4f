//! How much of a device a frame wears: bytes written per frame at steady rates, the broker there or
//! not, against a bare log with the same frames. All workloads run at once, each on a file system
//! of its own.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;

use crate::Scale;
use crate::disk::{Disk, Written};
use crate::rig::{Agent, Broker, Certificates, Receptor, Setup, TELEGRAM, directory, free_port, telegram};
use crate::table::Figure;

const RATES: [u64; 2] = [10, 200];
const TICK: Duration = Duration::from_secs(1);
/// A frame acknowledged before its tick need not touch flash: bytes per frame.
const UP_AIM: f64 = 30.0;
/// Times the payload.
const DOWN_AIM: f64 = 3.0;
/// More than any workload here appends.
const ZEROS: usize = 8 << 20;

/// What a workload wrote in its window.
#[derive(Debug)]
struct Wear {
    frames: u64,
    written: Written,
    counted_by: &'static str,
}

impl Wear {
    fn per_frame(&self) -> f64 {
        self.written.device as f64 / self.frames as f64
    }

    fn times_payload(&self) -> f64 {
        self.per_frame() / TELEGRAM as f64
    }

    fn note(&self) -> String {
        let Self { frames, written, counted_by } = self;
        let (bytes, commits) = (written.device / 1000, written.commits);
        format!("{frames} frames: {bytes} KB, {commits} journal commits; {counted_by}")
    }
}

/// How a bare log's file grows.
#[derive(Debug, Clone, Copy)]
enum Growth {
    Appended,
    /// Filled with zeros beforehand, which is not counted: as files used again would be.
    Preallocated,
}

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let home = directory();
    let certificates = Certificates::make(home.path());
    let (certificates, seconds) = (&certificates, (scale.warm, scale.steady));
    let [slow, fast] = thread::scope(|scope| {
        RATES
            .map(|rate| {
                let up = scope.spawn(move || agent(certificates, true, rate, seconds));
                let down = scope.spawn(move || agent(certificates, false, rate, seconds));
                let appended = scope.spawn(move || bare(Growth::Appended, rate, seconds));
                let preallocated = scope.spawn(move || bare(Growth::Preallocated, rate, seconds));
                [up, down, appended, preallocated]
            })
            .map(|workloads| workloads.map(|w| w.join().unwrap()))
    });
    RATES.into_iter().zip([slow, fast]).flat_map(|(rate, wear)| figures(rate, &wear)).collect()
}

fn figures(rate: u64, [up, down, appended, preallocated]: &[Wear; 4]) -> Vec<Figure> {
    let named = |link: &str| format!("written to flash, link {link}, {rate} frames/s");
    let times = down.times_payload();
    vec![
        Figure::new(named("up"), up.per_frame(), "B/frame").against("aim", UP_AIM).note(up.note()),
        Figure::new(named("up"), up.per_frame(), "B/frame").against("bare log", appended.per_frame()),
        Figure::new(named("down"), times, "x payload").against("aim", DOWN_AIM).note(down.note()),
        Figure::new(named("down"), times, "x payload")
            .against("bare log", appended.times_payload())
            .note(appended.note()),
        Figure::new(named("down"), times, "x payload")
            .against("bare log, preallocated", preallocated.times_payload())
            .note(preallocated.note()),
    ]
}

/// The real binary with one receiver, and a broker of its own: agents of one name throw each other
/// out. When it is not `up` nobody listens where the broker should be.
fn agent(certificates: &Certificates, up: bool, rate: u64, (warm, steady): (u64, u64)) -> Wear {
    let (disk, home, port) = (Disk::make(), directory(), free_port());
    let broker = up.then(|| Broker::start(home.path(), certificates, port));
    let (receptor, radio) = Receptor::start();
    let setup = Setup {
        store: disk.path.join("store"),
        broker: port,
        ca: certificates.ca.clone(),
        uplink: "",
        radio: Some(radio),
        keys: None,
        tells_every: Some(Duration::from_millis(200)),
        malloc: true,
    };
    let (mut agent, _) = Agent::start(&setup);
    let mut line = receptor.send(0);
    let io = PathBuf::from(format!("/proc/{}/io", agent.child.id()));
    if up {
        agent.until_counters("connected", |c| c.connected);
    }
    let settled = |agent: &mut Agent, sent: u64| {
        agent.until_counters("settled", |c| c.received >= sent && (!up || c.cached == 0));
        // The last tick.
        thread::sleep(TICK + TICK / 2);
    };
    let first = warm * rate;
    feed(&mut line, rate, 0..first);
    settled(&mut agent, first);
    let begun = disk.written(&io);
    let frames = steady * rate;
    feed(&mut line, rate, first..first + frames);
    settled(&mut agent, first + frames);
    let written = disk.written(&io).since(begun);
    drop(line);
    agent.stop();
    drop(broker);
    Wear { frames, written, counted_by: disk.counted_by() }
}

/// Sends telegrams one by one, evenly spaced.
fn feed(line: &mut TcpStream, rate: u64, numbers: std::ops::Range<u64>) {
    let begun = Instant::now();
    for (n, sent) in numbers.zip(0u32..) {
        let due = begun + TICK * sent / rate as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        line.write_all(format!("{}\n", HEXLOWER.encode(&telegram(n))).as_bytes()).unwrap();
    }
}

/// The same frames in the plainest durable log: length, CRC and bytes, fdatasync each tick.
fn bare(growth: Growth, rate: u64, (warm, steady): (u64, u64)) -> Wear {
    let disk = Disk::make();
    let file = File::create(disk.path.join("log")).unwrap();
    if let Growth::Preallocated = growth {
        file.write_all_at(&vec![0; ZEROS], 0).unwrap();
        file.sync_all().unwrap();
    }
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let (mut offset, mut begun) = (0, Written::default());
    let start = Instant::now();
    for tick in 0..warm + steady {
        if tick == warm {
            begun = disk.written(Path::new("/proc/thread-self/io"));
        }
        let mut pending = Vec::new();
        for n in tick * rate..(tick + 1) * rate {
            let bytes = telegram(n);
            pending.extend((bytes.len() as u32).to_le_bytes());
            pending.extend(crc.checksum(&bytes).to_le_bytes());
            pending.extend(bytes);
        }
        let due = start + TICK * (tick + 1) as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        file.write_all_at(&pending, offset).unwrap();
        file.sync_data().unwrap();
        offset += pending.len() as u64;
    }
    let written = disk.written(Path::new("/proc/thread-self/io")).since(begun);
    Wear { frames: steady * rate, written, counted_by: disk.counted_by() }
}
