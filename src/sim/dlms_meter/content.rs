//! What a simulated meter holds: its name, a clock, registers, and a load profile of so many channels and days.

use crate::model::Timestamp;
use crate::wire::dlms::{AttributeDescriptor, Data, SelectiveAccess, encode};

/// The third number of the names of a profile's channels, in order; each is a register (class 3) too.
const CHANNELS: [u8; 16] = [1, 2, 3, 4, 21, 41, 61, 22, 42, 62, 5, 6, 7, 8, 9, 10];
const CLOCK: [u8; 6] = [0, 0, 1, 0, 0, 255];
const NAME: [u8; 6] = [0, 0, 42, 0, 0, 255];
const DEVICES: [u8; 6] = [0, 0, 41, 0, 0, 255];
const PROFILE: [u8; 6] = [1, 0, 99, 1, 0, 255];
const ASSOCIATION: [u8; 6] = [0, 0, 40, 0, 0, 255];
const DAY: i64 = 86_400;

/// Data-access-result: an object or attribute that is not there; a selection that can't be.
const UNDEFINED: u8 = 4;
const TYPE_UNMATCHED: u8 = 12;

/// The objects of one logical device.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its logical device name.
    pub name: String,
    /// How many channels its profile has, 1 to 16.
    pub channels: usize,
    /// When the first interval of the profile ended.
    pub first: Timestamp,
    /// The seconds of an interval.
    pub period: u32,
    /// How many intervals the profile holds.
    pub rows: usize,
    /// A time stamp that follows from the one before is sent as null-data.
    pub compressed: bool,
    /// The logical devices that it names, with their names; none: it does not tell.
    pub devices: Vec<(u16, String)>,
    /// What its clock shows.
    pub now: Timestamp,
}

impl Default for Content {
    /// A meter with 35 days of 8 channels every 15 minutes.
    fn default() -> Self {
        let first = Timestamp::from_millis(1_767_226_500_000);
        let rows = 35 * 96;
        let now = Timestamp::from_millis(first.as_millis() + 35 * DAY * 1000);
        Self {
            name: "WEI0000000000001".to_owned(),
            channels: 8,
            first,
            period: 900,
            rows,
            compressed: false,
            devices: Vec::new(),
            now,
        }
    }
}

impl Content {
    /// The value of a channel in an interval: a meter's reading, which grows.
    pub fn reading(&self, channel: usize, row: usize) -> u32 {
        let step = 3 + 2 * u32::try_from(channel).unwrap_or(0);
        u32::try_from(row).unwrap_or(0).wrapping_mul(step).wrapping_add(1_000_000 * (step + 1))
    }

    /// How many bytes of A-XDR its whole profile is.
    pub fn profile_size(&self) -> usize {
        self.buffer(None).map_or(0, |bytes| bytes.len())
    }

    fn channels(&self) -> impl Iterator<Item = [u8; 6]> {
        CHANNELS.iter().take(self.channels).map(|quantity| [1, 0, *quantity, 8, 0, 255])
    }

    /// When an interval ended, in seconds since 1970.
    fn time(&self, row: usize) -> i64 {
        self.first.as_millis() / 1000 + i64::from(self.period) * i64::try_from(row).unwrap_or(0)
    }

    /// An attribute as A-XDR, or the code of a refusal.
    pub(super) fn value(
        &self,
        attribute: AttributeDescriptor,
        selection: Option<&SelectiveAccess<'_>>,
    ) -> Result<Vec<u8>, u8> {
        let name = attribute.instance_id.as_bytes();
        let channel = self.channels().position(|channel| channel == *name);
        Ok(match (attribute.class_id, attribute.attribute_id) {
            (class, 1) if self.objects().any(|(known, at)| known == class && at == *name) => octets(name),
            (17, 2) if *name == DEVICES && !self.devices.is_empty() => self.device_list(),
            (1, 2) if *name == NAME => octets(self.name.as_bytes()),
            (8, 2) if *name == CLOCK => octets(&date_time(self.now.as_millis() / 1000)),
            (8, 3) if *name == CLOCK => vec![0x10, 0, 0],
            (3, 2) => unsigned(self.reading(channel.ok_or(UNDEFINED)?, self.rows.saturating_sub(1))),
            // Tenths of watt-hours.
            (3, 3) if channel.is_some() => vec![0x02, 2, 0x0F, 0xFF, 0x16, 30],
            (7, 2) if *name == PROFILE => self.buffer(selection)?,
            (7, 3) if *name == PROFILE => self.capture_objects(),
            (7, 4) if *name == PROFILE => unsigned(self.period),
            (7, 5) if *name == PROFILE => vec![0x16, 1],
            (7, 6) if *name == PROFILE => capture_object(8, &CLOCK),
            (7, 7 | 8) if *name == PROFILE => unsigned(u32::try_from(self.rows).unwrap_or(0)),
            (15, 2) if *name == ASSOCIATION => self.object_list(),
            _ => return Err(UNDEFINED),
        })
    }

    fn objects(&self) -> impl Iterator<Item = (u16, [u8; 6])> {
        let fixed = [(1, NAME), (8, CLOCK), (7, PROFILE), (15, ASSOCIATION)];
        fixed.into_iter().chain(self.channels().map(|name| (3, name)))
    }

    fn object_list(&self) -> Vec<u8> {
        let count = 4 + self.channels().count();
        let mut list = vec![0x01];
        length(count, &mut list);
        for (class, name) in self.objects() {
            let [high, low] = class.to_be_bytes();
            list.extend([0x02, 4, 0x12, high, low, 0x11, 0]);
            list.extend(octets(&name));
            // Access rights: none are told.
            list.extend([0x02, 2, 0x01, 0, 0x01, 0]);
        }
        list
    }

    fn device_list(&self) -> Vec<u8> {
        let mut list = vec![0x01];
        length(self.devices.len(), &mut list);
        for (sap, name) in &self.devices {
            let [high, low] = sap.to_be_bytes();
            list.extend([0x02, 2, 0x12, high, low]);
            list.extend(octets(name.as_bytes()));
        }
        list
    }

    fn capture_objects(&self) -> Vec<u8> {
        let mut list = vec![0x01];
        length(1 + self.channels().count(), &mut list);
        list.extend(capture_object(8, &CLOCK));
        for name in self.channels() {
            list.extend(capture_object(3, &name));
        }
        list
    }

    fn buffer(&self, selection: Option<&SelectiveAccess<'_>>) -> Result<Vec<u8>, u8> {
        let whole = 0..self.rows;
        let rows = match selection.map(|s| (s.selector, &s.parameters)) {
            None => whole,
            Some((1, Data::Structure(range))) => {
                let mut bounds = range.iter().skip(1).filter_map(|bound| match bound.ok()? {
                    Data::OctetString(bytes) => seconds(bytes),
                    time @ Data::DateTime(_) => seconds(encode(&time).ok()?.get(1..)?),
                    _ => None,
                });
                let (Some(from), Some(to)) = (bounds.next(), bounds.next()) else { return Err(TYPE_UNMATCHED) };
                let begin = whole.clone().find(|row| self.time(*row) >= from).unwrap_or(self.rows);
                let end = whole.rev().find(|row| self.time(*row) <= to).map_or(0, |row| row + 1);
                begin..end.max(begin)
            }
            Some((2, Data::Structure(entries))) => {
                let mut bounds = entries.iter().filter_map(|bound| match bound.ok()? {
                    Data::DoubleLongUnsigned(number) => usize::try_from(number).ok(),
                    _ => None,
                });
                let (Some(from), Some(to)) = (bounds.next(), bounds.next()) else { return Err(TYPE_UNMATCHED) };
                let end = if to == 0 { self.rows } else { to.min(self.rows) };
                from.max(1) - 1..end.max(from.max(1) - 1)
            }
            Some(_) => return Err(TYPE_UNMATCHED),
        };
        let mut bytes = vec![0x01];
        length(rows.len(), &mut bytes);
        let first = rows.start;
        let columns = u8::try_from(1 + self.channels().count()).unwrap_or(1);
        for row in rows {
            bytes.extend([0x02, columns]);
            if self.compressed && row > first {
                bytes.push(0);
            } else {
                bytes.extend(octets(&date_time(self.time(row))));
            }
            for channel in 0..self.channels().count() {
                bytes.extend(unsigned(self.reading(channel, row)));
            }
        }
        Ok(bytes)
    }
}

fn capture_object(class: u16, name: &[u8; 6]) -> Vec<u8> {
    let [high, low] = class.to_be_bytes();
    [vec![0x02, 4, 0x12, high, low], octets(name), vec![0x0F, 2, 0x12, 0, 0]].concat()
}

fn octets(bytes: &[u8]) -> Vec<u8> {
    let mut data = vec![0x09];
    length(bytes.len(), &mut data);
    data.extend_from_slice(bytes);
    data
}

fn unsigned(number: u32) -> Vec<u8> {
    [vec![0x06], number.to_be_bytes().to_vec()].concat()
}

/// Writes a length (A-XDR, clause 6.10).
#[expect(clippy::cast_possible_truncation, reason = "a byte of a number at a time")]
pub(super) fn length(length: usize, bytes: &mut Vec<u8>) {
    match length {
        0..=0x7F => bytes.push(length as u8),
        0x80..=0xFF => bytes.extend([0x81, length as u8]),
        _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
}

/// A date-time in UTC (IEC 62056-6-2, clause 4.1.6.1), from seconds since 1970.
fn date_time(seconds: i64) -> Vec<u8> {
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let [high, low] = u16::try_from(time.year()).unwrap_or(0).to_be_bytes();
    let day = [high, low, time.month().into(), time.day(), time.weekday().number_from_monday()];
    [&day[..], &[time.hour(), time.minute(), time.second(), 0, 0, 0, 0]].concat()
}

/// Seconds since 1970 of a date-time; one without deviation is UTC.
fn seconds(bytes: &[u8]) -> Option<i64> {
    let &[high, low, month, day, _, hour, minute, second, _, east, west, ..] = bytes else { return None };
    let known = |field: u8| if field == 0xFF { 0 } else { field };
    let month = time::Month::try_from(month).ok()?;
    let date = time::Date::from_calendar_date(i32::from(u16::from_be_bytes([high, low])), month, day).ok()?;
    let time = time::Time::from_hms(known(hour), known(minute), known(second)).ok()?;
    let deviation = match i16::from_be_bytes([east, west]) {
        i16::MIN => 0,
        minutes => i64::from(minutes),
    };
    Some(time::PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp() + 60 * deviation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dlms::decode;

    #[test]
    fn a_time_is_read_back_as_it_is_written() {
        for at in [0, 1_767_225_600, 1_798_761_599] {
            assert_eq!(seconds(&date_time(at)), Some(at));
        }
        let content = Content { rows: 2, channels: 1, ..Content::default() };
        let (value, rest) =
            decode::<Data<'_>>(&content.buffer(None).unwrap()).map(|(v, r)| (format!("{v:?}"), r.len())).unwrap();
        assert!(rest == 0 && value.contains("Array"), "{value}");
    }
}
