//! What surrounds the binary on a gateway: board files, systemd unit, build scripts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use weir::board::{self, Board};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn boards() -> Vec<Board> {
    let (boards, wrong) = board::survey(Path::new("/nowhere"));
    assert!(wrong.is_empty(), "{wrong:?}");
    boards
}

/// Runs a command with the functions of cross/settings.sh at hand.
fn with_settings(script: &str) -> Output {
    let script = format!(". cross/settings.sh; {script}");
    Command::new("bash").args(["-euo", "pipefail", "-c", &script]).current_dir(root()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_board_file_is_built_in_and_named_on_the_page() {
    let files: Vec<PathBuf> = fs::read_dir(root().join("boards")).unwrap().map(|e| e.unwrap().path()).collect();
    let mut names: Vec<String> = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "toml"))
        .map(|f| f.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let known: Vec<String> = boards().into_iter().map(|b| b.name).collect();
    assert_eq!(names, known, "add the row to BUILT_IN in src/board/mod.rs");
    for board in boards() {
        let row = format!("| [{0}]({0}.toml) |", board.name);
        let line = read("boards/README.md").lines().find(|l| l.starts_with(&row)).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("boards/README.md lacks the row {row}"));
        assert!(line.contains(&board.description.targets[0]), "{line}");
    }
}

#[test]
fn the_build_scripts_read_a_board_as_weir_does() {
    for board in boards() {
        let name = &board.name;
        let output = with_settings(&format!("board_says {name} targets; board_says {name} size_budget"));
        let mut expected = board.description.targets.clone();
        expected.push(board.description.size_budget.bytes().to_string());
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), expected, "{}", said(&output));
    }
}

#[test]
fn every_target_of_a_board_has_a_compiler_and_an_emulator() {
    for target in boards().iter().flat_map(|b| &b.description.targets) {
        let output = with_settings(&format!("emulator_of {target} && sysroot_of {target}"));
        assert!(output.status.success(), "{}", said(&output));
    }
    let output = with_settings("emulator_of riscv64gc-unknown-linux-gnu");
    assert!(!output.status.success());
}

#[test]
fn a_target_that_the_board_does_not_run_is_refused_with_its_own() {
    let output = with_settings("target_of beaglebone aarch64-unknown-linux-gnu");
    assert!(!output.status.success());
    assert!(said(&output).contains("its targets are: armv7-unknown-linux-gnueabihf"), "{}", said(&output));
}

#[test]
fn firmware_above_the_size_budget_fails_the_build() {
    let dir = tempfile::tempdir().unwrap();
    for board in boards() {
        let budget = board.description.size_budget.bytes();
        let file = dir.path().join(&board.name);
        let held = |size| {
            fs::File::create(&file).unwrap().set_len(size).unwrap();
            with_settings(&format!("hold_to_budget {} {}", board.name, file.display()))
        };
        assert!(held(budget).status.success(), "{}", board.name);
        let above = held(budget + 1);
        assert!(!above.status.success(), "{}", board.name);
        assert!(said(&above).contains("1 bytes above the size_budget"), "{}", said(&above));
    }
    assert!(read("cross/build.sh").contains("hold_to_budget \"$board\" \"$binary\""));
}

#[test]
fn the_example_configuration_names_ports_that_every_board_has() {
    let example = read("cross/weir.toml");
    let ports: Vec<&str> = example
        .split("[[port]]")
        .skip(1)
        .map(|table| table.split("name = \"").nth(1).unwrap().split('"').next().unwrap())
        .collect();
    assert!(!ports.is_empty());
    for board in boards() {
        for port in &ports {
            assert!(board.port(port).is_some(), "board {} has no port {port}", board.name);
        }
    }
}

#[test]
fn every_serial_device_of_a_board_is_one_the_unit_may_open() {
    let unit = read("systemd/weir.service");
    for board in boards() {
        let modem = board.description.modem.iter();
        for device in board.description.port.iter().map(|p| &p.device).chain(modem) {
            let name = device.file_name().unwrap().to_string_lossy();
            let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let line = format!("DeviceAllow=char-{kind} rw");
            assert!(unit.lines().any(|l| l == line), "board {}: the unit lacks {line}", board.name);
        }
    }
}

#[test]
fn the_unit_checks_first_tells_when_it_is_ready_and_is_watched() {
    let unit = read("systemd/weir.service");
    for line in [
        "Type=notify",
        "ExecStartPre=-/usr/bin/weir check /etc/weir/weir.toml",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "WatchdogSec=60s",
        "Restart=always",
        "User=weir",
        "SupplementaryGroups=dialout",
        "StateDirectory=weir",
        "Wants=modprobe@usbserial.service modprobe@cdc_acm.service",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "WantedBy=multi-user.target",
    ] {
        assert!(unit.lines().any(|l| l == line), "the unit lacks {line}");
    }
}

#[test]
fn the_unit_passes_systemds_own_judgement() {
    let output = Command::new(root().join("systemd/check")).output().unwrap();
    assert!(output.status.success(), "systemd/check failed (no systemd-analyze? run tests/run):\n{}", said(&output));
    assert!(said(&output).contains("security: Overall exposure level for weir.service: "), "{}", said(&output));
}
