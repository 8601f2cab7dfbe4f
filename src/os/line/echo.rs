//! Recognises what comes back of what was sent: many RS485 adapters and optical heads echo.
//!
//! A Modbus write has an answer that equals its request, so a copy alone proves nothing. Whether a
//! line echoes is learnt only from exchanges in which something else follows the copy; until then
//! a copy is held back, and it is an echo when more follows, and an answer when nothing does.

/// What is known about a line's echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Echo {
    /// It is found out on the open line.
    #[default]
    Auto,
    /// All that is sent comes back.
    Yes,
    /// Nothing comes back.
    No,
}

/// What the exchanges so far taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    Unknown,
    Absent,
    Present,
}

/// Where in an exchange it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing that was sent is awaited.
    Idle,
    /// So many bytes of a copy came.
    Copy(usize),
    /// A whole copy came, then so many bytes that could be a second one.
    After(usize),
}

/// The first bytes after a request are not the echo they must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Collision;

/// The most that is remembered of what was sent.
const LONGEST: usize = 4096;
/// So many exchanges in a row teach that a line echoes.
const ENOUGH: u8 = 2;

/// Sorts what comes into echo and answer.
#[derive(Debug)]
pub(super) struct Filter {
    mode: Echo,
    belief: Belief,
    taught: u8,
    sent: Vec<u8>,
    place: Place,
    /// The copy so far is kept back, not given out.
    holds: bool,
    /// Echoes removed.
    pub(super) echoes: u32,
    /// Echoes that were damaged.
    pub(super) collisions: u32,
}

impl Filter {
    pub(super) const fn new(mode: Echo) -> Self {
        let belief = match mode {
            Echo::Auto => Belief::Unknown,
            Echo::Yes => Belief::Present,
            Echo::No => Belief::Absent,
        };
        Self { mode, belief, taught: 0, sent: Vec::new(), place: Place::Idle, holds: false, echoes: 0, collisions: 0 }
    }

    pub(super) const fn mode(&self) -> Echo {
        self.mode
    }

    /// Whether the line echoes, when that is known.
    pub(super) const fn known(&self) -> Option<bool> {
        match self.belief {
            Belief::Unknown => None,
            Belief::Absent => Some(false),
            Belief::Present => Some(true),
        }
    }

    /// Notes what is being sent.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if self.mode == Echo::No || bytes.is_empty() {
            return;
        }
        match self.place {
            // The echo of what was sent just before is still on its way.
            Place::Copy(came) if came < self.sent.len() && self.sent.len() + bytes.len() <= LONGEST => {
                self.sent.drain(..came);
            }
            _ => self.sent.clear(),
        }
        self.sent.extend(bytes.iter().take(LONGEST));
        self.place = Place::Copy(0);
        self.holds = self.belief != Belief::Absent;
    }

    /// The line was emptied: nothing of what was sent comes any more.
    pub(super) fn forget(&mut self) {
        self.place = Place::Idle;
        self.holds = false;
    }

    /// Takes what came and appends to `out` what is no echo.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Collision> {
        for byte in bytes {
            match self.place {
                Place::Idle => out.push(*byte),
                Place::Copy(came) if self.sent.get(came) == Some(byte) => self.matched(came + 1, *byte, out),
                Place::Copy(came) if came == self.sent.len() => {
                    if self.holds {
                        self.echoes += 1;
                        self.holds = false;
                    }
                    self.after(0, *byte, out);
                }
                Place::Copy(came) => self.differs(came, *byte, out)?,
                Place::After(came) => self.after(came, *byte, out),
            }
        }
        Ok(())
    }

    /// Nothing more comes in time: what is held back was an answer after all.
    pub(super) fn silence(&mut self, out: &mut Vec<u8>) {
        if let Place::Copy(came) = self.place
            && self.holds
            && self.belief == Belief::Unknown
        {
            out.extend(self.sent.iter().take(came));
            self.holds = false;
        }
    }

    fn matched(&mut self, came: usize, byte: u8, out: &mut Vec<u8>) {
        self.place = Place::Copy(came);
        if !self.holds {
            out.push(byte);
        } else if came == self.sent.len() && self.belief == Belief::Present {
            self.echoes += 1;
            self.forget();
        }
    }

    /// A byte that is no copy, in place of the copy's next one.
    fn differs(&mut self, came: usize, byte: u8, out: &mut Vec<u8>) -> Result<(), Collision> {
        let held = if self.holds { came } else { 0 };
        let belief = self.belief;
        self.forget();
        self.taught = 0;
        if belief == Belief::Present {
            self.collisions += 1;
            if self.mode == Echo::Yes {
                return Err(Collision);
            }
        }
        // What was learnt may be wrong, what was configured may not: the asker judges the bytes.
        self.belief = if belief == Belief::Present { Belief::Unknown } else { Belief::Absent };
        out.extend(self.sent.iter().take(held));
        out.push(byte);
        Ok(())
    }

    /// A byte behind a whole copy: the first that differs from the copy teaches.
    fn after(&mut self, came: usize, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        if self.sent.get(came) != Some(&byte) {
            self.taught = (self.taught + 1).min(ENOUGH);
            if self.taught == ENOUGH {
                self.belief = Belief::Present;
            }
            self.place = Place::Idle;
        } else if came + 1 == self.sent.len() {
            self.place = Place::Idle;
        } else {
            self.place = Place::After(came + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READ: &[u8] = &[1, 3, 0, 0, 0, 2, 0xC4, 0x0B];
    const ANSWER: &[u8] = &[1, 3, 4, 9, 9, 8, 8, 0x55, 0x66];
    const WRITE: &[u8] = &[1, 6, 0, 0, 0, 7, 0xC9, 0xC8];

    /// What an asker gets that reads until nothing more comes.
    fn exchange(filter: &mut Filter, sent: &[u8], came: &[u8]) -> Result<Vec<u8>, Collision> {
        let mut out = Vec::new();
        filter.sent(sent);
        filter.push(came, &mut out)?;
        filter.silence(&mut out);
        filter.forget();
        Ok(out)
    }

    fn echoed(sent: &[u8], answer: &[u8]) -> Vec<u8> {
        [sent, answer].concat()
    }

    #[test]
    fn a_write_that_is_answered_by_its_copy_never_teaches_that_the_line_echoes() {
        let mut filter = Filter::new(Echo::Auto);
        for _ in 0..5 {
            assert_eq!(exchange(&mut filter, WRITE, WRITE).unwrap(), WRITE, "the copy is the answer");
            assert_eq!(filter.known(), None);
        }
        assert_eq!(exchange(&mut filter, READ, ANSWER).unwrap(), ANSWER);
        assert_eq!(filter.known(), Some(false), "something else came first");
        assert_eq!(exchange(&mut filter, WRITE, WRITE).unwrap(), WRITE);
        assert_eq!((filter.echoes, filter.collisions), (0, 0));
    }

    #[test]
    fn two_exchanges_in_which_echo_and_answer_differ_teach_that_it_does() {
        let mut filter = Filter::new(Echo::Auto);
        for _ in 0..2 {
            assert_eq!(filter.known(), None);
            assert_eq!(exchange(&mut filter, WRITE, &echoed(WRITE, WRITE)).unwrap(), WRITE);
            assert_eq!(exchange(&mut filter, READ, &echoed(READ, ANSWER)).unwrap(), ANSWER);
        }
        assert_eq!(filter.known(), Some(true));
        assert_eq!(exchange(&mut filter, READ, READ).unwrap(), [0; 0], "an echo is no answer");
        assert_eq!(exchange(&mut filter, WRITE, WRITE).unwrap(), [0; 0], "nor to a write");
        assert_eq!(exchange(&mut filter, WRITE, &echoed(WRITE, WRITE)).unwrap(), WRITE);
        assert_eq!(filter.echoes, 7);
        let mut damaged = echoed(READ, ANSWER);
        damaged[5] ^= 1;
        assert_eq!(exchange(&mut filter, READ, &damaged).unwrap(), damaged, "the asker judges");
        assert_eq!((filter.known(), filter.collisions), (None, 1), "what was learnt is doubted");
    }

    #[test]
    fn noise_before_one_echo_does_not_make_the_line_silent_for_ever() {
        let mut filter = Filter::new(Echo::Auto);
        let noisy = [&[0xFF], READ, ANSWER].concat();
        assert_eq!(exchange(&mut filter, READ, &noisy).unwrap(), noisy);
        assert_eq!(filter.known(), Some(false));
        for _ in 0..2 {
            assert_eq!(exchange(&mut filter, READ, &echoed(READ, ANSWER)).unwrap(), echoed(READ, ANSWER));
        }
        assert_eq!(filter.known(), Some(true));
        assert_eq!(exchange(&mut filter, READ, &echoed(READ, ANSWER)).unwrap(), ANSWER);
    }

    #[test]
    fn a_line_that_is_said_to_echo_must_echo_and_one_that_does_not_gives_everything() {
        let mut yes = Filter::new(Echo::Yes);
        assert_eq!(exchange(&mut yes, WRITE, &echoed(WRITE, WRITE)).unwrap(), WRITE);
        exchange(&mut yes, READ, ANSWER).unwrap_err();
        assert_eq!((yes.known(), yes.echoes, yes.collisions), (Some(true), 1, 1));
        let mut no = Filter::new(Echo::No);
        assert_eq!(exchange(&mut no, WRITE, &echoed(WRITE, WRITE)).unwrap(), echoed(WRITE, WRITE));
        assert_eq!(no.known(), Some(false));
    }

    #[test]
    fn messages_sent_one_after_the_other_come_back_one_after_the_other() {
        let mut filter = Filter::new(Echo::Yes);
        let mut out = Vec::new();
        filter.sent(b"wake");
        filter.push(b"wa", &mut out).unwrap();
        filter.sent(b"ask");
        filter.push(b"keaskanswer", &mut out).unwrap();
        assert_eq!(out, b"answer");
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_answer_is_the_same(
            sent in prop::collection::vec(0u8..3, 1..12),
            answer in prop::collection::vec(0u8..3, 0..12),
            echoes in any::<bool>(),
            cuts in prop::collection::vec(1usize..5, 24),
        ) {
            let came = if echoes { echoed(&sent, &answer) } else { answer.clone() };
            for mode in [Echo::Auto, Echo::No, if echoes { Echo::Yes } else { Echo::No }] {
                let (mut whole, mut cut) = (Filter::new(mode), Filter::new(mode));
                for _ in 0..4 {
                    let expected = exchange(&mut whole, &sent, &came);
                    let mut out = Vec::new();
                    cut.sent(&sent);
                    let mut rest = &came[..];
                    for size in cuts.iter().cycle() {
                        if rest.is_empty() {
                            break;
                        }
                        let (piece, more) = rest.split_at((*size).min(rest.len()));
                        cut.push(piece, &mut out).unwrap();
                        rest = more;
                    }
                    cut.silence(&mut out);
                    cut.forget();
                    prop_assert_eq!(expected.as_ref().unwrap(), &out);
                    if echoes && mode == Echo::Yes {
                        prop_assert_eq!(&out, &answer);
                    }
                    if !echoes && mode == Echo::Auto && !answer.starts_with(&sent) {
                        prop_assert_eq!(&out, &answer);
                    }
                    prop_assert_eq!(whole.known(), cut.known());
                }
            }
        }
    }
}
