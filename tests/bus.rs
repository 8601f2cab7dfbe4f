//! The owner of a port from outside: many dead meters, leases, echoes, unplugged adapters, speeds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly, and tells its figures"
)]
#![cfg(feature = "demo")]

#[path = "tools/pace.rs"]
mod pace;
#[path = "bus/plumbing.rs"]
mod plumbing;
#[path = "bus/turns.rs"]
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plumbing::{Echoing, Running, good, meter, opened, port, read_request, readings, write_request};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use weir::meter::bus::{Background, LeaseError, Owner, Purpose, Worked};
use weir::meter::{MeterError, Session};
use weir::model::{Body, Quality};
use weir::os::line::{Direction, Echo, Endpoint, Framing, Line, LineError, Speed, Turnaround, What};
use weir::os::pty::Pty;
use weir::sim::modbus_meter::{Fault, ModbusMeters};

const SECOND: Duration = Duration::from_secs(1);

/// Long enough for anything that must happen at all, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn the_one_live_meter_among_31_dead_ones_is_read_on_schedule() {
    pace::hold();
    const LIVE: u8 = 17;
    let units: Vec<u8> = (1..=32).collect();
    let meters = ModbusMeters::new(&units);
    let (path, _served) = meters.serve_rtu().unwrap();
    let on_the_line = units.iter().map(|unit| {
        meters.set_fault(*unit, (*unit != LIVE).then_some(Fault::Silent));
        // A machine that stands still must not make the live one silent.
        let limit = if *unit == LIVE { "50s" } else { "100ms" };
        let every = format!("every = \"500ms\"\ntimeout = \"{limit}\"\nretries = 0");
        meter(&format!("m{unit}"), &format!("address = {unit}\n{every}"))
    });
    let mut bus = Running::start(port(Endpoint::Device(path)), on_the_line.collect());
    let begun = Instant::now();
    // Nobody knows yet who is dead: the first round takes 31 time limits. Then until most are left alone.
    let (mut counts, mut late, mut known) = (BTreeMap::<String, usize>::new(), Vec::new(), None);
    let watched = async {
        loop {
            let frame = bus.frames.recv().await.unwrap();
            let Body::Reading(reading) = &frame.body else { panic!("{frame:?}") };
            let live = reading.meter == "m17";
            let wanted = if live { Quality::Good } else { Quality::NoAnswer };
            assert!(reading.values.iter().all(|v| v.quality == wanted), "{reading:?}");
            if known.is_none() {
                // Silence is known when the reading has ended, so not before the request after it.
                let asked: BTreeSet<u8> = meters.seen().iter().rev().skip(1).map(|s| s.unit).collect();
                known = (asked.len() == units.len()).then(|| meters.seen().len());
                continue;
            }
            *counts.entry(reading.meter.clone()).or_default() += 1;
            if live {
                late.push(u64::try_from(frame.time.wall.as_millis()).unwrap() % 500);
                let stretched = bus.health.meters().values().filter(|m| m.stretch >= 2).count();
                if stretched >= 25 && late.len() >= 10 {
                    return;
                }
            }
        }
    };
    timeout(2 * PATIENCE, watched).await.expect("the silent ones are asked less often");
    late.sort_unstable();
    let between: Vec<usize> = meters.seen()[known.unwrap()..].split(|s| s.unit == LIVE).map(<[_]>::len).collect();
    println!(
        "31 of 32 meters dead, every 500 ms, time limit 100 ms, {:?}: the live one read {} times, late by p50 {} ms, \
         max {} ms; requests to dead ones before each: {between:?}",
        begun.elapsed(),
        late.len(),
        late[late.len() / 2],
        late[late.len() - 1],
    );
    // Each takes its limit, so that five fit into a slot; then the live one is due and goes first.
    assert!(between.iter().all(|dead| *dead <= 6), "{between:?}");
    assert!(between.iter().sum::<usize>() >= 25, "the dead ones are still asked: {between:?}");
    for unit in units.iter().filter(|unit| **unit != LIVE) {
        let nulls = counts.get(&format!("m{unit}")).copied().unwrap_or_default();
        assert!(nulls + 2 >= late.len(), "a gap is visible, m{unit}: {nulls} frames of nulls, {} slots", late.len());
    }
    meters.set_fault(3, None);
    tokio::select! {
        () = async { while bus.handle.read("m3").await.is_err() {} } => {}
        () = async { while bus.frames.recv().await.is_some() {} } => panic!("the bus ended"),
        () = sleep(PATIENCE) => panic!("m3 does not answer"),
    }
    assert_eq!(bus.health.meters()["m3"].stretch, 1, "its first answer restores its interval");
}

#[tokio::test(start_paused = true)]
async fn a_borrower_has_the_line_alone_and_gives_it_back_at_its_speed() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let mut bus = Running::start(port(Endpoint::Device(path)), vec![meter("m", "every = \"200ms\"")]);
    assert!(good(&bus.frames.recv().await.unwrap()));
    let asked = meters.seen().len();
    let handle = bus.handle.clone();
    let (seen, fast) = (meters.clone(), Speed { baud: 19_200, framing: Framing::EIGHT_N_ONE });
    let lent = handle.lend(5 * SECOND, move |line| {
        Box::pin(async move {
            let before = line.speed();
            line.set_speed(fast).unwrap();
            sleep(SECOND).await;
            (before, seen.seen().len())
        })
    });
    let (before, asked_meanwhile) = lent.await.unwrap();
    assert_eq!(before.baud, 9600);
    assert!(asked_meanwhile <= asked + 1, "nobody else used the line");
    let nulls = readings(&mut bus.frames, 3).await.iter().filter(|f| !good(f)).count();
    assert!(nulls >= 2, "slots that pass by meanwhile are visible gaps");
    let mut after = bus.frames.recv().await.unwrap();
    while !good(&after) {
        after = bus.frames.recv().await.unwrap();
    }
    assert!(bus.health.meters()["m"].not_asked >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_borrower_that_never_ends_loses_the_line_and_one_that_gave_up_frees_it() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let bus = Running::start(port(Endpoint::Device(path)), vec![meter("m", "")]);
    let mut tap = bus.handle.tap().listen();
    let ended = bus.handle.lend(SECOND / 5, |line| {
        Box::pin(async move {
            line.send(b"half a requ").await.unwrap();
            std::future::pending::<()>().await;
        })
    });
    assert_eq!(ended.await.unwrap_err(), LeaseError::Expired(SECOND / 5));
    assert_eq!(bus.handle.read("m").await.unwrap()[0].value.as_deref(), Some("1000"));
    let mut told = Vec::new();
    while let Ok(event) = timeout(SECOND / 5, tap.next()).await {
        told.push(event.unwrap().what);
    }
    let closed = told.iter().position(|what| *what == What::Closed).unwrap();
    assert!(matches!(told[closed + 1], What::Opened(_)), "{told:?}");
    assert!(told[..closed].iter().any(|what| matches!(what, What::Sent(bytes) if &bytes[..] == b"half a requ")));
    // Who stops waiting ends the lease too.
    let (started, start) = oneshot::channel();
    let hour = bus.handle.lend(3600 * SECOND, move |_| {
        Box::pin(async move {
            let _ = started.send(());
            std::future::pending::<()>().await;
        })
    });
    tokio::select! {
        _ = hour => panic!("it does not end by itself"),
        started = start => started.unwrap(),
    }
    timeout(PATIENCE, bus.handle.read("m")).await.expect("the line is free").unwrap();
}

#[tokio::test(start_paused = true)]
async fn everybody_sees_who_has_the_port_and_until_when() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let bus = Running::start(port(Endpoint::Device(path)), vec![meter("m", "every = \"1h\"")]);
    let (look, owner) = (bus.handle.clone(), Owner::new(Purpose::Command, "topic:gw1/AT"));
    let command = bus.handle.named(owner.clone());
    let hold =
        command.lend(5 * SECOND, move |_| Box::pin(async move { look.hold() })).await.unwrap().expect("it is held");
    assert_eq!(hold.owner, owner);
    assert_eq!(hold.until.unwrap() - hold.since, 5 * SECOND);
    // One that never ends is taken back, and whoever waited behind it is served: what a person asks, then the schedule.
    let stuck = command.lend(SECOND, |_| Box::pin(std::future::pending::<()>()));
    let (ended, read) = tokio::join!(stuck, bus.handle.read("m"));
    assert_eq!((ended.unwrap_err(), read.is_ok()), (LeaseError::Expired(SECOND), true));
    assert_eq!((bus.handle.hold(), bus.handle.waiting()), (None, 0));
}

/// Notes when it was asked; what it does takes no time.
struct Pieces {
    done: Arc<Mutex<Vec<(usize, Duration)>>>,
    meters: ModbusMeters,
}

impl Background for Pieces {
    fn idle(&self) -> Duration {
        Duration::ZERO
    }

    fn next(&mut self, time_left: Duration) -> Option<String> {
        let mut done = self.done.lock().unwrap();
        (done.len() < 3).then(|| {
            done.push((self.meters.seen().len(), time_left));
            "background".to_owned()
        })
    }

    fn work<'a>(&'a mut self, session: &'a mut dyn Session, line: &'a mut Line) -> Worked<'a> {
        Box::pin(async { session.read(line).await.map(|_| ()) })
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_asks_goes_first_then_the_schedule_then_the_background() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 2, 3]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let done = Arc::new(Mutex::new(Vec::new()));
    let pieces = Pieces { done: done.clone(), meters: meters.clone() };
    let on_the_line = vec![
        meter("scheduled", "address = 1\nevery = \"1s\""),
        meter("asked", "address = 2"),
        meter("background", "address = 3"),
    ];
    let mut bus = Running::with_background(port(Endpoint::Device(path)), on_the_line, Box::new(pieces));
    // While the line is lent all three become due.
    let handle = bus.handle.clone();
    let lease = handle.lend(10 * SECOND, |_| Box::pin(sleep(SECOND / 20)));
    let (lent, asked) = tokio::join!(lease, bus.handle.read("asked"));
    lent.unwrap();
    asked.unwrap();
    // A slot that passed while the line was lent gives nulls.
    timeout(PATIENCE, async { while !good(&bus.frames.recv().await.unwrap()) {} }).await.expect("the schedule goes on");
    let enough = || meters.seen().iter().filter(|s| s.unit == 3).count() >= 3;
    timeout(PATIENCE, async {
        while !enough() {
            sleep(SECOND / 100).await
        }
    })
    .await
    .expect("the background goes on");
    let units: Vec<u8> = meters.seen().iter().map(|s| s.unit).collect();
    let person = units.iter().position(|unit| *unit == 2).unwrap();
    let background: Vec<usize> = units.iter().enumerate().filter(|(_, u)| **u == 3).map(|(at, _)| at).collect();
    assert!(background.iter().all(|at| *at > person), "{units:?}");
    let done = done.lock().unwrap().clone();
    assert_eq!(done.len(), 3, "{units:?}");
    assert!(done.iter().all(|(_, left)| *left <= SECOND), "it is told when the line is needed: {done:?}");
}

#[tokio::test(start_paused = true)]
async fn on_a_line_that_echoes_reads_are_right_and_a_dead_meters_copy_is_no_answer() {
    pace::hold();
    let echoing = Echoing::start(&[1]);
    let bus = Running::start(port(Endpoint::Device(echoing.path.clone())), vec![meter("m", "retries = 0")]);
    for _ in 0..3 {
        assert_eq!(bus.handle.read("m").await.unwrap()[0].value.as_deref(), Some("1000"));
    }
    let health = bus.health.meters().remove("m").unwrap();
    assert_eq!((health.echoes, health.collisions, health.unanswered), (3, 0, 0), "{health:?}");
    let (_, exchange) = health.exchange.unwrap();
    assert!(exchange.received.starts_with(&exchange.sent) && exchange.received.len() > exchange.sent.len());
    bus.end().await;

    let mut line = opened(&echoing.path).await;
    let mut buffer = [0; 64];
    let mut exchange = async |line: &mut Line, bytes: &[u8]| {
        line.discard_waiting().await.unwrap();
        line.send(bytes).await.unwrap();
        let count = line.receive(&mut buffer, Instant::now() + SECOND / 2).await?;
        Ok::<_, LineError>(buffer[..count].to_vec())
    };
    for _ in 0..2 {
        exchange(&mut line, &read_request(1)).await.unwrap();
    }
    assert_eq!(line.echoes(), Some(true));
    assert_eq!(
        exchange(&mut line, &write_request(1)).await.unwrap(),
        write_request(1),
        "the answer equals the request"
    );
    assert!(matches!(exchange(&mut line, &write_request(9)).await, Err(LineError::Silent(_))), "nobody answered");
    echoing.damage_next();
    line.set_echo(Echo::Yes);
    assert!(matches!(exchange(&mut line, &write_request(1)).await, Err(LineError::Collision)));
    assert_eq!(line.take_notes().collisions, 1);
}

#[tokio::test(start_paused = true)]
async fn an_unplugged_adapter_is_closed_and_opened_again_as_soon_as_its_name_is_back() {
    pace::hold();
    let by_id = tempfile::tempdir().unwrap();
    let link = by_id.path().join("by-id/usb-adapter");
    let plug = |path: &Path| {
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(path, &link).unwrap();
    };
    let meters = ModbusMeters::new(&[1]);
    let (path, served) = meters.serve_rtu().unwrap();
    plug(&path);
    let bus = Running::start(port(Endpoint::Device(link.clone())), vec![meter("m", "")]);
    bus.handle.read("m").await.unwrap();
    let mut tap = bus.handle.tap().listen();
    // Unplugged while nobody asks: the line hangs up, and udev takes link and folder away.
    drop(served);
    std::fs::remove_dir_all(link.parent().unwrap()).unwrap();
    let closed = timeout(PATIENCE, tap.next()).await.expect("it is noticed").unwrap();
    assert_eq!(closed.what, What::Closed);
    let sentence = bus.handle.read("m").await.unwrap_err();
    assert!(sentence.contains("usb-adapter"), "{sentence}");
    // Attempts come 0, 1, 3 and 7 s after it was closed: the next is farther away than what is allowed below.
    sleep(SECOND * 9 / 2).await;
    let (path, _served) = meters.serve_rtu().unwrap();
    let plugged = Instant::now();
    plug(&path);
    let opened = timeout(SECOND, tap.next()).await.expect("no pause is waited out").unwrap();
    assert!(matches!(opened.what, What::Opened(_)), "{opened:?}");
    println!("a plugged-in adapter was open after {:?}", plugged.elapsed());
    assert_eq!(bus.handle.read("m").await.unwrap()[0].value.as_deref(), Some("1000"));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_unplugged_in_the_middle_of_a_reading_ends_it_at_once_with_nulls() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, served) = meters.serve_rtu().unwrap();
    meters.set_fault(1, Some(Fault::Silent));
    let bus = Running::start(port(Endpoint::Device(path)), vec![meter("m", "timeout = \"30s\"\nevery = \"10m\"")]);
    let unplug = async {
        while meters.seen().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        drop(served);
    };
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(bus.handle.read("m"), unplug);
    let sentence = answer.unwrap_err();
    assert!(begun.elapsed() < 30 * SECOND, "the time limit is not waited out");
    assert!(sentence.contains("cannot open /dev/pts/"), "{sentence}");
    assert_eq!(bus.handle.read("m").await.unwrap_err(), sentence, "the system's own reason is kept");
    assert_eq!(bus.health.meters()["m"].stretch, 1, "the port's fault stretches no interval");
}

#[tokio::test(start_paused = true)]
async fn when_a_cable_is_mended_no_meter_is_left_alone_any_longer() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 2]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let entry = |unit| {
        meter(&format!("m{unit}"), &format!("address = {unit}\ntimeout = \"200ms\"\nretries = 0\nevery = \"10m\""))
    };
    let bus = Running::start(port(Endpoint::Device(path)), vec![entry(1), entry(2)]);
    let stretch = || ["m1", "m2"].map(|name| bus.health.meters()[name].stretch);
    for unit in [1, 2] {
        meters.set_fault(unit, Some(Fault::Silent));
        for _ in 0..20 {
            bus.handle.read(&format!("m{unit}")).await.unwrap_err();
        }
    }
    assert_eq!(stretch(), [4, 4], "every 10 m, and never beyond an hour");
    meters.set_fault(1, None);
    let answer = async { while bus.handle.read("m1").await.is_err() {} };
    timeout(PATIENCE, answer).await.expect("it answers");
    assert_eq!(stretch(), [1, 1], "an answer after all were silent: the line was at fault");
    for _ in 0..3 {
        bus.handle.read("m2").await.unwrap_err();
    }
    assert_eq!(stretch(), [1, 2], "but this one is dead indeed");
    bus.handle.read("m1").await.unwrap();
    assert_eq!(stretch(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_can_not_turn_the_transceiver_says_so_and_what_to_do() {
    pace::hold();
    let pty = Pty::open().unwrap();
    let mut kernel = port(Endpoint::Device(pty.path().to_owned()));
    kernel.direction = Direction::Kernel(Turnaround::PLAIN);
    let bus = Running::start(kernel, vec![meter("m", "")]);
    let sentence = bus.handle.read("m").await.unwrap_err();
    assert!(sentence.contains("cannot switch RS485 direction") && sentence.contains("\"auto\""), "{sentence}");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_all_the_time_does_not_keep_the_others_from_being_read() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 2]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let on_the_line = vec![meter("asked", "address = 1"), meter("scheduled", "address = 2\nevery = \"500ms\"")];
    let mut bus = Running::start(port(Endpoint::Device(path)), on_the_line);
    let flood = (0..8).map(|_| {
        let handle = bus.handle.clone();
        tokio::spawn(async move { while handle.read("asked").await.is_ok() {} })
    });
    let flood: Vec<_> = flood.collect();
    let came = timeout(PATIENCE, readings(&mut bus.frames, 4)).await.expect("readings come all the same");
    assert!(came.iter().all(good));
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn meters_of_different_speeds_share_a_line_with_the_guard_time_between_them() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 2]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let mut guarded = port(Endpoint::Device(path));
    guarded.guard = Duration::from_millis(120);
    let slow = meter("slow", "address = 2\nbaud = 2400\nframing = \"8E1\"");
    let bus = Running::start(guarded, vec![meter("fast", "address = 1"), slow]);
    let mut tap = bus.handle.tap().listen();
    for name in ["fast", "slow", "fast", "fast"] {
        bus.handle.read(name).await.unwrap();
    }
    let gaps: Vec<_> = meters.seen().iter().skip(1).map(|s| s.gap.unwrap()).collect();
    assert!(gaps[0] >= guarded_for() && gaps[1] >= guarded_for(), "between two meters: {gaps:?}");
    assert!(gaps[2] < guarded_for(), "the same meter needs none: {gaps:?}");
    let mut speeds = Vec::new();
    while let Ok(event) = timeout(SECOND / 5, tap.next()).await {
        match event.unwrap().what {
            What::Opened(speed) | What::Speed(speed) => speeds.push((speed.baud, speed.framing.to_string())),
            _ => {}
        }
    }
    let wanted = [(9600, "8N1"), (2400, "8E1"), (9600, "8N1")].map(|(baud, framing)| (baud, framing.to_owned()));
    assert!(speeds.ends_with(&wanted[1..]), "{speeds:?}");
}

const fn guarded_for() -> Duration {
    Duration::from_millis(120)
}

#[tokio::test]
async fn a_long_write_at_300_baud_leaves_the_runtime_to_the_others() {
    let mut pty = Pty::open().unwrap();
    let slow = Speed { baud: 300, framing: Framing::EIGHT_N_ONE };
    let endpoint = Endpoint::Device(pty.path().to_owned());
    let mut line = Line::open(&endpoint, slow, Direction::Automatic).await.unwrap();
    // Nobody reads at the other end: the kernel's buffers are full after some thousand bytes. Whoever waited for them would
    // never come to the others.
    let ticks = async {
        for _ in 0..150 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        sent = line.send(&[0x55; 64 * 1024]) => panic!("half an hour of bytes was sent: {sent:?}"),
        () = ticks => {}
    }
    // A close would wait for what is left, for the 30 s that the kernel allows: it is thrown away instead.
    drop(line);
    let mut next = opened(pty.path()).await;
    next.send(b"next").await.unwrap();
    let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
    while !came.ends_with(b"next") {
        let count = timeout(PATIENCE, pty.receive(&mut buffer)).await.expect("the line takes bytes again").unwrap();
        came.extend_from_slice(&buffer[..count]);
    }
    println!("{} bytes of 64 KiB had left", came.len() - 4);
    assert!(came.len() < 8 << 10, "{} bytes were left for whoever comes next", came.len() - 4);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_nothing_of_it_is_left_for_the_next_meter() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 2]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let common = "timeout = \"300ms\"\nretries = 0";
    let on_the_line =
        vec![meter("bad", &format!("address = 1\n{common}")), meter("well", &format!("address = 2\n{common}"))];
    let bus = Running::start(port(Endpoint::Device(path)), on_the_line);
    for fault in [Fault::Flip, Fault::WrongLength, Fault::Noise, Fault::Late(SECOND * 7 / 20), Fault::Silent] {
        meters.set_fault(1, Some(fault));
        let _ = bus.handle.read("bad").await;
        assert_eq!(bus.handle.read("well").await.unwrap()[0].value.as_deref(), Some("2000"), "{fault:?}");
    }
    let health = bus.health.meters();
    assert_eq!((health["well"].answers, health["well"].unanswered), (5, 0));
    assert!(health["bad"].damaged >= 2 && health["bad"].timeouts >= 1, "{:?}", health["bad"]);
    let delays = &health["well"].delays;
    assert_eq!(delays.count(), 5);
    assert!(delays.percentile(50) <= delays.percentile(95) && delays.percentile(95) <= delays.longest());
    assert!(matches!(&health["bad"].last_error, Some((_, why)) if why.contains("300 ms")));
}

#[test]
fn a_collision_is_damage_and_no_reason_to_open_the_line_again() {
    let error = MeterError::Line(LineError::Collision);
    assert_eq!((error.quality(), error.must_reopen()), (Quality::Invalid, false));
}
