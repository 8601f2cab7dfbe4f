//! Which requests read which values.

use super::map::Point;
use crate::wire::modbus::{Request, Table};

/// One request and the values it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) table: Table,
    pub(super) address: u16,
    pub(super) quantity: u16,
    /// Indices of the points, which lie wholly inside.
    pub(super) points: Vec<usize>,
    /// The meter refused the block as a whole; its points are read one by one.
    pub(super) split: bool,
}

impl Block {
    fn of(index: usize, point: &Point) -> Self {
        let (table, address, quantity) = (point.register.table, point.register.address, point.coding.registers());
        Self { table, address, quantity, points: vec![index], split: false }
    }

    pub(super) const fn request(&self) -> Request {
        Request::Read { table: self.table, address: self.address, quantity: self.quantity }
    }

    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.quantity)
    }

    /// Takes `next` in when it touches or overlaps this block and the whole still fits a request.
    fn absorb(&mut self, next: &Self) -> bool {
        let quantity = self.end().max(next.end()).saturating_sub(self.address.into());
        let touches = self.table == next.table && u32::from(next.address) <= self.end();
        match u16::try_from(quantity) {
            Ok(quantity) if touches && quantity <= self.table.most() => {
                self.quantity = quantity;
                self.points.extend(&next.points);
                true
            }
            _ => false,
        }
    }
}

/// Coalesces registers of one table that are adjacent or overlap. Gaps are never read: a meter
/// may refuse a whole request for one register it does not have.
pub(super) fn blocks(points: &[Point]) -> Vec<Block> {
    let mut singles: Vec<Block> = points.iter().enumerate().map(|(i, p)| Block::of(i, p)).collect();
    singles.sort_by_key(|b| (b.table, b.address));
    let mut blocks: Vec<Block> = Vec::new();
    for single in singles {
        if !blocks.last_mut().is_some_and(|last| last.absorb(&single)) {
            blocks.push(single);
        }
    }
    blocks
}

/// One block for each point of `block`.
pub(super) fn singles(block: &Block, points: &[Point]) -> Vec<Block> {
    block.points.iter().filter_map(|i| points.get(*i).map(|p| Block::of(*i, p))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Decimal;

    fn point(register: &str, coding: &str) -> Point {
        Point {
            name: register.to_owned(),
            unit: String::new(),
            register: register.parse().unwrap(),
            coding: coding.parse().unwrap(),
            scale: Decimal::from(1u64),
            offset: Decimal::from(0u64),
        }
    }

    fn requests(points: &[Point]) -> Vec<(Table, u16, u16)> {
        blocks(points).iter().map(|b| (b.table, b.address, b.quantity)).collect()
    }

    #[test]
    fn adjacent_and_overlapping_registers_share_a_request_and_gaps_do_not() {
        let points =
            [point("input:2", "f32"), point("input:0", "f32"), point("input:1", "u16"), point("input:5", "u16")];
        assert_eq!(requests(&points), [(Table::Input, 0, 4), (Table::Input, 5, 1)]);
        let tables = [point("input:0", "u16"), point("holding:1", "u16"), point("coil:2", "bool")];
        assert_eq!(requests(&tables).len(), 3);
    }

    #[test]
    fn a_request_never_asks_for_more_than_the_standard_allows() {
        let points: Vec<Point> = (0..100).map(|i| point(&format!("input:{}", i * 2), "f32")).collect();
        assert_eq!(requests(&points), [(Table::Input, 0, 124), (Table::Input, 124, 76)]);
    }

    proptest! {
        #[test]
        fn every_point_is_read_whole_and_once(addresses in prop::collection::vec(0u16..400, 1..60)) {
            let codings = ["u16", "f32", "i64", "string:9"];
            let points: Vec<Point> = addresses.iter().zip(codings.iter().cycle())
                .map(|(a, c)| point(&format!("holding:{a}"), c)).collect();
            let blocks = blocks(&points);
            let mut seen: Vec<usize> = blocks.iter().flat_map(|b| b.points.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..points.len()).collect::<Vec<_>>());
            for block in &blocks {
                prop_assert!(block.quantity <= 125);
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
