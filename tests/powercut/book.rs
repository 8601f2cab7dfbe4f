//! The plain model: a list of every frame and what was promised of it.

use std::collections::BTreeMap;

use weir::model::{Body, Frame, Lane, Quality, Reading, Sequence, Stamp, Timestamp, Value};
use weir::store::{Status, Store};

/// A frame is wholly told by its tag: a count, its lane (1 bit) and its size (18 bits).
pub(crate) fn tag(count: u64, lane: Lane, size: usize) -> u64 {
    count << 19 | u64::from(lane == Lane::Priority) << 18 | size as u64
}

pub(crate) fn lane_of(tag: u64) -> Lane {
    if tag >> 18 & 1 == 1 { Lane::Priority } else { Lane::Ordinary }
}

/// The meter of a tag: some send much more than others.
fn meter_of(tag: u64) -> u64 {
    (tag >> 19) % 10 / 4
}

/// The frame of a tag; its text repeats nowhere.
pub(crate) fn frame(tag: u64) -> Frame {
    let size = (tag & 0x3_ffff) as usize;
    let mut bytes = format!("{tag:016x}").into_bytes();
    let mut state = tag | 1;
    while bytes.len() < size {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend((state >> 16).to_be_bytes()[2..].iter().map(|b| b'0' + (b & 63)));
    }
    bytes.truncate(size.max(16));
    let value = String::from_utf8(bytes).unwrap();
    let value = Value { name: "e".into(), value: Some(value), unit: String::new(), quality: Quality::Good };
    let reading = Reading { meter: format!("meter-{}", meter_of(tag)), values: vec![value] };
    let time = Stamp::synced(Timestamp::from_millis(tag as i64 & 0xff_ffff));
    Frame { time, lane: lane_of(tag), body: Body::Reading(reading), origin: None }
}

/// The tag of a frame that came back, if it is what was appended.
pub(crate) fn tag_of(frame_back: &Frame) -> Option<u64> {
    let Body::Reading(reading) = &frame_back.body else { return None };
    let tag = u64::from_str_radix(reading.values.first()?.value.as_ref()?.get(..16)?, 16).ok()?;
    (*frame_back == frame(tag)).then_some(tag)
}

/// Everything that waits, by lane; an error when a frame or the order of a lane has changed.
pub(crate) async fn listed(store: &Store) -> Result<Vec<(Sequence, u64)>, String> {
    let mut found = Vec::new();
    for lane in [Lane::Priority, Lane::Ordinary] {
        let mut last = 0;
        loop {
            let more = store.peek(lane, last, 500).await.map_err(|e| e.to_string())?;
            if more.is_empty() {
                break;
            }
            for stored in &more {
                if stored.sequence <= last {
                    return Err(format!("the order of a lane changed at {}", stored.sequence));
                }
                last = stored.sequence;
                match tag_of(&stored.frame) {
                    Some(tag) if lane_of(tag) == lane => found.push((last, tag)),
                    _ => return Err(format!("frame {last} has changed")),
                }
            }
        }
    }
    Ok(found)
}

/// The counters a book looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) acknowledged: u64,
    pub(crate) evicted: u64,
    pub(crate) damaged: u64,
    pub(crate) cached: u64,
    pub(crate) durable: Sequence,
}

impl From<&Status> for Counts {
    fn from(s: &Status) -> Self {
        Self {
            received: s.received,
            acknowledged: s.acknowledged,
            evicted: s.evicted,
            damaged: s.damaged,
            cached: s.cached,
            durable: s.durable,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { received, acknowledged, evicted, damaged, cached, durable } = self;
        write!(f, "{received} {acknowledged} {evicted} {damaged} {cached} {durable}")
    }
}

fn numbers(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split([' ', ':']).filter(|w| !w.is_empty()).map(|w| w.parse().expect("a number"))
}

fn pairs(text: &str) -> Vec<(Sequence, u64)> {
    let all: Vec<_> = numbers(text).collect();
    all.chunks(2).map(|p| (p[0], p[1])).collect()
}

/// One frame that was given a number.
#[derive(Debug, Clone)]
struct Line {
    sequence: Sequence,
    tag: u64,
    /// It survives a power cut: the store said so.
    promised: bool,
    /// It was committed: it need not come back.
    committed: bool,
}

/// What a restart must be held to, and how it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Durable frames that were looked for.
    pub(crate) owed: u64,
    /// Those that did not come back and were not evicted.
    pub(crate) lost: u64,
    /// Committed frames that came back.
    pub(crate) repeated: u64,
    /// Those given up because the store was full.
    pub(crate) evicted: u64,
}

/// The list of all frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    /// The store is small enough to give frames up.
    small: bool,
    lines: Vec<Line>,
    /// Tags on their way into the store.
    intended: Vec<u64>,
    durable: Sequence,
    /// The highest number ever given.
    highest: Sequence,
    found: Vec<(Sequence, u64)>,
    opened: Counts,
}

impl Book {
    /// An empty book; a `small` store may give frames up.
    pub(crate) fn new(small: bool) -> Self {
        Self { small, ..Self::default() }
    }

    fn check(&mut self, counts: Counts) -> Result<(), String> {
        let Counts { received, acknowledged, evicted, damaged, cached, durable } = counts;
        if received != acknowledged + evicted + cached {
            return Err(format!("received is not acknowledged + evicted + cached: {counts:?}"));
        }
        if damaged > 0 || (evicted > 0 && !self.small) {
            return Err(format!("frames are given up without need: {counts:?}"));
        }
        self.durable = self.durable.max(durable);
        let durable = self.durable;
        self.lines.iter_mut().filter(|l| l.sequence <= durable).for_each(|l| l.promised = true);
        Ok(())
    }

    /// Takes what a child said; returns how a restart did when it told all it found.
    pub(crate) fn read(&mut self, text: &str) -> Result<Option<Outcome>, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "open" | "now" => {
                let n: Vec<_> = numbers(rest).collect();
                let [received, acknowledged, evicted, damaged, cached, durable] = n[..] else {
                    return Err(format!("not understood: {text}"));
                };
                let counts = Counts { received, acknowledged, evicted, damaged, cached, durable };
                if word == "now" {
                    return self.check(counts).map(|()| None);
                }
                (self.opened, self.durable) = (counts, 0);
                self.found.clear();
            }
            "found" => self.found.extend(pairs(rest)),
            "ready" => {
                let found = std::mem::take(&mut self.found);
                return self.restart(&found, self.opened).map(Some);
            }
            "intend" => self.intended.extend(numbers(rest)),
            "given" => {
                for (sequence, tag) in pairs(rest) {
                    if sequence <= self.highest {
                        return Err(format!("number {sequence} is given twice"));
                    }
                    self.highest = sequence;
                    self.intended.retain(|t| *t != tag);
                    let promised = sequence <= self.durable;
                    self.lines.push(Line { sequence, tag, promised, committed: false });
                }
            }
            "commit" => {
                for sequence in numbers(rest) {
                    if let Ok(at) = self.lines.binary_search_by_key(&sequence, |l| l.sequence) {
                        self.lines[at].committed = true;
                    }
                }
            }
            "bad" => return Err(rest.to_owned()),
            _ if word.starts_with('!') || word == "note" => {}
            _ => return Err(format!("not understood: {text}")),
        }
        Ok(None)
    }

    /// Holds what a store brought back after a restart to what was promised before it.
    pub(crate) fn restart(&mut self, found: &[(Sequence, u64)], counts: Counts) -> Result<Outcome, String> {
        if counts.cached != found.len() as u64 {
            return Err(format!("{} frames come back, {} are counted", found.len(), counts.cached));
        }
        let back: BTreeMap<Sequence, u64> = found.iter().copied().collect();
        for (sequence, tag) in &back {
            match self.lines.binary_search_by_key(sequence, |l| l.sequence) {
                Ok(at) if self.lines[at].tag == *tag => {}
                Ok(_) => return Err(format!("number {sequence} comes back with another frame")),
                // It was written before its number was told.
                Err(_) if self.intended.contains(tag) => {}
                Err(_) => return Err(format!("number {sequence} was never given")),
            }
        }
        let mut outcome = Outcome::default();
        let mut missing = Vec::new();
        for line in self.lines.iter().filter(|l| l.promised && !l.committed) {
            outcome.owed += 1;
            if !back.contains_key(&line.sequence) {
                missing.push((line.tag, line.sequence));
            }
        }
        outcome.repeated = self.lines.iter().filter(|l| l.committed && back.contains_key(&l.sequence)).count() as u64;
        // What is missing beyond what was given up by count is lost, and so is what was given up
        // although an older frame of its meter and lane was there.
        let place = |tag: u64| (lane_of(tag), meter_of(tag));
        let mut oldest = BTreeMap::new();
        for (sequence, tag) in &back {
            oldest.entry(place(*tag)).or_insert(*sequence);
        }
        for (tag, sequence) in &missing {
            let in_order = oldest.get(&place(*tag)).is_none_or(|oldest| sequence < oldest);
            if in_order && outcome.evicted < counts.evicted {
                outcome.evicted += 1;
            } else {
                outcome.lost += 1;
            }
        }
        // What is here now stays; what was not promised and is not here never was.
        self.lines.retain(|l| l.promised || l.committed || back.contains_key(&l.sequence));
        for (sequence, tag) in &back {
            if let Err(at) = self.lines.binary_search_by_key(sequence, |l| l.sequence) {
                self.lines.insert(at, Line { sequence: *sequence, tag: *tag, promised: false, committed: false });
            }
        }
        self.intended.clear();
        self.highest = self.highest.max(back.keys().last().copied().unwrap_or(0));
        if counts.durable < back.keys().last().copied().unwrap_or(0) {
            return Err(format!("what came back is not called durable: {counts:?}"));
        }
        self.check(counts)?;
        Ok(outcome)
    }

    /// The highest number ever given.
    pub(crate) fn highest(&self) -> Sequence {
        self.highest
    }
}
