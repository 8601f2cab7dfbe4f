//! A place in a telegram that moves forward and says where bytes are missing.

use super::super::DecodeError;

/// The rest of a telegram and where it starts.
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a [u8],
    pub(super) offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| *byte)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else { return Err(self.short(what)) };
        self.rest = rest;
        self.offset += N;
        Ok(head)
    }

    pub(super) fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(length) else { return Err(self.short(what)) };
        self.rest = rest;
        self.offset += length;
        Ok(head)
    }

    fn short(&self, what: &'static str) -> DecodeError {
        self.stop(what, format!("the end after {} bytes", self.rest.len()))
    }

    pub(super) fn stop(&self, expected: &'static str, found: impl Into<String>) -> DecodeError {
        DecodeError::new(self.offset, expected, found)
    }
}
