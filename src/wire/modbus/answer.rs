//! Answers.

use super::{Exception, Identity, REFUSED, Request};

/// A checked answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The bytes after the byte count.
    Data(Vec<u8>),
    /// What was to be written was taken.
    Written,
    /// A piece of the device's identification.
    Identity(Identity),
    /// The server refused.
    Refused(Exception),
}

impl Answer {
    /// Appends the PDU that answers `request` to `out`; data beyond 255 bytes is cut.
    pub fn encode(&self, request: &Request, out: &mut Vec<u8>) {
        match self {
            Self::Data(data) => {
                let count = u8::try_from(data.len()).unwrap_or(u8::MAX);
                out.extend([request.function(), count]);
                out.extend(data.iter().take(count.into()));
            }
            Self::Written => {
                let mut echo = Vec::new();
                request.encode(&mut echo);
                out.extend(echo.iter().take(5));
            }
            Self::Identity(identity) => identity.encode(out),
            Self::Refused(Exception(code)) => out.extend([request.function() | REFUSED, *code]),
        }
    }
}
