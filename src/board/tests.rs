use std::fs;

use super::*;

const SMALL: &str = r#"
title = "A test"
targets = ["armv7-unknown-linux-gnueabihf"]

[[port]]
name = "rs485-1"
device = "/dev/ttyS7"
direction = "kernel"
"#;

fn messages(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn every_board_that_is_built_in_can_be_used() {
    let nowhere = tempfile::tempdir().unwrap();
    for (name, _) in BUILT_IN {
        let board = load_from(name, nowhere.path()).unwrap();
        assert_eq!((board.name.as_str(), board.file), (*name, None));
    }
}

#[test]
fn a_logical_port_name_becomes_a_device_and_a_direction() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine.toml"), SMALL).unwrap();
    let board = load_from("mine", dir.path()).unwrap();
    let port = board.port("rs485-1").unwrap();
    assert_eq!(port.device, Path::new("/dev/ttyS7"));
    assert_eq!(port.direction.direction(), crate::os::line::Direction::Kernel(crate::os::line::Turnaround::PLAIN));
    assert!(board.port("rs485-2").is_none());
    assert_eq!(board.description.size_budget.bytes(), 6 << 20);
}

#[test]
fn an_added_file_replaces_the_built_in_board_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("generic.toml");
    fs::write(&file, SMALL).unwrap();
    let board = load_from("generic", dir.path()).unwrap();
    assert_eq!((board.description.title.as_str(), board.file), ("A test", Some(file)));
}

#[test]
fn an_unknown_board_is_answered_with_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine.toml"), SMALL).unwrap();
    let error = load_from("rpi-5", dir.path()).unwrap_err().to_string();
    assert!(error.contains("beaglebone, generic, mine, rpi-cm4"), "{error}");
    assert!(error.contains("/rpi-5.toml"), "{error}");
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_refused() {
    for name in ["../generic", "/etc/passwd", "", "Generic", "a b"] {
        assert!(matches!(load_from(name, Path::new("/nowhere")), Err(BoardError::Name(_))), "{name}");
    }
}

#[test]
fn every_mistake_is_told_with_its_line_and_column() {
    let found = messages(
        "titel = \"x\"\ntitle = \"x\"\ntargets = [\"t\"]\nsize_budget = \"big\"\n[[port]]\nname = \"a\"\ndevice = 7\ndirection = \"kernal\"\n",
    );
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("1:1: error: unknown key \"titel\""), "{found:?}");
    assert!(found[1].starts_with("4:15: error: size_budget is \"big\""), "{found:?}");
    assert!(found[2].starts_with("7:10: error: port[0].device must be a path"), "{found:?}");
    assert!(found[3].contains("did you mean \"kernel\"?"), "{found:?}");
}

#[test]
fn broken_toml_is_told_where_it_breaks() {
    let found = messages("title = \"x\ntargets = []\n");
    assert!(found[0].starts_with("1:"), "{found:?}");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn two_ports_of_one_name_and_a_board_without_targets_are_refused() {
    let port = "[[port]]\nname = \"a\"\ndevice = \"/dev/x\"\n";
    let found = messages(&format!("title = \"x\"\ntargets = []\n{port}{port}"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].contains("two entries of [[port]] are called \"a\""), "{found:?}");
}

#[test]
fn the_list_leaves_out_a_broken_file_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine.toml"), SMALL).unwrap();
    fs::write(dir.path().join("broken.toml"), "title = 1").unwrap();
    fs::write(dir.path().join("notes.txt"), "no board").unwrap();
    let (boards, wrong) = survey(dir.path());
    let names: Vec<_> = boards.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["beaglebone", "generic", "mine", "rpi-cm4"]);
    assert_eq!(wrong.len(), 1);
    let said = wrong[0].to_string();
    assert!(said.contains("broken.toml describes no board: ") && said.contains("1:9: error: title must be"), "{said}");
}

#[test]
fn a_serial_number_holds_only_what_a_topic_may_hold() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serial-number");
    let mut board = load_from("generic", dir.path()).unwrap();
    board.description.serial_number = Some(file.clone());
    assert_eq!(board.serial_number(), None);
    fs::write(&file, b"10000000#abc/+f1\0").unwrap();
    assert_eq!(board.serial_number().unwrap(), "10000000abcf1");
    fs::write(&file, b"0000000000000000\0").unwrap();
    assert_eq!(board.serial_number(), None);
    board.description.serial_number = None;
    assert_eq!(board.serial_number(), None);
}

#[test]
fn the_page_about_boards_shows_every_key() {
    let page = include_str!("../../boards/README.md");
    assert!(page.contains(&schema()), "boards/README.md is stale; its table must be:\n{}", schema());
}
