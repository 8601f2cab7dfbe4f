//! The house's rules that a machine can check: who may import whom, how long a file may be,
//! where `unsafe` may stand, and that ARCHITECTURE.md shows the same table.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/`, floor by floor. A room imports only from floors below its own.
const FLOORS: &[&[&str]] = &[
    &["model", "setting", "wire"],
    &["os"],
    &["board", "meter", "modem", "radio", "store", "sim"],
    &["control", "tunnel", "uplink", "watchdog"],
    &["config"],
    &["agent"],
    &["cli"],
];

/// The edges between rooms of one floor that are wanted: codecs and settings speak of values.
const NEIGHBOURS: &[(&str, &str)] = &[("setting", "model"), ("wire", "model")];

const LONGEST_FILE: usize = 500;

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The room a file belongs to: the folder or file right under src/.
fn room_of(file: &Path) -> String {
    let first = file.strip_prefix(src()).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_string_lossy().into_owned()
}

/// Names that follow `crate::` in the code of a file, tests included: `use crate::{a, b::c}` too.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0usize;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.extend([std::mem::take(&mut name)]),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            names.insert(name);
        } else {
            names.insert(rest.to_owned());
        }
    }
    let word = |n: String| n.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    names.into_iter().map(word).filter(|n| !n.is_empty()).collect()
}

#[test]
fn a_room_imports_only_from_floors_below_its_own() {
    let mut breaches = Vec::new();
    for file in sources(&src()) {
        let room = room_of(&file);
        if room == "lib" || room == "main" {
            continue;
        }
        let own = floor(&room).unwrap_or_else(|| panic!("room {room} stands on no floor: add it to FLOORS"));
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            let Some(theirs) = floor(&import) else { continue };
            let allowed = import == room || theirs < own || NEIGHBOURS.contains(&(&room, &import));
            if !allowed {
                breaches.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_import_reader_sees_every_form() {
    let text =
        "use crate::model::Frame;\nuse crate::{os, wire::{a, b}};\nlet x = crate::store::open(); // crate::uplink";
    assert_eq!(imports(text).into_iter().collect::<Vec<_>>(), ["model", "os", "store", "wire"]);
}

#[test]
fn every_room_is_declared_and_every_declared_room_exists() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    let declared: BTreeSet<String> =
        lib.lines().filter_map(|l| l.trim().strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned)).collect();
    let rooms: BTreeSet<String> =
        sources(&src()).iter().map(|f| room_of(f)).filter(|r| r != "lib" && r != "main").collect();
    assert_eq!(declared, rooms);
}

#[test]
fn files_are_short_enough_to_hold_one_subject() {
    let long: Vec<_> = sources(&src())
        .into_iter()
        .map(|f| (fs::read_to_string(&f).unwrap().lines().count(), f))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .collect();
    assert!(long.is_empty(), "over {LONGEST_FILE} lines: {long:?}");
}

#[test]
fn unsafe_stands_in_two_files_only() {
    // A request to a serial port's driver, and the kernel's NTP state: no safe crate offers either.
    for file in sources(&src()) {
        let text = fs::read_to_string(&file).unwrap();
        let has = text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("unsafe {"));
        let may = file.ends_with("os/rs485.rs") || file.ends_with("os/clock/kernel.rs");
        assert_eq!(has, may, "{}", file.display());
    }
}

#[test]
fn the_architecture_page_shows_the_same_floors() {
    let page = fs::read_to_string(src().parent().unwrap().join("ARCHITECTURE.md")).unwrap();
    for (number, rooms) in FLOORS.iter().enumerate() {
        let row = format!("| {number} | {} |", rooms.join(", "));
        assert!(page.contains(&row), "ARCHITECTURE.md lacks the row: {row}");
    }
}
