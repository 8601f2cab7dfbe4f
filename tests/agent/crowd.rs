//! A street of twelve thousand meters: the running agent tells of all of them in pages.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::rig::{Home, radio, stderr, stdout, until};

const METERS: u32 = 12_000;
/// What pages may cost the agent in memory; twice what they did when this was written (2,000 to 2,100 KiB).
const MOST_KIB: u64 = 4096;

/// A line of `/proc/PID/status` in KiB.
fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn twelve_thousand_meters_are_told_of_in_pages_and_none_is_missing() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    home.configure("url = \"tcp://127.0.0.1:1\"", &radio("roof", "hex-lines", port));
    let mut agent = home.run("info");
    let (mut source, _) = listener.accept().await.unwrap();
    let mut lines = String::new();
    for meter in 0..METERS {
        let digits =
            data_encoding::HEXLOWER.encode(&u32::from_str_radix(&meter.to_string(), 16).unwrap().to_le_bytes());
        lines += &format!("0e442d2c{digits}1b167a01000005;-{}\n", 60 + meter % 40);
    }
    source.write_all(lines.as_bytes()).await.unwrap();
    until("everybody was heard", || {
        let mut agent = UnixStream::connect(home.path("store/weir.sock")).unwrap();
        agent.write_all(b"{\"ask\":\"receivers\"}\n").unwrap();
        let mut answer = String::new();
        BufReader::new(agent).read_line(&mut answer).unwrap();
        // Not before the desk has let them all go: what it learns of a meter is no part of an answer.
        answer.contains(&format!("\"forwarded\":{METERS}"))
    })
    .await;

    // Memory before the first question: what is asked for later may fit into what an earlier answer left.
    let pid = agent.pid();
    fs::File::create(format!("/proc/{pid}/clear_refs")).unwrap().write_all(b"5").unwrap();
    let before = memory(pid, "VmHWM:");
    let told: Value = serde_json::from_slice(&home.weir(&["radio", "--json"]).stdout).unwrap();
    let mut names: Vec<_> = told["meters"].as_array().unwrap().iter().map(|m| m["meter"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), names[0], names[11_999]), (12_000, "KAM.00000000.1b.16", "KAM.00011999.1b.16"));
    let grown = memory(pid, "VmHWM:").saturating_sub(before);
    println!("the answer cost the agent {grown} KiB");
    assert!(grown < MOST_KIB, "{grown} KiB");

    let table = stdout(&home.weir(&["radio"]));
    assert!(table.ends_with("\n12000 meters\n"), "{}", &table[table.len() - 200..]);
    assert_eq!(table.lines().filter(|line| line.starts_with("KAM.")).count(), 12_000);

    let file = home.path("survey.txt");
    let output = home.weir(&["radio", "--report", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("12000 meters, 1500 of them at the edge"), "{}", stdout(&output));
    let survey = fs::read_to_string(&file).unwrap();
    assert!(survey.contains("\nAt the edge") && survey.contains("\nAll meters"));
    let output = home.weir(&["radio", "--report", "-", "--json"]);
    let survey: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(survey["summary"]["at_edge"], 1500);
    assert_eq!(survey["receivers"]["roof"]["meters_alone"], METERS);
    agent.stop().await;
}
