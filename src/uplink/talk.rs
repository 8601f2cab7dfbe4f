//! What other rooms hear and say through the broker beside frames: tunnels, commands and their replies.
//!
//! Nothing here is durable. What is heard goes at once to whoever listens, or is dropped and counted: a request that
//! waited is worse than none. What is said goes with QoS 1, in order, once more after a broken session if its PUBACK did not
//! come and it is still of use; so it may come twice, but never out of order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::UplinkError;
use super::plan::usable;
use crate::setting::{Identity, Topic};

/// What may wait to be said; whoever has more to say waits.
const WAITING: usize = 32;
/// What may wait to be heard; more is dropped.
const UNHEARD: usize = 32;

/// A message that somebody published on a topic that weir listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The topic.
    pub topic: String,
    /// What it says, byte for byte.
    pub payload: Vec<u8>,
    /// When it came.
    pub at: Instant,
}

/// A message to be published with QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saying {
    /// The topic, without placeholders.
    pub topic: String,
    /// What is said, byte for byte.
    pub payload: Vec<u8>,
    /// After that it is of no use any more and is dropped; `None`: it always is.
    pub until: Option<Instant>,
}

/// Says things; clones say them to the same broker.
#[derive(Debug, Clone)]
pub struct Speaker(mpsc::Sender<Saying>);

impl Speaker {
    /// Has something published; waits while others wait too.
    ///
    /// # Errors
    /// Gives it back when the uplink has ended for good.
    pub async fn say(&self, saying: Saying) -> Result<(), Saying> {
        self.0.send(saying).await.map_err(|mpsc::error::SendError(saying)| saying)
    }
}

/// The broker's side of what is heard and said; clones share it, for an uplink that is started again.
#[derive(Debug, Clone)]
pub struct Talk {
    topics: Arc<[String]>,
    listener: mpsc::Sender<Heard>,
    sayings: Arc<Mutex<Sayings>>,
    /// The broker refused a subscription and that was told.
    refused: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Sayings {
    waiting: mpsc::Receiver<Saying>,
    /// What was looked at, or came back from a broken session, oldest first.
    next: VecDeque<Saying>,
}

/// Makes a talk on `topics`, with what is heard on them and the one who speaks.
///
/// # Errors
/// [`UplinkError::NoImei`] and [`UplinkError::Topic`].
pub fn talk(topics: &[Topic], identity: &Identity) -> Result<(Talk, mpsc::Receiver<Heard>, Speaker), UplinkError> {
    let filled = |topic: &Topic| usable(topic.of(identity).ok_or(UplinkError::NoImei)?);
    let mut topics = topics.iter().map(filled).collect::<Result<Vec<_>, _>>()?;
    topics.sort();
    topics.dedup();
    let (listener, heard) = mpsc::channel(UNHEARD);
    let (speaker, waiting) = mpsc::channel(WAITING);
    let sayings = Arc::new(Mutex::new(Sayings { waiting, next: VecDeque::new() }));
    Ok((Talk { topics: topics.into(), listener, sayings, refused: Arc::default() }, heard, Speaker(speaker)))
}

impl Talk {
    /// What to subscribe to.
    pub(super) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// What the broker said to each topic of a subscription; a refusal is told once.
    pub(super) fn answered(&self, granted: impl Iterator<Item = bool>) {
        let refused: Vec<_> =
            self.topics.iter().zip(granted).filter(|(_, granted)| !granted).map(|(topic, _)| topic.as_str()).collect();
        let told = self.refused.swap(!refused.is_empty(), Ordering::Relaxed);
        if !refused.is_empty() && !told {
            let topics = refused.join(", ");
            tracing::error!(topics, "the broker does not let weir listen on these topics; allow its user to read them");
        } else if refused.is_empty() && told {
            tracing::info!("the broker lets weir listen on all its topics again");
        } else if refused.is_empty() {
            tracing::debug!(topics = self.topics.len(), "the broker lets weir listen");
        }
    }

    /// Hands over what the broker brought. False when it was dropped: retained, on another topic, or nobody has time.
    pub(super) fn hear(&self, topic: &[u8], payload: &[u8], retained: bool) -> bool {
        // A retained message is from any time before; a meter must not be asked, nor a command obeyed, by the past.
        if retained || !self.topics.iter().any(|known| known.as_bytes() == topic) {
            return false;
        }
        let topic = String::from_utf8_lossy(topic).into_owned();
        self.listener.try_send(Heard { topic, payload: payload.to_vec(), at: Instant::now() }).is_ok()
    }

    /// Returns when there is something to [`Talk::take`]. Cancelling it loses nothing.
    pub(super) async fn news(&self) {
        let mut sayings = self.sayings.lock().await;
        if !sayings.next.is_empty() {
            return;
        }
        match sayings.waiting.recv().await {
            Some(saying) => sayings.next.push_back(saying),
            None => std::future::pending().await,
        }
    }

    /// The next thing to say that is still of use.
    pub(super) fn take(&self) -> Option<Saying> {
        let mut sayings = self.sayings.try_lock().ok()?;
        loop {
            let next = sayings.next.pop_front().or_else(|| sayings.waiting.try_recv().ok())?;
            if next.until.is_none_or(|until| Instant::now() < until) {
                return Some(next);
            }
            tracing::debug!(topic = next.topic, "what was to be said is too old and is dropped");
        }
    }

    /// What was taken and not acknowledged is to be said again, before everything else; oldest first.
    pub(super) fn again(&self, unacknowledged: Vec<Saying>) {
        // Only the session that held the link takes and gives back.
        let Ok(mut sayings) = self.sayings.try_lock() else { return };
        unacknowledged.into_iter().rev().for_each(|saying| sayings.next.push_front(saying));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn saying(text: &str) -> Saying {
        Saying { topic: "gw1/tx".into(), payload: text.into(), until: None }
    }

    fn gw1() -> Identity {
        Identity { id: "gw1".into(), imei: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_acknowledged_is_said_again_in_order_unless_it_is_too_old() {
        let (talk, _heard, speaker) = talk(&[], &gw1()).unwrap();
        for text in ["a", "b", "c"] {
            speaker.say(saying(text)).await.unwrap();
        }
        let old = Saying { until: Some(Instant::now() + Duration::from_secs(1)), ..saying("old") };
        talk.news().await;
        let taken = [talk.take().unwrap(), talk.take().unwrap()];
        assert_eq!(taken, [saying("a"), saying("b")]);
        talk.again([&[old][..], &taken].concat());
        tokio::time::advance(Duration::from_secs(2)).await;
        let rest: Vec<_> = std::iter::from_fn(|| talk.take()).collect();
        assert_eq!(rest, [saying("a"), saying("b"), saying("c")]);
        let nothing = tokio::time::timeout(Duration::from_secs(60), talk.news()).await;
        assert!(nothing.is_err(), "there is no news");
    }

    #[tokio::test]
    async fn only_fresh_messages_on_our_topics_are_heard() {
        let topics = [Topic::parse("{id}/rx").unwrap()];
        let (talk, mut heard, _speaker) = talk(&topics, &gw1()).unwrap();
        assert_eq!(talk.topics(), ["gw1/rx"]);
        assert!(!talk.hear(b"gw1/rx", b"yesterday", true));
        assert!(!talk.hear(b"gw2/rx", b"not ours", false));
        assert!(talk.hear(b"gw1/rx", b"\0now", false));
        assert_eq!(heard.recv().await.unwrap().payload, b"\0now");
        for _ in 0..UNHEARD {
            assert!(talk.hear(b"gw1/rx", b"x", false));
        }
        assert!(!talk.hear(b"gw1/rx", b"too many", false));
    }

    #[test]
    fn a_topic_that_needs_an_unknown_imei_is_told() {
        let topics = [Topic::parse("[IMEI]/rx").unwrap()];
        assert!(matches!(talk(&topics, &gw1()), Err(UplinkError::NoImei)));
    }
}
