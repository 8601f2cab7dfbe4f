//! Manifests: what became of every number a gateway has given, closed once a day and signed.
//!
//! # Invariants
//! 1. Every number from 1 to [`Manifest::last`] is in exactly one class: acknowledged, evicted,
//!    pending or skipped. So `last = received + skipped` and
//!    `received = acknowledged + evicted + pending`.
//! 2. What is signed is the exact text; nobody has to write JSON in the same way to check it.
//! 3. Each manifest names the SHA-256 of the text before it: leaving one out is noticed.
//!
//! Nothing here reads a clock or a file. docs/manifest.md is the format for the head-end. Start
//! with [`Manifest`], [`Signed`] and [`chain::Chain`].

pub mod chain;
pub mod proof;
pub mod span;

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

pub use self::span::Span;
use super::key::{self, Key, Public, Signature};
use crate::model::{Sequence, Timestamp};

/// The version of the format.
pub const VERSION: u32 = 1;
/// What stands before the text in what is signed, so that no other signature can be taken for one.
pub const DOMAIN: &[u8] = b"weir manifest 1\n";
/// The most spans of one class in a manifest; beyond it neighbours are merged.
pub const MAX_SPANS: usize = 100;
/// The longest text that is read, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;

/// The SHA-256 of a manifest's exact text.
pub type Digest = [u8; 32];

/// What a gateway says of all its numbers at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format, [`VERSION`].
    pub manifest: u32,
    /// The gateway's id.
    pub gateway: String,
    /// Counts the manifests of a gateway, from 1.
    pub number: u64,
    /// The [`Signed::digest`] of the manifest before this one; zeros in the first.
    #[serde(with = "hexadecimal")]
    pub previous: Digest,
    /// When the manifest before this one was closed; in the first, when counting began.
    #[serde(with = "rfc3339")]
    pub from: Timestamp,
    /// When this manifest was closed.
    #[serde(with = "rfc3339")]
    pub to: Timestamp,
    /// Whether the clock could be trusted at the close.
    pub clock: Clock,
    /// The first number that the manifest before did not speak of: its `last` + 1.
    pub first: Sequence,
    /// The last number given at the close; `first` - 1 when none was given.
    pub last: Sequence,
    /// Over the gateway's whole life, at the close.
    pub counts: Counts,
    /// Numbers evicted since the manifest before.
    pub evicted: Vec<Span>,
    /// Numbers skipped since the manifest before.
    pub skipped: Vec<Span>,
    /// Numbers pending at the close.
    pub pending: Vec<Span>,
    /// Frames evicted over the gateway's life, by the meter they came from, as far as it is known.
    pub evicted_by_meter: BTreeMap<String, u64>,
}

/// How far a time in a manifest can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The clock was synchronised.
    Synced,
    /// Nobody had confirmed the clock.
    Unsynced,
}

/// How many numbers are in each class, over the gateway's whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Frames received: `acknowledged + evicted + pending`.
    pub received: u64,
    /// Frames acknowledged by the broker (or exported and taken out).
    pub acknowledged: u64,
    /// Frames given up because the store was full, or unreadable.
    pub evicted: u64,
    /// Those of `evicted` that were unreadable.
    pub damaged: u64,
    /// Numbers that no frame has, or that a crash may have taken with the memory.
    pub skipped: u64,
    /// Frames waiting.
    pub pending: u64,
}

/// A manifest's exact text with its signature, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The text that was signed: one JSON object.
    pub text: String,
    /// The signer's public key.
    pub key: Public,
    /// Ed25519 over [`DOMAIN`] and `text`.
    pub signature: Signature,
}

/// The transport form of [`Signed`].
#[derive(Serialize, Deserialize)]
struct Line {
    manifest: String,
    key: String,
    signature: String,
}

/// Why something is no manifest, or one that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The line has not the members `manifest`, `key` and `signature`.
    #[error("this is no signed manifest: expected {{\"manifest\":\"...\",\"key\":\"...\",\"signature\":\"...\"}}")]
    Line,
    /// The key is not 32 bytes in base64.
    #[error("the key is not 32 bytes in base64")]
    Key,
    /// The signature is not 64 bytes in base64.
    #[error("the signature is not 64 bytes in base64")]
    Signature,
    /// The signature does not fit the text: one of them was changed.
    #[error("the signature is wrong: the text was changed after it was signed, or another key signed it")]
    Forged,
    /// The text is too long.
    #[error("the text is longer than {MAX_TEXT} bytes")]
    Long,
    /// The signed text is no manifest.
    #[error("the signed text is no manifest: {0}")]
    Text(String),
    /// The text is of a version this weir does not know.
    #[error("the manifest is of version {0}, this weir knows version {VERSION}: take a newer weir")]
    Version(u32),
    /// Its own figures do not add up.
    #[error("manifest {number}: {rule} does not hold ({left} and {right})")]
    Sum {
        /// Its number.
        number: u64,
        /// What should be equal or in order.
        rule: &'static str,
        /// The left side.
        left: u64,
        /// The right side.
        right: u64,
    },
    /// A list of spans is out of order, or a span is impossible.
    #[error("manifest {number}: the {class} spans are impossible at {span}")]
    Spans {
        /// Its number.
        number: u64,
        /// Which list.
        class: &'static str,
        /// The span.
        span: Span,
    },
}

impl Manifest {
    /// Checks everything that one manifest can tell of itself.
    ///
    /// # Errors
    /// [`ManifestError::Version`], [`ManifestError::Sum`], [`ManifestError::Spans`]: the first rule broken.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.manifest != VERSION {
            return Err(ManifestError::Version(self.manifest));
        }
        let c = &self.counts;
        let sum = |parts: &[u64]| parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
        let by_meter = sum(&self.evicted_by_meter.values().copied().collect::<Vec<_>>());
        let (first, last) = (self.first, self.last);
        self.rule("number >= 1", self.number >= 1, self.number, 1)?;
        self.rule("first >= 1", first >= 1, first, 1)?;
        self.rule("first = 1 in the first manifest", self.number != 1 || first == 1, first, 1)?;
        self.rule("last >= first - 1", last.checked_add(1).is_some_and(|next| next >= first), last, first)?;
        let explained = sum(&[c.acknowledged, c.evicted, c.pending]);
        self.rule("received = acknowledged + evicted + pending", c.received == explained, c.received, explained)?;
        let given = sum(&[c.received, c.skipped]);
        self.rule("last = received + skipped", last == given, last, given)?;
        self.rule("damaged <= evicted", c.damaged <= c.evicted, c.damaged, c.evicted)?;
        self.rule("evicted_by_meter <= evicted", by_meter <= c.evicted, by_meter, c.evicted)?;
        for (class, spans) in [("evicted", &self.evicted), ("skipped", &self.skipped), ("pending", &self.pending)] {
            if let Some(span) = span::first_wrong(spans, last) {
                return Err(ManifestError::Spans { number: self.number, class, span });
            }
        }
        let (evicted, skipped) = (span::total(&self.evicted), span::total(&self.skipped));
        let pending = span::total(&self.pending);
        self.rule("the pending spans hold counts.pending", pending == c.pending, pending, c.pending)?;
        self.rule("the evicted spans hold at most counts.evicted", evicted <= c.evicted, evicted, c.evicted)?;
        self.rule("the skipped spans hold at most counts.skipped", skipped <= c.skipped, skipped, c.skipped)
    }

    fn rule(&self, rule: &'static str, holds: bool, left: u64, right: u64) -> Result<(), ManifestError> {
        if holds { Ok(()) } else { Err(ManifestError::Sum { number: self.number, rule, left, right }) }
    }
}

impl Signed {
    /// Writes and signs a manifest.
    pub fn sign(manifest: &Manifest, key: &Key) -> Self {
        // Every type of it has a JSON form; an empty text would not verify.
        let text = serde_json::to_string(manifest).unwrap_or_default();
        let signature = key.sign(&[DOMAIN, text.as_bytes()].concat());
        Self { text, key: key.public(), signature }
    }

    /// Reads the transport form: one JSON object. Nothing is verified yet.
    ///
    /// # Errors
    /// [`ManifestError::Line`], [`ManifestError::Key`], [`ManifestError::Signature`], [`ManifestError::Long`].
    pub fn parse(line: &str) -> Result<Self, ManifestError> {
        let line: Line = serde_json::from_str(line).map_err(|_| ManifestError::Line)?;
        if line.manifest.len() > MAX_TEXT {
            return Err(ManifestError::Long);
        }
        let key = key::public_of(&line.key).ok_or(ManifestError::Key)?;
        let signature = BASE64.decode(line.signature.as_bytes()).ok().and_then(|s| s.try_into().ok());
        Ok(Self { text: line.manifest, key, signature: signature.ok_or(ManifestError::Signature)? })
    }

    /// Returns the transport form: one line of JSON without its end.
    pub fn line(&self) -> String {
        let (key, signature) = (BASE64.encode(&self.key), BASE64.encode(&self.signature));
        serde_json::to_string(&Line { manifest: self.text.clone(), key, signature }).unwrap_or_default()
    }

    /// Checks the signature against the key that came with it, then the manifest itself. Whether
    /// it is the right key is [`chain::Chain`]'s question.
    ///
    /// # Errors
    /// [`ManifestError::Forged`], [`ManifestError::Text`], and those of [`Manifest::check`].
    pub fn verify(&self) -> Result<Manifest, ManifestError> {
        if !key::verify(&self.key, &[DOMAIN, self.text.as_bytes()].concat(), &self.signature) {
            return Err(ManifestError::Forged);
        }
        let manifest: Manifest = serde_json::from_str(&self.text).map_err(|e| ManifestError::Text(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns the SHA-256 of the exact text, which the next manifest names.
    pub fn digest(&self) -> Digest {
        let mut out = [0; 32];
        out.iter_mut().zip(digest(&SHA256, self.text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
        out
    }
}

/// Reads a digest in 64 hex digits; `None` when it is none.
pub fn digest_of(text: &str) -> Option<Digest> {
    HEXLOWER.decode(text.trim().to_ascii_lowercase().as_bytes()).ok()?.try_into().ok()
}

/// Writes a digest in 64 hex digits.
pub fn digest_text(digest: &Digest) -> String {
    HEXLOWER.encode(digest)
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(digest: &super::Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::digest_text(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<super::Digest, D::Error> {
        let text = String::deserialize(from)?;
        super::digest_of(&text).ok_or_else(|| de::Error::custom("a digest is 64 hex digits"))
    }
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::model::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse(&text).ok_or_else(|| de::Error::custom("a time is written like 2026-11-21T00:00:00Z"))
    }
}

#[cfg(test)]
mod tests;
