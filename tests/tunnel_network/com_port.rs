//! RFC 2217: pyserial sets the line's speed through weir, and the same way through Debian's ser2net.

use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use weir::os::pty::Pty;
use weir::wire::rfc2217::{Command as Asked, Decoder, Event, Side, encode};

use super::peers::broker::LIMIT;
use super::peers::line::read;
use super::peers::{self, free_port};
use super::{Site, connected, tables};

/// Adds a speed that differs from the last one.
fn note(speeds: &Mutex<Vec<u32>>, baud: u32) {
    let mut speeds = speeds.lock().unwrap();
    if speeds.last() != Some(&baud) {
        speeds.push(baud);
    }
}

/// The far end of a line: its task, the speeds at which it heard something, and the speed now.
type FarEnd = (tokio::task::JoinHandle<()>, Arc<Mutex<Vec<u32>>>, Arc<Mutex<u32>>);

/// Answers in capitals on the line, and notes each speed at which it heard something.
fn capitals(mut pty: Pty) -> FarEnd {
    let (speeds, now) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (noted, present) = (speeds.clone(), now.clone());
    let task = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            tokio::select! {
                came = pty.receive(&mut buffer) => {
                    let count = came.unwrap();
                    let baud = pty.baud().unwrap();
                    note(&noted, baud);
                    pty.send(&buffer[..count].to_ascii_uppercase()).await.unwrap();
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => *present.lock().unwrap() = pty.baud().unwrap(),
            }
        }
    });
    (task, speeds, now)
}

/// Runs the program against a port and returns what it printed.
async fn program(address: &str) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/com_port.py");
    let output = peers::run(Command::new(peers::python()).args([script, address])).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(str::to_owned).collect()
}

const SPEEDS: [u32; 4] = [9600, 19200, 300, 115_200];

#[tokio::test]
async fn pyserial_sets_the_speed_of_the_line_and_the_port_gets_its_own_back() {
    let pty = Pty::open().unwrap();
    let port = free_port();
    let tunnel = format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\nrfc2217 = true\n");
    let site = Site::new(&tables(pty.path(), &tunnel));
    let (_far_end, speeds, now) = capitals(pty);
    let said = program(&format!("127.0.0.1:{port}")).await;
    assert_eq!(said.last().map(String::as_str), Some("done"), "{said:?}");
    assert!(
        said.iter().any(|line| line == "all bytes True") && said.iter().any(|line| line == "mark is refused"),
        "{said:?}"
    );
    assert_eq!(*speeds.lock().unwrap(), SPEEDS);
    site.until("the client is gone", |status| status.peer.is_none() && !status.holds_line).await;
    let give_up = tokio::time::Instant::now() + LIMIT;
    while *now.lock().unwrap() != 9600 {
        assert!(tokio::time::Instant::now() < give_up, "the port's speed never came back: {now:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_same_program_says_the_same_through_ser2net() {
    let directory = tempfile::tempdir().unwrap();
    let (pty, beside) = (Pty::open().unwrap(), Pty::open().unwrap());
    let (port, other) = (free_port(), free_port());
    let tunnel = format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\nrfc2217 = true\n");
    let _site = Site::new(&tables(pty.path(), &tunnel));
    let config = directory.path().join("ser2net.yaml");
    let text = format!(
        "%YAML 1.1\n---\nconnection: &line\n    accepter: telnet(rfc2217),tcp,127.0.0.1,{other}\n    enable: on\n    \
         connector: serialdev,{},9600n81,local\n",
        beside.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let mut ser2net = tokio::process::Command::new("/usr/sbin/ser2net");
    let ser2net = ser2net.args(["-n", "-d", "-c"]).arg(&config).stderr(std::process::Stdio::null()).kill_on_drop(true);
    let _ser2net = ser2net.spawn().expect("ser2net is needed: run tests/run, which installs the peers");
    let (_far_end, ours, _) = capitals(pty);
    let (_other_end, theirs, _) = capitals(beside);
    // On a pseudo-terminal ser2net never answers SET-CONTROL for DTR and RTS, so nobody is asked to.
    let through_weir = program(&format!("127.0.0.1:{port}?ign_set_control")).await;
    let through_ser2net = program(&format!("127.0.0.1:{other}?ign_set_control")).await;
    let without_mark =
        |said: &[String]| said.iter().filter(|line| !line.starts_with("mark")).cloned().collect::<Vec<_>>();
    assert_eq!(without_mark(&through_weir), without_mark(&through_ser2net));
    assert_eq!((&*ours.lock().unwrap(), &*theirs.lock().unwrap()), (&SPEEDS.to_vec(), &SPEEDS.to_vec()));
}

#[tokio::test]
async fn data_of_all_values_and_commands_share_one_stream_however_it_is_cut() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let tunnel = format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\nrfc2217 = true\n");
    let _site = Site::new(&tables(pty.path(), &tunnel));
    let mut client = connected(port).await;
    client.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    encode(&Event::Data(vec![255, 1, 255]), &mut bytes);
    encode(&Event::ComPort(Side::Client, Asked::Baud(4800)), &mut bytes);
    encode(&Event::Data(vec![2, 255]), &mut bytes);
    encode(&Event::ComPort(Side::Client, Asked::DataSize(5)), &mut bytes);
    encode(&Event::ComPort(Side::Client, Asked::Signature(Vec::new())), &mut bytes);
    for byte in bytes {
        client.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(read(&mut pty, 5).await, [255, 1, 255, 2, 255]);
    assert_eq!(pty.baud().unwrap(), 4800);
    pty.send(&[255, 255, 0]).await.unwrap();
    let (mut decoder, mut data, mut answers, mut signed) = (Decoder::new(), Vec::new(), Vec::new(), false);
    let mut buffer = [0; 100];
    while data.len() < 3 || !signed {
        let count = timeout(LIMIT, client.read(&mut buffer)).await.expect("it answers").unwrap();
        assert!(count > 0, "it hung up");
        for event in decoder.push(&buffer[..count]) {
            match event {
                Event::Data(more) => data.extend(more),
                Event::ComPort(Side::Server, Asked::Signature(text)) => signed = text.starts_with(b"weir"),
                Event::ComPort(Side::Server, answer) => answers.push(answer),
                _ => {}
            }
        }
    }
    assert_eq!(data, [255, 255, 0]);
    answers.retain(|answer| !matches!(answer, Asked::ModemState(_)));
    assert_eq!(answers, [Asked::Baud(4800), Asked::DataSize(8)], "five bits no line has: it says what it has");
}
