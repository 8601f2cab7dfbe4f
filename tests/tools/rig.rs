//! What these tests share: a gateway's directory with a store, and the binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use weir::model::{Body, Frame, Lane, Origin, Sequence, Stamp, Stored, Telegram, TelegramKind, Timestamp};
use weir::setting::Size;
use weir::store::key::{Key, path_in};
use weir::store::{Store, StoreSettings, SyncPolicy};

/// A gateway: a configuration and a store.
pub struct Gateway {
    pub id: &'static str,
    pub directory: tempfile::TempDir,
    pub max: u64,
}

pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

/// Two of each lane in twenty, of many sizes; `tag` tells them apart.
pub fn frame(tag: u64) -> Frame {
    let lane = if tag.is_multiple_of(10) { Lane::Priority } else { Lane::Ordinary };
    let mut bytes = tag.to_be_bytes().to_vec();
    bytes.resize(20 + (tag * 37 % 400) as usize, tag as u8);
    let body = Body::Telegram(Telegram { kind: TelegramKind::OpenlinkIq, bytes, rssi: None, corrected_bits: 0 });
    Frame { time: Stamp::synced(Timestamp::from_millis(tag as i64)), lane, body, origin: None }
}

pub fn tag(frame: &Frame) -> u64 {
    let Body::Telegram(telegram) = &frame.body else { panic!("no telegram: {frame:?}") };
    u64::from_be_bytes(telegram.bytes[..8].try_into().unwrap())
}

impl Gateway {
    /// A gateway with the frames `tags` waiting, and a key.
    pub fn new(id: &'static str, tags: impl IntoIterator<Item = u64>) -> Self {
        let gateway = Self { id, directory: tempfile::tempdir().unwrap(), max: 64 << 20 };
        gateway.configure();
        gateway.feed(tags);
        Key::open_or_create(&path_in(&gateway.store())).unwrap();
        gateway
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn configure(&self) {
        let text = format!(
            "version = 1\n[gateway]\nid = \"{}\"\n[broker]\nurl = \"tcp://127.0.0.1:1\"\n[store]\npath = \"{}\"\nmax_size = \"{}KiB\"\n",
            self.id,
            self.store().display(),
            self.max >> 10
        );
        fs::write(self.path("weir.toml"), text).unwrap();
    }

    pub fn settings(&self) -> StoreSettings {
        StoreSettings {
            path: self.store(),
            max_size: Size::from_bytes(self.max),
            sync: SyncPolicy::Every(std::time::Duration::from_millis(50)),
        }
    }

    pub fn open(&self) -> Store {
        Store::open(&self.settings()).unwrap()
    }

    /// Appends frames and closes the store again.
    pub fn feed(&self, tags: impl IntoIterator<Item = u64>) {
        run(async {
            let store = self.open();
            for tag in tags {
                store.append(frame(tag)).await.unwrap();
            }
            store.close().await.unwrap();
        });
    }

    /// What waits, by number; each lane in order.
    pub fn waiting(&self) -> BTreeMap<Sequence, Frame> {
        run(async {
            let store = self.open();
            let all = peek(&store).await;
            store.close().await.unwrap();
            all.into_iter().map(|s| (s.sequence, s.frame)).collect()
        })
    }

    /// What waits, by where it comes from: repeats of one origin are a failure.
    pub fn by_origin(&self) -> BTreeMap<(String, Sequence), u64> {
        let mut all = BTreeMap::new();
        for (number, found) in self.waiting() {
            let own = Origin { gateway: self.id.into(), sequence: number };
            let origin = found.origin.clone().unwrap_or(own);
            let before = all.insert((origin.gateway, origin.sequence), tag(&found));
            assert!(before.is_none(), "frame {} is there twice", tag(&found));
            assert_eq!(Frame { origin: None, ..found.clone() }, frame(tag(&found)), "time, lane or content changed");
        }
        all
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("--config").arg(self.path("weir.toml")).arg("store").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `weir store ...` with this gateway's configuration.
    pub fn weir(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The JSON object of a command that succeeds.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.weir(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The sentence of a command that fails with exit code 1.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.weir(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
        stderr(&output)
    }

    pub fn export(&self, name: &str) -> PathBuf {
        let file = self.path(name);
        self.json(&["export", "--to", file.to_str().unwrap()]);
        file
    }

    pub fn key(&self) -> String {
        self.json(&["key"])["key"].as_str().unwrap().to_owned()
    }
}

pub async fn peek(store: &Store) -> Vec<Stored> {
    let mut all = Vec::new();
    for lane in [Lane::Priority, Lane::Ordinary] {
        let mut after = 0;
        loop {
            let more = store.peek(lane, after, 500).await.unwrap();
            let Some(last) = more.last() else { break };
            after = last.sequence;
            all.extend(more);
        }
    }
    all
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
