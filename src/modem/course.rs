//! The modem over the time: found, spoken to, lost, found again.

use tokio::sync::mpsc;

use super::handle::Order;
use super::{Modem, ModemError};

/// Speaks to the modem until no handle is left.
pub(super) async fn follow(_modem: &Modem, orders: &mut mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        order.refuse(ModemError::Absent("not built yet".to_owned()));
    }
}
