//! What a simulated meter measures.

use std::time::Duration;

use crate::wire::iec62056::data::{DataSet, DataValue, Line};

/// The energy registers and what moves them.
#[derive(Debug, Clone)]
pub struct Registers {
    /// Energy drawn in tariff 1 and 2, milliwatt-hours.
    pub energy: [u64; 2],
    /// Power drawn now, watts.
    pub power: u32,
    /// Mains voltage, tenths of a volt.
    pub voltage: u32,
    noise: u32,
}

impl Default for Registers {
    fn default() -> Self {
        Self { energy: [834_100_000, 400_467_000], power: 640, voltage: 2304, noise: 0x2F6E_2B1D }
    }
}

impl Registers {
    /// Lets `elapsed` pass: energy grows by the power drawn, then power and voltage wander.
    pub fn advance(&mut self, elapsed: Duration) {
        let drawn = u128::from(self.power) * elapsed.as_millis() / 3600;
        if let Some(energy) = self.energy.first_mut() {
            *energy = energy.saturating_add(u64::try_from(drawn).unwrap_or(u64::MAX));
        }
        self.power = (self.power + self.random(120)).saturating_sub(60).clamp(180, 4200);
        self.voltage = (self.voltage + self.random(7)).saturating_sub(3).clamp(2250, 2360);
    }

    /// Registers and voltage as the meter's table shows them.
    pub(super) fn lines(&self, address: &str, now: &str) -> Vec<Line> {
        let digits = |range: std::ops::Range<usize>| {
            now.get(range).unwrap_or_default().chars().filter(char::is_ascii_digit).collect::<String>()
        };
        let energy = |milliwatt_hours: u64| {
            let wh = milliwatt_hours / 1000;
            format!("{:06}.{:03}", wh / 1000, wh % 1000)
        };
        let kilowatts = format!("{:02}.{:03}", self.power / 1000, self.power % 1000);
        let mut maximum = DataSet::new("1.6.1", "04.211", "kW");
        maximum.values.push(DataValue { text: "2601121545".into(), unit: String::new() });
        let [first, second] = self.energy;
        let sets = [
            DataSet::new("F.F", "00000000", ""),
            DataSet::new("0.0.0", address, ""),
            DataSet::new("0.9.1", digits(11..19), ""),
            DataSet::new("0.9.2", digits(2..10), ""),
            DataSet::new("1.8.0", energy(first.saturating_add(second)), "kWh"),
            DataSet::new("1.8.1", energy(first), "kWh"),
            DataSet::new("1.8.2", energy(second), "kWh"),
            DataSet::new("2.8.0", "000000.000", "kWh"),
            maximum,
            DataSet::new("1.8.0*01", "001100.000", "kWh"),
            DataSet::new("1.7.0", kilowatts, "kW"),
            DataSet::new("32.7.0", format!("{}.{}", self.voltage / 10, self.voltage % 10), "V"),
        ];
        sets.into_iter().map(|set| vec![set]).collect()
    }

    /// A number below `limit`; always the same row, so that a demo repeats itself.
    fn random(&mut self, limit: u32) -> u32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        self.noise % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_grows_by_the_power_drawn_and_the_total_is_the_sum() {
        let mut registers = Registers { power: 3600, ..Registers::default() };
        registers.advance(Duration::from_secs(10));
        assert_eq!(registers.energy, [834_110_000, 400_467_000]);
        for _ in 0..1000 {
            registers.advance(Duration::from_secs(1));
            assert!((180..=4200).contains(&registers.power) && (2250..=2360).contains(&registers.voltage));
        }
        let lines = registers.lines("00012345", "2026-11-21T22:32:18Z");
        let text = |id: &str| lines.iter().flatten().find(|s| s.id == id).unwrap().values[0].text.clone();
        let number = |id: &str| text(id).replace('.', "").parse::<u64>().unwrap();
        assert!(number("1.8.0").abs_diff(number("1.8.1") + number("1.8.2")) <= 1);
        assert_eq!(
            (text("0.9.1"), text("0.9.2"), text("0.0.0")),
            ("223218".into(), "261121".into(), "00012345".into())
        );
    }
}
