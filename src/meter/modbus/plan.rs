//! Which requests read which values.

use super::point::Point;
use crate::wire::modbus::{Request, Table};

/// How much a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Registers in one request; bits have the standard's own limit.
    pub(super) registers: u16,
    /// Registers or bits that nobody wants between two that are wanted.
    pub(super) gap: u16,
}

impl Limits {
    /// What the standard allows, and nothing that was not asked for.
    pub(super) const STANDARD: Self = Self { registers: 125, gap: 0 };
}

/// One request and the values it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) table: Table,
    pub(super) address: u16,
    pub(super) quantity: u16,
    /// Indices of the points, which lie wholly inside, in the order of their addresses.
    pub(super) points: Vec<usize>,
}

impl Block {
    fn of(index: usize, point: &Point) -> Self {
        let (table, address, quantity) = (point.register.table, point.register.address, point.coding.registers());
        Self { table, address, quantity, points: vec![index] }
    }

    pub(super) const fn request(&self) -> Request {
        Request::Read { table: self.table, address: self.address, quantity: self.quantity }
    }

    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.quantity)
    }

    /// Takes `next` in when it is near enough and the whole still fits a request.
    fn absorb(&mut self, next: &Self, limits: Limits) -> bool {
        let quantity = self.end().max(next.end()).saturating_sub(self.address.into());
        let near = self.table == next.table && u32::from(next.address) <= self.end() + u32::from(limits.gap);
        let most = if self.table.is_bits() { self.table.most() } else { self.table.most().min(limits.registers) };
        match u16::try_from(quantity) {
            Ok(quantity) if near && quantity <= most => {
                self.quantity = quantity;
                self.points.extend(&next.points);
                true
            }
            _ => false,
        }
    }
}

/// Coalesces the points into as few requests as `limits` allow.
pub(super) fn blocks(points: &[Point], limits: Limits) -> Vec<Block> {
    join(points.iter().enumerate().map(|(i, p)| Block::of(i, p)).collect(), limits)
}

fn join(mut singles: Vec<Block>, limits: Limits) -> Vec<Block> {
    singles.sort_by_key(|b| (b.table, b.address));
    let mut blocks: Vec<Block> = Vec::new();
    for single in singles {
        if !blocks.last_mut().is_some_and(|last| last.absorb(&single, limits)) {
            blocks.push(single);
        }
    }
    blocks
}

/// What is asked instead of a block that the meter refused: first without the gaps, then by halves.
/// `None` when it holds a single value: the refusal is meant.
pub(super) fn split(block: &Block, points: &[Point]) -> Option<Vec<Block>> {
    if block.points.len() < 2 {
        return None;
    }
    let of = |indices: &[usize], limits| {
        join(indices.iter().filter_map(|i| points.get(*i).map(|p| Block::of(*i, p))).collect(), limits)
    };
    let without_gaps = of(&block.points, Limits::STANDARD);
    if without_gaps.len() > 1 {
        return Some(without_gaps);
    }
    let (front, back) = block.points.split_at(block.points.len() / 2);
    Some([of(front, Limits::STANDARD), of(back, Limits::STANDARD)].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(register: &str, coding: &str) -> Point {
        Point::bare(register, register.parse().unwrap(), coding.parse().unwrap())
    }

    fn requests(points: &[Point], limits: Limits) -> Vec<(Table, u16, u16)> {
        blocks(points, limits).iter().map(|b| (b.table, b.address, b.quantity)).collect()
    }

    #[test]
    fn adjacent_and_overlapping_registers_share_a_request_and_gaps_do_not() {
        let points =
            [point("input:2", "f32"), point("input:0", "f32"), point("input:1", "u16"), point("input:5", "u16")];
        assert_eq!(requests(&points, Limits::STANDARD), [(Table::Input, 0, 4), (Table::Input, 5, 1)]);
        let tables = [point("input:0", "u16"), point("holding:1", "u16"), point("coil:2", "bool")];
        assert_eq!(requests(&tables, Limits::STANDARD).len(), 3);
    }

    #[test]
    fn a_gap_is_read_along_up_to_the_limit_and_left_away_when_the_meter_refuses() {
        let points = [point("input:0", "u16"), point("input:3", "u16"), point("input:7", "u16")];
        let limits = Limits { gap: 2, ..Limits::STANDARD };
        assert_eq!(requests(&points, limits), [(Table::Input, 0, 4), (Table::Input, 7, 1)]);
        let first = blocks(&points, limits).swap_remove(0);
        let instead = split(&first, &points).unwrap();
        assert_eq!(instead.iter().map(|b| (b.address, b.quantity)).collect::<Vec<_>>(), [(0, 1), (3, 1)]);
        assert_eq!(split(&instead[0], &points), None);
    }

    #[test]
    fn a_request_never_asks_for_more_than_the_standard_or_the_meter_allows() {
        let points: Vec<Point> = (0..100).map(|i| point(&format!("input:{}", i * 2), "f32")).collect();
        assert_eq!(requests(&points, Limits::STANDARD), [(Table::Input, 0, 124), (Table::Input, 124, 76)]);
        let small = blocks(&points, Limits { registers: 11, gap: 9 });
        assert!(small.iter().all(|b| b.quantity == 10) && small.len() == 20);
    }

    proptest! {
        #[test]
        fn every_point_is_read_whole_and_once(
            addresses in prop::collection::vec(0u16..400, 1..60),
            gap in 0u16..30,
            registers in 5u16..126,
            splits in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let codings = ["u16", "f32", "i64", "string:9"];
            let points: Vec<Point> = addresses.iter().zip(codings.iter().cycle())
                .map(|(a, c)| point(&format!("holding:{a}"), c)).collect();
            let mut blocks = blocks(&points, Limits { registers, gap });
            for index in splits {
                let at = index.index(blocks.len());
                if let Some(instead) = split(&blocks[at], &points) {
                    prop_assert!(instead.len() > 1);
                    blocks.splice(at..=at, instead);
                }
            }
            let mut seen: Vec<usize> = blocks.iter().flat_map(|b| b.points.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..points.len()).collect::<Vec<_>>());
            for block in &blocks {
                prop_assert!(block.quantity <= registers);
                for index in &block.points {
                    let p = &points[*index];
                    let inside = p.register.address >= block.address
                        && u32::from(p.register.address) + u32::from(p.coding.registers()) <= block.end();
                    prop_assert!(inside);
                }
            }
        }
    }
}
