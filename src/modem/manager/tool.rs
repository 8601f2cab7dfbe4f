//! Running `mmcli`: one question, its output, an end in any case.

use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::os::child::Child;

/// More says no answer.
const LONGEST: u64 = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ToolError {
    /// There is no such program.
    #[error("{0}; install ModemManager, or set manager = \"none\" in [modem]")]
    Missing(String),
    /// It did not end in time.
    #[error("mmcli did not answer in time; is ModemManager running?")]
    Silent,
    /// It, or ModemManager, refused.
    #[error("{0}")]
    Refused(String),
}

/// Asks and gives the output.
pub(super) async fn ask(program: &Path, arguments: &[&str], limit: Duration) -> Result<String, ToolError> {
    let words =
        [program.to_string_lossy().as_ref()].iter().chain(arguments).map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut child = Child::spawn(&words).map_err(|error| ToolError::Missing(error.to_string()))?;
    let mut output = Vec::new();
    let read = timeout(limit, (&mut child).take(LONGEST).read_to_end(&mut output)).await;
    if !matches!(read, Ok(Ok(_))) {
        return Err(ToolError::Silent);
    }
    let ending = child.ending().await;
    if ending.contains("(exit status: 0)") {
        return Ok(String::from_utf8_lossy(&output).into_owned());
    }
    let why = ending.split_once("it said last: ").map_or(ending.as_str(), |(_, words)| words);
    Err(ToolError::Refused(why.trim_start_matches("error: ").chars().take(200).collect()))
}

/// Asks for JSON.
pub(super) async fn ask_json(program: &Path, arguments: &[&str], limit: Duration) -> Result<Json, ToolError> {
    let mut all = vec!["-J"];
    all.extend(arguments);
    let output = ask(program, &all, limit).await?;
    serde_json::from_str(&output).map_err(|_| ToolError::Refused("mmcli told no JSON".to_owned()))
}
