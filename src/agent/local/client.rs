//! The other side of the local door: a command that asks the running agent.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::socket;

/// The longest answer line that is believed.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent runs with this store.
    #[error("no agent runs here (nobody answers at {0}); start it with: systemctl start weir")]
    NotRunning(PathBuf),
    /// Another user's agent.
    #[error("{0} may not be opened by this user; ask as root or as user weir")]
    NotAllowed(PathBuf),
    /// The connection broke.
    #[error("the running agent hung up: {0}")]
    Broken(#[from] io::Error),
    /// The agent answers that it can't.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the running agent. Waits as long as the agent does.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the agent that holds this store.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(store: &Path) -> Result<Self, ClientError> {
        let path = socket(store);
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed(path),
            _ => ClientError::Broken(error),
        })?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks one question and waits for the (first) answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(&mut self, question: &Json) -> Result<Json, ClientError> {
        self.stream.get_mut().write_all(format!("{question}\n").as_bytes())?;
        self.answer()?.ok_or_else(|| ClientError::Broken(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Waits for the next answer of a stream; `None` when it has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn answer(&mut self) -> Result<Option<Json>, ClientError> {
        let mut line = Vec::new();
        io::Read::take(&mut self.stream, LONGEST).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let answer: Json = serde_json::from_slice(&line).map_err(io::Error::from)?;
        match (answer.get("ok"), answer.get("error").and_then(Json::as_str)) {
            (Some(ok), _) => Ok(Some(ok.clone())),
            (None, error) => Err(ClientError::Refused(error.unwrap_or("no answer").to_owned())),
        }
    }
}
