//! `weir report` beside a running agent: what the agent holds is read through it, not called a failure.

use serde_json::Value;
use weir::os::clock;
use weir::sim::dlms_meter::{Content, Control, Options, serve_wrapper};
use weir::sim::modbus_meter::{Fault, ModbusMeters};
use weir::sim::push_meter::{Kind, PushMeter};
use weir::sim::radio_replay::{Lines, RadioReplay};

use super::peers;
use super::rig::{Home, stderr, until, weir};

async fn report(home: &Home) -> Value {
    let mut command = weir();
    command.arg("--config").arg(home.config()).args(["report", "--json", "--rounds", "2"]);
    let output = peers::run(&mut command).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)))
}

fn check<'a>(sheet: &'a Value, subject: &str) -> &'a Value {
    let checks = sheet["checks"].as_array().unwrap();
    checks.iter().find(|c| c["subject"] == subject).unwrap_or_else(|| panic!("no {subject}: {sheet:#}"))
}

fn told<'a>(sheet: &'a Value, subject: &str) -> (&'a str, &'a str) {
    let check = check(sheet, subject);
    (check["verdict"].as_str().unwrap(), check["told"].as_str().unwrap())
}

#[tokio::test]
async fn a_report_beside_the_agent_reads_its_meters_and_tells_what_its_receivers_heard() {
    let home = Home::new();
    let meters = ModbusMeters::new(&[1, 2]);
    let (bus, _served) = meters.serve_rtu().unwrap();
    meters.set_fault(2, Some(Fault::Silent));
    let pushing = PushMeter::open(Kind::P1, std::time::Duration::from_millis(500)).unwrap();
    let head = pushing.path().to_owned();
    tokio::spawn(pushing.run());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let dlms = listener.local_addr().unwrap();
    let content = Content { name: "WEI0000000000001".to_owned(), rows: 10, channels: 3, ..Content::default() };
    let options = Options { devices: vec![(1, 0, content)], ..Options::default() };
    tokio::spawn(serve_wrapper(listener, options, Control::default()));
    let lines = home.path("lines");
    std::fs::write(&lines, RadioReplay::new(Lines::HexLines).next(clock::now()).text).unwrap();
    let meter = |name: &str, address: u8, limit: &str| {
        format!(
            "[[meter]]\nname = \"{name}\"\nport = \"bus\"\nprotocol = \"modbus-rtu\"\naddress = {address}\ntimeout = \"{limit}\"\n\
             retries = 0\nregister = [{{ name = \"first\", register = \"holding:0\" }}]\n"
        )
    };
    home.configure(
        "url = \"tcp://127.0.0.1:1\"",
        &format!(
            "[[port]]\nname = \"bus\"\ndevice = \"{}\"\n[[port]]\nname = \"head\"\ndevice = \"{}\"\nbaud = 115200\n\
             [[port]]\nname = \"net\"\ndevice = \"tcp://{dlms}\"\n{}{}\
             [[meter]]\nname = \"incomer\"\nport = \"net\"\nprotocol = \"dlms\"\nvalues = [\"1-0:1.8.0*255\"]\ndlms = {{ link = \"wrapper\" }}\n\
             [[meter]]\nname = \"house\"\nport = \"head\"\nprotocol = \"dsmr-p1\"\n\
             [[radio]]\nname = \"roof\"\nreceiver = \"hex-lines\"\ncommand = [\"sh\", \"-c\", \"cat {}; exec sleep 600\"]\n\
             [[radio]]\nname = \"deaf\"\nreceiver = \"hex-lines\"\ncommand = [\"sleep\", \"600\"]\n",
            bus.display(),
            head.display(),
            meter("one", 1, "20s"),
            meter("two", 2, "200ms"),
            lines.display()
        ),
    );
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    until("the pushing meter and the receiver were heard", || {
        let read = home.weir(&["read", "house"]).status.success();
        let statement = agent.is_running();
        read && statement
    })
    .await;

    let sheet = report(&home).await;
    assert_eq!(sheet["report"]["agent"], "running");
    let (verdict, words) = told(&sheet, "meter one");
    assert!(verdict == "PASS" && words.contains("2 of 2 readings"), "{words}");
    assert_eq!(check(&sheet, "meter one")["values"][0]["value"], "1000");
    let (verdict, words) = told(&sheet, "meter two");
    assert!(verdict == "FAIL" && words.contains("running agent"), "{words}");
    assert!(!check(&sheet, "meter two")["todo"].as_str().unwrap().contains("stop it"));
    let (verdict, words) = told(&sheet, "port bus");
    assert!(verdict == "PASS" && words.contains("belongs to the running agent"), "{words}");
    let (verdict, words) = told(&sheet, "meter house");
    assert!(verdict == "PASS" && words.contains("newest message"), "{words}");
    let values = check(&sheet, "meter house")["values"].as_array().unwrap();
    assert!(values.iter().any(|value| value["name"] == "1-0:1.8.1" && value["quality"] == "good"), "{values:?}");
    let (verdict, words) = told(&sheet, "meter incomer");
    assert!(verdict == "PASS" && words.starts_with("WEI 0000000000001"), "a DLMS meter is asked who it is: {words}");
    let (verdict, words) = told(&sheet, "receiver roof");
    assert!(verdict == "PASS" && words.contains("1 telegram heard"), "{words}");
    let (verdict, words) = told(&sheet, "receiver deaf");
    assert!(verdict == "FAIL" && words.contains("source is open; 0 telegrams"), "{words}");
    agent.stop().await;

    // Without the agent the same sheet opens everything itself.
    let mut command = weir();
    command.arg("--config").arg(home.config()).args(["report", "--json", "--rounds", "1", "--listen", "10"]);
    let output = peers::run(&mut command).await;
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)));
    assert_eq!(told(&sheet, "meter one").0, "PASS");
    let (verdict, words) = told(&sheet, "meter house");
    assert!(verdict == "PASS" && words.contains("dsmr-p1 heard at 115200"), "{words}");
    let values = check(&sheet, "meter house")["values"].as_array().unwrap();
    assert!(values.iter().any(|value| value["name"] == "1-0:1.8.1" && value["quality"] == "good"), "{values:?}");
    let (verdict, words) = told(&sheet, "receiver roof");
    assert!(verdict == "PASS" && words.contains("1 telegram within 10 s"), "{words}");
    assert_eq!(check(&sheet, "receiver roof")["detail"]["different"], 1);
    let (verdict, words) = told(&sheet, "receiver deaf");
    assert!(verdict == "FAIL" && words.contains("0 telegrams within 10 s"), "{words}");
}
