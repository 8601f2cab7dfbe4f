//! The wrapper over TCP (IEC 62056-47).

use std::time::Duration;

use tokio::time::Instant;

use crate::meter::dlms::dlms;
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::Line;
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
        self.decoder = Decoder::new();
        line.discard_waiting().await?;
        Ok(())
    }

    pub(super) async fn send(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        Ok(line.send(&self.unit(apdu)?).await?)
    }

    pub(super) async fn send_secret(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        Ok(line.send_secret(&self.unit(apdu)?).await?)
    }

    fn unit(&self, apdu: &[u8]) -> Result<Vec<u8>, MeterError> {
        let unit = Unit { source: self.client, destination: self.server, apdu: apdu.to_vec() };
        unit.encode().ok_or_else(|| MeterError::Order("the request is longer than 64 KiB".to_owned()))
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
            let count = line.receive(&mut buffer, deadline).await?;
            self.decoder.push(buffer.get(..count).unwrap_or_default());
        }
    }
}
