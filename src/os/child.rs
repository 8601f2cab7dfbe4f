//! A program that runs beside weir and whose output is read.
//!
//! Invariants: it never outlives its handle, nor do the programs it started (it leads a process
//! group, and the group is killed); it has no input; what it says on stderr reaches the log at
//! DEBUG, a bounded number of lines, and is always read so that it can't block.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

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
}

/// How long a program that closed its output may take to end by itself.
const ENDING: Duration = Duration::from_secs(1);
/// Lines of stderr that reach the log for each start.
const LOGGED_LINES: usize = 50;
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
        let errors = tokio::spawn(drain(errors, program.clone()));
        Ok(Self { process, group, output, errors })
    }

    /// Waits until the program, which closed its output, has ended, and says how. Kills it when
    /// it does not end within a second, and always what it started.
    pub async fn ending(mut self) -> String {
        let ended = timeout(ENDING, self.process.wait()).await;
        match ended {
            Ok(Ok(status)) if matches!(status.code(), Some(126 | 127)) => {
                format!("the shell could not start a program ({status}): check that it is installed and executable")
            }
            Ok(Ok(status)) => format!("the program ended ({status})"),
            Ok(Err(error)) => format!("the program is lost: {error}"),
            Err(_) => "the program closed its output and was killed".to_owned(),
        }
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

/// Reads stderr to its end; the first lines go to the log.
async fn drain(mut errors: ChildStderr, program: String) {
    let mut lines = LineDecoder::new();
    let mut logged = 0;
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = errors.read(&mut buffer).await {
        lines.push(buffer.get(..count).unwrap_or(&[]));
        while let Some(piece) = lines.next() {
            if let Piece::Line(line) = piece
                && logged < LOGGED_LINES
            {
                logged += 1;
                let text: String = String::from_utf8_lossy(&line).chars().take(LOGGED_CHARACTERS).collect();
                tracing::debug!(program, text, "program said");
            }
        }
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
        assert_eq!(
            ending,
            "the shell could not start a program (exit status: 127): check that it is installed and executable"
        );
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
        timeout(Duration::from_secs(10), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_with_its_name() {
        let error = Child::spawn(&["/nowhere/rtl_wmbus".into()]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/rtl_wmbus"), "{error}");
        assert!(matches!(Child::spawn(&[]), Err(ChildError::Empty)));
    }
}
