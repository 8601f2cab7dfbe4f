//! How well the bus is used: against what the wire allows, and against other masters.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use weir::meter::bus::{self, Meter, Port};
use weir::meter::{Health, MeterSettings, Session, protocol};
use weir::os::clock::Clock;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::sim::modbus_meter::ModbusMeters;
use weir::sim::modbus_paced::{Count, PacedMeters, Tally};

use crate::Scale;
use crate::rig::run;
use crate::table::{Figure, median};

/// The word that makes this program a reader for valgrind: `--reads DEVICE COUNT`.
pub const READER: &str = "--reads";
/// Two floats: as many registers as a meter's first two values.
const REGISTERS: u32 = 4;
const SLAVES: u32 = 247;

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (baud, seconds) in [(9600, scale.steady / 4), (115_200, scale.steady / 6)] {
        figures.push(bus_time(baud, seconds.max(4), scale.repeats));
    }
    figures.extend(one_slave(scale));
    figures.extend(instructions());
    figures
}

/// A slow line on a thread of its own.
fn line() -> (std::path::PathBuf, Count) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        run(async move {
            let meters = PacedMeters::open(Duration::ZERO).unwrap();
            tell.send((meters.path(), meters.count())).unwrap();
            let _ = meters.run().await;
        });
    });
    told.recv().unwrap()
}

fn settings(unit: u32, every: &str) -> MeterSettings {
    let text = format!(
        "name = \"m{unit}\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\naddress = {unit}\nevery = \"{every}\"\ntimeout = \"10s\"\n\
         register = [{{ name = \"a\", register = \"holding:0\", type = \"u32\" }}, \
         {{ name = \"b\", register = \"holding:2\", type = \"u32\" }}]\n"
    );
    MeterSettings::parse(&text).unwrap()
}

const fn speed(baud: u32) -> Speed {
    Speed { baud, framing: Framing::EIGHT_N_ONE }
}

/// The agent's own bus with a meter for every unit, all due all the time.
fn bus_time(baud: u32, seconds: u64, repeats: usize) -> Figure {
    let (path, count) = line();
    let (used, tally): (Vec<f64>, Vec<Tally>) = run(async {
        let meters = (1..=SLAVES).map(|unit| Meter::new(&settings(unit, "1s")).unwrap()).collect();
        let port = Port::plain("p", Endpoint::Device(path), speed(baud));
        let (frames, mut taken) = mpsc::channel(64);
        let (_door, jobs) = bus::Handle::new("p");
        let bus = tokio::spawn(bus::run(port, meters, frames, jobs, Clock::system(), Health::new()));
        let drain = tokio::spawn(async move { while taken.recv().await.is_some() {} });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut rounds = Vec::new();
        for _ in 0..repeats {
            let (before, begun) = (count.tally(), Instant::now());
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let (after, took) = (count.tally(), begun.elapsed());
            let part = Tally {
                exchanges: after.exchanges - before.exchanges,
                least: after.least - before.least,
                too_early: after.too_early - before.too_early,
            };
            rounds.push((100.0 * part.least.as_secs_f64() / took.as_secs_f64(), part));
        }
        bus.abort();
        drain.abort();
        rounds.into_iter().unzip()
    });
    let (exchanges, early) = tally.iter().fold((0, 0), |(a, b), t| (a + t.exchanges, b + t.too_early));
    Figure::new(format!("bus time used, {SLAVES} slaves, {baud} baud"), median(used.clone()), "%")
        .against("aim", 95.0)
        .note(format!(
            "of request + answer + two silences of 3.5 characters; {exchanges} exchanges of 8 and 13 bytes, {early} before their silence; best {:.1}",
            used.iter().copied().fold(0.0, f64::max)
        ))
}

async fn open(path: &Path, baud: u32) -> (Line, Box<dyn Session>) {
    let endpoint = Endpoint::Device(path.to_owned());
    let line = Line::open(&endpoint, speed(baud), Direction::Automatic).await.unwrap();
    (line, protocol("modbus-rtu").unwrap().session(&settings(1, "1s")).unwrap())
}

async fn reads(line: &mut Line, session: &mut dyn Session, count: u32) {
    for _ in 0..count {
        assert_eq!(session.read(line).await.unwrap().len(), 2);
    }
}

/// Reads one slave after the other's answer, on the slow line at 115,200 baud.
fn one_slave(scale: &Scale) -> Vec<Figure> {
    const BAUD: u32 = 115_200;
    let count = SLAVES - 1;
    let (mut ours, mut mbpolls, mut pymodbuses) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.repeats {
        let (path, _) = line();
        let took = run(async {
            let (mut line, mut session) = open(&path, BAUD).await;
            reads(&mut line, &mut *session, 10).await;
            let begun = Instant::now();
            reads(&mut line, &mut *session, count).await;
            begun.elapsed()
        });
        ours.push(f64::from(count) / took.as_secs_f64());
        let (path, _) = line();
        let one = mbpoll(&path, BAUD, 1);
        mbpolls.push(f64::from(count) / mbpoll(&path, BAUD, SLAVES).saturating_sub(one).as_secs_f64());
        let (path, _) = line();
        pymodbuses.push(pymodbus(&path, BAUD, count));
    }
    let note =
        format!("{count} reads of {REGISTERS} registers, one after the other, on a line as slow as 115,200 baud");
    let ours = median(ours);
    let figure = |name: &str, theirs: Vec<f64>, more: &str| {
        Figure::new("reads of one slave, 115200 baud", ours, "/s")
            .against(name, median(theirs))
            .note(format!("{note}{more}"))
    };
    vec![
        figure("mbpoll (libmodbus)", mbpolls, "; libmodbus keeps no silence before a request"),
        figure("pymodbus", pymodbuses, ""),
    ]
}

fn mbpoll_command(path: &Path, baud: u32, slaves: u32) -> Vec<String> {
    let units = if slaves == 1 { "1".to_owned() } else { format!("1:{slaves}") };
    let baud = baud.to_string();
    let fixed =
        ["-1", "-o", "5", "-m", "rtu", "-b", &baud, "-P", "none", "-t", "4", "-r", "1", "-c", "4", "-a", &units];
    fixed.iter().map(|a| (*a).to_owned()).chain([path.display().to_string()]).collect()
}

fn mbpoll(path: &Path, baud: u32, slaves: u32) -> Duration {
    let begun = Instant::now();
    let done =
        Command::new("mbpoll").args(mbpoll_command(path, baud, slaves)).output().expect("tests/run installs mbpoll");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    begun.elapsed()
}

/// Reads per second, as its client itself measures.
fn pymodbus(path: &Path, baud: u32, count: u32) -> f64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = std::env::var_os("WEIR_VENV").map_or_else(|| root.join(".venv"), Into::into);
    let done = Command::new(venv.join("bin/python"))
        .arg(root.join("tests/peers/modbus_client.py"))
        .args([&path.display().to_string(), &baud.to_string(), &count.to_string()])
        .output()
        .expect("tests/run makes the virtual environment");
    let text = String::from_utf8_lossy(&done.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&done.stderr)))
}

/// What the child under valgrind does.
pub fn reader(device: &str, count: u32) {
    run(async {
        let (mut line, mut session) = open(Path::new(device), 115_200).await;
        reads(&mut line, &mut *session, count).await;
    });
}

/// Instructions in user space for a read, by valgrind; the start of the programs is taken out.
fn instructions() -> Vec<Figure> {
    const READS: u32 = 60;
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        run(async move {
            let units: Vec<u8> = (1..=247).collect();
            let served = ModbusMeters::new(&units).serve_rtu().unwrap();
            tell.send(served.0.clone()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let path = told.recv().unwrap();
    let own = std::env::current_exe().unwrap();
    let weir = |count: u32| {
        collected(Command::new("valgrind").args(CALLGRIND).arg(&own).args([
            READER,
            &path.display().to_string(),
            &count.to_string(),
        ]))
    };
    let (Some(few), Some(many)) = (weir(READS), weir(2 * READS)) else {
        eprintln!("no valgrind: tests/install figures");
        return Vec::new();
    };
    let theirs = |slaves| {
        collected(Command::new("valgrind").args(CALLGRIND).arg("mbpoll").args(mbpoll_command(&path, 115_200, slaves)))
    };
    let each = |few: f64, many: f64| (many - few) / f64::from(READS);
    let figure = Figure::new("instructions for a read, RTU", each(few, many), "")
        .note(format!("user space, callgrind; {REGISTERS} registers, from the session to the values"));
    match (theirs(1), theirs(1 + READS)) {
        (Some(one), Some(all)) => {
            vec![figure.against("mbpoll, which prints them too", each(one, all))]
        }
        _ => vec![figure],
    }
}

const CALLGRIND: [&str; 2] = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];

fn collected(command: &mut Command) -> Option<f64> {
    let done = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    text.lines().find_map(|l| l.split("Collected :").nth(1))?.trim().parse().ok()
}
