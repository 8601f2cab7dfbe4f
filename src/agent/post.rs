//! Brings what the broker brought to the room it is for, and what rooms say to the broker.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::commands::{Reply, Told};
use super::wiring::Evidence;
use super::{Agent, AgentError, lines};
use crate::config::Settings;
use crate::control::Origin;
use crate::setting::{Identity, Topic};
use crate::tunnel::{self, Book, Ends, Mode, Request, Tunnel, TunnelSettings};
use crate::uplink::{self, Heard, Saying, Speaker, Talk};

/// The rooms' side of a talk.
pub(super) struct Post {
    heard: mpsc::Receiver<Heard>,
    speaker: Speaker,
    identity: Identity,
}

/// Opens the talk that the settings ask for; `None` when nobody wants to hear or say anything.
///
/// # Errors
/// [`AgentError::Uplink`] when a topic can't be filled in.
pub(super) fn open(settings: &Settings, identity: &Identity) -> Result<Option<(Talk, Post)>, AgentError> {
    let tunnels = by_topics(settings).map(|tunnel| (*tunnel.rx_topic).clone());
    let topics: Vec<Topic> = tunnels.chain(settings.control.at_topics.iter().cloned()).collect();
    // Meters are read and frames sent also while nobody knows what a tunnel's topic is.
    let (topics, nameless): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| topic.of(identity).is_some());
    for topic in nameless {
        let topic = topic.as_written();
        if settings.has_modem() {
            tracing::warn!(topic, "nobody listens on this topic yet: it needs the IMEI, which the modem is asked for");
        } else {
            tracing::error!(topic, "nobody listens on this topic: the IMEI is not known; set gateway.imei");
        }
    }
    if topics.is_empty() {
        return Ok(None);
    }
    let (talk, heard, speaker) = uplink::talk(&topics, identity)?;
    Ok(Some((talk, Post { heard, speaker, identity: identity.clone() })))
}

/// The tunnels whose other end is at topics.
fn by_topics(settings: &Settings) -> impl Iterator<Item = &TunnelSettings> {
    settings.tunnel.iter().filter(|tunnel| *tunnel.mode == Mode::Mqtt)
}

/// Where the messages of a topic go.
enum Route {
    Tunnel { requests: mpsc::Sender<Request>, health: tunnel::Health },
    Commands(mpsc::Sender<Told>),
}

/// Starts every tunnel, and the room that brings them their messages; the ports' buses run already.
pub(super) fn start(
    agent: &mut Agent,
    settings: &Settings,
    post: Post,
    (commands, book): (&mpsc::Sender<Told>, &Book),
) -> Speaker {
    let Post { heard, speaker, identity } = post;
    let mut routes = BTreeMap::new();
    for tunnel in by_topics(settings) {
        if let Some((topic, route)) = start_tunnel(agent, settings, tunnel, (&speaker, &identity), (commands, book)) {
            routes.insert(topic, route);
        }
    }
    for topic in settings.control.at_topics.iter().filter_map(|topic| topic.of(&identity)) {
        routes.insert(topic, Route::Commands(commands.clone()));
    }
    let (heard, routes) = (Arc::new(Mutex::new(heard)), Arc::new(routes));
    agent.inputs.start("post", move || {
        let (heard, routes) = (heard.clone(), routes.clone());
        async move {
            deliver(&mut *heard.lock().await, &routes).await;
            Ok::<(), Infallible>(())
        }
    });
    speaker
}

async fn deliver(heard: &mut mpsc::Receiver<Heard>, routes: &BTreeMap<String, Route>) {
    while let Some(Heard { topic, payload, at }) = heard.recv().await {
        match routes.get(&topic) {
            Some(Route::Tunnel { requests, health }) => {
                let full = requests.try_send(Request { bytes: payload, at }).is_err();
                if full {
                    health.dropped_request();
                }
            }
            Some(Route::Commands(commands)) => {
                let told = Told { text: payload, origin: Origin::Topic(topic), reply: Reply::Topic };
                if commands.try_send(told).is_err() {
                    tracing::debug!("too many commands wait; one is dropped");
                }
            }
            None => {}
        }
    }
}

fn start_tunnel(
    agent: &mut Agent,
    settings: &Settings,
    tunnel: &TunnelSettings,
    (speaker, identity): (&Speaker, &Identity),
    (commands, book): (&mpsc::Sender<Told>, &Book),
) -> Option<(String, Route)> {
    let Evidence { buses, tunnels, .. } = &mut agent.evidence;
    let port = buses.iter().find(|bus| bus.port() == tunnel.port.as_str())?.clone();
    let (rx, tx) = (tunnel.rx_topic.of(identity)?, tunnel.tx_topic.of(identity)?);
    let (requests, wanted) = mpsc::channel(tunnel::REQUESTS_WAITING);
    let (answers, given) = mpsc::channel(tunnel::ANSWERS_WAITING);
    let (orders, asked) = mpsc::channel(tunnel::ORDERS_WAITING);
    let health = tunnel::Health::new();
    tunnels.push(super::TunnelDoor { port: tunnel.port.to_string(), health: health.clone(), orders });
    let shared = settings.meter.iter().any(|meter| *meter.port == *tunnel.port);
    let ends = Ends { requests: wanted, answers, orders: asked };
    let room = Tunnel::new(tunnel, port, shared, ends, health.clone()).with_book(book.clone());
    let room = match lines::tags(&settings.control, &tunnel.port, commands) {
        Some(tags) => room.with_tags(tags),
        None => room,
    };
    let (given, speaker, max_age) = (Arc::new(Mutex::new(given)), speaker.clone(), *tunnel.max_age);
    agent.inputs.start(format!("tunnel {}", *tunnel.port), move || {
        let (room, given, speaker, topic) = (room.clone(), given.clone(), speaker.clone(), tx.clone());
        async move {
            let publish = async {
                let mut given = given.lock().await;
                while let Some(payload) = given.recv().await {
                    let saying = Saying { topic: topic.clone(), payload, until: Some(Instant::now() + max_age) };
                    if speaker.say(saying).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = room.run() => {}
                () = publish => {}
            }
            Ok::<(), Infallible>(())
        }
    });
    Some((rx, Route::Tunnel { requests, health }))
}
