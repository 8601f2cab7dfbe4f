//! Connections to peers of the network.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Place;
use crate::os::line::watch_peer;

/// A connection, with TLS around it or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection on its way, or the sentence that says why there is none.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, String>> + Send>>;

/// Makes connections. Whoever builds the tunnel knows the TLS door; the tunnel does not.
pub type Connector = Arc<dyn Fn(Place) -> Connecting + Send + Sync>;

/// A connection must stand after that, TLS included.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Bytes that nobody acknowledges for so long end a connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Connects without TLS; the name is looked up on another thread.
///
/// # Errors
/// One sentence that says why not.
pub async fn dial(place: &Place) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((place.host.as_str(), place.port))
        .await
        .map_err(|error| format!("cannot connect to {place}: {error}; check the address and the network"))?;
    tend(&stream).map_err(|error| format!("the connection to {place} failed: {error}"))?;
    Ok(stream)
}

/// Sees that small pieces leave at once and that a peer that vanished is noticed.
pub(super) fn tend(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    watch_peer(stream)?;
    let limit = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, limit)?;
    Ok(())
}

/// Has a connection made, in time.
pub(super) async fn connect(connector: &Connector, place: &Place) -> Result<Box<dyn Stream>, String> {
    let late = |_| {
        format!("no connection with {place} within {} s; check the address and the network", CONNECT_LIMIT.as_secs())
    };
    timeout(CONNECT_LIMIT, connector(place.clone())).await.map_err(late)?
}
