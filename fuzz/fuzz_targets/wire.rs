//! One program for all targets: `WEIR_TARGET` names the one that runs. With `WEIR_SEEDS` its seeds are written
//! into that folder first. `fuzz/run` sets both.

#![no_main]

#[path = "../../tests/fuzz/targets/mod.rs"]
#[allow(dead_code, reason = "which files a target covers is asked by the short version only")]
mod targets;

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::{Sources, TARGETS, Target, run};

static TARGET: OnceLock<&Target> = OnceLock::new();

/// Each seed with choices of its own in front.
fn write_seeds(target: &Target, folder: &Path) {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    std::fs::create_dir_all(folder).expect("the folder for seeds can be made");
    for (number, seed) in (target.seeds)(&sources).into_iter().enumerate() {
        let name = folder.join(format!("seed-{number:04}"));
        let seed = [&[number as u8, 0], &seed[..]].concat();
        std::fs::write(name, seed).expect("a seed can be written");
    }
}

fn begin() {
    let name = std::env::var("WEIR_TARGET").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("WEIR_TARGET must be one of: {}", names.join(" "));
        std::process::exit(64);
    };
    if let Some(folder) = std::env::var_os("WEIR_SEEDS") {
        write_seeds(target, Path::new(&folder));
    }
    let _ = TARGET.set(target);
}

fuzz_target!(init: begin(), |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        run(target, data);
    }
});
