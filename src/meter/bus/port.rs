//! A port as the configuration and the board describe it.

use std::time::Duration;

use crate::meter::{PortSettings, Rs485Direction};
use crate::os::line::{Direction, Echo, Endpoint, Line, LineError, Speed};

/// A port that meters hang on.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its name in weir.toml.
    pub name: String,
    /// Where it leads.
    pub endpoint: Endpoint,
    /// Its speed at the start of each reading, for meters that have none of their own.
    pub speed: Speed,
    /// Who turns the transceiver around.
    pub direction: Direction,
    /// Whether what is sent comes back.
    pub echo: Echo,
    /// The silence between one meter and another.
    pub guard: Duration,
}

impl Port {
    /// Makes a port of its settings and the place its name stands for.
    pub fn new(settings: &PortSettings, endpoint: Endpoint) -> Self {
        let direction = match settings.rs485.direction {
            Rs485Direction::Kernel => Direction::Kernel(settings.rs485.turnaround()),
            Rs485Direction::Auto | Rs485Direction::None => Direction::Automatic,
        };
        Self {
            direction,
            echo: settings.echo.echo(),
            guard: settings.guard,
            ..Self::plain(&settings.name, endpoint, Speed { baud: settings.baud.value(), framing: settings.framing })
        }
    }

    /// Makes a port without RS485 direction and guard time that finds out about its echo.
    pub fn plain(name: &str, endpoint: Endpoint, speed: Speed) -> Self {
        let (direction, echo, guard) = (Direction::Automatic, Echo::Auto, Duration::ZERO);
        Self { name: name.to_owned(), endpoint, speed, direction, echo, guard }
    }

    /// Opens it, by its name each time, so that a link such as those in /dev/serial/by-id is
    /// followed anew.
    ///
    /// # Errors
    /// [`LineError::Open`] with the reason.
    pub async fn open(&self) -> Result<Line, LineError> {
        let mut line = Line::open(&self.endpoint, self.speed, self.direction).await?;
        line.set_echo(self.echo);
        Ok(line)
    }
}
