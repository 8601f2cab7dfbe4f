//! A session that is made only to see whether it can be: for `weir report`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::UplinkError;
use super::course::accepted;
use super::failure::{Failure, Kind};
use super::link::Link;
use super::plan::Plan;
use super::settings::{BrokerSettings, UplinkSettings};
use crate::os::clock::Clock;
use crate::setting::Identity;

/// The longest wait for DISCONNECT to be sent.
const HANG_UP: Duration = Duration::from_secs(2);

/// Connects as the uplink does (TLS, certificates, user name, password), waits until the broker
/// accepts the session, and says goodbye; publishes nothing and leaves no will. With
/// `beside_an_agent` the client id gets a suffix, so that the agent's session is not thrown out.
/// Gives how long it took.
///
/// # Errors
/// What the uplink would log: one sentence that says what to do.
pub async fn rehearse(
    broker: &BrokerSettings,
    uplink: &UplinkSettings,
    identity: &Identity,
    clock: &Clock,
    beside_an_agent: bool,
    limit: Duration,
) -> Result<Duration, Failure> {
    let unfit = |error: UplinkError| Failure::new(Kind::Files, error.to_string());
    let plan = Plan::new(broker, uplink, identity).map_err(unfit)?.for_rehearsal(beside_an_agent);
    let began = Instant::now();
    let link = Link::open(plan.options(clock, None)?, &plan.url, 2, 2, &Arc::default(), None);
    let link = accepted(link, &plan, limit).await?;
    let took = began.elapsed();
    link.close(HANG_UP).await;
    Ok(took)
}
