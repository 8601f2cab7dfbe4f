//! The two encoders: G = [1, (1 + D + D^3) / (1 + D^2 + D^3)], both run back to zero.

/// The state of one encoder: three bits, the newest first.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    state: u8,
}

/// What an encoder sends to come back to zero, three bits each, the first one highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) systematic: u8,
    pub(super) parity: u8,
}

impl Encoder {
    /// Takes a bit and gives its parity.
    pub(super) const fn step(&mut self, bit: u8) -> u8 {
        self.feed(bit ^ self.feedback())
    }

    /// Runs back to zero.
    pub(super) fn end(&mut self) -> Tail {
        let mut tail = Tail { systematic: 0, parity: 0 };
        for _ in 0..3 {
            tail.systematic = tail.systematic << 1 | self.feedback();
            tail.parity = tail.parity << 1 | self.feed(0);
        }
        tail
    }

    /// D^2 + D^3.
    const fn feedback(&self) -> u8 {
        (self.state >> 1 ^ self.state) & 1
    }

    const fn feed(&mut self, new: u8) -> u8 {
        let parity = (new ^ self.state >> 2 ^ self.state) & 1;
        self.state = new << 2 | self.state >> 1;
        parity
    }
}

/// The parity bits of a block in an order, and the tail.
pub(super) fn encode(bits: impl Iterator<Item = u8>) -> (Vec<u8>, Tail) {
    let mut encoder = Encoder::default();
    let parity = bits.map(|bit| encoder.step(bit)).collect();
    (parity, encoder.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_single_bit_is_that_of_the_polynomials() {
        // 1 + D + D^3 divided by 1 + D^2 + D^3, as a power series over GF(2).
        let mut series = Vec::<u8>::new();
        for n in 0..20usize {
            let above = u8::from(matches!(n, 0 | 1 | 3));
            let back = |by: usize| n.checked_sub(by).map_or(0, |at| series[at]);
            series.push(above ^ back(2) ^ back(3));
        }
        let (parity, _) = encode((0..20).map(|n| u8::from(n == 0)));
        assert_eq!(parity, series);
    }

    #[test]
    fn the_tail_brings_every_state_back_to_zero() {
        for state in 0..8 {
            let mut encoder = Encoder { state };
            let tail = encoder.end();
            assert_eq!(encoder.state, 0);
            // The same bits as ordinary input do the same.
            let mut again = Encoder { state };
            let parity = (0..3).rev().fold(0, |sum, n| sum << 1 | again.step(tail.systematic >> n & 1));
            assert_eq!((again.state, parity), (0, tail.parity));
        }
    }
}
