//! Commands inside tags while a peer of the network has the line.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir::os::pty::Pty;

use super::peers::broker::LIMIT;
use super::peers::line::{heard, read};
use super::rig::{self, stdout};
use super::{CONTROL, peers, site};

async fn sent(peer: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    timeout(LIMIT, peer.read_exact(&mut bytes)).await.expect("the peer gets its bytes").unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_peers_line_takes_commands_inside_tags_and_the_peer_gets_all_else() {
    let mut pty = Pty::open().unwrap();
    let at = format!("127.0.0.1:{}", peers::free_port());
    let more = format!(
        "[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[tunnel]]\nport = \"line\"\nmode = \"tcp-server\"\nlisten = \"{at}\"\n\
         {CONTROL}line_ports = [\"line\"]\n",
        pty.path().display()
    );
    let (home, _broker, agent, _platform) = site(&more).await;
    rig::until("the tunnel listens", || !agent.said(&["the tunnel waits for a client"]).is_empty()).await;
    let mut peer = TcpStream::connect(&at).await.unwrap();
    peer.write_all(b"ask").await.unwrap();
    assert_eq!(read(&mut pty, 3).await, b"ask");
    for piece in ["before<MTX", "<MTXTUNNEL>AT^WEIR=VER", "SION</MTXTUNNEL>behind"] {
        pty.send(piece.as_bytes()).await.unwrap();
    }
    let version = format!("<MTXTUNNEL>AT^WEIR=VERSION weir {}\nOK</MTXTUNNEL>", env!("CARGO_PKG_VERSION"));
    assert_eq!(heard(&mut pty, "</MTXTUNNEL>").await, version);
    assert_eq!(sent(&mut peer, 16).await, "before<MTXbehind");
    // As by MQTT it may only look, the peer goes on meanwhile, and what never becomes a tag is his.
    pty.send(b"<MTXTUNNEL>AT^WEIR=LOCK</MTXTUNNEL>").await.unwrap();
    assert!(heard(&mut pty, "</MTXTUNNEL>").await.contains("ERROR: line:line may not configure"));
    peer.write_all(b"once more").await.unwrap();
    assert_eq!(read(&mut pty, 9).await, b"once more");
    pty.send(b"the end<MTXTUN").await.unwrap();
    assert_eq!(sent(&mut peer, 14).await, "the end<MTXTUN");
    let audit = stdout(&home.weir(&["at", "AT^WEIR=AUDIT"]));
    assert_eq!(audit.matches("\"who\":\"line:line\"").count(), 2, "{audit}");
}
