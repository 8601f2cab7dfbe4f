//! Lists of meters whose pushes name values without units, or do not name them at all: table by list id.
//!
//! From the HAN descriptions that the makers published for Norway, Sweden and Denmark (NVE: Kaifa "KFM_001",
//! Kamstrup "Kamstrup_V0001"). Lists that say everything themselves (Aidon, Landis+Gyr, Austria, Switzerland,
//! the Netherlands) need no row.

use super::LogicalName;

/// A family of lists.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// How its list ids begin.
    id: &'static str,
    /// Values of a list of so many, in their order; empty when they come with names.
    orders: &'static [&'static [LogicalName]],
    /// Power of ten and unit of values that come without; the first row that fits counts.
    scales: &'static [Scale],
}

/// The power of ten of some values.
#[derive(Debug, PartialEq, Eq)]
struct Scale {
    /// The value groups C of its names.
    quantities: &'static [u8],
    /// Their value group D.
    kind: u8,
    exponent: i8,
    /// The unit's code (IEC 62056-6-2, table 4).
    unit: u8,
    /// Only of meters whose type begins so.
    of: Option<&'static str>,
}

/// The list's own id.
pub const LIST_ID: LogicalName = LogicalName::new(1, 1, 0, 2, 129, 255);
/// The meter's clock.
pub const CLOCK: LogicalName = LogicalName::new(0, 0, 1, 0, 0, 255);
const METER_ID: LogicalName = LogicalName::new(0, 0, 96, 1, 0, 255);
const METER_TYPE: LogicalName = LogicalName::new(0, 0, 96, 1, 7, 255);

const fn now(quantity: u8) -> LogicalName {
    LogicalName::new(1, 0, quantity, 7, 0, 255)
}

const fn total(quantity: u8) -> LogicalName {
    LogicalName::new(1, 0, quantity, 8, 0, 255)
}

const ACTIVE: &[u8] = &[1, 2, 21, 22, 41, 42, 61, 62];
const REACTIVE: &[u8] = &[3, 4, 23, 24, 43, 44, 63, 64];
const VOLTAGE: &[u8] = &[32, 52, 72];
const CURRENT: &[u8] = &[31, 51, 71];

const fn scale(quantities: &'static [u8], kind: u8, exponent: i8, unit: u8) -> Scale {
    Scale { quantities, kind, exponent, unit, of: None }
}

const LISTS: &[List] = &[
    List {
        id: "KFM_",
        orders: &[
            &[now(1)],
            &[LIST_ID, METER_ID, METER_TYPE, now(1), now(2), now(3), now(4), now(31), now(32)],
            &[
                LIST_ID,
                METER_ID,
                METER_TYPE,
                now(1),
                now(2),
                now(3),
                now(4),
                now(31),
                now(51),
                now(71),
                now(32),
                now(52),
                now(72),
            ],
            &[
                LIST_ID,
                METER_ID,
                METER_TYPE,
                now(1),
                now(2),
                now(3),
                now(4),
                now(31),
                now(32),
                CLOCK,
                total(1),
                total(2),
                total(3),
                total(4),
            ],
            &[
                LIST_ID,
                METER_ID,
                METER_TYPE,
                now(1),
                now(2),
                now(3),
                now(4),
                now(31),
                now(51),
                now(71),
                now(32),
                now(52),
                now(72),
                CLOCK,
                total(1),
                total(2),
                total(3),
                total(4),
            ],
        ],
        scales: &[
            scale(ACTIVE, 7, 0, 27),
            scale(REACTIVE, 7, 0, 29),
            scale(CURRENT, 7, -3, 33),
            scale(VOLTAGE, 7, -1, 35),
            scale(ACTIVE, 8, 0, 30),
            scale(REACTIVE, 8, 0, 32),
        ],
    },
    List {
        id: "Kamstrup_V",
        orders: &[],
        scales: &[
            scale(ACTIVE, 7, 0, 27),
            scale(REACTIVE, 7, 0, 29),
            // Meters behind current transformers show three places.
            Scale { quantities: CURRENT, kind: 7, exponent: -3, unit: 33, of: Some("685") },
            scale(CURRENT, 7, -2, 33),
            scale(VOLTAGE, 7, 0, 35),
            scale(ACTIVE, 8, 1, 30),
            scale(REACTIVE, 8, 1, 32),
        ],
    },
];

impl List {
    /// The list whose id a text is.
    pub fn find(text: &[u8]) -> Option<&'static Self> {
        LISTS.iter().find(|list| text.starts_with(list.id.as_bytes()))
    }

    /// The names of `count` values that come without.
    pub(super) fn order(&self, count: usize) -> Option<&'static [LogicalName]> {
        self.orders.iter().find(|order| order.len() == count).copied()
    }

    /// Power of ten and unit's code of a value of a meter of this type.
    pub(super) fn scale(&self, name: LogicalName, meter: &[u8]) -> Option<(i8, u8)> {
        let fits = |row: &&Scale| {
            row.kind == name.d()
                && row.quantities.contains(&name.c())
                && row.of.is_none_or(|of| meter.starts_with(of.as_bytes()))
        };
        let electricity = name.a() == 1;
        self.scales.iter().find(fits).filter(|_| electricity).map(|row| (row.exponent, row.unit))
    }
}
