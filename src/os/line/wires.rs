//! The wires of a serial port beside its data, and what has not left it yet.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_serial::{ClearBuffer, SerialPort};

use super::{Direction, Io, Line, LineError};

/// What can be switched on a serial port beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Data terminal ready.
    Dtr,
    /// Request to send; not where the kernel turns an RS485 transceiver with it.
    Rts,
    /// The data wire held in the break state.
    Break,
}

/// What the other side holds: the wires that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ring: bool,
    /// Carrier detect.
    pub carrier: bool,
}

impl Line {
    /// Switches a wire; false when this line has none: serial servers, pseudo-terminals, RTS of an RS485 port.
    pub fn switch(&mut self, wire: Wire, on: bool) -> bool {
        let kernel_turns = matches!(self.place, Some((_, Direction::Kernel(_))));
        let Io::Serial(port) = &mut self.io else { return false };
        let done = match wire {
            Wire::Dtr => port.write_data_terminal_ready(on),
            Wire::Rts if kernel_turns => return false,
            Wire::Rts => port.write_request_to_send(on),
            Wire::Break if on => port.set_break(),
            Wire::Break => port.clear_break(),
        };
        done.is_ok()
    }

    /// What the other side holds; `None` when this line has no such wires.
    pub fn held(&mut self) -> Option<Held> {
        let Io::Serial(port) = &mut self.io else { return None };
        Some(Held {
            cts: port.read_clear_to_send().ok()?,
            dsr: port.read_data_set_ready().ok()?,
            ring: port.read_ring_indicator().ok()?,
            carrier: port.read_carrier_detect().ok()?,
        })
    }

    /// Throws away what was written and has not left the port.
    ///
    /// # Errors
    /// [`LineError::Gone`] or [`LineError::System`].
    pub fn discard_unsent(&mut self) -> Result<(), LineError> {
        match &self.io {
            Io::Serial(port) => port.clear(ClearBuffer::Output).map_err(|e| LineError::from_io(e.into())),
            Io::Tcp(_) => Ok(()),
        }
    }

    /// Waits until the kernel holds nothing that was written, at most for `limit`.
    pub async fn drained(&mut self, limit: Duration) {
        let give_up = Instant::now() + limit;
        while self.bytes_in_output_queue() > 0 && Instant::now() < give_up {
            sleep(self.speed.time_of(1).max(Duration::from_millis(1))).await;
        }
    }
}
