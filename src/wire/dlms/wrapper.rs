//! The wrapper of DLMS/COSEM over TCP and UDP (IEC 62056-47, clause 5).

use dlms_cosem_rs::transport::wrapper::Wpdu;

use super::Encode;

/// The bytes before an APDU.
pub const HEADER: usize = 8;
/// The TCP port that IANA keeps for it.
pub const PORT: u16 = 4059;

/// One APDU with its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The sender: a client's address, or a server's logical device.
    pub source: u16,
    /// The receiver.
    pub destination: u16,
    /// What it carries.
    pub apdu: Vec<u8>,
}

impl Unit {
    /// Its bytes; `None` when the APDU is longer than 65,535 bytes.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let unit = Wpdu::new(self.source, self.destination, &self.apdu).ok()?;
        let mut bytes = Vec::with_capacity(HEADER + self.apdu.len());
        unit.encode(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Cuts a stream into units.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

/// What a [`Decoder`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A unit.
    Unit(Unit),
    /// So many bytes that are no part of one.
    Noise(usize),
}

impl Decoder {
    /// Begins with nothing.
    pub const fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes bytes as they come; never holds more than one unit and what was pushed last.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing in what was pushed.
    #[expect(clippy::should_implement_trait, reason = "the verb of every codec; a stream may go on after nothing")]
    pub fn next(&mut self) -> Option<Event> {
        // Version 1 is the only one; noise is skipped up to where a header may begin.
        let skip = (0..self.buffer.len())
            .find(|&at| self.buffer.get(at..).is_some_and(|rest| matches!(rest, [0, 1, ..] | [0])))
            .unwrap_or(self.buffer.len());
        if skip > 0 {
            self.buffer.drain(..skip);
            return Some(Event::Noise(skip));
        }
        let head: &[u8; HEADER] = self.buffer.first_chunk()?;
        let [_, _, s1, s0, d1, d0, l1, l0] = *head;
        let whole = HEADER + usize::from(u16::from_be_bytes([l1, l0]));
        let apdu = self.buffer.get(HEADER..whole)?.to_vec();
        self.buffer.drain(..whole);
        let (source, destination) = (u16::from_be_bytes([s1, s0]), u16::from_be_bytes([d1, d0]));
        Some(Event::Unit(Unit { source, destination, apdu }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_unit_is_read_back_however_it_is_cut_and_after_noise(
            source in any::<u16>(), destination in any::<u16>(),
            apdu in prop::collection::vec(any::<u8>(), 0..300),
            noise in prop::collection::vec(2..=255u8, 0..20),
            cut in 1usize..40,
        ) {
            let unit = Unit { source, destination, apdu };
            let bytes = [noise, unit.encode().unwrap()].concat();
            let mut decoder = Decoder::new();
            let mut found = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                while let Some(event) = decoder.next() {
                    if let Event::Unit(unit) = event { found.push(unit) }
                }
            }
            prop_assert_eq!(found, vec![unit]);
        }
    }
}
