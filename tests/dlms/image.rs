//! New firmware for a meter on gurux-dlms: broken off and taken up again, also by a meter that restarts.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, watch};
use weir::meter::bus::{self, Port};
use weir::meter::{Health, Kept, MeterError, MeterSettings, Session, protocol};
use weir::os::clock::Clock;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};

use crate::peers::{self, Peer};

const SPEED: Speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };

/// A meter that keeps what it was given, and the files of a client.
struct Bench {
    folder: tempfile::TempDir,
    port: u16,
    _meter: Peer,
}

impl Bench {
    fn new(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = peers::free_port();
        let log = folder.path().join("log").display().to_string();
        let variables = [variables, &[("METER_LOG", log.as_str()), ("METER_KEEP", "1")]].concat();
        let meter = Peer::python_with("dlms_meter.py", &["--wrapper", &port.to_string()], &variables, "ready");
        std::fs::write(folder.path().join("firmware.bin"), (0..1000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>())
            .unwrap();
        Self { folder, port, _meter: meter }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("tcp://127.0.0.1:{}", self.port))
    }

    fn settings() -> MeterSettings {
        Self::settings_with("5m")
    }

    fn settings_with(longest: &str) -> MeterSettings {
        let text = "name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\ntimeout = \"5s\"\nevery = \"1h\"\n\
                    values = [\"0-0:42.0.0*255\"]\ndlms.link = \"wrapper\"";
        MeterSettings::parse(&format!("{text}\ndlms.longest_session = \"{longest}\"")).unwrap()
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept")
    }

    /// A session that knows what the last one kept.
    async fn session(&self) -> (Box<dyn Session>, Line) {
        self.session_with(&Self::settings()).await
    }

    async fn session_with(&self, settings: &MeterSettings) -> (Box<dyn Session>, Line) {
        let mut session = protocol("dlms").unwrap().session(settings).unwrap();
        session.keep_in(Kept::new(self.kept()));
        (session, Line::open(&self.endpoint(), SPEED, Direction::Automatic).await.unwrap())
    }

    fn order(&self, activate: bool) -> Json {
        let image =
            json!({ "path": self.folder.path().join("firmware.bin"), "identifier": "FW2", "activate": activate });
        json!({ "object": "0-0:44.0.0*255", "image": image })
    }

    /// What a session that begins anew comes to.
    async fn transfer(&self, activate: bool) -> Result<Json, MeterError> {
        let (mut session, mut line) = self.session().await;
        session.inspector().unwrap().inspect(&mut line, &self.order(activate)).await
    }

    /// How often the meter was told such a thing.
    fn count(&self, what: &str) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with(what)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_whose_connection_is_killed_half_way_goes_on_there() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_KILL", "8")]);
    let told = bench.transfer(false).await.unwrap();
    assert_eq!((&told["outcome"], &told["blocks"], &told["resumed_at"]), (&json!("done"), &json!(16), &json!(8)));
    assert_eq!(told["words"], "verification successful");
    assert_eq!((bench.count("INITIATE"), bench.count("BLOCK"), bench.count("VERIFY")), (1, 16, 1));
    // It is there: it is only run.
    let told = bench.transfer(true).await.unwrap();
    assert_eq!(told["words"], "activation successful");
    assert_eq!((bench.count("INITIATE"), bench.count("BLOCK"), bench.count("ACTIVATE")), (1, 16, 1));
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_was_given_up_half_way_is_taken_up_by_another_session() {
    crate::pace::hold();
    let bench = Bench::new(&[]);
    {
        let (mut session, mut line) = bench.session().await;
        let inspector = session.inspector().unwrap();
        let mut far = inspector.progress().unwrap();
        let order = bench.order(false);
        let mut work = inspector.inspect(&mut line, &order);
        loop {
            tokio::select! {
                _ = &mut work => panic!("it ended before it was given up"),
                Ok(()) = far.changed() => if far.borrow().0 >= 5 { break },
            }
        }
    }
    let told = bench.transfer(false).await.unwrap();
    assert!(told["resumed_at"].as_i64() >= Some(5), "{told}");
    assert_eq!((bench.count("INITIATE"), bench.count("VERIFY")), (1, 1));
    assert!(bench.count("BLOCK") <= 17, "{}", bench.count("BLOCK"));
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_restarts_to_run_its_image_is_not_given_it_again() {
    crate::pace::hold();
    for (manner, words) in
        [("shows", "activation successful"), ("forgets", "the meter has restarted with other firmware")]
    {
        let bench = Bench::new(&[("METER_RESTART", manner)]);
        let told = bench.transfer(true).await.unwrap();
        assert_eq!((&told["outcome"], &told["words"]), (&json!("done"), &json!(words)), "{manner}");
        assert_eq!((bench.count("INITIATE"), bench.count("BLOCK"), bench.count("ACTIVATE")), (1, 16, 1), "{manner}");
    }
    // One that shows its image shows it to whoever comes later, too.
    let bench = Bench::new(&[("METER_RESTART", "shows")]);
    bench.transfer(true).await.unwrap();
    assert_eq!(bench.transfer(true).await.unwrap()["words"], "activation successful");
    assert_eq!((bench.count("BLOCK"), bench.count("ACTIVATE")), (16, 1));
}

#[tokio::test(start_paused = true)]
async fn another_image_is_another_transfer() {
    crate::pace::hold();
    let bench = Bench::new(&[]);
    bench.transfer(false).await.unwrap();
    std::fs::write(bench.folder.path().join("firmware.bin"), vec![9; 1000]).unwrap();
    bench.transfer(false).await.unwrap();
    assert_eq!((bench.count("INITIATE"), bench.count("BLOCK")), (2, 32));
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_calls_an_image_by_its_own_name_is_given_it_once() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_LISTS", "other"), ("METER_RESTART", "shows")]);
    bench.transfer(false).await.unwrap();
    assert_eq!(bench.transfer(true).await.unwrap()["words"], "activation successful");
    bench.transfer(true).await.unwrap();
    assert_eq!((bench.count("INITIATE"), bench.count("BLOCK"), bench.count("ACTIVATE")), (1, 16, 1));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_somebody_else_replaced_is_sent_again() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_LISTS", "other")]);
    bench.transfer(false).await.unwrap();
    let (file, kept, away) =
        (bench.folder.path().join("firmware.bin"), bench.kept(), bench.folder.path().join("kept-away"));
    let image = std::fs::read(&file).unwrap();
    std::fs::rename(&kept, &away).unwrap();
    std::fs::write(&file, vec![9; 900]).unwrap();
    bench.transfer(false).await.unwrap();
    std::fs::remove_dir_all(&kept).unwrap();
    std::fs::rename(&away, &kept).unwrap();
    std::fs::write(&file, image).unwrap();
    bench.transfer(true).await.unwrap();
    assert_eq!((bench.count("INITIATE"), bench.count("ACTIVATE")), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_does_not_activate_is_told_once_and_has_its_time() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_STAYS", "1")]);
    bench.transfer(false).await.unwrap();
    let short = Bench::settings_with("2s");
    for _ in 0..3 {
        let (mut session, mut line) = bench.session_with(&short).await;
        let told = session.inspector().unwrap().inspect(&mut line, &bench.order(true)).await.unwrap();
        assert_eq!(told["outcome"], "more");
    }
    assert_eq!(bench.count("ACTIVATE"), 1);
    // A quarter of an hour goes by.
    let file = std::fs::read_dir(bench.kept())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"digest\"")))
        .unwrap();
    let mut mark: Json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    mark["activate"] = json!(mark["activate"].as_i64().unwrap() - 16 * 60 * 1000);
    std::fs::write(&file, mark.to_string()).unwrap();
    let told = bench.transfer(true).await.unwrap_err().to_string();
    assert!(told.contains("it has not done it within 15 minutes; look at 1-0:0.2.0 before ordering again"), "{told}");
    assert_eq!(bench.count("ACTIVATE"), 1);
    // The next order is a new one.
    let (mut session, mut line) = bench.session_with(&short).await;
    session.inspector().unwrap().inspect(&mut line, &bench.order(true)).await.unwrap();
    assert_eq!((bench.count("ACTIVATE"), bench.count("INITIATE")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_block_that_a_meter_never_takes_ends_the_transfer() {
    crate::pace::hold();
    let why = |n: u32| format!("block {n} is still missing after it was sent three times");
    let bench = Bench::new(&[("METER_STUCK", "5")]);
    let told = bench.transfer(false).await.unwrap_err().to_string();
    assert!(told.contains(&why(5)), "{told}");
    // Once in its turn, and three times because it was missing.
    assert_eq!((bench.count("INITIATE"), bench.count("BLOCK 5")), (1, 4));
    // Also when no slice comes to the end of the image.
    let bench = Bench::new(&[("METER_STUCK", "0"), ("METER_BLOCK", "1")]);
    std::fs::write(bench.folder.path().join("firmware.bin"), vec![7; 50_000]).unwrap();
    let (mut session, mut line) = bench.session_with(&Bench::settings_with("1s")).await;
    let mut slices = 0;
    let told = loop {
        match session.inspector().unwrap().inspect(&mut line, &bench.order(false)).await {
            Ok(told) => assert_eq!(told["outcome"], "more"),
            Err(error) => break error.to_string(),
        }
        slices += 1;
        assert!(slices < 10, "it goes on for ever");
    };
    assert!(slices >= 3, "{slices}: {told}");
    assert!(told.contains(&why(0)), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_bus_transfers_an_image_as_a_job_and_tells_how_far_it_is() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_KILL", "8")]);
    let port = Port::plain("p", bench.endpoint(), SPEED);
    let meters = vec![bus::Meter::new(&Bench::settings()).unwrap().kept_in(&bench.kept())];
    let (frames, _taken) = mpsc::channel(8);
    let (door, jobs) = bus::Handle::new("p");
    let running = tokio::spawn(bus::run(port, meters, frames, jobs, Clock::system(), Health::new()));
    let tell = watch::Sender::new((0, 0));
    let mut far = tell.subscribe();
    let mut seen = Vec::new();
    let work = door.inspect_telling("m", bench.order(true), &tell);
    tokio::pin!(work);
    let told = loop {
        tokio::select! {
            told = &mut work => break told.unwrap(),
            Ok(()) = far.changed() => seen.push(*far.borrow_and_update()),
        }
    };
    assert_eq!((&told["outcome"], &told["words"]), (&json!("done"), &json!("activation successful")));
    assert!(seen.len() > 3 && seen.is_sorted() && seen.last() == Some(&(16, 16)), "{seen:?}");
    assert_eq!(bench.count("BLOCK"), 16);
    running.abort();
}
