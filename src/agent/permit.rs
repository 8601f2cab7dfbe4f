//! What is no text but ordered at the local door (a change of the configuration, an order to a meter or the modem) is judged by the
//! one desk that judges commands, and stands in the same audit.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};

use super::commands::{Reply, Told};
use super::orders::Orders;
use crate::control::{Entry, Origin, Right};

/// The permission for one deed; what became of it is told to it.
#[derive(Debug)]
pub(super) struct Permit(Option<(Entry, Orders)>);

impl Permit {
    pub(super) const fn new(entry: Entry, orders: Orders) -> Self {
        Self(Some((entry, orders)))
    }

    /// Notes what became of the deed; the audit has it when this returns.
    pub(super) async fn told<T>(mut self, outcome: &Result<T, String>) {
        let Some((mut entry, orders)) = self.0.take() else { return };
        if let Err(sentence) = outcome {
            entry.outcome = "failed";
            entry.detail.clone_from(sentence);
        }
        orders.note(entry).await;
    }
}

impl Drop for Permit {
    /// Who asked went away.
    fn drop(&mut self) {
        let Some((mut entry, orders)) = self.0.take() else { return };
        entry.outcome = "failed";
        entry.detail = "given up: who asked went away".to_owned();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { orders.note(entry).await });
        }
    }
}

/// Asks for a permission; `what` is how the audit shows the deed.
///
/// # Errors
/// One sentence.
pub(super) async fn ask(
    door: &mpsc::Sender<Told>,
    origin: Origin,
    (what, right): (String, Right),
) -> Result<Permit, String> {
    let ended = || "the running agent takes no orders just now; ask again".to_owned();
    let (tell, told) = oneshot::channel();
    let reply = Reply::Deed { right, tell };
    door.send(Told { text: what.into_bytes(), origin, reply }).await.map_err(|_| ended())?;
    told.await.map_err(|_| ended())?
}

/// Whose turn it is: what one origin orders is done in its order, one after the other.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Origin, oneshot::Receiver<()>>);

/// A place in an origin's row; the next one's turn comes when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _after: oneshot::Sender<()>,
}

impl Turns {
    /// The last place in the row.
    pub(super) fn take(&mut self, origin: &Origin) -> Turn {
        // Who has nobody before or in his place is done.
        self.0.retain(|_, last| matches!(last.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        let (after, last) = oneshot::channel();
        Turn { before: self.0.insert(origin.clone(), last), _after: after }
    }
}

impl Turn {
    /// Waits until all before have ended.
    pub(super) async fn comes(&mut self) {
        if let Some(before) = &mut self.before {
            // Nothing is ever sent: it ends.
            let _ = before.await;
        }
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_origins_turns_come_in_their_order_and_others_do_not_wait() {
        let (one, other) = (Origin::Topic("a".into()), Origin::Topic("b".into()));
        let mut turns = Turns::default();
        let (mut first, mut second, mut stranger) = (turns.take(&one), turns.take(&one), turns.take(&other));
        first.comes().await;
        stranger.comes().await;
        tokio::select! {
            biased;
            () = second.comes() => panic!("the first is not done"),
            () = tokio::task::yield_now() => {}
        }
        drop(first);
        second.comes().await;
        drop((second, stranger));
        let mut last = turns.take(&one);
        last.comes().await;
        assert_eq!(turns.0.len(), 1, "who is done is forgotten");
    }
}
