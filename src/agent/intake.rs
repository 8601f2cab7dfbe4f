//! From the inputs' channel into the store.

use tokio::sync::mpsc;
use tracing::error;

use crate::model::Frame;
use crate::store::Store;

/// Frames that may wait between the inputs and the store. Inputs fill it, [`run`] drains it; when
/// it is full the inputs wait, and serial lines and pipes buffer in the kernel.
pub(super) const FRAMES_WAITING: usize = 256;

/// Frames that wait together go into the store together, so many at most.
const TOGETHER: usize = 64;

/// Appends every frame to the store until all inputs are gone.
pub(super) async fn run(mut frames: mpsc::Receiver<Frame>, store: Store) {
    let mut waiting = Vec::with_capacity(TOGETHER);
    while frames.recv_many(&mut waiting, TOGETHER).await > 0 {
        for outcome in store.append_all(waiting.drain(..)).await {
            if let Err(error) = outcome {
                error!(%error, "a frame could not be stored and is lost");
            }
        }
    }
}
