//! A gateway whose clock is wrong, then right, then set about: the real binary under libfaketime.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir::model::Timestamp;
use weir::os::clock::{self, BUILT};
use weir::sim::radio_replay::Lines;

use super::peers;
use super::peers::site::Site;
use super::rig::{Agent, Consumer, Feed, Home, Mosquitto, Subscriber, until};

const PACE: Duration = Duration::from_millis(50);
/// A timestamp has whole seconds, and a telegram takes a moment from the feed to its stamp.
const NEAR: Duration = Duration::from_secs(5);
const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

/// The wall clock of the agents of one home, and the file that says that it is right.
struct FakeClock {
    offset: PathBuf,
    trust: PathBuf,
}

impl FakeClock {
    /// Shows 1970, and nobody says that it is right.
    fn new(home: &Home) -> Self {
        let clock = Self { offset: home.path("offset"), trust: home.path("trust") };
        clock.set_to_1970();
        clock
    }

    /// Lets the clock differ from the true time.
    fn differ(&self, seconds: i64) {
        let beside = self.offset.with_extension("new");
        fs::write(&beside, format!("{seconds:+}\n")).unwrap();
        fs::rename(&beside, &self.offset).unwrap();
    }

    fn set_to_1970(&self) {
        self.differ(-clock::now().as_millis() / 1000);
    }

    fn trust(&self, trusted: bool) {
        if trusted {
            fs::write(&self.trust, "").unwrap();
        } else {
            let _ = fs::remove_file(&self.trust);
        }
    }

    fn settings(&self, patience: &str) -> String {
        format!("[clock]\ntrust = \"{}\"\npatience = \"{patience}\"\n", self.trust.display())
    }

    /// Only the wall clock is faked. The agent asks the kernel for uptimes without libc.
    fn run(&self, home: &Home) -> Agent {
        let environment = [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_NO_CACHE", "1".into()),
        ];
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        home.run_with("info", &environment)
    }
}

/// Debian's package faketime.
fn library() -> String {
    let places = fs::read_dir("/usr/lib").unwrap().map(|e| e.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let found = places.into_iter().find(|path| path.exists());
    found.expect("libfaketime is needed: run tests/run, which installs it").display().to_string()
}

fn word(frame: &serde_json::Value) -> &str {
    frame["meta"]["clock"].as_str().unwrap()
}

/// How many frames there are of a quality.
fn of(consumer: &Consumer, quality: &str) -> usize {
    consumer.frames.values().filter(|f| word(&f.json) == quality).count()
}

/// Takes frames until `count` more of a quality came.
async fn more(consumer: &mut Consumer, subscriber: &mut Subscriber, quality: &str, count: usize) {
    let before = of(consumer, quality);
    consumer.listen(subscriber, |c| of(c, quality) >= before + count).await;
}

/// Every telegram that arrived has the time at which it was fed, unless it is unsynced; and none
/// is from before weir was built.
fn times_are_right(consumer: &Consumer, feed: &Feed) {
    let fed = feed.fed();
    for frame in consumer.frames.values() {
        let time = Timestamp::parse(frame.json["timestamp"].as_str().unwrap()).unwrap();
        assert!(time >= BUILT, "{}", frame.json);
        let fed = fed.iter().find(|f| f.bytes == frame.bytes()).unwrap().time;
        let off = time.since(fed).max(fed.since(time));
        assert!(word(&frame.json) == "unsynced" || off <= NEAR, "fed at {fed}: {}", frame.json);
    }
}

async fn tls_broker(site: &Site, directory: &Path) -> (Mosquitto, u16) {
    let port = peers::free_port();
    let server = site.server(&["127.0.0.1"], None);
    let extra = format!("allow_anonymous true\nlistener {port} 127.0.0.1\n{server}");
    (Mosquitto::start(directory, &extra).await, port)
}

#[tokio::test]
async fn frames_of_1970_are_mended_when_the_clock_is_set_and_no_jump_afterwards_is_published() {
    let (home, site) = (Home::new(), Site::new());
    let fake = FakeClock::new(&home);
    // Its certificate is not valid in 1970.
    let (broker, tls_port) = tls_broker(&site, site.directory.path()).await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let feed = Feed::start(Lines::OpenlinkIq, PACE, 100_000).await;
    home.configure(
        &site.broker_settings(tls_port),
        &format!("{}{}", fake.settings("1h"), feed.radio("street", "openlinkiq")),
    );
    let mut agent = fake.run(&home);
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| c.frames.len() >= 4).await;
    let hasty = |c: &Consumer| c.frames.values().all(|f| f.topic == "event/gw1" && word(&f.json) == "unsynced");
    assert!(hasty(&consumer), "only priority frames go out before the clock is set");

    fake.differ(0);
    fake.trust(true);
    more(&mut consumer, &mut subscriber, "synced", 20).await;
    assert!(of(&consumer, "corrected") >= 20, "{}", of(&consumer, "corrected"));
    times_are_right(&consumer, &feed);

    // Somebody sets the clock: nobody says that it is right while it is not.
    for wrong in [HOUR, -HOUR, 10 * YEAR, -10 * YEAR] {
        fake.trust(false);
        fake.differ(wrong);
        more(&mut consumer, &mut subscriber, "corrected", 10).await;
        fake.differ(0);
        fake.trust(true);
        more(&mut consumer, &mut subscriber, "synced", 10).await;
    }
    // To 1970 and back although it is said to be right.
    fake.set_to_1970();
    more(&mut consumer, &mut subscriber, "corrected", 10).await;
    fake.differ(0);
    more(&mut consumer, &mut subscriber, "synced", 10).await;

    consumer.listen_to_the_end(&mut subscriber, &broker).await;
    times_are_right(&consumer, &feed);
    assert_eq!(consumer.repeats, 0, "one session all along");
    assert_eq!(agent.said(&["connected to the broker"]).len(), 1);
    agent.stop().await;
    let told = agent.said(&["the wall clock was set"]);
    assert!((1..=12).contains(&told.len()), "{told:?}");
    let numbers: Vec<_> = consumer.frames.keys().copied().collect();
    assert_eq!(numbers, (1..=consumer.frames.len() as u64).collect::<Vec<_>>(), "none is missing");
}

#[tokio::test]
async fn what_was_cached_before_the_clock_was_set_is_mended_by_the_next_run() {
    let home = Home::new();
    let fake = FakeClock::new(&home);
    let port = peers::free_port();
    let feed = Feed::start(Lines::HexLines, PACE, 100_000).await;
    let tables = format!("{}{}", fake.settings("1h"), feed.radio("roof", "hex-lines"));
    home.configure(&format!("url = \"tcp://127.0.0.1:{port}\""), &tables);
    let mut agent = fake.run(&home);
    until("30 telegrams in 1970", || feed.fed().len() >= 30).await;
    fake.differ(0);
    fake.trust(true);
    let book = home.path("store").join(clock::BOOK);
    until("the clock book is written", || book.exists()).await;
    let until_here = feed.fed().len();
    until("30 more", || feed.fed().len() >= until_here + 30).await;
    agent.kill().await;

    // As after a power cut: 1970 again, in the same boot of this machine.
    fake.trust(false);
    fake.set_to_1970();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &tables);
    let mut agent = fake.run(&home);
    let mut consumer = Consumer::default();
    let old = |c: &Consumer| c.telegrams().len() >= until_here + 40;
    consumer.listen(&mut subscriber, old).await;
    agent.stop().await;
    times_are_right(&consumer, &feed);
    assert!(of(&consumer, "corrected") >= 30 && of(&consumer, "synced") > 0);
    assert_eq!(of(&consumer, "unsynced"), 0, "the book knows this boot");
}

#[tokio::test]
async fn a_clock_that_is_never_set_holds_frames_up_for_its_patience_only() {
    let home = Home::new();
    let fake = FakeClock::new(&home);
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let feed = Feed::start(Lines::HexLines, PACE, 100_000).await;
    let tables = format!("{}{}", fake.settings("3s"), feed.radio("roof", "hex-lines"));
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &tables);
    let mut agent = fake.run(&home);
    agent.until_said(&["connected to the broker"]).await;
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| c.frames.len() >= 20).await;
    let first = consumer.frames.values().next().unwrap().bytes();
    let fed = feed.fed();
    let at = |bytes: &[u8]| fed.iter().position(|f| f.bytes == bytes).unwrap();
    // What came first waited; those behind it came meanwhile, so they went out together.
    assert_eq!(at(&first), 0);
    times_are_right(&consumer, &feed);
    assert_eq!(of(&consumer, "unsynced"), consumer.frames.len());
    let order: Vec<_> = consumer.frames.values().map(|f| f.json["timestamp"].as_str().unwrap().to_owned()).collect();
    assert!(order.is_sorted(), "{order:?}");
    agent.stop().await;
}
