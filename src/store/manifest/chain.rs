//! One manifest after the other: where a chain of them breaks first, and why.

use std::collections::BTreeMap;

use super::{Counts, Digest, Manifest, ManifestError, Signed, digest_text, span};
use crate::model::Sequence;
use crate::store::key::Public;

/// What a chain says of a manifest that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It follows the one before.
    New(Box<Manifest>),
    /// The same manifest came before: delivered twice, which is allowed.
    Repeated(u64),
}

/// Where and why a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// It is no manifest, forged, or contradicts itself.
    #[error("after manifest {after}: {error}")]
    Bad {
        /// The number of the last good one, 0 at the beginning.
        after: u64,
        /// What is wrong.
        error: ManifestError,
    },
    /// It is signed by another key than the pinned one, or than the manifests before.
    #[error(
        "manifest {number} is signed by another key ({key}) than the one expected ({expected}): the gateway's key was replaced, or this is a forgery"
    )]
    Key {
        /// Its number.
        number: u64,
        /// Its key, in base64.
        key: String,
        /// The key expected, in base64.
        expected: String,
    },
    /// It is of another gateway.
    #[error("manifest {number} is of gateway {found:?}, those before it of {expected:?}: check one gateway at a time")]
    Gateway {
        /// Its number.
        number: u64,
        /// Its gateway.
        found: String,
        /// The gateway of those before.
        expected: String,
    },
    /// Manifests between are not there.
    #[error("manifest {expected} is missing: after {after} comes {found}", after = expected.saturating_sub(1))]
    Missing {
        /// The first one that is missing.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// The number came before, with other content.
    #[error(
        "there are two different manifests with number {number}: one of them is false, or the gateway has lost its memory of the chain"
    )]
    Twice {
        /// The number.
        number: u64,
    },
    /// It does not name the manifest before it.
    #[error("manifest {number} follows another manifest ({named}) than the one before it here ({actual})")]
    Previous {
        /// Its number.
        number: u64,
        /// The digest it names.
        named: String,
        /// The digest of the one before.
        actual: String,
    },
    /// Its first number is not the one after the last number of the manifest before.
    #[error("manifest {number} begins with frame {found}, but the one before it ends with {last}")]
    Gap {
        /// Its number.
        number: u64,
        /// Its first frame number.
        found: Sequence,
        /// The last frame number of the one before.
        last: Sequence,
    },
    /// A count that only grows is smaller than before.
    #[error("manifest {number}: {what} went back from {before} to {now}")]
    Backwards {
        /// Its number.
        number: u64,
        /// Which count.
        what: &'static str,
        /// In the manifest before.
        before: u64,
        /// In this one.
        now: u64,
    },
    /// The spans do not hold what a count grew by.
    #[error("manifest {number}: {what} grew by {grown}, but its spans explain {explained}")]
    Unexplained {
        /// Its number.
        number: u64,
        /// Which class.
        what: &'static str,
        /// By how much the count grew.
        grown: u64,
        /// How many numbers the spans hold.
        explained: u64,
    },
}

#[derive(Debug)]
struct Newest {
    number: u64,
    digest: Digest,
    last: Sequence,
    gateway: String,
    counts: Counts,
}

/// Checks manifests in their order.
#[derive(Debug, Default)]
pub struct Chain {
    key: Option<Public>,
    after: Option<Digest>,
    newest: Option<Newest>,
    seen: BTreeMap<u64, Digest>,
}

impl Chain {
    /// Starts a chain. With `key` every manifest must be signed by it, else by the key of the
    /// first. Without `after` it begins with manifest 1; with it, behind the manifest of that
    /// digest, which was verified before.
    pub fn new(key: Option<Public>, after: Option<Digest>) -> Self {
        Self { key, after, newest: None, seen: BTreeMap::new() }
    }

    /// Takes the next manifest.
    ///
    /// # Errors
    /// The first [`Break`]; the chain stays where it was.
    pub fn push(&mut self, signed: &Signed) -> Result<Link, Break> {
        let after = self.newest.as_ref().map_or(0, |n| n.number);
        let manifest = signed.verify().map_err(|error| Break::Bad { after, error })?;
        let number = manifest.number;
        if let Some(expected) = self.key.filter(|k| *k != signed.key) {
            let [key, expected] = [signed.key, expected].map(|k| data_encoding::BASE64.encode(&k));
            return Err(Break::Key { number, key, expected });
        }
        let digest = signed.digest();
        match self.seen.get(&number) {
            Some(known) if *known == digest => return Ok(Link::Repeated(number)),
            Some(_) => return Err(Break::Twice { number }),
            None => {}
        }
        self.follows(&manifest)?;
        self.key = Some(signed.key);
        self.seen.insert(number, digest);
        self.newest = Some(Newest {
            number,
            digest,
            last: manifest.last,
            gateway: manifest.gateway.clone(),
            counts: manifest.counts,
        });
        Ok(Link::New(Box::new(manifest)))
    }

    fn follows(&self, manifest: &Manifest) -> Result<(), Break> {
        let number = manifest.number;
        let Some(newest) = &self.newest else {
            return self.begins(manifest);
        };
        if manifest.gateway != newest.gateway {
            let (found, expected) = (manifest.gateway.clone(), newest.gateway.clone());
            return Err(Break::Gateway { number, found, expected });
        }
        let expected = newest.number.saturating_add(1);
        if number != expected {
            return Err(Break::Missing { expected, found: number });
        }
        named(manifest, &newest.digest)?;
        if manifest.first != newest.last.saturating_add(1) {
            return Err(Break::Gap { number, found: manifest.first, last: newest.last });
        }
        grown(manifest, &newest.counts)
    }

    fn begins(&self, manifest: &Manifest) -> Result<(), Break> {
        match &self.after {
            Some(digest) => named(manifest, digest),
            None if manifest.number != 1 => Err(Break::Missing { expected: 1, found: manifest.number }),
            None => {
                named(manifest, &Digest::default())?;
                grown(manifest, &Counts::default())
            }
        }
    }

    /// The key that signed the chain, or that is pinned.
    pub fn key(&self) -> Option<Public> {
        self.key
    }

    /// The number and digest of the newest manifest.
    pub fn newest(&self) -> Option<(u64, Digest)> {
        self.newest.as_ref().map(|n| (n.number, n.digest))
    }
}

fn named(manifest: &Manifest, actual: &Digest) -> Result<(), Break> {
    if manifest.previous == *actual {
        return Ok(());
    }
    let [named, actual] = [&manifest.previous, actual].map(digest_text);
    Err(Break::Previous { number: manifest.number, named, actual })
}

/// Counts only grow, and the spans explain by how much.
fn grown(manifest: &Manifest, before: &Counts) -> Result<(), Break> {
    let (number, now) = (manifest.number, &manifest.counts);
    for (what, before, now) in [
        ("received", before.received, now.received),
        ("acknowledged", before.acknowledged, now.acknowledged),
        ("evicted", before.evicted, now.evicted),
        ("damaged", before.damaged, now.damaged),
        ("skipped", before.skipped, now.skipped),
    ] {
        if now < before {
            return Err(Break::Backwards { number, what, before, now });
        }
    }
    for (what, grown, spans) in [
        ("evicted", now.evicted - before.evicted, &manifest.evicted),
        ("skipped", now.skipped - before.skipped, &manifest.skipped),
    ] {
        let explained = span::total(spans);
        if explained != grown {
            return Err(Break::Unexplained { number, what, grown, explained });
        }
    }
    Ok(())
}
