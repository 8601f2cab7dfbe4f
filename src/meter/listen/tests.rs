use super::*;
use crate::meter::bus::Handle;
use crate::model::BootId;
use crate::os::clock::{BUILT, Dial};
use crate::os::line::{Endpoint, Framing, Speed};

/// Each byte is a message; `!` is a damaged one.
struct Bytes;

impl Listener for Bytes {
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<Vec<Value>, MeterError>> {
        let read = |byte: &u8| match byte {
            b'!' => Err(MeterError::Damaged("a wrong byte".to_owned())),
            byte => Ok(vec![value(Some(char::from(*byte).to_string()), Quality::Good)]),
        };
        bytes.iter().map(read).collect()
    }

    fn silence(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        Vec::new()
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        vec![value(None, quality)]
    }
}

fn value(text: Option<String>, quality: Quality) -> Value {
    Value { name: "v".to_owned(), value: text, unit: String::new(), quality }
}

fn post(every: u64, dial: &Dial) -> (Post, Opener) {
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    let port = Port::plain("p", Endpoint::Device("/dev/there-is-no-such-port".into()), speed);
    let every = Duration::from_secs(every);
    let meter = Meter { name: "m".to_owned(), every, listener: Box::new(Bytes), kept: None, keep_told: false };
    let clock = Clock::of(dial.clone(), Duration::ZERO, None);
    (Post::new(port, meter, clock, Health::new()), Opener::new(Handle::new("p").1.tap))
}

fn shown(frame: &Frame) -> (Timestamp, Option<String>, Quality) {
    let Body::Reading(reading) = &frame.body else { panic!("{frame:?}") };
    (frame.time.wall, reading.values[0].value.clone(), reading.values[0].quality)
}

fn dial() -> Dial {
    let dial = Dial::new(BUILT.plus(Duration::from_secs(1)), BootId::UNKNOWN);
    dial.trust(true);
    dial
}

#[tokio::test(start_paused = true)]
async fn the_last_message_of_each_interval_is_published_with_the_time_it_was_heard() {
    let dial = dial();
    let at = |seconds: u64| BUILT.plus(Duration::from_secs(seconds));
    let (mut post, mut opener) = post(60, &dial);
    for (second, bytes) in [(10, "a"), (20, "b!"), (50, "c"), (55, "!")] {
        dial.set(at(second));
        post.take(bytes.as_bytes());
        assert!(post.due(&mut opener).is_none());
    }
    dial.set(at(60));
    assert_eq!(shown(&post.due(&mut opener).unwrap()), (at(50), Some("c".to_owned()), Quality::Good));
    assert!(post.due(&mut opener).is_none());
    dial.set(at(120));
    assert_eq!(shown(&post.due(&mut opener).unwrap()), (at(120), None, Quality::NoAnswer));
    dial.set(at(121));
    post.take(b"!");
    dial.set(at(180));
    assert_eq!(shown(&post.due(&mut opener).unwrap()), (at(180), None, Quality::Invalid));
    dial.set(at(3605));
    assert!(post.due(&mut opener).is_some());
    assert!(post.due(&mut opener).is_none(), "missed intervals are one frame");
    let health = post.health.meters().remove("m").unwrap();
    assert_eq!((health.answers, health.damaged, health.timeouts), (3, 3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_neither_stops_the_frames_nor_brings_a_burst() {
    let year = Duration::from_hours(365 * 24);
    for target in [BUILT, BUILT.plus(year * 10), Timestamp::from_millis(0)] {
        let dial = Dial::new(BUILT.plus(year), BootId::UNKNOWN);
        dial.trust(true);
        let (mut post, mut opener) = post(60, &dial);
        let mut frames = 0;
        for second in 0..3600 {
            if second == 1000 {
                dial.set(target);
            }
            post.take(b"a");
            while post.due(&mut opener).is_some() {
                frames += 1;
            }
            assert!(post.idle_time() <= LONGEST_SLEEP);
            dial.pass(Duration::from_secs(1));
        }
        assert!((58..=61).contains(&frames), "{target}: {frames}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_port_gives_frames_with_nulls_and_a_full_channel_lets_intervals_pass() {
    let dial = dial();
    let (post, _) = post(60, &dial);
    let (frames, mut inbox) = mpsc::channel(1);
    let health = post.health.clone();
    let (door, questions) = Handle::new("p");
    let running = run(post.port, post.meter, frames, questions, post.clock, post.health);
    let turn = async {
        loop {
            dial.pass(Duration::from_secs(1));
            sleep(Duration::from_secs(1)).await;
        }
    };
    let look = async {
        sleep(Duration::from_secs(3600)).await;
        // One waited in the channel and one for a place in it, an hour long.
        let mut times = Vec::new();
        for _ in 0..3 {
            let frame: Frame = inbox.recv().await.unwrap();
            assert_eq!(shown(&frame).2, Quality::NoAnswer);
            times.push(frame.time.wall.since(BUILT).as_secs());
        }
        assert!(times[1] <= 180 && times[2] >= 3600, "{times:?}");
        assert!(health.meters()["m"].timeouts < 6);
        assert_eq!(door.read("m").await.unwrap_err(), "nothing was heard of meter \"m\" yet");
        assert!(door.read("x").await.unwrap_err().contains("known: m"));
        let lent = door.lend(Duration::from_secs(1), |_| Box::pin(async {})).await;
        assert!(matches!(lent, Err(LeaseError::NoLine(_))), "{lent:?}");
        drop(inbox);
    };
    tokio::select! {
        _ = async { tokio::join!(running, look) } => {}
        () = turn => {}
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_gets_the_newest_reading_but_never_an_old_one() {
    let (mut post, _) = post(60, &dial());
    post.take(b"a");
    let ask = |post: &Post| {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        post.serve(Job::Read(crate::meter::bus::Reading { meter: "m".to_owned(), reply }));
        answer.try_recv().unwrap()
    };
    assert_eq!(ask(&post).unwrap()[0].value.as_deref(), Some("a"));
    sleep(FRESH).await;
    assert_eq!(ask(&post).unwrap_err(), "nothing was heard of meter \"m\" for 120 s");
}
