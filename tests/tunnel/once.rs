//! The numbered envelope: whatever breaks in between, the streams are the same, or everybody is told that they ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use weir::os::pty::Pty;

use crate::bench::Bench;
use crate::peers::broker::{LIMIT, Relay, publish};
use crate::peers::line::{heard, random, read};
use crate::rig;

/// Bytes each way; `WEIR_TUNNEL_BYTES` names another number.
const FEW: usize = 1_000_000;
/// A step may take so long on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes in pieces of any size, with pauses of any length.
async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: Vec<u8>, seed: u64) {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(random.random_range(1..6000).min(rest.len()));
        to.write_all(piece).await.unwrap();
        rest = more;
        if random.random_range(0..20) == 0 {
            // As a device that thinks in between: longer than what ends a message, or not.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        }
    }
}

/// Reads and holds against what must come.
async fn compare(from: &mut (impl AsyncRead + Unpin), expected: Vec<u8>, count: Arc<AtomicUsize>, way: &str) {
    let mut buffer = vec![0; 4096];
    let mut at = 0;
    while at < expected.len() {
        let more = timeout(PATIENCE, from.read(&mut buffer)).await;
        let more = more.unwrap_or_else(|_| panic!("{way}: nothing after {at} bytes")).unwrap();
        assert!(more > 0, "{way}: it ended after {at} bytes");
        let same = at + more <= expected.len() && buffer[..more] == expected[at..at + more];
        assert!(same, "{way}: other bytes than were sent, from byte {at} on");
        at += more;
        count.store(at, Ordering::Relaxed);
    }
}

async fn cut(relay: &Relay) {
    let before = relay.accepted.load(Ordering::SeqCst);
    relay.set_open(false);
    // Both directions of the relay must have seen it.
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    relay.set_open(true);
    rig::until("it connects again", || relay.accepted.load(Ordering::SeqCst) > before).await;
}

#[tokio::test]
async fn streams_both_ways_are_identical_over_broken_sessions_of_everybody() {
    let count = std::env::var("WEIR_TUNNEL_BYTES").map_or(FEW, |count| count.parse().unwrap());
    let pty = Pty::open().unwrap();
    let mut bench = Bench::new(pty.path(), "envelope = \"numbered\"\nmax_age = \"5min\"\n").await;
    let agent = bench.agent().await;
    let mut operator = bench.operator("near");
    let line = operator.line().await;
    // All four ends stay open to the end: a terminal loses what was written when its other side closes.
    let ((mut near_from, mut near_to), (mut far_from, mut far_to)) = (tokio::io::split(line), tokio::io::split(pty));
    let (down, up) = (random(11, count), random(12, count));
    let (came_down, came_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let all = async {
        tokio::join!(
            write(&mut near_to, down.clone(), 1),
            write(&mut far_to, up.clone(), 2),
            compare(&mut far_from, down.clone(), came_down.clone(), "to the meter"),
            compare(&mut near_from, up.clone(), came_up.clone(), "from the meter"),
        )
    };
    // Something breaks after each ninth of the way.
    let breaks = async {
        for part in 1..9 {
            let due = count / 9 * part;
            let arrived = || came_down.load(Ordering::Relaxed).min(came_up.load(Ordering::Relaxed));
            let waited = timeout(PATIENCE * 4, async {
                while arrived() < due {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            waited.await.unwrap_or_else(|_| panic!("after break {part}: {} of {due} bytes", arrived()));
            match part % 3 {
                0 => {
                    bench.broker.kill();
                    bench.broker.restart().await;
                }
                1 => cut(&bench.to_gateway).await,
                _ => cut(&bench.to_desk).await,
            }
        }
    };
    tokio::join!(breaks, all);
    assert!(agent.said(&["the broker lets weir listen"]).len() >= 6, "its session was broken again and again");
    assert_eq!((operator.said("session is over"), operator.has_told()), (0, false), "it was one stream");
    operator.interrupt().await;
    agent.until_said(&["numbered session is over", "Closed"]).await;
}

#[tokio::test]
async fn a_session_that_was_cut_for_longer_than_max_age_is_over_and_its_bytes_never_reach_the_meter() {
    let mut pty = Pty::open().unwrap();
    let bench = Bench::new(pty.path(), "envelope = \"numbered\"\nmax_age = \"3s\"\n").await;
    let agent = bench.agent().await;
    let mut operator = bench.operator("near");
    let mut line = operator.line().await;
    line.write_all(b"one").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"one");
    bench.to_gateway.set_open(false);
    line.write_all(b"from the past").await.unwrap();
    agent.until_said(&["numbered session is over", "Cut"]).await;
    operator.until_said("longer than max_age").await;
    bench.to_gateway.set_open(true);
    let mut buffer = [0; 8];
    let hung_up = timeout(LIMIT, line.read(&mut buffer)).await.expect("the old terminal hangs up");
    assert!(!matches!(hung_up, Ok(1..)), "{hung_up:?}");
    let mut line = operator.line().await;
    line.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"two");
    pty.send(b"three").await.unwrap();
    line.read_exact(&mut buffer[..5]).await.unwrap();
    assert_eq!(&buffer[..5], b"three");
}

#[tokio::test]
async fn after_a_restart_of_the_gateway_a_new_stream_begins_and_the_operator_is_told() {
    let mut pty = Pty::open().unwrap();
    let bench = Bench::new(pty.path(), "envelope = \"numbered\"\nmax_age = \"1min\"\n").await;
    let mut agent = bench.agent().await;
    let mut operator = bench.operator("near");
    let mut line = operator.line().await;
    line.write_all(b"one").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"one");
    agent.kill().await;
    line.write_all(b"for nobody").await.unwrap();
    let _agent = bench.agent().await;
    operator.until_said("the gateway began anew").await;
    let mut line = operator.line().await;
    line.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"two");
}

#[tokio::test]
async fn an_operator_that_was_killed_leaves_the_line_to_the_next_and_a_second_one_waits() {
    let mut pty = Pty::open().unwrap();
    let bench = Bench::new(pty.path(), "envelope = \"numbered\"\nmax_age = \"5s\"\n").await;
    let _agent = bench.agent().await;
    let mut first = bench.operator("first");
    let mut line = first.line().await;
    line.write_all(b"one").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"one");
    let mut second = bench.operator("second");
    second.until_said("somebody else has the gateway's line").await;
    assert!(!second.has_told());
    drop(first);
    let mut line = second.line().await;
    line.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"two");
    // A clean end is told at once: the third one need not wait.
    second.interrupt().await;
    let mut third = bench.operator("third");
    let mut line = third.line().await;
    assert_eq!(third.said("somebody else"), 0);
    line.write_all(b"three").await.unwrap();
    assert_eq!(read(&mut pty, 5).await, b"three");
}

#[tokio::test]
async fn raw_bytes_and_retained_messages_do_not_reach_a_numbered_tunnel() {
    let site = crate::Site::new().await;
    publish(site.broker.port, "gw1/rx", b"\x57\x54\x01\x03retained", true).await;
    let agent = site.run("envelope = \"numbered\"\n");
    listening_and_raw(&site, &agent).await;
    let mut operator = crate::bench::Operator::start(&site.home, "near");
    let mut line = operator.line().await;
    line.write_all(b"numbered").await.unwrap();
    let mut pty = site.pty;
    assert_eq!(read(&mut pty, 8).await, b"numbered");
}

async fn listening_and_raw(site: &crate::Site, agent: &rig::Agent) {
    crate::listening(agent).await;
    publish(site.broker.port, "gw1/rx", b"raw bytes", false).await;
    agent.until_said(&["not in the tunnel's numbered envelope"]).await;
}

#[tokio::test]
async fn a_numbered_line_takes_commands_inside_tags_and_the_operator_gets_all_else() {
    let mut pty = Pty::open().unwrap();
    let tags = "envelope = \"numbered\"\nmax_age = \"1min\"\n[control]\nline_ports = [\"line\"]\n";
    let bench = Bench::new(pty.path(), tags).await;
    let _agent = bench.agent().await;
    let mut operator = bench.operator("near");
    let mut line = operator.line().await;
    line.write_all(b"ask").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"ask");
    for piece in ["before<MTX", "<MTXTUNNEL>AT^WEIR=VER", "SION</MTXTUNNEL>behind"] {
        pty.send(piece.as_bytes()).await.unwrap();
    }
    let version = format!("<MTXTUNNEL>AT^WEIR=VERSION weir {}\nOK</MTXTUNNEL>", env!("CARGO_PKG_VERSION"));
    assert_eq!(heard(&mut pty, "</MTXTUNNEL>").await, version);
    line.write_all(b"once more").await.unwrap();
    assert_eq!(read(&mut pty, 9).await, b"once more");
    let mut data = [0; 16];
    timeout(LIMIT, line.read_exact(&mut data)).await.expect("the operator gets it").unwrap();
    assert_eq!(&data, b"before<MTXbehind");
}
