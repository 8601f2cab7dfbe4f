//! Meter programs and meters that nobody here wrote, with the tunnel, TLS and mosquitto between them.

use std::path::Path;
use std::process::Command;

use crate::bench::Bench;
use crate::peers::{self, Peer};
use crate::rig::{stderr, stdout};

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
        // The meter proposes 300 baud, so the speed stays as it is; else SETBAUDRATE would have to change it (tunnel::set_speed).
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
