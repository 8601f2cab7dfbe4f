//! From the inputs' channel into the store.

use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::model::Frame;
use crate::store::Store;

/// Frames that may wait between the inputs and the store. Inputs fill it, [`run`] drains it; when
/// it is full the inputs wait, and serial lines and pipes buffer in the kernel.
pub(super) const FRAMES_WAITING: usize = 256;

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
