//! What the uplink's tests share beside the peers: a slow link, an uplink with its store.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weir::model::{Body, Frame, Lane, Rssi, Stamp, Telegram, TelegramKind, Timestamp};
use weir::os::clock::Clock;
use weir::os::random::repeatable;
use weir::setting::Identity;
use weir::setting::{Node, Problems, Setting};
use weir::store::Store;
use weir::uplink::{Brokers, Health, Pace, Uplink, UplinkError, UplinkSettings};

pub use super::peers::broker::{Heard, LIMIT, Mosquitto, Relay, Subscriber};
pub use super::peers::free_port;

pub fn settings<T: Setting>(text: &str) -> T {
    let document = toml::de::DeTable::parse(text).unwrap();
    let value = toml::de::DeValue::Table(document.into_inner());
    let mut problems = Problems::new();
    let read = T::read(&Node::new(&value, 0..0, ""), &mut problems);
    read.unwrap_or_else(|| panic!("{:?}", problems.located(text)))
}

/// A relay that passes on `rate` bytes a second towards the broker, with a deep queue before it,
/// like a modem on a bad day.
pub async fn slow_link(to: u16, rate: u64) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let (mut from_agent, mut to_agent) = near.into_split();
            let (mut from_broker, mut to_broker) = far.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_broker, &mut to_agent).await });
            tokio::spawn(async move {
                let mut chunk = vec![0; usize::try_from(rate / 50).unwrap()];
                loop {
                    match from_agent.read(&mut chunk).await {
                        Ok(n) if n > 0 && to_broker.write_all(&chunk[..n]).await.is_ok() => {}
                        _ => return,
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
    });
    port
}

/// The brokers of a text: the keys of one, or several `[[broker]]`.
fn brokers(text: &str) -> Brokers {
    if !text.contains("[[broker]]") {
        return settings(text);
    }
    let document = toml::de::DeTable::parse(text).unwrap();
    let list = document.get_ref().get("broker").unwrap();
    let mut problems = Problems::new();
    let read = Brokers::read(&Node::new(list.get_ref(), 0..0, "broker"), &mut problems);
    read.unwrap_or_else(|| panic!("{:?}", problems.located(text)))
}

/// An uplink at work on a store of its own.
pub struct Agent {
    pub store: Store,
    /// Of the first broker.
    pub health: watch::Receiver<Health>,
    pub healths: Vec<watch::Receiver<Health>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), UplinkError>>,
}

pub const TOPICS: &str = "data_topic = \"data/{id}\"\nevent_topic = \"event/{id}\"\nstatus_topic = \"status/{id}\"\nwill_topic = \"will/{id}\"\n";
const QUICK: &str = "backoff = { first = \"100ms\", max = \"1s\", jitter = \"10ms\" }\n";

pub fn new_store() -> Store {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    Store::open(&settings(&format!("path = \"{}\"", directory.join("store").display()))).unwrap()
}

impl Agent {
    pub fn start(broker: &str, uplink: &str, pace: Pace, store: Store) -> Self {
        Self::start_with(broker, uplink, store, |uplink| uplink.with_pace(pace))
    }

    pub fn start_with(broker: &str, uplink: &str, store: Store, with: impl FnOnce(Uplink) -> Uplink) -> Self {
        Self::start_by(Clock::system(), broker, uplink, store, with)
    }

    /// The same, going by this clock.
    pub fn start_by(
        clock: Clock,
        broker: &str,
        uplink: &str,
        store: Store,
        with: impl FnOnce(Uplink) -> Uplink,
    ) -> Self {
        let backoff = if uplink.contains("backoff") { "" } else { QUICK };
        let (brokers, uplink) = (brokers(broker), settings::<UplinkSettings>(&format!("{uplink}{backoff}")));
        let identity = Identity { id: "gw1".into(), imei: None };
        let (uplink, healths) = Uplink::new(&brokers, &uplink, &identity, store.clone(), clock, repeatable(5)).unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(with(uplink).run(stopped));
        Self { store, health: healths[0].clone(), healths, stop, task }
    }

    /// Waits for a condition of one broker's health.
    pub async fn until_of(&mut self, broker: usize, what: &str, condition: impl FnMut(&Health) -> bool) -> Health {
        let health = &mut self.healths[broker];
        let waited = timeout(LIMIT, health.wait_for(condition)).await.map(|h| h.unwrap().clone());
        waited.unwrap_or_else(|_| panic!("never {what}: {:?}", *self.healths[broker].borrow()))
    }

    pub async fn until(&mut self, what: &str, condition: impl FnMut(&Health) -> bool) -> Health {
        let waited = timeout(LIMIT, self.health.wait_for(condition)).await.map(|h| h.unwrap().clone());
        waited.unwrap_or_else(|_| panic!("never {what}: {:?}", *self.health.borrow()))
    }

    pub async fn until_empty(&mut self) {
        let mut status = self.store.status();
        let waited = timeout(LIMIT, status.wait_for(|s| s.cached == 0)).await;
        assert!(waited.is_ok(), "{:?} {:?}", self.store.status().borrow(), self.health.borrow());
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        timeout(LIMIT, self.task).await.expect("the uplink ends").unwrap().unwrap();
    }
}

/// Appends telegrams with the given payload sizes; every `event`th is a priority frame.
pub async fn append(store: &Store, count: usize, size: usize, event: usize) {
    for n in 0..count {
        let lane = if event > 0 && n % event == 0 { Lane::Priority } else { Lane::Ordinary };
        let bytes = (0..size).map(|i| (i + n) as u8).collect();
        let body = Body::Telegram(Telegram {
            kind: TelegramKind::WirelessMbus,
            bytes,
            rssi: Some(Rssi::Dbm(-87)),
            corrected_bits: 0,
        });
        let time = Stamp::synced(Timestamp::from_millis(1_636_840_441_000));
        store.append(Frame { time, lane, body, origin: None }).await.unwrap();
    }
}
