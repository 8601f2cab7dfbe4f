//! A load profile or event log, read by R5 or R6 from one time to another.

use super::pick::same_id;
use super::season::Clock;
use super::{IecProfileRead, ProfileStamp, RequestTime};
use crate::meter::{LoadProfileSettings, MeterError, MeterSettings};
use crate::model::{Interval, Quality, Timestamp, Value};
use crate::wire::iec62056::data::DataValue;
use crate::wire::iec62056::profile::{MeterTime, Record, decode};

const HOUR: i64 = 3600;

/// How one profile is asked for and understood.
pub(super) struct Plan {
    meter: String,
    settings: LoadProfileSettings,
    clock: Clock,
}

impl Plan {
    /// The plan of a meter with a load profile.
    pub(super) fn of(settings: &MeterSettings) -> Option<Self> {
        let clock = |summer_time| Clock { offset: i64::from(settings.utc_offset.minutes()) * 60, summer_time };
        settings.load_profile.as_ref().map(|profile| Self {
            meter: settings.name.to_string(),
            settings: profile.clone(),
            clock: clock(profile.summer_time),
        })
    }

    /// What the meter calls it.
    pub(super) fn id(&self) -> &str {
        &self.settings.id
    }

    /// The digit of the command.
    pub(super) const fn number(&self) -> char {
        match self.settings.command {
            IecProfileRead::R5 => '5',
            IecProfileRead::R6 => '6',
        }
    }

    fn period(&self) -> i64 {
        i64::try_from(self.settings.period.as_secs()).unwrap_or(0)
    }

    /// The parentheses of the request: rather an hour more on both sides than one too few, because
    /// a meter may read the times on its own season; what lies outside is left out of the answer.
    pub(super) fn arguments(&self, after: Timestamp, until: Timestamp) -> String {
        let from = self.clock.face(after).saturating_sub(self.period());
        // The first pass of the hour that comes twice shows only from before it.
        let from = if self.settings.request_time == RequestTime::Plain { from - HOUR } else { from };
        let to = self.clock.face(until).saturating_add(HOUR);
        let season = (self.settings.request_time == RequestTime::Season).then_some(0);
        let face = |at: i64| Timestamp::from_millis(at.saturating_mul(1000));
        let time = |at| MeterTime { season, face: face(at), seconds: false };
        let records = self.settings.records.filter(|_| self.settings.command == IecProfileRead::R6);
        let records = records.map(|records| format!(";{}", records.value())).unwrap_or_default();
        format!("({};{}{records})", time(from), time(to))
    }

    /// Whether a body is a profile at all.
    pub(super) fn is_sound(body: &[u8]) -> bool {
        decode(body).is_ok()
    }

    /// The intervals of an answer that ended after `after` and not later than `until`, oldest first.
    ///
    /// # Errors
    /// [`MeterError::Damaged`] when the answer is no profile, or another one.
    pub(super) fn intervals(
        &self,
        body: &[u8],
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Interval>, MeterError> {
        let records = decode(body).map_err(|error| MeterError::Damaged(error.to_string()))?;
        if let Some(other) = records.iter().find(|r| !r.id.is_empty() && !same_id(self.id(), &r.id)) {
            return Err(MeterError::Damaged(format!("the answer is about {}, not {}", other.id, self.id())));
        }
        let starts = self.clock.starts(&records, self.period(), after);
        let mut intervals: Vec<Interval> =
            records.iter().zip(starts).flat_map(|(record, start)| self.of_record(record, start)).collect();
        intervals.retain(|interval| interval.end > after && interval.end <= until);
        intervals.sort_by_key(|interval| interval.end);
        Ok(intervals)
    }

    fn of_record(&self, record: &Record, start: i64) -> Vec<Interval> {
        let period = record.minutes.map_or(self.period(), |minutes| i64::from(minutes) * 60);
        let of = |index: usize, row: &[DataValue]| {
            let passed = period.saturating_mul(i64::try_from(index).unwrap_or(i64::MAX));
            let begins = self.settings.stamp == ProfileStamp::Begin;
            let end = start.saturating_add(passed).saturating_add(if begins { period } else { 0 });
            Interval {
                meter: self.meter.clone(),
                profile: self.settings.id.to_string(),
                end: Timestamp::from_millis(end.saturating_mul(1000)),
                meter_time: record.time.later(passed).to_string(),
                period: u32::try_from(period).unwrap_or(0),
                status: record.status.clone(),
                values: record.channels.iter().zip(row).enumerate().map(|(n, (c, v))| value(n, c, v)).collect(),
            }
        };
        if period == 0 && record.rows.is_empty() {
            return vec![of(0, &[])];
        }
        record.rows.iter().enumerate().map(|(index, row)| of(index, row)).collect()
    }
}

/// One channel's value; one that the meter left empty is null.
fn value(number: usize, (id, unit): &(String, String), value: &DataValue) -> Value {
    let text = value.text.trim();
    let missing = text.is_empty() || text.chars().all(|c| c == '-');
    Value {
        name: if id.is_empty() { format!("#{}", number + 1) } else { id.clone() },
        value: (!missing).then(|| value.text.clone()),
        unit: if value.unit.is_empty() { unit.clone() } else { value.unit.clone() },
        quality: if missing { Quality::Invalid } else { Quality::Good },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(profile: &str) -> Plan {
        let text = format!(
            "name = \"m\"\nport = \"p\"\nprotocol = \"iec62056-21\"\nutc_offset = \"+01:00\"\nload_profile = {{ id = \"P.01\"{profile} }}"
        );
        Plan::of(&MeterSettings::parse(&text).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    const BODY: &[u8] = b"P.01(0260115000000)(00)(15)(2)(1.5)(kW)(5.5)(kvar)\r\n(0.25)(00.010)\r\n(0.30)()\r\n\
        P.01(0260115003000)(08)(15)(2)(1.5)(kW)(5.5)(kvar)\r\n(0.4)(--)\r\n";

    #[test]
    fn a_request_covers_what_is_wanted_whatever_season_the_meter_reads_it_in() {
        let (after, until) = (at("2026-01-14T23:00:00Z"), at("2026-01-15T00:00:00Z"));
        assert_eq!(plan("").arguments(after, until), "(02601142345;02601150200)");
        assert_eq!(plan(", request_time = \"plain\"").arguments(after, until), "(2601142245;2601150200)");
        let six = plan(", command = \"R6\", records = 4");
        assert_eq!((six.number(), six.arguments(after, until).as_str()), ('6', "(02601142345;02601150200;4)"));
    }

    #[test]
    fn intervals_carry_the_meter_s_time_status_and_exact_values() {
        let (after, until) = (at("2026-01-14T22:00:00Z"), at("2026-01-15T10:00:00Z"));
        let all = plan("").intervals(BODY, after, until).unwrap();
        let shown: Vec<_> =
            all.iter().map(|i| (i.end.to_string(), i.meter_time.as_str(), i.status.as_str(), i.period)).collect();
        assert_eq!(shown[0], ("2026-01-14T23:00:00Z".to_owned(), "0260115000000", "00", 900));
        assert_eq!(shown[2], ("2026-01-14T23:30:00Z".to_owned(), "0260115003000", "08", 900));
        let values: Vec<_> =
            all[0].values.iter().map(|v| (v.name.as_str(), v.value.as_deref(), v.unit.as_str())).collect();
        assert_eq!(values, [("1.5", Some("0.25"), "kW"), ("5.5", Some("00.010"), "kvar")]);
        assert_eq!((all[1].values[1].value.as_deref(), all[2].values[1].quality), (None, Quality::Invalid));
        let begin = plan(", stamp = \"begin\"").intervals(BODY, after, until).unwrap();
        assert_eq!(begin[0].end.to_string(), "2026-01-14T23:15:00Z");
    }

    #[test]
    fn only_what_ended_within_the_wanted_time_is_given() {
        let some = plan("").intervals(BODY, at("2026-01-14T23:00:00Z"), at("2026-01-14T23:15:00Z")).unwrap();
        assert_eq!(some.len(), 1);
        assert_eq!(some[0].end.to_string(), "2026-01-14T23:15:00Z");
    }

    #[test]
    fn an_answer_about_another_profile_is_refused() {
        let other = b"P.02(0260115000000)(00)(15)(1)(1.5)(kW)\r\n(1)\r\n";
        let error = plan("").intervals(other, at("2026-01-14T22:00:00Z"), at("2026-01-15T10:00:00Z")).unwrap_err();
        assert!(error.to_string().contains("about P.02"), "{error}");
    }

    #[test]
    fn every_entry_of_an_event_log_is_an_event_of_no_length() {
        let body = b"P.98(1260714152130)(00008000)()(1)(0.9.1)()(152130)\r\nP.98(1260714160000)(00000080)()()\r\n";
        let text =
            "name = \"m\"\nport = \"p\"\nprotocol = \"iec62056-21\"\nload_profile = { id = \"P.98\", period = \"0s\" }";
        let plan = Plan::of(&MeterSettings::parse(text).unwrap()).unwrap();
        let events = plan.intervals(body, at("2026-07-01T00:00:00Z"), at("2026-08-01T00:00:00Z")).unwrap();
        let shown: Vec<_> =
            events.iter().map(|e| (e.end.to_string(), e.status.as_str(), e.period, e.values.len())).collect();
        assert_eq!(
            shown,
            [
                ("2026-07-14T14:21:30Z".to_owned(), "00008000", 0, 1),
                ("2026-07-14T15:00:00Z".to_owned(), "00000080", 0, 0),
            ]
        );
    }
}
