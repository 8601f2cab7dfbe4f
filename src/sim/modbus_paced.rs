//! Modbus RTU meters on a pseudo-terminal that is as slow as a wire: bytes appear at character times.
//!
//! For measuring, not for faults. A request counts as begun when it is seen; the meters answer to nothing
//! before its last character would have come and the line was silent for 3.5 characters, and then give
//! one byte a character time. What this simulator is late by makes a reader look slower, never faster.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::modbus_content::Memory;
use crate::os::alarm::Alarm;
use crate::os::line::{Framing, Speed};
use crate::os::pty::Pty;
use crate::wire::modbus::rtu;

/// What has crossed the line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests answered.
    pub exchanges: u64,
    /// What their characters and the silences before request and answer need at least.
    pub least: Duration,
    /// Requests that came before the line had been silent for 3.5 characters.
    pub too_early: u64,
}

/// Meters with every unit from 1 to 247 on one slow line.
#[derive(Debug)]
pub struct PacedMeters {
    pty: Pty,
    delay: Duration,
    tally: Arc<Mutex<Tally>>,
}

/// Reads what a running line has counted.
#[derive(Debug, Clone)]
pub struct Count(Arc<Mutex<Tally>>);

impl Count {
    /// What has crossed the line so far.
    pub fn tally(&self) -> Tally {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PacedMeters {
    /// Opens the line; each meter answers `delay` after the silence that tells it a request's end.
    ///
    /// # Errors
    /// When there is no pseudo-terminal.
    pub fn open(delay: Duration) -> io::Result<Self> {
        Ok(Self { pty: Pty::open()?, delay, tally: Arc::default() })
    }

    /// The device file that a reader opens.
    pub fn path(&self) -> PathBuf {
        Path::to_owned(self.pty.path())
    }

    /// What counts.
    pub fn count(&self) -> Count {
        Count(self.tally.clone())
    }

    /// Answers until the pseudo-terminal fails. Wants a thread of its own, to be on time.
    ///
    /// # Errors
    /// The system's error.
    pub async fn run(mut self) -> io::Result<()> {
        let (mut decoder, mut alarm) = (rtu::RequestDecoder::default(), Alarm::new());
        let mut memory = Memory::default();
        let mut buffer = [0; 256];
        let (mut begun, mut length, mut silent_since) = (Instant::now(), 0, Instant::now());
        loop {
            let count = self.pty.receive(&mut buffer).await?;
            if length == 0 {
                begun = Instant::now();
            }
            length += count;
            let requests = decoder.push(buffer.get(..count).unwrap_or_default());
            let Some((unit, request)) = requests.into_iter().next() else { continue };
            let speed = Speed { baud: self.pty.baud()?, framing: Framing::EIGHT_N_ONE };
            let silence = silence(speed);
            let (mut pdu, mut frame) = (Vec::new(), Vec::new());
            memory.answer(unit, 0.0, &request).encode(&request, &mut pdu);
            rtu::encode(unit, &pdu, &mut frame);
            let start = begun + speed.time_of(length) + silence + self.delay;
            let early = begun.saturating_duration_since(silent_since) < silence;
            for (sent, byte) in frame.iter().enumerate() {
                alarm.until(start + speed.time_of(sent + 1)).await;
                // Before it is handed over: the reader may see it before this task goes on.
                silent_since = Instant::now();
                self.pty.send(std::slice::from_ref(byte)).await?;
            }
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.exchanges += 1;
            tally.least += speed.time_of(length) + speed.time_of(frame.len()) + 2 * silence + self.delay;
            tally.too_early += u64::from(early);
            length = 0;
        }
    }
}

/// 3.5 characters; fixed above 19,200 bits per second.
fn silence(speed: Speed) -> Duration {
    if speed.baud > 19_200 { Duration::from_micros(1750) } else { speed.time_of(7) / 2 }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::os::line::{Direction, Endpoint, Line};
    use crate::wire::modbus::{Request, Table};

    #[tokio::test]
    async fn no_byte_appears_before_its_time_on_the_wire() {
        let meters = PacedMeters::open(Duration::from_millis(2)).unwrap();
        let (path, count) = (meters.path(), meters.count());
        let running = tokio::spawn(meters.run());
        let speed = Speed { baud: 2400, framing: Framing::EIGHT_N_ONE };
        let mut line = Line::open(&Endpoint::Device(path), speed, Direction::Automatic).await.unwrap();
        let (mut pdu, mut frame) = (Vec::new(), Vec::new());
        Request::Read { table: Table::Holding, address: 0, quantity: 2 }.encode(&mut pdu);
        rtu::encode(9, &pdu, &mut frame);
        let begun = Instant::now();
        line.write_all(&frame).await.unwrap();
        for n in 1..=9 {
            line.read_u8().await.unwrap();
            let least = speed.time_of(frame.len() + n) + silence(speed) + Duration::from_millis(2);
            assert!(begun.elapsed() >= least, "byte {n} after {:?}", begun.elapsed());
        }
        tokio::task::yield_now().await;
        assert_eq!(count.tally().exchanges, 1);
        running.abort();
    }
}
