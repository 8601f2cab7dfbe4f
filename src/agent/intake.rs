//! From the inputs' channel into the store.

use tokio::sync::mpsc;
use tracing::error;

use crate::model::Frame;
use crate::store::Store;

/// Frames that may wait between the inputs and the store. Inputs fill it, [`run`] drains it; when
/// it is full the inputs wait, and serial lines and pipes buffer in the kernel.
pub(super) const FRAMES_WAITING: usize = 256;

/// Appends every frame to the store until all inputs are gone.
pub(super) async fn run(mut frames: mpsc::Receiver<Frame>, store: Store) {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = store.append(frame).await {
            error!(%error, "a frame could not be stored and is lost");
        }
    }
}
