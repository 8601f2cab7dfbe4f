//! Gives a meter new firmware (image transfer, IEC 62056-6-2, clause 4.4.6), block by block.
//!
//! Invariants: a transfer that broke off goes on where the meter says that it ended, but only with the same image; an
//! image that the meter has whole is never sent again, also when it restarts to run it; the meter verifies the image
//! before it is activated, and activates only when that is ordered; the line is given back at the end of a slice, and
//! the next order goes on.

use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::object::{Target, shown, value_word};
use super::service::{Content, Services, action_words, damage, words};
use super::session::Client;
use crate::meter::MeterError;
use crate::model::Timestamp;
use crate::os::clock;
use crate::os::file::read_small;
use crate::os::line::Line;
use crate::wire::dlms::{ActionResult, AttributeDescriptor, DataBuf, LogicalName, MethodDescriptor};

/// The class of an image transfer.
const CLASS: u16 = 18;
/// The active firmware's identifier.
const FIRMWARE: AttributeDescriptor = AttributeDescriptor::new(1, LogicalName::new(1, 0, 0, 2, 0, 255), 2);
const READABLE: &str = "the file must be there and no longer than 32 MiB, and the agent's user must be able to read it";
/// The longest image.
const LONGEST: u64 = 32 * 1024 * 1024;
/// How often the first block that it misses is sent.
const SENDINGS: u32 = 3;
/// How long a meter may verify, or activate and restart.
const PATIENCE: Duration = Duration::from_mins(15);
const LATE: &str = "; it has not done it within 15 minutes; look at 1-0:0.2.0 before ordering again";
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
    /// What the meter listed when it had verified it (attribute 7, in hex): its own words, not always those of the order.
    #[serde(default)]
    listed: Option<String>,
}

/// The status that an order ended with, if it did.
type Ended = Result<Option<i64>, MeterError>;

impl Mark {
    fn of(bytes: &[u8], identifier: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let digest = HEXLOWER.encode(digest.as_ref());
        let identifier = identifier.to_owned();
        Self { identifier, size: bytes.len(), digest, verify: None, activate: None, firmware: None, listed: None }
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.identifier, self.size, &self.digest) == (&other.identifier, other.size, &other.digest)
    }

    fn stamp(&mut self, method: i8) -> &mut Option<i64> {
        if method == 3 { &mut self.verify } else { &mut self.activate }
    }

    /// Whether it is among what a meter lists, as it was ordered or as the meter called it when it verified it.
    fn is_in(&self, list: &[u8]) -> bool {
        let Ok(DataBuf::Array(images)) = DataBuf::parse(list) else { return false };
        let named = |fields: &[DataBuf]| {
            matches!(fields, [DataBuf::DoubleLongUnsigned(size), DataBuf::OctetString(name), ..]
            if usize::try_from(*size) == Ok(self.size) && *name == self.identifier.as_bytes())
        };
        let named = images.iter().any(|image| matches!(image, DataBuf::Structure(fields) if named(fields)));
        named || self.listed.as_ref().is_some_and(|listed| *listed == HEXLOWER.encode(list))
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
    /// The first block that the meter missed, and how often it has been sent since.
    stalled: (i64, u32),
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
        let bytes =
            read_small(Path::new(&image.path), LONGEST).map_err(|error| order(format!("{error}; {READABLE}")))?;
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
                (self.sending.best, self.sending.lost, self.sending.stalled) = (0, 0, (0, 0));
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
        let list = receiver.list().await?;
        let mark = self.sending.mark.clone();
        let identified = list.as_ref().map(|list| mark.as_ref().unwrap_or(wanted).is_in(list));
        let known = mark.filter(|mark| {
            // Somebody else may have given it another one since; what it lists while it runs ours anew may differ, too.
            identified != Some(false)
                || !matches!(now, status::VERIFIED | status::ACTIVATING | status::ACTIVATED)
                || now != status::VERIFIED && mark.activate.is_some_and(|at| !is_over(at))
                || mark.listed.is_none() && mark.verify.is_some()
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
        // What failed since the last slice is told, not sent again at once.
        let whole = known.as_ref().is_some_and(|mark| match now {
            status::UNVERIFIED => mark.verify.is_some(),
            status::FAILED => activate && mark.activate.is_some(),
            _ => matches!(now, status::VERIFYING | status::VERIFIED | status::ACTIVATING | status::ACTIVATED),
        });
        let mut resumed_at = Some(count);
        if !whole {
            let begun = known.is_some() && now == status::INITIATED;
            let mut stalled = self.sending.stalled;
            let sent = self.blocks(line, name, (bytes, wanted, size), (begun, &mut stalled), until).await;
            self.sending.stalled = stalled;
            let Some(at) = sent? else { return Ok(Step::More) };
            resumed_at = begun.then_some(at);
            now = status::INITIATED;
        }
        if matches!(now, status::INITIATED | status::VERIFYING | status::VERIFIED | status::UNVERIFIED) {
            let Some(status) = self.finish(line, name, (3, now), until).await? else { return Ok(Step::More) };
            now = status;
        }
        if activate && now != status::ACTIVATED {
            self.note_firmware(line).await?;
            let Some(status) = self.finish(line, name, (4, now), until).await? else { return Ok(Step::More) };
            now = status;
        }
        Ok(done(now, "", resumed_at))
    }

    /// Sends the blocks that the meter does not have; where it began, or `None` when the slice is over before its end.
    async fn blocks(
        &mut self,
        line: &mut Line,
        name: LogicalName,
        (bytes, wanted, size): (&[u8], &Mark, usize),
        (begun, stalled): (bool, &mut (i64, u32)),
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
            stalled.1 *= u32::from(stalled.0 == 0);
            stalled.0 = 0;
        }
        let tell = |done: i64| {
            let parts = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
            let _ = progress.send_replace((parts(done), parts(count)));
        };
        let mut receiver = Receiver { services: self.open_services(line).0, name };
        let mut began = None;
        loop {
            let first = receiver.read(4).await?;
            tell(first.min(count));
            let began = *began.get_or_insert(first);
            if first >= count {
                return Ok(Some(began));
            }
            if first > stalled.0 {
                *stalled = (first, 0);
            }
            if stalled.1 >= SENDINGS {
                return Err(MeterError::Refused(format!(
                    "block {first} is still missing after it was sent three times; the meter or its image_block_size is at fault"
                )));
            }
            for (number, block) in (0i64..).zip(bytes.chunks(size)).skip(usize::try_from(first).unwrap_or(0)) {
                if Instant::now() >= until {
                    return Ok(None);
                }
                let number_told = DataBuf::DoubleLongUnsigned(u32::try_from(number).unwrap_or(u32::MAX));
                receiver.act(2, DataBuf::Structure(vec![number_told, DataBuf::OctetString(block.to_vec())])).await?;
                tell(number + 1);
                stalled.1 += u32::from(number == first);
            }
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

    /// Has the image verified or activated, which is ordered once and has its time; what it came to nothing with is
    /// forgotten, so that the next order begins anew.
    async fn finish(&mut self, line: &mut Line, name: LogicalName, order: (i8, i64), until: Instant) -> Ended {
        let (method, now) = order;
        let Some(mut mark) = self.sending.mark.clone() else { return Err(damage("no image was begun")) };
        // Verification may be ordered again; a meter that is told to activate again may restart for ever.
        let (ends, ordered) = match method {
            3 => ([status::VERIFIED, status::UNVERIFIED], now != status::INITIATED),
            _ => ([status::ACTIVATED, status::FAILED], now == status::ACTIVATING || mark.activate.is_some()),
        };
        let since = *mark.stamp(method).get_or_insert_with(|| clock::now().as_millis());
        self.keep_mark(mark.clone()).await;
        let mut receiver = Receiver { services: self.open_services(line).0, name };
        let ended = receiver.finish(method, (ordered, since), ends, until).await;
        match &ended {
            Err(MeterError::Refused(_)) => *mark.stamp(method) = None,
            Ok(Some(status::VERIFIED)) => mark.listed = receiver.list().await?.map(|list| HEXLOWER.encode(&list)),
            _ => return ended,
        }
        self.keep_mark(mark).await;
        ended
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
        if self.sending.mark.as_ref() == Some(&mark) {
            return;
        }
        if let (Some(kept), Ok(bytes)) = (self.known.kept().cloned(), serde_json::to_vec(&mark))
            && let Err(error) = kept.store(&self.image_file(), bytes).await
        {
            debug!(meter = %self.meter, %error, "it can't be kept how far the image has come; after a restart it is sent again");
        }
        self.sending.mark = Some(mark);
    }

    async fn forget_image(&mut self) {
        if let Some(kept) = self.known.kept().cloned() {
            let _ = kept.store(&self.image_file(), Vec::new()).await;
        }
        self.sending.mark = None;
    }
}

/// Whether something that was ordered then has had its time.
fn is_over(at: i64) -> bool {
    clock::now().since(Timestamp::from_millis(at)) > PATIENCE
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

    /// What it says of the images that it may activate; `None` when it lists none.
    async fn list(&mut self) -> Result<Option<Vec<u8>>, MeterError> {
        let list = self.services.get(AttributeDescriptor::new(CLASS, self.name, 7)).await?;
        let list = list.map(|content| content.bytes().to_vec()).ok();
        Ok(list.filter(|list| matches!(DataBuf::parse(list), Ok(DataBuf::Array(images)) if !images.is_empty())))
    }

    /// Has the image verified or activated, unless that is under way, and waits until it is done; the first of the two
    /// ends is the good one. `None` when the slice is over before.
    async fn finish(&mut self, method: i8, order: (bool, i64), ends: [i64; 2], until: Instant) -> Ended {
        let ((ordered, since), [good, bad]) = (order, ends);
        if !ordered {
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
            if status == bad || is_over(since) {
                let over = if status == bad { "" } else { LATE };
                return Err(MeterError::Refused(format!("the image: {}{over}", value_word(CLASS, 6, status))));
            }
            if Instant::now() + POLL >= until {
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }
}
