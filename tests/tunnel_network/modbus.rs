//! Modbus through the network: a master program here, units of pymodbus there.

use std::process::Command;

use tokio::net::UdpSocket;

use super::peers::{self, Peer, free_port};
use super::{Site, tables};

/// A pair of names for a line, joined by socat, in a directory of its own.
fn line() -> (tempfile::TempDir, Peer, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let (peer, one, other) = Peer::socat_pair(directory.path());
    (directory, peer, one.display().to_string(), other.display().to_string())
}

/// Asks a unit for two registers by mbpoll.
async fn poll(device: &str, unit: u8) -> (bool, String) {
    let unit = unit.to_string();
    let arguments =
        ["-m", "rtu", "-b", "9600", "-P", "none", "-a", &unit, "-t", "4:hex", "-r", "1", "-c", "2", "-1", "-o", "5"];
    let output = peers::run(Command::new("mbpoll").args(arguments).arg(device)).await;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success() && text.contains("0x0064") && text.contains("0x0065"), text)
}

#[tokio::test]
async fn mbpoll_reads_through_a_server_while_the_agent_reads_the_same_bus() {
    let (directory, _line, ours, theirs) = line();
    let _bus = Peer::python("modbus_bus.py", &[&theirs, "1,2"], "ready");
    let port = free_port();
    let tunnel = format!(
        "mode = \"tcp-server\"\nlisten = \"127.0.0.1:{port}\"\nhold = \"200ms\"\n[[meter]]\nname = \"incomer\"\nport = \"line\"\n\
         protocol = \"modbus-rtu\"\nevery = \"1s\"\ntimeout = \"500ms\"\nregister = [{{ name = \"voltage\", register = \"holding:3\" }}]\n"
    );
    let site = Site::new(&tables(ours.as_ref(), &tunnel));
    drop(super::connected(port).await);
    site.until("the first look is over", |status| status.peers == 1 && status.peer.is_none()).await;
    let near = directory.path().join("near").display().to_string();
    let link = format!("pty,raw,echo=0,link={near}");
    let _near = Peer::start(
        Command::new("socat").args(["-d", "-d", &link, &format!("TCP:127.0.0.1:{port}")]),
        "starting data transfer loop",
    );
    for _ in 0..3 {
        let (read, text) = poll(&near, 2).await;
        assert!(read, "{text}");
    }
    let values = site.agent.evidence.buses[0].read("incomer").await.unwrap();
    assert_eq!(values.len(), 1, "the agent's own meter is read too");
    assert!(site.status().sessions >= 1 && site.status().from_port > 0);
}

#[tokio::test]
async fn a_master_reaches_each_unit_at_its_own_gateway() {
    let (_ours, _line, ours, master) = line();
    let (_far, _far_line, far, units) = line();
    let port = free_port();
    let remote = port.to_string();
    let _two = Peer::python("modbus_bus.py", &["udp", "127.0.0.2", &remote, "2"], "ready");
    let _three = Peer::python("modbus_bus.py", &["udp", "127.0.0.3", &remote, "3"], "ready");
    let _four = Peer::python("modbus_bus.py", &[&units, "4"], "ready");
    let text = format!(
        "{}local = \"127.0.0.1:0\"\nremote_port = {port}\ngather = \"20ms\"\n\
         routes = [\"127.0.0.2@2\", \"127.0.0.3@3\", \"127.0.0.4@4\"]\n\
         [[port]]\nname = \"far\"\ndevice = \"{far}\"\n[[tunnel]]\nport = \"far\"\nmode = \"udp\"\nlocal = \"127.0.0.4:{port}\"\n\
         allow = [\"127.0.0.1\"]\ngather = \"20ms\"\n",
        tables(ours.as_ref(), "mode = \"udp\"\n")
    );
    let site = Site::new(&text);
    for unit in [2, 3, 4, 2] {
        let (read, text) = poll(&master, unit).await;
        assert!(read, "unit {unit}: {text}");
    }
    let (read, _) = poll(&master, 9).await;
    assert!(!read, "nobody has the unit 9");
    assert_eq!((site.status().peers, site.status().answers, site.status().requests), (3, 4, 4));
    assert!(site.status().dropped_answers >= 1);
    // A stranger's request reaches nobody.
    let far_end = site.agent.evidence.tunnels[1].health.clone();
    let before = far_end.status();
    let stranger = UdpSocket::bind("127.0.0.9:0").await.unwrap();
    stranger.send_to(&[4, 3, 0, 0, 0, 1, 0x84, 0x5F], ("127.0.0.4", port)).await.unwrap();
    let give_up = tokio::time::Instant::now() + super::peers::broker::LIMIT;
    while far_end.status().refused == before.refused {
        assert!(tokio::time::Instant::now() < give_up, "a stranger was heard: {:?}", far_end.status());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!((far_end.status().to_port, far_end.status().answers), (before.to_port, before.answers));
}
