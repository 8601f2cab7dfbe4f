//! Our reader against a meter, and our meter against a reader, that do not share our code.

use std::time::Duration;

use weir::meter::iec62056::programming::{Answer, Programming};
use weir::model::{Quality, Timestamp};
use weir::sim::iec_meter::Options;
use weir::wire::iec62056::{Identification, Parity};

use crate::plumbing::{PythonMeter, Reader, configured, ended, password_file, python, script, text};
use crate::{identification, meter};

/// A process of its own answers when it is given the processor.
const PATIENT: &str = "timeout = \"8s\"\n";

/// Reads tests/peers/iec_meter.py started with `arguments`.
async fn read_python(arguments: &[&str]) {
    let meter = PythonMeter::start(arguments);
    let values = Reader::open(&meter.device, &configured(PATIENT)).await.read().await;
    let values = values.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    assert_eq!(text(&values, "1.8.0"), "001234.567", "{arguments:?}");
    assert_eq!((values.len(), text(&values, "1.6.1#2")), (13, "2601121545"), "{arguments:?}");
}

#[tokio::test(start_paused = true)]
async fn an_independent_meter_is_read_whatever_is_wrong_with_it() {
    crate::pace::hold();
    tokio::join!(
        read_python(&["--parity"]),
        read_python(&[]),
        read_python(&["--parity", "--tr", "200"]),
        read_python(&["--parity", "--tr", "1400"]),
        read_python(&["--parity", "--real-time", "--ident", "6"]),
        read_python(&["--parity", "--fault", "bcc=1"]),
        read_python(&["--parity", "--fault", "echo", "--fault", "junk"]),
        read_python(&["--parity", "--mode", "B", "--ident", "E"]),
        read_python(&["--parity", "--mode", "A", "--ident", "Z"]),
    );
}

#[tokio::test(start_paused = true)]
async fn an_independent_reader_reads_our_meter() {
    crate::pace::hold();
    let options = Options {
        parity: Parity::Absent,
        reaction: Duration::from_millis(1400),
        identification: Identification { enhanced: vec![], model: "SIM1".into(), ..identification('5') },
        ..Options::default()
    };
    let (path, control) = meter(options);
    let mut client = tokio::process::Command::new(python());
    let output = client.arg(script("iec_client.py")).arg(&path).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(180), output).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    // It takes the first character of the model for a part of the baud character.
    assert!(printed.contains("ident\tWEI\tIM1\t9600"), "{printed}");
    for line in ["0.0.0\t12345678\tNone", "2.8.0\t000000.000\tkWh", "1.6.1\t04.211\tkW"] {
        assert!(printed.lines().any(|l| l == line), "{line} is not in:\n{printed}");
    }
    let state = control.state();
    assert_eq!((state.blocks, state.wrong_rates), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_independent_reader_programs_our_meter() {
    crate::pace::hold();
    let options = Options {
        parity: Parity::Absent,
        reaction: Duration::from_millis(1400),
        identification: Identification { enhanced: vec![], model: "SIM1".into(), ..identification('5') },
        ..Options::default()
    };
    let (path, control) = meter(options);
    let mut client = tokio::process::Command::new(python());
    let output = client.arg(script("iec_client.py")).arg(&path).arg("program").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(180), output).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    for line in ["challenge\tP\t0", "password\tok", "0.0.0\t12345678\tNone", "None\tER01\tNone"] {
        assert!(printed.lines().any(|l| l == line), "{line} is not in:\n{printed}");
    }
    let state = ended(&control).await;
    assert_eq!((state.sessions, state.breaks, state.passwords, state.wrong_rates), (1, 1, 1, 0));
    assert_eq!(state.written, ["0.9.1(120000)"]);
}

/// Reads single values of tests/peers/iec_meter.py started with `arguments`.
async fn program_python(arguments: &[&str], more: &str) {
    let meter = PythonMeter::start(arguments);
    let (_directory, password) = password_file("00000000");
    let settings = configured(&format!(
        "{PATIENT}access = \"programming\"\nvalues = [\"1.8.0\", \"9.9.9\", \"1.6.1\"]\npassword_file = \"{password}\"\n{more}"
    ));
    let values = Reader::open(&meter.device, &settings).await.read().await;
    let values = values.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    assert_eq!(text(&values, "1.8.0"), "001234.567", "{arguments:?}");
    assert_eq!((text(&values, "1.6.1"), text(&values, "1.6.1#2")), ("02.345", "2601121545"), "{arguments:?}");
    assert_eq!((values[1].value.as_deref(), values[1].quality), (None, Quality::Refused), "{arguments:?}");
}

#[tokio::test(start_paused = true)]
async fn single_values_of_an_independent_meter_are_read_whatever_is_wrong_with_it() {
    crate::pace::hold();
    tokio::join!(
        program_python(&["--parity"], ""),
        program_python(&["--errtext"], "read_command = \"R2\""),
        program_python(&["--parity", "--real-time", "--tr", "200"], ""),
        program_python(&["--parity", "--fault", "bcc=2"], ""),
        program_python(&["--parity", "--fault", "echo", "--fault", "junk", "--fault", "bcc=1"], ""),
        program_python(&["--parity", "--fault", "twice=3"], ""),
        program_python(&["--parity", "--fault", "lost=1"], "retries = 2"),
    );
}

/// Reads a day and a quarter of the profile of tests/peers/iec_meter.py.
async fn profile_python(arguments: &[&str], more: &str) {
    let meter = PythonMeter::start(arguments);
    let settings = configured(&format!("{PATIENT}load_profile = {{ id = \"P.01\"{more} }}"));
    let mut reader = Reader::open(&meter.device, &settings).await;
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let (after, until) = (at("2026-01-10T06:00:00Z"), at("2026-01-11T12:15:00Z"));
    let intervals = reader.profile(after, until).await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    assert_eq!(intervals.len(), 121, "{arguments:?}");
    for (number, interval) in (1u64..).zip(&intervals) {
        assert_eq!(interval.end, after.plus(Duration::from_secs(900 * number)), "{arguments:?}");
        // What the script says of the minute that an interval ended.
        let minute = interval.end.since(at("2026-01-01T00:00:00Z")).as_secs() / 60;
        let expected = [format!("{:02}.{:03}", minute / 1000, minute % 1000), format!("{:02}.00", minute / 15 % 100)];
        let values: Vec<_> = interval.values.iter().map(|v| v.value.clone().unwrap()).collect();
        assert_eq!(values, expected, "{arguments:?} {}", interval.end);
        let status = if minute / 720 % 2 == 1 { "40" } else { "00" };
        assert_eq!((interval.status.as_str(), interval.period), (status, 900));
    }
    assert_eq!(intervals[0].meter_time, "0260110061500");
}

#[tokio::test(start_paused = true)]
async fn a_load_profile_of_an_independent_meter_is_read_in_one_block_and_in_parts() {
    crate::pace::hold();
    tokio::join!(
        profile_python(&["--parity"], ""),
        profile_python(&["--parity"], ", request_time = \"plain\""),
        profile_python(&["--parity", "--real-time"], ", command = \"R6\", records = 40"),
        profile_python(&["--parity", "--fault", "bcc=2"], ", command = \"R6\", records = 40"),
        profile_python(&["--parity", "--fault", "echo", "--fault", "twice=2"], ", command = \"R6\", records = 40"),
        profile_python(&["--parity", "--fault", "lost=1"], ", command = \"R6\", records = 60"),
    );
}

#[tokio::test(start_paused = true)]
async fn an_independent_meter_takes_what_is_written_only_after_the_password() {
    crate::pace::hold();
    for (password, expected) in [(true, Answer::Done), (false, Answer::Refused("NAK".to_owned()))] {
        // No sign-on is tried twice here, so the meter leaves time enough for the change of rate.
        let meter = PythonMeter::start(&["--parity", "--tr", "3000"]);
        let (_directory, file) = password_file("00000000");
        let key = if password { format!("password_file = \"{file}\"") } else { String::new() };
        let settings = configured(&format!("{PATIENT}{key}"));
        let mut line = Reader::open(&meter.device, &settings).await.line;
        let mut session = Programming::open(&mut line, &settings).await.unwrap();
        assert_eq!(session.write('1', "0.9.1", "120000").await.unwrap(), expected);
        session.end().await;
    }
}
