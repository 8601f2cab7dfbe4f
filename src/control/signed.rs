//! Signed commands: Ed25519 (RFC 8032) over the command, the gateway, the time and a nonce.
//!
//! A signature is good once, from 30 s before to the window after its time, and never for a command that was signed before weir
//! started or within 30 s after: so nothing that was recorded earlier is obeyed, also after a restart. A gateway whose clock is not set is asked for a challenge first.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::model::{ClockState, Stamp, Timestamp};
use crate::os::file::read_small;
use crate::setting::Identity;

/// A command as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The command, such as `AT^MTXTUNNEL=VERSION`.
    pub at: String,
    /// What the sender wants to find in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The gateway it is for, by its id or IMEI; `*` is every one. Another gateway does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// When it was signed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// 8 to 64 letters and digits, never used before; or the answer of `CHALLENGE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The name of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// 64 bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl Envelope {
    /// The bytes that are signed: a line each for the format, device, time, nonce and id, then the command.
    pub fn message(&self) -> Vec<u8> {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let (device, time, nonce, id) = (part(&self.device), part(&self.time), part(&self.nonce), part(&self.id));
        format!("weir-command-1\n{device}\n{time}\n{nonce}\n{id}\n{}", self.at).into_bytes()
    }

    /// Whether it is for this gateway.
    pub fn is_for(&self, identity: &Identity) -> bool {
        self.device
            .as_deref()
            .is_none_or(|device| device == "*" || device == identity.id || identity.imei.as_deref() == Some(device))
    }
}

/// Nonces that are remembered; when so many were used within the window, no more signed commands are taken.
const MOST: usize = 1024;
/// A file of keys is small.
const LARGEST_FILE: u64 = 64 << 10;
/// A clock may be so much ahead of the gateway's.
const AHEAD: Duration = Duration::from_secs(30);
/// Challenges that wait; the oldest one goes first.
const CHALLENGES: usize = 8;
/// A challenge waits so long for its command.
const CHALLENGE: Duration = Duration::from_mins(10);

/// Sees whether signatures are good.
pub(super) struct Verifier {
    keys_file: Option<PathBuf>,
    window: Duration,
    started: Instant,
    /// Nonces and until when they are remembered.
    used: BTreeMap<String, Instant>,
    challenges: VecDeque<(String, Instant)>,
}

impl Verifier {
    /// Begins now.
    pub(super) fn new(keys_file: Option<PathBuf>, window: Duration) -> Self {
        Self { keys_file, window, started: Instant::now(), used: BTreeMap::new(), challenges: VecDeque::new() }
    }

    /// Gives out a new challenge.
    pub(super) fn challenge(&mut self, random: [u8; 16]) -> String {
        let text = data_encoding::HEXLOWER.encode(&random);
        self.challenges.truncate(CHALLENGES - 1);
        self.challenges.push_front((text.clone(), Instant::now() + CHALLENGE));
        text
    }

    /// The name of the key that signed; `None` when nobody did.
    ///
    /// # Errors
    /// One sentence that says why the signature is no good.
    pub(super) fn verify(&mut self, envelope: &Envelope, now: &Stamp) -> Result<Option<String>, String> {
        let Some(signature) = &envelope.signature else { return Ok(None) };
        let missing = |what: &str| format!("a signed command needs \"{what}\"");
        let name = envelope.key.as_ref().ok_or_else(|| missing("key"))?;
        let nonce = envelope.nonce.as_ref().ok_or_else(|| missing("nonce"))?;
        let time = envelope.time.as_ref().ok_or_else(|| missing("time"))?;
        envelope.device.as_ref().ok_or_else(|| missing("device"))?;
        if !(8..=64).contains(&nonce.len()) || !nonce.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err("the nonce must be 8 to 64 letters and digits; make a new one".to_owned());
        }
        let time = Timestamp::parse(time).ok_or("the time must be as in 2026-11-22T15:04:05Z")?;
        // The signature first: who can't sign learns nothing of times and nonces.
        let key = self.key(name)?;
        let signature = data_encoding::BASE64.decode(signature.as_bytes()).map_err(|_| "the signature is no base64")?;
        let good = UnparsedPublicKey::new(&ED25519, &key).verify(&envelope.message(), &signature);
        good.map_err(|_| format!("the signature is not that of key \"{name}\" over this command"))?;
        let at = Instant::now();
        let challenge = self.challenges.iter().position(|(challenge, until)| challenge == nonce && at < *until);
        match challenge {
            Some(place) => drop(self.challenges.remove(place)),
            None => self.is_timely(time, now)?,
        }
        self.use_up(nonce, at)?;
        Ok(Some(name.clone()))
    }

    fn is_timely(&self, time: Timestamp, now: &Stamp) -> Result<(), String> {
        if now.clock != ClockState::Synced {
            return Err(
                "the gateway's clock is not set; ask for AT^WEIR=CHALLENGE and use the answer as nonce".to_owned()
            );
        }
        let (early, late) = (time.since(now.wall), now.wall.since(time));
        if early > AHEAD || late > self.window {
            return Err(format!("the command was signed at {time}, but it is {}; sign it anew", now.wall));
        }
        // Whatever was obeyed before the start had a time of at most so much later: its nonce is forgotten.
        if time <= now.wall.minus(self.started.elapsed()).plus(AHEAD) {
            let sentence =
                "the command was signed before weir started, or within 30 s after; sign it anew in half a minute";
            return Err(sentence.to_owned());
        }
        Ok(())
    }

    fn use_up(&mut self, nonce: &str, at: Instant) -> Result<(), String> {
        self.used.retain(|_, until| *until > at);
        if self.used.contains_key(nonce) {
            return Err("the nonce was used before; make a new one".to_owned());
        }
        if self.used.len() >= MOST {
            return Err("too many signed commands came in a short time; wait some minutes".to_owned());
        }
        self.used.insert(nonce.to_owned(), at + self.window * 2);
        Ok(())
    }

    /// The public key of a name. The file is read each time, so that a new key needs no restart.
    fn key(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.keys_file.as_ref().ok_or("signed commands need control.signatures.keys_file")?;
        let content =
            read_small(path, LARGEST_FILE).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let keys = keys(&String::from_utf8_lossy(&content)).map_err(|why| format!("{}: {why}", path.display()))?;
        keys.into_iter()
            .find(|(known, _)| known == name)
            .map(|(_, key)| key)
            .ok_or_else(|| format!("there is no key \"{name}\" here"))
    }
}

/// Reads a file of keys: a name and 32 bytes in base64 a line; `#` begins a comment.
///
/// # Errors
/// What is wrong, with its line.
pub(super) fn keys(text: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let key = line.split_once(char::is_whitespace).and_then(|(name, key)| {
            let key = data_encoding::BASE64.decode(key.trim().as_bytes()).ok().filter(|key| key.len() == 32)?;
            Some((name.to_owned(), key))
        });
        keys.push(key.ok_or_else(|| format!("line {number} must be a name and 32 bytes in base64"))?);
    }
    Ok(keys)
}
