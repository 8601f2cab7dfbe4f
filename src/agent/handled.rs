//! Which messages were obeyed: one that the modem hands over again after a power cut is not obeyed twice.
//!
//! A message is written down, durable, before it is obeyed. Only marks are kept, neither numbers nor texts.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use ring::digest;
use tracing::error;

use crate::model::Timestamp;
use crate::os::file::{read_small, write_atomic};

/// So many are remembered; the SIM's storage holds far fewer.
const REMEMBERED: usize = 128;

/// The messages of late.
#[derive(Debug)]
pub(super) struct Handled {
    file: PathBuf,
    marks: VecDeque<String>,
    failing: bool,
}

impl Handled {
    /// Reads what an earlier run remembered; a damaged file costs what it held.
    pub(super) fn open(file: PathBuf) -> Self {
        let text = read_small(&file, 64 << 10).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let marks = text.lines().filter(|line| line.len() == 32).map(str::to_owned).collect();
        Self { file, marks, failing: false }
    }

    /// Whether a message is news; it is none afterwards. A disk that refuses is told once, and costs the memory of restarts.
    pub(super) async fn is_news(&mut self, from: &str, at: Timestamp, text: &str) -> bool {
        let mark = mark(from, at, text);
        if self.marks.contains(&mark) {
            return false;
        }
        self.marks.push_back(mark);
        while self.marks.len() > REMEMBERED {
            self.marks.pop_front();
        }
        let (file, content) =
            (self.file.clone(), self.marks.iter().map(|mark| format!("{mark}\n")).collect::<String>());
        let write = move || {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            write_atomic(&file, content.as_bytes(), 0o600)
        };
        let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let failed = written.is_err();
        if let Err(error) = written
            && !self.failing
        {
            error!(%error, "which messages were obeyed can't be written down; after a power cut one may be obeyed again");
        }
        self.failing = failed;
        true
    }
}

fn mark(from: &str, at: Timestamp, text: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [from.as_bytes(), &at.as_millis().to_be_bytes(), text.as_bytes()] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let hash = context.finish();
    data_encoding::HEXLOWER.encode(hash.as_ref().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_news_once_also_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sessions/messages");
        let at = Timestamp::parse("2026-11-22T12:00:00Z").unwrap();
        let mut handled = Handled::open(file.clone());
        assert!(handled.is_news("+34666123456", at, "MTXTUNNEL AT^WEIR=RESET,AGENT").await);
        assert!(!handled.is_news("+34666123456", at, "MTXTUNNEL AT^WEIR=RESET,AGENT").await);
        let mut handled = Handled::open(file.clone());
        assert!(!handled.is_news("+34666123456", at, "MTXTUNNEL AT^WEIR=RESET,AGENT").await);
        let later = Timestamp::from_millis(at.as_millis() + 1000);
        assert!(handled.is_news("+34666123456", later, "MTXTUNNEL AT^WEIR=RESET,AGENT").await);
        assert!(!std::fs::read_to_string(&file).unwrap().contains("666"));
        for number in 0..500 {
            assert!(handled.is_news("x", at, &number.to_string()).await);
        }
        assert!(std::fs::metadata(&file).unwrap().len() < 5000);
    }
}
