//! Load profiles: what weir missed while it did not run is read back, and nothing is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;
use weir::model::Timestamp;
use weir::os::{clock, random};

use super::peers::Peer;
use super::rig::{Consumer, Home, Mosquitto, Subscriber, stderr, stdout, until};

/// The simulated meter has a row for each quarter of January 2026 but the first.
const ROWS: i64 = 31 * 96 - 1;
const FIRST: &str = "2026-01-01T00:15:00Z";
const KILLS: usize = 6;

/// The intervals that arrived: by their end, how often and with which values.
fn intervals(consumer: &Consumer) -> BTreeMap<Timestamp, Vec<String>> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for frame in consumer.frames.values().filter(|f| f.json["frametype"] == "Interval") {
        assert_eq!(frame.json["meter"], "billing", "{}", frame.json);
        let end = Timestamp::parse(frame.json["timestamp"].as_str().unwrap()).unwrap();
        found.entry(end).or_default().push(frame.json["values"].to_string());
    }
    found
}

#[tokio::test]
async fn an_agent_killed_again_and_again_delivers_every_interval_that_the_meter_kept() {
    let seed = std::env::var("WEIR_SEED").ok().map_or_else(|| random::generator().random(), |s| s.parse().unwrap());
    println!("WEIR_SEED={seed} repeats this run's choices");
    let mut random = StdRng::seed_from_u64(seed);
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let head = home.path("head");
    let meter = || Peer::python("iec_meter.py", &["--link", head.to_str().unwrap(), "--parity"], "meter on");
    // From an hour before the first row on, whenever this runs.
    let first = Timestamp::parse(FIRST).unwrap();
    let history = clock::now().since(first).as_secs() + 3600;
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &format!(
            "[[port]]\nname = \"head\"\ndevice = \"{}\"\n[[meter]]\nname = \"billing\"\nport = \"head\"\n\
             protocol = \"iec62056-21\"\ntimeout = \"3s\"\nevery = \"12h\"\nvalues = [\"1.8.0\"]\n\
             load_profile = {{ id = \"P.01\", history = \"{history}s\", budget = \"30m\" }}\n",
            head.display()
        ),
    );
    let mut consumer = Consumer::default();
    for round in 0..KILLS {
        // A power cut takes both: a meter left alone in programming mode is deaf for two minutes.
        let _head = meter();
        let mut agent = home.run("debug");
        agent.until_said(&["ready"]).await;
        // At least something was had, then at any moment.
        until("an interval is read", || {
            agent.said(&["a piece of the profile was read"]).iter().any(|line| !line.contains("new=0"))
        })
        .await;
        sleep(Duration::from_millis(random.random_range(0..6000))).await;
        if round + 1 == KILLS {
            let table = stdout(&home.weir(&["meters"]));
            assert!(table.contains("2026-01-"), "{table}");
        }
        agent.kill().await;
    }
    let _head = meter();
    let mut agent = home.run("debug");
    let last = first.plus(Duration::from_secs((ROWS as u64 - 1) * 900));
    consumer.listen(&mut subscriber, |c| intervals(c).contains_key(&last)).await;
    agent.stop().await;
    let found = intervals(&consumer);
    let missing: Vec<_> = (0..ROWS)
        .map(|row| first.plus(Duration::from_secs(row as u64 * 900)))
        .filter(|end| !found.contains_key(end))
        .collect();
    assert!(missing.is_empty(), "{} of {ROWS} are missing (WEIR_SEED={seed}): {missing:?}", missing.len());
    assert_eq!(found.len() as i64, ROWS, "an interval that the meter does not have");
    for (end, values) in &found {
        let row = (end.since(first).as_secs() / 900 + 1) as f64 * 15.0;
        assert!(
            values.iter().all(|v| *v == values[0] && v.contains(&format!("{:06.3}", row / 1000.0))),
            "{end}: {values:?}"
        );
    }
    let repeats: usize = found.values().map(|v| v.len() - 1).sum();
    println!("{KILLS} kills: {ROWS} intervals, 0 missing, {repeats} repeated");

    // A stop in good order repeats nothing.
    let mut agent = home.run("debug");
    agent.until_said(&["a piece of the profile was read", "new=0"]).await;
    let reads = agent.said(&["a piece of the profile was read"]);
    assert!(reads.iter().all(|line| line.contains("new=0")), "{reads:?}");
    let mut states = Vec::new();
    until("the table shows it", || {
        let output = home.weir(&["meters", "--json"]);
        states.push(stderr(&output));
        stdout(&output).contains("2026-01-31T23:45:00Z")
    })
    .await;
    agent.stop().await;
}
