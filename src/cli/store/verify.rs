//! `weir store verify`: the head-end's side of the proof.

mod input;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use self::input::Arrived;
use super::progress::Progress;
use crate::cli::failure::{Failure, OTHER};
use crate::cli::table;
use crate::store::key::{self, Public};
use crate::store::manifest::chain::{Break, Chain, Link};
use crate::store::manifest::proof::{Account, Completeness, Numbers};
use crate::store::manifest::{Clock, Digest, Manifest, digest_of, digest_text};

/// Ranges of missing numbers that are printed one by one.
const MOST_RANGES: usize = 100;

/// Check a gateway's manifests, and that every frame they speak of has arrived.
///
/// For the head-end: needs no gateway, no configuration and no store. The manifests of one gateway
/// are checked in their order: signature, key, hash chain, figures. With --received every number
/// must have arrived or be explained (evicted, skipped, pending); what is neither is MISSING.
/// Exits with 0 only if everything holds.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Files with manifests: one signed line each, or the messages of the gateway, one a line.
    #[arg(required = true)]
    manifests: Vec<PathBuf>,

    /// The key that must have signed them: what weir store key prints on the gateway.
    #[arg(long, value_name = "BASE64", value_parser = super::public)]
    key: Option<Public>,

    /// Begin behind the manifest with this digest, which was verified before.
    #[arg(long, value_name = "SHA256", value_parser = digest)]
    after: Option<Digest>,

    /// What has arrived from the gateway: its messages, one a line, or plain sequence numbers.
    #[arg(long, value_name = "FILE")]
    received: Vec<PathBuf>,

    /// What has arrived from gateways that imported an export of this one: their messages.
    #[arg(long, value_name = "FILE")]
    carried: Vec<PathBuf>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn digest(text: &str) -> Result<Digest, String> {
    digest_of(text).ok_or_else(|| "a digest is 64 hex digits, as weir store verify prints it".to_owned())
}

/// What was found out.
struct Verdict {
    manifests: Vec<(Manifest, Digest)>,
    repeated: usize,
    broken: Option<Break>,
    key: Option<Public>,
    pinned: bool,
    arrived: Option<(Completeness, Arrived)>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut signed = input::manifests(&self.manifests)?;
        // Messages may have come out of order; the chain is a matter of numbers.
        signed.sort_by_key(input::number);
        if signed.is_empty() {
            return Err(Failure::other(
                "there is no manifest in these files: give files with signed manifests, or the gateway's messages one a line",
            ));
        }
        let mut chain = Chain::new(self.key, self.after);
        let mut verdict = Verdict {
            manifests: Vec::new(),
            repeated: 0,
            broken: None,
            key: None,
            pinned: self.key.is_some(),
            arrived: None,
        };
        let mut account = Account::default();
        let mut progress = Progress::new("verified", signed.len() as u64);
        for (done, signed) in (1..).zip(&signed) {
            match chain.push(signed) {
                Ok(Link::New(manifest)) => {
                    account.push(&manifest);
                    verdict.manifests.push((*manifest, signed.digest()));
                }
                Ok(Link::Repeated(_)) => verdict.repeated += 1,
                Err(broken) => {
                    verdict.broken = Some(broken);
                    break;
                }
            }
            progress.set(done);
        }
        drop(progress);
        verdict.key = chain.key();
        if let Some((first, _)) =
            verdict.manifests.first().filter(|_| !self.received.is_empty() || !self.carried.is_empty())
        {
            let mut arrived = input::arrived(&first.gateway, &self.received, &self.carried)?;
            let numbers = Numbers::of(std::mem::take(&mut arrived.numbers));
            arrived.repeats = numbers.repeats();
            verdict.arrived = Some((account.compare(&numbers), arrived));
        }
        let mut out = std::io::stdout().lock();
        let _ =
            if self.json { writeln!(out, "{}", verdict.object()) } else { out.write_all(verdict.told().as_bytes()) };
        if verdict.holds() { Ok(()) } else { Err(Failure::silent(OTHER)) }
    }
}

impl Verdict {
    fn holds(&self) -> bool {
        self.broken.is_none() && self.arrived.as_ref().is_none_or(|(c, _)| c.missing.is_empty())
    }

    fn gateway(&self) -> &str {
        self.manifests.first().map_or("", |(m, _)| m.gateway.as_str())
    }

    fn broken(&self) -> Option<String> {
        let broken = self.broken.as_ref()?;
        let hint = match broken {
            Break::Missing { expected: 1, .. } => {
                ". To begin later give --after with the digest of the last one verified before"
            }
            _ => "",
        };
        Some(format!("{broken}{hint}"))
    }

    fn told(&self) -> String {
        let mut text = String::new();
        let row = |(m, _): &(Manifest, Digest)| {
            let c = &m.counts;
            let frames = if m.last < m.first { "none".to_owned() } else { format!("{}-{}", m.first, m.last) };
            let clock = if m.clock == Clock::Synced { "" } else { "clock unsynced" };
            let figures =
                [c.received, c.acknowledged, c.evicted, c.damaged, c.skipped, c.pending].map(|n| n.to_string());
            let ends = [m.number.to_string(), m.from.to_string(), m.to.to_string(), frames];
            [&ends[..], &figures, &[clock.to_owned()]].concat()
        };
        if !self.manifests.is_empty() {
            let head = [
                "no.",
                "from",
                "to",
                "numbers",
                "received",
                "acknowledged",
                "evicted",
                "damaged",
                "skipped",
                "pending",
                "",
            ];
            text += &table::render(&head, &self.manifests.iter().map(row).collect::<Vec<_>>());
            text.push('\n');
        }
        if let Some(key) = &self.key {
            let trust = if self.pinned {
                "pinned"
            } else {
                "NOT PINNED: compare it with weir store key on the gateway, then give --key"
            };
            text += &format!("key     {} ({trust})\n", key::text(key));
        }
        if let Some((_, digest)) = self.manifests.last() {
            text += &format!("digest  {} (for --after)\n", digest_text(digest));
        }
        if let Some((found, arrived)) = &self.arrived {
            for span in found.missing.iter().take(MOST_RANGES) {
                text += &format!("MISSING {span} ({} frames)\n", span.count);
            }
            if found.missing.len() > MOST_RANGES {
                text += &format!("MISSING in {} ranges more\n", found.missing.len() - MOST_RANGES);
            }
            if arrived.unreadable > 0 {
                text +=
                    &format!("{} lines of the received files are neither messages nor numbers\n", arrived.unreadable);
            }
        }
        text + &self.sentence()
    }

    fn sentence(&self) -> String {
        let gateway = table::printable(self.gateway());
        if let Some(broken) = self.broken() {
            return format!("BROKEN: {}\n", table::printable(&broken));
        }
        let count = self.manifests.len();
        let chain = format!("{count} manifests of {gateway} hold together");
        let Some((found, arrived)) = &self.arrived else {
            return format!("{chain}; give --received to see whether every frame has arrived\n");
        };
        let missing: u64 = found.missing.iter().map(|s| s.count).sum();
        let verdict = if missing == 0 { "COMPLETE" } else { "INCOMPLETE" };
        let Completeness { numbers, received, explained, .. } = found;
        format!(
            "{verdict}: {chain}; of {numbers} numbers {received} arrived, {explained} are explained, {missing} are missing; {} repeats\n",
            arrived.repeats
        )
    }

    fn object(&self) -> serde_json::Value {
        let arrived = self.arrived.as_ref().map(|(found, arrived)| {
            serde_json::json!({
                "numbers": found.numbers, "received": found.received, "explained": found.explained,
                "missing": found.missing, "repeats": arrived.repeats, "unreadable_lines": arrived.unreadable,
            })
        });
        serde_json::json!({
            "holds": self.holds(), "gateway": self.gateway(), "key": self.key.as_ref().map(key::text), "pinned": self.pinned,
            "broken": self.broken(), "repeated_manifests": self.repeated,
            "digest": self.manifests.last().map(|(_, d)| digest_text(d)),
            "manifests": self.manifests.iter().map(|(m, _)| m).collect::<Vec<_>>(), "completeness": arrived,
        })
    }
}
