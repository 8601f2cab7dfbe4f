//! Raw bytes: one client at a time, clients and servers of others, nothing lost.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;
use weir::os::pty::Pty;

use super::peers::broker::LIMIT;
use super::peers::free_port;
use super::peers::line::{random, read};
use super::{Site, connected, heard, is_closed, tables};

const MEGABYTE: usize = 1 << 20;

/// socat between its own pipes and an address.
struct Socat {
    _child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Socat {
    fn start(address: &str) -> Self {
        let mut child = tokio::process::Command::new("socat")
            .args(["-t", "60", "STDIO", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("socat is needed: run tests/run, which installs the peers");
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, to, from }
    }

    /// Sends `down` in pieces of `piece` bytes and returns as many as `count`; both at once. The pipe to socat is given back open.
    fn exchange(
        self,
        down: Vec<u8>,
        piece: usize,
        count: usize,
    ) -> tokio::task::JoinHandle<(Vec<u8>, Child, ChildStdin)> {
        let Self { _child, mut to, mut from } = self;
        tokio::spawn(async move {
            let write = async {
                for piece in down.chunks(piece) {
                    to.write_all(piece).await.unwrap();
                    to.flush().await.unwrap();
                }
            };
            let mut back = vec![0; count];
            let (_, done) = tokio::join!(write, from.read_exact(&mut back));
            done.unwrap();
            (back, _child, to)
        })
    }
}

/// A megabyte each way at once, differently cut.
async fn a_megabyte_each_way(pty: &mut Pty, socat: Socat) {
    let (down, up) = (random(1, MEGABYTE), random(2, MEGABYTE));
    let exchange = socat.exchange(down.clone(), 1777, up.len());
    // Not before the peer has the port: what the line says before is thrown away.
    let mut came = read(pty, 1).await;
    for piece in up.chunks(3001) {
        timeout(LIMIT, pty.send(piece)).await.expect("the line takes its bytes").unwrap();
        if came.len() < down.len() {
            came.extend(read(pty, 1).await);
        }
    }
    came.extend(read(pty, down.len() - came.len()).await);
    assert!(came == down, "the line got other bytes than socat sent");
    let (back, _child, _to) = timeout(LIMIT, exchange).await.expect("socat gets its bytes").unwrap();
    assert!(back == up, "socat got other bytes than the line sent");
}

#[tokio::test]
async fn a_megabyte_each_way_crosses_a_server_as_it_is() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let site = Site::new(&tables(pty.path(), &format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\n")));
    drop(connected(port).await);
    site.until("the first look is over", |status| status.peers == 1 && status.peer.is_none()).await;
    a_megabyte_each_way(&mut pty, Socat::start(&format!("TCP:127.0.0.1:{port}"))).await;
}

#[tokio::test]
async fn a_client_says_who_it_is_and_a_megabyte_crosses_each_way() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let mut socat = Socat::start(&format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"));
    let tunnel = format!("mode = \"tcp-client\"\nconnect = \"127.0.0.1:{port}\"\nidentify = \"I am {{id}}\\r\\n\"\n");
    let _site = Site::new(&tables(pty.path(), &tunnel));
    let mut first = [0; 10];
    timeout(LIMIT, socat.from.read_exact(&mut first)).await.expect("it connects").unwrap();
    assert_eq!(&first, b"I am gw1\r\n");
    a_megabyte_each_way(&mut pty, socat).await;
}

#[tokio::test]
async fn a_client_comes_back_after_its_server_hung_up() {
    let mut pty = Pty::open().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let site = Site::new(&tables(pty.path(), &format!("mode = \"tcp-client\"\nconnect = \"{address}\"\n")));
    for _ in 0..2 {
        let (mut stream, _) = timeout(LIMIT, server.accept()).await.expect("it connects").unwrap();
        stream.write_all(b"ask").await.unwrap();
        assert_eq!(read(&mut pty, 3).await, b"ask");
        pty.send(b"answer").await.unwrap();
        assert_eq!(heard(&mut stream, 6).await, b"answer");
    }
    site.until("two connections", |status| status.peers == 2).await;
}

#[tokio::test]
async fn a_second_client_is_refused_and_counted_while_the_first_goes_on() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let site = Site::new(&tables(pty.path(), &format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\n")));
    let mut first = connected(port).await;
    first.write_all(b"one").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"one");
    let mut second = connected(port).await;
    assert!(is_closed(&mut second).await);
    site.until("the refusal is counted", |status| status.refused == 1).await;
    first.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"two");
    drop(first);
    site.until("the first is gone", |status| status.peer.is_none()).await;
    let mut third = connected(port).await;
    third.write_all(b"three").await.unwrap();
    assert_eq!(read(&mut pty, 5).await, b"three");
    assert_eq!((site.status().peers, site.status().refused, site.status().to_port), (2, 1, 11));
}

#[tokio::test]
async fn a_client_can_take_the_port_over_where_that_is_wanted() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let tunnel = format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\ntakeover = true\n");
    let _site = Site::new(&tables(pty.path(), &tunnel));
    let mut first = connected(port).await;
    first.write_all(b"one").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"one");
    let mut second = connected(port).await;
    assert!(is_closed(&mut first).await);
    second.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"two");
}

#[tokio::test]
async fn who_is_not_allowed_never_reaches_the_line() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let tunnel =
        format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\nallow = [\"127.0.0.2\", \"10.0.0.0/8\"]\n");
    let site = Site::new(&tables(pty.path(), &tunnel));
    let mut stranger = connected(port).await;
    let _ = stranger.write_all(b"attack").await;
    assert!(is_closed(&mut stranger).await);
    assert_eq!(site.status().refused, 1);
    let friend = tokio::net::TcpSocket::new_v4().unwrap();
    friend.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut friend = friend.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    friend.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut pty, 5).await, b"hello");
}

#[tokio::test]
async fn a_silent_client_loses_its_place() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let tunnel = format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\nidle = \"3s\"\n");
    let _site = Site::new(&tables(pty.path(), &tunnel));
    let mut first = connected(port).await;
    first.write_all(b"one").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"one");
    assert!(is_closed(&mut first).await);
}

#[tokio::test]
async fn what_the_line_said_before_is_thrown_away_and_what_it_says_then_is_not() {
    let mut pty = Pty::open().unwrap();
    let port = free_port();
    let site = Site::new(&tables(pty.path(), &format!("mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\n")));
    // Somebody was there, so the port is open.
    let mut first = connected(port).await;
    first.write_all(b"x").await.unwrap();
    read(&mut pty, 1).await;
    drop(first);
    site.until("nobody is there", |status| status.peer.is_none() && !status.holds_line).await;
    pty.send(b"stale").await.unwrap();
    let mut second = connected(port).await;
    second.write_all(b"ask").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"ask");
    pty.send(b"fresh").await.unwrap();
    assert_eq!(heard(&mut second, 5).await, b"fresh");
}

#[tokio::test]
async fn a_port_that_speaks_is_connected_and_silence_ends_it() {
    let mut pty = Pty::open().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let tunnel = format!("mode = \"tcp-client\"\nwhen = \"data\"\nidle = \"3s\"\nconnect = \"{address}\"\n");
    let site = Site::new(&tables(pty.path(), &tunnel));
    for words in ["good morning", "good evening"] {
        pty.send(words.as_bytes()).await.unwrap();
        let (mut stream, _) = timeout(LIMIT, server.accept()).await.expect("it connects").unwrap();
        assert_eq!(heard(&mut stream, words.len()).await, words.as_bytes());
        stream.write_all(b"thanks").await.unwrap();
        assert_eq!(read(&mut pty, 6).await, b"thanks");
        assert!(is_closed(&mut stream).await);
    }
    assert_eq!(site.status().peers, 2);
}
