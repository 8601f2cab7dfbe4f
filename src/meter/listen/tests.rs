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
    let mut meter = meter(&format!("protocol = \"sml\"\nevery = \"{every}s\""));
    meter.listener = Ok(Box::new(Bytes));
    (post_of(meter, dial), Opener::new(Handle::new("p").1.tap))
}

fn meter(rest: &str) -> Meter {
    Meter::new(&MeterSettings::parse(&format!("name = \"m\"\nport = \"p\"\n{rest}")).unwrap()).unwrap()
}

fn post_of(meter: Meter, dial: &Dial) -> Post {
    let port = port(Endpoint::Device("/dev/there-is-no-such-port".into()));
    Post::new(port, meter, Clock::of(dial.clone(), Duration::ZERO, None), Health::new())
}

fn port(endpoint: Endpoint) -> Port {
    Port::plain("p", endpoint, Speed { baud: 9600, framing: Framing::EIGHT_N_ONE })
}

/// Lets time pass for clock and timers alike.
async fn pass(dial: &Dial, seconds: u64) {
    dial.pass(Duration::from_secs(seconds));
    tokio::time::advance(Duration::from_secs(seconds)).await;
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
    let mut now = 1;
    for (second, bytes) in [(10, "a"), (20, "b!"), (50, "c"), (55, "!")] {
        pass(&dial, second - now).await;
        now = second;
        post.take(bytes.as_bytes());
        assert!(post.due(&mut opener).is_none());
    }
    pass(&dial, 5).await;
    assert_eq!(shown(&post.due(&mut opener).unwrap()), (at(50), Some("c".to_owned()), Quality::Good));
    assert!(post.due(&mut opener).is_none());
    pass(&dial, 60).await;
    assert_eq!(shown(&post.due(&mut opener).unwrap()), (at(120), None, Quality::NoAnswer));
    pass(&dial, 1).await;
    post.take(b"!");
    pass(&dial, 59).await;
    assert_eq!(shown(&post.due(&mut opener).unwrap()), (at(180), None, Quality::Invalid));
    pass(&dial, 3425).await;
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
    assert_eq!(ask(&mut post).unwrap()[0].value.as_deref(), Some("a"));
    sleep(FRESH).await;
    assert_eq!(ask(&mut post).unwrap_err(), "nothing was heard of meter \"m\" for 120 s");
}

fn ask(post: &mut Post) -> Result<Vec<Value>, String> {
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    post.serve(Job::Read(crate::meter::bus::Reading { meter: "m".to_owned(), reply }));
    answer.try_recv().expect("the answer is there at once")
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_sends_as_seldom_as_its_interval_gives_no_nulls_between() {
    let dial = dial();
    let (mut post, mut opener) = post(900, &dial);
    // Every 15 minutes, some seconds to and fro, around the time at which it is due.
    let jitter = [2, 4, 1, 3, 5, 2, 4, 1];
    let (mut now, mut shown_as) = (1, Vec::new());
    let mut frame = |post: &mut Post| post.due(&mut opener).map(|frame| shown(&frame));
    for (quarter, jitter) in (1..).zip(jitter) {
        let heard = quarter * 900 - 3 + jitter;
        pass(&dial, quarter * 900 - now).await;
        now = quarter * 900;
        if heard <= now {
            post.take(b"a");
        }
        shown_as.extend(frame(&mut post));
        pass(&dial, 10).await;
        now += 10;
        if heard > quarter * 900 {
            post.take(b"a");
        }
    }
    // Two gaps tell how often it sends; from then on none is missing.
    assert!(shown_as[3..].iter().all(|(_, _, quality)| *quality == Quality::Good), "{shown_as:?}");
    assert_eq!(shown_as.len(), jitter.len());
    assert!(ask(&mut post).is_ok(), "it is present for whoever asks, too");
    // And when it falls silent that shows after a quarter of its own interval.
    let mut last = Vec::new();
    for _ in 0..3 {
        pass(&dial, 900).await;
        last.extend(frame(&mut post));
    }
    let (_, value, quality) = last.last().unwrap();
    assert_eq!((value, *quality), (&None, Quality::NoAnswer), "{last:?}");
    assert!(ask(&mut post).is_err());
}

#[tokio::test(start_paused = true)]
async fn without_its_key_file_a_meter_gives_nulls_that_say_why_until_the_file_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = format!(
        "protocol = \"dsmr-p1\"\nevery = \"60s\"\nvalues = [\"1-0:1.8.1\"]\nkey_file = \"{}\"\nauthentication_key_file = \"{}\"",
        path("one").display(),
        path("two").display()
    );
    let dial = dial();
    let mut post = post_of(meter(&text), &dial);
    let mut opener = Opener::new(Handle::new("p").1.tap);
    post.look();
    let sentence = |post: &Post| post.health.meters()["m"].last_error.clone().unwrap().1;
    assert!(sentence(&post).contains("one") && sentence(&post).contains("can't be read"), "{}", sentence(&post));
    assert!(ask(&mut post).unwrap_err().contains("the key file"));
    for minute in 1..=2 {
        pass(&dial, 60).await;
        post.take(b"\xDB\x08");
        let frame = post.due(&mut opener).expect("a frame each interval");
        assert_eq!(shown(&frame).1, None);
        assert_eq!(shown(&frame).2, Quality::Invalid);
        assert_eq!(post.health.meters()["m"].failing, minute);
    }
    std::fs::write(path("one"), "AA".repeat(16)).unwrap();
    std::fs::write(path("two"), "11".repeat(16)).unwrap();
    pass(&dial, 60).await;
    post.look();
    assert!(post.meter.listener.is_ok());
    assert_eq!(shown(&post.due(&mut opener).unwrap()).2, Quality::NoAnswer, "and now it is only silent");
    let settings = MeterSettings::parse("name = \"m\"\nport = \"p\"\nprotocol = \"modbus-rtu\"").unwrap();
    assert!(Meter::new(&settings).is_err(), "a meter that must be asked is none");
}

#[tokio::test]
async fn while_it_hears_it_keeps_its_place_in_the_queue_of_the_channel() {
    let server = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let dial = dial();
    let (post, _) = post(60, &dial);
    let health = post.health.clone();
    let (frames, mut inbox) = mpsc::channel(1);
    let other = |name: &str| Frame {
        time: post.clock.stamp(),
        lane: Lane::Ordinary,
        body: Body::Reading(Reading { meter: name.to_owned(), values: Vec::new() }),
        origin: None,
    };
    let (first, second) = (other("first"), other("second"));
    frames.send(first).await.unwrap();
    let port = port(Endpoint::Tcp(server.local_addr().unwrap().to_string()));
    let inbox_of_port = Handle::new("p").1;
    let running = tokio::spawn(run(port, post.meter, frames.clone(), inbox_of_port, post.clock, post.health));
    let (mut stream, _) = server.accept().await.unwrap();
    let heard = async |stream: &mut tokio::net::TcpStream, count: u64| {
        tokio::io::AsyncWriteExt::write_all(stream, b"a").await.unwrap();
        while health.meters().get("m").is_none_or(|m| m.answers < count) {
            tokio::task::yield_now().await;
        }
        // A turn of the loop after it was counted.
        sleep(Duration::from_millis(20)).await;
    };
    dial.pass(Duration::from_secs(60));
    // It is due, and stands in the queue; the next one stands behind it, whatever is heard meanwhile.
    heard(&mut stream, 1).await;
    let sender = frames.clone();
    let waiting = tokio::spawn(async move { sender.send(second).await });
    tokio::task::yield_now().await;
    for count in 2..6 {
        heard(&mut stream, count).await;
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        let Body::Reading(reading) = inbox.recv().await.unwrap().body else { panic!() };
        order.push(reading.meter);
    }
    assert_eq!(order, ["first", "m", "second"]);
    waiting.await.unwrap().unwrap();
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_after_each_message_is_called_again_after_the_shortest_pause() {
    crate::pace::hold();
    let server = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (post, _) = post(60, &dial());
    let (frames, _inbox) = mpsc::channel(1);
    let health = post.health.clone();
    let port = port(Endpoint::Tcp(server.local_addr().unwrap().to_string()));
    let running = tokio::spawn(run(port, post.meter, frames, Handle::new("p").1, post.clock, post.health));
    let begun = Instant::now();
    for count in 1..=4 {
        let (mut stream, _) = server.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"a").await.unwrap();
        while health.meters().get("m").is_none_or(|m| m.answers < count) {
            sleep(Duration::from_millis(1)).await;
        }
    }
    // Three pauses of a second; if they doubled there were seven.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    running.abort();
}
