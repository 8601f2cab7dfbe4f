//! Where seeds come from: our fixtures, and what was recorded of real devices and lies beside the checkout
//! (`WEIR_DATA`). Nothing recorded is kept in the project.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use weir::wire::wmbus::format::{self, FrameFormat};

pub type Seeds = Vec<Vec<u8>>;

/// Bytes of devices, by what they are.
#[derive(Default)]
pub struct Sources {
    /// Wireless M-Bus telegrams in the normal form, each with its key or zeros.
    pub telegrams: Vec<([u8; 16], Vec<u8>)>,
    pub mbal: Seeds,
    /// OpenlinkIQ frames from behind the sync word.
    pub on_air: Seeds,
    /// Frames of wired M-Bus.
    pub wired: Seeds,
    /// Messages of P1 ports.
    pub p1: Seeds,
    /// Streams of DLMS pushes, each with its two keys or zeros.
    pub pushes: Vec<([u8; 32], Vec<u8>)>,
    /// Whether recordings were found.
    pub recorded: bool,
}

pub fn bytes_of(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap_or_default()
}

/// The files of a folder, in order; none when it is not there.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

impl Sources {
    /// Reads the fixtures of the project in `root`, and the recordings if they are beside it.
    pub fn read(root: &Path) -> Self {
        let mut found = Self::default();
        for (folder, seeds) in [("mbal", &mut found.mbal), ("openlinkiq-rf", &mut found.on_air)] {
            let cases = files(&root.join("tests/fixtures").join(folder), "");
            seeds.extend(
                cases.iter().filter_map(|case| Some(bytes_of(&fs::read_to_string(case.join("input.hex")).ok()?))),
            );
        }
        for case in files(&root.join("tests/fixtures/wmbus"), "") {
            let bytes = bytes_of(&fs::read_to_string(case.join("input.hex")).unwrap_or_default());
            let telegram = [FrameFormat::A, FrameFormat::B].iter().find_map(|form| format::decode(*form, &bytes).ok());
            found.telegrams.push(([0; 16], telegram.unwrap_or(bytes)));
        }
        let given = std::env::var_os("WEIR_DATA").map(PathBuf::from);
        let places = [given, Some(root.join("../shared/data")), Some("/work/shared/data".into())];
        if let Some(data) = places.into_iter().flatten().find(|place| place.is_dir()) {
            found.recordings(&data);
        }
        found
    }

    fn recordings(&mut self, data: &Path) {
        self.recorded = true;
        for line in fs::read_to_string(data.join("wmbus/telegrams.jsonl")).unwrap_or_default().lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            let bytes = |name: &str| entry.get(name).and_then(serde_json::Value::as_str).map(bytes_of);
            let key = bytes("key").and_then(|key| key.try_into().ok()).unwrap_or([0; 16]);
            self.telegrams.extend(bytes("telegram").map(|telegram| (key, telegram)));
        }
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
        self.wired.extend(files(&data.join("libmbus"), ".hex").iter().map(|path| bytes_of(&text(path))));
        self.p1.extend(files(&data.join("dsmr"), ".txt").iter().filter_map(|path| fs::read(path).ok()));
        for path in files(&data.join("dlms-push"), ".log") {
            let key = |ending: &str| bytes_of(&text(&path.with_extension(ending)));
            let keys = [key("key"), key("gak")].concat().try_into().unwrap_or([0; 32]);
            self.pushes.push((keys, bytes_of(&text(&path))));
        }
    }

    /// Each telegram as `encode` writes it.
    pub fn told(&self, encode: impl Fn(&[u8], &mut Vec<u8>)) -> Seeds {
        let tell = |(_, telegram): &([u8; 16], Vec<u8>)| {
            let mut line = Vec::new();
            encode(telegram, &mut line);
            line
        };
        self.telegrams.iter().map(tell).filter(|line| !line.is_empty()).collect()
    }
}
