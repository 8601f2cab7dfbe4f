//! The wrapper over TCP (IEC 62056-47).

use std::time::Duration;

use tokio::time::Instant;

use crate::meter::dlms::dlms;
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Line, LineError};
use crate::wire::dlms::wrapper::{Decoder, Event, Unit};

/// One logical device over TCP.
pub(in crate::meter::dlms) struct Wrapper {
    server: u16,
    client: u16,
    timeout: Duration,
    decoder: Decoder,
}

impl Wrapper {
    pub(super) fn new(settings: &MeterSettings) -> Result<Self, String> {
        let server = u16::try_from(dlms(settings)?.server.value()).unwrap_or(1);
        Ok(Self { server, client: 0, timeout: settings.timeout, decoder: Decoder::new() })
    }

    pub(super) async fn open(&mut self, line: &mut Line, client: u16) -> Result<(), MeterError> {
        self.client = client;
        self.clear(line).await
    }

    pub(super) async fn send(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        self.clear(line).await?;
        Ok(line.send(&self.unit(apdu)?).await?)
    }

    pub(super) async fn send_secret(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        self.clear(line).await?;
        Ok(line.send_secret(&self.unit(apdu)?).await?)
    }

    fn unit(&self, apdu: &[u8]) -> Result<Vec<u8>, MeterError> {
        let unit = Unit { source: self.client, destination: self.server, apdu: apdu.to_vec() };
        unit.encode().ok_or_else(|| MeterError::Order("the request is longer than 64 KiB".to_owned()))
    }

    /// Reads away what nobody waits for: a connection whose last request stayed unanswered is closed, so
    /// that it is no late answer.
    async fn clear(&mut self, line: &mut Line) -> Result<(), MeterError> {
        let held = !std::mem::take(&mut self.decoder).is_empty();
        if line.discard_waiting().await? > 0 || held {
            line.note_damage();
        }
        Ok(())
    }

    pub(super) async fn receive(&mut self, line: &mut Line) -> Result<Vec<u8>, MeterError> {
        let deadline = Instant::now() + self.timeout;
        let mut buffer = [0; 2048];
        loop {
            while let Some(event) = self.decoder.next() {
                match event {
                    Event::Unit(unit) if unit.source == self.server && unit.destination == self.client => {
                        return Ok(unit.apdu);
                    }
                    Event::Unit(_) => line.note_damage(),
                    Event::Noise(_) => {
                        return Err(MeterError::OutOfStep("a wrapper header was expected".to_owned()));
                    }
                }
            }
            match line.receive(&mut buffer, deadline).await {
                // Units without end that nobody asked for are silence.
                Ok(_) if Instant::now() > deadline + self.timeout => return Err(MeterError::Unanswered(self.timeout)),
                Ok(count) => self.decoder.push(buffer.get(..count).unwrap_or_default()),
                // Its answer could be taken for the next one's: nothing numbers them.
                Err(LineError::Silent(_)) if self.decoder.is_empty() => {
                    return Err(MeterError::Unanswered(self.timeout));
                }
                Err(LineError::Silent(_)) => {
                    return Err(MeterError::OutOfStep("an answer broke off".to_owned()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
