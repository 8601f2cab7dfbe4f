//! Octets taken one after another, with the place for errors.

use crate::wire::DecodeError;

/// What is left of a message.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    all: usize,
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self { all: octets.len(), left: octets }
    }

    pub(super) const fn offset(&self) -> usize {
        self.all - self.left.len()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.left
    }

    pub(super) fn octet(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.take(1, what).map(|one| one.first().copied().unwrap_or_default())
    }

    pub(super) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let found = || DecodeError::new(self.offset(), what, format!("{} octets of {count}", self.left.len()));
        let (taken, left) = self.left.split_at_checked(count).ok_or_else(found)?;
        self.left = left;
        Ok(taken)
    }
}
