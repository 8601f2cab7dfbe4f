//! Late, short, doubled, echoed, corrupted and foreign answers at every point of an exchange never
//! yield a value that the meter did not send for that request.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use weir::meter::MeterSettings;
use weir::model::{Quality, Timestamp, Value};
use weir::wire::iec62056::Parity;

use crate::plumbing::configured;
use crate::scripted::{Exchange, Fault, Scripted, block, command};

const REGISTERS: [(&str, &str, &str); 5] = [
    ("0.0.0", "12345678", ""),
    ("1.8.0", "001234.567", "kWh"),
    ("1.8.1", "000834.100", "kWh"),
    ("2.8.0", "000000.000", "kWh"),
    ("1.8.0*01", "001100.000", "kWh"),
];

fn line((id, text, unit): &(&str, &str, &str)) -> String {
    if unit.is_empty() { format!("{id}({text})") } else { format!("{id}({text}*{unit})") }
}

/// The exchanges of the meter of tests/peers/iec_meter.py, as they went over the wire, and at the
/// end what another meter and another profile answer.
fn table() -> Vec<Exchange> {
    let readout: String = REGISTERS.iter().map(|r| line(r) + "\r\n").collect();
    let head = "P.01(0260115001500)(00)(15)(1)(1.5)(kW)\r\n";
    let (one, two) = (format!("{head}(0.001)\r\n(0.002)\r\n"), "(0.003)\r\n(0.004)\r\n");
    let mut table: Vec<Exchange> = vec![
        (b"/?!\r\n".to_vec(), vec![b"/TST5SIM-1.0\r\n".to_vec()]),
        (b"\x06000\r\n".to_vec(), vec![block(&format!("{readout}!\r\n"), 3)]),
        (b"\x06001\r\n".to_vec(), vec![command("P0\x02(00000000)")]),
        (command("P1\x02(00000000)"), vec![vec![6]]),
        (command("R5\x02P.01(02601150000;02601150200)"), vec![block(&format!("{one}{two}"), 3)]),
        (command("R6\x02P.01(02601150000;02601150200;2)"), vec![block(&one, 4), block(two, 3)]),
    ];
    for register in &REGISTERS {
        table.push((command(&format!("R1\x02{}()", register.0)), vec![block(&line(register), 3)]));
    }
    // Its serial number stands elsewhere.
    table.push((command("R1\x02C.1.0()"), vec![block("(ER01)", 3)]));
    let other = block("0.0.0(99999999)\r\n1.8.0(777777.777*kWh)\r\n!\r\n", 3);
    table.push((b"/?99999999!\r\n".to_vec(), vec![b"/OTH5OTHER\r\n".to_vec(), other]));
    let profile = "P.02(0260115001500)(00)(15)(1)(1.5)(kW)\r\n(7.777)\r\n(7.777)\r\n(7.777)\r\n(7.777)\r\n";
    table.push((command("R5\x02P.02()"), vec![block(profile, 3), block("(ER06)", 3)]));
    table
}

fn fault() -> impl Strategy<Value = Fault> {
    let gap = || (0u64..180).prop_map(Duration::from_millis);
    prop_oneof![
        (1400u64..6000).prop_map(|ms| Fault::Late(Duration::from_millis(ms))),
        (0usize..120).prop_map(Fault::Short),
        gap().prop_map(Fault::Doubled),
        Just(Fault::Echoed),
        (0usize..200, 1u8..128).prop_map(|(at, with)| Fault::Corrupted(at, with)),
        (0usize..20, any::<bool>()).prop_map(|(which, instead)| Fault::Foreign { which, instead }),
    ]
}

/// Runs a reading in virtual time; a case takes milliseconds.
fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(work)
}

/// Fails on a good value that is not what the meter has under that name.
fn believe(values: &[Value]) -> Result<usize, TestCaseError> {
    let truth: HashMap<&str, (&str, &str)> = REGISTERS.iter().map(|(id, text, unit)| (*id, (*text, *unit))).collect();
    let mut good = 0;
    for value in values.iter().filter(|v| v.quality == Quality::Good) {
        let found = (value.value.as_deref().unwrap_or("nothing"), value.unit.as_str());
        prop_assert_eq!(Some(&found), truth.get(value.name.as_str()), "{}", value.name);
        good += 1;
    }
    Ok(good)
}

fn single(guarded: bool) -> MeterSettings {
    let directory = concat!(env!("CARGO_TARGET_TMPDIR"), "/iec-password");
    std::fs::write(directory, "00000000").unwrap();
    let ids = REGISTERS.map(|(id, _, _)| format!("\"{id}\"")).join(", ");
    let serial = if guarded { "serial = \"12345678\"" } else { "" };
    configured(&format!(
        "access = \"programming\"\npassword_file = \"{directory}\"\nvalues = [{ids}]\nretries = 2\n{serial}"
    ))
}

#[test]
fn without_a_fault_the_whole_table_is_read() {
    in_virtual_time(async {
        let mut meter =
            Scripted::start(&configured("serial = \"12345678\""), table(), Parity::Even, 0, Fault::None).await;
        assert_eq!(believe(&meter.read().await.unwrap()).unwrap(), REGISTERS.len());
        for guarded in [false, true] {
            let mut meter = Scripted::start(&single(guarded), table(), Parity::Even, 0, Fault::None).await;
            assert_eq!(believe(&meter.read().await.unwrap()).unwrap(), REGISTERS.len());
        }
        for more in ["", ", command = \"R6\", records = 2"] {
            let settings = configured(&format!("load_profile = {{ id = \"P.01\"{more} }}"));
            let mut meter = Scripted::start(&settings, table(), Parity::Even, 0, Fault::None).await;
            let at = |text: &str| Timestamp::parse(text).unwrap();
            let (after, until) = (at("2026-01-15T00:15:00Z"), at("2026-01-15T01:00:00Z"));
            let profile = meter.session.profile().unwrap();
            assert_eq!(profile.read(&mut meter.line, after, until).await.unwrap().len(), 3);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_readout_gives_what_the_meter_sent_or_nothing(at in 0usize..4, fault in fault(), even: bool) {
        let parity = if even { Parity::Even } else { Parity::Absent };
        in_virtual_time(async {
            let settings = configured("serial = \"12345678\"");
            let mut meter = Scripted::start(&settings, table(), parity, at, fault).await;
            for _ in 0..2 {
                if let Ok(values) = meter.read().await {
                    believe(&values)?;
                }
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    #[test]
    fn single_values_are_what_the_meter_sent_for_them_or_null(
        at in 0usize..11, fault in fault(), even: bool, guarded: bool,
    ) {
        let parity = if even { Parity::Even } else { Parity::Absent };
        in_virtual_time(async {
            let mut meter = Scripted::start(&single(guarded), table(), parity, at, fault).await;
            for _ in 0..2 {
                if let Ok(values) = meter.read().await {
                    believe(&values)?;
                }
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    #[test]
    fn a_load_profile_gives_intervals_that_the_meter_sent_or_none(
        at in 0usize..5, fault in fault(), even: bool, parts: bool,
    ) {
        let parity = if even { Parity::Even } else { Parity::Absent };
        let more = if parts { ", command = \"R6\", records = 2" } else { "" };
        let settings = configured(&format!("load_profile = {{ id = \"P.01\"{more} }}\nretries = 2"));
        in_virtual_time(async {
            let mut meter = Scripted::start(&settings, table(), parity, at, fault).await;
            let at = |text: &str| Timestamp::parse(text).unwrap();
            let (after, until) = (at("2026-01-15T00:15:00Z"), at("2026-01-15T01:00:00Z"));
            for _ in 0..2 {
                let profile = meter.session.profile().unwrap();
                let Ok(intervals) = profile.read(&mut meter.line, after, until).await else { continue };
                for interval in &intervals {
                    let minutes = interval.end.since(at("2026-01-15T00:00:00Z")).as_secs() / 60;
                    let expected = format!("0.{:03}", minutes / 15);
                    prop_assert_eq!(interval.values[0].value.as_deref(), Some(expected.as_str()), "{}", interval.end);
                }
            }
            Ok(())
        })?;
    }
}
