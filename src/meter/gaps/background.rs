//! The profiles of one port as background work of its bus.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Keeper, Piece, Reader};
use crate::meter::bus::{Background, Worked};
use crate::meter::{Health, MeterError, MeterSettings, Session};
use crate::model::Frame;
use crate::os::clock::Clock;
use crate::os::line::Line;

/// While nothing is to do; the bus looks around more often than that anyway.
const LONG: Duration = Duration::from_hours(1);

/// Reads the load profiles of a port's meters back, one meter after the other.
#[derive(Debug)]
pub struct ReadBack {
    readers: Vec<Reader>,
    /// Who is asked first the next time.
    turn: usize,
    piece: Option<(usize, Piece)>,
    frames: mpsc::Sender<Frame>,
    clock: Clock,
    health: Health,
}

impl ReadBack {
    /// Goes on where the kept states end; `None` when no meter has a load profile.
    pub fn new(
        meters: &[MeterSettings],
        keeper: &Keeper,
        frames: mpsc::Sender<Frame>,
        (clock, health): (Clock, Health),
    ) -> Option<Self> {
        let reader =
            |m: &MeterSettings| m.load_profile.as_ref().map(|profile| Reader::new(&m.name, profile, keeper.clone()));
        let readers: Vec<_> = meters.iter().filter_map(reader).collect();
        (!readers.is_empty()).then_some(Self { readers, turn: 0, piece: None, frames, clock, health })
    }
}

impl Background for ReadBack {
    fn idle(&self) -> Duration {
        self.readers.iter().map(|r| r.idle(&self.clock)).min().unwrap_or(LONG)
    }

    fn next(&mut self, time_left: Duration) -> Option<String> {
        let count = self.readers.len();
        for index in (self.turn..count).chain(0..self.turn) {
            if let Some(reader) = self.readers.get_mut(index)
                && let Some(piece) = reader.next(&self.clock, time_left)
            {
                self.turn = (index + 1) % count;
                self.piece = Some((index, piece));
                return Some(reader.meter().to_owned());
            }
        }
        None
    }

    fn work<'a>(&'a mut self, session: &'a mut dyn Session, line: &'a mut Line) -> Worked<'a> {
        Box::pin(async move {
            let planned = self.piece.take();
            let Some((reader, piece)) = planned.and_then(|(index, piece)| Some((self.readers.get_mut(index)?, piece)))
            else {
                return Ok(());
            };
            let about = (&self.clock, &self.health);
            match session.profile() {
                Some(profile) => reader.read(piece, (profile, line), &self.frames, about).await,
                None => {
                    let error = MeterError::Refused("its protocol reads no load profile here".to_owned());
                    reader.refuse(error, about)
                }
            }
        })
    }
}
