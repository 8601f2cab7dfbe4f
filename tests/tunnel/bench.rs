//! A gateway and an operator, each with its own connection to one mosquitto over TLS, that can be cut.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::sim::authority::Authority;

use crate::listening;
use crate::peers::broker::{LIMIT, Mosquitto, Relay};
use crate::peers::site::passwords;
use crate::rig::{self, Agent, Home, weir};

/// Mosquitto with TLS and a password, and a relay before it for each side.
pub struct Bench {
    pub gateway: Home,
    pub desk: Home,
    pub broker: Mosquitto,
    pub to_gateway: Relay,
    pub to_desk: Relay,
}

impl Bench {
    /// `tunnel` are lines of the `[[tunnel]]`, which both sides' files have.
    pub async fn new(device: &Path, tunnel: &str) -> Self {
        let (gateway, desk) = (Home::new(), Home::new());
        let directory = gateway.directory.path();
        let authority = Authority::new("test CA").unwrap();
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        let (certificate, key) = authority.issue(&["127.0.0.1"], None).unwrap().write(directory, "server").unwrap();
        let tls = format!("certfile {}\nkeyfile {}\n{}", certificate.display(), key.display(), passwords(directory));
        let broker = Mosquitto::start(directory, &tls).await;
        let (to_gateway, to_desk) = (Relay::start(broker.port, true).await, Relay::start(broker.port, true).await);
        for (home, relay) in [(&gateway, &to_gateway), (&desk, &to_desk)] {
            let settings = format!(
                "url = \"ssl://127.0.0.1:{}\"\nca_file = \"{}\"\nusername = \"meters\"\npassword_file = \"{}\"",
                relay.port,
                directory.join("ca.pem").display(),
                directory.join("right").display()
            );
            home.configure(&settings, &crate::settings(device, tunnel));
        }
        Self { gateway, desk, broker, to_gateway, to_desk }
    }

    pub async fn agent(&self) -> Agent {
        let agent = self.gateway.run_with("debug", &[]);
        listening(&agent).await;
        agent
    }

    pub fn operator(&self, name: &str) -> Operator {
        Operator::start(&self.desk, name)
    }
}

/// `weir tunnel open`, ended with the test.
pub struct Operator {
    child: tokio::process::Child,
    told: mpsc::UnboundedReceiver<String>,
    log: Arc<Mutex<Vec<String>>>,
    pub link: PathBuf,
}

impl Operator {
    pub fn start(home: &Home, name: &str) -> Self {
        let link = home.path(name);
        let mut command = tokio::process::Command::from(weir());
        command.arg("--config").arg(home.config()).args(["tunnel", "open", "gw1", "line", "--link"]).arg(&link);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("weir starts");
        let (tell, told) = mpsc::unbounded_channel();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = tell.send(line);
            }
        });
        let log = Arc::new(Mutex::new(Vec::new()));
        let (mut lines, page) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                page.lock().unwrap().push(line);
            }
        });
        Self { child, told, log, link }
    }

    /// Waits until there is a terminal, and opens it.
    pub async fn line(&mut self) -> Line {
        let told = timeout(LIMIT, self.told.recv()).await;
        let told = told.unwrap_or_else(|_| panic!("no terminal; it said {:?}", self.log.lock().unwrap())).unwrap();
        assert!(told.contains(self.link.to_str().unwrap()), "{told}");
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        Line::open(&Endpoint::Device(self.link.clone()), speed, Direction::Automatic).await.unwrap()
    }

    /// Whether it told of a new terminal since the last.
    pub fn has_told(&mut self) -> bool {
        self.told.try_recv().is_ok()
    }

    pub fn said(&self, words: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    pub async fn until_said(&self, words: &str) {
        rig::until(words, || self.said(words) > 0).await;
    }

    /// Ctrl-C, and its end.
    pub async fn interrupt(&mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let status = timeout(LIMIT, self.child.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status:?} {:?}", self.log.lock().unwrap());
    }
}
