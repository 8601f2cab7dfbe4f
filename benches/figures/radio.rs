//! Telegrams from a receiver's lines into the store, raw and decoded, by the number of distinct meters; what one costs, and
//! what many meters cost in memory.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use tokio::sync::mpsc;
use weir::os::clock::Clock;
use weir::radio::{self, Forward, Health, OnSilence, RadioSettings, Survey, TelegramsSettings};
use weir::setting::{At, SecretFile};
use weir::store::SyncPolicy;
use weir::wire::aes::{Aes, BLOCK};

use crate::Scale;
use crate::modbus::{CALLGRIND, collected};
use crate::rig::{directory, open_store, run};
use crate::table::{Figure, median};

/// The word that makes this program a listener for valgrind: `--radio FILE KEYS|- COUNT`.
pub const LISTENER: &str = "--radio";
/// As the agent's intake takes them.
const TOGETHER: usize = 64;
const KEY: [u8; 16] = [7; 16];
const AIM: f64 = 200_000.0;
const AIM_DECODED: f64 = 50_000.0;

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (what, keyed, count, aim) in
        [("telegrams", false, scale.backlog, AIM), ("telegrams decoded with keys", true, scale.backlog / 4, AIM_DECODED)]
    {
        let mut first = None;
        for meters in [1, 100, 1000, 10_000] {
            let rates: Vec<_> = (0..scale.repeats).map(|_| rate(count, meters, keyed)).collect();
            let rate = median(rates);
            let one = *first.get_or_insert(rate);
            figures.push(
                Figure::new(format!("{what} from line to store, {meters} meters"), rate, "1/s")
                    .against("aim", aim)
                    .note(format!("{count} telegrams of {} bytes; {:.2} of the rate of 1 meter", telegram(0, 1, keyed).len(), rate / one)),
            );
        }
        figures.extend(instructions(what, keyed));
    }
    figures.extend(memory());
    figures
}

/// Telegram number `n` of so many meters: volume and flow, clear or in security mode 5.
fn telegram(n: u64, meters: u64, keyed: bool) -> Vec<u8> {
    let id: u32 = format!("{:08}", 10_000_000 + n % meters).bytes().fold(0, |id, digit| id << 4 | u32::from(digit - b'0'));
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
        Aes::new(&KEY).cbc_encrypt(iv, &mut body);
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
    let (file, keys) = (directory.join("lines"), directory.join("keys"));
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

/// Telegrams a second, from the start of the program that prints them to the last one in the store.
fn rate(count: u64, meters: u64, keyed: bool) -> f64 {
    let directory = directory();
    let (lines, keys) = written(directory.path(), count, meters, keyed);
    let begun = Instant::now();
    listen(&directory.path().join("store"), settings(&lines, keys.as_deref()), count);
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The receiver, the desk and the store of an agent, until so many telegrams are stored.
fn listen(place: &Path, settings: RadioSettings, count: u64) {
    run(async {
        let store = open_store(place, SyncPolicy::Every(Duration::from_secs(1)));
        let (out, heard) = mpsc::channel(radio::HEARD_WAITING);
        let (give, mut frames) = mpsc::channel(256);
        let (clock, survey) = (Clock::system(), Survey::new());
        let receiver = tokio::spawn(radio::run(settings, out, clock, Health::new()));
        let desk = tokio::spawn(radio::gather(heard, give, TelegramsSettings::default(), survey));
        let (mut stored, mut waiting) = (0, Vec::with_capacity(TOGETHER));
        while stored < count {
            let some = frames.recv_many(&mut waiting, TOGETHER).await;
            assert!(some > 0, "the desk ended after {stored} of {count}");
            stored += some as u64;
            for outcome in store.append_all(waiting.drain(..)).await {
                outcome.unwrap();
            }
        }
        receiver.abort();
        drop(frames);
        let _ = desk.await;
        store.close().await.unwrap();
    });
}

/// What the child under valgrind does.
pub fn listener(lines: &str, keys: &str, count: u64) {
    let directory = directory();
    let keys = Path::new(keys);
    listen(&directory.path().join("store"), settings(Path::new(lines), keys.is_absolute().then_some(keys)), count);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("{}", peak.trim().trim_end_matches(" kB"));
}

/// Instructions in user space for one more telegram, by valgrind: the difference of two runs.
fn instructions(what: &str, keyed: bool) -> Option<Figure> {
    let (few, many, meters) = (2000u64, 6000u64, 1000);
    let own = std::env::current_exe().unwrap();
    let count = |telegrams: u64| {
        let directory = directory();
        let (lines, keys) = written(directory.path(), telegrams, meters, keyed);
        let keys = keys.map_or_else(|| "-".to_owned(), |keys| keys.display().to_string());
        let arguments = [LISTENER.to_owned(), lines.display().to_string(), keys, telegrams.to_string()];
        collected(Command::new("valgrind").args(CALLGRIND).arg(&own).args(arguments))
    };
    let each = (count(many)? - count(few)?) / (many - few) as f64;
    let note = format!("user space, callgrind; {} more of {meters} meters, receiver, desk and store", many - few);
    Some(Figure::new(format!("instructions for one of {what}"), each, "").note(note))
}

/// What 10,000 meters cost beside one, in this process.
fn memory() -> Vec<Figure> {
    let own = |meters: u64| {
        let directory = directory();
        let (lines, _) = written(directory.path(), 20_000, meters, false);
        let own = std::env::current_exe().unwrap();
        let arguments = [LISTENER.to_owned(), lines.display().to_string(), "-".to_owned(), "20000".to_owned()];
        let output = Command::new(own).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse::<f64>().unwrap_or_else(|_| panic!("{text}"))
    };
    let (one, many) = (own(1), own(10_000));
    vec![
        Figure::new("peak memory of 10,000 meters above that of 1", (many - one) / 1024.0, "MB")
            .against("aim", 16.0)
            .note(format!("{:.1} and {:.1} MB of the process, 20,000 telegrams each", many / 1024.0, one / 1024.0)),
    ]
}
