//! A command's way through the broker: from its publication to its answer, the durable line of the audit included.

use std::fs;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use weir::os::pty::Pty;
use weir::uplink::{Heard, Saying, Speaker};

use crate::Scale;
use crate::rig::run;
use crate::table::Figure;
use crate::tunnel::{LIMIT, Site, Weir, client, pause, percentile};

const ANSWERS: &str = "gw1/ATR";
/// One that only looks, and one that changes something: before that the audit has a line, too.
const COMMANDS: [(&str, &str); 2] = [("looks", "AT^WEIR=VERSION"), ("changes", "AT^WEIR=SETBAUDRATE,line0,115200")];

pub fn measure(scale: &Scale) -> Vec<Figure> {
    run(round_trips(usize::try_from(scale.singles).unwrap()))
}

async fn round_trips(rounds: usize) -> Vec<Figure> {
    let (pty, site) = (Pty::open().unwrap(), Site::new());
    let config = site.configure(&[pty.path()], 115_200, "none");
    let control = "[control]\nat_topics = [\"gw1/AT\"]\nreply_topic = \"gw1/ATR\"\nper_minute = 600\n";
    fs::write(&config, fs::read_to_string(&config).unwrap() + control).unwrap();
    let _agent = Weir::run(&config);
    let (speaker, mut heard) = client(&config, ANSWERS).await;
    // The client's own subscription may come later than its session.
    while !said(&speaker, ANSWERS, "ready", &mut heard, Duration::from_millis(200)).await {}
    while timeout(Duration::from_millis(300), heard.recv()).await.is_ok() {}
    let mut alone = Vec::new();
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        alone.push(took(&speaker, ANSWERS, "AT OK", &mut heard).await);
        for ((_, command), times) in COMMANDS.iter().zip(&mut times) {
            times.push(took(&speaker, "gw1/AT", command, &mut heard).await);
        }
        // Ten commands a second are let through.
        tokio::time::sleep(Duration::from_millis(220)).await;
    }
    let mut figures = Vec::new();
    for ((what, command), times) in COMMANDS.iter().zip(times) {
        for percent in [50, 99] {
            let name = format!("{command} ({what}) there and back, p{percent}");
            let figure = Figure::new(name, percentile(&times, percent), "ms");
            figures.push(figure.against("a message through the broker alone", percentile(&alone, percent)));
        }
    }
    figures
}

async fn took(speaker: &Speaker, topic: &str, text: &str, heard: &mut mpsc::Receiver<Heard>) -> f64 {
    pause().await;
    let begun = Instant::now();
    assert!(said(speaker, topic, text, heard, LIMIT).await, "no answer to {text}");
    begun.elapsed().as_secs_f64() * 1e3
}

/// Says something and waits for the next message; false when none came.
async fn said(speaker: &Speaker, topic: &str, text: &str, heard: &mut mpsc::Receiver<Heard>, limit: Duration) -> bool {
    speaker.say(Saying { topic: topic.into(), payload: text.into(), until: None }).await.unwrap();
    match timeout(limit, heard.recv()).await {
        Ok(answer) => {
            let answer = String::from_utf8(answer.unwrap().payload).unwrap();
            assert!(answer == text || answer.ends_with("OK"), "{answer}");
            true
        }
        Err(_) => false,
    }
}
