//! One connection to the broker: a fresh client and event loop, never reused.
//!
//! The event loop is polled by a task of its own, because a `poll` that is cancelled half-way
//! loses the packet it was writing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet, PublishNotice,
    PublishOptions, QoS, SubscribeFilter, SubscribeReasonCode,
};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::talk::Talk;
use super::tally::{Counted, Tally};
use super::value::BrokerUrl;

/// The longest wait for one address of the broker.
const ADDRESS_LIMIT: Duration = Duration::from_secs(20);
/// The longest that writing what was queued may take, which on a slow link is long. A link that
/// moves nothing at all is found out by the session's watchdog sooner.
const FLUSH_SECONDS: u64 = 600;

/// What happens to a connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The broker accepted the session.
    Connected,
    /// There is no connection any more; nothing follows.
    Lost(Option<ConnectionError>),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    client: AsyncClient,
    /// Filled by the event loop's task with at most two events, drained by the session.
    events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
    /// The keep-alive that the data budget asked for when the link was opened.
    pub(super) quiet: Option<u16>,
}

impl Link {
    /// Starts to connect; `queue` messages may wait to be written, with `packet_ids` in turn. `tally`
    /// counts the bytes; what is published to us goes to `talk`.
    pub(super) fn open(
        mut options: MqttOptions,
        url: &BrokerUrl,
        queue: u16,
        packet_ids: u16,
        tally: &Arc<Tally>,
        talk: Option<Talk>,
    ) -> Self {
        let (host, port, tally) = (url.host.clone(), url.port, Arc::clone(tally));
        // Who listens is in a hurry; frames are not, and their acknowledgements cost nothing when they ride along.
        let prompt = talk.is_some();
        options.set_socket_connector(move |_, _| {
            let (host, tally) = (host.clone(), Arc::clone(&tally));
            async move { Ok(dial(&host, port, tally).await?.acknowledging(prompt)) }
        });
        options.set_inflight(packet_ids);
        let (client, mut event_loop) = AsyncClient::builder(options).capacity(queue.into()).build();
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(FLUSH_SECONDS);
        network.set_tcp_nodelay(true);
        event_loop.set_network_options(network);
        let (tell, events) = mpsc::channel(2);
        let task = tokio::spawn(keep_polling(event_loop, tell, talk));
        Self { client, events, task, quiet: None }
    }

    /// Waits for the next event.
    pub(super) async fn event(&mut self) -> LinkEvent {
        self.events.recv().await.unwrap_or(LinkEvent::Lost(None))
    }

    /// Queues a QoS 1 message; the notice tells when its own PUBACK came.
    pub(super) fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<PublishNotice, ClientError> {
        self.client.try_publish_tracked(topic, payload, PublishOptions::at_least_once())
    }

    /// Asks the broker for what is published on `topics`; what it answers is told to the talk.
    pub(super) fn subscribe(&self, topics: &[String]) -> Result<(), ClientError> {
        if topics.is_empty() {
            return Ok(());
        }
        let filters = topics.iter().map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters)
    }

    /// Sends DISCONNECT, so that the broker forgets the will, and hangs up after `limit` at the latest.
    pub(super) async fn close(mut self, limit: Duration) {
        let said = self.client.try_disconnect_now().is_ok();
        // A task that has ended must not be awaited a second time.
        if !said || timeout(limit, &mut self.task).await.is_err() {
            self.abandon().await;
        }
    }

    /// Hangs up at once. When this returns, every notice of the link is settled.
    pub(super) async fn abandon(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_polling(mut event_loop: EventLoop, tell: mpsc::Sender<LinkEvent>, talk: Option<Talk>) {
    loop {
        let event = match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => LinkEvent::Connected,
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if let Some(talk) = &talk {
                    talk.hear(&publish.topic, &publish.payload, publish.retain);
                }
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let refused = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Failure);
                if let Some(talk) = &talk {
                    talk.answered(answer.return_codes.iter().map(|code| !refused(code)));
                }
                continue;
            }
            Ok(_) => continue,
            Err(ConnectionError::RequestsDone) => LinkEvent::Lost(None),
            Err(error) => LinkEvent::Lost(Some(error)),
        };
        let last = matches!(event, LinkEvent::Lost(_));
        if tell.send(event).await.is_err() || last {
            return;
        }
    }
}

/// Opens a TCP connection; an unknown name is told as `NotFound`.
async fn dial(host: &str, port: u16, tally: Arc<Tally>) -> io::Result<Counted> {
    let addresses = lookup_host((host, port)).await.map_err(|e| io::Error::new(io::ErrorKind::NotFound, e))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in addresses {
        match timeout(ADDRESS_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(Counted::new(stream, tally));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        }
        tally.failed();
    }
    Err(last)
}
