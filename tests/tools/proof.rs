//! The head-end's side: real manifests of a real store, checked without the gateway.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use weir::model::{Body, Lane, Stamp, Stored, Timestamp};

use super::rig::{Gateway, frame, peek, run, stderr, stdout};

fn day(n: i64) -> Stamp {
    Stamp::synced(Timestamp::from_millis(n * 86_400_000))
}

/// A message as the gateway publishes it, one frame each.
fn message(stored: &Stored) -> String {
    let meta = json!({ "sequence": stored.sequence });
    let frame = match &stored.frame.body {
        Body::Manifest(line) => json!({ "frametype": "Manifest", "manifest": line, "meta": meta }),
        _ => json!({ "frametype": "OpenlinkIQ", "frame": "AQL/", "meta": meta }),
    };
    json!({ "version": 1, "frames": [frame] }).to_string()
}

/// Three days of a gateway: everything is delivered but the last day's frames; its messages.
fn three_days(gateway: &Gateway) -> Vec<String> {
    run(async {
        let store = gateway.open();
        let mut messages = Vec::new();
        for n in 1..=3 {
            for tag in 0..50 {
                store.append(frame(tag)).await.unwrap();
            }
            store.close_books("KAM1".into(), day(0).wall, day(n)).await.unwrap();
            let waiting = peek(&store).await;
            messages.extend(waiting.iter().map(message));
            for lane in [Lane::Priority, Lane::Ordinary] {
                let of_lane = waiting.iter().filter(|s| s.frame.lane == lane).map(|s| s.sequence).collect();
                store.commit(lane, of_lane).await.unwrap();
            }
        }
        store.close().await.unwrap();
        messages
    })
}

struct HeadEnd {
    gateway: Gateway,
    messages: Vec<String>,
}

impl HeadEnd {
    fn new() -> Self {
        let gateway = Gateway::new("KAM1", []);
        let messages = three_days(&gateway);
        Self { gateway, messages }
    }

    fn file(&self, name: &str, lines: &[String]) -> String {
        fs::write(self.gateway.path(name), lines.join("\n")).unwrap();
        self.gateway.path(name).to_str().unwrap().to_owned()
    }

    fn manifests(&self) -> Vec<String> {
        let line = |m: &String| {
            let message: Value = serde_json::from_str(m).unwrap();
            message["frames"][0]["manifest"].as_str().map(str::to_owned)
        };
        self.messages.iter().filter_map(line).collect()
    }

    /// Runs without any configuration, in a directory of its own.
    fn verify(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["--config", "/nowhere", "store", "verify"]).args(arguments).output().unwrap()
    }

    fn verdict(&self, arguments: &[&str]) -> (Value, bool) {
        let output = self.verify(&[arguments, &["--json"]].concat());
        let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        assert_eq!(output.status.success(), object["holds"] == true, "{object}");
        let holds = object["holds"] == true;
        (object, holds)
    }
}

#[test]
fn a_head_end_that_has_everything_is_told_so_and_one_lost_message_is_named() {
    let head = HeadEnd::new();
    let key = head.gateway.key();
    let all = head.file("all", &head.messages);
    let output = head.verify(&[&all, "--key", &key, "--received", &all]);
    let words = stdout(&output);
    assert!(output.status.success(), "{words}{}", stderr(&output));
    assert!(words.contains("COMPLETE: 3 manifests of KAM1 hold together; of 152 numbers 152 arrived"), "{words}");
    assert!(words.contains(&format!("{key} (pinned)")) && words.contains("1970-01-04T00:00:00Z"), "{words}");
    let (object, holds) = head.verdict(&[&all, "--received", &all]);
    assert!(holds && object["pinned"] == false && object["manifests"][2]["counts"]["received"] == 152, "{object}");

    let mut fewer = head.messages.clone();
    let lost: BTreeSet<u64> = [30, 77]
        .map(|at| serde_json::from_str::<Value>(&fewer[at]).unwrap()["frames"][0]["meta"]["sequence"].as_u64().unwrap())
        .into();
    fewer.remove(77);
    fewer.remove(30);
    fewer.push(fewer[0].clone());
    let fewer = head.file("fewer", &fewer);
    let (object, holds) = head.verdict(&[&all, "--received", &fewer]);
    let missing: BTreeSet<u64> =
        object["completeness"]["missing"].as_array().unwrap().iter().map(|s| s[0].as_u64().unwrap()).collect();
    assert!(!holds && missing == lost && object["completeness"]["repeats"] == 1, "{object}");
    let words = stdout(&head.verify(&[&all, "--received", &fewer]));
    assert!(
        lost.iter().all(|n| words.contains(&format!("MISSING {n} (1 frames)"))) && words.contains("INCOMPLETE"),
        "{words}"
    );
    // A message that another gateway carried by hand makes up for one of them.
    let lost: Vec<_> = lost.into_iter().collect();
    let meta = json!({ "sequence": 1, "origin": { "gateway": "KAM1", "sequence": lost[0] } });
    let carried = head
        .file("carried", &[json!({ "version": 1, "frames": [{ "frametype": "Reading", "meta": meta }] }).to_string()]);
    let (object, _) = head.verdict(&[&all, "--received", &fewer, "--carried", &carried]);
    assert_eq!(object["completeness"]["missing"], json!([[lost[1], lost[1], 1]]));
}

#[test]
fn manifests_come_as_lines_as_files_of_the_gateway_out_of_order_twice_and_with_topics() {
    let head = HeadEnd::new();
    let lines = head.manifests();
    let kept = fs::read_dir(head.gateway.store().join("manifests")).unwrap();
    let mut files: Vec<_> = kept.map(|e| e.unwrap().path()).collect::<Vec<PathBuf>>();
    files.sort();
    let files: Vec<_> = files.iter().map(|f| f.to_str().unwrap()).collect();
    assert!(head.verdict(&files).1);
    let mixed = [
        &lines[2..],
        &lines[..],
        &[format!("data/KAM1 {}", head.messages[50]), String::new(), "{\"connected\":1}".into()],
    ]
    .concat();
    let mixed = head.file("mixed", &mixed);
    let (object, holds) = head.verdict(&[&mixed]);
    assert!(holds && object["manifests"].as_array().unwrap().len() == 3, "{object}");
    let numbers: Vec<String> = (1..=200).map(|n: u64| n.to_string()).collect();
    assert!(head.verdict(&[&mixed, "--received", &head.file("numbers", &numbers)]).1);
}

#[test]
fn a_chain_that_goes_on_is_checked_from_the_digest_of_the_last_one() {
    let head = HeadEnd::new();
    let lines = head.manifests();
    let (first, rest) = (head.file("first", &lines[..1]), head.file("rest", &lines[1..]));
    let (object, _) = head.verdict(&[&first]);
    let digest = object["digest"].as_str().unwrap();
    assert!(head.verdict(&[&rest, "--after", digest]).1);
    let (object, holds) = head.verdict(&[&rest]);
    assert!(!holds && object["broken"].as_str().unwrap().contains("--after"), "{object}");
    let (object, holds) = head.verdict(&[&rest, "--after", &digest.replace(&digest[..1], "z").replace('z', "0")[..64]]);
    let same = digest.starts_with('0');
    assert!(same || (!holds && object["broken"].as_str().unwrap().contains("follows another manifest")), "{object}");
}

#[test]
fn what_was_changed_left_out_or_signed_by_another_is_named() {
    let head = HeadEnd::new();
    let lines = head.manifests();
    let broken = |lines: &[String], arguments: &[&str]| {
        let file = head.file("broken", lines);
        let (object, holds) = head.verdict(&[&[file.as_str()][..], arguments].concat());
        assert!(!holds, "{object}");
        let output = head.verify(&[&[file.as_str()][..], arguments].concat());
        assert!(stdout(&output).lines().last().unwrap().starts_with("BROKEN: "), "{}", stdout(&output));
        object["broken"].as_str().unwrap().to_owned()
    };
    let forged = lines[1].replace("\\\"acknowledged\\\":51", "\\\"acknowledged\\\":52");
    assert_ne!(forged, lines[1], "{forged}");
    assert!(broken(&[lines[0].clone(), forged], &[]).contains("signature is wrong"));
    assert!(broken(&[lines[0].clone(), lines[2].clone()], &[]).contains("manifest 2 is missing"));
    let other = HeadEnd::new();
    assert!(broken(&lines, &["--key", &other.gateway.key()]).contains("signed by another key"));
    assert!(broken(&[lines[0].clone(), other.manifests()[1].clone()], &[]).contains("signed by another key"));

    let told = stderr(&head.verify(&[&head.file("none", &["{\"connected\":1}".into()])]));
    assert!(told.contains("there is no manifest"), "{told}");
    let told = stderr(&head.verify(&[&head.file("rubbish", &["rubbish".into()])]));
    assert!(told.contains("rubbish:1: this is no signed manifest"), "{told}");
    assert!(stderr(&head.verify(&["/nowhere/at/all"])).contains("/nowhere/at/all"));
    assert_eq!(head.verify(&[]).status.code(), Some(64));
}

#[test]
fn openssl_confirms_the_signature_with_the_commands_of_the_manual() {
    let head = HeadEnd::new();
    let lines = head.manifests();
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manifest.md")).unwrap();
    let commands = manual.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    let confirm = |line: &str| {
        fs::write(head.gateway.path("line.json"), line).unwrap();
        let mut shell = Command::new("sh");
        let output = shell.args(["-e", "-c", commands]).current_dir(head.gateway.directory.path()).output().unwrap();
        let missing = output.status.code() == Some(127);
        assert!(!missing, "{}: run tests/run, which installs openssl and jq", stderr(&output));
        output
    };
    let second = confirm(&lines[1]);
    assert!(second.status.success(), "{}{}", stdout(&second), stderr(&second));
    assert!(stdout(&second).contains("Signature Verified Successfully"), "{}", stdout(&second));
    assert!(!confirm(&lines[1].replace("KAM1", "KAM2")).status.success());
    let (first, second): (Value, Value) =
        (serde_json::from_str(&lines[0]).unwrap(), serde_json::from_str(&lines[1]).unwrap());
    let sum = stdout(&confirm(&first.to_string()));
    let manifest: Value = serde_json::from_str(second["manifest"].as_str().unwrap()).unwrap();
    assert!(sum.contains(manifest["previous"].as_str().unwrap()), "{sum}");
}
