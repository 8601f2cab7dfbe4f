//! What OpenlinkIQ's decoder mends, and what that costs: frames with wrong bits, never a wrong
//! payload.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use data_encoding::HEXLOWER;
use weir::wire::mbal::{self, Mbal};
use weir::wire::openlinkiq::{LONGEST_MBAL, Rate, SHORTEST_MBAL, decode, encode};
use weir::wire::wmbus::Meter;

use crate::Scale;
use crate::modbus::{CALLGRIND, collected};
use crate::table::{Figure, median};

/// The word that makes this program a decoder for valgrind: `--openlinkiq FRAME COUNT`.
pub const DECODER: &str = "--openlinkiq";

/// A frame whose bits get wrong.
struct Sent {
    name: String,
    mbal: Vec<u8>,
    frame: Vec<u8>,
    rate: Rate,
}

/// Numbers that look random and are the same in each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Turns each bit with a chance of so many per mille.
    fn over(&mut self, frame: &[u8], per_mille: u64) -> Vec<u8> {
        let mut wrong = frame.to_vec();
        for bit in 0..8 * frame.len() {
            if (self.next() >> 32) % 1000 < per_mille {
                wrong[bit / 8] ^= 0x80 >> (bit % 8);
            }
        }
        wrong
    }
}

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let trials = scale.singles / 5;
    let mut figures = curves(trials);
    figures.push(never_wrong(5 * trials));
    figures.extend(times(scale));
    figures.extend(instructions());
    figures.extend(aarch64());
    figures
}

/// The published examples, then the shortest and the longest frame.
fn sent() -> Vec<Sent> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openlinkiq-rf");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|case| case.unwrap().path()).collect();
    cases.sort();
    let mut all: Vec<Sent> = cases
        .iter()
        .map(|case| {
            let frame = HEXLOWER.decode(fs::read_to_string(case.join("input.hex")).unwrap().trim().as_bytes()).unwrap();
            let read = decode(&frame).unwrap();
            Sent { name: format!("{} bytes, published", read.mbal.len()), mbal: read.mbal, frame, rate: read.rate }
        })
        .collect();
    for length in [SHORTEST_MBAL, LONGEST_MBAL] {
        all.extend([Rate::Half, Rate::Third].map(|rate| made(length, rate)));
    }
    all
}

fn made(length: usize, rate: Rate) -> Sent {
    let mut noise = Noise(length as u64);
    let mbus: Vec<u8> = (SHORTEST_MBAL..length).map(|_| (noise.next() >> 32) as u8).collect();
    let meter = Meter::from_wire([0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16]);
    let (mut mbal, mut frame) = (Vec::new(), Vec::new());
    mbal::encode(&Mbal { control: 0, meter, command: 0x40, mbus: &mbus }, &mut mbal).unwrap();
    encode(&mbal, rate, &mut frame).unwrap();
    Sent { name: format!("{length} bytes"), mbal, frame, rate }
}

/// How many frames come through, by the share of wrong bits.
fn curves(trials: u64) -> Vec<Figure> {
    let mut noise = Noise(1);
    let mut figures = Vec::new();
    for sent in sent() {
        let shares: &[u64] = match sent.rate {
            Rate::Half => &[40, 60, 70, 80, 90, 100],
            Rate::Third => &[80, 120, 140, 150, 160, 180],
        };
        for share in shares {
            let (mut held, mut iterations, mut bits) = (0u64, 0u64, 0u64);
            for _ in 0..trials {
                if let Ok(read) = decode(&noise.over(&sent.frame, *share)) {
                    assert_eq!((&read.mbal, read.rate), (&sent.mbal, sent.rate), "a wrong payload was accepted");
                    held += 1;
                    iterations += u64::from(read.iterations);
                    bits += u64::from(read.corrected_bits());
                }
            }
            let percent = |part: u64, of: u64| 100.0 * part as f64 / of as f64;
            let mean = |sum: u64| sum as f64 / held.max(1) as f64;
            let what = format!(
                "frames through, rate {}, {}, {} % wrong bits",
                sent.rate.word(),
                sent.name,
                *share as f64 / 10.0
            );
            figures.push(Figure::new(what, percent(held, trials), "%").note(format!(
                "{held} of {trials}; {:.1} bits mended and {:.1} iterations in the mean",
                mean(bits),
                mean(iterations)
            )));
        }
    }
    figures
}

/// Frames with far too many wrong bits, and noise behind sound headers: is anything ever accepted that was not sent?
fn never_wrong(trials: u64) -> Figure {
    let mut noise = Noise(2);
    let (all, mut accepted, mut tried) = (sent(), 0u64, 0u64);
    for trial in 0..trials {
        for sent in &all[..6] {
            let mut heard = sent.frame.clone();
            if trial.is_multiple_of(4) {
                heard[12..].iter_mut().for_each(|byte| *byte = (noise.next() >> 32) as u8);
            } else {
                let share = 100 + noise.next() % 120;
                let (header, rest) = sent.frame.split_at(12);
                heard = [header, &noise.over(rest, share)].concat();
            }
            tried += 1;
            if let Ok(read) = decode(&heard) {
                assert_eq!((&read.mbal, read.rate), (&sent.mbal, sent.rate), "a wrong payload was accepted");
                accepted += 1;
            }
        }
    }
    Figure::new("wrong payloads accepted", 0.0, "").note(format!(
        "of {tried} frames, a quarter noise behind a sound header, the others with 10 to 22 % wrong bits behind one; {accepted} came through as sent"
    ))
}

/// A frame of the greatest length that takes all iterations and is refused.
fn worst() -> Vec<u8> {
    let mut noise = Noise(3);
    let mut frame = made(LONGEST_MBAL, Rate::Third).frame;
    frame[12..].iter_mut().for_each(|byte| *byte = (noise.next() >> 32) as u8);
    assert!(decode(&frame).is_err());
    frame
}

fn times(scale: &Scale) -> Vec<Figure> {
    let take = |frame: &[u8], count: u32| {
        let rounds = (0..20 * scale.repeats).map(|_| {
            let begun = Instant::now();
            for _ in 0..count {
                let _ = std::hint::black_box(decode(std::hint::black_box(frame)));
            }
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(count)
        });
        rounds.collect::<Vec<_>>()
    };
    let largest = made(LONGEST_MBAL, Rate::Third);
    let mended = Noise(4).over(&largest.frame, 100);
    let iterations = decode(&mended).unwrap().iterations;
    let bad = take(&worst(), 1);
    let longest = bad.iter().copied().fold(0.0, f64::max);
    vec![
        Figure::new("turbo decoding, largest frame, all iterations", median(bad), "us").note(format!(
            "777 bytes at rate 1/3, noise behind a sound header, refused in the end; median, longest {longest:.0}; on the air it takes 624,800 us"
        )),
        Figure::new("turbo decoding, largest frame, 10 % wrong bits", median(take(&mended, 1)), "us")
            .note(format!("{iterations} iterations; median")),
        Figure::new("largest frame without a wrong bit", median(take(&largest.frame, 100)), "us").note("no turbo decoding"),
    ]
}

/// What the child under valgrind does.
pub fn decoder(frame: &str, count: u32) {
    let frame = HEXLOWER.decode(frame.as_bytes()).unwrap();
    for _ in 0..count {
        let _ = std::hint::black_box(decode(std::hint::black_box(&frame)));
    }
}

/// Instructions in user space, by valgrind; the start of the program is taken out.
fn instructions() -> Vec<Figure> {
    let own = std::env::current_exe().unwrap();
    let run = |frame: &[u8], count: u32| {
        let arguments = [DECODER.to_owned(), HEXLOWER.encode(frame), count.to_string()];
        collected(Command::new("valgrind").args(CALLGRIND).arg(&own).args(arguments))
    };
    let each = |frame: &[u8], count: u32| Some((run(frame, 2 * count)? - run(frame, count)?) / f64::from(count));
    let largest = made(LONGEST_MBAL, Rate::Third).frame;
    let (Some(worst), Some(whole)) = (each(&worst(), 1), each(&largest, 100)) else {
        eprintln!("no valgrind: tests/install valgrind");
        return Vec::new();
    };
    vec![
        Figure::new("instructions, largest frame, all iterations", worst, "").note("user space, callgrind"),
        Figure::new("instructions, largest frame without a wrong bit", whole, "").note("user space, callgrind"),
    ]
}

/// The static firmware that cross/build.sh leaves for 64-bit ARM gateways.
const FIRMWARE: &str = "aarch64-unknown-linux-musl/firmware/weir";

/// Instructions of `weir decode`, the firmware itself, for one frame more, under qemu's emulation of the processor.
fn aarch64() -> Vec<Figure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = std::env::var_os("WEIR_CROSS_TARGET").map_or_else(|| root.join("target-cross"), PathBuf::from);
    let firmware = targets.join(FIRMWARE);
    if !firmware.is_file() {
        eprintln!("no {}: cross/build.sh generic makes it", firmware.display());
        return Vec::new();
    }
    let each = |frame: &[u8], few: usize, many: usize| {
        let count = |frames| executed(&firmware, &format!("{}\n", HEXLOWER.encode(frame)).repeat(frames));
        Some((count(many)? - count(few)?) / (many - few) as f64)
    };
    let largest = made(LONGEST_MBAL, Rate::Third).frame;
    let mended = Noise(4).over(&largest, 100);
    let iterations = decode(&mended).unwrap().iterations;
    let (Some(worst), Some(some), Some(whole)) = (each(&worst(), 1, 2), each(&mended, 1, 2), each(&largest, 10, 30))
    else {
        eprintln!("no qemu-aarch64-static: tests/install qemu-user-static");
        return Vec::new();
    };
    let note = "user space, the firmware's weir decode under qemu-aarch64-static";
    let against = "without a wrong bit";
    vec![
        Figure::new("aarch64 instructions, largest frame, all iterations", worst, "")
            .against(against, whole)
            .note(note),
        Figure::new("aarch64 instructions, largest frame, 10 % wrong bits", some, "")
            .against(against, whole)
            .note(format!("{note}; {iterations} iterations")),
        Figure::new("aarch64 instructions, largest frame without a wrong bit", whole, "")
            .note(format!("{note}; reading the line and printing it as JSON in it")),
    ]
}

/// The instructions that qemu executes. It tells each block that it translates, an instruction a line, and then the address of each
/// block that it executes; a block is executed to its end.
fn executed(firmware: &Path, lines: &str) -> Option<f64> {
    let mut child = Command::new("qemu-aarch64-static")
        .args(["-d", "in_asm,exec,nochain"])
        .arg(firmware)
        .args(["decode", "--format", "openlinkiq-rf", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let mut log = BufReader::with_capacity(1 << 20, child.stderr.take().unwrap());
    let (mut sizes, mut line) = (HashMap::<u64, u64>::new(), Vec::new());
    let (mut sum, mut block) = (0, None);
    while log.read_until(b'\n', &mut line).unwrap() > 0 {
        if let Some(rest) = line.strip_prefix(b"Trace ") {
            // Trace 0: 0x7f0c9c000100 [CS_BASE/PC/FLAGS/CFLAGS] NAME
            let place = rest.split(|byte| *byte == b'/').nth(1).map(hex);
            sum += sizes[&place.unwrap()];
        } else if line.starts_with(b"IN:") {
            block = None;
        } else if let Some(rest) = line.strip_prefix(b"0x") {
            let address = hex(rest.split(|byte| *byte == b':').next().unwrap());
            // The same block may be translated again.
            let first = *block.get_or_insert(address);
            if first == address {
                sizes.insert(first, 0);
            }
            *sizes.get_mut(&first).unwrap() += 1;
        }
        line.clear();
    }
    child.wait().unwrap();
    Some(sum as f64)
}

fn hex(digits: &[u8]) -> u64 {
    u64::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}
