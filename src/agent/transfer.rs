//! A long order to a meter, such as new firmware: slice after slice, so that the other meters on its port are read
//! between two of them.
//!
//! Invariant: nothing of it goes on when nobody waits for it any more, at the latest after the slice that is under way.

use serde_json::{Value as Json, json};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::permit::Permit;
use crate::meter::bus::Handle;

/// A transfer under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Transfer {
    far: watch::Receiver<(u32, u32)>,
    ended: oneshot::Receiver<Result<Json, String>>,
    over: bool,
    work: AbortHandle,
}

impl Transfer {
    /// Begins it; `about` names the meter in an error.
    pub(super) fn start(bus: Handle, meter: String, order: Json, (about, permit): (String, Option<Permit>)) -> Self {
        let (tell, far) = watch::channel((0, 0));
        let (end, ended) = oneshot::channel();
        let work = tokio::spawn(async move {
            let outcome = loop {
                match bus.inspect_telling(&meter, order.clone(), &tell).await {
                    Ok(told) if told.get("outcome").and_then(Json::as_str) == Some("more") => {}
                    Ok(told) => break Ok(told),
                    Err(error) => break Err(format!("{about}: {error}")),
                }
            };
            if let Some(permit) = permit {
                permit.told(&outcome).await;
            }
            let _ = end.send(outcome);
        });
        Self { far, ended, over: false, work: work.abort_handle() }
    }

    /// Waits for what is new: how far it has come as `{"done":n,"all":m}`, or its answer; `None` after that.
    pub async fn next(&mut self) -> Option<Result<Json, String>> {
        if self.over {
            return None;
        }
        tokio::select! {
            biased;
            outcome = &mut self.ended => {
                self.over = true;
                Some(outcome.unwrap_or_else(|_| Err("the agent is ending".to_owned())))
            }
            Ok(()) = self.far.changed() => {
                let (done, all) = *self.far.borrow_and_update();
                Some(Ok(json!({ "done": done, "all": all })))
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.work.abort();
    }
}
