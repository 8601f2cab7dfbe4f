//! Bytes for a port by command, and what comes back.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Orders;
use crate::control::Place;
use crate::meter::bus::{self, Borrowed, Owner, Purpose};
use crate::os::line::{Line, LineError, Speed};
use crate::tunnel;
use crate::wire::at;

/// The most bytes of an answer that are told.
const MOST: usize = 4096;

/// Borrows the line of a port between two readings; a tunnel that has it gives it away as soon as nothing is under way.
pub(super) async fn borrow<T, F>(orders: &Orders, port: &str, limit: Duration, work: F) -> Result<T, String>
where
    T: Send + 'static,
    F: for<'a> FnOnce(&'a mut Line) -> Borrowed<'a, T> + Send + 'static,
{
    let (bus, tunnel) = orders.doors(port)?;
    let bus = bus.named(Owner::new(Purpose::Command, &orders.by));
    let lent = bus.lend(limit, work);
    let mut lent = std::pin::pin!(lent);
    let answer = if let Some(tunnel) = tunnel {
        // Asked for first, so that the tunnel stands behind it in the queue when it wants the line back.
        let (reply, given) = oneshot::channel();
        let ask = async {
            let ended = || "the tunnel has ended; ask again".to_owned();
            tunnel.orders.send(tunnel::Order::Yield(reply)).await.map_err(|_| ended())?;
            given.await.map_err(|_| ended())?
        };
        tokio::select! {
            biased;
            lent = &mut lent => return lent.map_err(|error: bus::LeaseError| error.to_string()),
            yielded = ask => yielded?,
        }
        lent.await
    } else {
        lent.await
    };
    answer.map_err(|error| error.to_string())
}

/// Sends bytes; gives what came back as text, bytes that are no text in `<HEX>`.
pub(super) async fn send(orders: &Orders, place: &Place, bytes: Vec<u8>) -> Result<String, String> {
    let (port, speed) = orders.port(place)?;
    let (wait, count) = (orders.serial_answer, bytes.len());
    let limit = wait * 2 + Duration::from_secs(30) + speed.time_of(count);
    let answer =
        borrow(orders, port, limit, move |line| Box::pin(async move { exchange(line, speed, &bytes, wait).await }));
    let came = answer.await?.map_err(|error| format!("port \"{port}\": {error}"))?;
    Ok(if came.is_empty() { format!("{count} bytes sent, no answer") } else { at::text(&came) })
}

/// An answer has ended when the line was silent for so long (YDOC's and Combway's devices: docs/control.md).
const SILENCE: Duration = Duration::from_millis(250);

async fn exchange(line: &mut Line, speed: Speed, bytes: &[u8], wait: Duration) -> Result<Vec<u8>, LineError> {
    if line.speed() != speed {
        line.set_speed(speed)?;
    }
    line.discard_waiting().await?;
    line.send(bytes).await?;
    let mut came = Vec::new();
    let mut buffer = vec![0; 1024];
    let mut deadline = Instant::now() + wait;
    while came.len() < MOST {
        match line.receive(&mut buffer, deadline).await {
            Ok(count) => came.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(LineError::Silent(_)) => break,
            Err(error) => return Err(error),
        }
        deadline = Instant::now() + SILENCE;
    }
    came.truncate(MOST);
    Ok(came)
}
