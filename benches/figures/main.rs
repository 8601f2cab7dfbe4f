//! The figures of docs/figures.md, each as a ratio to a baseline measured in the same run:
//! `cargo bench --bench figures [-- [--quick] [--json] [SECTION...]]`.
//!
//! Sections: append, drain, backlog, memory, ready, wakeups, modbus, dlms, openlinkiq, radio, tunnel, at, flash, size. `WEIR_FIGURES_DIR` names the disk to
//! measure (default: target/tmp), `WEIR_FIGURES_BINARY` another build of weir than cargo's own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a measurement may fail loudly, prints, and reads the clock"
)]

mod append;
mod at;
mod backlog;
mod disk;
mod dlms;
mod drain;
mod flash;
mod memory;
mod modbus;
mod openlinkiq;
mod radio;
mod ready;
mod rig;
mod size;
mod table;
mod tunnel;
mod wakeups;

use table::{Figure, Machine};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Frames of the large backlog and of an append run.
    pub backlog: u64,
    /// Frames of a drain run.
    pub drain: u64,
    /// Records that are made durable one by one.
    pub singles: u64,
    /// How often a figure is taken; the median counts.
    pub repeats: usize,
    /// How long an idle agent is watched, in seconds.
    pub idle: u64,
    /// How long steady rates run before they are measured, in seconds.
    pub warm: u64,
    /// And while they are: the cursor is written once a minute.
    pub steady: u64,
}

const FULL: Scale =
    Scale { backlog: 1_000_000, drain: 200_000, singles: 2000, repeats: 3, idle: 10, warm: 5, steady: 120 };
const QUICK: Scale = Scale { backlog: 5000, drain: 2000, singles: 50, repeats: 1, idle: 1, warm: 1, steady: 3 };

type Section = fn(&Scale) -> Vec<Figure>;

const SECTIONS: &[(&str, Section)] = &[
    ("append", append::measure),
    ("drain", drain::measure),
    ("backlog", backlog::measure),
    ("memory", memory::measure),
    ("ready", ready::measure),
    ("wakeups", wakeups::measure),
    ("modbus", modbus::measure),
    ("dlms", dlms::measure),
    ("openlinkiq", openlinkiq::measure),
    ("radio", radio::measure),
    ("tunnel", tunnel::measure),
    ("at", at::measure),
    ("flash", flash::measure),
    ("size", size::measure),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, device, count] = &arguments[..]
        && word == modbus::READER
    {
        return modbus::reader(device, count.parse().unwrap());
    }
    if let [word, frame, count] = &arguments[..]
        && word == openlinkiq::DECODER
    {
        return openlinkiq::decoder(frame, count.parse().unwrap());
    }
    if let [word, device, size, pdu, days] = &arguments[..]
        && word == dlms::READER
    {
        return dlms::reader(device, size, pdu, days.parse().unwrap());
    }
    if let [word, lines, keys, count] = &arguments[..]
        && word == radio::LISTENER
    {
        return radio::listener(lines, keys, count.parse().unwrap());
    }
    let (mut scale, mut json, mut named) = (FULL, false, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => scale = QUICK,
            "--json" => json = true,
            // cargo says it to every bench.
            "--bench" => {}
            name if SECTIONS.iter().any(|(known, _)| *known == name) => named.push(argument),
            other => {
                let known: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
                eprintln!("\"{other}\" is none of --quick, --json, {}", known.join(", "));
                std::process::exit(64);
            }
        }
    }
    let machine = Machine::look();
    let mut figures = Vec::new();
    for (name, section) in SECTIONS.iter().filter(|(name, _)| named.is_empty() || named.iter().any(|n| n == name)) {
        eprintln!("measuring: {name}");
        figures.extend(section(&scale));
    }
    let text = if json { table::json(&machine, &figures) } else { table::text(&machine, &figures) };
    println!("{text}");
}
