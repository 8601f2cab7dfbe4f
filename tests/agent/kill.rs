//! `kill -9` of the agent, again and again, under load: what was durable arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir::os::random;
use weir::sim::radio_replay::Lines;

use super::rig::{Agent, Consumer, Fed, Feed, Home, Mosquitto, Relay, Subscriber, number, until};

const KILLS: usize = 30;
/// Durable frames without which the kills prove little.
const ENOUGH: usize = 1_000;
/// Two receivers at this pace: some hundred telegrams a second.
const PACE: Duration = Duration::from_millis(5);

/// The numbers that the agent gave and called durable before it died.
fn promised(agent: &Agent) -> std::ops::RangeInclusive<u64> {
    let first = agent.said(&["the store is open"]).first().map_or(1, |line| number(line, "next="));
    let through = agent.said(&["DEBUG durable through="]).iter().map(|line| number(line, "through=")).max();
    first..=through.unwrap_or(0)
}

fn seed() -> u64 {
    std::env::var("WEIR_SEED").ok().map_or_else(|| random::generator().random(), |seed| seed.parse().unwrap())
}

#[tokio::test]
async fn thirty_kills_at_random_moments_lose_nothing_that_was_durable() {
    let seed = seed();
    println!("WEIR_SEED={seed} repeats this run's choices");
    let mut random = StdRng::seed_from_u64(seed);
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let relay = Relay::start(broker.port, true).await;
    let roof = Feed::start(Lines::RtlWmbus, PACE, usize::MAX).await;
    let street = Feed::start(Lines::OpenlinkIq, PACE, usize::MAX).await;
    let mut consumer = Consumer::default();
    let mut durable = BTreeSet::new();
    let mut kills = 0;

    // Short lives in a row make few frames durable: then more of them make up for it.
    for round in 0..4 * KILLS {
        if round >= KILLS && durable.len() > ENOUGH {
            break;
        }
        let sync = if round % 2 == 0 { "200ms" } else { "1s" };
        home.configure(
            &format!("url = \"tcp://127.0.0.1:{}\"", relay.port),
            &format!("sync = \"{sync}\"\n{}{}", roof.radio("roof", "rtl-wmbus"), street.radio("street", "openlinkiq")),
        );
        relay.set_open(random.random_range(0..3) > 0);
        let mut agent = home.run("debug");
        agent.until_said(&["INFO ready"]).await;
        // Lives are as long as it takes to hand over so many telegrams.
        let handed = || roof.fed().len() + street.fed().len();
        let (begun, life) = (handed(), random.random_range(0..600));
        if random.random_bool(0.5) {
            let turn = random.random_range(0..=life);
            until("the feeds go on", || handed() >= begun + turn).await;
            relay.set_open(random.random_bool(0.5));
        }
        until("the feeds go on", || handed() >= begun + life).await;
        agent.kill().await;
        kills += 1;
        durable.extend(promised(&agent));
    }

    relay.set_open(true);
    let fed = [roof.end(), street.end()].concat();
    // Two quiet lives: what the kills left goes out, and then what the first of them left.
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", relay.port), "");
    for _ in 0..2 {
        let mut agent = home.run("debug");
        let left = number(&agent.until_said(&["the store is open"]).await, "cached=") as usize;
        until("the cache drains", || agent.acknowledged() >= left).await;
        agent.stop().await;
    }
    consumer.listen_to_the_end(&mut subscriber, &broker).await;

    let lost: Vec<_> = durable.iter().filter(|s| !consumer.frames.contains_key(s)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} durable frames are lost (WEIR_SEED={seed}): {lost:?}",
        lost.len(),
        durable.len()
    );
    let counters = home.counters();
    let count = |name: &str| counters[name].as_u64().unwrap();
    assert_eq!(count("received"), count("acknowledged") + count("evicted") + count("cached"), "{counters}");
    assert_eq!((count("cached"), count("evicted")), (0, 0), "{counters}");
    // A kill forgets to count what was acknowledged since the last tick, and nothing else.
    assert!(count("received") <= consumer.frames.len() as u64, "a frame was counted twice: {counters}");
    telegrams_were_fed(&consumer, &fed);
    println!(
        "{kills} kills: {} durable frames, 0 lost; {} arrived, {} repeats of the same frame",
        durable.len(),
        consumer.frames.len(),
        consumer.repeats
    );
    assert!(durable.len() > ENOUGH, "the load was too small to prove anything");
    assert!(consumer.repeats > 0, "no kill hit an acknowledgement; the moments are not random enough");
}

/// Every telegram that arrived is one that was fed, under one number only, and in its own lane.
fn telegrams_were_fed(consumer: &Consumer, fed: &[Fed]) {
    let fed: BTreeMap<_, _> = fed.iter().map(|fed| (fed.bytes.clone(), fed.priority)).collect();
    for (bytes, count) in consumer.telegrams() {
        assert_eq!(count, 1, "{bytes:02x?} was given two numbers");
    }
    for frame in consumer.frames.values() {
        let priority = fed.get(&frame.bytes()).expect("a telegram nobody sent");
        assert_eq!(frame.topic, if *priority { "event/gw1" } else { "data/gw1" });
    }
}
