//! The clock book: what the clock said in each boot while it was trusted.
//!
//! A small text file, replaced whole. Each line carries its own CRC-32, so that of a damaged book
//! what is sound still counts; anything else in it is left out.
//! ```text
//! weir clock book 1
//! good <boot> <wall ms> #<crc>
//! boot <boot> <from ms>-<to ms>:<offset ms> ... #<crc>
//! ```

use std::fmt::Write;

use crc::{CRC_32_ISO_HDLC, Crc};

use crate::model::{BootId, Timestamp};

const HEAD: &str = "weir clock book 1";
/// Boots that are remembered; the oldest is forgotten first.
const BOOTS: usize = 64;
/// Times a clock was set in one boot that are remembered; the oldest is forgotten first.
const SPANS: usize = 8;
/// An offset that moved by less is the same: reading two clocks takes its time, and NTP slews.
pub(super) const TOLERANCE: u64 = 2000;
/// A book is never longer; 64 boots of 8 spans take half of it.
pub(super) const LARGEST: u64 = 64 * 1024;

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A time of one boot in which the clock was trusted and nobody set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// The uptime at which it was first and last seen, in milliseconds.
    from: u64,
    to: u64,
    /// Wall time at uptime 0.
    offset: i64,
}

impl Span {
    /// How far an uptime lies outside.
    fn distance(&self, uptime: u64) -> u64 {
        self.from.saturating_sub(uptime).max(uptime.saturating_sub(self.to))
    }
}

/// What the book says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    /// The newest last.
    boots: Vec<(BootId, Vec<Span>)>,
    /// The last time the clock was trusted, and in which boot.
    good: Option<(BootId, Timestamp)>,
}

impl Book {
    /// Notes what a trusted clock shows; true when the book has learnt an offset by it.
    pub(super) fn note(&mut self, boot: BootId, wall: Timestamp, uptime: u64) -> bool {
        if boot == BootId::UNKNOWN {
            return false;
        }
        self.good = Some((boot, wall));
        let offset = offset(wall, uptime);
        if !self.boots.iter().any(|(id, _)| *id == boot) {
            if self.boots.len() >= BOOTS {
                self.boots.remove(0);
            }
            self.boots.push((boot, Vec::new()));
        }
        let Some((_, spans)) = self.boots.iter_mut().find(|(id, _)| *id == boot) else { return false };
        if let Some(last) = spans.last_mut().filter(|s| s.offset.abs_diff(offset) <= TOLERANCE && s.from <= uptime) {
            last.to = uptime;
            return false;
        }
        if spans.len() >= SPANS {
            spans.remove(0);
        }
        spans.push(Span { from: uptime, to: uptime, offset });
        true
    }

    /// When it was at that uptime of a boot, by the nearest time the clock was trusted in it.
    pub(super) fn time(&self, boot: BootId, uptime: u64) -> Option<Timestamp> {
        let (_, spans) = self.boots.iter().find(|(id, _)| *id == boot)?;
        let nearest = spans.iter().min_by_key(|s| s.distance(uptime))?;
        let uptime = i64::try_from(uptime).unwrap_or(i64::MAX);
        Some(Timestamp::from_millis(nearest.offset.saturating_add(uptime)))
    }

    /// The last time the clock was trusted, if that was in another boot than this.
    pub(super) fn good_before(&self, boot: BootId) -> Option<Timestamp> {
        self.good.filter(|(id, _)| *id != boot).map(|(_, wall)| wall)
    }

    /// The last time the clock was trusted.
    pub(super) fn good(&self) -> Option<Timestamp> {
        self.good.map(|(_, wall)| wall)
    }

    /// Writes the book.
    pub(super) fn encode(&self) -> String {
        let mut text = format!("{HEAD}\n");
        if let Some((boot, wall)) = self.good {
            line(&format!("good {boot} {}", wall.as_millis()), &mut text);
        }
        for (boot, spans) in &self.boots {
            let mut content = format!("boot {boot}");
            for Span { from, to, offset } in spans {
                let _ = write!(content, " {from}-{to}:{offset}");
            }
            line(&content, &mut text);
        }
        text
    }

    /// Reads a book; also tells how many of its lines are damaged.
    pub(super) fn decode(bytes: &[u8]) -> (Self, usize) {
        let (mut book, mut damaged) = (Self::default(), 0);
        for line in String::from_utf8_lossy(bytes).lines().filter(|l| *l != HEAD) {
            if sound(line).and_then(|content| book.take(content)).is_none() {
                damaged += 1;
            }
        }
        (book, damaged)
    }

    fn take(&mut self, content: &str) -> Option<()> {
        let mut words = content.split(' ');
        let (kind, boot) = (words.next()?, BootId::parse(words.next()?)?);
        match kind {
            "good" => self.good = Some((boot, Timestamp::from_millis(words.next()?.parse().ok()?))),
            "boot" if self.boots.len() < BOOTS => {
                let spans: Option<Vec<Span>> = words.take(SPANS).map(span).collect();
                self.boots.push((boot, spans?));
            }
            _ => return None,
        }
        Some(())
    }
}

/// Wall time at uptime 0.
pub(super) fn offset(wall: Timestamp, uptime: u64) -> i64 {
    wall.as_millis().saturating_sub(i64::try_from(uptime).unwrap_or(i64::MAX))
}

fn line(content: &str, text: &mut String) {
    let _ = writeln!(text, "{content} #{:08x}", CRC.checksum(content.as_bytes()));
}

/// The content of a line whose checksum is right.
fn sound(line: &str) -> Option<&str> {
    let (content, crc) = line.rsplit_once(" #")?;
    (u32::from_str_radix(crc, 16).ok()? == CRC.checksum(content.as_bytes())).then_some(content)
}

fn span(word: &str) -> Option<Span> {
    let (period, offset) = word.split_once(':')?;
    let (from, to) = period.split_once('-')?;
    Some(Span { from: from.parse().ok()?, to: to.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn boot(n: u64) -> BootId {
        BootId::new(n.to_be_bytes())
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_nearest_trusted_time_of_a_boot_counts_and_another_boots_never() {
        let mut book = Book::default();
        assert!(book.note(boot(1), at(1_000_100), 100));
        assert!(!book.note(boot(1), at(1_051_900), 50_000), "1.9 s of slewing is no news");
        assert!(book.note(boot(1), at(9_060_000), 60_000), "the clock was set");
        assert_eq!(book.time(boot(1), 51_000), Some(at(1_051_000)));
        assert_eq!(book.time(boot(1), 59_000), Some(at(9_059_000)));
        assert_eq!((book.time(boot(2), 51_000), book.good()), (None, Some(at(9_060_000))));
        assert_eq!((book.good_before(boot(1)), book.good_before(boot(2))), (None, Some(at(9_060_000))));
    }

    #[test]
    fn a_book_is_bounded_in_boots_and_in_jumps() {
        let mut book = Book::default();
        for b in 1..=100 {
            for jump in 0..20 {
                let extreme = if jump % 2 == 0 { i64::MAX - jump } else { i64::MIN + jump };
                assert!(book.note(boot(b), at(extreme), u64::MAX - 20 + jump.unsigned_abs()));
            }
        }
        assert_eq!((book.time(boot(36), 1), book.boots.len()), (None, BOOTS));
        assert!(book.time(boot(37), 1).is_some() && book.boots.iter().all(|(_, spans)| spans.len() == SPANS));
        let text = book.encode();
        assert!((text.len() as u64) < LARGEST, "{}", text.len());
        assert_eq!(Book::decode(text.as_bytes()), (book, 0));
    }

    #[test]
    fn of_a_damaged_book_every_sound_line_counts() {
        let mut book = Book::default();
        for b in 1..=3 {
            book.note(boot(b), at(1_000_000), 100);
        }
        let text = book.encode();
        let torn = &text.as_bytes()[..text.len() - 5];
        let (read, damaged) = Book::decode(torn);
        assert_eq!((damaged, read.boots.len(), read.good()), (1, 2, book.good()));
        let flipped = text.replace("boot 0000000000000002 100", "boot 0000000000000002 900");
        let (read, damaged) = Book::decode(flipped.as_bytes());
        assert_eq!((damaged, read.time(boot(2), 0), read.time(boot(3), 0)), (1, None, Some(at(999_900))));
    }

    proptest! {
        #[test]
        fn any_book_reads_back(notes in vec((1u64..6, any::<i64>(), any::<u64>()), 0..60)) {
            let mut book = Book::default();
            for (b, wall, uptime) in notes {
                book.note(boot(b), at(wall), uptime);
            }
            prop_assert_eq!(Book::decode(book.encode().as_bytes()), (book, 0));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..300), content in "(good|boot) [0-9a-f]{16}( [-:0-9]{1,30}){0,12}") {
            let _ = Book::decode(&bytes);
            let mut text = String::new();
            line(&content, &mut text);
            let (book, _) = Book::decode(text.as_bytes());
            let _ = book.time(boot(1), u64::MAX);
        }
    }
}
