//! Where bytes come from: datagrams, senders that connect, standard input, and sticks that come and go.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};

use super::*;

/// A port that was free a moment ago.
async fn free_udp() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

async fn free_tcp() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_datagram_ends_a_line_and_several_may_send() {
    crate::pace::hold();
    let address = free_udp().await;
    let mut running = start(settings("hex-lines", Some(format!("udp://{address}")), None), 4);
    running.status(|s| s.source == SourceState::Open).await;
    let (first, second) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let mut replay = RadioReplay::new(Lines::HexLines);
    for number in 0..20 {
        let step = replay.next(clock::now());
        let hex = data_encoding::HEXLOWER.encode(&step.telegram);
        let from = if number % 2 == 0 { &first } else { &second };
        // A beginning in one datagram and the rest in the next are two lines, neither of them a telegram.
        from.send_to(&hex.as_bytes()[..30], address).await.unwrap();
        from.send_to(b"", address).await.unwrap();
        from.send_to(format!("log text\n{hex};-71").as_bytes(), address).await.unwrap();
        assert_eq!(running.telegram().await.1.bytes, step.telegram);
    }
    let status = running.status(|s| s.heard == 20).await;
    assert_eq!((status.damaged, status.noise, status.failures, status.opened), (20, 20, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn senders_that_connect_are_read_each_by_itself_and_may_come_and_go() {
    crate::pace::hold();
    let address = free_tcp().await;
    let mut running = start(settings("hex-lines", Some(format!("tcp-listen://{address}")), None), 8);
    running.status(|s| s.source == SourceState::Open).await;
    let mut replay = RadioReplay::new(Lines::HexLines);
    let mut senders = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    for _ in 0..10 {
        // Halves of two lines, one within the other.
        let steps = [replay.next(clock::now()), replay.next(clock::now())];
        let lines = steps.each_ref().map(|s| format!("{};-80\n", data_encoding::HEXLOWER.encode(&s.telegram)));
        for part in [0..25, 25..1000] {
            for (sender, line) in senders.iter_mut().zip(&lines) {
                let part = part.start..part.end.min(line.len());
                sender.write_all(line[part].as_bytes()).await.unwrap();
            }
        }
        let mut heard = [running.telegram().await.1.bytes, running.telegram().await.1.bytes];
        let mut sent = steps.map(|step| step.telegram);
        heard.sort();
        sent.sort();
        assert_eq!(heard, sent);
    }
    drop(senders);
    running.status(|s| s.senders == 0).await;
    let mut later = TcpStream::connect(address).await.unwrap();
    let step = replay.next(clock::now());
    later.write_all(step.text.as_bytes()).await.unwrap();
    assert_eq!(running.telegram().await.1.bytes, step.telegram);
    let status = running.status(|s| s.senders == 1).await;
    assert_eq!((status.failures, status.source), (0, SourceState::Open));
}

#[tokio::test(start_paused = true)]
async fn not_more_than_sixteen_senders_are_let_in_and_the_log_says_it_once() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let address = free_tcp().await;
    let running = start(settings("hex-lines", Some(format!("tcp-listen://{address}")), None), 8);
    running.status(|s| s.source == SourceState::Open).await;
    let mut senders = Vec::new();
    for _ in 0..16 {
        senders.push(TcpStream::connect(address).await.unwrap());
    }
    running.status(|s| s.senders == 16).await;
    for refused in 1..=3 {
        let mut further = TcpStream::connect(address).await.unwrap();
        assert_eq!(timeout(LIMIT, further.read(&mut [0])).await.unwrap().unwrap_or(0), 0, "it is closed");
        running.status(|s| s.refused == refused).await;
    }
    assert_eq!(logged.lines_with("WARN"), 1);
    senders.pop();
    running.status(|s| s.senders == 15).await;
    senders.push(TcpStream::connect(address).await.unwrap());
    running.status(|s| s.senders == 16).await;
}

#[tokio::test(start_paused = true)]
async fn a_port_that_somebody_else_has_is_told_and_tried_again() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let holder = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap();
    let running = start(settings("hex-lines", Some(format!("udp://{address}")), None), 4);
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("nobody else has the port"), 1);
    drop(holder);
    running.status(|s| s.source == SourceState::Open).await;
}

#[tokio::test(start_paused = true)]
async fn standard_input_is_heard_and_its_end_is_told_once() {
    crate::pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("weir.toml");
    let store = folder.path().join("store");
    let text = format!(
        "[broker]\nurl = \"tcp://127.0.0.1:1\"\n[store]\npath = \"{}\"\n[[radio]]\nname = \"pipe\"\nreceiver = \"hex-lines\"\ndevice = \"-\"\n",
        store.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["radio", "--json", "--for", "3s", "--config"]).arg(&config).kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut replay = RadioReplay::new(Lines::HexLines);
    for _ in 0..30 {
        input.write_all(replay.next(clock::now()).text.as_bytes()).await.unwrap();
    }
    drop(input);
    let output = timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let pipe = &told["receivers"]["pipe"];
    assert_eq!(
        (pipe["heard"].as_u64(), pipe["source"].as_str(), pipe["failures"].as_u64()),
        (Some(30), Some("ended"), Some(0))
    );
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(log.matches("standard input has ended").count(), 1, "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_is_unplugged_again_and_again_is_told_once_and_loses_nothing() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let folder = tempfile::tempdir().unwrap();
    // The folder comes and goes with the last device, as udev does it.
    let by_id = folder.path().join("serial/by-id");
    let path = by_id.join("usb-receiver");
    let device = Some(path.to_string_lossy().into_owned());
    let mut running = start(settings("hex-lines", device, None), 4);
    let mut replay = RadioReplay::new(Lines::HexLines);
    for round in 1..=6u64 {
        let mut pty = Pty::open().unwrap();
        std::fs::create_dir_all(&by_id).unwrap();
        symlink(pty.path(), &path).unwrap();
        running.status(|s| s.opened == round && s.source == SourceState::Open).await;
        let (step, cut) = (replay.next(clock::now()), replay.next(clock::now()));
        let noise: Vec<u8> = (0..200u8).rev().collect();
        pty.send(&noise).await.unwrap();
        pty.send(format!("\n{}{}", step.text, &cut.text[..33]).as_bytes()).await.unwrap();
        assert_eq!(running.telegram().await.1.bytes, step.telegram);
        std::fs::remove_dir_all(folder.path().join("serial")).unwrap();
        drop(pty);
        running.status(|s| s.source == SourceState::Waiting).await;
    }
    assert_eq!(logged.lines_with("WARN"), 1);
    let log = String::from_utf8_lossy(&logged.0.lock().unwrap()).into_owned();
    assert!(!log.contains("ERROR") && !log.contains("INFO weir::radio"), "{log}");
    let status = running.health.status();
    assert_eq!((status.forwarded, status.silences), (6, 0));
}
