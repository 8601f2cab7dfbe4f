//! A meter that was left alone in programming mode, as a power cut of the gateway does: it hears nothing until its
//! own time limit, and nothing of its load profile is lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use weir::meter::bus::{Bus, Handle, Meter, Port};
use weir::meter::gaps::{Keeper, Marker, ReadBack};
use weir::meter::{Health, MeterSettings};
use weir::model::{Body, BootId, Frame};
use weir::os::clock::{self, Clock, Dial};
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::sim::iec_meter::Options;

use crate::meter;
use crate::plumbing::configured;
use crate::scripted::hold_back;

const QUARTER: i64 = 900_000;

/// What a process of weir has on this port: a bus that reads the profile back, and what keeps its state.
struct Process {
    frames: mpsc::Receiver<Frame>,
    health: Health,
    tasks: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(endpoint: &Endpoint, settings: &MeterSettings, state: &Path, dial: &Dial) -> Self {
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        let port = Port::plain("p", endpoint.clone(), speed);
        let (clock, health) = (Clock::of(dial.clone(), Duration::ZERO, None), Health::new());
        let (to, frames) = mpsc::channel(64);
        let (markers, mut asked) = mpsc::channel::<Marker>(1);
        let keeper = Keeper::new(state.into());
        let about = (clock.clone(), health.clone());
        let back = ReadBack::new(std::slice::from_ref(settings), &keeper, to.clone(), about).unwrap();
        let meters = vec![Meter::new(settings).unwrap()];
        let bus = Bus::new(port, meters, Handle::new("p").1, clock, health.clone()).with_background(Box::new(back));
        let tasks = vec![
            tokio::spawn(bus.run(to)),
            tokio::spawn(async move { keeper.run(markers).await }),
            // What was handed over is durable at once.
            tokio::spawn(async move {
                while let Some(marker) = asked.recv().await {
                    let _ = marker.send(Some(0));
                }
            }),
        ];
        Self { frames, health, tasks }
    }

    /// Ends it as a power cut does, and gives what had reached the store.
    async fn kill(mut self) -> Vec<i64> {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        let mut ends = Vec::new();
        while let Ok(frame) = self.frames.try_recv() {
            ends.extend(end(&frame));
        }
        ends
    }
}

fn end(frame: &Frame) -> Option<i64> {
    if let Body::Interval(interval) = &frame.body { Some(interval.end.as_millis()) } else { None }
}

/// A serial server before the meter, for one reader at a time: its line takes no real time.
async fn serial_server(device: &Path) -> Endpoint {
    let speed = Speed { baud: 300, framing: Framing::EIGHT_N_ONE };
    let mut line = Line::open(&Endpoint::Device(device.into()), speed, Direction::Automatic).await.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut reader, _)) = listener.accept().await {
            reader.set_nodelay(true).unwrap();
            let (mut from_line, mut to_line) = tokio::io::split(&mut line);
            let (mut from, mut to) = reader.split();
            // It is free for the next one as soon as this one is gone.
            tokio::select! {
                _ = tokio::io::copy(&mut from, &mut to_line) => {}
                _ = tokio::io::copy(&mut from_line, &mut to) => {}
            }
        }
    });
    Endpoint::Tcp(address)
}

#[tokio::test(start_paused = true)]
async fn what_a_meter_left_in_programming_mode_recorded_is_read_once_it_listens_again() {
    hold_back();
    let limit = Duration::from_secs(120);
    let (device, control) = meter(Options { session_timeout: limit, ..Options::default() });
    let endpoint = serial_server(&device).await;
    let state = tempfile::tempdir().unwrap();
    let settings = configured("every = \"1h\"\nload_profile = { id = \"P.01\", history = \"3d\", budget = \"30m\" }");
    let now = clock::now();
    let dial = Dial::new(now, BootId::UNKNOWN);
    dial.trust(true);
    let mut had = BTreeSet::new();

    let mut first = Process::start(&endpoint, &settings, state.path(), &dial);
    // Some intervals are had; then it is killed as soon as another session with the meter is open.
    while had.len() < 4 {
        had.extend(end(&first.frames.recv().await.unwrap()));
    }
    let before = control.state().sessions;
    while control.state().sessions == before {
        while let Ok(frame) = first.frames.try_recv() {
            had.extend(end(&frame));
        }
        sleep(Duration::from_millis(20)).await;
    }
    had.extend(first.kill().await);
    let killed = Instant::now();

    let mut second = Process::start(&endpoint, &settings, state.path(), &dial);
    let newest = now.as_millis().div_euclid(QUARTER) * QUARTER;
    let all = async {
        while !had.contains(&newest) {
            had.extend(end(&second.frames.recv().await.unwrap()));
        }
    };
    timeout(Duration::from_secs(1800), all).await.expect("it recovers by itself");
    let state = control.state().clone();
    assert!(killed.elapsed() >= limit && state.timeouts == 1, "{:?}, {state:?}", killed.elapsed());
    assert!(state.sessions > before + 1 && state.passwords == 0);
    let profile = second.health.meters()["meter"].profile.clone().unwrap();
    // That it was silent until its own time limit the meter counts itself, above; what came last may have been its end.
    assert!(profile.last_error.is_some(), "it was silent at first");
    // Three days, to a quarter of an hour at either end, without a gap.
    let ends: Vec<i64> = had.into_iter().collect();
    assert!(ends.windows(2).all(|pair| pair[1] - pair[0] == QUARTER), "{ends:?}");
    assert!((3 * 96 - 1..=3 * 96 + 1).contains(&ends.len()), "{}", ends.len());
    second.kill().await;
}
