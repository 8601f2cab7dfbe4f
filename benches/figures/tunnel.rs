//! What a tunnel adds to a line: time, against ser2net's TCP on the same kind of pseudo-terminals, speed and memory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use weir::os::alarm::Alarm;
use weir::os::clock::Clock;
use weir::os::line::{Framing, Speed};
use weir::os::pty::Pty;
use weir::os::random;
use weir::setting::{Identity, Topic};
use weir::uplink::{self, Heard, Saying, Speaker};

use crate::Scale;
use crate::rig::{Broker, Certificates, directory, free_port, run};
use crate::table::Figure;

pub const LIMIT: Duration = Duration::from_secs(60);
/// A message ends after this silence.
const GATHER: Duration = Duration::from_millis(1);
/// A request and an answer of Modbus RTU.
const REQUEST: &[u8] = &[1, 3, 0, 2, 0, 2, 0x65, 0xCB];
const ANSWER: &[u8] = &[1, 3, 4, 0, 100, 0, 200, 0xBA, 0x7A];
/// Bytes that a paced line takes or gives at once.
const PIECE: usize = 256;

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let rounds = usize::try_from(scale.singles).unwrap();
    let mut figures = run(latency(rounds));
    for baud in [115_200, 921_600] {
        figures.extend(run(throughput(baud, if rounds > 100 { 10 } else { 1 })));
    }
    figures.push(memory());
    figures
}

/// A running `weir`, killed when dropped.
pub struct Weir(Child);

impl Weir {
    pub fn run(config: &Path) -> Self {
        let log = fs::File::create(config.with_extension("log")).unwrap();
        let child = weir(config).args(["--log", "debug", "run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let listens = || fs::read_to_string(config.with_extension("log")).unwrap().contains("lets weir listen");
        let begun = Instant::now();
        while !listens() {
            assert!(begun.elapsed() < LIMIT, "weir does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }

    /// Kibibytes.
    fn memory(&self, key: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn weir(config: &Path) -> Command {
    let binary = std::env::var_os("WEIR_FIGURES_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_weir").into());
    let mut command = Command::new(binary);
    command.arg("--config").arg(config).env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

/// A broker with TLS, and a file for weir whose tunnels have these devices.
pub struct Site {
    directory: tempfile::TempDir,
    port: u16,
    _broker: Broker,
    certificates: Certificates,
}

impl Site {
    pub fn new() -> Self {
        let (directory, port) = (directory(), free_port());
        let certificates = Certificates::make(directory.path());
        let broker = Broker::start(directory.path(), &certificates, port);
        Self { directory, port, _broker: broker, certificates }
    }

    pub fn configure(&self, devices: &[&Path], baud: u32, envelope: &str) -> std::path::PathBuf {
        let ca = self.certificates.ca.display();
        let mut text = format!(
            "version = 1\n[gateway]\nid = \"gw1\"\n[broker]\nurl = \"ssl://localhost:{}\"\nca_file = \"{ca}\"\n[store]\npath = \"{}\"\n",
            self.port,
            self.directory.path().join("store").display()
        );
        for (n, device) in devices.iter().enumerate() {
            text += &format!(
                "[[port]]\nname = \"line{n}\"\ndevice = \"{}\"\nbaud = {baud}\n[[tunnel]]\nport = \"line{n}\"\n\
                 rx_topic = \"gw1/rx{n}\"\ntx_topic = \"gw1/tx{n}\"\ngather = \"{}ms\"\nenvelope = \"{envelope}\"\n",
                device.display(),
                GATHER.as_millis()
            );
        }
        let path = self.directory.path().join(format!("weir-{envelope}-{}.toml", devices.len()));
        fs::write(&path, text).unwrap();
        path
    }
}

/// A client of the broker: hears a topic.
pub async fn client(config: &Path, topic: &str) -> (Speaker, mpsc::Receiver<Heard>) {
    let settings = weir::config::load(config).unwrap().settings;
    let identity = Identity { id: "gw1".into(), imei: None };
    let (talk, heard, speaker) = uplink::talk(&[Topic::parse(topic).unwrap()], &identity).unwrap();
    let (tell, mut connected) = watch::channel(false);
    tokio::spawn(async move {
        let names = (&settings.broker[0], &settings.uplink, &identity);
        let clock = Clock::system();
        let _ = uplink::converse(names, "-figures", (&clock, random::generator()), &talk, tell).await;
    });
    timeout(LIMIT, connected.wait_for(|connected| *connected)).await.unwrap().unwrap();
    (speaker, heard)
}

async fn read_all(pty: &mut Pty, count: usize) -> Instant {
    let mut buffer = [0; 64];
    let mut first = None;
    let mut got = 0;
    while got < count {
        got += timeout(LIMIT, pty.receive(&mut buffer)).await.expect("the line brings bytes").unwrap();
        first.get_or_insert_with(Instant::now);
    }
    first.unwrap()
}

/// The times of many exchanges, both ways, in milliseconds.
#[derive(Default)]
struct Times {
    down: Vec<f64>,
    up: Vec<f64>,
}

impl Times {
    fn add(&mut self, begun: Instant, on_line: Instant, answered: Instant, back: Instant) {
        self.down.push((on_line - begun).as_secs_f64() * 1e3);
        self.up.push((back - answered).as_secs_f64() * 1e3);
    }
}

pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

pub async fn pause() {
    // Also what was only acknowledged is through then.
    tokio::time::sleep(Duration::from_millis(3)).await;
}

async fn latency(rounds: usize) -> Vec<Figure> {
    let (mut pty, site) = (Pty::open().unwrap(), Site::new());
    let config = site.configure(&[pty.path()], 115_200, "none");
    let _agent = Weir::run(&config);
    let (speaker, mut heard) = client(&config, "gw1/tx0").await;
    let mut ours = Times::default();
    // The client's own subscription may come later than its session: the first answers prepare it.
    loop {
        pty.send(ANSWER).await.unwrap();
        if timeout(Duration::from_millis(200), heard.recv()).await.is_ok() {
            break;
        }
    }
    while timeout(Duration::from_millis(300), heard.recv()).await.is_ok() {}
    let (mut theirs, mut device, ser2net) = ser2net(site.directory.path()).await;
    let mut their_times = Times::default();
    for _ in 0..rounds {
        let begun = Instant::now();
        let saying = Saying { topic: "gw1/rx0".into(), payload: REQUEST.into(), until: None };
        speaker.say(saying).await.unwrap();
        let on_line = read_all(&mut pty, REQUEST.len()).await;
        let answered = Instant::now();
        pty.send(ANSWER).await.unwrap();
        let answer = timeout(LIMIT, heard.recv()).await.unwrap().unwrap();
        ours.add(begun, on_line, answered, Instant::now());
        assert_eq!(answer.payload, ANSWER);
        pause().await;
        let begun = Instant::now();
        theirs.write_all(REQUEST).await.unwrap();
        let on_line = read_all(&mut device, REQUEST.len()).await;
        let answered = Instant::now();
        device.send(ANSWER).await.unwrap();
        let mut first = [0; 64];
        let mut count = theirs.read(&mut first).await.unwrap();
        their_times.add(begun, on_line, answered, Instant::now());
        while count < ANSWER.len() {
            count += theirs.read(&mut first).await.unwrap();
        }
        pause().await;
    }
    drop(ser2net);
    let above = GATHER.as_secs_f64() * 1e3;
    let mut figures = Vec::new();
    for (what, ours, theirs, taken) in [
        ("request: broker's client to the line", ours.down, their_times.down, 0.0),
        ("answer: line to the broker's client", ours.up, their_times.up, above),
    ] {
        for percent in [50, 99] {
            let note = if taken > 0.0 { "the gathering time of 1 ms taken out" } else { "" };
            let figure = Figure::new(format!("{what}, p{percent}"), percentile(&ours, percent) - taken, "ms");
            figures.push(figure.against("ser2net, TCP, no TLS, no broker", percentile(&theirs, percent)).note(note));
        }
    }
    figures
}

/// ser2net on a line of its own, and a connection to it. It does not wait for more characters.
async fn ser2net(directory: &Path) -> (TcpStream, Pty, Weir) {
    let (device, port) = (Pty::open().unwrap(), free_port());
    let text = format!(
        "connection: &con0\n  accepter: tcp(nodelay),127.0.0.1,{port}\n  connector: serialdev,{},115200n81,local\n  options:\n    chardelay: false\n",
        device.path().display()
    );
    let config = directory.join("ser2net.yaml");
    fs::write(&config, text).unwrap();
    let child = Command::new("/usr/sbin/ser2net")
        .args(["-n", "-u", "-c"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ser2net is needed: apt-get install ser2net");
    let begun = Instant::now();
    let stream = loop {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
            break stream;
        }
        assert!(begun.elapsed() < LIMIT, "ser2net does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stream.set_nodelay(true).unwrap();
    // It opens the line only then.
    let mut device = device;
    let mut stream = stream;
    stream.write_all(REQUEST).await.unwrap();
    read_all(&mut device, REQUEST.len()).await;
    (stream, device, Weir(child))
}

/// A device on a thread of its own that takes and gives bytes at the speed that the line was set to, and never catches up.
fn paced(takes: usize, gives: usize) -> (std::path::PathBuf, std::sync::mpsc::Receiver<Duration>) {
    let (tell_path, path) = std::sync::mpsc::channel();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        run(async move {
            let mut pty = Pty::open().unwrap();
            tell_path.send(pty.path().to_owned()).unwrap();
            let mut alarm = Alarm::new();
            let mut buffer = [0; PIECE];
            let (mut taken, mut given, mut begun, mut free) = (0, 0, None, tokio::time::Instant::now());
            while taken < takes {
                let count = pty.receive(&mut buffer).await.unwrap();
                begun.get_or_insert_with(tokio::time::Instant::now);
                let speed = Speed { baud: pty.baud().unwrap(), framing: Framing::EIGHT_N_ONE };
                // The wire is free again when these have crossed it.
                free = free.max(tokio::time::Instant::now()) + speed.time_of(count);
                taken += count;
                alarm.until(free).await;
            }
            if gives > 0 {
                // A first byte says that there is somebody.
                pty.receive(&mut buffer[..1]).await.unwrap();
                begun = Some(tokio::time::Instant::now());
                let mut free = tokio::time::Instant::now();
                while given < gives {
                    let speed = Speed { baud: pty.baud().unwrap(), framing: Framing::EIGHT_N_ONE };
                    let count = PIECE.min(gives - given);
                    free = free.max(tokio::time::Instant::now()) + speed.time_of(count);
                    alarm.until(free).await;
                    pty.send(&[0x55; PIECE][..count]).await.unwrap();
                    given += count;
                }
            }
            tell.send(begun.unwrap().elapsed()).unwrap();
            // The other end must have read what is in the terminal.
            std::future::pending::<()>().await;
        });
    });
    (path.recv().unwrap(), told)
}

async fn operator(config: &Path) -> (TcpStream, tokio::process::Child) {
    let mut command = tokio::process::Command::from(weir(config));
    command.args(["tunnel", "open", "gw1", "line0", "--tcp", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    (TcpStream::connect(line.split(' ').next().unwrap()).await.unwrap(), child)
}

/// Bytes through `weir tunnel open`, numbered, TLS and mosquitto to a line at `baud`, and back, for so many seconds each.
async fn throughput(baud: u32, seconds: usize) -> Vec<Figure> {
    let limit = f64::from(baud) / 10.0;
    let count = usize::try_from(baud).unwrap() / 10 * seconds;
    let bytes = vec![0x55; count];
    let mut figures = Vec::new();
    for (what, takes, gives) in [("to the line", count, 0), ("from the line", 0, count)] {
        let site = Site::new();
        let (path, told) = paced(takes, gives);
        let config = site.configure(&[&path], baud, "numbered");
        let _agent = Weir::run(&config);
        let (mut stream, _child) = operator(&config).await;
        let took = if takes > 0 {
            stream.write_all(&bytes).await.unwrap();
            tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap()
        } else {
            stream.write_all(&[1]).await.unwrap();
            let mut buffer = vec![0; 65_536];
            let (mut got, mut begun) = (0, None);
            while got < count {
                got += timeout(LIMIT, stream.read(&mut buffer)).await.expect("bytes come").unwrap();
                // The first message is part of what is timed by the rest.
                begun.get_or_insert_with(|| (Instant::now(), got));
            }
            let (begun, first) = begun.unwrap();
            begun.elapsed().mul_f64(count as f64 / (count - first) as f64)
        };
        let rate = count as f64 / took.as_secs_f64();
        let figure = Figure::new(format!("numbered, {what} at {baud} baud"), rate, "B/s");
        figures.push(figure.against("the line's limit", limit));
    }
    figures
}

fn memory() -> Figure {
    let resident = |tunnels: usize| {
        run(async {
            let (site, mut ptys) = (Site::new(), (0..tunnels).map(|_| Pty::open().unwrap()).collect::<Vec<_>>());
            let devices: Vec<_> = ptys.iter().map(|pty| pty.path().to_owned()).collect();
            let devices: Vec<&Path> = devices.iter().map(|path| path.as_path()).collect();
            let config = site.configure(&devices, 115_200, "none");
            let agent = Weir::run(&config);
            let (speaker, mut heard) = client(&config, "gw1/tx0").await;
            for (n, pty) in ptys.iter_mut().enumerate() {
                for _ in 0..20 {
                    let saying = Saying { topic: format!("gw1/rx{n}"), payload: vec![7; 1000], until: None };
                    speaker.say(saying).await.unwrap();
                    read_all(pty, 1000).await;
                    pty.send(&[8; 1000]).await.unwrap();
                }
            }
            let _ = timeout(LIMIT, heard.recv()).await.unwrap();
            agent.memory("VmRSS")
        })
    };
    let one = resident(1);
    Figure::new("resident memory with 8 tunnels", resident(8) / 1024.0, "MB").against("with one", one / 1024.0)
}
