//! Bytes to types and back: one codec per room, all with the same verbs.
//!
//! A codec of whole messages has `decode(&[u8]) -> Result<T, DecodeError>` and
//! `encode(&T, &mut Vec<u8>)`; a codec of a byte stream has a `Decoder` with `push(&[u8])` and
//! `next()`, where noise is a value and never an error. Invariants: no codec panics, waits,
//! logs or allocates without bound, whatever the bytes are.

use std::fmt;

pub mod aes;
pub mod amber;
pub mod at;
pub mod cul;
pub mod dlms;
pub mod explain;
pub mod gcm;
pub mod hex_line;
pub mod iec62056;
pub mod imst_hci;
pub mod iu891a;
pub mod mbal;
pub mod mbus;
pub mod modbus;
pub mod modem;
pub mod mtx;
pub mod numbered;
pub mod openlinkiq;
pub mod openlinkiq_line;
pub mod p1;
pub mod radio_line;
pub mod rc1180;
pub mod rfc2217;
pub mod rtl_433;
pub mod rtl_wmbus;
pub mod sml;
pub mod sms;
pub mod telegram;
pub mod unframed;
pub mod unit;
pub mod wmbus;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Where in the bytes.
    pub offset: usize,
    /// What should be there.
    pub expected: &'static str,
    /// What is there.
    pub found: String,
}

impl DecodeError {
    /// Describes a mismatch at `offset`.
    pub fn new(offset: usize, expected: &'static str, found: impl Into<String>) -> Self {
        Self { offset, expected, found: found.into() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: expected {}, found {}", self.offset, self.expected, self.found)
    }
}

impl std::error::Error for DecodeError {}
