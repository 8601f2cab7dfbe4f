//! Arbitrary bytes at every decoder of `src/wire`, in short: each target of `tests/fuzz/targets` runs over its seeds and
//! their mutations. The same seed gives the same mutations; `fuzz/run` searches for as long as wanted.
//!
//! For longer: `WEIR_ROUNDS=100000 cargo test --release --test fuzz`; of one target `WEIR_TARGET=sml`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when its data is missing"
)]

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use targets::{Sources, TARGETS, Target, run};

/// So many mutations of each target's seeds, where nothing else is asked for.
const ROUNDS: u64 = 200;
/// Targets whose single run takes as long as a hundred of another: the turbo decoder's.
const COSTLY: &[&str] = &["openlinkiq"];
/// Longer inputs find no more here, and take longer.
const LONGEST: usize = 2048;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Numbers that look random and are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// Some bytes changed, lost, doubled, put in or taken from another seed.
    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        bytes.truncate(LONGEST);
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1).min(bytes.len());
            let until = (at + 1 + self.below(24)).min(bytes.len());
            match self.below(8) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.byte(),
                2 if at < bytes.len() => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, b'\r', b'!', 0x1B][self.below(8)],
                3 => drop(bytes.drain(at..until.max(at))),
                4 => bytes.extend_from_within(at..until.max(at)),
                5 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let piece = &other[from..(from + 60).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                6 => bytes.truncate(at),
                _ => bytes.insert(at, self.byte()),
            }
        }
        bytes
    }
}

/// Runs a target once; gives the input, in hex, that it fails of.
fn attempt(target: &Target, choice: u8, cuts: u8, bytes: &[u8]) -> Result<(), String> {
    let input = [&[choice, cuts], bytes].concat();
    let ran = catch_unwind(AssertUnwindSafe(|| run(target, &input)));
    ran.map_err(|_| format!("{} fails of {}", target.name, data_encoding::HEXLOWER.encode(&input)))
}

/// Runs a target over its seeds, then over mutations.
fn short(target: &Target, sources: &Sources, rounds: u64) -> Result<(), String> {
    let mut seeds = (target.seeds)(sources);
    assert!(!seeds.is_empty(), "the target {} has nothing to begin with", target.name);
    seeds.push(Vec::new());
    let name = target.name.bytes().fold(1u64, |sum, byte| sum.wrapping_mul(0x100_0000_01B3) ^ u64::from(byte));
    let mut dice = Dice(name | 1 << 63);
    // Of many recordings, some: each run the same ones.
    let step = seeds.len().div_ceil(60);
    let (choices, rounds): (&[u8], u64) =
        if COSTLY.contains(&target.name) { (&[0], rounds / 50) } else { (&[0, 1, 2, 3], rounds) };
    for seed in seeds.iter().step_by(step) {
        for &choice in choices {
            attempt(target, choice, dice.byte(), seed)?;
        }
    }
    for _ in 0..rounds {
        let bytes = dice.mutated(&seeds);
        attempt(target, dice.byte(), dice.byte(), &bytes)?;
    }
    Ok(())
}

#[test]
fn every_target_holds_for_its_seeds_and_mutations_of_them() {
    let sources = Sources::read(root());
    if !sources.recorded {
        eprintln!("NOTE: no recordings beside the checkout (WEIR_DATA); only made messages are mutated");
    }
    let rounds = std::env::var("WEIR_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let only = std::env::var("WEIR_TARGET").ok();
    let chosen: Vec<_> = TARGETS.iter().filter(|t| only.as_ref().is_none_or(|only| only == t.name)).collect();
    assert!(!chosen.is_empty(), "there is no such target: {only:?}");
    let failures: Vec<_> = chosen.iter().filter_map(|target| short(target, &sources, rounds).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The files under a folder, tests left out.
fn sources_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources_under(&path));
        } else if !path.to_string_lossy().ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

/// Whether a file has a function that others may give bytes to.
fn takes_bytes(text: &str) -> bool {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let signatures = code.split("pub fn ").skip(1).chain(code.split("pub const fn ").skip(1));
    signatures.filter_map(|rest| rest.split_once('{')).any(|(signature, _)| {
        let arguments = signature.split("->").next().unwrap_or_default();
        arguments.contains("[u8]") && !arguments.contains("mut [u8]")
    })
}

/// Files whose functions take bytes and decode none.
const NO_DECODERS: &[&str] = &["dlms/secret.rs", "modbus/register.rs"];

#[test]
fn every_decoder_of_the_wire_has_a_target() {
    let wire = root().join("src/wire");
    let decoders: BTreeSet<String> = sources_under(&wire)
        .into_iter()
        .filter(|path| takes_bytes(&std::fs::read_to_string(path).unwrap()))
        .map(|path| path.strip_prefix(&wire).unwrap().to_string_lossy().into_owned())
        .filter(|file| !NO_DECODERS.contains(&file.as_str()))
        .collect();
    let covered: BTreeSet<String> =
        TARGETS.iter().flat_map(|target| target.covers).map(|file| (*file).to_owned()).collect();
    let missing: Vec<_> = decoders.difference(&covered).collect();
    let stale: Vec<_> = covered.difference(&decoders).collect();
    assert!(missing.is_empty(), "these files of src/wire have decoders without a target in tests/fuzz: {missing:?}");
    assert!(stale.is_empty(), "these files are covered and take no bytes, or are gone: {stale:?}");
}

#[test]
fn the_fuzzer_builds_the_codecs_from_the_crates_that_the_agent_has() {
    let lines = |path: &str| -> Vec<String> {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        let behind = text.split_once("\n[dependencies]\n").unwrap().1;
        let section = behind.lines().take_while(|line| !line.starts_with('['));
        section.filter(|line| line.contains(" = ")).map(str::to_owned).collect()
    };
    let (ours, fuzz) = (lines("Cargo.toml"), lines("fuzz/Cargo.toml"));
    let others: Vec<_> =
        fuzz.iter().filter(|line| !line.starts_with("libfuzzer-sys") && !ours.contains(line)).collect();
    assert!(fuzz.len() > 1 && others.is_empty(), "fuzz/Cargo.toml and Cargo.toml differ in {others:?}");
}

#[test]
fn no_two_targets_have_the_same_name() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
}
