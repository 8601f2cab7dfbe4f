//! The dialogue with one Modbus meter.

use tokio::time::Instant;
use tracing::debug;

use super::client::{self, Given};
use super::exchange::{Framing, Guard};
use super::map::{self, Point};
use super::plan::{self, Block};
use crate::meter::{MeterError, MeterSettings, Reply, Session};
use crate::model::{Quality, Value};
use crate::os::line::{Line, LineError};

/// Makes a session over RTU.
pub(super) fn rtu(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    open(Framing::Rtu, settings)
}

/// Makes a session over TCP.
pub(super) fn tcp(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    open(Framing::Tcp, settings)
}

fn open(framing: Framing, settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    let map = map::load(settings)?;
    Ok(Box::new(Modbus {
        unit: map.unit,
        blocks: plan::blocks(&map.points),
        points: map.points,
        retries: settings.retries.value(),
        guard: Guard::new(framing, settings),
    }))
}

struct Modbus {
    unit: u8,
    points: Vec<Point>,
    blocks: Vec<Block>,
    retries: u32,
    guard: Guard,
}

impl Session for Modbus {
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(self.read_all(line))
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        let absent = |p: &Point| Value { name: p.name.clone(), value: None, unit: p.unit.clone(), quality };
        self.points.iter().map(absent).collect()
    }

    fn late_until(&self) -> Option<Instant> {
        self.guard.late_until()
    }
}

impl Modbus {
    /// Reads block after block. Silence ends the reading, so that a dead meter costs one time
    /// limit and its retries; what was read before is kept.
    async fn read_all(&mut self, line: &mut Line) -> Result<Vec<Value>, MeterError> {
        let mut values = self.absent(Quality::NoAnswer);
        let mut answered = false;
        let mut failure = None;
        let mut at = 0;
        while let Some(block) = self.blocks.get(at).cloned() {
            at += 1;
            let requests = if block.split { plan::singles(&block, &self.points) } else { vec![block.clone()] };
            for request in requests {
                match self.ask(line, &request).await {
                    Ok(Given::Refused(why)) if why.is_about_range() && request.points.len() > 1 => {
                        answered = true;
                        debug!(unit = self.unit, %why, "a request for several values was refused; they are read one by one");
                        // Looked at again, and remembered: the next reading asks one by one at once.
                        at -= 1;
                        self.blocks.iter_mut().filter(|b| **b == block).for_each(|b| b.split = true);
                    }
                    Ok(given) => {
                        answered = true;
                        self.fill(&mut values, &request, &given);
                    }
                    Err(error) if error.must_reopen() => return Err(error),
                    Err(error) => {
                        mark(&mut values, &request, error.quality());
                        let silent = matches!(error, MeterError::Line(LineError::Silent(_)));
                        failure = Some(error);
                        // Nor does a line full of noise hold the others up for every block.
                        if silent || !answered {
                            at = self.blocks.len();
                            break;
                        }
                    }
                }
            }
        }
        match failure {
            Some(error) if !answered => Err(error),
            _ => Ok(values),
        }
    }

    async fn ask(&mut self, line: &mut Line, block: &Block) -> Result<Given, MeterError> {
        let mut left = self.retries;
        loop {
            let result = client::ask(&mut self.guard, line, self.unit, &block.request()).await;
            let again = match &result {
                Ok(Given::Refused(why)) => why.is_busy(),
                Ok(Given::Words(_)) => false,
                Err(error) => !error.must_reopen(),
            };
            if !again || left == 0 {
                return result;
            }
            left -= 1;
            debug!(unit = self.unit, address = block.address, ?result, "the request is repeated");
        }
    }

    fn fill(&self, values: &mut [Value], block: &Block, given: &Given) {
        for index in &block.points {
            let (Some(point), Some(value)) = (self.points.get(*index), values.get_mut(*index)) else { continue };
            match given {
                Given::Refused(_) => value.quality = Quality::Refused,
                Given::Words(words) => {
                    let from = usize::from(point.register.address.saturating_sub(block.address));
                    let content = words.get(from..).and_then(|w| point.coding.decode(w));
                    value.value = content.and_then(|c| c.scaled(point.scale, point.offset).ok());
                    value.quality = if value.value.is_some() { Quality::Good } else { Quality::Invalid };
                }
            }
        }
    }
}

fn mark(values: &mut [Value], block: &Block, quality: Quality) {
    for index in &block.points {
        if let Some(value) = values.get_mut(*index) {
            value.quality = quality;
        }
    }
}
