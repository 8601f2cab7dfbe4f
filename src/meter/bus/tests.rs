//! The schedule in paused time, and a bus on a simulated line.

use super::*;
use crate::meter::{Reply, Session};
use crate::model::{Body, BootId, Quality};
use crate::os::clock::{BUILT, Dial};
use crate::os::line::{Endpoint, Framing};

fn clock(dial: &Dial) -> Clock {
    Clock::of(dial.clone(), Duration::ZERO, None)
}

struct Nothing;

impl Session for Nothing {
    fn read<'a>(&'a mut self, _line: &'a mut Line) -> Reply<'a> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        vec![Value { name: "v".to_owned(), value: None, unit: String::new(), quality }]
    }
}

fn meter(name: &str, every: u64) -> Meter {
    Meter::of(name, name.to_owned(), Box::new(Nothing), Duration::from_secs(every))
}

fn port() -> Port {
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    Port::plain("p", Endpoint::Device("/dev/there-is-no-such-port".into()), speed)
}

/// What is due, when something is.
fn due(bus: &mut Bus) -> Option<usize> {
    match bus.next() {
        Next::Idle(_) => None,
        Next::Nulls(index) | Next::Read(index) => Some(index),
    }
}

fn idle_time(bus: &mut Bus) -> Duration {
    let Next::Idle(idle) = bus.next() else { panic!("something is due") };
    idle.min(LONGEST_SLEEP)
}

async fn read_due(bus: &mut Bus) -> Option<usize> {
    let next = bus.next();
    let index = due(bus);
    bus.scheduled(next).await.map(|_| index.unwrap())
}

#[tokio::test(start_paused = true)]
async fn slots_follow_the_wall_clock_whatever_it_does_and_missed_ones_are_left_out() {
    let dial = Dial::new(BUILT.plus(Duration::from_secs(1)), BootId::UNKNOWN);
    dial.trust(true);
    let at = |seconds: u64| dial.set(BUILT.plus(Duration::from_secs(seconds)));
    let meters = vec![meter("slow", 900), meter("quick", 60)];
    let mut bus = Bus::new(port(), meters, Handle::new("p").1, clock(&dial), Health::new());
    assert_eq!(due(&mut bus), None);
    assert_eq!(idle_time(&mut bus), Duration::from_secs(59));
    at(60);
    assert_eq!(due(&mut bus), Some(1));
    assert_eq!(read_due(&mut bus).await, Some(1));
    assert_eq!(due(&mut bus), None);
    at(7205);
    assert_eq!(due(&mut bus), Some(1), "the one that waits longest goes first");
    assert_eq!(read_due(&mut bus).await, Some(1));
    assert_eq!(due(&mut bus), Some(0));
    assert_eq!(read_due(&mut bus).await, Some(0));
    assert_eq!(due(&mut bus), None, "two hours of missed slots are one reading");
    at(100);
    assert_eq!(due(&mut bus), None);
    assert_eq!(idle_time(&mut bus), Duration::from_secs(20), "a clock set back does not stop the readings");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_neither_stops_the_readings_nor_brings_a_burst() {
    let year = Duration::from_hours(365 * 24);
    let now = BUILT.plus(year);
    for (target, trusted) in [
        (BUILT, true),
        (now.plus(year * 10), true),
        (now.plus(Duration::from_hours(1)), true),
        (Timestamp::from_millis(0), true),
        (BUILT, false),
        (now.plus(year * 10), false),
    ] {
        let dial = Dial::new(now, BootId::new([1; 8]));
        dial.trust(true);
        let mut bus =
            Bus::new(port(), vec![meter("a", 900), meter("b", 60)], Handle::new("p").1, clock(&dial), Health::new());
        let mut readings = [0, 0];
        for second in 0..7200 {
            if second == 1800 {
                dial.trust(trusted);
                dial.set(target);
            }
            if second == 5400 {
                dial.trust(true);
                dial.set(now.plus(Duration::from_secs(5400)));
            }
            while let Some(index) = read_due(&mut bus).await {
                readings[index] += 1;
            }
            assert!(idle_time(&mut bus) <= LONGEST_SLEEP);
            dial.pass(Duration::from_secs(1));
        }
        // Two hours: a set clock adds or leaves out one reading of each meter at most, twice.
        assert!((6..=10).contains(&readings[0]) && (117..=122).contains(&readings[1]), "{target}: {readings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_port_gives_frames_with_nulls_and_answers_jobs_with_a_sentence() {
    let (frames, mut inbox) = mpsc::channel::<Frame>(4);
    let (handle, jobs) = Handle::new("p");
    let health = Health::new();
    let dial = Dial::new(BUILT, BootId::UNKNOWN);
    let clock = clock(&dial);
    let turn = async {
        loop {
            dial.pass(Duration::from_millis(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ask = async {
        let frame = inbox.recv().await.unwrap();
        let Body::Reading(reading) = frame.body else { panic!() };
        assert_eq!(reading.values[0].quality, Quality::NoAnswer);
        let sentence = handle.read("m").await.unwrap_err();
        assert!(sentence.contains("/dev/there-is-no-such-port"), "{sentence}");
        assert!(handle.read("x").await.unwrap_err().contains("known: m"));
        let lent = handle.lend(Duration::from_secs(1), |_| Box::pin(async {})).await.unwrap_err();
        assert!(matches!(&lent, LeaseError::NoLine(why) if why.contains("/dev/there-is-no-such-port")), "{lent}");
        drop(inbox);
    };
    let reading = run(port(), vec![meter("m", 60)], frames, jobs, clock, health.clone());
    tokio::select! {
        _ = async { tokio::join!(reading, ask) } => {}
        () = turn => {}
    }
    assert!(health.meters()["m"].timeouts >= 2);
}

/// Fails in the same way each time.
struct Failing(fn() -> MeterError);

impl Session for Failing {
    fn read<'a>(&'a mut self, _line: &'a mut Line) -> Reply<'a> {
        Box::pin(async { Err((self.0)()) })
    }

    fn absent(&self, _quality: Quality) -> Vec<Value> {
        Vec::new()
    }
}

#[tokio::test]
async fn silent_meters_get_their_turn_also_between_meters_that_answer_with_nonsense_only() {
    let server = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = Endpoint::Tcp(server.local_addr().unwrap().to_string());
    let failing =
        |name: &str, error| Meter::of(name, name.to_owned(), Box::new(Failing(error)), Duration::from_secs(10));
    let meters = vec![
        failing("wrong", || MeterError::Damaged("nonsense".to_owned())),
        failing("refuses", || MeterError::Refused("no".to_owned())),
        failing("dead", || MeterError::Line(LineError::Silent(Duration::from_secs(1)))),
    ];
    let dial = Dial::new(BUILT, BootId::UNKNOWN);
    let mut bus = Bus::new(Port { endpoint, ..port() }, meters, Handle::new("p").1, clock(&dial), Health::new());
    for (index, answers) in [(0, true), (2, false), (1, true)] {
        bus.scheduled(Next::Read(index)).await.unwrap();
        assert_eq!(bus.after_an_answer, answers, "{}", bus.meters[index].name);
    }
    // On a line that is full of such meters the dead one is asked after one of them.
    dial.pass(Duration::from_secs(60));
    for index in [0, 1] {
        assert_eq!(bus.next(), Next::Nulls(2), "its slots that passed are visible gaps");
        bus.scheduled(Next::Nulls(2)).await.unwrap();
        let next = bus.next();
        assert_eq!(next, Next::Read(2), "after {index}");
        bus.scheduled(next).await.unwrap();
        bus.scheduled(Next::Read(index)).await.unwrap();
        dial.pass(Duration::from_secs(60));
    }
}

#[test]
fn between_two_meters_the_line_is_silent_as_either_needs_and_longer_when_the_speed_changes() {
    let at = |baud| Speed { baud, framing: Framing::EIGHT_N_ONE };
    let millis = Duration::from_millis;
    let last = |guard| Last { meter: 0, speed: at(9600), guard: millis(guard) };
    assert_eq!(between(&last(0), at(9600), millis(0)), millis(0));
    assert_eq!(between(&last(20), at(9600), millis(5)), millis(20));
    assert_eq!(between(&last(5), at(9600), millis(20)), millis(20));
    assert_eq!(between(&last(5), at(400), millis(20)), millis(100), "four characters of the slower speed");
    assert_eq!(between(&last(0), at(115_200), millis(0)), Duration::from_micros(4166));
}
