//! What the recorder has written: the operations of a process on its disk, in order.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAGIC: u32 = 0x7063_7574;
const HEADER: usize = 32;

/// One operation; the paths are relative to the root of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// A process begins.
    Start,
    Create,
    Truncate {
        length: u64,
    },
    Write {
        offset: u64,
        data: Range<usize>,
    },
    Sync {
        worked: bool,
    },
    Rename {
        to: String,
    },
    Unlink,
    Rmdir,
    Mkdir,
    Allocate {
        end: u64,
    },
    /// The child says something.
    Mark {
        text: String,
    },
    /// The disk of this test does not know it.
    Unknown,
}

#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) path: String,
    pub(crate) act: Act,
}

impl Op {
    /// Whether it does something to the disk.
    pub(crate) fn touches(&self) -> bool {
        !matches!(self.act, Act::Start | Act::Mark { .. })
    }
}

/// The log of one or more processes.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ops: Vec<Op>,
}

impl Recording {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the recorder leaves a log: is LD_PRELOAD possible here?");
        let mut ops = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let header = &bytes[at..at + HEADER];
            let long = |i: usize| u64::from_le_bytes(header[i..i + 8].try_into().unwrap());
            let short = |i: usize| usize::from(u16::from_le_bytes(header[i..i + 2].try_into().unwrap()));
            assert_eq!(u32::from_le_bytes(header[..4].try_into().unwrap()), MAGIC, "the log is torn at {at}");
            let (kind, ok, offset, length) = (header[4], header[5] == 1, long(16), long(24));
            let text = |from: usize, n: usize| String::from_utf8(bytes[from..from + n].to_vec()).unwrap();
            let path = text(at + HEADER, short(6));
            let second = text(at + HEADER + short(6), short(8));
            at += HEADER + short(6) + short(8);
            let data = at..at + if kind == 3 || kind == 10 { length as usize } else { 0 };
            at = data.end;
            let act = match kind {
                0 => Act::Start,
                1 => Act::Create,
                2 => Act::Truncate { length },
                3 => Act::Write { offset, data },
                4 => Act::Sync { worked: ok },
                5 => Act::Rename { to: second },
                6 => Act::Unlink,
                7 => Act::Rmdir,
                8 => Act::Mkdir,
                9 => Act::Allocate { end: offset + length },
                10 => Act::Mark { text: text(data.start, data.len()) },
                _ => Act::Unknown,
            };
            ops.push(Op { path, act });
        }
        Self { bytes, ops }
    }

    /// Where each process begins.
    pub(crate) fn starts(&self) -> Vec<usize> {
        (0..self.ops.len()).filter(|i| self.ops[*i].act == Act::Start).collect()
    }
}

/// Builds the recorder and returns the library.
pub(crate) fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powercut/recorder.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recorder-{}.so", std::process::id()));
    let outcome = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-lpthread")
        .output()
        .expect("a C compiler: install gcc and libc6-dev, or run tests/run");
    assert!(outcome.status.success(), "cc: {}", String::from_utf8_lossy(&outcome.stderr));
    library
}
