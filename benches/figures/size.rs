//! The sizes of the firmware that cross/build.sh has left.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Scale;
use crate::table::Figure;

/// What is built for gateways, with a board that runs it.
const TARGETS: &[(&str, &str)] = &[
    ("armv7-unknown-linux-gnueabihf", "beaglebone"),
    ("aarch64-unknown-linux-gnu", "rpi-cm4"),
    ("aarch64-unknown-linux-musl", "rpi-cm4"),
];
/// The size_budget of a board that names none.
const BUDGET: f64 = 6.0;

pub fn measure(_: &Scale) -> Vec<Figure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = std::env::var_os("WEIR_CROSS_TARGET").map_or_else(|| root.join("target-cross"), PathBuf::from);
    let figure = |(target, board): &(&str, &str)| match fs::metadata(targets.join(target).join("firmware/weir")) {
        Ok(binary) => Some(
            Figure::new(format!("stripped firmware, {target}"), binary.len() as f64 / f64::from(1 << 20), "MB")
                .against("default budget of a board", BUDGET),
        ),
        Err(_) => {
            eprintln!("no firmware for {target}: cross/build.sh {board} {target} makes it");
            None
        }
    };
    TARGETS.iter().filter_map(figure).collect()
}
