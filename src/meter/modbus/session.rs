//! The dialogue with one Modbus meter.

use tokio::time::Instant;
use tracing::{debug, info};

use super::client::{self, Given};
use super::exchange::{Framing, Guard};
use super::map;
use super::plan::{self, Block, Limits};
use super::point::Point;
use super::sunspec;
use crate::meter::{MeterError, MeterSettings, Reply, Session, Writer};
use crate::model::{Quality, Value};
use crate::os::line::{Line, LineError};
use crate::wire::modbus::{Coding, Register, Request};

/// Makes a session over RTU.
pub(super) fn rtu(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    open(Framing::Rtu, settings)
}

/// Makes a session over ASCII.
pub(super) fn ascii(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    open(Framing::Ascii, settings)
}

/// Makes a session over TCP.
pub(super) fn tcp(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    open(Framing::Tcp, settings)
}

fn open(framing: Framing, settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    let map = map::load(settings)?;
    let mut session = Modbus {
        unit: map.unit,
        own: map.points,
        limits: map.limits,
        sunspec: map.sunspec,
        discovered: false,
        points: Vec::new(),
        shown: 0,
        blocks: Vec::new(),
        retries: settings.retries.value(),
        guard: Guard::new(framing, settings),
    };
    session.plan(Vec::new());
    Ok(Box::new(session))
}

pub(super) struct Modbus {
    pub(super) unit: u8,
    /// What the settings name.
    own: Vec<Point>,
    limits: Limits,
    /// More is found in the device.
    sunspec: bool,
    discovered: bool,
    /// What is read: first what is shown, then the exponents.
    points: Vec<Point>,
    /// How many of the points are shown.
    shown: usize,
    blocks: Vec<Block>,
    retries: u32,
    pub(super) guard: Guard,
}

/// What is known of a point after its request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Words(Vec<u16>),
    Missing(Quality),
}

impl Session for Modbus {
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(async move {
            self.discover(line).await?;
            let got = self.read_all(line).await?;
            let values = self.values(&got);
            if self.sunspec && values.iter().all(|v| v.quality.is_fault()) {
                debug!(unit = self.unit, "nothing of the SunSpec models could be read; they are looked for again");
                self.discovered = false;
            }
            Ok(values)
        })
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        self.shown().iter().map(|point| point.empty(quality)).collect()
    }

    fn late_until(&self) -> Option<Instant> {
        self.guard.late_until()
    }

    fn writer(&mut self) -> Option<&mut dyn Writer> {
        Some(self)
    }
}

impl Modbus {
    /// The points that have values of their own.
    pub(super) fn shown(&self) -> &[Point] {
        self.points.get(..self.shown).unwrap_or(&self.points)
    }

    /// Takes what the device was found to have besides its own points, and plans the requests.
    fn plan(&mut self, found: Vec<Point>) {
        self.points.clone_from(&self.own);
        self.points.extend(found);
        self.shown = self.points.len();
        let mut exponents: Vec<Register> = self.points.iter().filter_map(|p| p.exponent).collect();
        exponents.sort_unstable();
        exponents.dedup();
        self.points.extend(exponents.into_iter().map(exponent));
        self.blocks = plan::blocks(&self.points, self.limits);
    }

    /// Looks for the models of a SunSpec device, until they were all found.
    async fn discover(&mut self, line: &mut Line) -> Result<(), MeterError> {
        if !self.sunspec || self.discovered {
            return Ok(());
        }
        let found = sunspec::discover(self, line).await?;
        if found.whole {
            info!(unit = self.unit, values = found.points.len(), "the models of a SunSpec device were found");
        }
        self.plan(found.points);
        self.discovered = found.whole;
        Ok(())
    }

    /// Reads block after block. Silence ends the reading, so that a dead meter costs one time
    /// limit and its retries; what was read before is kept.
    async fn read_all(&mut self, line: &mut Line) -> Result<Vec<Got>, MeterError> {
        let mut got = vec![Got::Missing(Quality::NoAnswer); self.points.len()];
        let mut answered = false;
        let mut failure = None;
        let mut at = 0;
        while let Some(block) = self.blocks.get(at).cloned() {
            match self.ask(line, &block.request()).await {
                // The gateway speaks for a meter that does not answer.
                Ok(Given::Refused(why)) if why.is_gateways() => {
                    fill(&mut got, &block, |_| Got::Missing(Quality::NoAnswer));
                    failure = Some(MeterError::Line(LineError::Silent(self.guard.timeout())));
                    break;
                }
                Ok(Given::Refused(why)) => {
                    answered = true;
                    let instead = if why.is_about_range() { plan::split(&block, &self.points) } else { None };
                    let (address, quantity) = (block.address, block.quantity);
                    if let Some(smaller) = instead {
                        debug!(unit = self.unit, address, quantity, %why, "a request was refused; smaller ones take its place");
                        self.blocks.splice(at..=at, smaller);
                        continue;
                    }
                    debug!(unit = self.unit, address, quantity, %why, "a request was refused");
                    fill(&mut got, &block, |_| Got::Missing(Quality::Refused));
                }
                Ok(Given::Words(words)) => {
                    answered = true;
                    fill(&mut got, &block, |index| self.cut(index, &block, &words));
                }
                Ok(Given::Written | Given::Identity(_)) => {}
                Err(error) if error.must_reopen() => return Err(error),
                Err(error) => {
                    fill(&mut got, &block, |_| Got::Missing(error.quality()));
                    let silent = matches!(error, MeterError::Line(LineError::Silent(_)));
                    failure = Some(error);
                    // Nor does a line full of noise hold the others up for every block.
                    if silent || !answered {
                        break;
                    }
                }
            }
            at += 1;
        }
        match failure {
            Some(error) if !answered => Err(error),
            _ => Ok(got),
        }
    }

    /// The words of one point out of its block's.
    fn cut(&self, index: usize, block: &Block, words: &[u16]) -> Got {
        let piece = self.points.get(index).and_then(|point| {
            let from = usize::from(point.register.address.checked_sub(block.address)?);
            words.get(from..from + usize::from(point.coding.registers()))
        });
        piece.map_or(Got::Missing(Quality::Invalid), |piece| Got::Words(piece.to_vec()))
    }

    fn values(&self, got: &[Got]) -> Vec<Value> {
        let power = |register: Register| {
            let place = self.points.iter().skip(self.shown).position(|p| p.register == register)?;
            got.get(self.shown + place)
        };
        let value = |(point, mine): (&Point, &Got)| match (mine, point.exponent.map(power)) {
            (Got::Missing(quality), _) | (_, Some(Some(Got::Missing(quality)))) => point.empty(*quality),
            (Got::Words(words), None) => point.value(words, None),
            (Got::Words(words), Some(Some(Got::Words(power)))) => match power.first() {
                // SunSpec: without its exponent a value is not there either.
                Some(&NO_EXPONENT) | None => point.empty(Quality::Unavailable),
                Some(power) => point.value(words, Some(power.cast_signed())),
            },
            (Got::Words(_), Some(None)) => point.empty(Quality::Invalid),
        };
        self.shown().iter().zip(got).map(value).collect()
    }

    /// Asks, and asks again as often as the settings want, unless the answer is one.
    pub(super) async fn ask(&mut self, line: &mut Line, request: &Request) -> Result<Given, MeterError> {
        let mut left = self.retries;
        loop {
            let result = client::ask(&mut self.guard, line, self.unit, request).await;
            let again = match &result {
                Ok(Given::Refused(why)) => why.is_busy(),
                Ok(_) => false,
                Err(error) => !error.must_reopen(),
            };
            // What a write did before its answer was lost is not done twice.
            if !again || left == 0 || (request.writes() && result.is_err()) {
                return result;
            }
            left -= 1;
            debug!(unit = self.unit, ?request, ?result, "the request is repeated");
        }
    }
}

/// An exponent that says that there is none.
const NO_EXPONENT: u16 = 0x8000;

/// Where a power of ten stands.
fn exponent(register: Register) -> Point {
    Point::bare("exponent", register, Coding::I16)
}

fn fill(got: &mut [Got], block: &Block, content: impl Fn(usize) -> Got) {
    for index in &block.points {
        if let Some(place) = got.get_mut(*index) {
            *place = content(*index);
        }
    }
}
