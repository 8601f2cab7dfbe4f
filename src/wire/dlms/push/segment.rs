//! Segments of one APDU in several frames of HDLC or M-Bus.

use super::super::hdlc::{self, Address, Control, LLC_REQUEST, LLC_RESPONSE};
use super::super::open;
use super::block::Joined;
use super::carrier::{Segment, is_push};
use super::{Damage, LONGEST};

/// Puts the segments of one APDU together.
#[derive(Debug, Default)]
pub(super) struct Segments {
    open: Option<Chain>,
}

#[derive(Debug)]
struct Chain {
    ends: Ends,
    /// The number of the newest segment, where the carrier has numbers.
    number: Option<u8>,
    bytes: Vec<u8>,
}

/// Between whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Hdlc(Address, Address),
    Mbus(u8, u8),
}

/// Where a segment belongs.
enum Place {
    First,
    Next,
    Repeated,
    Lost(Damage),
}

impl Segments {
    /// Takes an HDLC frame. Its LLC header, which only the first segment has, is taken off; some meters leave
    /// it out before the second of several blocks (E450).
    pub(super) fn hdlc(&mut self, frame: &hdlc::Frame) -> Joined {
        let number = match frame.control {
            Control::I { ns, .. } => Some(ns),
            Control::Ui => None,
            _ => return Joined { damage: None, apdu: None },
        };
        let information = frame.information.as_slice();
        let bare = information.strip_prefix(&LLC_REQUEST).or_else(|| information.strip_prefix(&LLC_RESPONSE));
        let ends = Ends::Hdlc(frame.destination, frame.source);
        let place = match (&self.open, bare) {
            (_, Some(_)) => Place::First,
            (Some(chain), None) if chain.ends == ends => match (chain.number, number) {
                (Some(before), Some(now)) if before == now => Place::Repeated,
                (Some(before), Some(now)) if (before + 1) & 7 != now => Place::Lost(Damage::Gap),
                _ => Place::Next,
            },
            (_, None) if information.first().copied().is_some_and(is_push) => Place::First,
            (_, None) if information.is_empty() => return Joined { damage: None, apdu: None },
            (_, None) => Place::Lost(Damage::Headless),
        };
        self.put(ends, number, place, bare.unwrap_or(information), !frame.segmented)
    }

    /// Takes a frame of M-Bus. Some meters never say which is the last: then the APDU's own length does.
    pub(super) fn mbus(&mut self, segment: &Segment) -> Joined {
        let ends = Ends::Mbus(segment.source, segment.destination);
        let place = match &self.open {
            _ if segment.number == 0 && !self.wraps(ends) => Place::First,
            Some(Chain { number: Some(before), .. }) if *before == segment.number => Place::Repeated,
            Some(Chain { number: Some(before), ends: theirs, .. })
                if *theirs == ends && (before + 1) & 0x0F == segment.number =>
            {
                Place::Next
            }
            Some(_) => Place::Lost(Damage::Gap),
            None => Place::Lost(Damage::Headless),
        };
        self.put(ends, Some(segment.number), place, &segment.data, segment.last)
    }

    /// Whether segment 0 goes on with what segment 15 left open.
    fn wraps(&self, ends: Ends) -> bool {
        self.open.as_ref().is_some_and(|chain| chain.ends == ends && chain.number == Some(15))
    }

    fn put(&mut self, ends: Ends, number: Option<u8>, place: Place, bytes: &[u8], last: bool) -> Joined {
        let mut damage = None;
        let mut whole = match place {
            Place::Repeated => return Joined { damage, apdu: None },
            Place::Lost(why) => {
                self.open = None;
                return Joined { damage: Some(why), apdu: None };
            }
            Place::Next => self.open.take().map(|chain| chain.bytes).unwrap_or_default(),
            Place::First => {
                damage = self.open.take().map(|_| Damage::Cut);
                Vec::new()
            }
        };
        if whole.len() + bytes.len() > LONGEST {
            return Joined { damage: Some(Damage::Long), apdu: None };
        }
        whole.extend_from_slice(bytes);
        let complete =
            || matches!(ends, Ends::Mbus(..)) && matches!(open::length(&whole), Ok(Some(n)) if n <= whole.len());
        if last || complete() {
            return Joined { damage, apdu: Some(whole) };
        }
        self.open = Some(Chain { ends, number, bytes: whole });
        Joined { damage, apdu: None }
    }

    /// Forgets what has begun; says whether something had.
    pub(super) fn drop_open(&mut self) -> bool {
        self.open.take().is_some()
    }
}
