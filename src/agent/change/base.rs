//! What becomes of the gateway's base file, and what counts when nothing accepted can be read.

use tracing::{error, info};

use super::proposal;
use crate::config::change::{History, Origin, Proposal, Refusal, prepare};
use crate::model::Stamp;

/// Puts the base file on trial when it is another one than is known; a running trial ends.
pub(super) fn propose_base(history: &mut History, base: &str, now: &Stamp) -> Result<bool, Refusal> {
    if history.knows(base) {
        return Ok(false);
    }
    let active = history.text(history.book().active())?;
    if active == base {
        history.agree(base)?;
        return Ok(false);
    }
    let who = Origin::file();
    let prepared = prepare(&active, base, &who)?;
    let limit = *prepared.loaded.settings.control.confirm;
    let answered: Vec<String> = history.book().answered();
    let base_hash = prepared.hash.clone();
    let wanted = Proposal {
        base: Some(base_hash),
        ..proposal(prepared, (who, "the base file was edited".to_owned()), Some(limit), &answered)
    };
    let number = history.propose(base, wanted, Some("the base file was edited meanwhile"), now)?;
    info!(number, "the base file was edited; it is on trial");
    Ok(true)
}

/// The text that is to run; a damaged one costs what was changed since the base file, and is told.
pub(super) fn running_text(history: &mut History, base: &str) -> Result<String, Refusal> {
    let damaged = match history.text(history.book().current()) {
        Ok(text) => return Ok(text),
        Err(refusal) => refusal,
    };
    error!(problem = %damaged, "the configuration that ran last can't be read");
    if history.go_back("its text can't be read")?.is_some()
        && let Ok(text) = history.text(history.book().current())
    {
        return Ok(text);
    }
    history.begin_anew(base)?;
    Ok(base.to_owned())
}
