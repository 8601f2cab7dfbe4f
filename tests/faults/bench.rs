//! One gateway between a meter and a broker, and what is done to it, round after round.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use weir::sim::authority::Authority;

use super::disk::{self, Disk};
use super::gateway::{Gateway, Life, Maker};
use super::head_end::HeadEnd;
use super::peers::broker::Mosquitto;
use super::plan::{Fault, Moment, Round, kind_of};
use super::proxy::{FAIR, Proxy, Weather};
use super::rig::Home;

/// No gateway may take longer to deliver what waits once the fault is over.
const HEALING: Duration = Duration::from_secs(100);

pub struct Bench {
    /// Unmounted before the gateway's home is removed.
    pub disk: Disk,
    pub gateway: Gateway,
    pub proxy: Proxy,
    pub head_end: HeadEnd,
    broker: Mosquitto,
    /// Outlives the gateway that it was done to.
    lasting: Option<Round>,
    /// How long the gateway took to deliver everything after each fault.
    pub healed: BTreeMap<Fault, Vec<Duration>>,
    pub times: BTreeMap<Fault, usize>,
    /// What must not be.
    pub findings: Vec<String>,
    /// What the bridge said when it did not start.
    pub refused: Vec<String>,
    /// How many telegrams the rounds fed.
    pub fed: u64,
    /// Everything below was delivered.
    low: u64,
}

fn acceptor(home: &Home) -> TlsAcceptor {
    let authority = Authority::new("chaos CA").unwrap();
    fs::write(home.path("ca.pem"), authority.pem()).unwrap();
    let issued = authority.issue(&["127.0.0.1", "localhost"], None).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Bench {
    pub async fn new(maker: Maker, seed: u64) -> Self {
        let home = Home::new();
        let disk = Disk::mount(&home.path("store"), &home.path("disk.img"));
        let kept = home.path("upstream");
        fs::create_dir(&kept).unwrap();
        let broker = Mosquitto::persistent(&kept, "allow_anonymous true\nautosave_interval 3600").await;
        let proxy = Proxy::start(broker.port, acceptor(&home), seed).await;
        let head_end = HeadEnd::start(broker.port);
        while !head_end.listening() {
            sleep(Duration::from_millis(5)).await;
        }
        Self {
            gateway: Gateway::new(maker, home, proxy.port),
            disk,
            proxy,
            head_end,
            broker,
            lasting: None,
            healed: BTreeMap::new(),
            times: BTreeMap::new(),
            findings: Vec::new(),
            refused: Vec::new(),
            fed: 0,
            low: 0,
        }
    }

    /// All rounds, and then a quiet one until everything has arrived.
    pub async fn run(&mut self, rounds: &[Round], progress: &AtomicUsize) {
        for (number, round) in rounds.iter().enumerate() {
            self.gateway.ledger.round(number);
            *self.times.entry(round.fault).or_default() += 1;
            self.round(round).await;
            progress.store(number + 1, Ordering::Relaxed);
        }
        self.last_round().await;
        self.fed = self.gateway.ledger.made();
    }

    async fn round(&mut self, round: &Round) {
        let random = &mut StdRng::seed_from_u64(round.seed);
        let clock = (round.fault == Fault::Clock).then(|| self.gateway.home.path("clock"));
        if let Some(clock) = &clock {
            fs::write(clock, "+0").unwrap();
        }
        let tls = round.tls && clock.is_none();
        let life = Life { tls, sync: round.sync, clock };
        self.gateway.start(&life).await;
        if let Some(lasting) = self.lasting.take() {
            sleep(Duration::from_millis(random.random_range(0..300))).await;
            self.end(&lasting, random).await;
        }
        if let Moment::Starting(after) = round.kill {
            sleep(after).await;
        } else {
            self.ready(&life).await;
            sleep(round.before).await;
            self.proxy.cause(kind_of(round.fault).name);
            self.begin(round, random).await;
            sleep(round.hold).await;
            if round.kill == Moment::After {
                self.end(round, random).await;
                if round.heal {
                    self.heal(round.fault).await;
                } else {
                    sleep(round.after).await;
                }
            }
        }
        self.kill().await;
        match round.kill {
            Moment::During { outlives: false } => self.end(round, random).await,
            Moment::During { outlives: true } => self.lasting = Some(round.clone()),
            Moment::Starting(_) | Moment::After => {}
        }
        if round.fault == Fault::Torn {
            self.tear(random);
        }
    }

    /// Waits until the gateway takes telegrams. A bridge that refuses to start because its database is
    /// broken is mended as an operator would: the database is taken away.
    pub async fn ready(&mut self, life: &Life) {
        let Err(words) = self.gateway.ready().await else { return };
        if self.gateway.maker == Maker::Weir {
            self.findings.push(words);
            return;
        }
        self.refused.push(words);
        let database = self.gateway.home.path("store/mosquitto.db");
        let _ = fs::rename(&database, self.gateway.home.path(&format!("refused-{}.db", self.refused.len())));
        let _ = fs::remove_file(&database);
        self.gateway.start(life).await;
        if let Err(words) = self.gateway.ready().await {
            self.findings.push(words);
        }
    }

    async fn kill(&mut self) {
        if self.gateway.maker == Maker::Weir && !self.gateway.runs() {
            self.findings.push(format!("it ended by itself:\n{}", self.gateway.last_words()));
        }
        self.proxy.cause(kind_of(Fault::Kill).name);
        self.gateway.kill().await;
        // What is under way may still arrive.
        sleep(Duration::from_millis(20)).await;
        let head_end = &self.head_end;
        self.gateway.ledger.life_over(|number| head_end.has(number));
    }

    /// SIGTERM; what was delivered needs no confirmation any more.
    pub async fn stop(&mut self) {
        if let Err(error) = self.gateway.stop().await {
            self.findings.push(error.to_string());
        }
        let head_end = &self.head_end;
        self.gateway.ledger.life_over(|number| head_end.has(number));
    }

    async fn begin(&mut self, round: &Round, random: &mut StdRng) {
        let proxy = &self.proxy;
        match round.fault {
            Fault::Kill | Fault::Torn => {}
            Fault::Cut => proxy.weather(Weather { open: false, ..FAIR }),
            Fault::StallBoth => proxy.weather(Weather { stalled: [true, true], ..FAIR }),
            Fault::StallUp => proxy.weather(Weather { stalled: [true, false], ..FAIR }),
            Fault::StallDown => proxy.weather(Weather { stalled: [false, true], ..FAIR }),
            Fault::Slow => proxy.weather(Weather { rate: Some(random.random_range(4000..16_000)), ..FAIR }),
            Fault::Backlog => {
                self.gateway.ledger.hurry(true);
                proxy.weather(Weather { open: false, ..FAIR });
            }
            Fault::Lost => {
                let lose = if round.heal || random.random() { 1.0 } else { 0.3 };
                proxy.weather(Weather { lose, ..FAIR });
            }
            Fault::Doubled => proxy.weather(Weather { double: 0.5, ..FAIR }),
            Fault::Repeated => {
                // Copies of old PUBACKs arrive while messages with the same ids don't get through.
                proxy.weather(Weather { stalled: [true, false], ..FAIR });
                sleep(Duration::from_millis(random.random_range(20..200))).await;
                proxy.weather(Weather { stalled: [true, false], repeat: true, ..FAIR });
            }
            Fault::BrokerStopped => self.broker.signal("STOP"),
            Fault::BrokerKilled => {
                // What it acknowledges from now on it may forget: that must not reach the gateway.
                proxy.weather(Weather { lose: 1.0, ..FAIR });
                self.broker.save().await;
                proxy.weather(Weather { open: false, ..FAIR });
                self.broker.kill();
            }
            Fault::BrokerEnded => self.broker.stop().await,
            Fault::DiskFull => {
                if random.random() {
                    proxy.weather(Weather { open: false, ..FAIR });
                }
                if self.disk.kind != disk::Kind::Shared {
                    self.disk.fill();
                }
            }
            Fault::Clock => {
                for _ in 0..3 {
                    self.jump(random);
                    sleep(round.hold / 3).await;
                }
            }
        }
    }

    fn jump(&self, random: &mut StdRng) {
        let jumps =
            ["+2h", "-3h", "+400d", "-6y", "+30y", "-1s", "+61s", "@1970-01-01 00:00:07", "@2000-01-01 00:00:00"];
        // Renamed: it is never empty.
        let beside = self.gateway.home.path("clock.new");
        fs::write(&beside, jumps[random.random_range(0..jumps.len())]).unwrap();
        fs::rename(&beside, self.gateway.home.path("clock")).unwrap();
    }

    async fn end(&mut self, round: &Round, random: &mut StdRng) {
        match round.fault {
            Fault::BrokerStopped => self.broker.signal("CONT"),
            Fault::BrokerKilled | Fault::BrokerEnded => self.broker.restart().await,
            Fault::DiskFull => self.disk.free(),
            Fault::Backlog => self.gateway.ledger.hurry(false),
            _ => {}
        }
        let may_drop = matches!(round.fault, Fault::StallBoth | Fault::StallUp | Fault::StallDown | Fault::Repeated)
            || (round.fault == Fault::Lost && !round.heal);
        if may_drop && random.random() {
            // What was held is lost with the connection.
            self.proxy.cut(FAIR).await;
        }
        self.proxy.weather(FAIR);
    }

    fn tear(&self, random: &mut StdRng) {
        let store = self.gateway.home.path("store");
        match self.gateway.maker {
            Maker::Weir => disk::tear_store(&store, self.gateway.beyond, random),
            Maker::Bridge => disk::tear_database(&store, random),
        }
    }

    /// Waits until what was handed over before is delivered.
    async fn heal(&mut self, fault: Fault) {
        let (begun, mark) = (Instant::now(), self.gateway.ledger.made());
        while !self.delivered_below(mark) {
            if begun.elapsed() > HEALING || !self.gateway.runs() {
                let left: Vec<_> = (self.low..mark).filter(|number| !self.head_end.has(*number)).collect();
                let passed = left.iter().filter(|number| self.proxy.passed(**number)).count();
                let finding = format!(
                    "{}: not delivered {} s after it was over: {} telegrams ({passed} passed on to the broker), {:?}; it said:\n{}",
                    kind_of(fault).name,
                    begun.elapsed().as_secs(),
                    left.len(),
                    left.iter().take(10).collect::<Vec<_>>(),
                    self.gateway.last_words()
                );
                eprintln!("{}: {finding}", self.gateway.maker.name());
                self.findings.push(finding);
                // Told once.
                self.low = mark;
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.healed.entry(fault).or_default().push(begun.elapsed());
    }

    /// Weir must deliver each; a bridge that has lost some is asked for what came later only.
    fn delivered_below(&mut self, mark: u64) -> bool {
        if self.gateway.maker == Maker::Bridge {
            return (mark..self.gateway.ledger.made()).any(|number| self.head_end.has(number));
        }
        while self.low < mark && self.head_end.has(self.low) {
            self.low += 1;
        }
        self.low >= mark
    }

    /// Waits until nothing has come for `patience`, or for 3 s once everything has arrived.
    pub async fn quiet(&self, patience: Duration) {
        let mut last = (0, Instant::now());
        loop {
            let heard = self.head_end.heard();
            if heard != last.0 {
                last = (heard, Instant::now());
            }
            let all = self.head_end.arrived() >= self.gateway.ledger.made();
            if last.1.elapsed() > if all { Duration::from_secs(3) } else { patience } {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn last_round(&mut self) {
        let life = Life { tls: false, sync: "200ms", clock: None };
        self.gateway.start(&life).await;
        if let Some(lasting) = self.lasting.take() {
            self.end(&lasting, &mut StdRng::seed_from_u64(0)).await;
        }
        self.ready(&life).await;
        self.gateway.ledger.hold(true);
        self.quiet(Duration::from_secs(40)).await;
        self.stop().await;
        // Repeats of the broker's own come at once, if at all.
        sleep(Duration::from_millis(300)).await;
    }
}
