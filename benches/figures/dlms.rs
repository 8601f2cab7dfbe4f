//! How well the bus is used by a long load profile over HDLC: against what the wire allows, and against gurux.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weir::meter::{MeterSettings, protocol};
use weir::model::Timestamp;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::sim::dlms_meter::{Content, Control, DlmsMeter, Options, State};

use crate::Scale;
use crate::rig::run;
use crate::table::Figure;

/// The word that makes this program a reader of a profile: `--profile DEVICE INFORMATION_FIELD MAX_PDU DAYS`.
pub const READER: &str = "--profile";
const BAUD: u32 = 9600;
const CHANNELS: usize = 8;
const PER_DAY: usize = 96;
/// The sizes that are asked for: those of the settings' defaults, and large ones.
const SIZES: [(u16, u16); 2] = [(1030, 1024), (2030, 4096)];

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let days = if scale.repeats > 1 { 35 } else { 1 };
    let mut figures = bus_time(days);
    figures.extend(instructions());
    figures
}

fn content(days: usize) -> Content {
    Content { rows: days * PER_DAY, channels: CHANNELS, ..Content::default() }
}

/// A meter on a thread of its own.
fn line(days: usize, paced: bool) -> (PathBuf, Control) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        run(async move {
            let options = Options { devices: vec![(1, 0, content(days))], paced, ..Options::default() };
            let meter = DlmsMeter::open(options).unwrap();
            tell.send((meter.path(), meter.control())).unwrap();
            let _ = meter.run().await;
        });
    });
    told.recv().unwrap()
}

/// What a reader used: the time from its first connection's opening to the last one's end.
struct Used {
    took: Duration,
    state: State,
    said: String,
}

fn watch(mut command: Command, control: &Control) -> Used {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let (mut begun, mut ended) = (None, None);
    let done = loop {
        let state = control.state().clone();
        if state.opened > 0 && begun.is_none() {
            begun = Some(Instant::now());
        }
        if state.closed > 0 && state.closed == state.opened && ended.is_none() {
            ended = Some(Instant::now());
        }
        if let Some(done) = child.try_wait().unwrap() {
            break done;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut said).unwrap();
    assert!(done.success(), "{said}");
    let took = ended.unwrap_or_else(Instant::now) - begun.expect("it opened a connection");
    Used { took, state: control.state().clone(), said }
}

fn ours(path: &Path, (size, pdu): (u16, u16), days: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([READER, &path.display().to_string(), &size.to_string(), &pdu.to_string(), &days.to_string()]);
    command
}

/// All of them at once, each on a line of its own: none takes more than a few percent of a core.
fn bus_time(days: usize) -> Vec<Figure> {
    let rows = days * PER_DAY;
    let needed = content(days).profile_size();
    let speed = Speed { baud: BAUD, framing: Framing::EIGHT_N_ONE };
    let limit = speed.time_of(needed);
    let ours = SIZES.map(|sizes| {
        std::thread::spawn(move || {
            let (path, control) = line(days, true);
            watch(ours(&path, sizes, days), &control)
        })
    });
    let (path, control) = line(days, true);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = std::env::var_os("WEIR_VENV").map_or_else(|| root.join(".venv"), Into::into);
    let mut command = Command::new(venv.join("bin/python"));
    command.arg(root.join("tests/peers/dlms_client.py")).args(["--sap", "16", "--tty", &path.display().to_string()]);
    let gurux = watch(command, &control);
    assert!(gurux.said.contains(&format!("profile rows {rows} ")), "{}", gurux.said);
    let percent = |used: &Used| 100.0 * limit.as_secs_f64() / used.took.as_secs_f64();
    let theirs = percent(&gurux);
    let mut figures = Vec::new();
    for ((size, pdu), used) in SIZES.into_iter().zip(ours) {
        let used = used.join().unwrap();
        let words: Vec<f64> = used.said.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let &[read, before, peak] = &words[..] else { panic!("{}", used.said) };
        assert_eq!(read as usize, rows, "every interval was read");
        let wire = 100.0 * used.state.least.as_secs_f64() / used.took.as_secs_f64();
        let name =
            format!("bus time used, {days} days of {CHANNELS} channels, {BAUD} baud, frames of {size}, APDUs of {pdu}");
        let note = format!(
            "{needed} bytes of profile in {:.1} s; with all that goes round them the line was busy {wire:.1} %; {} requests",
            used.took.as_secs_f64(),
            used.state.requests
        );
        figures.push(Figure::new(&*name, percent(&used), "%").against("aim", 90.0).note(note));
        figures.push(
            Figure::new(name, percent(&used), "%")
                .against("gurux-dlms, frames of 128", theirs)
                .note(format!("it took {:.1} s", gurux.took.as_secs_f64())),
        );
        figures.push(
            Figure::new(format!("memory for {rows} intervals, APDUs of {pdu}"), (peak - before) / 1024.0, "MB")
                .note(format!("peak {:.1} MB of the process", peak / 1024.0)),
        );
    }
    figures
}

/// What the child does: reads the whole profile once, and tells the intervals and its memory in kB.
pub fn reader(device: &str, size: &str, pdu: &str, days: usize) {
    let text = format!(
        "name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\ntimeout = \"5s\"\nretries = 3\nload_profile = {{ id = \"1-0:99.1.0*255\" }}\n\
         dlms = {{ information_field = {size}, max_pdu = {pdu}, longest_session = \"1h\" }}\n"
    );
    let settings = MeterSettings::parse(&text).unwrap();
    run(async {
        let speed = Speed { baud: BAUD, framing: Framing::EIGHT_N_ONE };
        let mut line = Line::open(&Endpoint::Device(device.into()), speed, Direction::Automatic).await.unwrap();
        let mut session = protocol("dlms").unwrap().session(&settings).unwrap();
        let content = content(days);
        let before = memory("VmRSS:");
        let after = Timestamp::from_millis(content.first.as_millis() - 1000);
        let until = content.first.plus(Duration::from_secs(900 * content.rows as u64));
        let intervals = session.profile().unwrap().read(&mut line, after, until).await.unwrap();
        println!("{} {before} {}", intervals.len(), memory("VmHWM:"));
    });
}

/// A line of /proc/self/status, in kB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Instructions in user space for one APDU of a profile, from the frames to the intervals; the start is taken out.
fn instructions() -> Vec<Figure> {
    let counted = |days: usize| {
        let (path, control) = line(days, false);
        let own = ours(&path, SIZES[0], days);
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(own.get_program())
            .args(own.get_args());
        let done = command.stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{text}");
        let count: f64 = text.lines().find_map(|l| l.split("Collected :").nth(1))?.trim().parse().ok()?;
        let requests = control.state().requests;
        Some((count, requests))
    };
    let (Some((few, little)), Some((many, much))) = (counted(1), counted(3)) else {
        eprintln!("no valgrind: tests/install valgrind");
        return Vec::new();
    };
    let each = (many - few) / f64::from(much - little);
    vec![Figure::new("instructions for an APDU of a profile, HDLC", each, "").note(format!(
        "user space, callgrind; {} more APDUs of 1024 bytes, 18 intervals of {CHANNELS} values each",
        much - little
    ))]
}
