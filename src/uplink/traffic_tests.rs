use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::setting::{Node, Problems, Setting};

fn settings(text: &str) -> BudgetSettings {
    let document = toml::de::DeTable::parse(text).unwrap();
    let value = toml::de::DeValue::Table(document.into_inner());
    BudgetSettings::read(&Node::new(&value, 0..0, ""), &mut Problems::new()).unwrap()
}

/// A clock that the test sets and that runs with tokio's.
#[derive(Clone)]
struct Watch {
    begun: Instant,
    offset: Arc<AtomicI64>,
}

impl Watch {
    fn at(text: &str) -> Self {
        let watch = Self { begun: Instant::now(), offset: Arc::default() };
        watch.set(text);
        watch
    }

    fn set(&self, text: &str) {
        let passed = i64::try_from(self.begun.elapsed().as_millis()).unwrap();
        self.offset.store(Timestamp::parse(text).unwrap().as_millis() - passed, Ordering::SeqCst);
    }

    fn open(&self, directory: &Path, text: &str) -> Traffic {
        let watch = self.clone();
        let now = move || Timestamp::from_millis(watch.offset.load(Ordering::SeqCst)).plus(watch.begun.elapsed());
        Traffic::open(directory, &settings(text), now)
    }
}

struct Running {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<(), TrafficError>>,
}

impl Running {
    fn start(traffic: &Traffic) -> Self {
        let (stop, stopping) = watch::channel(false);
        Self { stop, task: tokio::spawn(traffic.clone().run(stopping)) }
    }

    async fn stop(self, traffic: Traffic) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
        traffic.close();
    }
}

fn on_disk(directory: &Path) -> u64 {
    inspect(directory, &settings(""), Timestamp::default()).map_or(0, |a| a.total.sent)
}

fn spend(traffic: &Traffic, sent: u64) {
    traffic.0.tally.spend(sent);
}

/// Lets the blocking write end: virtual time stands still for it.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn counters_survive_a_restart_and_a_crash_loses_ten_minutes_at_most() {
    let home = tempfile::tempdir().unwrap();
    let clock = Watch::at("2026-11-22T10:00:00Z");
    let traffic = clock.open(home.path(), "");
    assert!(matches!(inspect(home.path(), &settings(""), Timestamp::default()), Err(TrafficError::Missing { .. })));
    let running = Running::start(&traffic);
    spend(&traffic, 1000);
    sleep(Duration::from_mins(9)).await;
    assert_eq!((traffic.account().today.sent, on_disk(home.path())), (1000, 0));
    sleep(Duration::from_secs(61)).await;
    until("saved", || on_disk(home.path()) == 1000).await;
    spend(&traffic, 5);
    running.stop(traffic).await;
    assert_eq!(on_disk(home.path()), 1005);

    // A crash: nothing is closed.
    let traffic = clock.open(home.path(), "");
    let running = Running::start(&traffic);
    spend(&traffic, 200);
    sleep(Duration::from_secs(601)).await;
    until("saved", || on_disk(home.path()) == 1205).await;
    spend(&traffic, 3000);
    sleep(Duration::from_mins(9)).await;
    running.task.abort();
    drop(traffic);
    let traffic = clock.open(home.path(), "");
    assert_eq!((traffic.account().today.sent, traffic.account().this_month.sent), (1205, 1205));
}

#[tokio::test(start_paused = true)]
async fn the_file_is_written_when_the_day_changes_and_not_when_nothing_did() {
    let home = tempfile::tempdir().unwrap();
    let clock = Watch::at("2026-11-22T23:58:00Z");
    let traffic = clock.open(home.path(), "");
    let running = Running::start(&traffic);
    spend(&traffic, 10);
    sleep(Duration::from_secs(150)).await;
    until("saved at midnight", || on_disk(home.path()) == 10).await;
    spend(&traffic, 1);
    sleep(Duration::from_secs(31)).await;
    assert_eq!((traffic.account().today.sent, traffic.account().total.sent), (1, 11));
    sleep(Duration::from_mins(11)).await;
    until("saved", || on_disk(home.path()) == 11).await;
    // Taken away: written again only when there is something new.
    std::fs::remove_file(home.path().join(FILE)).unwrap();
    sleep(Duration::from_mins(30)).await;
    assert_eq!(on_disk(home.path()), 0);
    running.stop(traffic).await;
    assert_eq!(on_disk(home.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn clock_jumps_move_counts_but_lose_none() {
    let home = tempfile::tempdir().unwrap();
    let clock = Watch::at("1970-01-01T00:00:07Z");
    let traffic = clock.open(home.path(), "monthly = \"1MB\"");
    spend(&traffic, 40);
    traffic.settle();
    assert_eq!((traffic.account().standing, traffic.account().today.sent), (None, 0));
    traffic.close();
    drop(traffic);
    let traffic = clock.open(home.path(), "monthly = \"1MB\"");
    clock.set("2026-11-22T10:00:00Z");
    spend(&traffic, 2);
    traffic.settle();
    let account = traffic.account();
    assert_eq!((account.today.sent, account.standing.unwrap().used), (42, 42));
    for (time, sent) in [("2026-11-23T01:00:00Z", 43), ("2026-11-24T01:00:00Z", 44), ("2031-05-05T00:00:00Z", 45)] {
        clock.set(time);
        spend(&traffic, 1);
        traffic.settle();
        assert_eq!(traffic.account().total.sent, sent);
    }
    clock.set("2026-11-24T02:00:00Z");
    traffic.settle();
    let account = traffic.account();
    assert_eq!((account.today.sent, account.standing.unwrap().used, account.days.len()), (2, 45, 3));
}

#[test]
fn a_disk_that_refuses_is_told_once_and_counting_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let gone = home.path().join("store");
    let page = Page::default();
    tracing::subscriber::with_default(page.log(), || {
        let traffic = Traffic::open(&gone, &settings(""), || Timestamp::parse("2026-11-22T10:00:00Z").unwrap());
        for _ in 0..5 {
            spend(&traffic, 1);
            traffic.close();
        }
        traffic.settle();
        assert!(traffic.account().disk_error.is_some());
        std::fs::create_dir(&gone).unwrap();
        traffic.close();
        traffic.settle();
        assert_eq!((traffic.account().disk_error, on_disk(&gone)), (None, 5));
        std::fs::write(gone.join(FILE), "{\"version\":1").unwrap();
        let traffic = Traffic::open(&gone, &settings(""), || Timestamp::parse("2026-11-22T10:00:00Z").unwrap());
        assert_eq!(traffic.account().total.sent, 0);
        assert!(gone.join("traffic.damaged").exists());
    });
    page.has(&["can't be written", "on the disk again", "put aside"]);
}

#[test]
fn the_budget_takes_its_steps_in_order_and_back_with_one_line_each() {
    let home = tempfile::tempdir().unwrap();
    let page = Page::default();
    let hours = Arc::new(AtomicI64::new(0));
    tracing::subscriber::with_default(page.log(), || {
        let (clock, start) = (hours.clone(), Timestamp::parse("2026-11-10T00:00:00Z").unwrap());
        let now = move || start.plus(Duration::from_hours(clock.load(Ordering::SeqCst) as u64));
        // 90,000 bytes are a day's share; nine days have passed without traffic.
        let open = || Traffic::open(home.path(), &settings("monthly = \"3MB\"\nheaders = \"0B\""), now.clone());
        let mut traffic = open();
        let policy = traffic.policy();
        let mut seen = Vec::new();
        for days in [9, 1, 1, 1] {
            spend(&traffic, days * 90_000);
            traffic.settle();
            traffic.settle();
            seen.push((traffic.account().steps.len(), policy.borrow().compress, policy.borrow().defer));
        }
        assert_eq!(seen, [(0, false, false), (1, false, false), (2, true, false), (3, true, true)]);
        // The steps taken survive a restart: 2.5 days ahead would not be enough for the third.
        traffic.close();
        hours.store(12, Ordering::SeqCst);
        traffic = open();
        assert!(traffic.policy().borrow().defer);
        let mut back = Vec::new();
        for day in 1..=4 {
            hours.store(12 + day * 24, Ordering::SeqCst);
            traffic.settle();
            back.push(traffic.account().steps.len());
        }
        assert_eq!(back, [2, 1, 0, 0]);
    });
    page.has(&["batch", "batch, compress", "batch, compress, defer", "batch, compress", "batch", "more freely"]);
}

/// What was logged.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn log(&self) -> impl tracing::Subscriber + use<> {
        let page = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || page.clone()).finish()
    }

    /// One line for each of `words`, in this order, and no other.
    fn has(&self, words: &[&str]) {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), words.len(), "{text}");
        assert!(text.lines().zip(words).all(|(line, words)| line.contains(words)), "{words:?} in\n{text}");
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
