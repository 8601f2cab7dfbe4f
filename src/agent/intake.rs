//! From the inputs' channel into the store.

use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::model::Frame;
use crate::store::Store;

/// Frames that may wait between the inputs and the store. Inputs fill it, [`run`] drains it; when
/// it is full the inputs wait, and serial lines and pipes buffer in the kernel.
pub(super) const FRAMES_WAITING: usize = 256;

/// Waits until every frame that an input holds already has found its place in the channel and
/// left it, so that stopping the inputs afterwards drops none.
pub(super) async fn let_in(frames: &mpsc::Sender<Frame>) {
    // Places are given in the order they were asked for: with all of them, nobody waits before us.
    let _ = frames.reserve_many(frames.max_capacity()).await.is_ok();
}

/// Frames that wait together go into the store together, so many at most.
const TOGETHER: usize = 64;

/// Appends every frame to the store until all inputs are gone. A refusal of one kind is logged
/// once, then counted.
pub(super) async fn run(mut frames: mpsc::Receiver<Frame>, store: Store) {
    let mut waiting = Vec::with_capacity(TOGETHER);
    let mut lost = 0u64;
    let mut told = None;
    while frames.recv_many(&mut waiting, TOGETHER).await > 0 {
        let outcomes = store.append_all(waiting.drain(..)).await;
        for error in outcomes.into_iter().filter_map(Result::err) {
            lost += 1;
            let kind = Some(std::mem::discriminant(&error));
            if told == kind {
                debug!(%error, lost, "a frame could not be stored and is lost, again");
            } else {
                told = kind;
                error!(%error, lost, "a frame could not be stored and is lost");
            }
        }
    }
    if lost > 0 {
        error!(lost, "so many frames could not be stored since the start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, Lane, Reading, Stamp, Timestamp};

    fn frame(number: i64) -> Frame {
        let body = Body::Reading(Reading { meter: "m".into(), values: vec![] });
        Frame { time: Stamp::synced(Timestamp::from_millis(number)), lane: Lane::Ordinary, body, origin: None }
    }

    #[tokio::test]
    async fn a_frame_that_waits_for_a_place_is_let_in_before_the_inputs_stop() {
        let (frames, mut waiting) = mpsc::channel(1);
        frames.try_send(frame(1)).unwrap();
        let input = frames.clone();
        let blocked = tokio::spawn(async move { input.send(frame(2)).await });
        tokio::task::yield_now().await;
        let taken = tokio::spawn(async move {
            let mut times = Vec::new();
            while let Some(frame) = waiting.recv().await {
                times.push(frame.time.wall.as_millis());
            }
            times
        });
        let_in(&frames).await;
        blocked.abort();
        drop(frames);
        assert_eq!(taken.await.unwrap(), [1, 2]);
    }
}
