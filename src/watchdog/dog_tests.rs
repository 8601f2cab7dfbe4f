//! The watchdog with hands that only note what they are asked, in time that waits for nobody.

use std::time::Duration;

use tokio::time::Instant;

use super::super::BOOK;
use super::*;
use crate::model::{BootId, Timestamp};
use crate::os::clock::Source;
use crate::setting::{Node, Problems, Setting};

/// A clock by tokio's time: it began at `uptime` of a boot.
#[derive(Debug)]
struct Paused {
    boot: u8,
    begun: Instant,
    uptime: Duration,
}

impl Source for Paused {
    fn read(&self) -> (Timestamp, u64) {
        let uptime = self.uptime + self.begun.elapsed();
        (Timestamp::from_millis(1_800_000_000_000).plus(uptime), u64::try_from(uptime.as_millis()).unwrap())
    }

    fn boot(&self) -> BootId {
        BootId::new([self.boot; 8])
    }

    fn is_trusted(&self) -> bool {
        false
    }
}

#[derive(Default)]
struct Noted {
    did: Arc<Mutex<Vec<String>>>,
    connected: bool,
    answers: bool,
    busy: bool,
    cannot: Vec<Step>,
    fails: Vec<Step>,
    unsynced: bool,
}

impl Noted {
    fn note(&self, what: &str) {
        self.did.lock().unwrap().push(what.to_owned());
    }
}

impl Hands for Noted {
    fn is_connected(&self) -> bool {
        self.connected
    }

    fn busy(&self) -> Option<&'static str> {
        self.busy.then_some("something is on trial")
    }

    async fn test(&mut self) -> Result<String, String> {
        if self.answers { Ok("host".into()) } else { Err("no answer".into()) }
    }

    fn can(&self, step: Step) -> Result<(), String> {
        if self.cannot.contains(&step) { Err("nobody can".into()) } else { Ok(()) }
    }

    async fn act(&mut self, step: Step, _: Cause<'_>) -> Result<(), Refusal> {
        self.note(step.word());
        if self.fails.contains(&step) { Err(Refusal::Failed("it failed".into())) } else { Ok(()) }
    }

    async fn sync(&mut self) -> Result<(), String> {
        self.note("sync");
        if self.unsynced { Err("the disk is full".into()) } else { Ok(()) }
    }
}

fn settings(text: &str) -> WatchdogSettings {
    let document = toml::de::DeTable::parse(text).unwrap();
    let value = toml::de::DeValue::Table(document.get_ref().clone());
    WatchdogSettings::read(&Node::new(&value, 0..0, ""), &mut Problems::new()).unwrap()
}

fn dog(text: &str, home: &Path, boot: u8, uptime: Duration) -> Dog {
    let source = Paused { boot, begun: Instant::now(), uptime };
    Dog::open(Some(&settings(text)), home, Clock::of(source, Duration::ZERO, None))
}

const LADDER: &str = "ladder = [\"modem-register\", \"network-restart\", \"modem-reset\", \"reboot\"]\npause = \"10m\"\n[ping]\nafter = \"35m\"\n";
const BOOTED: Duration = Duration::from_mins(20);

/// Lets it watch for a while.
async fn watch(dog: &Dog, hands: &mut Noted, time: Duration) -> Vec<String> {
    let _ = tokio::time::timeout(time, dog.run(hands)).await;
    std::mem::take(&mut *hands.did.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_gateway_without_a_way_to_the_world_climbs_its_ladder_and_reboots_synced_and_noted() {
    let home = tempfile::tempdir().unwrap();
    let dog = dog(LADDER, home.path(), 1, BOOTED);
    let mut hands = Noted { cannot: vec![Step::ModemReset], fails: vec![Step::ModemRegister], ..Noted::default() };
    let did = watch(&dog, &mut hands, Duration::from_mins(65)).await;
    assert_eq!(did, ["modem-register", "network-restart", "sync", "reboot"]);
    let status = dog.health().status();
    assert_eq!((status.reboots, status.rung, status.step.unwrap().0), (1, 4, "reboot"));
    assert!(status.tests.0 > 20 && status.tests.0 == status.tests.1, "{:?}", status.tests);
    assert!(watch(&dog, &mut hands, Duration::from_hours(30)).await.is_empty(), "each once in a boot");
    assert_eq!(dog.health().status().reboots, 0, "it is more than a day ago");
    let next = self::dog(LADDER, home.path(), 2, Duration::ZERO).health().status();
    assert_eq!((next.reboots, next.rung), (1, 0));
    // Failures without a step are over with the broker, too.
    let dog = self::dog(LADDER, home.path(), 3, BOOTED);
    watch(&dog, &mut hands, Duration::from_mins(36)).await;
    assert!((1..3).contains(&dog.health().status().failures), "{:?}", dog.health().status());
    hands.connected = true;
    watch(&dog, &mut hands, Duration::from_mins(1)).await;
    assert_eq!(dog.health().status().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_answers_or_a_broker_that_is_reached_climbs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dog = dog(LADDER, home.path(), 1, BOOTED);
    let mut hands = Noted { answers: true, ..Noted::default() };
    assert!(watch(&dog, &mut hands, Duration::from_hours(3)).await.is_empty());
    assert!(dog.health().status().tests.0 > 100);
    let mut hands = Noted { connected: true, ..Noted::default() };
    let before = dog.health().status().tests;
    assert!(watch(&dog, &mut hands, Duration::from_hours(3)).await.is_empty());
    assert_eq!(dog.health().status().tests, before, "nobody is asked while there is a session");
}

#[tokio::test(start_paused = true)]
async fn in_every_boot_of_a_dead_network_it_reboots_until_the_limit() {
    let home = tempfile::tempdir().unwrap();
    let mut reboots = 0;
    for boot in 1..=6 {
        let dog = dog(LADDER, home.path(), boot, Duration::ZERO);
        let did = watch(&dog, &mut Noted::default(), Duration::from_mins(100)).await;
        reboots += did.iter().filter(|step| *step == "reboot").count();
    }
    assert_eq!(reboots, 3);
    // A day of this kernel later there is one more, and not before.
    let dog = dog(LADDER, home.path(), 7, Duration::ZERO);
    let mut hands = Noted::default();
    assert!(!watch(&dog, &mut hands, Duration::from_hours(23)).await.contains(&"reboot".to_owned()));
    assert_eq!(watch(&dog, &mut hands, Duration::from_hours(2)).await, ["sync", "reboot"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_noted_or_synced_is_not_done() {
    let home = tempfile::tempdir().unwrap();
    let mut hands = Noted { unsynced: true, ..Noted::default() };
    let one = dog(LADDER, home.path(), 1, BOOTED);
    assert!(matches!(one.reboot(Cause::Command("me"), &mut hands).await, Err(WatchdogError::NotSynced(_))));
    assert_eq!(
        dog(LADDER, home.path(), 1, BOOTED).health().status().reboots,
        0,
        "what was not asked for costs nothing"
    );
    hands.unsynced = false;
    let other = home.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let two = dog(LADDER, &other, 1, BOOTED);
    std::fs::create_dir_all(other.join(format!("{BOOK}.new/full"))).unwrap();
    hands.did.lock().unwrap().clear();
    assert!(matches!(two.reboot(Cause::Command("me"), &mut hands).await, Err(WatchdogError::Book { .. })));
    assert_eq!(*hands.did.lock().unwrap(), ["sync"]);
    let early = dog(LADDER, &home.path().join("none"), 1, Duration::from_mins(9));
    assert!(matches!(early.reboot(Cause::Command("me"), &mut hands).await, Err(WatchdogError::Limit { .. })));
    hands.cannot = vec![Step::Reboot];
    assert!(matches!(one.reboot(Cause::Command("me"), &mut hands).await, Err(WatchdogError::Cannot(_))));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_weir_is_noted_before_it_happens() {
    let home = tempfile::tempdir().unwrap();
    let ladder = "ladder = [\"agent-restart\", \"reboot\"]\n[ping]\nafter = \"1m\"\n";
    let first = dog(ladder, home.path(), 1, BOOTED);
    assert_eq!(watch(&first, &mut Noted::default(), Duration::from_mins(5)).await, ["agent-restart"]);
    let second = dog(ladder, home.path(), 1, BOOTED);
    assert_eq!(second.health().status().rung, 1);
    assert_eq!(watch(&second, &mut Noted::default(), Duration::from_mins(12)).await, ["sync", "reboot"]);
}
