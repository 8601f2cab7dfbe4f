//! The local door: a running agent is asked from its own machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::peers::Peer;
use super::rig::{Home, stderr, stdout, until, weir};

const METERS: &str = "
[[meter]]
name = \"incomer\"
port = \"bus\"
protocol = \"modbus-rtu\"
every = \"1s\"
timeout = \"300ms\"
register = [{ name = \"voltage\", register = \"holding:100\", type = \"f32\", unit = \"V\" }]
[[meter]]
name = \"dead\"
port = \"bus\"
protocol = \"modbus-rtu\"
address = 9
every = \"1s\"
timeout = \"100ms\"
retries = 0
register = [{ name = \"level\", register = \"holding:3\" }]
";

struct Site {
    home: Home,
    _line: Peer,
    _bus: Peer,
}

fn site() -> Site {
    let home = Home::new();
    let (line, ours, theirs) = Peer::socat_pair(home.directory.path());
    let bus = Peer::python("modbus_meter.py", &["rtu", theirs.to_str().unwrap()], "ready");
    home.configure(
        "url = \"tcp://127.0.0.1:1\"",
        &format!("[[port]]\nname = \"bus\"\ndevice = \"{}\"\n{METERS}", ours.display()),
    );
    Site { home, _line: line, _bus: bus }
}

fn meters(home: &Home) -> Value {
    let output = home.weir(&["meters", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_running_agent_tells_reads_and_is_traced_beside_its_own_work() {
    let site = site();
    let home = &site.home;
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    until("both meters were asked", || {
        let told = meters(home);
        told["incomer"]["answers"].as_u64() > Some(1) && told["dead"]["timeouts"].as_u64() > Some(0)
    })
    .await;
    let told = meters(home);
    assert_eq!((told["incomer"]["port"].as_str(), told["incomer"]["failing"].as_u64()), (Some("bus"), Some(0)));
    assert!(told["dead"]["last_error"].as_str().unwrap().contains("no answer"), "{told}");
    let table = stdout(&home.weir(&["meters"]));
    let line = |name: &str| table.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{table}")).to_owned();
    assert!(line("incomer").contains(" ok ") && line("dead").contains("failing"), "{table}");
    assert!(!table.contains('\u{1b}'), "colours without a terminal");

    let output = home.weir(&["read", "incomer"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "name     value  unit\nvoltage  230.5  V\n");
    let output = home.weir(&["read", "dead"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("\"dead\""), "{}", stderr(&output));

    let output = home.weir(&["trace", "bus", "--seconds", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let wanted =
        ["-> sent 8 bytes", "01 03 00 64 00 02 85 d4", "2 from 100 on; CRC right", "<- received 9 bytes", "answer to"];
    assert!(wanted.iter().all(|w| text.contains(w)), "{text}");
    assert!(stderr(&output).contains("beside the running agent"), "{}", stderr(&output));
    let output = home.weir(&["trace", "bus", "--json", "--seconds", "3"]);
    let bursts: Vec<Value> = stdout(&output).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(bursts.iter().any(|b| b["what"] == "sent" && b["hex"] == "01030064000285d4"), "{bursts:?}");
    let output = home.weir(&["trace", "nowhere"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("it asks on: bus"), "{}", stderr(&output));
    assert!(agent.is_running());
    agent.stop().await;
}

#[tokio::test]
async fn a_trace_goes_on_when_the_agent_is_started_again() {
    let site = site();
    let home = &site.home;
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let mut command = weir();
    command.arg("--config").arg(home.config()).args(["trace", "bus", "--seconds", "60"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut at = 0.0;
    let mut until_shown = |wanted: &str| {
        let line = lines.find(|line| line.contains(wanted)).unwrap_or_else(|| panic!("no {wanted} was shown"));
        let now: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        assert!(now >= at, "the time goes back to {now} from {at}");
        at = now;
    };
    until_shown("-> sent");
    agent.stop().await;
    until_shown("waiting for it");
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    until_shown("-> sent");
    child.kill().unwrap();
    child.wait().unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn the_door_is_its_users_own_and_an_earlier_ones_remains_are_replaced() {
    let site = site();
    let home = &site.home;
    let output = home.weir(&["meters"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no agent runs here"), "{}", stderr(&output));
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let socket = home.path("store").join("weir.sock");
    until("the socket is there", || socket.exists()).await;
    let metadata = socket.metadata().unwrap();
    assert!(metadata.file_type().is_socket() && metadata.permissions().mode() & 0o777 == 0o600, "{metadata:?}");
    agent.kill().await;
    assert!(socket.exists(), "a killed agent leaves its socket behind");
    assert!(stderr(&home.weir(&["meters"])).contains("no agent runs here"));
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    until("it is asked again", || home.weir(&["meters"]).status.success()).await;
    agent.stop().await;
}

#[tokio::test]
async fn clients_that_misbehave_hold_nobody_up() {
    let site = site();
    let home = &site.home;
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let socket = home.path("store").join("weir.sock");
    until("the socket is there", || socket.exists()).await;
    let ask = |text: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(text);
        let mut line = String::new();
        let _ = BufReader::new(&stream).read_line(&mut line);
        line
    };
    assert!(ask(b"nonsense\n").contains("error"));
    assert!(ask(&[0xFF, b'\n']).is_empty(), "what is no text is hung up on");
    assert!(ask(&vec![b'x'; 300_000]).contains("one line of at most 262144 bytes"));
    assert!(ask(b"{\"ask\":\"read\",\"meter\":\"nobody\"}\n").contains("known: incomer, dead"));
    // Eight that say nothing: the ninth is told so.
    let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    until("the door is full", || ask(b"").contains("8 others are asking already")).await;
    drop(silent);
    until("there is room again", || home.weir(&["meters"]).status.success()).await;
    assert!(agent.is_running());
    agent.stop().await;
}

#[tokio::test]
async fn without_an_agent_a_trace_listens_and_sends_nothing() {
    let home = Home::new();
    let (_line, ours, theirs) = Peer::socat_pair(home.directory.path());
    home.configure(
        "url = \"tcp://127.0.0.1:1\"",
        &format!("[[port]]\nname = \"bus\"\ndevice = \"{}\"\n{METERS}", ours.display()),
    );
    let mut child = weir()
        .arg("--config")
        .arg(home.config())
        .args(["trace", "bus", "--seconds", "20"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("nothing is sent"), "{told}");
    // Whoever is on the line: cat tells what the trace sends.
    let mut heard = Command::new("cat").arg(&theirs).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (mut words, mut line) = (String::new(), std::fs::File::options().write(true).open(&theirs).unwrap());
    // The trace may open the line a little later than it says so: the request comes until it is seen.
    let writer = std::thread::spawn(move || {
        while line.write_all(&[1, 3, 0, 100, 0, 2, 133, 212]).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
    while !words.contains("CRC right") {
        words += &shown.next().unwrap_or_else(|| panic!("{words}"));
    }
    assert!(words.contains("<- received 8 bytes") && !words.contains("sent"), "{words}");
    child.kill().unwrap();
    child.wait().unwrap();
    heard.kill().unwrap();
    let output = heard.wait_with_output().unwrap();
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    drop(_line);
    writer.join().unwrap();
}
