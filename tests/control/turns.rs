//! An order that can't wait has the port between two frames of whoever has it, never inside one.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Duration, Instant, timeout};
use weir::os::pty::Pty;

use super::peers::broker::{LIMIT, Messages};
use super::peers::line::{heard, read};
use super::rig::{self, Home};
use super::{CONTROL, Json, peers, site};

/// How many wait for the port.
async fn waiting(home: &Home) -> u64 {
    let mut client = UnixStream::connect(home.path("store/weir.sock")).await.unwrap();
    client.write_all(b"{\"ask\":\"ports\"}\n").await.unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"\n") {
        let count = client.read(&mut buffer).await.unwrap();
        answer.extend_from_slice(&buffer[..count]);
    }
    let told: Json = serde_json::from_slice(&answer).unwrap();
    told["ok"]["ports"]["line"]["waiting"].as_u64().unwrap()
}

/// Meanwhile the frame goes on, so that no silence ends it.
async fn until_one_waits(home: &Home, pty: &mut Pty) {
    let wait = async {
        let mut last = Instant::now();
        while waiting(home).await == 0 {
            if last.elapsed() > Duration::from_millis(500) {
                pty.send(b"which goes on, ").await.unwrap();
                last = Instant::now();
            }
        }
    };
    timeout(LIMIT, wait).await.expect("the order waits for the port");
}

fn is_whole(frame: &str) -> bool {
    let inner = frame.strip_prefix("half a frame, ").and_then(|rest| rest.strip_suffix("and its end"));
    inner.is_some_and(|inner| inner.replace("which goes on, ", "").is_empty())
}

/// A frame has ended when nothing came for so long.
fn port(pty: &Pty, tunnel: &str) -> String {
    format!(
        "[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[tunnel]]\nport = \"line\"\ngather = \"5s\"\n{tunnel}{CONTROL}",
        pty.path().display()
    )
}

#[tokio::test]
async fn an_order_waits_for_the_end_of_the_frame_that_is_on_its_way_to_the_platform() {
    let mut pty = Pty::open().unwrap();
    let (home, broker, agent, mut platform) = site(&port(&pty, "")).await;
    let mut frames = Messages::of(broker.port, "gw1/tx").await;
    rig::until("the tunnel has the line", || !agent.said(&["the line is lent"]).is_empty()).await;
    pty.send(b"half a frame, ").await.unwrap();
    platform.publish("gw1/AT", "AT^WEIR=RS232,line,urgent", false).await;
    until_one_waits(&home, &mut pty).await;
    pty.send(b"and its end").await.unwrap();
    let frame = frames.text().await;
    assert!(is_whole(&frame), "{frame}");
    assert_eq!(heard(&mut pty, "urgent").await, "urgent");
    pty.send(b"at once").await.unwrap();
    assert_eq!(platform.answer().await, "AT^WEIR=RS232,line,*** at once\nOK");
    // What comes before the tunnel has its line again is nobody's.
    let tunnels = || agent.said(&["the line is lent", "to=\"tunnel\""]).len();
    rig::until("the tunnel has its line again", || tunnels() == 2).await;
    pty.send(b"the next frame").await.unwrap();
    assert_eq!(frames.text().await, "the next frame");
}

#[tokio::test]
async fn an_order_waits_for_the_end_of_the_frame_that_is_on_its_way_to_a_peer() {
    let mut pty = Pty::open().unwrap();
    let at = format!("127.0.0.1:{}", peers::free_port());
    let server = format!("mode = \"tcp-server\"\nlisten = \"{at}\"\n");
    let (home, _broker, agent, mut platform) = site(&port(&pty, &server)).await;
    rig::until("the tunnel listens", || !agent.said(&["the tunnel waits for a client"]).is_empty()).await;
    let mut peer = TcpStream::connect(&at).await.unwrap();
    peer.write_all(b"ask").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"ask");
    pty.send(b"half a frame, ").await.unwrap();
    platform.publish("gw1/AT", "AT^WEIR=RS232,line,urgent", false).await;
    until_one_waits(&home, &mut pty).await;
    // Nor does the peer, who does not wait for his answer, get in before it.
    peer.write_all(b"and more").await.unwrap();
    pty.send(b"and its end").await.unwrap();
    let mut frame = String::new();
    while !is_whole(&frame) {
        let mut buffer = [0; 64];
        let count = timeout(LIMIT, peer.read(&mut buffer)).await.expect("the peer gets his frame").unwrap();
        assert!(count > 0, "{frame}");
        frame += std::str::from_utf8(&buffer[..count]).unwrap();
    }
    assert_eq!(heard(&mut pty, "urgent").await, "urgent");
    pty.send(b"at once").await.unwrap();
    assert_eq!(platform.answer().await, "AT^WEIR=RS232,line,*** at once\nOK");
    assert_eq!(read(&mut pty, 8).await, b"and more");
}
