//! Turns texts that people send into commands that may be carried out, and answers into texts.
//!
//! Invariants: it does nothing itself: `agent` carries commands out; a text that is not understood, not allowed, too old or one too
//! many gets one sentence and changes nothing; every command that changes something, and every refused one, is in the audit
//! before its answer leaves; secrets and passwords never are. Start with [`Command`] and the table `VERBS`.

mod audit;
mod command;
mod desk;
mod firmware;
mod letter;
mod origin;
mod rate;
mod settings;
mod signed;
mod signer;
mod trust;
mod verb;

pub use audit::Audit;
pub use command::{Change, Command, Modbus, Output, Place, Put, Restart};
pub use desk::{Desk, Entry, Errand, Verdict, help};
pub use firmware::{FirmwareSettings, signed_by};
pub use letter::Letter;
pub use origin::{Origin, Right, Rights, masked_number};
pub use settings::{
    ALERTS, Alert, ControlSettings, Grant, LONGEST_TRIAL, SHORTEST_TRIAL, Signatures, SmsSettings, check,
};
pub use signed::Envelope;
pub use signer::Signer;
