//! Finds out which invocation counter a meter expects.

use tracing::{debug, info};

use super::counters::BLOCK;
use super::material::{Mark, unasked};
use super::{Association, JUMPS, PUBLIC, Stumble, damaged, greeting};
use crate::meter::MeterError;
use crate::meter::dlms::settings::DlmsReferencing;
use crate::os::clock;
use crate::os::line::Line;
use crate::wire::dlms::{
    Aare, Apdu, ApplicationContext, AttributeDescriptor, AuthMechanism, Data, GetDataResult, GetRequest, GetResponse,
    InvokeId, LogicalName, ReleaseReason, Rlrq, decode, encode,
};

impl Association {
    /// Asks for the counter of a key that was never used here: another client may have used it before.
    ///
    /// # Errors
    /// When the connection broke, or nothing tells how far the counters of a title that the settings name were used.
    pub(super) async fn first_counter(&mut self, line: &mut Line, mark: Mark) -> Result<(), MeterError> {
        let counter = match self.read_counter(line).await {
            Err(error) if error.must_reopen() => {
                // Some meters close the connection to a client that they don't know.
                self.memory.shut(clock::now()).await?;
                return Err(error);
            }
            Err(error) if self.title.is_some() => return Err(error),
            found => found.unwrap_or_default(),
        };
        if let Some(counter) = counter {
            // A title that was used elsewhere, or whose file was lost, may have used more than the meter has seen.
            let ahead = if self.title.is_some() { 4 * BLOCK } else { 1 };
            let _ = self.memory.counters.raise(mark, counter.saturating_add(ahead));
            debug!(counter, "the meter's invocation counter was read by the public client");
        } else if self.title.is_some() {
            let message = "nothing tells how far the invocation counters of dlms.system_title and this key were used; \
                           unset system_title, or set counter to the object that the public client may read, or say \
                           once which one is the first with weir dlms METER OBJECT --first-counter N --yes";
            return Err(unasked(message.to_owned()));
        }
        Ok(())
    }

    /// Goes on with the counter that is expected, or with the one that the public client reads.
    pub(super) async fn jump(
        &mut self,
        line: &mut Line,
        mark: Mark,
        expected: Option<u32>,
        jump: u32,
    ) -> Result<(), Stumble> {
        let expected = match expected {
            Some(expected) => Some(expected),
            None => self.read_counter(line).await.map_err(Stumble::Unclear)?.map(|counter| counter.saturating_add(1)),
        };
        let Some(expected) = expected else {
            let message = "the invocation counter is stale, and it tells nobody which one it expects; set dlms.counter \
                           to the object that the public client may read";
            return Err(Stumble::Unclear(MeterError::Refused(message.to_owned())));
        };
        // Some tell the last one that they took instead of the next one.
        if !self.memory.counters.raise(mark, expected.saturating_add(jump)) {
            let message = "it expects an invocation counter near the end; give the meter a new encryption key";
            return Err(Stumble::Unclear(MeterError::Refused(message.to_owned())));
        }
        let name = self.settings.name.as_str();
        info!(meter = name, expected, left = JUMPS - jump, "the invocation counter was stale; trying the expected one");
        Ok(())
    }

    /// Reads the counter as the public client; nothing when the meter does not let it.
    ///
    /// # Errors
    /// When the line fails: the counter is not known then, which says nothing about the meter.
    pub(super) async fn read_counter(&mut self, line: &mut Line) -> Result<Option<u32>, MeterError> {
        let short = self.dlms.referencing == DlmsReferencing::ShortNames;
        if self.client == PUBLIC || short || self.memory.is_shut(clock::now()) {
            return Ok(None);
        }
        let found = self.ask_counter(line).await;
        self.link.close(line).await;
        match found {
            Err(error @ (MeterError::Refused(_) | MeterError::Damaged(_))) => {
                debug!(%error, "the public client can't read the invocation counter");
                Ok(None)
            }
            other => other,
        }
    }

    async fn ask_counter(&mut self, line: &mut Line) -> Result<Option<u32>, MeterError> {
        let context = ApplicationContext::LogicalName;
        let initiate = greeting::initiate(greeting::proposal(context, false), 0xFFFF, None)?;
        let request = greeting::aarq(context, AuthMechanism::None, [0; 8], &[], &initiate)?;
        self.link.open(line, PUBLIC).await?;
        self.link.send(line, &request).await?;
        let answer = self.link.receive(line).await?;
        if !decode::<Aare<'_>>(&answer).map_err(damaged)?.0.is_accepted() {
            return Ok(None);
        }
        let mut largest = None;
        for object in self.counter_objects() {
            let descriptor = AttributeDescriptor::new(1, object, 2);
            let request = GetRequest::Normal { invoke_id: InvokeId::confirmed(1), descriptor, access: None };
            self.link.send(line, &encode(&Apdu::GetRequest(request)).map_err(damaged)?).await?;
            let answer = self.link.receive(line).await?;
            if let Ok((Apdu::GetResponse(GetResponse::Normal { result: GetDataResult::Data(data), .. }), _)) =
                decode::<Apdu<'_>>(&answer)
                && let Data::DoubleLongUnsigned(counter) = data
            {
                largest = largest.max(Some(counter));
            }
        }
        let release = Rlrq { reason: Some(ReleaseReason::Normal), user_information: None };
        self.link.send(line, &encode(&release).map_err(damaged)?).await?;
        let _ = self.link.receive(line).await;
        Ok(largest)
    }

    /// The object of the settings, or those that meters have (IEC 62056-6-1, 0-0:43.1.e): the first one, and the
    /// one that has this client's number.
    fn counter_objects(&self) -> Vec<LogicalName> {
        let object = |e| LogicalName::new(0, 0, 43, 1, e, 255);
        match (self.counter, u8::try_from(self.client)) {
            (Some(object), _) => vec![object],
            (None, Ok(client @ 1..)) => vec![object(0), object(client)],
            (None, _) => vec![object(0)],
        }
    }
}
