//! Finds the meters on a bus by their secondary addresses, digit by digit.
//!
//! It only selects, asks the selected meter who it is (REQ_UD2) and deselects: nothing in a meter is
//! changed, no rate is switched. Several meters that answer at once are recognised by what their
//! bytes become: anything but exactly one good frame of a meter that was meant.

use std::time::Duration;

use tokio::time::Instant;

use super::address::Secondary;
use super::link::Link;
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::mbus::{Answer, Decoder, Event, FCB, Frame, REQ_UD2, SELECTED, SND_NKE, answer};
use crate::wire::wmbus::Meter;

/// How a search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Selections made so far.
    pub selections: usize,
    /// Meters found so far.
    pub found: usize,
    /// The share of all identification numbers that was looked at, in millionths.
    pub covered: u32,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The meters, by rising identification number.
    pub meters: Vec<Meter>,
    /// Addresses to which more than one meter answers, or one that can't be understood.
    pub unclear: Vec<Secondary>,
    /// Whether all identification numbers were looked at before the time was over.
    pub complete: bool,
}

enum Heard {
    Nothing,
    One(Meter),
    Several,
}

/// Searches the bus until `until`, waiting `timeout` for each answer.
///
/// # Errors
/// When the line fails; silence is no error.
pub async fn search(
    line: &mut Line,
    timeout: Duration,
    until: Instant,
    mut progress: impl FnMut(Progress),
) -> Result<Found, MeterError> {
    let mut link = Link::new("search".to_owned(), timeout, Duration::ZERO);
    let mut found = Found::default();
    let (mut selections, mut covered) = (0, 0_u64);
    // The masks still to try, the next one last, each with the number of its fixed digits.
    let mut open = vec![(Secondary::ANY, 0_u32)];
    while let Some((mask, fixed)) = open.pop() {
        if Instant::now() >= until {
            return Ok(found);
        }
        let heard = probe(&mut link, line, &mask).await?;
        selections += 1;
        match heard {
            Heard::Several if fixed < 8 => {
                open.extend((0..10).rev().map(|digit| (with_digit(&mask, fixed, digit), fixed + 1)));
            }
            heard => {
                covered += 10_u64.pow(8_u32.saturating_sub(fixed));
                match heard {
                    Heard::Nothing => {}
                    Heard::One(meter) => found.meters.push(meter),
                    Heard::Several => found.unclear.push(mask),
                }
            }
        }
        let covered = u32::try_from(covered / 100).unwrap_or(u32::MAX);
        progress(Progress { selections, found: found.meters.len(), covered });
    }
    found.meters.sort_unstable_by_key(|meter| meter.id);
    found.complete = true;
    Ok(found)
}

/// Asks who answers under a primary address (0 to 250 or 254); `None` when nobody does.
///
/// # Errors
/// When the line fails.
pub async fn identify(line: &mut Line, timeout: Duration, primary: u8) -> Result<Option<Meter>, MeterError> {
    let mut link = Link::new("search".to_owned(), timeout, Duration::ZERO);
    if link.collect(line, &Frame::Short { control: SND_NKE, address: primary }).await?.is_empty() {
        return Ok(None);
    }
    let request = Frame::Short { control: REQ_UD2 | FCB, address: primary };
    Ok(only_meter(&link.collect(line, &request).await?))
}

/// `mask` with the digit after its `fixed` first ones set.
fn with_digit(mask: &Secondary, fixed: u32, digit: u32) -> Secondary {
    let place = 4 * (7 - fixed.min(7));
    Secondary { id: (mask.id & !(0xF << place)) | (digit << place), ..mask.clone() }
}

async fn probe(link: &mut Link, line: &mut Line, mask: &Secondary) -> Result<Heard, MeterError> {
    if link.collect(line, &mask.select()).await?.is_empty() {
        return Ok(Heard::Nothing);
    }
    let request = Frame::Short { control: REQ_UD2 | FCB, address: SELECTED };
    let heard = match only_meter(&link.collect(line, &request).await?) {
        Some(meter) if mask.matches(&meter) => Heard::One(meter),
        _ => Heard::Several,
    };
    link.collect(line, &Frame::Short { control: SND_NKE, address: SELECTED }).await?;
    Ok(heard)
}

/// The meter that sent `bytes`, when they are one good answer and nothing else.
fn only_meter(bytes: &[u8]) -> Option<Meter> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let mut events: Vec<_> = std::iter::from_fn(|| decoder.next()).collect();
    events.extend(decoder.silence());
    let [Event::Frame(frame)] = events.as_slice() else { return None };
    match answer::decode(frame) {
        Ok(Answer::Telegram(telegram)) => telegram.header.map(|header| header.meter),
        Ok(Answer::Encrypted(header)) => Some(header.meter),
        _ => None,
    }
}
