//! Passwords and keys that are given to a meter stand in no answer, no error, no log and no trace; new keys are wrapped.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use weir::meter::bus::{self, Meter, Port};
use weir::meter::{Health, MeterSettings};
use weir::os::clock::Clock;
use weir::os::line::{Endpoint, Framing, Speed, What};
use weir::wire::dlms::{Conformance, DataBuf};

use crate::association::{Bench, CIPHERED};
use crate::scripted::{self, Nature};

const SECRET: &[u8] = b"Top-Secret-42";

/// What the log holds.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Has orders carried out by a bus, with everything that its line and its log show.
async fn ordered(meter: &scripted::Meter, orders: &[Json]) -> (Vec<Result<Json, String>>, Vec<u8>) {
    let page = Page::default();
    let writer = page.clone();
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(log.finish());
    let text = "name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\nevery = \"1d\"\ntimeout = \"2s\"\n\
                values = [\"15/0-0:40.0.0*255:7\"]\ndlms.link = \"wrapper\"";
    let settings = MeterSettings::parse(text).unwrap();
    let endpoint = Endpoint::parse(&format!("tcp://127.0.0.1:{}", meter.port));
    let port = Port::plain("p", endpoint, Speed { baud: 9600, framing: Framing::EIGHT_N_ONE });
    let (frames, mut taken) = mpsc::channel(8);
    let (door, inbox) = bus::Handle::new("p");
    let mut tap = door.tap().listen();
    let meters = vec![Meter::new(&settings).unwrap()];
    let work = async {
        let mut answers = Vec::new();
        for order in orders {
            answers.push(door.inspect("m", order.clone()).await);
        }
        let values = door.read("m").await;
        assert!(!format!("{values:?}").contains("Top-Secret"), "{values:?}");
        answers
    };
    let mut seen = Vec::new();
    let answers = tokio::select! {
        answers = work => answers,
        () = bus::run(port, meters, frames, inbox, Clock::system(), Health::new()) => unreachable!(),
        () = async { while taken.recv().await.is_some() {} } => unreachable!(),
        () = async {
            while let Some(event) = tap.next().await {
                if let What::Sent(bytes) | What::Received(bytes) = event.what {
                    seen.extend_from_slice(&bytes);
                }
            }
        } => unreachable!(),
    };
    seen.extend_from_slice(&page.0.lock().unwrap());
    (answers, seen)
}

#[tokio::test(start_paused = true)]
async fn a_password_that_is_set_is_shown_nowhere_and_never_read() {
    crate::pace::hold();
    let mut nature = Nature::with(BTreeMap::new());
    nature.granted |= Conformance::SET | Conformance::ACTION | Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE;
    let association = [0, 0, 40, 0, 0, 255];
    nature.objects.insert((15, association, 7), DataBuf::OctetString(SECRET.to_vec()));
    let meter = scripted::Meter::start(nature, usize::MAX, scripted::Fault::None).await;
    let text = "visible-string:Top-Secret-42";
    let (answers, seen) = ordered(
        &meter,
        &[
            json!({ "object": "15/0-0:40.0.0*255:7", "set": text }),
            json!({ "object": "15/0-0:40.0.0*255", "action": 2, "parameter": text }),
            json!({ "object": "72/0-1:24.1.0*255", "action": 7, "parameter": text }),
            // What can't be read is not shown either.
            json!({ "object": "15/0-0:40.0.0*255:7", "set": "octet-string:Top-Secret-42" }),
            json!({ "object": "15/0-0:40.0.0*255", "action": 2, "parameter": "Top-Secret-42" }),
            json!({ "object": "15/0-0:40.0.0*255:7" }),
            json!({ "object": "15/0-0:40.0.0*255" }),
        ],
    )
    .await;
    assert_eq!(answers[0].as_ref().unwrap()["outcome"], "unverified");
    assert!(answers[3].as_ref().unwrap_err().contains("octet-string:00ff"), "{answers:#?}");
    assert!(answers[5].as_ref().unwrap_err().contains("never shown"), "{answers:#?}");
    assert!(!format!("{answers:?}").contains("Top-Secret"), "{answers:#?}");
    // The meter got them.
    let heard = meter.heard();
    assert_eq!(heard.iter().filter(|apdu| contains(apdu, SECRET)).count(), 3, "{heard:?}");
    assert!(!heard.iter().any(|apdu| apdu.starts_with(&[0xC0]) && contains(apdu, &[0, 15, 0, 0, 40, 0, 0, 255, 7])));
    // And nobody else: neither as they are, nor as a log shows bytes.
    let listed = SECRET.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    assert!(contains(&seen, b"bytes=") || contains(&seen, &[0xC0, 1]), "something was seen");
    assert!(!contains(&seen, SECRET) && !contains(&seen, listed.as_bytes()));
}

const KEK: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
const NEW_KEY: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";
const NEW_AUTHENTICATION: &str = "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf";

fn weir(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("--config").arg(folder.join("weir.toml")).args(["--log", "trace", "dlms", "m"]).args(arguments);
    command.output().unwrap()
}

#[test]
fn new_keys_reach_a_meter_wrapped_and_are_shown_nowhere() {
    // The meter unwraps them with the library "cryptography".
    let bench = Bench::new(&[("METER_KEK", KEK)]);
    let folder = bench.path("");
    let file = |name: &str, content: &str, mode| {
        std::fs::write(folder.join(name), content).unwrap();
        std::fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
        folder.join(name).display().to_string()
    };
    let (master, wrong) = (file("kek", KEK, 0o600), file("wrong", NEW_KEY, 0o600));
    let (key, authentication) = (file("new-key", NEW_KEY, 0o600), file("new-auth", NEW_AUTHENTICATION, 0o600));
    let meter = bench.text(1, "gmac", CIPHERED).replace("[dlms]", "[meter.dlms]");
    let text = format!(
        "version = 1\n[gateway]\nid = \"g\"\n[broker]\nurl = \"tcp://127.0.0.1:1\"\n[store]\npath = {:?}\n\
         [[port]]\nname = \"p\"\ndevice = \"tcp://127.0.0.1:{}\"\n[[meter]]\n{meter}",
        folder.join("store"),
        bench.port,
    );
    std::fs::write(folder.join("weir.toml"), text).unwrap();
    let (encryption, authentication) = (format!("encryption={key}"), format!("authentication={authentication}"));
    let keys = ["0-0:43.0.0*255", "--transfer-key", &encryption, "--transfer-key", &authentication];
    let with = |more: &[&str]| weir(&folder, &[&keys[..], more].concat());
    let told = |output: &Output| {
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for shown in [KEK, NEW_KEY, NEW_AUTHENTICATION, "160, 161, 162", "a0 a1 a2", "176, 177, 178"] {
            assert!(!told.to_lowercase().contains(shown), "{shown} in {told}");
        }
        told
    };
    // Nothing is changed without --yes, without the master key, with another one, or with a key that others may read.
    assert_eq!(with(&["--master-key", &master]).status.code(), Some(64));
    assert_eq!(with(&["--yes"]).status.code(), Some(64));
    assert!(told(&with(&["--master-key", &wrong, "--yes"])).contains("the meter refused"));
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    assert!(told(&with(&["--master-key", &master, "--yes"])).contains("set its mode to 0600"));
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.count("KEY"), 0);
    let done = with(&["--master-key", &master, "--yes"]);
    assert!(done.status.success() && told(&done).contains("the meter took the keys"), "{}", told(&done));
    assert_eq!(bench.count("KEY"), 2, "{:?}", bench.log());
    // It goes by them from now on.
    let name = ["0-0:42.0.0*255", "--attribute", "2"];
    assert!(!weir(&folder, &name).status.success());
    std::fs::copy(folder.join("new-key"), folder.join("key")).unwrap();
    std::fs::copy(folder.join("new-auth"), folder.join("authentication")).unwrap();
    let read = weir(&folder, &name);
    assert!(told(&read).contains("GRX0000000000001"), "{}", told(&read));
    // And a policy.
    let policy = weir(&folder, &["0-0:43.0.0*255", "--security-policy", "3", "--yes"]);
    assert!(told(&policy).contains("the meter took the policy"), "{}", told(&policy));
    assert_eq!(bench.count("POLICY 3"), 1, "{:?}", bench.log());
}

#[tokio::test(start_paused = true)]
async fn a_key_change_leaves_no_association_on_the_connection() {
    crate::pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (master, key) = (file("kek", KEK), file("key", NEW_KEY));
    let keys = json!({ "keys": [{ "key": "encryption", "file": key }], "master": master });
    let late = scripted::Fault::Late(std::time::Duration::from_secs(4));
    for (rekey, fault) in [(keys, scripted::Fault::None), (json!({ "policy": 3 }), late)] {
        let mut nature = Nature::with(BTreeMap::new());
        nature.granted |= Conformance::ACTION;
        let meter = scripted::Meter::start(nature, 1, fault).await;
        let (answers, _) = ordered(&meter, &[json!({ "object": "0-0:43.0.0*255", "rekey": rekey })]).await;
        println!("{answers:?} {} {:?}", meter.connections(), meter.heard());
        assert!(answers[0].as_ref().unwrap_err().contains("not known whether"), "{answers:?}");
        assert_eq!(meter.connections(), 2, "{:?}", meter.heard());
    }
}
