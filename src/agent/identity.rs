//! Who this gateway is: what {id} and {imei} stand for.

use crate::board::{self, Board};
use crate::config::GatewaySettings;
use crate::setting::Identity;

/// The gateway's names: the configured id, else the board's serial number, else the machine id.
pub fn identity(settings: &GatewaySettings, board: &Board) -> Identity {
    let configured = settings.id.clone().filter(|id| !id.is_empty());
    let id = configured.or_else(|| board.serial_number()).or_else(board::machine_id);
    Identity { id: id.unwrap_or_else(|| "weir".to_owned()), imei: settings.imei.clone() }
}
