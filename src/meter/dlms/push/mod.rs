//! Meters that push by DLMS/COSEM: customer interfaces (HAN ports and M-Bus outputs) and meters that connect by
//! themselves.
//!
//! Values are named by their OBIS ids, `1-0:1.8.0*255`; the meter's own time is `0-0:1.0.0*255`. With keys,
//! only ciphered pushes are believed, each invocation counter once; what carries them is found out. Without an
//! authentication key the tags can't be verified, which is logged.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use self::earlier::Earlier;
use self::replay::Replay;
use crate::meter::heard::{self, Wishes};
use crate::meter::{Driver, Listener, MeterError, MeterSettings, Protocol};
use crate::model::{Quality, Value};
use crate::os::file;
use crate::setting::{Problems, SecretFile};
use crate::wire::dlms::entry::{Entry, Finder, Name};
use crate::wire::dlms::notification::{self, Notification};
use crate::wire::dlms::open::{self, Keys, Sealed, TITLE};
use crate::wire::dlms::push::{Decoder, Event, is_push};
use crate::wire::dlms::secret::Secret;
use crate::wire::dlms::{shown, vendor};

mod earlier;
mod replay;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::PushSettings;

/// The row of this protocol in the table of protocols.
pub const ROW: Protocol = Protocol { name: "dlms-push", driver: Driver::Listens(listener), check };

/// The longest pause inside one push: some meters wait three seconds between its frames.
const PAUSE: Duration = Duration::from_secs(4);
/// The longest file that is taken for a key.
const KEY_FILE_LIMIT: u64 = 256;

const ONE_KEY: &str = "authentication_key_file needs key_file beside it: it verifies what key_file decrypts";
const TWO_LENGTHS: &str =
    "key_file and authentication_key_file hold keys of two suites: both have 32 digits, or both 64";
const NO_KEY: &str = "system_title, untagged and broadcast_key_file are for ciphered pushes; set key_file";
const NO_BROADCAST_KEY: &str = "the push is under the broadcast key; set push.broadcast_key_file";

fn listener(settings: &MeterSettings) -> Result<Box<dyn Listener>, String> {
    let push =
        settings.push.clone().unwrap_or(PushSettings { system_title: None, untagged: false, broadcast_key_file: None });
    let encryption = settings.key_file.as_ref().map(|file| key(file)).transpose()?;
    let authentication = settings.authentication_key_file.as_ref().map(|file| key(file)).transpose()?;
    let keys = match (&encryption, &authentication) {
        (None, None) if push.system_title.is_some() || push.untagged => return Err(NO_KEY.to_owned()),
        (None, None) => None,
        (None, Some(_)) => return Err(ONE_KEY.to_owned()),
        (Some(encryption), authentication) => {
            Some(Keys::of(encryption.bytes(), authentication.as_ref().map(Secret::bytes)).ok_or(TWO_LENGTHS)?)
        }
    };
    let broadcast = push.broadcast_key_file.as_ref().map(|file| key(file)).transpose()?;
    let broadcast_keys = match (&broadcast, &keys) {
        (Some(_), None) => return Err(NO_KEY.to_owned()),
        (Some(broadcast), Some(_)) => {
            Some(Keys::of(broadcast.bytes(), authentication.as_ref().map(Secret::bytes)).ok_or(TWO_LENGTHS)?)
        }
        (None, _) => None,
    };
    let all: Vec<&[u8]> = [&broadcast, &authentication].into_iter().flatten().map(Secret::bytes).collect();
    let broadcast_replay = Replay::new(&all);
    let both: Vec<&[u8]> = [&encryption, &authentication].into_iter().flatten().map(Secret::bytes).collect();
    Ok(Box::new(Push {
        meter: settings.name.to_string(),
        decoder: Decoder::new(),
        replay: Replay::new(&both),
        kept: None,
        keys,
        broadcast_keys,
        broadcast_replay,
        title: push.system_title.as_ref().map(|title| self::title(title)).transpose()?,
        untagged: push.untagged,
        unverified_told: false,
        finder: Finder::new(),
        earlier: Earlier::default(),
        wishes: Wishes::new(settings),
    }))
}

fn key(file: &SecretFile) -> Result<Secret, String> {
    read_key(file.path()).map_err(|reason| format!("the key file {} {reason}", file.path().display()))
}

fn read_key(path: &Path) -> Result<Secret, String> {
    let content = file::read_small(path, KEY_FILE_LIMIT).map_err(|e| format!("can't be read: {e}"))?;
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(content.trim_ascii()).ok();
    let fits = bytes.filter(|bytes| matches!(bytes.len(), 16 | 32)).map(Secret::new);
    fits.ok_or_else(|| "does not hold 32 hexadecimal digits (security suites 0 and 1) or 64 (suite 2)".to_owned())
}

fn title(text: &str) -> Result<[u8; TITLE], String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let fault =
        || format!("system_title is \"{text}\", but must be 16 hexadecimal digits such as \"4B414D4501349083\"");
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(fault)
}

/// Says everything in a meter's settings that can't work with this protocol.
fn check(settings: &MeterSettings, problems: &mut Problems) {
    heard::check(settings, problems);
    if let (None, Some(key)) = (&settings.key_file, &settings.authentication_key_file) {
        problems.error(key.span(), ONE_KEY);
    }
    let broadcast = settings.push.as_ref().and_then(|push| push.broadcast_key_file.as_ref());
    let files = [settings.key_file.as_ref(), settings.authentication_key_file.as_ref(), broadcast];
    let mut lengths = Vec::new();
    for file in files.into_iter().flatten() {
        match key(file) {
            Ok(key) => lengths.push((key.bytes().len(), file.span())),
            Err(reason) => problems.warning(file.span(), reason),
        }
    }
    if let Some((_, span)) =
        lengths.iter().find(|(length, _)| lengths.first().is_some_and(|(first, _)| first != length))
    {
        problems.error(span.clone(), TWO_LENGTHS);
    }
    if let Some(key) = settings.key_file.as_ref().filter(|_| settings.authentication_key_file.is_none()) {
        problems.warning(
            key.span(),
            "without authentication_key_file the tags of pushes can't be verified: whoever reaches the wire can change values",
        );
    }
    let Some(push) = &settings.push else { return };
    if let Some(Err(fault)) = push.system_title.as_ref().map(|text| title(text)) {
        problems.error(push.system_title.as_ref().map_or_else(|| settings.protocol.span(), |t| t.span()), fault);
    }
    if settings.key_file.is_none() && (push.system_title.is_some() || push.untagged || broadcast.is_some()) {
        problems.error(settings.protocol.span(), NO_KEY);
    }
}

struct Push {
    meter: String,
    decoder: Decoder,
    keys: Option<Keys>,
    /// With the key of pushes to many, and their counters, which are a row of their own.
    broadcast_keys: Option<Keys>,
    broadcast_replay: Replay,
    title: Option<[u8; TITLE]>,
    untagged: bool,
    replay: Replay,
    /// What of the counters is kept.
    kept: Option<Vec<u8>>,
    unverified_told: bool,
    finder: Finder,
    earlier: Earlier,
    wishes: Wishes,
}

impl Push {
    fn drain(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        let mut found = Vec::new();
        while let Some(event) = self.decoder.next() {
            match event {
                Event::Frame(_) | Event::Block { .. } | Event::Skipped { .. } => {}
                Event::Damaged(damage) => found.push(Err(MeterError::Damaged(damage.to_string()))),
                // Somebody reads the meter on the same line.
                Event::Apdu(apdu) if !is_push(&apdu) => {}
                Event::Apdu(apdu) => match self.understand(&apdu) {
                    Ok(values) if values.is_empty() => {}
                    Ok(values) => found.push(Ok(values)),
                    Err(sentence) => found.push(Err(MeterError::Damaged(sentence))),
                },
            }
        }
        found
    }

    /// The counters as they are kept.
    fn counters(&self) -> Vec<u8> {
        let first = self.replay.to_bytes();
        let length = u16::try_from(first.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&length[..], &first, &self.broadcast_replay.to_bytes()].concat()
    }

    /// The values of one APDU, or why it is not believed.
    fn understand(&mut self, apdu: &[u8]) -> Result<Vec<Value>, String> {
        let sealed = open::sealed(apdu).map_err(|closed| closed.to_string())?;
        let (Some(sealed), Some(keys)) = (sealed, &self.keys) else {
            return match (sealed, &self.keys) {
                (None, None) => self.read(apdu, false),
                (None, Some(_)) => {
                    Err("the push is not ciphered, but the meter has keys: anybody may have written it".into())
                }
                (Some(_), _) => Err("the push is ciphered; set key_file, which the grid operator gives out".into()),
            };
        };
        let title = self.sender(&sealed)?;
        let broadcast = sealed.key == open::Under::Broadcast;
        let (keys, replay) = match broadcast {
            true => (self.broadcast_keys.as_ref().ok_or(NO_BROADCAST_KEY)?, &self.broadcast_replay),
            false => (keys, &self.replay),
        };
        if !replay.is_new(title, sealed.counter) {
            return Err("the push is a replay: its invocation counter is not newer than one before".to_owned());
        }
        let opened = sealed.open(keys, Some(title), self.untagged).map_err(|closed| closed.to_string())?;
        if !opened.verified && !std::mem::replace(&mut self.unverified_told, true) {
            let (meter, tag) = (&self.meter, sealed.control.authenticated());
            warn!(%meter, tag, "pushes are taken without a verified tag; whoever reaches the wire can change values");
        }
        let values = self.read(&opened.apdu, opened.verified)?;
        let replay = if broadcast { &mut self.broadcast_replay } else { &mut self.replay };
        replay.accept(title, sealed.counter);
        Ok(values)
    }

    /// Who sent it, if that is the meter.
    fn sender(&self, sealed: &Sealed<'_>) -> Result<[u8; TITLE], String> {
        let told = sealed.title.map(<[u8; TITLE]>::try_from).transpose();
        match (told.map_err(|_| "the push has a system title that is not 8 bytes long")?, self.title) {
            (Some(told), Some(wanted)) if told != wanted => {
                let told = data_encoding::HEXUPPER.encode(&told);
                Err(format!("the push is of another meter; its system title is {told}"))
            }
            (Some(title), _) | (None, Some(title)) => Ok(title),
            (None, None) => Err(open::Closed::Title.to_string()),
        }
    }

    fn read(&mut self, apdu: &[u8], verified: bool) -> Result<Vec<Value>, String> {
        let notification = notification::decode(apdu).map_err(|e| format!("the push can't be read: {e}"))?;
        // Behind a right tag they are the meter's; else a frame of another message may stand there.
        if notification.left > 0 && !verified {
            return Err(format!("{} bytes follow the push that belong to nothing", notification.left));
        }
        let mut values = values(&notification, &self.finder.entries(&notification));
        if values.is_empty() {
            return Ok(values);
        }
        let time = values.iter().find(|v| v.name == vendor::CLOCK.to_string()).and_then(|v| v.value.clone());
        self.earlier.complete(&mut values, time.as_deref(), Instant::now());
        Ok(self.wishes.keep(values))
    }
}

/// The values of a push. An id that comes again is `id#2`, `id#3` ...
fn values(notification: &Notification<'_>, entries: &[Entry<'_>]) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    let mut times = std::collections::HashMap::new();
    let clock = Name::Object { object: vendor::CLOCK, attribute: None };
    let mut add = |name: String, text: Option<String>, unit: &str, quality| {
        let number = times.entry(name.clone()).and_modify(|number| *number += 1).or_insert(1usize);
        let name = if *number == 1 { name } else { format!("{name}#{number}") };
        values.push(Value { name, value: text, unit: unit.to_owned(), quality });
    };
    if let Some(time) = notification.time.filter(|_| !entries.iter().any(|entry| entry.name == clock)) {
        add(clock.to_string(), Some(shown::written(time)), "", Quality::Good);
    }
    for entry in entries {
        let text = entry.text();
        let quality = match (&text, entry.is_null()) {
            (Some(_), _) => Quality::Good,
            (None, true) => Quality::Unavailable,
            // No meter has a number of so many digits.
            (None, false) => Quality::Invalid,
        };
        add(entry.name.to_string(), text, entry.unit(), quality);
        if let Some(time) = entry.time {
            add(format!("{}#time", entry.name), Some(shown::written(time)), "", Quality::Good);
        }
    }
    values
}

impl Listener for Push {
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<Vec<Value>, MeterError>> {
        self.decoder.push(bytes);
        self.drain()
    }

    fn silence(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        self.decoder.silence();
        self.drain()
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        self.wishes.absent(quality)
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn to_keep(&mut self) -> Option<Vec<u8>> {
        let now = self.counters();
        let changed = self.keys.is_some() && self.kept.as_ref() != Some(&now);
        changed.then(|| self.kept.insert(now).clone())
    }

    fn take_over(&mut self, kept: &[u8]) {
        // The row of the broadcast key stands behind that of the other, where there is one.
        let (first, second) = kept.split_first_chunk().map_or((kept, None), |(length, rest)| {
            match rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) {
                Some((first, second)) => (first, Some(second)),
                None => (kept, None),
            }
        });
        self.replay.take_over(first);
        self.broadcast_replay.take_over(second.unwrap_or_default());
        self.kept = Some(self.counters());
    }
}
