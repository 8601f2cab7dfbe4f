//! The commands a person types.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line.
pub fn main(_arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
