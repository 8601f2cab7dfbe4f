//! Lives of one store, one after the other: recorded, cut, rebuilt, judged, and lived on from one
//! of the cuts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::time::Instant;
use weir::model::Lane;
use weir::os::random::repeatable;
use weir::store::{Status, Store};

use super::book::{self, Book, Counts, Outcome};
use super::child::{Kind, Plan};
use super::disk::{self, Disk, Image, Names};
use super::recording::{self, Act, Recording};
use super::{MARK, PLAN, TEST, run};

/// Lives of a chain, each begun on what a cut of the one before has left.
const BOOTS: u64 = 4;
const CUTS_EACH: usize = 8;
/// Of these, the cuts soon after a start on what an earlier process has left, where there is one.
const CUTS_AT_RESTART: usize = 6;
/// Operations after the start of a process that count as its restart.
const RESTART: usize = 60;
const SLOWEST_CHILD: Duration = Duration::from_secs(120);

/// What happened in all chains.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cuts: u64,
    pub(crate) at_restart: u64,
    pub(crate) owed: u64,
    pub(crate) lost: u64,
    pub(crate) open_failures: u64,
    repeated: u64,
    evicted: u64,
    lives: u64,
    operations: u64,
    pub(crate) faults: Vec<String>,
    /// Chains whose files were kept.
    pub(crate) kept: Vec<PathBuf>,
}

impl Tally {
    pub(crate) fn report(&self, seed: u64) -> String {
        let Self { cuts, at_restart, owed, repeated, evicted, lives, operations, .. } = self;
        format!(
            "seed {seed}: {lives} processes did {operations} operations; {at_restart} of {cuts} cuts within {RESTART} \
             operations of a restart; {owed} durable frames looked for, {evicted} of them given up by a full store, \
             {repeated} acknowledged frames repeated; {} faults",
            self.faults.len()
        )
    }

    /// Whether too few durable frames were looked for to prove anything.
    pub(crate) fn too_small(&self) -> bool {
        self.owed <= 20 * self.cuts
    }

    fn count(&mut self, outcome: Outcome) -> Result<(), String> {
        self.owed += outcome.owed;
        self.lost += outcome.lost;
        self.repeated += outcome.repeated;
        self.evicted += outcome.evicted;
        if outcome.lost > 0 { Err(format!("{} durable frames are lost", outcome.lost)) } else { Ok(()) }
    }
}

/// Where the chains live.
#[derive(Debug)]
pub(crate) struct Site {
    room: PathBuf,
    recorder: PathBuf,
    /// Chains of this kind only.
    kind: Option<Kind>,
    /// Lighter loads: a test among others.
    short: bool,
}

impl Site {
    pub(crate) fn new(room: &Path) -> Self {
        fs::create_dir_all(room).unwrap();
        let kind = std::env::var("WEIR_KIND").ok().map(|name| match name.as_str() {
            "mixed" => Kind::Mixed,
            "small" => Kind::Small,
            "heavy" => Kind::Heavy,
            other => panic!("WEIR_KIND is mixed, small or heavy, not {other}"),
        });
        Self {
            room: room.to_owned(),
            recorder: recording::build(),
            kind,
            short: std::env::var_os("WEIR_CUTS").is_none(),
        }
    }

    /// Lives a chain of lives and judges cuts of each.
    pub(crate) fn chain(&mut self, seed: u64, tally: &mut Tally) {
        let mut random = repeatable(seed);
        let kind = self.kind.unwrap_or([Kind::Mixed, Kind::Mixed, Kind::Small, Kind::Heavy][random.random_range(0..4)]);
        let names = [Names::Ordered, Names::Loose][random.random_range(0..2)];
        let home = self.room.join(format!("chain-{seed}"));
        let mut image = Image::new();
        let mut book = Book::new(kind == Kind::Small);
        let mut faults = Vec::new();
        for boot in 0..BOOTS {
            let place = home.join(boot.to_string());
            let heading = format!("WEIR_SEED={seed} ({kind:?}, {names:?} names), boot {boot}");
            let mut life =
                Life { site: self, place: &place, kind, names, tally, heading: &heading, faults: &mut faults };
            match life.live(boot, &image, &book, &mut random) {
                Some(next) => (image, book) = next,
                None => break,
            }
            if faults.is_empty() {
                fs::remove_dir_all(&place).unwrap();
            }
        }
        if faults.is_empty() {
            let _ = fs::remove_dir_all(&home);
        } else {
            faults.iter().for_each(|fault| println!("{fault}"));
            tally.faults.append(&mut faults);
            tally.kept.push(home);
        }
    }
}

/// One boot of a chain: its processes, recorded together, and the cuts of the recording.
struct Life<'a> {
    site: &'a Site,
    place: &'a Path,
    kind: Kind,
    names: Names,
    tally: &'a mut Tally,
    heading: &'a str,
    faults: &'a mut Vec<String>,
}

impl Life<'_> {
    fn fault(&mut self, what: &str) {
        self.faults.push(format!("{}: {what}; kept in {}", self.heading, self.place.display()));
    }

    /// Records the boot, judges cuts of it, and returns what the next one starts with.
    fn live(&mut self, boot: u64, image: &Image, book: &Book, random: &mut StdRng) -> Option<(Image, Book)> {
        let recording = match self.record(boot, image, random) {
            Ok(recording) => recording,
            Err(error) => {
                self.fault(&error);
                return None;
            }
        };
        let cuts = self.cuts(boot, &recording, random);
        let goes_on = random.random_range(0..cuts.len());
        let mut disk = Disk::new(image, self.names);
        let mut book = book.clone();
        let mut next = None;
        let mut done = 0;
        for (i, cut) in cuts.iter().enumerate() {
            for op in &recording.ops[done..*cut] {
                disk.follow(op, &recording);
                if let Err(error) = self.listen(&op.act, &mut book) {
                    self.fault(&format!("before operation {cut}: {error}"));
                    return None;
                }
            }
            done = *cut;
            self.tally.cuts += 1;
            let left = disk.cut(random);
            let fresh = self.place.join(format!("cut-{cut}-{i}"));
            if let Err(error) = self.judge(&left, book.clone(), &fresh, random.next_u64()) {
                self.fault(&format!("cut at operation {cut} of {}: {error}", recording.ops.len()));
            } else {
                fs::remove_dir_all(&fresh).unwrap();
            }
            if i == goes_on {
                next = Some((left, book.clone()));
            }
        }
        next
    }

    fn listen(&mut self, act: &Act, book: &mut Book) -> Result<(), String> {
        let Act::Mark { text } = act else { return Ok(()) };
        book.read(text)?.map_or(Ok(()), |outcome| self.tally.count(outcome))
    }

    /// Runs the processes of a boot and checks that the recording tells all they did.
    fn record(&mut self, boot: u64, image: &Image, random: &mut StdRng) -> Result<Recording, String> {
        let (root, log, marker) = (self.place.join("disk"), self.place.join("log"), self.place.join("mark"));
        fs::create_dir_all(self.place).unwrap();
        disk::put(image, &root);
        File::create(&marker).unwrap();
        let processes = random.random_range(1..4);
        for process in 0..processes {
            if process > 0 {
                self.evict_cache(image, &root, &Recording::read(&log));
            }
            let steps = match self.kind {
                Kind::Heavy => random.random_range(4..if self.site.short { 10 } else { 40 }),
                _ => random.random_range(10..70),
            };
            let life = boot * 8 + process + 1;
            let plan = Plan { seed: random.next_u64(), life, kind: self.kind, steps, path: root.join("store") };
            let errors = File::create(self.place.join(format!("stderr-{process}"))).unwrap();
            let child = Command::new(std::env::current_exe().unwrap())
                .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
                .env(PLAN, plan.text())
                .env("LD_PRELOAD", &self.site.recorder)
                .env("POWERCUT_ROOT", &root)
                .env("POWERCUT_LOG", &log)
                .env(MARK, &marker)
                .env("POWERCUT_DICE", (plan.seed >> 8).to_string())
                .stdout(Stdio::null())
                .stderr(errors)
                .spawn()
                .unwrap();
            wait(child)?;
            self.tally.lives += 1;
        }
        let recording = Recording::read(&log);
        self.tally.operations += recording.ops.iter().filter(|op| op.touches()).count() as u64;
        let mut disk = Disk::new(image, self.names);
        recording.ops.iter().for_each(|op| disk.follow(op, &recording));
        let (now, real) = (disk.now(), disk::get(&root));
        if now != real {
            let differs = now.keys().chain(real.keys()).find(|path| now.get(*path) != real.get(*path));
            return Err(format!("the recording misses something of what was done to {differs:?}"));
        }
        Ok(recording)
    }

    /// Takes from the files what a failed sync left in the page cache only, as the disk model
    /// will when it meets the next process.
    fn evict_cache(&self, image: &Image, root: &Path, recording: &Recording) {
        if !recording.ops.iter().any(|op| op.act == Act::Sync { worked: false }) {
            return;
        }
        let mut disk = Disk::new(image, self.names);
        recording.ops.iter().for_each(|op| disk.follow(op, recording));
        let before = disk.now();
        disk.begin();
        for (path, content) in disk.now() {
            if let (Some(bytes), true) = (&content, before.get(&path) != Some(&content)) {
                fs::write(root.join(path), bytes).unwrap();
            }
        }
    }

    /// Where to cut: most soon after a start on what an earlier process has left, some where what
    /// was synced is written over. How many of each is no matter of luck: only the places are.
    fn cuts(&mut self, boot: u64, recording: &Recording, random: &mut StdRng) -> Vec<usize> {
        let starts = recording.starts();
        let restarts = &starts[usize::from(boot == 0 && !starts.is_empty())..];
        let restarts: Vec<Vec<usize>> = restarts
            .iter()
            .map(|start| (*start..recording.ops.len()).filter(|i| recording.ops[*i].touches()).take(RESTART).collect())
            .filter(|first: &Vec<usize>| !first.is_empty())
            .collect();
        let again = written_again(recording);
        let at_restart = if restarts.is_empty() { 0 } else { CUTS_AT_RESTART };
        let at_again = (CUTS_EACH - at_restart) / 2;
        self.tally.at_restart += at_restart as u64;
        let mut cuts = Vec::new();
        for i in 0..CUTS_EACH {
            let from: &[usize] = if i < at_restart {
                &restarts[random.random_range(0..restarts.len())]
            } else if i < at_restart + at_again {
                &again
            } else {
                &[]
            };
            cuts.push(match from.len() {
                0 => random.random_range(0..=recording.ops.len()),
                n => from[random.random_range(0..n)] + 1,
            });
        }
        cuts.sort_unstable();
        cuts
    }

    /// Starts the store on what a cut has left: conservation, then liveness.
    fn judge(&mut self, left: &Image, mut book: Book, root: &Path, seed: u64) -> Result<(), String> {
        disk::put(left, root);
        // Steady settings: what follows is driven by hand.
        let plan = Plan { seed: 2, life: 0, kind: self.kind, steps: 0, path: root.join("store") };
        run(async {
            let store = match Store::open(&plan.settings()) {
                Ok(store) => store,
                Err(error) => {
                    self.tally.open_failures += 1;
                    return Err(format!("it does not open: {error}"));
                }
            };
            let judging = async {
                let found = book::listed(&store).await?;
                let counts = Counts::from(&*store.status().borrow());
                self.tally.count(book.restart(&found, counts)?)?;
                goes_on_working(&store, &book, seed).await?;
                store.close().await.map_err(|e| format!("it does not close: {e}"))?;
                let store = Store::open(&plan.settings()).map_err(|e| format!("it does not open again: {e}"))?;
                let status = store.status().borrow().clone();
                if status.cached > 0 { Err(format!("drained frames come back: {status:?}")) } else { Ok(()) }
            };
            tokio::time::timeout(Duration::from_secs(60), judging).await.map_err(|_| "the store hangs".to_owned())?
        })
    }
}

/// The operations that write over what a sync had saved, and the few behind them.
fn written_again(recording: &Recording) -> Vec<usize> {
    let mut sizes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut again = Vec::new();
    for (i, op) in recording.ops.iter().enumerate() {
        let (saved, size) = sizes.entry(&op.path).or_default();
        match &op.act {
            Act::Create => (*saved, *size) = (0, 0),
            Act::Write { offset, data } => {
                if *offset < *saved && op.path.ends_with("/db") {
                    again.extend(i..recording.ops.len().min(i + 3));
                }
                *size = (*size).max(offset + data.len() as u64);
            }
            Act::Sync { worked: true } => *saved = *size,
            _ => {}
        }
    }
    again
}

fn wait(mut child: Child) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) if matches!(status.code(), Some(0 | 9)) => return Ok(()),
            Some(status) => return Err(format!("a child ended with {status}; see stderr-*")),
            None if begin.elapsed() > SLOWEST_CHILD => {
                child.kill().unwrap();
                child.wait().unwrap();
                return Err("a child hangs".into());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Appends, syncs and drains everything: after the faults the store works as on its first day.
async fn goes_on_working(store: &Store, book: &Book, seed: u64) -> Result<(), String> {
    let mut random = repeatable(seed);
    let tags: Vec<_> = (0..30u64)
        .map(|i| {
            let lane = if i % 5 == 0 { Lane::Priority } else { Lane::Ordinary };
            let size = if i % 7 == 0 { random.random_range(5_000..40_000) } else { random.random_range(10..900) };
            book::tag((1 << 40) + i, lane, size)
        })
        .collect();
    let numbers = store.append_all(tags.iter().map(|t| book::frame(*t))).await;
    for number in numbers {
        let number = number.map_err(|e| format!("append: {e}"))?;
        if number <= book.highest() {
            return Err(format!("number {number} is given twice"));
        }
    }
    store.sync().await.map_err(|e| format!("sync: {e}"))?;
    let expected = store.status().borrow().cached;
    let mut drained = Vec::new();
    for lane in [Lane::Priority, Lane::Ordinary] {
        loop {
            let some = store.peek(lane, 0, 200).await.map_err(|e| format!("peek: {e}"))?;
            if some.is_empty() {
                break;
            }
            let tags = some.iter().map(|s| book::tag_of(&s.frame).ok_or(format!("frame {} has changed", s.sequence)));
            drained.extend(tags.collect::<Result<Vec<_>, _>>()?);
            let numbers = some.iter().map(|s| s.sequence).collect();
            store.commit(lane, numbers).await.map_err(|e| format!("commit: {e}"))?;
        }
    }
    store.sync().await.map_err(|e| format!("sync after the drain: {e}"))?;
    let status: Status = store.status().borrow().clone();
    if let Some(missing) = tags.iter().find(|t| !drained.contains(t)) {
        return Err(format!("an appended frame does not come: {missing}"));
    }
    let sum = status.acknowledged + status.evicted + status.cached;
    if status.cached > 0 || drained.len() as u64 != expected || status.received != sum || status.damaged > 0 {
        return Err(format!("{expected} frames waited, {} were drained: {status:?}", drained.len()));
    }
    Ok(())
}
