//! What a person types and sees.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::peers::{self, Peer};
use super::rig::{Home, stderr, stdout, weir};

const METERS: &str = "
[[meter]]
name = \"incomer\"
port = \"bus\"
protocol = \"modbus-rtu\"
retries = 0
register = [
  { name = \"voltage\", register = \"holding:100\", type = \"f32\", unit = \"V\" },
  { name = \"energy\", register = \"input:0\", type = \"u32\", unit = \"kWh\", scale = 0.01 },
]
[[meter]]
name = \"partly\"
port = \"bus\"
protocol = \"modbus-rtu\"
register = [{ name = \"level\", register = \"holding:3\" }, { name = \"beyond\", register = \"holding:60000\" }]
[[meter]]
name = \"dead\"
port = \"bus\"
protocol = \"modbus-rtu\"
address = 9
timeout = \"200ms\"
register = [{ name = \"level\", register = \"holding:3\" }]
[[meter]]
name = \"billing\"
port = \"head\"
protocol = \"iec62056-21\"
timeout = \"3s\"
values = [\"1.8.0\", \"0.9.1\"]
";

#[tokio::test]
async fn read_shows_a_meter_as_a_table_and_as_json() {
    let home = Home::new();
    let (_line, ours, theirs) = Peer::socat_pair(home.directory.path());
    let _bus = Peer::python("modbus_meter.py", &["rtu", theirs.to_str().unwrap()], "ready");
    let head = home.path("head");
    let _head =
        Peer::python("iec_meter.py", &["--link", head.to_str().unwrap(), "--strict-baud", "--parity"], "meter on");
    let port =
        |name: &str, device: &PathBuf| format!("[[port]]\nname = \"{name}\"\ndevice = \"{}\"\n", device.display());
    home.configure("url = \"tcp://127.0.0.1:1\"", &format!("{}{}{METERS}", port("bus", &ours), port("head", &head)));

    let output = home.weir(&["read", "incomer"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "name     value      unit\nvoltage  230.5      V\nenergy   131074.01  kWh\n");
    let output = home.weir(&["read", "billing", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let value =
        |name: &str, value: &str, unit: &str| json!({"name": name, "value": value, "unit": unit, "quality": "good"});
    let values = object["values"].as_array().unwrap();
    assert_eq!((object["meter"].as_str(), values.len()), (Some("billing"), 2), "{object}");
    assert!(values.contains(&value("1.8.0", "001234.567", "kWh")) && values.contains(&value("0.9.1", "120000", "")));

    let output = home.weir(&["read", "partly"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("level   103") && stdout(&output).contains("refused"), "{}", stdout(&output));
    assert!(stderr(&output).contains("1 of 2 values"), "{}", stderr(&output));
    let output = home.weir(&["read", "dead"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).contains("\"dead\"") || stderr(&output).contains("values"), "{}", stderr(&output));
    let output = home.weir(&["read", "nobody"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("known: incomer, partly, dead, billing"), "{}", stderr(&output));
}

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let telegrams = ["mbal", "openlinkiq-rf", "wmbus"].map(|kind| root.join(kind));
    let cases = |kind| fs::read_dir(kind).unwrap().map(|case| case.unwrap().path());
    let mut all: Vec<_> = telegrams.into_iter().flat_map(cases).collect();
    all.sort();
    all
}

fn decode(arguments: &[&str], input: &str) -> Output {
    let mut command = weir();
    command.arg("decode").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn decode_explains_every_fixture_as_an_argument_and_line_by_line() {
    let (mut lines, mut objects) = (String::new(), Vec::new());
    for case in fixtures() {
        let hex = fs::read_to_string(case.join("input.hex")).unwrap();
        let expected: Value = serde_json::from_str(&fs::read_to_string(case.join("expected.json")).unwrap()).unwrap();
        let output = weir().args(["decode", "--json", hex.trim()]).output().unwrap();
        assert!(output.status.success(), "{}: {}", case.display(), stderr(&output));
        let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(object, expected, "{}", case.display());
        let words = stdout(&weir().arg("decode").arg(hex.trim()).output().unwrap());
        assert!(words.contains("manufacturer") && words.contains("CI"), "{words}");
        lines += &format!("{}\nnot hex\n\n", hex.trim());
        objects.push(object);
    }
    assert!(objects.len() >= 9);
    let output = decode(&["--json"], &lines);
    assert_eq!(stdout(&output), stdout(&decode(&[], &lines)), "lines are answered by JSON, asked for or not");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), ""));
    let printed: Vec<Value> = stdout(&output).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(printed.len(), 2 * objects.len());
    for (pair, object) in printed.chunks(2).zip(&objects) {
        assert_eq!(&pair[0], object);
        assert!(pair[1]["error"].as_str().unwrap().contains("no hex digit"), "{}", pair[1]);
    }
    assert!(decode(&["--json"], &lines.replace("not hex\n", "")).status.success());
}

#[test]
fn boards_and_completions_are_printed() {
    let output = weir().arg("boards").output().unwrap();
    assert!(output.status.success());
    assert!(["generic", "beaglebone", "rpi-cm4"].iter().all(|b| stdout(&output).contains(b)), "{}", stdout(&output));
    for line in stdout(&weir().args(["boards", "--json"]).output().unwrap()).lines() {
        let board: Value = serde_json::from_str(line).unwrap();
        assert!(!board["ports"].as_array().unwrap().is_empty(), "{board}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = weir().args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && stdout(&output).contains("decode"), "{shell}");
        if shell == "bash" {
            let home = Home::new();
            fs::write(home.path("completion"), stdout(&output)).unwrap();
            assert!(Command::new("bash").arg("-n").arg(home.path("completion")).status().unwrap().success());
        }
    }
}

#[test]
fn every_command_says_what_it_does_and_wrong_usage_is_64() {
    let own = [
        (&["demo"][..], "cuts the broker"),
        (&["run"], "SIGTERM"),
        (&["check"], "every mistake"),
        (&["read"], "Read one meter now"),
        (&["store", "status"], "how many wait"),
        (&["traffic"], "how the budget stands"),
        (&["store", "verify"], "MISSING"),
        (&["store", "key"], "to be pinned"),
        (&["store", "check"], "changes nothing"),
        (&["store", "export"], "to be carried by hand"),
        (&["store", "import"], "each once"),
        (&["store", "repair"], "rebuild lost counters"),
        (&["decode"], "layer by layer"),
        (&["boards"], "boards weir knows"),
        (&["completions"], "completion script"),
    ];
    for (command, words) in own {
        let output = weir().args(command).arg("--help").output().unwrap();
        assert!(output.status.success() && stdout(&output).contains(words), "{command:?}: {}", stdout(&output));
        let output = weir().args(command).arg("--no-such-option").output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{command:?}");
        assert!(stderr(&output).contains("Usage:"), "{}", stderr(&output));
    }
    for wrong in [
        &[][..],
        &["frobnicate"],
        &["read"],
        &["completions", "klingon"],
        &["--log", "loud", "run"],
        &["demo", "--for", "1s"],
    ] {
        let output = weir().args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        assert!(!stderr(&output).is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn the_demo_ends_with_one_line_that_adds_up() {
    let output = peers::run(weir().args(["demo", "--for", "16s", "--json"])).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let count: Value = serde_json::from_str(&printed).unwrap();
    let of = |name: &str| count[name].as_u64().unwrap();
    assert_eq!((of("lost"), of("received")), (0, of("acknowledged") + of("cached")), "{count}");
    assert!(of("received") > 50, "{count}");
}
