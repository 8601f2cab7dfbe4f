//! Real damage: bits flip in what was durable. That can't be undone; it must be told.

use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use super::bench::Bench;
use super::disk::{damage, generations};
use super::gateway::{Life, Maker};
use super::proxy::{FAIR, Weather};

/// Telegrams that wait in the gateway when its files are damaged.
const BACKLOG: u64 = 1000;
const LIFE: Life = Life { tls: false, sync: "200ms", clock: None };

/// What the damage did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Damage {
    pub times: usize,
    /// Telegrams that waited, that never came, and that the gateway says it lost.
    pub waited: u64,
    pub lost: u64,
    pub reported: u64,
    /// The gateway did not start any more until its file was taken away.
    pub refused: usize,
}

impl Bench {
    /// Lets a backlog gather, damages its files, and counts what still arrives; `times` over.
    pub async fn damage(&mut self, seed: u64, times: usize) -> Damage {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut total = Damage { times, ..Damage::default() };
        for _ in 0..times {
            self.proxy.weather(Weather { open: false, ..FAIR });
            self.gather().await;
            for path in self.victims() {
                damage(&path, random.random_range(5..=40), random);
            }
            let before = self.reported();
            self.proxy.weather(FAIR);
            self.gateway.start(&LIFE).await;
            let refused = self.refused.len();
            self.ready(&LIFE).await;
            total.refused += self.refused.len() - refused;
            self.quiet(Duration::from_secs(15)).await;
            self.stop().await;
            total.reported += self.reported() - before;
        }
        let (waited, lost) = self.missing_since_the_rounds();
        Damage { waited, lost, ..total }
    }

    async fn gather(&mut self) {
        self.gateway.start(&LIFE).await;
        self.ready(&LIFE).await;
        let ledger = self.gateway.ledger.clone();
        let enough = ledger.made() + BACKLOG;
        ledger.hurry(true);
        ledger.hold(false);
        while ledger.made() < enough {
            sleep(Duration::from_millis(5)).await;
        }
        ledger.hold(true);
        let kept = async {
            while !self.gateway.kept_all() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(120), kept).await.expect("the gateway keeps what is in the line");
        self.gateway.stop().await.unwrap();
        assert_eq!(ledger.unconfirmed(), 0, "the gateway took and kept all");
    }

    /// The files that hold what waits.
    fn victims(&self) -> Vec<PathBuf> {
        let store = self.gateway.home.path("store");
        if self.gateway.maker == Maker::Bridge {
            return vec![store.join("mosquitto.db")];
        }
        let lanes = ["priority", "ordinary"].map(|lane| generations(&store, lane));
        lanes.iter().flatten().map(|generation| generation.join("db")).collect()
    }

    /// Telegrams that the gateway says were damaged; mosquitto has no such number.
    fn reported(&self) -> u64 {
        if self.gateway.maker == Maker::Bridge {
            return 0;
        }
        self.gateway.home.counters()["damaged"].as_u64().unwrap()
    }

    fn missing_since_the_rounds(&self) -> (u64, u64) {
        let (first, made) = (self.fed, self.gateway.ledger.made());
        let missing = (first..made).filter(|number| !self.head_end.has(*number)).count();
        (made - first, missing as u64)
    }
}
