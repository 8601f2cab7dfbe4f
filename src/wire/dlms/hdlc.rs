//! HDLC frames of DLMS/COSEM (IEC 62056-46, clause 6): frame format type 3, found by their length.

pub use dlms_cosem_rs::transport::hdlc::{Address, Control};
use dlms_cosem_rs::transport::hdlc::{Found, Framer};

use super::{DecodeError, Encode, fault};

/// What stands before a request's APDU (LLC, IEC 62056-46, clause 5).
pub const LLC_REQUEST: [u8; 3] = [0xE6, 0xE6, 0x00];
/// What stands before a response's APDU.
pub const LLC_RESPONSE: [u8; 3] = [0xE6, 0xE7, 0x00];
/// The longest frame: eleven bits of length, and two flags.
pub const LONGEST: usize = 0x7FF + 2;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the next frame continues it.
    pub segmented: bool,
    /// The receiver.
    pub destination: Address,
    /// The sender.
    pub source: Address,
    /// Its kind and sequence numbers.
    pub control: Control,
    /// What it carries.
    pub information: Vec<u8>,
}

impl Frame {
    /// Its bytes with both flags and both checks.
    ///
    /// # Errors
    /// When it carries more than eleven bits of length can say.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let Self { segmented, destination, source, control, ref information } = *self;
        let frame = dlms_cosem_rs::transport::hdlc::Frame { segmented, destination, source, control, information };
        let mut bytes = Vec::with_capacity(frame.encoded_len());
        Encode::encode(&frame, &mut bytes).map_err(|error| fault(&error))?;
        Ok(bytes)
    }
}

/// What a [`Decoder`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A frame whose checks are right.
    Frame(Frame),
    /// So many bytes that are no part of one.
    Noise(usize),
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    framer: Framer,
}

impl Decoder {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing in what was pushed.
    #[expect(clippy::should_implement_trait, reason = "the verb of every codec; a stream may go on after nothing")]
    pub fn next(&mut self) -> Option<Event> {
        let (event, used) = match self.framer.next_frame(&self.buffer).ok()? {
            Found::Frame { frame, consumed } => {
                let whole = Frame {
                    segmented: frame.segmented,
                    destination: frame.destination,
                    source: frame.source,
                    control: frame.control,
                    information: frame.information.to_vec(),
                };
                (Event::Frame(whole), consumed)
            }
            Found::Incomplete { discard: 0 } => return None,
            Found::Incomplete { discard } => (Event::Noise(discard), discard),
        };
        self.buffer.drain(..used.min(self.buffer.len()));
        Some(event)
    }
}
