//! `weir traffic`, while the agent runs and after it.

use std::time::Duration;

use serde_json::Value;
use weir::os::clock;
use weir::sim::radio_replay::Lines;

use super::rig::{Consumer, Feed, Home, Mosquitto, Subscriber, stderr, stdout, until};

fn figures(home: &Home) -> Value {
    let output = home.weir(&["traffic", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// What all entries of a book hold together.
fn all(book: &Value) -> u64 {
    let entries = book.as_object().unwrap();
    entries.values().map(|amount| amount["sent"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn traffic_is_shown_while_the_agent_runs_and_grows_over_restarts() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
    home.configure(&url, "[budget]\nmonthly = \"50MB\"\nrenews = 31\n");

    let before = home.weir(&["traffic"]);
    assert_eq!((before.status.code(), stdout(&before).as_str()), (Some(1), ""));
    assert!(stderr(&before).contains("no figures in"), "{}", stderr(&before));

    let mut sent = Vec::new();
    for _ in 0..2 {
        let mut agent = home.run("info");
        assert_eq!(subscriber.next().await.topic, "status/gw1");
        agent.until_said(&["connected to the broker"]).await;
        if let Some(before) = sent.last() {
            // The file of the life before, while this one runs.
            assert_eq!(figures(&home)["total"]["sent"].as_u64(), Some(*before));
        }
        agent.stop().await;
        let figures = figures(&home);
        let total = figures["total"]["sent"].as_u64().unwrap();
        assert_eq!((all(&figures["days"]), all(&figures["months"])), (total, total), "{figures}");
        let month = &figures["sim_month"];
        let billed = figures["total"]["billed"].as_u64().unwrap();
        assert!(billed > total + figures["total"]["received"].as_u64().unwrap(), "headers: {figures}");
        assert_eq!((month["used"].as_u64(), month["budget"].as_u64()), (Some(billed), Some(50_000_000)), "{figures}");
        assert!(month["forecast"].as_u64() >= Some(billed) && month["steps"] == serde_json::json!([]), "{figures}");
        sent.push(total);
    }
    assert!(sent[0] > 50 && sent[1] > sent[0] && sent[1] <= 3 * sent[0], "{sent:?}");

    let table = home.weir(&["traffic"]);
    assert!(table.status.success(), "{}", stderr(&table));
    for words in ["day (UTC)", "month", "billed", "SIM's month", "forecast", "50000000 (0 % used)", "steps taken  none"]
    {
        assert!(stdout(&table).contains(words), "{words} is not in\n{}", stdout(&table));
    }
}

#[tokio::test]
async fn a_budget_that_is_used_up_makes_the_agent_say_so_and_keep_ordinary_frames() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let feed = Feed::start(Lines::OpenlinkIq, Duration::from_millis(5), 200).await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
    let rest =
        format!("{}[budget]\nmonthly = \"1MB\"\norder = [\"batch\", \"defer\"]\n", feed.radio("roof", "openlinkiq"));
    home.configure(&url, &rest);
    // A file in which the whole budget is used today.
    let today = clock::now().to_string();
    let (day, month) = (today.get(..10).unwrap(), format!("{}-01", today.get(..7).unwrap()));
    std::fs::create_dir_all(home.path("store")).unwrap();
    let books = format!(
        "{{\"version\":1,\"written\":0,\"steps\":0,\"since\":0,\"books\":{{\"total\":[990000,0,0],\
         \"days\":{{\"{day}\":[990000,0,0]}},\"months\":{{\"{month}\":[990000,0,0]}}}}}}"
    );
    std::fs::write(home.path("store").join("traffic"), books).unwrap();

    let mut agent = home.run("debug");
    let line = agent.until_said(&["runs ahead of the data budget"]).await;
    assert!(line.contains("WARN") && line.contains("batch, defer"), "{line}");
    until("everything was fed", || feed.fed().len() == 200).await;
    let priority = feed.fed().iter().filter(|f| f.priority).count();
    until("priority frames are delivered", || agent.acknowledged() >= priority).await;
    agent.stop().await;
    let mut consumer = Consumer::default();
    consumer.listen_to_the_end(&mut subscriber, &broker).await;
    assert!(priority > 0 && consumer.frames.values().all(|f| f.topic == "event/gw1"), "ordinary frames wait");
    let counters = home.counters();
    assert_eq!(counters["acknowledged"].as_u64(), Some(consumer.frames.len() as u64), "{counters}");
    assert!(counters["cached"].as_u64() > Some(100) && counters["evicted"] == 0, "{counters}");
    assert_eq!(agent.said(&["data budget"]).len(), 1);

    // More data is bought: what waited goes out, nothing is missing.
    home.configure(&url, "[budget]\nmonthly = \"900MB\"\n");
    let mut agent = home.run("debug");
    until("all are delivered", || agent.acknowledged() as u64 == counters["cached"].as_u64().unwrap()).await;
    agent.stop().await;
    consumer.listen_to_the_end(&mut subscriber, &broker).await;
    assert_eq!((home.counters()["received"].as_u64(), consumer.repeats), (Some(consumer.frames.len() as u64), 0));
    // The steps were of another budget.
    assert_eq!(agent.said(&["data budget"]).len(), 0);
}
