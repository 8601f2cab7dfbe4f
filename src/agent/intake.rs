//! From the inputs' channel into the store.

use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::meter::gaps::Marker;
use crate::model::{Body, Frame};
use crate::store::{Store, StoreError};

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

/// Markers that may wait; the profiles' keeper fills it with one at a time.
pub(super) const MARKERS_WAITING: usize = 1;

/// Appends every frame to the store until all inputs are gone, and answers a marker when every
/// frame that was handed over before it is durable. A refusal of one kind is logged once, then
/// counted.
pub(super) async fn run(mut frames: mpsc::Receiver<Frame>, mut markers: mpsc::Receiver<Marker>, store: Store) {
    let mut intake = Intake { store, waiting: Vec::with_capacity(TOGETHER), lost: 0, lost_intervals: 0, told: None };
    let (mut frames_open, mut markers_open) = (true, true);
    while frames_open || markers_open {
        tokio::select! {
            count = frames.recv_many(&mut intake.waiting, TOGETHER), if frames_open => {
                frames_open = count > 0;
                intake.append().await;
            }
            marker = markers.recv(), if markers_open => match marker {
                None => markers_open = false,
                Some(marker) => intake.answer(marker, &mut frames).await,
            },
        }
    }
    if intake.lost > 0 {
        error!(lost = intake.lost, "so many frames could not be stored since the start");
    }
}

struct Intake {
    store: Store,
    waiting: Vec<Frame>,
    lost: u64,
    /// Those of them that a marker is about.
    lost_intervals: u64,
    told: Option<std::mem::Discriminant<StoreError>>,
}

impl Intake {
    async fn append(&mut self) {
        let intervals: Vec<_> = self.waiting.iter().map(|f| matches!(f.body, Body::Interval(_))).collect();
        let outcomes = self.store.append_all(self.waiting.drain(..)).await;
        for (interval, outcome) in intervals.into_iter().zip(outcomes) {
            let Err(error) = outcome else { continue };
            self.lost += 1;
            self.lost_intervals += u64::from(interval);
            let (lost, kind) = (self.lost, Some(std::mem::discriminant(&error)));
            if self.told == kind {
                debug!(%error, lost, "a frame could not be stored and is lost, again");
            } else {
                self.told = kind;
                error!(%error, lost, "a frame could not be stored and is lost");
            }
        }
    }

    /// What was handed over before the marker stands in the channel now: no more than it holds.
    async fn answer(&mut self, marker: Marker, frames: &mut mpsc::Receiver<Frame>) {
        let mut before = frames.len();
        while before > 0 {
            let next = std::iter::from_fn(|| frames.try_recv().ok()).take(before.min(TOGETHER));
            self.waiting.extend(next);
            before = if self.waiting.is_empty() { 0 } else { before.saturating_sub(self.waiting.len()) };
            self.append().await;
        }
        let (store, lost) = (self.store.clone(), self.lost_intervals);
        // The disk may take its time; the inputs do not wait for it.
        tokio::spawn(async move {
            let durable = store.sync().await.is_ok();
            // Nobody waits for it any more: no fault.
            let _ = marker.send(durable.then_some(lost));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::model::{Body, Lane, Reading, Stamp, Timestamp};
    use crate::setting::Size;
    use crate::store::{StoreSettings, SyncPolicy};

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

    #[tokio::test]
    async fn a_marker_is_answered_when_the_frames_before_it_are_durable() {
        let home = tempfile::tempdir().unwrap();
        let settings = StoreSettings {
            path: home.path().to_owned(),
            max_size: Size::from_bytes(64 << 20),
            sync: SyncPolicy::Every(Duration::from_hours(1)),
        };
        let store = Store::open(&settings).unwrap();
        let (frames, waiting) = mpsc::channel(FRAMES_WAITING);
        let (markers, asked) = mpsc::channel(MARKERS_WAITING);
        let intake = tokio::spawn(run(waiting, asked, store.clone()));
        for number in 1..=200 {
            frames.send(frame(number)).await.unwrap();
        }
        let (marker, answer) = oneshot::channel();
        markers.send(marker).await.unwrap();
        assert_eq!(answer.await.unwrap(), Some(0));
        assert!(store.status().borrow().durable >= 200, "{:?}", store.status().borrow());
        drop(frames);
        // A marker that comes after the last input is answered too.
        let (marker, answer) = oneshot::channel();
        markers.send(marker).await.unwrap();
        assert_eq!(answer.await.unwrap(), Some(0));
        drop(markers);
        intake.await.unwrap();
    }
}
