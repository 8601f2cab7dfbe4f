//! The gateway under test: weir, or a mosquitto bridge at its best.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::ledger::Ledger;
use super::meter::Meter;
use super::peers::free_port;
use super::rig::{Agent, Home, number};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Weir,
    Bridge,
}

impl Maker {
    pub fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::Bridge => "mosquitto bridge",
        }
    }
}

enum Process {
    Weir(Agent),
    Bridge(Child),
}

/// How a life is to be.
pub struct Life {
    pub tls: bool,
    pub sync: &'static str,
    /// A file that tells the time which the gateway believes.
    pub clock: Option<PathBuf>,
}

/// One gateway with its home; lives again and again.
pub struct Gateway {
    pub maker: Maker,
    pub home: Home,
    pub ledger: Ledger,
    /// Numbers from here on were never durable.
    pub beyond: u64,
    broker: u16,
    /// The bridge's own.
    port: u16,
    lives: usize,
    process: Option<Process>,
    meter: Option<Meter>,
}

/// No start may take longer.
const START: Duration = Duration::from_secs(120);

impl Gateway {
    /// A gateway for the broker behind the proxy at `broker`.
    pub fn new(maker: Maker, home: Home, broker: u16) -> Self {
        let port = free_port();
        Self { maker, home, ledger: Ledger::default(), beyond: 0, broker, port, lives: 0, process: None, meter: None }
    }

    pub async fn start(&mut self, life: &Life) {
        let ca = self.home.path("ca.pem");
        let environment = faked_time(life);
        let process = match self.maker {
            Maker::Weir => {
                let (meter, port) = Meter::receiver(self.ledger.clone()).await;
                self.meter = Some(meter);
                let scheme = if life.tls { "ssl" } else { "tcp" };
                let ca = if life.tls { format!("ca_file = \"{}\"\n", ca.display()) } else { String::new() };
                let broker = format!("url = \"{scheme}://127.0.0.1:{}\"\nkeep_alive = \"5s\"\n{ca}", self.broker);
                let store = format!("sync = \"{}\"\nmax_size = \"32MiB\"\n", life.sync);
                // What waits for better receptions is overtaken by priority frames, and the ledger knows weir's
                // sequences by the order in which it handed the telegrams over.
                let radio = format!(
                    "[telegrams]\ngather = \"0s\"\n[[radio]]\nname = \"roof\"\nreceiver = \"openlinkiq\"\ndevice = \"tcp://127.0.0.1:{port}\"\n"
                );
                self.home.configure(&broker, &(store + &radio));
                let borrowed: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
                Process::Weir(self.home.run_with("debug", &borrowed))
            }
            Maker::Bridge => {
                self.meter = Some(Meter::client(self.ledger.clone(), self.port));
                let tls = if life.tls { format!("bridge_cafile {}\n", ca.display()) } else { String::new() };
                let conf = self.home.path("bridge.conf");
                fs::write(&conf, self.bridge_settings() + &tls).unwrap();
                let log = File::options().create(true).append(true).open(self.home.path("bridge.log")).unwrap();
                let mut command = Command::new("/usr/sbin/mosquitto");
                command.arg("-c").arg(conf).envs(environment).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
                Process::Bridge(command.spawn().expect("mosquitto is needed: run tests/run, which installs the peers"))
            }
        };
        self.process = Some(process);
    }

    /// Everything that mosquitto offers against loss.
    fn bridge_settings(&self) -> String {
        format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\nlog_type error\nlog_type warning\n\
             persistence true\npersistence_location {store}/\nautosave_on_changes true\nautosave_interval 1\n\
             max_queued_messages 0\nmax_queued_bytes 0\n\
             connection up\naddress 127.0.0.1:{broker}\nremote_clientid gw1\nlocal_clientid gw1-local\n\
             cleansession false\nlocal_cleansession false\ntry_private true\nnotifications false\n\
             bridge_attempt_unsubscribe false\nbridge_protocol_version mqttv311\nkeepalive_interval 5\nrestart_timeout 1\n\
             start_type automatic\ntopic data/# out 1\ntopic event/# out 1\n",
            port = self.port,
            store = self.home.path("store").display(),
            broker = self.broker
        )
    }

    /// Waits until it takes telegrams.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn ready(&mut self) -> Result<(), String> {
        let give_up = Instant::now() + START;
        loop {
            let ready = match self.process.as_ref().unwrap() {
                Process::Weir(agent) => !agent.said(&["INFO ready"]).is_empty(),
                Process::Bridge(_) => TcpStream::connect(("127.0.0.1", self.port)).await.is_ok(),
            };
            if ready {
                return Ok(());
            }
            if Instant::now() > give_up || !self.runs() {
                return Err(format!("{} did not become ready:\n{}", self.maker.name(), self.last_words()));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn runs(&mut self) -> bool {
        match self.process.as_mut() {
            Some(Process::Weir(agent)) => agent.is_running(),
            Some(Process::Bridge(child)) => child.try_wait().unwrap().is_none(),
            None => false,
        }
    }

    pub fn last_words(&self) -> String {
        let lines = match &self.process {
            Some(Process::Weir(agent)) => agent.log(),
            _ => fs::read_to_string(self.home.path("bridge.log")).unwrap_or_default().lines().map(Into::into).collect(),
        };
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// `kill -9`; afterwards the ledger knows what this life has confirmed.
    pub async fn kill(&mut self) {
        match self.process.take().unwrap() {
            Process::Weir(mut agent) => {
                agent.kill().await;
                self.meter = None;
                self.read_promises(&agent);
            }
            Process::Bridge(mut child) => {
                child.kill().unwrap();
                child.wait().unwrap();
                // What it acknowledged before it died still arrives.
                sleep(Duration::from_millis(5)).await;
                self.meter = None;
            }
        }
    }

    /// SIGTERM.
    pub async fn stop(&mut self) -> io::Result<()> {
        match self.process.take().unwrap() {
            Process::Weir(mut agent) => {
                agent.signal("TERM");
                let status = agent.ended().await;
                self.meter = None;
                self.read_promises(&agent);
                if !status.success() {
                    return Err(io::Error::other(format!("weir ended with {status}:\n{}", agent.log().join("\n"))));
                }
            }
            Process::Bridge(mut child) => {
                if child.try_wait()?.is_none() {
                    Command::new("kill").arg(child.id().to_string()).status()?;
                    child.wait()?;
                }
                self.meter = None;
            }
        }
        Ok(())
    }

    /// Whether what was handed over in this life is confirmed, all of it.
    pub fn kept_all(&self) -> bool {
        let Some(Process::Weir(agent)) = &self.process else { return self.ledger.unconfirmed() == 0 };
        let said = |words, field| agent.said(&[words]).iter().map(|line| number(line, field)).max();
        let Some(first) = said("the store is open", "next=") else { return false };
        said("DEBUG durable through=", "through=").unwrap_or(0) + 1 >= first + self.ledger.handed()
    }

    fn read_promises(&mut self, agent: &Agent) {
        self.lives += 1;
        if let Some(directory) = evidence() {
            fs::write(directory.join(format!("weir-{}.log", self.lives)), agent.log().join("\n")).unwrap();
        }
        let Some(opened) = agent.said(&["the store is open"]).first().cloned() else { return };
        let first = number(&opened, "next=");
        let durable = agent.said(&["DEBUG durable through="]).iter().map(|line| number(line, "through=")).max();
        let durable = durable.unwrap_or(first.saturating_sub(1));
        self.beyond = durable + 1;
        self.ledger.numbered(first, durable);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(Process::Bridge(child)) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where to keep the logs of all lives and of the proxy, to look into a finding.
pub fn evidence() -> Option<PathBuf> {
    std::env::var_os("WEIR_CHAOS_EVIDENCE").map(PathBuf::from)
}

fn faked_time(life: &Life) -> Vec<(&'static str, String)> {
    let Some(clock) = &life.clock else { return Vec::new() };
    vec![
        ("LD_PRELOAD", libfaketime().expect("libfaketime: run tests/run, which installs it").display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_NO_CACHE", "1".into()),
    ]
}

fn libfaketime() -> Option<PathBuf> {
    let triples = fs::read_dir("/usr/lib").ok()?.flatten();
    triples.map(|triple| triple.path().join("faketime/libfaketime.so.1")).find(|path| path.exists())
}
