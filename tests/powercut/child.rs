//! The process under test: the real store, driven by a seed. What it does and what the store
//! promises goes as marks into the same log as its file operations.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use weir::model::{Lane, Sequence};
use weir::os::random::repeatable;
use weir::setting::Size;
use weir::store::{Store, StoreSettings, SyncPolicy};

use super::book::{self, Counts};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// What kind of store a chain of lives has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Many frames of telegram size and some of tens of kilobytes.
    Mixed,
    /// A store of 4 MiB that has to give frames up.
    Small,
    /// Megabytes between two syncs: whole generations fill.
    Heavy,
}

/// What one process does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Counts the processes of a chain: no two use the same tags.
    pub(crate) life: u64,
    pub(crate) kind: Kind,
    pub(crate) steps: u32,
    pub(crate) path: PathBuf,
}

impl Plan {
    /// Of the environment variable the parent sets.
    pub(crate) fn text(&self) -> String {
        format!("{} {} {} {} {}", self.seed, self.life, self.kind as u8, self.steps, self.path.display())
    }

    pub(crate) fn parse(text: &str) -> Self {
        let parts: Vec<_> = text.splitn(5, ' ').collect();
        let number = |i: usize| parts[i].parse::<u64>().unwrap();
        let kind = [Kind::Mixed, Kind::Small, Kind::Heavy][number(2) as usize];
        let steps = number(3) as u32;
        Self { seed: number(0), life: number(1), kind, steps, path: parts[4].into() }
    }

    pub(crate) fn settings(&self) -> StoreSettings {
        let max_size = Size::from_bytes(if self.kind == Kind::Small { 4 << 20 } else { 256 << 20 });
        let tick = Duration::from_millis([2, 20, 3_600_000, 3_600_000][(self.seed % 4) as usize]);
        let sync = if self.seed.is_multiple_of(13) { SyncPolicy::Always } else { SyncPolicy::Every(tick) };
        StoreSettings { path: self.path.clone(), max_size, sync }
    }
}

struct Walk {
    plan: Plan,
    store: Store,
    marker: File,
    random: StdRng,
    count: u64,
    /// The disk fails for so many more steps.
    failing: u32,
    /// Bytes appended since the disk fails, or since the last sync.
    unsynced: usize,
}

fn mark(mut marker: &File, text: &str) {
    assert_eq!(marker.write(text.as_bytes()).unwrap(), text.len());
}

async fn soon<T>(marker: &File, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), work).await {
        Ok(done) => done,
        Err(_) => {
            mark(marker, &format!("bad {what} hangs"));
            std::process::exit(1);
        }
    }
}

/// Runs the plan; it ends by a clean close or in the middle of something.
pub(crate) async fn run(plan: Plan, marker: PathBuf) {
    let marker = File::options().write(true).open(marker).unwrap();
    let mut random = repeatable(plan.seed);
    if random.random_range(0..10) == 0 {
        // It need not open on a disk that fails. The next process finds the disk mended and must.
        mark(&marker, &format!("!fault {} {ENOSPC} {}", random.random_range(1..8), random.random_range(1..4)));
        drop(Store::open(&plan.settings()));
        return mark(&marker, "!crash 0");
    }
    let store = match Store::open(&plan.settings()) {
        Ok(store) => store,
        Err(error) => return mark(&marker, &format!("bad it does not open: {error}")),
    };
    mark(&marker, &format!("open {}", Counts::from(&*store.status().borrow())));
    match book::listed(&store).await {
        Err(error) => return mark(&marker, &format!("bad {error}")),
        Ok(found) => {
            for some in found.chunks(500) {
                let words: Vec<_> = some.iter().map(|(s, t)| format!("{s}:{t}")).collect();
                mark(&marker, &format!("found {}", words.join(" ")));
            }
        }
    }
    mark(&marker, "ready");
    let count = plan.life << 20;
    let mut walk = Walk { plan, store, marker, random, count, failing: 0, unsynced: 0 };
    for _ in 0..walk.plan.steps {
        walk.step().await;
        walk.tell();
    }
    walk.end().await;
}

impl Walk {
    fn tell(&self) {
        mark(&self.marker, &format!("now {}", Counts::from(&*self.store.status().borrow())));
    }

    fn size(&mut self) -> usize {
        let random = &mut self.random;
        match random.random_range(0..100) {
            0..70 => random.random_range(10..400),
            70..80 => random.random_range(3_900..4_100),
            80..92 => random.random_range(6_900..7_100),
            92..97 => random.random_range(7_000..15_000),
            _ => random.random_range(40_000..64_000),
        }
    }

    async fn append(&mut self) {
        let bound = match self.plan.kind {
            _ if self.failing > 0 => 60_000,
            Kind::Mixed => self.random.random_range(100..40_000),
            Kind::Small => self.random.random_range(100..150_000),
            Kind::Heavy => self.random.random_range(10_000..900_000),
        };
        let mut tags = Vec::new();
        let mut bytes = 0;
        // Beyond what memory takes `append` would wait for the disk.
        while bytes < bound && (self.failing == 0 || self.unsynced + bytes < 900_000) && tags.len() < 900 {
            let size = self.size();
            let lane = if self.random.random_range(0..12) == 0 { Lane::Priority } else { Lane::Ordinary };
            self.count += 1;
            tags.push(book::tag(self.count, lane, size));
            bytes += size + 100;
        }
        if tags.is_empty() {
            return;
        }
        self.unsynced += bytes;
        let words: Vec<_> = tags.iter().map(u64::to_string).collect();
        mark(&self.marker, &format!("intend {}", words.join(" ")));
        let frames: Vec<_> = tags.iter().map(|t| book::frame(*t)).collect();
        let numbers = soon(&self.marker, "append", self.store.append_all(frames)).await;
        let mut given: Vec<(Sequence, u64)> = Vec::new();
        for (number, tag) in numbers.into_iter().zip(tags) {
            match number {
                Ok(number) => given.push((number, tag)),
                Err(error) => mark(&self.marker, &format!("bad append: {error}")),
            }
        }
        given.sort_unstable();
        let words: Vec<_> = given.iter().map(|(s, t)| format!("{s}:{t}")).collect();
        mark(&self.marker, &format!("given {}", words.join(" ")));
    }

    async fn commit(&mut self) {
        let lane = if self.random.random_range(0..3) == 0 { Lane::Priority } else { Lane::Ordinary };
        let limit = [5, 40, 300][self.random.random_range(0..3)];
        let waiting = match soon(&self.marker, "peek", self.store.peek(lane, 0, limit)).await {
            Ok(waiting) => waiting,
            Err(error) => return mark(&self.marker, &format!("bad peek: {error}")),
        };
        if waiting.iter().any(|s| book::tag_of(&s.frame).is_none()) {
            return mark(&self.marker, "bad a frame has changed");
        }
        let mut chosen: Vec<_> = waiting.iter().map(|s| s.sequence).collect();
        match self.random.random_range(0..4) {
            0 | 1 => {}
            2 => chosen.reverse(),
            _ => {
                let random = &mut self.random;
                chosen.retain(|_| random.random_range(0..4) > 0);
            }
        }
        if chosen.is_empty() {
            return;
        }
        let words: Vec<_> = chosen.iter().map(u64::to_string).collect();
        mark(&self.marker, &format!("commit {}", words.join(" ")));
        if let Err(error) = soon(&self.marker, "commit", self.store.commit(lane, chosen)).await {
            mark(&self.marker, &format!("bad commit: {error}"));
        }
    }

    async fn sync(&mut self) {
        let outcome = soon(&self.marker, "sync", self.store.sync()).await;
        match outcome {
            Ok(()) => self.unsynced = 0,
            Err(error) if self.failing == 0 => mark(&self.marker, &format!("bad sync: {error}")),
            Err(_) => {}
        }
    }

    async fn step(&mut self) {
        if self.failing > 0 {
            self.failing -= 1;
            if self.failing == 0 {
                mark(&self.marker, "!fault 0 0 1");
                // The faults have stopped: everything works from here on.
                return self.sync().await;
            }
        }
        let always = self.plan.settings().sync == SyncPolicy::Always;
        match self.random.random_range(0..100) {
            0..45 if self.failing == 0 || !always => self.append().await,
            45..70 => self.commit().await,
            70..90 => self.sync().await,
            90..94 if self.failing == 0 => {
                if self.unsynced > 500_000 {
                    self.sync().await;
                }
                let mask = [1, 2, 4, 7, 3][self.random.random_range(0..5)];
                let errno = [ENOSPC, EIO, EROFS][self.random.random_range(0..3)];
                let one_in = [1, 1, 2, 7][self.random.random_range(0..4)];
                mark(&self.marker, &format!("!fault {mask} {errno} {one_in}"));
                self.failing = self.random.random_range(2..9);
            }
            94 => mark(&self.marker, &format!("!crash {}", self.random.random_range(1..60))),
            _ => {}
        }
    }

    async fn end(mut self) {
        match self.random.random_range(0..3) {
            0 => mark(&self.marker, "!crash 0"),
            1 => {
                let after = self.random.random_range(1..40);
                mark(&self.marker, &format!("!crash {after}"));
            }
            _ => {}
        }
        mark(&self.marker, "!fault 0 0 1");
        let (marker, store) = (self.marker, self.store);
        if let Err(error) = soon(&marker, "close", store.close()).await {
            mark(&marker, &format!("bad close: {error}"));
        }
        mark(&marker, "note closed");
    }
}
