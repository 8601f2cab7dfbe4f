//! Hands frames over to the store's thread, as many at once as there are and have room.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::request::{Append, Request};
use super::{MAX_FRAME, Store, StoreError, block, index, tail};
use crate::model::{Frame, Lane, Sequence};

/// So many frames are handed over at once at most: fewer than numbers are reserved at a time.
const TOGETHER: usize = 256;

/// Frames that are handed over together, and the number that the first of them gets; the others follow it.
type Batch = (usize, oneshot::Receiver<Sequence>);

impl Store {
    /// Adds a frame and returns its number. The frame is durable when [`Status::durable`](super::Status::durable)
    /// reaches that number: at once for priority frames, within `sync` otherwise; with
    /// `sync = "always"` when this returns. Waits while the memory bound of its lane is reached.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::FrameTooLarge`].
    pub async fn append(&self, frame: Frame) -> Result<Sequence, StoreError> {
        let (lane, bytes) = encoded(frame)?;
        let room = self.room(lane, &bytes).await?;
        let (_, answer) = self.hand_over(vec![Append { lane, bytes, room }])?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Adds frames in their order and returns what became of each. As many calls of
    /// [`Store::append`] do the same, but wait for the store's thread once a frame.
    pub async fn append_all(&self, frames: impl IntoIterator<Item = Frame>) -> Vec<Result<Sequence, StoreError>> {
        // What was refused, at its place; `None` waits for its number.
        let mut refused = Vec::new();
        let (mut ready, mut batches) = (Vec::new(), Vec::new());
        for frame in frames {
            let append = match encoded(frame) {
                Ok((lane, bytes)) => self.made_ready(lane, bytes, &mut ready, &mut batches).await,
                Err(error) => Err(error),
            };
            refused.push(append.map(|append| ready.push(append)).err());
            if ready.len() >= TOGETHER {
                batches.push(self.hand_over(std::mem::take(&mut ready)));
            }
        }
        batches.push(self.hand_over(ready));
        let mut numbers = Vec::with_capacity(refused.len());
        for batch in batches {
            // Of a batch that nobody took any more the rest is answered below.
            let Ok((count, answer)) = batch else { break };
            let Ok(first) = answer.await else { break };
            numbers.extend((first..).take(count));
        }
        let mut numbers = numbers.into_iter();
        let outcome = |refused: Option<StoreError>| match refused {
            Some(error) => Err(error),
            None => numbers.next().ok_or(StoreError::Closed),
        };
        refused.into_iter().map(outcome).collect()
    }

    /// Waits for room when there is none; what is ready goes first, as it is what will make room.
    async fn made_ready(
        &self,
        lane: Lane,
        bytes: Vec<u8>,
        ready: &mut Vec<Append>,
        batches: &mut Vec<Result<Batch, StoreError>>,
    ) -> Result<Append, StoreError> {
        let room = match self.rooms.get(index(lane)).map(|room| room.clone().try_acquire_many_owned(size(&bytes))) {
            Some(Ok(room)) => room,
            _ => {
                batches.push(self.hand_over(std::mem::take(ready)));
                self.room(lane, &bytes).await?
            }
        };
        Ok(Append { lane, bytes, room })
    }

    /// Waits until a frame has room in its lane.
    async fn room(&self, lane: Lane, bytes: &[u8]) -> Result<OwnedSemaphorePermit, StoreError> {
        let [priority, ordinary] = &self.rooms;
        let room = if lane == Lane::Priority { priority } else { ordinary };
        room.clone().acquire_many_owned(size(bytes)).await.map_err(|_| StoreError::Closed)
    }

    /// Gives frames to the store's thread; the number of the first follows.
    fn hand_over(&self, frames: Vec<Append>) -> Result<Batch, StoreError> {
        let (reply, answer) = oneshot::channel();
        let count = frames.len();
        if count > 0 {
            self.requests.send(Request::Append { frames, reply }).map_err(|_| StoreError::Closed)?;
        } else {
            let _ = reply.send(0);
        }
        Ok((count, answer))
    }
}

fn encoded(frame: Frame) -> Result<(Lane, Vec<u8>), StoreError> {
    let bytes = block::encode_frame(&frame).ok_or(StoreError::Closed)?;
    if bytes.len() > MAX_FRAME {
        return Err(StoreError::FrameTooLarge { size: bytes.len(), limit: MAX_FRAME });
    }
    Ok((frame.lane, bytes))
}

/// What a frame takes of its lane's room.
fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() + tail::OVERHEAD).unwrap_or(u32::MAX)
}
