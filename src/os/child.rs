//! A program that runs beside weir and whose output is read.
//!
//! Invariants: it never outlives its handle, nor do the programs it started (it leads a process
//! group, and the group is killed), nor stays as a zombie; it has no input; what it says on stderr reaches the
//! log at DEBUG, a bounded number of lines a minute, and is always read so that it can't block; its last line
//! is told with its ending.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::wire::radio_line::{LineDecoder, Piece};

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The command names no program.
    #[error("the command is empty; name a program")]
    Empty,
    /// The system refused.
    #[error("cannot start {program}: {reason}; check that it is installed and may be executed")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        reason: io::Error,
    },
}

/// A running program. Dropping it kills the program and those it started.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    group: Option<Pid>,
    output: ChildStdout,
    errors: JoinHandle<()>,
    /// The last line on stderr.
    said: Arc<Mutex<String>>,
}

/// How long a program that closed its output may take to end by itself.
const ENDING: Duration = Duration::from_secs(1);
/// How long what it said at last may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Lines of stderr that reach the log at once, and again after each pause one more.
const LOGGED_LINES: u64 = 50;
const LOGGED_PAUSE: Duration = Duration::from_secs(10);
const LOGGED_CHARACTERS: usize = 200;

impl Child {
    /// Starts a program with its arguments. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ChildError`] when there is no such program or it may not be executed.
    pub fn spawn(command: &[String]) -> Result<Self, ChildError> {
        let (program, arguments) = command.split_first().ok_or(ChildError::Empty)?;
        let failed = |reason| ChildError::Start { program: program.clone(), reason };
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (Some(output), Some(errors)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(failed(io::Error::other("it has no output")));
        };
        let said = Arc::new(Mutex::new(String::new()));
        let errors = tokio::spawn(drain(errors, program.clone(), said.clone()));
        Ok(Self { process, group, output, errors, said })
    }

    /// Waits until the program, which closed its output, has ended, and says how. Kills it when
    /// it does not end within a second, and always what it started.
    pub async fn ending(mut self) -> String {
        let ended = timeout(ENDING, self.process.wait()).await;
        // Others of its group may hold stderr open for ever.
        let _ = timeout(LAST_WORDS, &mut self.errors).await;
        let how = match ended {
            Ok(Ok(status)) if matches!(status.code(), Some(126 | 127)) => {
                format!("the shell could not start a program ({status}): check that it is installed and executable")
            }
            Ok(Ok(status)) => format!("the program ended ({status})"),
            Ok(Err(error)) => format!("the program is lost: {error}"),
            Err(_) => "the program closed its output and was killed".to_owned(),
        };
        let said = std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        if said.is_empty() { how } else { format!("{how}; it said last: {said}") }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.errors.abort();
        if let Some(group) = self.group.take() {
            // Fails when the whole group has ended already, which is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl AsyncRead for Child {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().output).poll_read(cx, buf)
    }
}

/// Reads stderr to its end; some lines go to the log, the last one to `said`.
async fn drain(mut errors: ChildStderr, program: String, said: Arc<Mutex<String>>) {
    let mut lines = LineDecoder::new();
    let mut allowance = Allowance::new(Instant::now());
    let mut buffer = [0; 1024];
    loop {
        let count = errors.read(&mut buffer).await.unwrap_or(0);
        match buffer.get(..count).unwrap_or_default() {
            [] => lines.finish(),
            bytes => lines.push(bytes),
        }
        while let Some(piece) = lines.next() {
            let Piece::Line(line) = piece else { continue };
            let text: String = String::from_utf8_lossy(&line).chars().take(LOGGED_CHARACTERS).collect();
            let text = text.replace(char::is_control, " ");
            if let Some(held_back) = allowance.take(Instant::now()) {
                tracing::debug!(program, text, held_back, "program said");
            }
            *said.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
        if count == 0 {
            return;
        }
    }
}

/// How many lines may still be logged: [`LOGGED_LINES`] at once, and one more each [`LOGGED_PAUSE`].
struct Allowance {
    left: u64,
    since: Instant,
    held_back: u64,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self { left: LOGGED_LINES, since: now, held_back: 0 }
    }

    /// Takes one; gives how many were refused since the last, or `None` when there is none left.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let pauses = now.saturating_duration_since(self.since).as_secs() / LOGGED_PAUSE.as_secs();
        if pauses > 0 {
            self.left = self.left.saturating_add(pauses).min(LOGGED_LINES);
            self.since = now;
        }
        if self.left == 0 {
            self.held_back += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    fn shell(script: &str) -> Child {
        Child::spawn(&["sh".into(), "-c".into(), script.into()]).unwrap()
    }

    #[tokio::test]
    async fn output_is_read_and_the_ending_is_told() {
        let mut child = shell("echo hello; head -c 200000 /dev/zero >&2; exit 3");
        let mut text = String::new();
        child.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello\n");
        assert_eq!(child.ending().await, "the program ended (exit status: 3)");
    }

    #[tokio::test]
    async fn a_program_the_shell_does_not_find_is_told_in_words() {
        let ending = shell("/nowhere/rtl_sdr -f 868.95M - | cat > /dev/null; exit 127").ending().await;
        let told = "the shell could not start a program (exit status: 127): check that it is installed and executable";
        assert!(ending.starts_with(told) && ending.contains("it said last: sh: "), "{ending}");
    }

    #[tokio::test]
    async fn what_a_program_said_last_is_told_with_its_ending() {
        let ending = shell("echo one >&2; printf 'usb_open\\terror -3' >&2; exit 1").ending().await;
        assert_eq!(ending, "the program ended (exit status: 1); it said last: usb_open error -3");
    }

    #[test]
    fn the_log_of_a_talkative_program_is_bounded_and_says_how_much_is_missing() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let taken = (0..1000).filter(|_| allowance.take(start).is_some()).count();
        assert_eq!(taken, 50);
        assert_eq!(allowance.take(start + LOGGED_PAUSE), Some(950));
        assert_eq!(allowance.take(start + LOGGED_PAUSE), None);
        assert_eq!((0..100).filter(|_| allowance.take(start + 100 * LOGGED_PAUSE).is_some()).count(), 50);
    }

    #[tokio::test]
    async fn a_program_that_is_killed_leaves_no_zombie() {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let child = shell("echo $$; exec sleep 1000");
            let mut reader = BufReader::new(child);
            let mut line = String::new();
            reader.read_line(&mut line).await.unwrap();
            statuses.push(format!("/proc/{}", line.trim()));
        }
        let gone = async {
            while statuses.iter().any(|status| std::path::Path::new(status).exists()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), gone).await.expect("killed and reaped");
    }

    #[tokio::test]
    async fn dropping_the_handle_kills_the_program_and_what_it_started() {
        let child = shell("sleep 1000 & echo $!; wait");
        let mut reader = BufReader::new(child);
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        let status = format!("/proc/{}/stat", line.trim());
        assert!(std::path::Path::new(&status).exists());
        drop(reader);
        // The kernel takes a moment to end a killed process; a zombie has ended too.
        let gone = async {
            while std::fs::read_to_string(&status).is_ok_and(|s| !s.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_with_its_name() {
        let error = Child::spawn(&["/nowhere/rtl_wmbus".into()]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/rtl_wmbus"), "{error}");
        assert!(matches!(Child::spawn(&[]), Err(ChildError::Empty)));
    }
}
