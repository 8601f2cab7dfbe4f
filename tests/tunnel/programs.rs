//! Meter programs and meters that nobody here wrote, with the tunnel, TLS and mosquitto between them.

use std::path::Path;
use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::bench::Bench;
use crate::peers::broker::LIMIT;
use crate::peers::{self, Peer};
use crate::rig::{self, stderr, stdout};

/// As they are, and with numbers.
const ENVELOPES: [&str; 2] = ["none", "numbered"];

/// Runs a program on the near line of a tunnel to `device` and gives what it said.
async fn through_the_tunnel(device: &Path, envelope: &str, program: impl Fn(&Path) -> Command) -> String {
    let bench = Bench::new(device, &format!("envelope = \"{envelope}\"\n")).await;
    let _agent = bench.agent().await;
    let mut operator = bench.operator("near");
    drop(operator.line().await);
    let output = peers::run(&mut program(&operator.link)).await;
    assert!(output.status.success(), "{envelope}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn script(name: &str) -> Command {
    let mut command = Command::new(peers::python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name));
    command
}

#[tokio::test]
async fn the_client_of_gurux_reads_the_meter_of_gurux() {
    for envelope in ENVELOPES {
        let directory = tempfile::tempdir().unwrap();
        let (_line, ours, theirs) = Peer::socat_pair(directory.path());
        let _meter = Peer::python("dlms_meter.py", &["--tty", theirs.to_str().unwrap()], "ready");
        let said = through_the_tunnel(&ours, envelope, |near| {
            let mut command = script("dlms_client.py");
            command.arg("--tty").arg(near).args(["--sap", "17", "--auth", "LOW", "--pw", "Gurux", "--list"]);
            command
        })
        .await;
        for part in ["ASSOCIATED LOW", "register 1.0.1.8.0.255", "profile rows", "list ->"] {
            assert!(said.contains(part), "{envelope}: no {part} in {said}");
        }
    }
}

#[tokio::test]
async fn the_client_of_iec_62056_21_reads_its_meter() {
    for envelope in ENVELOPES {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("meter");
        // The meter proposes 300 baud, so the speed stays as it is; the story below changes it.
        let _meter = Peer::python("iec_meter.py", &["--link", device.to_str().unwrap(), "--ident", "0"], "meter on");
        let said = through_the_tunnel(&device, envelope, |near| {
            let mut command = script("iec_client.py");
            command.arg(near);
            command
        })
        .await;
        for part in ["1.8.0\t001234.567\tkWh", "C.1.0\t12345678"] {
            assert!(said.contains(part), "{envelope}: no {part} in {said}");
        }
    }
}

/// Both ends were written by others; the meter neither hears nor is understood at the wrong speed.
#[tokio::test]
async fn the_baud_change_of_iec_62056_21_is_done_by_setbaudrate() {
    let directory = tempfile::tempdir().unwrap();
    let (device, log) = (directory.path().join("meter"), directory.path().join("log"));
    let mut meter = tokio::process::Command::from(script("iec_meter.py"));
    meter.arg("--link").arg(&device).args(["--ident", "5", "--strict-baud", "--tr", "3000"]);
    let _meter = meter.stdout(std::fs::File::create(&log).unwrap()).kill_on_drop(true).spawn().unwrap();
    let heard = |what: &str| std::fs::read_to_string(&log).unwrap().contains(what);
    rig::until("the meter is there", || heard("meter on") && device.exists()).await;
    let bench = Bench::new(&device, "").await;
    let _agent = bench.agent().await;
    let set_speed = |baud: u32| {
        let done = bench.gateway.weir(&["at", &format!("AT^MTXTUNNEL=SETBAUDRATE,line,{baud}")]);
        assert!(stdout(&done).contains(&format!("line has {baud} baud, 8N1\nOK")), "{done:?}");
    };
    set_speed(300);
    let mut operator = bench.operator("near");
    drop(operator.line().await);
    let mut client = tokio::process::Command::from(script("iec_client.py"));
    client.arg(&operator.link).env("IEC_SWITCH", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut client = client.spawn().unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    timeout(LIMIT, said.read_line(&mut line)).await.expect("it wants another speed").unwrap();
    assert_eq!(line, "switch 9600\n");
    // The option must have left at the old speed.
    rig::until("the meter has heard the option", || heard("x06050")).await;
    set_speed(9600);
    client.stdin.take().unwrap().write_all(b"set\n").await.unwrap();
    let mut rest = String::new();
    timeout(LIMIT, said.read_to_string(&mut rest)).await.expect("it ends").unwrap();
    for part in ["1.8.0\t001234.567\tkWh", "C.1.0\t12345678"] {
        assert!(rest.contains(part), "no {part} in {rest}");
    }
    assert!(heard("baud now 9600") || heard("9600 host 9600"), "{}", std::fs::read_to_string(&log).unwrap());
}

#[tokio::test]
async fn mbpoll_reads_pymodbus() {
    for envelope in ENVELOPES {
        let directory = tempfile::tempdir().unwrap();
        let (_line, ours, theirs) = Peer::socat_pair(directory.path());
        let _meter = Peer::python("modbus_bus.py", &[theirs.to_str().unwrap(), "1"], "ready");
        let said = through_the_tunnel(&ours, envelope, |near| {
            let mut command = Command::new("mbpoll");
            command
                .args(["-m", "rtu", "-b", "9600", "-P", "none", "-a", "1", "-t", "4:hex", "-r", "1", "-c", "2", "-1"]);
            command.args(["-o", "3"]).arg(near);
            command
        })
        .await;
        assert!(said.contains("0x0064"), "{envelope}: {said}");
    }
}
