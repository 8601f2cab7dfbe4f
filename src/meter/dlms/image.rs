//! Gives a meter new firmware (image transfer, IEC 62056-6-2, clause 4.4.6), block by block.
//!
//! Invariants: a transfer that broke off goes on where the meter says that it ended, but only with the same image;
//! the meter verifies the image before it is activated, and activates only when that is ordered.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::object::{Target, value_word};
use super::service::{Content, Services, action_words, damage, words};
use super::session::Client;
use crate::meter::{Kept, MeterError};
use crate::os::file::read_small;
use crate::os::line::Line;
use crate::wire::dlms::{ActionResult, AttributeDescriptor, DataBuf, LogicalName, MethodDescriptor};

/// The class of an image transfer.
const CLASS: u16 = 18;
/// The longest image.
const LONGEST: u64 = 32 * 1024 * 1024;
/// How often blocks that the meter misses are sent again.
const ROUNDS: u32 = 5;
/// How long a meter may verify or activate.
const PATIENCE: Duration = Duration::from_mins(15);
const POLL: Duration = Duration::from_secs(3);

const INITIATED: i64 = 1;
const VERIFIED: [i64; 2] = [3, 4];
const ACTIVATED: [i64; 2] = [6, 7];

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

impl Client {
    /// Transfers an image, verifies it, and activates it when that is wanted.
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
        let bytes = read_small(Path::new(&image.path), LONGEST).map_err(|error| order(error.to_string()))?;
        if bytes.is_empty() {
            return Err(order("the file is empty".to_owned()));
        }
        let file = Path::new(&image.path).file_name().map(|name| name.to_string_lossy().into_owned());
        let identifier = image.identifier.clone().or(file).unwrap_or_default();
        self.open(line).await?;
        let result = self.transfer_open(line, target.name, (&bytes, &identifier), image.activate).await;
        self.close(line).await;
        result
    }

    async fn transfer_open(
        &mut self,
        line: &mut Line,
        name: LogicalName,
        (bytes, identifier): (&[u8], &str),
        activate: bool,
    ) -> Result<Json, MeterError> {
        let progress = self.progress.clone();
        let file = format!("dlms-image {}", self.meter);
        let kept = self.known.kept().cloned();
        let (mut services, _) = self.open_services(line);
        let mut meter = Receiver { services: &mut services, name };
        if meter.read(5).await? == 0 {
            return Err(MeterError::Refused("it does not take images now (image_transfer_enabled)".to_owned()));
        }
        let size = usize::try_from(meter.read(2).await?).unwrap_or(0);
        if size == 0 {
            return Err(damage("the meter's blocks have no size"));
        }
        let count = i64::try_from(bytes.len().div_ceil(size)).unwrap_or(i64::MAX);
        let mark = mark(bytes, identifier);
        let begun = meter.read(6).await? == INITIATED && same(kept.as_ref(), &file, &mark).await;
        if !begun {
            let length = u32::try_from(bytes.len()).map_err(|_| damage("the image is too long"))?;
            let identifier = DataBuf::OctetString(identifier.as_bytes().to_vec());
            meter.act(1, DataBuf::Structure(vec![identifier, DataBuf::DoubleLongUnsigned(length)])).await?;
            if let Some(kept) = &kept {
                let _ = kept.store(&file, mark).await;
            }
        }
        let tell = |done: i64| {
            let parts = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
            let _ = progress.send((parts(done), parts(count)));
        };
        let mut resumed_at = begun.then_some(0);
        for _ in 0..ROUNDS {
            let first = meter.read(4).await?;
            resumed_at = resumed_at.map(|at| if at == 0 { first } else { at });
            if first >= count {
                break;
            }
            for (number, block) in (0i64..).zip(bytes.chunks(size)).skip(usize::try_from(first).unwrap_or(0)) {
                let number_told = DataBuf::DoubleLongUnsigned(u32::try_from(number).unwrap_or(u32::MAX));
                meter.act(2, DataBuf::Structure(vec![number_told, DataBuf::OctetString(block.to_vec())])).await?;
                tell(number + 1);
            }
        }
        if meter.read(4).await? < count {
            return Err(MeterError::Refused("it still misses blocks of the image".to_owned()));
        }
        let mut status = meter.finish(3, VERIFIED).await?;
        if activate {
            status = meter.finish(4, ACTIVATED).await?;
        }
        let words = value_word(CLASS, 6, status);
        Ok(
            json!({ "object": name.to_string(), "outcome": "done", "words": words, "blocks": count, "resumed_at": resumed_at }),
        )
    }
}

/// The meter's image transfer object.
struct Receiver<'a, 's> {
    services: &'a mut Services<'s>,
    name: LogicalName,
}

impl Receiver<'_, '_> {
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

    /// Has the image verified or activated, and waits until that is done; the first of the two ends is the good one.
    async fn finish(&mut self, method: i8, [good, bad]: [i64; 2]) -> Result<i64, MeterError> {
        let descriptor = MethodDescriptor::new(CLASS, self.name, method);
        let parameter = Content::of(&DataBuf::Integer(0))?;
        match self.services.action(descriptor, Some(&parameter)).await? {
            // It takes its time: the status tells when it is done.
            Ok(_) | Err(ActionResult::TemporaryFailure) => {}
            Err(why) => return Err(MeterError::Refused(format!("the image: {}", action_words(why)))),
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.read(6).await?;
            if status == good {
                return Ok(status);
            }
            if status == bad || Instant::now() >= until {
                return Err(MeterError::Refused(format!("the image: {}", value_word(CLASS, 6, status))));
            }
            sleep(POLL).await;
        }
    }
}

/// What tells one image from another.
fn mark(bytes: &[u8], identifier: &str) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    [identifier.as_bytes(), b"\n", digest.as_ref()].concat()
}

async fn same(kept: Option<&Kept>, file: &str, mark: &[u8]) -> bool {
    match kept {
        Some(kept) => kept.load(file).await.ok().flatten().is_some_and(|before| before == mark),
        None => false,
    }
}
