//! Classes and services against a meter on gurux-dlms that were written for few meters: long parameters and values,
//! what changes the supply, push setup, limiter, M-Bus client; all of it by short names, too; several logical devices.

use serde_json::{Value as Json, json};
use weir::meter::{Session, WriteOutcome};
use weir::model::Timestamp;
use weir::os::line::Line;

use crate::link::Reader;
use crate::peers::{self, Peer};
use crate::plumbing::connect;

struct Bench {
    folder: tempfile::TempDir,
    session: Box<dyn Session>,
    line: Line,
    _meter: Peer,
}

impl Bench {
    async fn new(variables: &[(&str, &str)], settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = peers::free_port().to_string();
        let log = folder.path().join("log").display().to_string();
        let variables = [variables, &[("METER_LOG", log.as_str())]].concat();
        let meter = Peer::python_with("dlms_meter.py", &["--wrapper", &port], &variables, "ready");
        let settings = format!("timeout = \"5s\"\n{settings}\ndlms.link = \"wrapper\"\n");
        let (session, line) = connect(&port, &settings).await;
        Self { folder, session, line, _meter: meter }
    }

    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    async fn write(&mut self, name: &str, text: &str) -> (WriteOutcome, Option<String>) {
        let written = self.session.writer().unwrap().write(&mut self.line, name, text).await.unwrap();
        (written.outcome, written.now.value)
    }

    async fn ask(&mut self, order: Json) -> Json {
        self.session.inspector().unwrap().inspect(&mut self.line, &order).await.unwrap()
    }

    /// All attributes of an object by name.
    async fn shown(&mut self, object: &str) -> Vec<(String, String)> {
        let told = self.ask(json!({ "object": object })).await;
        let text = |a: &Json| a["value"].as_str().unwrap_or("-").to_owned();
        told["attributes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| (a["name"].as_str().unwrap().to_owned(), text(a)))
            .collect()
    }
}

fn has(shown: &[(String, String)], name: &str, value: &str) {
    assert!(shown.contains(&(name.to_owned(), value.to_owned())), "no {name} = {value} in {shown:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_parameter_of_a_method_goes_in_blocks() {
    crate::pace::hold();
    let mut bench = Bench::new(&[("METER_PDU", "128"), ("METER_BLOCK", "300")], "").await;
    let path = bench.folder.path().join("firmware.bin");
    std::fs::write(&path, (0..1000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>()).unwrap();
    let image = json!({ "path": path, "identifier": "FW1", "activate": true });
    let told = bench.ask(json!({ "object": "0-0:44.0.0*255", "image": image })).await;
    assert_eq!((&told["words"], &told["blocks"]), (&json!("activation successful"), &json!(4)));
    let log = bench.log();
    assert_eq!(log.iter().filter(|line| line.starts_with("BLOCK")).count(), 4);
    let pieces: Vec<_> = log.iter().filter(|line| line.starts_with("PIECE")).collect();
    assert!(pieces.len() == 9, "{pieces:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_value_is_written_in_blocks() {
    crate::pace::hold();
    let mut bench = Bench::new(&[("METER_PDU", "128")], "").await;
    let text: String = (0..300u32).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let (outcome, now) = bench.write("1/0-0:42.0.0*255", &text).await;
    assert_eq!((outcome, now), (WriteOutcome::Done, Some(text)));
    assert!(bench.log().iter().filter(|line| line.starts_with("PIECE")).count() >= 3, "{:?}", bench.log());
}

#[tokio::test(start_paused = true)]
async fn the_supply_is_cut_and_given_back() {
    crate::pace::hold();
    let mut bench = Bench::new(&[], "").await;
    for (word, control, output) in [("disconnect", "0", "0"), ("reconnect", "1", "1"), ("disconnect", "0", "0")] {
        assert_eq!(bench.write("0-0:96.3.10*255", word).await, (WriteOutcome::Done, Some(control.to_owned())));
        has(&bench.shown("0-0:96.3.10*255").await, "output_state", output);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limiter_a_push_setup_and_an_m_bus_client_are_shown_and_changed() {
    crate::pace::hold();
    let mut bench = Bench::new(&[("METER_MORE", "1")], "").await;
    let shown = bench.shown("0-0:17.0.0*255").await;
    has(&shown, "threshold_active", "5000");
    has(&shown, "min_over_threshold_duration", "60");
    assert_eq!(bench.write("0-0:17.0.0*255:4", "4000").await, (WriteOutcome::Done, Some("4000".to_owned())));
    has(&bench.shown("0-0:17.0.0*255").await, "threshold_normal", "4000");

    let shown = bench.shown("0-0:25.9.0*255").await;
    has(&shown, "number_of_retries", "3");
    assert!(
        shown.iter().any(|(name, value)| name == "push_object_list" && value.contains("0-0:1.0.0*255")),
        "{shown:?}"
    );

    let shown = bench.shown("0-1:24.1.0*255").await;
    has(&shown, "identification_number", "12345678");
    has(&shown, "access_number", "7");
    assert_eq!(bench.write("0-1:24.1.0*255:4", "900").await, (WriteOutcome::Done, Some("900".to_owned())));
    let told = bench.ask(json!({ "object": "0-1:24.1.0*255:10", "action": 3 })).await;
    assert_eq!((&told["outcome"], &told["now"]["value"]), (&json!("done"), &json!("8")));
    assert_eq!(bench.log().last().unwrap(), "CAPTURE 0");
}

const SHORT: &str = "dlms.referencing = \"short-names\"";

#[tokio::test(start_paused = true)]
async fn by_short_names_values_are_read_and_written_and_methods_done() {
    crate::pace::hold();
    let settings = format!("values = [\"1.8.0\", \"32.7.0\", \"9.9.9\"]\n{SHORT}");
    let mut bench = Bench::new(&[("METER_SN", "1")], &settings).await;
    let values = bench.session.read(&mut bench.line).await.unwrap();
    let told: Vec<_> = values.iter().map(|v| (v.value.as_deref(), v.unit.as_str())).collect();
    assert_eq!(told, [(Some("123456.7"), "Wh"), (Some("230.4"), "V"), (None, "")]);
    assert_eq!(bench.write("1-0:32.7.0*255", "231.5").await, (WriteOutcome::Done, Some("231.5".to_owned())));
    for (word, control) in [("disconnect", "0"), ("reconnect", "1")] {
        assert_eq!(bench.write("0-0:96.3.10*255", word).await, (WriteOutcome::Done, Some(control.to_owned())));
    }
}

#[tokio::test(start_paused = true)]
async fn by_short_names_a_part_of_a_profile_is_read() {
    crate::pace::hold();
    let settings = format!("load_profile = {{ id = \"1-0:99.1.0*255\" }}\n{SHORT}");
    let mut bench = Bench::new(&[("METER_SN", "1")], &settings).await;
    let at = |text| Timestamp::parse(text).unwrap();
    let (after, until) = (at("2026-01-01T00:45:00Z"), at("2026-01-01T02:00:00Z"));
    let hour = bench.session.profile().unwrap().read(&mut bench.line, after, until).await.unwrap();
    let told: Vec<_> = hour.iter().map(|i| (i.end.to_string(), i.values[0].value.clone().unwrap())).collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(told[0], ("2026-01-01T01:00:00Z".to_owned(), "100010.0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn several_logical_devices_behind_one_line_are_told_apart() {
    crate::pace::hold();
    let port = peers::free_port();
    let _meter = Peer::python_with("dlms_meter.py", &["--hdlc", &port.to_string()], &[("METER_DEVICES", "2")], "ready");
    for lines in ["", "address = 17", "address = 17\ndlms.address_bytes = 4"] {
        // On one connection, one after the other and back.
        let mut readers = Vec::new();
        for device in [1, 2] {
            readers.push(Reader::tcp(port, &format!("timeout = \"5s\"\n{lines}\ndlms.server = {device}")).await);
            let [first, .., last] = &mut readers[..] else {
                let [only] = &mut readers[..] else { continue };
                assert_eq!(only.name().await, "GRX0000000000001");
                continue;
            };
            let last = last.session.read(&mut first.line).await.unwrap();
            assert_eq!(last[0].value.as_deref(), Some("GRX0000000000002"), "{lines}");
            assert_eq!(first.name().await, "GRX0000000000001", "{lines}");
            break;
        }
    }
}
