//! Carrying a backlog by hand: a signed file out of one store ([`export`]) into another
//! ([`import`]), without loss and without duplicates.
//!
//! # Invariants
//! 1. A frame leaves a store only after the file that holds it is durable and has been read again.
//! 2. Nothing of a file is taken before all of it is verified.
//! 3. A frame that is imported is durable before the record says that it is known. Between the
//!    two, what waits in the store is asked; so a crash costs neither a loss nor a duplicate.
//! 4. Memory does not depend on the backlog or the file.

mod export;
mod format;
mod import;
mod known;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use export::{ExportRequest, Exported, export};
pub use format::{FormatError, Header, Totals};
pub use import::{ImportRequest, Imported, import};
pub(super) use known::{problem as known_problem, put_aside as put_known_aside};

use super::StoreError;

/// Files of another user in the store would stop the agent later.
pub(super) fn owned(path: &Path) -> Result<(), StoreError> {
    let unusable = |source| StoreError::Directory { path: path.to_owned(), source };
    let owner = fs::metadata(path).map_err(unusable)?.uid();
    if owner == rustix::process::geteuid().as_raw() { Ok(()) } else { Err(StoreError::Owner { path: path.to_owned() }) }
}
