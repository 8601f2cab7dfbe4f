//! New firmware for a meter through the running agent, between its readings.

use std::fs;

use super::peers::{self, Peer};
use super::rig::{Home, stderr, stdout, until};

#[tokio::test]
async fn a_running_agent_gives_a_meter_new_firmware_and_goes_on_reading() {
    let home = Home::new();
    let port = peers::free_port().to_string();
    let log = home.path("meter.log");
    let variables = [("METER_LOG", log.to_str().unwrap()), ("METER_KEEP", "1"), ("METER_KILL", "8")];
    let _meter = Peer::python_with("dlms_meter.py", &["--wrapper", &port], &variables, "ready");
    home.configure(
        "url = \"tcp://127.0.0.1:1\"",
        &format!(
            "[[port]]\nname = \"bus\"\ndevice = \"tcp://127.0.0.1:{port}\"\n[[meter]]\nname = \"incomer\"\nport = \"bus\"\n\
             protocol = \"dlms\"\nevery = \"1s\"\ntimeout = \"5s\"\nvalues = [\"0-0:42.0.0*255\"]\ndlms.link = \"wrapper\"\n"
        ),
    );
    fs::write(home.path("firmware.bin"), vec![7; 1000]).unwrap();
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let firmware = home.path("firmware.bin");
    let order = ["dlms", "incomer", "0-0:44.0.0*255", "--image", firmware.to_str().unwrap(), "--activate", "--yes"];
    let output = home.weir(&order);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "0-0:44.0.0*255: 16 blocks are there; activation successful\n");
    let told = fs::read_to_string(&log).unwrap();
    assert_eq!(told.lines().filter(|line| line.starts_with("BLOCK")).count(), 16, "{told}");
    // It reads on, over a connection that works.
    let associations = told.lines().filter(|line| line.starts_with("AARQ")).count();
    until("the meter is read again", || {
        let now = fs::read_to_string(&log).unwrap();
        now.lines().filter(|line| line.starts_with("AARQ")).count() > associations + 1
    })
    .await;
    let output = home.weir(&["read", "incomer"]);
    assert!(output.status.success(), "{}", stderr(&output));
    // What the agent may not read is said in a sentence that tells what to do.
    let order = ["dlms", "incomer", "0-0:44.0.0*255", "--image", "/nowhere/firmware.bin", "--yes"];
    let output = home.weir(&order);
    assert!(!output.status.success() && stderr(&output).contains("/nowhere/firmware.bin"), "{}", stderr(&output));
    assert!(stderr(&output).contains("the agent's user must be able to read it"), "{}", stderr(&output));
    agent.stop().await;
}
