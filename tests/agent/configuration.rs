//! Configurations that are wrong, missing, or only new to this version.

use std::fs;
use std::path::Path;

use super::rig::{Home, stderr, stdout, weir};

const WRONG: &str = r#"version = 2
[gateway]
bord = "generic"
[broker]
url = "http://x"
keep_alive = "1s"
[store]
max_size = "many"
[[port]]
name = "a"
framing = "9N1"
[[meter]]
name = "m"
port = "b"
protocol = "modbus"
evry = "1m"
[[meter]]
name = "m"
port = "a"
protocol = "modbus-rtu"
profile = "eastron-sdm999"
[[radio]]
name = "r"
receiver = "rtl"
device = "/dev/x"
command = ["a"]
"#;

/// Line, column and a word of each mistake in [`WRONG`].
const MISTAKES: [(usize, usize, &str); 14] = [
    (1, 11, "version"),
    (3, 1, "did you mean \"board\""),
    (5, 7, "ssl://"),
    (6, 14, "\"5s\""),
    (8, 12, "256MiB"),
    (10, 8, "rs485-1"),
    (11, 11, "8N1"),
    (14, 8, "known: a"),
    (15, 12, "modbus-rtu"),
    (16, 1, "did you mean \"every\""),
    (18, 8, "already a meter"),
    (21, 11, "eastron-sdm630"),
    (24, 12, "rtl-wmbus"),
    (26, 11, "keep one"),
];

#[test]
fn every_mistake_is_told_at_once_with_its_place_and_nothing_starts() {
    let home = Home::new();
    fs::write(home.config(), WRONG).unwrap();
    let file = home.config().display().to_string();
    for command in ["check", "run"] {
        let output = home.weir(&[command]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(78), ""));
        let said = stderr(&output);
        let lines: Vec<_> = said.lines().filter(|l| l.starts_with(&file)).collect();
        assert_eq!(lines.len(), MISTAKES.len(), "{said}");
        for (text, (line, column, word)) in lines.iter().zip(MISTAKES) {
            assert!(text.starts_with(&format!("{file}:{line}:{column}: error: ")), "{text}: {line}:{column}");
            assert!(text.contains(word), "{text}: {word}");
        }
        assert!(said.lines().last().unwrap().contains("has 14 errors that must be corrected"), "{said}");
    }
    assert!(!home.path("store").exists());
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_told_with_what_to_do() {
    let home = Home::new();
    for command in ["check", "run"] {
        let output = home.weir(&[command]);
        assert_eq!(output.status.code(), Some(78));
        let said = stderr(&output);
        assert!(said.contains("No such file") && said.contains("--config") && said.lines().count() == 1, "{said}");
    }
    let folder = weir().arg("check").arg(home.directory.path()).output().unwrap();
    assert_eq!(folder.status.code(), Some(78));
    assert!(!stderr(&folder).contains("write it first"), "{}", stderr(&folder));
    fs::write(home.config(), [0xFF, 0xFE, 0x00]).unwrap();
    assert!(stderr(&home.weir(&["check"])).contains("UTF-8"));
    fs::write(home.config(), "[broker\nurl = 1\n").unwrap();
    let output = home.weir(&["check"]);
    assert!(stderr(&output).contains("weir.toml:1:"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn the_example_of_the_docs_is_right_and_its_print_is_a_configuration_with_the_same_meaning() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/example.toml");
    let output = weir().arg("check").arg(&example).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("ok (3 meters on 3 ports, 1 receiver"), "{}", stdout(&output));
    let print = |file: &Path| {
        let output = weir().arg("check").arg(file).arg("--print").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let home = Home::new();
    let printed = print(&example);
    fs::write(home.config(), &printed).unwrap();
    assert_eq!(print(&home.config()), printed);
    assert!(
        printed.contains("keep_alive = \"60s\"") || printed.contains("keep_alive = \"1m\""),
        "defaults too: {printed}"
    );
}

#[test]
fn the_reference_configuration_lacks_only_what_this_version_lacks() {
    let file = Path::new("/work/shared/reference/example-config.toml");
    if !file.exists() {
        println!("{} is not here; nothing was checked", file.display());
        return;
    }
    let said = stderr(&weir().arg("check").arg(file).output().unwrap());
    let (mine, others): (Vec<_>, Vec<_>) = said.lines().partition(|l| l.starts_with("/work"));
    assert!(others.len() <= 1, "{said}");
    for line in mine {
        let known = ["this version of weir", "does not exist yet", "the IMEI is not known"]
            .iter()
            .any(|words| line.contains(words));
        assert!(known, "{line}");
    }
}
