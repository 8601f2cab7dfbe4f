//! Short messages: PDUs (3GPP TS 23.040), alphabets (3GPP TS 23.038), long messages and their parts.
//!
//! Invariants: any octets give a message or an error; texts are kept as they were sent until all parts are there, because
//! senders cut within characters; what waits for its parts is bounded. National language tables (23.038, A) are not
//! known: such texts are shown in the default alphabet. Start with [`decode`], [`split`] and [`Assembler`].

mod address;
pub mod alphabet;
mod assembler;
mod body;
mod pdu;
mod reader;

pub use address::{Address, validity};
pub use assembler::{Assembler, Pushed, Whole};
pub use body::{Body, Element, Part, UserData, split};
pub use pdu::{Deliver, Message, Report, Submit, decode};
