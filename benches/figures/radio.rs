//! Telegrams from a receiver's lines into the store, raw and decoded, by the number of distinct meters; what one costs, and
//! what many meters cost in memory.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use weir::model::{Body, BootId, Timestamp};
use weir::os::clock::{Clock, Dial};
use weir::radio::{self, Forward, Health, OnSilence, RadioSettings, Survey, TelegramsSettings};
use weir::setting::{At, SecretFile};
use weir::store::SyncPolicy;
use weir::wire::aes::{Aes128, BLOCK};

use crate::Scale;
use crate::modbus::{CALLGRIND, collected};
use crate::rig::{Agent, Certificates, Receptor, Setup, directory, free_port, open_store, run};
use crate::table::{Figure, median};

/// The word that makes this program a listener for valgrind: `--radio FILE KEYS|-|bare COUNT`.
pub const LISTENER: &str = "--radio";
/// Instead of keys: the baseline listens.
const BARE: &str = "bare";
/// As the agent's intake takes them.
const TOGETHER: usize = 64;
const TICK: Duration = Duration::from_secs(1);
const KEY: [u8; 16] = [7; 16];
const METERS: [u64; 4] = [1, 100, 1000, 10_000];
const AIM: f64 = 200_000.0;
const AIM_DECODED: f64 = 50_000.0;
const BASELINE: &str = "bare loop: cat, hex, bare log";

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (what, keyed, count, aim) in
        [("telegrams raw", false, scale.drain, AIM), ("telegrams decoded", true, scale.drain / 2, AIM_DECODED)]
    {
        figures.extend(rates(what, keyed, count, aim, scale.repeats));
        figures.extend(instructions(what, keyed).into_iter().flatten());
    }
    figures.extend(memory());
    figures
}

/// What a run took: of the processor, and of the clock up to nine tenths of the telegrams.
#[derive(Debug, Clone, Copy)]
struct Took {
    processor: Duration,
    most: Duration,
}

/// Telegrams a second by the number of meters, in turn with the baseline.
fn rates(what: &str, keyed: bool, count: u64, aim: f64, repeats: usize) -> Vec<Figure> {
    let directory = directory();
    let files: Vec<_> = METERS.iter().map(|meters| written(directory.path(), count, *meters, keyed)).collect();
    let mut took = vec![Vec::new(); METERS.len()];
    let mut bare = Vec::new();
    for round in 0..repeats {
        let (lines, _) = &files[0];
        let begun = processor();
        bare_listen(lines, &directory.path().join("log"), count);
        bare.push((processor() - begun).as_secs_f64());
        for ((lines, keys), took) in files.iter().zip(&mut took) {
            let place = directory.path().join(format!("store-{round}"));
            let begun = processor();
            let most = listen(&place, settings(lines, keys.as_deref()), Clock::system(), count);
            took.push(Took { processor: processor() - begun, most });
            fs::remove_dir_all(place).unwrap();
        }
    }
    let each = |seconds: Vec<f64>| median(seconds) / count as f64;
    let bare = each(bare);
    let costs: Vec<f64> =
        took.iter().map(|took| each(took.iter().map(|t| t.processor.as_secs_f64()).collect())).collect();
    let mut figures = Vec::new();
    for ((meters, took), cost) in METERS.iter().zip(&took).zip(&costs) {
        let name = format!("{what}, line to store, {meters} meters, of one core");
        let clock = median(took.iter().map(|t| 0.9 * count as f64 / t.most.as_secs_f64()).collect());
        let note = format!(
            "{count} telegrams of {} bytes; by processor time of all threads; by the wall clock {clock:.0} /s",
            telegram(0, 1, keyed).len()
        );
        figures.push(Figure::new(&*name, 1.0 / cost, "/s").against("aim", aim).note(note));
        figures.push(Figure::new(name, 1.0 / cost, "/s").against(BASELINE, 1.0 / bare));
    }
    for (meters, cost) in METERS.iter().zip(&costs).skip(1) {
        let name = format!("{what}, processor time of one of {meters} meters");
        figures.push(Figure::new(name, 1e9 * cost, "ns").against("of 1 meter", 1e9 * costs[0]));
    }
    figures
}

/// The processor time of this process so far, in user space and in the kernel.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Telegram number `n` of so many meters: volume and flow, clear or in security mode 5.
fn telegram(n: u64, meters: u64, keyed: bool) -> Vec<u8> {
    let id: u32 =
        format!("{:08}", 10_000_000 + n % meters).bytes().fold(0, |id, digit| id << 4 | u32::from(digit - b'0'));
    let access = (n / meters) as u8;
    let mut head = vec![0x44, 0x2D, 0x2C];
    head.extend(id.to_le_bytes());
    head.extend([0x1B, 0x16, 0x7A, access, 0]);
    let litres: u32 = format!("{:08}", n % 100_000_000).bytes().fold(0, |id, digit| id << 4 | u32::from(digit - b'0'));
    let mut body = vec![0x2F, 0x2F, 0x0C, 0x13];
    body.extend(litres.to_le_bytes());
    body.extend([0x02, 0x3B]);
    body.extend(((n >> 8) as u16).to_le_bytes());
    body.resize(2 * BLOCK, 0x2F);
    if keyed {
        head.extend([0x20, 0x05]);
        let mut iv = [access; BLOCK];
        iv[..8].copy_from_slice(&head[1..9]);
        Aes128::new(&KEY).cbc_encrypt(iv, &mut body);
    } else {
        head.extend([0, 0]);
    }
    let mut bytes = vec![(head.len() + body.len()) as u8];
    bytes.extend(head);
    bytes.extend(body);
    bytes
}

/// The lines of a receiver, and the keys of all its meters.
fn written(directory: &Path, count: u64, meters: u64, keyed: bool) -> (PathBuf, Option<PathBuf>) {
    let mut lines = String::new();
    for n in 0..count {
        let _ = writeln!(lines, "{};-70", HEXLOWER.encode(&telegram(n, meters, keyed)));
    }
    let (file, keys) = (directory.join(format!("lines-{meters}")), directory.join(format!("keys-{meters}")));
    fs::write(&file, lines).unwrap();
    if !keyed {
        return (file, None);
    }
    let key = HEXLOWER.encode(&KEY);
    let text: String = (0..meters).map(|n| format!("{:08} = {key}\n", 10_000_000 + n)).collect();
    fs::write(&keys, text).unwrap();
    fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (file, Some(keys))
}

fn settings(lines: &Path, keys: Option<&Path>) -> RadioSettings {
    RadioSettings {
        name: At::nowhere("roof".to_owned()),
        receiver: At::nowhere("hex-lines".to_owned()),
        device: None,
        command: Some(At::nowhere(vec!["cat".to_owned(), lines.display().to_string()])),
        baud: None,
        mode: None,
        forward: At::nowhere(if keys.is_some() { Forward::Decoded } else { Forward::Raw }),
        keys_file: keys.map(|keys| At::nowhere(SecretFile::new(keys))),
        silence: At::nowhere(OnSilence::Report),
    }
}

/// The receiver, the desk and the store of an agent, until so many telegrams are stored; how long nine tenths of them took.
fn listen(place: &Path, settings: RadioSettings, clock: Clock, count: u64) -> Duration {
    let (decodes, begun) = (settings.keys_file.is_some(), Instant::now());
    run(async {
        let store = open_store(place, SyncPolicy::Every(TICK));
        let (out, heard) = mpsc::channel(radio::HEARD_WAITING);
        let (give, mut frames) = mpsc::channel(256);
        let survey = Survey::new();
        let receiver = tokio::spawn(radio::run(settings, out, clock, Health::new()));
        let desk = tokio::spawn(radio::gather(heard, give, TelegramsSettings::default(), survey));
        let (mut stored, mut waiting) = (0, Vec::with_capacity(TOGETHER));
        // The last ones wait half a second for copies of themselves.
        let mut most = None;
        while stored < count {
            let some = frames.recv_many(&mut waiting, TOGETHER).await;
            assert!(some > 0, "the desk ended after {stored} of {count}");
            assert!(waiting.iter().all(|frame| matches!(frame.body, Body::Decoded(_)) == decodes));
            stored += some as u64;
            for outcome in store.append_all(waiting.drain(..)).await {
                outcome.unwrap();
            }
            if stored >= count / 10 * 9 {
                most.get_or_insert_with(|| begun.elapsed());
            }
        }
        receiver.abort();
        drop(frames);
        let _ = desk.await;
        store.close().await.unwrap();
        most.unwrap()
    })
}

/// The baseline: the same program's lines, from hex into a log of length, CRC and bytes, durable each second; no checks, no
/// copies, no meters.
fn bare_listen(lines: &Path, log: &Path, count: u64) {
    let mut cat = Command::new("cat").arg(lines).stdout(Stdio::piped()).spawn().unwrap();
    let mut source = BufReader::new(cat.stdout.take().unwrap());
    let file = File::create(log).unwrap();
    let mut log = BufWriter::with_capacity(1 << 16, &file);
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let (mut synced, mut line) = (Instant::now(), String::new());
    for _ in 0..count {
        line.clear();
        source.read_line(&mut line).unwrap();
        let (hex, _rssi) = line.split_once(';').unwrap();
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        log.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
        log.write_all(&crc.checksum(&bytes).to_le_bytes()).unwrap();
        log.write_all(&bytes).unwrap();
        if synced.elapsed() >= TICK {
            log.flush().unwrap();
            file.sync_data().unwrap();
            synced = Instant::now();
        }
    }
    log.flush().unwrap();
    file.sync_data().unwrap();
    cat.wait().unwrap();
}

/// What the child under valgrind does.
pub fn listener(lines: &str, keys: &str, count: u64) {
    let directory = directory();
    let (lines, place) = (Path::new(lines), directory.path().join("store"));
    if keys == BARE {
        return bare_listen(lines, &place, count);
    }
    let keys = Path::new(keys);
    // The machine's can't be read under valgrind: it lets a process see a vDSO that is not there.
    let clock =
        Clock::of(Dial::new(Timestamp::from_millis(1_800_000_000_000), BootId::new([1; 8])), Duration::ZERO, None);
    listen(&place, settings(lines, keys.is_absolute().then_some(keys)), clock, count);
}

/// Instructions in user space for one more telegram, by valgrind: the difference of two runs that both know all meters.
fn instructions(what: &str, keyed: bool) -> Option<Vec<Figure>> {
    let (few, many) = (12_000u64, 18_000u64);
    let own = std::env::current_exe().unwrap();
    let count = |telegrams: u64, meters: u64, bare: bool| {
        let directory = directory();
        let (lines, keys) = written(directory.path(), telegrams, meters, keyed);
        let keys = keys.map_or_else(|| "-".to_owned(), |keys| keys.display().to_string());
        let keys = if bare { BARE.to_owned() } else { keys };
        let arguments = [LISTENER.to_owned(), lines.display().to_string(), keys, telegrams.to_string()];
        collected(Command::new("valgrind").args(CALLGRIND).arg(&own).args(arguments))
    };
    let each = |meters, bare| Some((count(many, meters, bare)? - count(few, meters, bare)?) / (many - few) as f64);
    let Some(baseline) = each(1, true) else {
        eprintln!("no valgrind: tests/install valgrind");
        return None;
    };
    let mut figures = Vec::new();
    let mut first = None;
    for meters in METERS {
        let own = each(meters, false)?;
        let name = format!("instructions for one of {what}, {meters} meters");
        let note =
            format!("user space, callgrind; {} more, receiver, desk and store, without reading the clock", many - few);
        match first {
            None => figures.push(Figure::new(name, own, "").against(BASELINE, baseline).note(note)),
            Some(one) => figures.push(Figure::new(name, own, "").against("of 1 meter", one).note(note)),
        }
        first.get_or_insert(own);
    }
    Some(figures)
}

/// What 10,000 meters cost the real binary above what it takes idle, and beside one meter that sends as much.
fn memory() -> Vec<Figure> {
    const TELEGRAMS: u64 = 20_000;
    let peak = |meters: u64, count: u64, keyed: bool| {
        let directory = directory();
        let (lines, keys) = written(directory.path(), count, meters, keyed);
        let ca = Certificates::make(directory.path()).ca;
        let (receptor, radio) = Receptor::start();
        let setup = Setup {
            store: directory.path().join("store"),
            broker: free_port(),
            ca,
            uplink: "",
            radio: Some(radio),
            keys,
            tells_every: Some(Duration::from_millis(100)),
            malloc: false,
        };
        let (mut agent, _) = Agent::start(&setup);
        let line = receptor.send_text(&fs::read(lines).unwrap());
        agent.until_counters("full", |c| c.received >= count);
        let peak = agent.memory("VmHWM:") / 1024.0;
        agent.stop();
        drop(line);
        peak
    };
    let mut figures = Vec::new();
    for (what, keyed) in [("raw", false), ("decoded", true)] {
        let (idle, one, many) = (peak(1, 0, keyed), peak(1, TELEGRAMS, keyed), peak(10_000, TELEGRAMS, keyed));
        let name = format!("peak memory of 10,000 meters above idle, {what}");
        let note = format!("{many:.1} and {idle:.1} MB of the agent, {TELEGRAMS} telegrams, no broker");
        figures.push(Figure::new(&*name, many - idle, "MB").against("aim", 16.0).note(note));
        let note = format!("{one:.1} MB of the agent, as many telegrams");
        figures.push(Figure::new(name, many - idle, "MB").against("1 meter", one - idle).note(note));
    }
    figures
}
