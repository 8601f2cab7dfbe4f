//! A person's own session with the broker, beside any agent's: hears and says, carries no frames.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::course::accepted;
use super::failure::{Failure, Kind};
use super::link::{Link, LinkEvent};
use super::plan::Plan;
use super::talk::{Saying, Talk};
use super::{BrokerSettings, UplinkError, UplinkSettings};
use crate::os::clock::Clock;
use crate::setting::Identity;

/// The longest wait for the broker to accept the session.
const ACCEPT: Duration = Duration::from_secs(30);
/// Messages under way at once.
const UNDER_WAY: usize = 16;
const PACKET_IDS: u16 = 1024;
/// A session that lasted so long begins the pauses anew.
const SETTLED: Duration = Duration::from_mins(1);

/// Hears and says what `talk` wants, and connects again whenever the session breaks; `connected` shows whether there is one.
/// The client id is the broker's one with `suffix`, so that no agent's session is thrown out. It leaves no will.
///
/// # Errors
/// The first session can't be had: one sentence that says what to do.
pub async fn converse(
    (broker, uplink, identity): (&BrokerSettings, &UplinkSettings, &Identity),
    suffix: &str,
    (clock, mut random): (&Clock, StdRng),
    talk: &Talk,
    connected: watch::Sender<bool>,
) -> Result<Infallible, Failure> {
    let unfit = |error: UplinkError| Failure::new(Kind::Files, error.to_string());
    let plan = Plan::new(broker, uplink, identity).map_err(unfit)?.for_operator(suffix);
    let mut backoff = Backoff::new(&uplink.backoff, SETTLED, &identity.id);
    let mut first = true;
    loop {
        let began = tokio::time::Instant::now();
        match open(&plan, clock, talk).await {
            Ok(link) => {
                connected.send_replace(true);
                first = false;
                let failure = hold(link, &plan, talk).await;
                connected.send_replace(false);
                tracing::warn!(reason = failure.sentence, "the session with the broker broke; it is made anew");
                backoff.ended(began.elapsed(), false);
            }
            Err(failure) if first => return Err(failure),
            Err(failure) => tracing::debug!(reason = failure.sentence, "the broker is still away"),
        }
        sleep(backoff.next(&mut random)).await;
    }
}

async fn open(plan: &Plan, clock: &Clock, talk: &Talk) -> Result<Link, Failure> {
    let options = plan.options(clock, None)?;
    let queue = u16::try_from(UNDER_WAY).unwrap_or(u16::MAX).saturating_add(2);
    let link = Link::open(options, &plan.url, queue, PACKET_IDS, &Arc::default(), Some(talk.clone()));
    let link = accepted(link, plan, ACCEPT).await?;
    link.subscribe(talk.topics()).map_err(|error| Failure::new(Kind::Lost, error.to_string()))?;
    Ok(link)
}

/// Says what there is to say until the link breaks; what was not acknowledged is given back.
async fn hold(mut link: Link, plan: &Plan, talk: &Talk) -> Failure {
    let mut under_way: JoinSet<(u64, bool)> = JoinSet::new();
    let mut unacknowledged: BTreeMap<u64, Saying> = BTreeMap::new();
    let mut number = 0;
    let failure = loop {
        tokio::select! {
            event = link.event() => if let LinkEvent::Lost(error) = event {
                break error.map_or_else(
                    || Failure::new(Kind::Lost, format!("the connection to {} broke", plan.url)),
                    |error| Failure::explain(&error, &plan.url, &plan.files, true),
                );
            },
            Some(Ok((number, true))) = under_way.join_next(), if !under_way.is_empty() => {
                unacknowledged.remove(&number);
            }
            () = talk.news(), if under_way.len() < UNDER_WAY => {
                let Some(saying) = talk.take() else { continue };
                number += 1;
                let sent = link.publish(&saying.topic, saying.payload.clone());
                unacknowledged.insert(number, saying);
                let Ok(notice) = sent else {
                    break Failure::new(Kind::Lost, format!("the connection to {} broke", plan.url));
                };
                under_way.spawn(async move { (number, notice.wait_async().await.is_ok()) });
            }
        }
    };
    link.abandon().await;
    while let Some(settled) = under_way.join_next().await {
        if let Ok((number, true)) = settled {
            unacknowledged.remove(&number);
        }
    }
    talk.again(unacknowledged.into_values().collect());
    failure
}
