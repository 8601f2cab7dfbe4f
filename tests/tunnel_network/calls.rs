//! Call-back: the agent opens a TLS session on an order, and only where it may.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as heard;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use weir::os::pty::Pty;
use weir::sim::authority::Authority;
use weir::tunnel::Order;

use super::peers::broker::LIMIT;
use super::peers::line::read;
use super::peers::python;
use super::peers::site::Site as Certificates;
use super::{Site, tables};

/// The script centre.py and what it prints.
struct Centre {
    child: Child,
    lines: heard::Receiver<String>,
    port: u16,
}

impl Centre {
    fn start(certificates: &Certificates, names: &[&str], client_ca: &str, words: &str) -> Self {
        let issued = certificates.authority.issue(names, None).unwrap();
        let (certificate, key) = issued.write(certificates.directory.path(), "centre").unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/centre.py");
        let mut command = Command::new(python());
        command.arg(script).arg(certificate).arg(key).args([client_ca, words]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = heard::channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let ready = lines.recv_timeout(LIMIT).expect("the centre starts");
        let port = ready.strip_prefix("ready ").unwrap().parse().unwrap();
        Self { child, lines, port }
    }

    /// The next line that it prints, read without holding up the agent in this process.
    async fn says(&self) -> String {
        let give_up = tokio::time::Instant::now() + LIMIT;
        loop {
            match self.lines.try_recv() {
                Ok(line) => return line,
                Err(_) => assert!(tokio::time::Instant::now() < give_up, "the centre says nothing"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Centre {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn call_back(pty: &Pty, certificates: &Certificates, targets: &str, more: &str) -> Site {
    let tunnel = format!(
        "mode = \"call-back\"\ntargets = [{targets}]\nidentify = \"gateway {{id}}\\n\"\nca_file = \"{}\"\n{more}",
        certificates.path("ca.pem").display()
    );
    Site::new(&tables(pty.path(), &tunnel))
}

async fn order(site: &Site, host: &str, port: u16, limit: Option<Duration>) -> Result<(), String> {
    let (reply, answer) = oneshot::channel();
    let order = Order::CallBack { host: host.to_owned(), port, limit, reply };
    site.agent.evidence.tunnels[0].orders.send(order).await.unwrap();
    timeout(LIMIT, answer).await.expect("the order is answered").unwrap()
}

#[tokio::test]
async fn a_centre_that_is_called_has_the_port_until_it_hangs_up() {
    let mut pty = Pty::open().unwrap();
    let certificates = Certificates::new();
    let ca = certificates.path("ca.pem").display().to_string();
    let centre = Centre::start(&certificates, &["localhost"], &ca, "what is read?");
    let own = certificates.client(&certificates.authority, "own");
    let site = call_back(&pty, &certificates, &format!("\"localhost:{}\"", centre.port), &own);
    for _ in 0..2 {
        assert_eq!(site.status().peer, None, "nobody is called by itself");
        assert_eq!(order(&site, "localhost", centre.port, None).await, Ok(()));
        assert!(centre.says().await.starts_with("called b'gateway gw1\\n' TLSv1.3"));
        assert_eq!(read(&mut pty, 13).await, b"what is read?");
        pty.send(b"12345.678 kWh").await.unwrap();
        assert_eq!(centre.says().await, "answered b'12345.678 kWh'");
        site.until("the session is over", |status| status.peer.is_none()).await;
        assert_eq!(centre.says().await, "over");
    }
    assert_eq!((site.status().peers, site.status().to_port, site.status().from_port), (2, 26, 26));
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over() {
    let pty = Pty::open().unwrap();
    let certificates = Certificates::new();
    let centre = Centre::start(&certificates, &["localhost"], "-", "wait");
    let site = call_back(&pty, &certificates, &format!("\"localhost:{}\"", centre.port), "");
    assert_eq!(order(&site, "localhost", centre.port, Some(Duration::from_millis(500))).await, Ok(()));
    assert!(centre.says().await.starts_with("called"));
    assert_eq!(centre.says().await, "over");
    site.until("the session is over", |status| status.peer.is_none() && !status.holds_line).await;
}

#[tokio::test]
async fn who_is_called_is_not_disturbed_by_another_order() {
    let pty = Pty::open().unwrap();
    let certificates = Certificates::new();
    let centre = Centre::start(&certificates, &["localhost"], "-", "wait");
    let site = call_back(&pty, &certificates, &format!("\"localhost:{}\"", centre.port), "");
    assert_eq!(order(&site, "localhost", centre.port, None).await, Ok(()));
    site.until("it has the line", |status| status.holds_line).await;
    let refusal = order(&site, "localhost", centre.port, None).await.unwrap_err();
    assert!(refusal.contains("busy with localhost"), "{refusal}");
    assert!(site.status().holds_line && site.status().peers == 1);
}

#[tokio::test]
async fn only_a_target_with_the_right_certificate_is_believed() {
    let pty = Pty::open().unwrap();
    let certificates = Certificates::new();
    let stranger = Certificates { authority: Authority::new("another CA").unwrap(), ..Certificates::new() };
    let (right, wrong) = (
        Centre::start(&certificates, &["centre.example"], "-", "wait"),
        Centre::start(&stranger, &["localhost"], "-", "wait"),
    );
    let targets = format!("\"localhost:{}\", \"localhost:{}\"", right.port, wrong.port);
    let site = call_back(&pty, &certificates, &targets, "");
    let refusal = order(&site, "127.0.0.1", right.port, None).await.unwrap_err();
    assert!(refusal.contains("none of this tunnel's targets"), "{refusal}");
    assert_eq!(site.status().refused, 1);
    let refusal = order(&site, "localhost", wrong.port, None).await.unwrap_err();
    assert!(refusal.contains("not issued by the CA"), "{refusal}");
    let refusal = order(&site, "localhost", right.port, None).await.unwrap_err();
    assert!(refusal.contains("for another name"), "{refusal}");
    assert_eq!((site.status().peers, site.status().to_port), (0, 0), "nobody was let at the line");
}

#[tokio::test]
async fn a_tunnel_that_does_not_call_says_so() {
    let pty = Pty::open().unwrap();
    let site = Site::new(&tables(pty.path(), "mode = \"tcp-server\"\nlisten = \"127.0.0.1:0\"\n"));
    let refusal = order(&site, "localhost", 4059, None).await.unwrap_err();
    assert!(refusal.contains("does not call back"), "{refusal}");
}
