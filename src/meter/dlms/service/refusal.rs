//! What a meter's refusals mean (IEC 62056-5-3, clause 7.4.1).

use crate::model::Quality;
use crate::wire::dlms::{ActionResult, DataAccessResult};

/// The quality of a value that was refused so.
pub(in crate::meter::dlms) const fn quality(refusal: DataAccessResult) -> Quality {
    match refusal {
        DataAccessResult::ObjectUnavailable => Quality::Unavailable,
        _ => Quality::Refused,
    }
}

/// A refusal in words that go on from "the meter refused: ".
pub(in crate::meter::dlms) fn words(refusal: DataAccessResult) -> String {
    match refusal {
        DataAccessResult::Success => "no reason is given".to_owned(),
        DataAccessResult::HardwareFault => "its hardware is faulty".to_owned(),
        DataAccessResult::TemporaryFailure => "it can't do that just now".to_owned(),
        DataAccessResult::ReadWriteDenied => "this client may not do that; another client address may".to_owned(),
        DataAccessResult::ObjectUndefined => "it has no such object".to_owned(),
        DataAccessResult::ObjectClassInconsistent => "the object is of another class".to_owned(),
        DataAccessResult::ObjectUnavailable => "it has no value there now".to_owned(),
        DataAccessResult::TypeUnmatched => "the attribute is of another type".to_owned(),
        DataAccessResult::ScopeOfAccessViolated => "that is beyond what this client may see".to_owned(),
        DataAccessResult::OtherReason => "for another reason".to_owned(),
        DataAccessResult::Other(code) => format!("code {code}"),
        _ => "the transfer in blocks was broken off".to_owned(),
    }
}

/// The same of a method.
pub(in crate::meter::dlms) fn action_words(refusal: ActionResult) -> String {
    words(DataAccessResult::from_u8(refusal.as_u8()))
}
