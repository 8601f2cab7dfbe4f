//! What the figures share: frames, a mosquitto with TLS, the real binary and what it tells.

use std::fs;
use std::io::{BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use tempfile::TempDir;
use weir::model::{Body, Frame, Lane, Stamp, Telegram, TelegramKind, Timestamp};
use weir::setting::Size;
use weir::sim::authority::Authority;
use weir::store::{Store, StoreSettings, SyncPolicy};

/// No wait may take longer.
const LIMIT: Duration = Duration::from_secs(600);
/// A telegram's length in bytes.
pub const TELEGRAM: usize = 150;
pub const STORE_SIZE: u64 = 2 << 30;

pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A directory on the disk that is measured.
pub fn directory() -> TempDir {
    let root = std::env::var_os("WEIR_FIGURES_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    tempfile::tempdir_in(root).unwrap()
}

/// A sound wireless M-Bus telegram; no two are alike, and none can be compressed.
pub fn telegram(n: u64) -> Vec<u8> {
    let mut bytes = vec![(TELEGRAM - 1) as u8, 0x44, 0x2D, 0x2C];
    bytes.extend((n as u32).to_le_bytes());
    bytes.extend([0x1B, 0x16, 0xA0]);
    let mut x = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while bytes.len() < TELEGRAM {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.push(x as u8);
    }
    bytes
}

pub fn frame(n: u64, lane: Lane) -> Frame {
    let body = Body::Telegram(Telegram {
        kind: TelegramKind::WirelessMbus,
        bytes: telegram(n),
        rssi: None,
        corrected_bits: 0,
    });
    Frame { time: Stamp::synced(Timestamp::from_millis(1_800_000_000_000)), lane, body, origin: None }
}

pub fn open_store(path: &Path, sync: SyncPolicy) -> Store {
    Store::open(&StoreSettings { path: path.to_owned(), max_size: Size::from_bytes(STORE_SIZE), sync }).unwrap()
}

/// Makes a store with so many frames waiting.
pub fn fill_store(path: &Path, frames: u64) {
    run(async {
        let store = open_store(path, SyncPolicy::Every(Duration::from_secs(1)));
        for n in 0..frames {
            store.append(frame(n, Lane::Ordinary)).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Certificates for a broker on localhost.
pub struct Certificates {
    pub ca: PathBuf,
    server: (PathBuf, PathBuf),
}

impl Certificates {
    pub fn make(directory: &Path) -> Self {
        let authority = Authority::new("weir figures").unwrap();
        let ca = directory.join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let server = authority.issue(&["localhost", "127.0.0.1"], None).unwrap().write(directory, "server").unwrap();
        Self { ca, server }
    }
}

/// A mosquitto that speaks TLS and keeps nothing.
pub struct Broker {
    child: Child,
}

impl Broker {
    pub fn start(directory: &Path, certificates: &Certificates, port: u16) -> Self {
        let conf = directory.join("mosquitto.conf");
        let (certificate, key) = &certificates.server;
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\n\
             certfile {}\nkeyfile {}\n",
            certificate.display(),
            key.display()
        );
        fs::write(&conf, text).unwrap();
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&conf)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed: tests/run says how to install the peers");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How an agent is started.
#[derive(Debug, Clone)]
pub struct Setup {
    pub store: PathBuf,
    pub broker: u16,
    pub ca: PathBuf,
    /// More lines of `[uplink]`.
    pub uplink: &'static str,
    /// A TCP server with lines of hex.
    pub radio: Option<u16>,
    /// Keys of its meters: their telegrams are decoded.
    pub keys: Option<PathBuf>,
    /// How often it tells its counters; `None`: as systemd would have it.
    pub tells_every: Option<Duration>,
    /// glibc's habits, as systemd/weir.service sets them.
    pub malloc: bool,
}

/// A running `weir run`, the real binary.
pub struct Agent {
    pub child: Child,
    notes: Receiver<(Instant, String)>,
    begun: Instant,
    home: TempDir,
}

/// The counters of a status line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub connected: bool,
    pub received: u64,
    pub cached: u64,
}

impl Agent {
    /// Starts it and waits for READY.
    pub fn start(setup: &Setup) -> (Self, Duration) {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("weir.toml");
        fs::write(&config, configuration(setup)).unwrap();
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (tell, notes) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if tell.send((Instant::now(), text)).is_err() {
                    break;
                }
            }
        });
        let binary = std::env::var_os("WEIR_FIGURES_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_weir").into());
        let mut command = Command::new(binary);
        let limit = setup.tells_every.map_or(Duration::from_secs(30), |every| every * 2);
        command
            .args(["run", "--log", "warn", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", limit.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .env_remove("MALLOC_MMAP_THRESHOLD_")
            .env_remove("MALLOC_TRIM_THRESHOLD_")
            .stdout(Stdio::null())
            .stderr(fs::File::create(home.path().join("log")).unwrap());
        if setup.malloc {
            command.envs([("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")]);
        }
        let begun = Instant::now();
        let child = command.spawn().expect("weir starts");
        let mut agent = Self { child, notes, begun, home };
        let ready = agent.until("ready", |note| note.contains("READY=1"));
        (agent, ready)
    }

    /// Waits for a message to the service manager; the time since the start of the process.
    fn until(&mut self, what: &str, mut found: impl FnMut(&str) -> bool) -> Duration {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notes.recv_timeout(left.min(Duration::from_secs(5))) {
                Ok((at, note)) if found(&note) => return at - self.begun,
                Ok(_) => {}
                Err(_) => {
                    let log = || fs::read_to_string(self.home.path().join("log")).unwrap();
                    assert!(self.child.try_wait().unwrap().is_none(), "weir ended before it was {what}: {}", log());
                    assert!(!left.is_zero(), "weir was never {what}: {}", log());
                }
            }
        }
    }

    /// Waits for counters; the time since the start of the process.
    pub fn until_counters(&mut self, what: &str, mut found: impl FnMut(Counters) -> bool) -> Duration {
        self.until(what, |note| counters(note).is_some_and(&mut found))
    }

    /// A line of /proc/PID/status in KiB.
    pub fn memory(&self, key: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key}: {text}"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) {
        self.signal("TERM");
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
}

/// Reads "connected; received 12, acknowledged 10, cached 2".
fn counters(note: &str) -> Option<Counters> {
    let line = note.lines().find_map(|l| l.strip_prefix("STATUS="))?;
    let number = |name: &str| line.split(name).nth(1)?.split(',').next()?.trim().parse().ok();
    Some(Counters {
        connected: line.starts_with("connected"),
        received: number("received ")?,
        cached: number("cached ")?,
    })
}

fn configuration(setup: &Setup) -> String {
    let Setup { store, broker, ca, uplink, radio, keys, .. } = setup;
    let keys = keys
        .as_ref()
        .map_or_else(String::new, |keys| format!("forward = \"decoded\"\nkeys_file = \"{}\"\n", keys.display()));
    let radio = radio.map_or_else(String::new, |port| {
        format!("[[radio]]\nname = \"roof\"\nreceiver = \"hex-lines\"\ndevice = \"tcp://127.0.0.1:{port}\"\n{keys}")
    });
    format!(
        "version = 1\n[gateway]\nid = \"figures\"\n[broker]\nurl = \"ssl://localhost:{broker}\"\nca_file = \"{}\"\n\
         [uplink]\nstatus_topic = \"status/{{id}}\"\nwill_topic = \"will/{{id}}\"\n{uplink}\n\
         [store]\npath = \"{}\"\nmax_size = \"2GiB\"\n{radio}",
        ca.display(),
        store.display()
    )
}

/// A receiver in the network that says nothing until it is told to.
pub struct Receptor {
    listener: TcpListener,
}

impl Receptor {
    pub fn start() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self { listener }, port)
    }

    /// Lets the agent in and sends so many telegrams as lines of hex; the line stays open while
    /// the result lives.
    pub fn send(&self, frames: u64) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        let mut out = BufWriter::with_capacity(1 << 16, &stream);
        for n in 0..frames {
            out.write_all(HEXLOWER.encode(&telegram(n)).as_bytes()).unwrap();
            out.write_all(b"\n").unwrap();
        }
        out.flush().unwrap();
        drop(out);
        stream
    }

    /// The same with these lines.
    pub fn send_text(&self, lines: &[u8]) -> TcpStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.write_all(lines).unwrap();
        stream
    }
}
