//! Gives a meter new firmware (image transfer, IEC 62056-6-2, clause 4.4.6), block by block.
//!
//! Invariants: a transfer that broke off goes on where the meter says that it ended, but only with the same image; an
//! image that the meter has whole is never sent again, also when it restarts to run it; the meter verifies the image
//! before it is activated, and activates only when that is ordered; the line is given back at the end of a slice, and
//! the next order goes on.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::object::{Target, shown, value_word};
use super::service::{Content, Services, action_words, damage, words};
use super::session::Client;
use crate::meter::{Kept, MeterError};
use crate::model::Timestamp;
use crate::os::clock;
use crate::os::file::read_small;
use crate::os::line::Line;
use crate::wire::dlms::{ActionResult, AttributeDescriptor, DataBuf, LogicalName, MethodDescriptor};

/// The class of an image transfer.
const CLASS: u16 = 18;
/// The active firmware's identifier.
const FIRMWARE: AttributeDescriptor = AttributeDescriptor::new(1, LogicalName::new(1, 0, 0, 2, 0, 255), 2);
/// The longest image.
const LONGEST: u64 = 32 * 1024 * 1024;
/// How often blocks that the meter misses are sent again.
const ROUNDS: u32 = 5;
/// How long a meter may verify, or activate and restart.
const PATIENCE: Duration = Duration::from_mins(15);
const POLL: Duration = Duration::from_secs(3);
/// How long the line is used at once, so that other meters on it are read.
const SLICE: Duration = Duration::from_mins(1);
/// How often a connection may be lost without one block more in the meter, and the pauses then.
const ATTEMPTS: u32 = 10;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the meter says of its image (attribute 6).
mod status {
    pub(super) const NONE: i64 = 0;
    pub(super) const INITIATED: i64 = 1;
    pub(super) const VERIFYING: i64 = 2;
    pub(super) const VERIFIED: i64 = 3;
    pub(super) const UNVERIFIED: i64 = 4;
    pub(super) const ACTIVATING: i64 = 5;
    pub(super) const ACTIVATED: i64 = 6;
    pub(super) const FAILED: i64 = 7;
}

/// What is to be transferred.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    /// The file.
    path: String,
    /// What the meter is told that it is; unset: the file's name.
    identifier: Option<String>,
    /// Whether the meter shall run it.
    activate: bool,
}

/// The image that a meter was given last: what tells it from another one, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    identifier: String,
    size: usize,
    digest: String,
    /// When it was ordered to be verified or activated, in milliseconds of the clock.
    verify: Option<i64>,
    activate: Option<i64>,
    /// The firmware that ran before.
    firmware: Option<String>,
}

impl Mark {
    fn of(bytes: &[u8], identifier: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
        let identifier = identifier.to_owned();
        Self { identifier, size: bytes.len(), digest, verify: None, activate: None, firmware: None }
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.identifier, self.size, &self.digest) == (&other.identifier, other.size, &other.digest)
    }
}

/// What is remembered of a transfer from one order to the next.
#[derive(Debug, Default)]
pub(super) struct Sending {
    mark: Option<Mark>,
    loaded: bool,
    /// How many blocks there were when the connection was lost, and how often that was.
    best: u32,
    lost: u32,
}

/// What an association came to.
enum Step {
    Done(Json),
    /// The slice is over.
    More,
}

impl Client {
    /// Transfers an image, verifies it, and activates it when that is wanted; `"outcome": "more"` says that its time on
    /// the line is over and that the same order goes on.
    ///
    /// # Errors
    /// What the line or the meter said; whoever tries again goes on where it ended.
    pub(super) async fn transfer(
        &mut self,
        line: &mut Line,
        target: &Target,
        image: &Image,
    ) -> Result<Json, MeterError> {
        let order = |why: String| MeterError::Order(format!("{}: {why}", image.path));
        let bytes = read_small(Path::new(&image.path), LONGEST).map_err(|error| order(unreadable(&error)))?;
        if bytes.is_empty() {
            return Err(order("the file is empty".to_owned()));
        }
        let file = Path::new(&image.path).file_name().map(|name| name.to_string_lossy().into_owned());
        let identifier = image.identifier.clone().or(file).unwrap_or_default();
        self.remember().await;
        let wanted = Mark::of(&bytes, &identifier);
        if self.sending.mark.as_ref().is_none_or(|mark| !mark.is_of(&wanted)) {
            self.sending = Sending { loaded: true, ..Sending::default() };
        }
        let slice = Instant::now() + SLICE.min(self.settings.longest_session);
        let mut pause = SHORTEST_PAUSE;
        loop {
            let error = match self.slice(line, target.name, (&bytes, &wanted), image.activate, slice).await {
                Ok(Step::Done(told)) => return Ok(told),
                Ok(Step::More) => return Ok(self.more(target)),
                Err(error) => error,
            };
            if !self.goes_on(&error) {
                return Err(error);
            }
            info!(meter = %self.meter, %error, "the transfer of an image broke off; it goes on where the meter says that it ended");
            if Instant::now() + pause >= slice {
                return Ok(self.more(target));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn more(&self, target: &Target) -> Json {
        let (done, count) = *self.progress.borrow();
        json!({ "object": target.name.to_string(), "outcome": "more", "blocks": count, "done": done })
    }

    /// Whether a fault is one of the connection, and not for ever.
    fn goes_on(&mut self, error: &MeterError) -> bool {
        let broken = matches!(error, MeterError::Line(_) | MeterError::Damaged(_) | MeterError::Unfinished(_))
            || error.must_reopen()
            || self.association.was_dropped();
        let done = self.progress.borrow().0;
        if done > self.sending.best {
            (self.sending.best, self.sending.lost) = (done, 0);
        }
        self.sending.lost += 1;
        // A meter that restarts may need its time.
        let restarts = self.sending.mark.as_ref().and_then(|mark| mark.activate).is_some_and(|at| !is_over(at));
        broken && (restarts || self.sending.lost < ATTEMPTS)
    }

    /// One association of it.
    async fn slice(
        &mut self,
        line: &mut Line,
        name: LogicalName,
        image: (&[u8], &Mark),
        activate: bool,
        until: Instant,
    ) -> Result<Step, MeterError> {
        self.open(line).await?;
        let result = self.transfer_open(line, name, image, activate, until).await;
        self.leave(line, result.as_ref().err()).await;
        result
    }

    async fn transfer_open(
        &mut self,
        line: &mut Line,
        name: LogicalName,
        (bytes, wanted): (&[u8], &Mark),
        activate: bool,
        until: Instant,
    ) -> Result<Step, MeterError> {
        let mut receiver = Receiver { services: self.open_services(line).0, name };
        let size = usize::try_from(receiver.read(2).await?).unwrap_or(0);
        if size == 0 {
            return Err(damage("the meter's blocks have no size"));
        }
        let count = i64::try_from(bytes.len().div_ceil(size)).unwrap_or(i64::MAX);
        let mut now = receiver.read(6).await?;
        let identified = receiver.lists(wanted).await?;
        let known = self.sending.mark.clone().filter(|mark| {
            // Somebody else may have given it another one since.
            identified != Some(false)
                || !matches!(now, status::VERIFIED | status::ACTIVATING | status::ACTIVATED) && mark.is_of(wanted)
        });
        let done = |now: i64, words: &str, sent: Option<i64>| {
            let words = if words.is_empty() { value_word(CLASS, 6, now) } else { words };
            let object = name.to_string();
            Step::Done(
                json!({ "object": object, "outcome": "done", "words": words, "blocks": count, "resumed_at": sent }),
            )
        };
        if let Some(mark) = known.as_ref().filter(|mark| mark.activate.is_some() && now == status::NONE) {
            let words = self.after_a_restart(line, mark, identified).await?;
            self.forget_image().await;
            return Ok(done(now, words, Some(count)));
        }
        let whole = matches!(now, status::VERIFYING | status::VERIFIED | status::ACTIVATING | status::ACTIVATED);
        let mut resumed_at = Some(count);
        if known.is_none() || !whole {
            let begun = known.is_some() && now == status::INITIATED;
            match self.blocks(line, name, (bytes, wanted, size), begun, until).await? {
                Some(at) => resumed_at = begun.then_some(at),
                None => return Ok(Step::More),
            }
            now = status::INITIATED;
        }
        if matches!(now, status::INITIATED | status::VERIFYING) {
            let ordered = self.order(|mark| &mut mark.verify, now == status::VERIFYING).await;
            let mut receiver = Receiver { services: self.open_services(line).0, name };
            match receiver.finish(3, ordered, [status::VERIFIED, status::UNVERIFIED], until).await? {
                Some(status) => now = status,
                None => return Ok(Step::More),
            }
        }
        if activate && now != status::ACTIVATED {
            self.note_firmware(line).await?;
            let ordered = self.order(|mark| &mut mark.activate, now == status::ACTIVATING).await;
            let mut receiver = Receiver { services: self.open_services(line).0, name };
            match receiver.finish(4, ordered, [status::ACTIVATED, status::FAILED], until).await? {
                Some(status) => now = status,
                None => return Ok(Step::More),
            }
        }
        Ok(done(now, "", resumed_at))
    }

    /// Sends the blocks that the meter does not have; where it began, or `None` when the slice is over before its end.
    async fn blocks(
        &mut self,
        line: &mut Line,
        name: LogicalName,
        (bytes, wanted, size): (&[u8], &Mark, usize),
        begun: bool,
        until: Instant,
    ) -> Result<Option<i64>, MeterError> {
        let progress = self.progress.clone();
        let count = i64::try_from(bytes.len().div_ceil(size)).unwrap_or(i64::MAX);
        let mut receiver = Receiver { services: self.open_services(line).0, name };
        if receiver.read(5).await? == 0 {
            return Err(MeterError::Refused("it does not take images now (image_transfer_enabled)".to_owned()));
        }
        if !begun {
            let length = u32::try_from(bytes.len()).map_err(|_| damage("the image is too long"))?;
            let identifier = DataBuf::OctetString(wanted.identifier.as_bytes().to_vec());
            receiver.act(1, DataBuf::Structure(vec![identifier, DataBuf::DoubleLongUnsigned(length)])).await?;
            self.keep_mark(wanted.clone()).await;
        }
        let tell = |done: i64| {
            let parts = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
            let _ = progress.send_replace((parts(done), parts(count)));
        };
        let mut receiver = Receiver { services: self.open_services(line).0, name };
        let mut began = None;
        for _ in 0..ROUNDS {
            let first = receiver.read(4).await?;
            tell(first.min(count));
            let began = *began.get_or_insert(first);
            if first >= count {
                return Ok(Some(began));
            }
            for (number, block) in (0i64..).zip(bytes.chunks(size)).skip(usize::try_from(first).unwrap_or(0)) {
                if Instant::now() >= until {
                    return Ok(None);
                }
                let number_told = DataBuf::DoubleLongUnsigned(u32::try_from(number).unwrap_or(u32::MAX));
                receiver.act(2, DataBuf::Structure(vec![number_told, DataBuf::OctetString(block.to_vec())])).await?;
                tell(number + 1);
            }
        }
        match receiver.read(4).await? {
            first if first >= count => Ok(began),
            _ => Err(MeterError::Refused("it still misses blocks of the image".to_owned())),
        }
    }

    /// What became of an image that was to be activated when the meter has restarted and says nothing of any image.
    async fn after_a_restart(
        &mut self,
        line: &mut Line,
        mark: &Mark,
        identified: Option<bool>,
    ) -> Result<&'static str, MeterError> {
        if identified == Some(true) {
            return Ok("the meter has restarted and shows the image");
        }
        let now = self.firmware(line).await?;
        match (&mark.firmware, now) {
            (Some(before), Some(now)) if *before != now => Ok("the meter has restarted with other firmware"),
            (before, _) => {
                self.forget_image().await;
                let before = before.as_deref().unwrap_or("unknown");
                Err(MeterError::Refused(format!(
                    "it has restarted and shows neither the image nor other firmware (1-0:0.2.0 is {before} as before); look at it before the image is sent again"
                )))
            }
        }
    }

    /// The firmware that runs, as far as the meter tells it.
    async fn firmware(&mut self, line: &mut Line) -> Result<Option<String>, MeterError> {
        let (mut services, _) = self.open_services(line);
        Ok(services.get(FIRMWARE).await?.ok().and_then(|content| shown(&content.data())))
    }

    async fn note_firmware(&mut self, line: &mut Line) -> Result<(), MeterError> {
        if self.sending.mark.as_ref().is_some_and(|mark| mark.firmware.is_none()) {
            let firmware = self.firmware(line).await?;
            if let Some(mark) = &mut self.sending.mark {
                mark.firmware = firmware;
            }
        }
        Ok(())
    }

    /// Notes that something is ordered now, unless it is under way; since when.
    async fn order(&mut self, which: fn(&mut Mark) -> &mut Option<i64>, under_way: bool) -> Ordered {
        let Some(mut mark) = self.sending.mark.clone() else { return Ordered { under_way, since: None } };
        if !under_way || which(&mut mark).is_none() {
            *which(&mut mark) = Some(clock::now().as_millis());
            self.keep_mark(mark.clone()).await;
        }
        Ordered { under_way, since: *which(&mut mark) }
    }

    fn image_file(&self) -> String {
        format!("dlms-image {}", self.meter)
    }

    /// What outlived a restart of weir.
    async fn remember(&mut self) {
        if std::mem::replace(&mut self.sending.loaded, true) {
            return;
        }
        let file = self.image_file();
        let kept = match self.known.kept() {
            Some(kept) => kept.load(&file).await.ok().flatten(),
            None => None,
        };
        self.sending.mark = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    }

    async fn keep_mark(&mut self, mark: Mark) {
        let file = self.image_file();
        let kept: Option<Kept> = self.known.kept().cloned();
        if let (Some(kept), Ok(bytes)) = (kept, serde_json::to_vec(&mark))
            && let Err(error) = kept.store(&file, bytes).await
        {
            debug!(meter = %self.meter, %error, "it can't be kept how far the image has come; after a restart it is sent again");
        }
        self.sending.mark = Some(mark);
    }

    async fn forget_image(&mut self) {
        let file = self.image_file();
        if let Some(kept) = self.known.kept().cloned() {
            let _ = kept.store(&file, Vec::new()).await;
        }
        self.sending.mark = None;
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("{error}; the file must be there and no longer than 32 MiB, and the agent's user must be able to read it")
}

/// Whether something that was ordered then has had its time.
fn is_over(at: i64) -> bool {
    clock::now().since(Timestamp::from_millis(at)) > PATIENCE
}

/// Whether something was ordered before, and when.
#[derive(Debug, Clone, Copy)]
struct Ordered {
    under_way: bool,
    since: Option<i64>,
}

/// The meter's image transfer object.
struct Receiver<'s> {
    services: Services<'s>,
    name: LogicalName,
}

impl Receiver<'_> {
    /// A number or truth in an attribute.
    async fn read(&mut self, attribute: i8) -> Result<i64, MeterError> {
        let answer = self.services.get(AttributeDescriptor::new(CLASS, self.name, attribute)).await?;
        let content = answer.map_err(|why| MeterError::Refused(format!("its image transfer: {}", words(why))))?;
        let data = content.data();
        let number = data.as_i64().or_else(|| data.as_bool().map(i64::from));
        number.ok_or_else(|| damage("an attribute of the image transfer is no number"))
    }

    async fn act(&mut self, method: i8, parameter: DataBuf) -> Result<(), MeterError> {
        let method = MethodDescriptor::new(CLASS, self.name, method);
        let done = self.services.action(method, Some(&Content::of(&parameter)?)).await?;
        done.map(drop).map_err(|why| MeterError::Refused(format!("the image: {}", action_words(why))))
    }

    /// Whether the meter lists this image among those that it may activate; `None` when it lists none.
    async fn lists(&mut self, mark: &Mark) -> Result<Option<bool>, MeterError> {
        let Ok(content) = self.services.get(AttributeDescriptor::new(CLASS, self.name, 7)).await? else {
            return Ok(None);
        };
        let Ok(DataBuf::Array(images)) = DataBuf::parse(content.bytes()) else { return Ok(None) };
        let is_it = |image: &DataBuf| match image {
            DataBuf::Structure(fields) => match fields.as_slice() {
                [DataBuf::DoubleLongUnsigned(size), DataBuf::OctetString(name), ..] => {
                    usize::try_from(*size) == Ok(mark.size) && *name == mark.identifier.as_bytes()
                }
                _ => false,
            },
            _ => false,
        };
        Ok((!images.is_empty()).then(|| images.iter().any(is_it)))
    }

    /// Has the image verified or activated, unless that is under way, and waits until it is done; the first of the two
    /// ends is the good one. `None` when the slice is over before.
    async fn finish(
        &mut self,
        method: i8,
        ordered: Ordered,
        [good, bad]: [i64; 2],
        until: Instant,
    ) -> Result<Option<i64>, MeterError> {
        if !ordered.under_way {
            let descriptor = MethodDescriptor::new(CLASS, self.name, method);
            let parameter = Content::of(&DataBuf::Integer(0))?;
            match self.services.action(descriptor, Some(&parameter)).await? {
                // It takes its time: the status tells when it is done.
                Ok(_) | Err(ActionResult::TemporaryFailure) => {}
                Err(why) => return Err(MeterError::Refused(format!("the image: {}", action_words(why)))),
            }
        }
        loop {
            let status = self.read(6).await?;
            if status == good {
                return Ok(Some(status));
            }
            if status == bad || ordered.since.is_some_and(is_over) {
                return Err(MeterError::Refused(format!("the image: {}", value_word(CLASS, 6, status))));
            }
            if Instant::now() + POLL >= until {
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }
}
