use proptest::prelude::*;

use super::super::column::parse;
use super::*;
use crate::meter::dlms::object::{Scaler, coded};
use crate::wire::dlms::{ClockStatus, DataBuf, decode, encode};

const CLOCK: [u8; 6] = [0, 0, 1, 0, 0, 255];
const STATUS: [u8; 6] = [0, 0, 96, 10, 1, 255];
const ENERGY: [u8; 6] = [1, 0, 1, 8, 0, 255];

fn captured(class: u16, name: [u8; 6]) -> DataBuf {
    DataBuf::Structure(vec![
        DataBuf::LongUnsigned(class),
        DataBuf::OctetString(name.to_vec()),
        DataBuf::Integer(2),
        DataBuf::LongUnsigned(0),
    ])
}

/// Time, status, energy in tenths of Wh.
fn columns() -> Vec<Column> {
    let list = DataBuf::Array(vec![captured(8, CLOCK), captured(1, STATUS), captured(3, ENERGY)]);
    let mut columns = parse(&decode::<Data<'_>>(&encode(&list).unwrap()).unwrap().0).unwrap();
    for column in &mut columns {
        column.scaler = Some(Scaler::PLAIN);
    }
    columns[2].scaler = Some(Scaler { power: -1, unit: 30 });
    columns
}

const RULES: Rules = Rules {
    period: 900,
    newest_first: false,
    begin: false,
    east: 60,
    summer_time: SummerTime::Meter,
    after: Timestamp::from_millis(0),
};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A time of a clock in Vienna that tells its deviation, or does not.
fn time(text: &str, west: Option<i16>, status: u8) -> DataBuf {
    DataBuf::OctetString(coded(at(text), west, 60, ClockStatus(status)).to_bytes().to_vec())
}

fn row(time: DataBuf, status: DataBuf, energy: DataBuf) -> DataBuf {
    DataBuf::Structure(vec![time, status, energy])
}

fn count(value: u32) -> DataBuf {
    DataBuf::DoubleLongUnsigned(value)
}

fn rows(list: Vec<DataBuf>, rules: &Rules) -> Result<Vec<Row>, MeterError> {
    let bytes = encode(&DataBuf::Array(list)).unwrap();
    let all = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
    read(&decode::<Data<'_>>(&bytes).unwrap().0, &columns(), rules, all).map(|rows| rows.rows)
}

fn told(rows: &[Row]) -> Vec<(String, &str, Option<&str>)> {
    rows.iter().map(|r| (r.end.to_string(), r.status.as_str(), r.values[0].value.as_deref())).collect()
}

#[test]
fn a_null_is_the_value_before_and_a_null_time_a_period_later() {
    let list = vec![
        row(time("2026-01-01T00:00:00Z", Some(-60), 0), DataBuf::Unsigned(8), count(10)),
        row(DataBuf::Null, DataBuf::Null, count(11)),
        row(DataBuf::Null, DataBuf::Unsigned(0), DataBuf::Null),
    ];
    let rows = rows(list, &RULES).unwrap();
    assert_eq!(
        told(&rows),
        [
            ("2026-01-01T00:00:00Z".to_owned(), "08", Some("1.0")),
            ("2026-01-01T00:15:00Z".to_owned(), "08", Some("1.1")),
            ("2026-01-01T00:30:00Z".to_owned(), "00", Some("1.1")),
        ]
    );
    assert_eq!(rows[1].time.to_string(), "2026-01-01T01:15:00+01:00");
    assert_eq!((rows[0].values[0].name.as_str(), rows[0].values[0].unit.as_str()), ("1-0:1.8.0*255", "Wh"));
}

#[test]
fn a_buffer_with_the_newest_first_runs_back_in_time() {
    let list = vec![
        row(time("2026-01-01T00:30:00Z", Some(-60), 0), DataBuf::Unsigned(0), count(12)),
        row(DataBuf::Null, DataBuf::Null, count(11)),
    ];
    let rows = rows(list, &Rules { newest_first: true, ..RULES }).unwrap();
    assert_eq!(told(&rows)[1].0, "2026-01-01T00:15:00Z");
}

#[test]
fn the_order_that_times_show_counts_more_than_the_sort_method() {
    let list = vec![
        row(time("2026-01-01T00:45:00Z", Some(-60), 0), DataBuf::Unsigned(0), count(3)),
        row(DataBuf::Null, DataBuf::Null, count(2)),
        row(time("2026-01-01T00:15:00Z", Some(-60), 0), DataBuf::Unsigned(0), count(1)),
    ];
    assert_eq!(told(&rows(list, &RULES).unwrap())[1].0, "2026-01-01T00:30:00Z");
}

#[test]
fn a_first_row_without_time_or_one_that_does_not_fit_is_no_answer() {
    let first = vec![row(DataBuf::Null, DataBuf::Null, count(1))];
    assert!(rows(first, &RULES).unwrap_err().to_string().contains("first row has no time"));
    let narrow = vec![DataBuf::Structure(vec![time("2026-01-01T00:00:00Z", None, 0), count(1)])];
    assert!(rows(narrow, &RULES).unwrap_err().to_string().contains("2 columns where 3"));
    let wild = row(DataBuf::OctetString(vec![0xFF; 12]), DataBuf::Null, count(1));
    assert!(rows(vec![wild], &RULES).unwrap_err().to_string().contains("wildcards"));
}

#[test]
fn the_hour_that_comes_twice_has_eight_quarters_whether_the_meter_tells_its_deviation_or_its_season() {
    // 02:15 .. 03:00 summer time, then again in normal time, on 2026-10-25.
    let quarters: Vec<Timestamp> =
        (1..=8).map(|n| at("2026-10-25T00:00:00Z").plus(std::time::Duration::from_secs(900 * n))).collect();
    let summer = |at: &Timestamp| *at <= self::at("2026-10-25T00:45:00Z");
    for tells_deviation in [true, false] {
        let row_at = |at: &Timestamp| {
            let (west, status) = if summer(at) { (-120, 0x80) } else { (-60, 0) };
            let face = coded(*at, Some(west), 0, ClockStatus(status));
            let face = DateTime { deviation: if tells_deviation { west } else { i16::MIN }, ..face };
            row(DataBuf::OctetString(face.to_bytes().to_vec()), DataBuf::Unsigned(0), count(1))
        };
        let rows = rows(quarters.iter().map(row_at).collect(), &RULES).unwrap();
        assert_eq!(rows.iter().map(|r| r.end).collect::<Vec<_>>(), quarters, "{tells_deviation}");
    }
}

#[test]
fn a_row_that_is_none_keeps_no_other_back_and_no_data_are_no_rows() {
    let good = |text| row(time(text, Some(-60), 0), count(0), count(10));
    let mixed = vec![good("2026-01-15T11:15:00Z"), DataBuf::Null, good("2026-01-15T11:45:00Z")];
    assert_eq!(rows(mixed, &RULES).unwrap().len(), 2);
    assert!(rows(vec![DataBuf::Null], &RULES).is_err(), "nothing fits");
    let mut seen = 0;
    each(&Data::Null, 3, &mut |_| {
        seen += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, 0);
}

#[test]
fn a_stamp_at_the_begin_ends_a_period_later() {
    let list = vec![row(time("2026-01-01T00:00:00Z", Some(-60), 0), DataBuf::Unsigned(0), count(1))];
    let rows = rows(list, &Rules { begin: true, ..RULES }).unwrap();
    assert_eq!(rows[0].end, at("2026-01-01T00:15:00Z"));
}

#[test]
fn a_compact_array_is_the_same_rows() {
    let stamp = coded(at("2026-01-01T00:00:00Z"), Some(-60), 0, ClockStatus(0)).to_bytes();
    let mut contents = Vec::new();
    for n in 0..2u8 {
        contents.extend([12u8].iter().chain(&stamp));
        contents.extend([n, 0, 0, 0, 10 + n]);
    }
    let mut bytes = vec![19, 2, 3, 9, 17, 6, u8::try_from(contents.len()).unwrap()];
    bytes.extend(contents);
    let all = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
    let rows = read(&decode::<Data<'_>>(&bytes).unwrap().0, &columns(), &RULES, all).unwrap().rows;
    assert_eq!(told(&rows)[1], ("2026-01-01T00:00:00Z".to_owned(), "01", Some("1.1")));
}

#[test]
fn a_jump_of_the_clock_does_not_turn_the_order_around() {
    // A day ahead first, then right: the last row's time lies before the first one's.
    let list = vec![
        row(time("2026-01-02T10:00:00Z", Some(-60), 0), DataBuf::Unsigned(0), count(1)),
        row(DataBuf::Null, DataBuf::Null, count(2)),
        row(time("2026-01-01T10:30:00Z", Some(-60), 0), DataBuf::Unsigned(0), count(3)),
        row(DataBuf::Null, DataBuf::Null, count(4)),
    ];
    let ends: Vec<_> = rows(list, &RULES).unwrap().iter().map(|row| row.end.to_string()).collect();
    let wanted = ["2026-01-02T10:00:00Z", "2026-01-02T10:15:00Z", "2026-01-01T10:30:00Z", "2026-01-01T10:45:00Z"];
    assert_eq!(ends, wanted);
}

#[test]
fn what_can_not_be_placed_or_understood_is_left_out_and_counted() {
    let narrow = DataBuf::Structure(vec![time("2026-01-01T00:30:00Z", Some(-60), 0), count(9)]);
    let list = vec![
        row(DataBuf::Null, DataBuf::Null, count(0)),
        row(time("2026-01-01T00:15:00Z", Some(-60), 0), DataBuf::Unsigned(0), count(1)),
        narrow,
        row(DataBuf::Null, DataBuf::Null, count(3)),
        row(DataBuf::OctetString(vec![0xFF; 12]), DataBuf::Null, count(4)),
        row(DataBuf::Null, DataBuf::Null, DataBuf::Null),
        row(time("2026-01-01T01:30:00Z", Some(-60), 0), DataBuf::Null, DataBuf::Null),
    ];
    let bytes = encode(&DataBuf::Array(list)).unwrap();
    let all = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
    let found = read(&decode::<Data<'_>>(&bytes).unwrap().0, &columns(), &RULES, all).unwrap();
    assert_eq!(found.left_out, 5);
    let ends: Vec<_> = found.rows.iter().map(|row| row.end.to_string()).collect();
    assert_eq!(ends, ["2026-01-01T00:15:00Z", "2026-01-01T01:30:00Z"]);
    assert_eq!((found.rows[1].status.as_str(), found.rows[1].values[0].value.as_deref()), ("", Some("0.4")));
}

proptest! {
    /// Compression and order change the bytes, never what is read.
    #[test]
    fn rows_are_the_same_however_they_are_compressed_and_sorted(
        values in prop::collection::vec((0u32..3, 0u8..2, any::<[bool; 3]>()), 1..40), down in any::<bool>(),
    ) {
        let begun = at("2026-03-28T22:00:00Z");
        let plain: Vec<(Timestamp, u8, u32)> = (0u64..).zip(&values)
            .map(|(n, (energy, status, _))| (begun.plus(std::time::Duration::from_secs(900 * n)), *status, *energy))
            .collect();
        let mut order: Vec<usize> = (0..plain.len()).collect();
        if down { order.reverse(); }
        let mut list = Vec::new();
        for (place, n) in order.iter().enumerate() {
            let (at, status, energy) = plain[*n];
            let before = place.checked_sub(1).map(|p| plain[order[p]]);
            let [no_time, no_status, no_energy] = values[*n].2;
            let clock = DataBuf::OctetString(coded(at, Some(-60), 0, ClockStatus(0)).to_bytes().to_vec());
            list.push(row(
                if no_time && before.is_some() { DataBuf::Null } else { clock },
                if no_status && before.is_some_and(|b| b.1 == status) { DataBuf::Null } else { DataBuf::Unsigned(status) },
                if no_energy && before.is_some_and(|b| b.2 == energy) { DataBuf::Null } else { count(energy) },
            ));
        }
        let mut read = rows(list, &Rules { newest_first: down, ..RULES }).unwrap();
        read.sort_by_key(|row| row.end);
        let found: Vec<_> = read.iter().map(|r| (r.end, r.status.clone(), r.values[0].value.clone().unwrap())).collect();
        let wanted: Vec<_> = plain.iter()
            .map(|(at, status, energy)| (*at, format!("{status:02x}"), format!("0.{energy}")))
            .collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn any_bytes_are_rows_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400), period in 0i64..100_000) {
        let all = (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
        for bytes in [bytes.clone(), [&[1, 3, 2, 3][..], &bytes].concat(), [&[19, 2, 3, 9, 17, 6][..], &bytes].concat()] {
            if let Ok((data, _)) = decode::<Data<'_>>(&bytes) {
                let _ = parse(&data);
                let _ = read(&data, &columns(), &Rules { period, ..RULES }, all);
            }
        }
    }
}
