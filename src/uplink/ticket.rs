//! Messages under way: what each carries, and how its fate becomes known.

use rumqttc::PublishNotice;
use tokio::time::Instant;

use super::caution::Cargo;
use super::intervals::Span;
use super::talk::Saying;
use crate::model::Sequence;

/// A message under way.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) number: u64,
    pub(super) cargo: Cargo,
    /// It carries the status document.
    pub(super) document: bool,
    /// What another room says by it.
    pub(super) saying: Option<Saying>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) spans: Vec<Span>,
    pub(super) bytes: usize,
    pub(super) sent: Instant,
}

/// A message whose fate is known: `true` when its own PUBACK came.
pub(super) type Settled = (Ticket, bool);

impl Ticket {
    pub(super) fn notice(document: bool) -> Self {
        let (sequences, spans, saying) = (Vec::new(), Vec::new(), None);
        Self { number: 0, cargo: Cargo::Notice, document, saying, sequences, spans, bytes: 0, sent: Instant::now() }
    }
}

pub(super) async fn settle(notice: PublishNotice, ticket: Ticket) -> Settled {
    let acknowledged = notice.wait_async().await.is_ok();
    (ticket, acknowledged)
}
