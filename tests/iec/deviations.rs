//! What real meters do otherwise (reference serial-protocols.md 3.1 to 3.8), one by one.

use std::time::Duration;

use weir::meter::{MeterError, MeterSettings};
use weir::sim::iec_meter::Faults;
use weir::wire::iec62056::Parity;

use crate::plumbing::{Reader, configured, settings, text};
use crate::scripted::{Exchange, Fault, Scripted, block};
use crate::with;

const BODY: &str = "F.F(00000000)\r\n1.8.0(001234.567*kWh)\r\n1.8.0&1(001100,0*kWh)\r\n!\r\n";

fn meter(ident: &[u8], answer: Vec<u8>) -> Vec<Exchange> {
    vec![(b"/?!\r\n".to_vec(), vec![ident.to_vec()]), (b"\x06000\r\n".to_vec(), vec![answer])]
}

async fn read(settings: &MeterSettings, table: Vec<Exchange>, parity: Parity) -> Result<String, MeterError> {
    let values = Scripted::start(settings, table, parity, 0, Fault::None).await.read().await?;
    assert_eq!(text(&values, "1.8.0&1"), "001100,0");
    Ok(text(&values, "1.8.0").to_owned())
}

#[tokio::test(start_paused = true)]
async fn identifications_of_every_shape_are_understood() {
    for ident in [
        b"/TST5SIM\r\n".as_slice(),
        b"\x00\xff\x00\x7f\x00/TST5SIM\r\n",
        b"/ELS5\\@V9.30 \r\n",
        b"/LGZ4\\2ZMD120APt.G03\r\n",
        b"/ACE0\\3k260V01.18\r\n",
        b"/APA5\\2NORAX30\r\n",
        b"/AUX5\\2SX330-1234567890123456789\r\n",
        b"/ISk5MT174-0001\n",
        b"/ISk5MT174-0001\r",
    ] {
        let found = read(&settings(), meter(ident, block(BODY, 3)), Parity::Absent).await;
        assert_eq!(found.unwrap(), "001234.567", "{ident:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_of_every_shape_are_understood() {
    let bare = [b"\x06\r\n".as_slice(), &block(BODY, 3)].concat();
    let high: Vec<u8> = block(BODY, 3).iter().map(|b| b | 0x80).collect();
    for answer in [bare, high, block(&BODY.replace("\r\n", "\n"), 3), block(&BODY.replace("\r\n", "\r"), 3)] {
        let found = read(&settings(), meter(b"/TST5SIM\r\n", answer.clone()), Parity::Absent).await;
        assert_eq!(found.unwrap(), "001234.567", "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_readout_without_etx_or_check_is_taken_only_where_that_is_set() {
    let whole = block(BODY, 3);
    for length in [whole.len() - 1, whole.len() - 2] {
        let table = meter(b"/TST5SIM\r\n", whole[..length].to_vec());
        assert!(read(&settings(), table.clone(), Parity::Even).await.is_err());
        let optional = configured("block_check = \"optional\"");
        assert_eq!(read(&optional, table, Parity::Even).await.unwrap(), "001234.567");
    }
    let broken = meter(b"/TST5SIM\r\n", whole[..whole.len() - 20].to_vec());
    assert!(read(&configured("block_check = \"optional\""), broken, Parity::Even).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn sign_on_texts_are_tried_in_turn_and_the_one_that_helped_is_kept() {
    let mut table = meter(b"/ITR3TEXT\r\n", block(BODY, 3));
    table[0].0 = b"/1Bla0!\r\n".to_vec();
    let settings = configured("sign_on = [\"/?12345678!\", \"/1Bla0!\", \"MSY12345678!\"]\nretries = 0");
    let mut meter = Scripted::start(&settings, table, Parity::Even, 0, Fault::Echoed).await;
    for _ in 0..2 {
        assert_eq!(text(&meter.read().await.unwrap(), "1.8.0"), "001234.567");
    }
    let said: Vec<_> = meter.heard.bytes().into_iter().map(|(_, b)| String::from_utf8(b).unwrap()).collect();
    assert_eq!(said, ["/?12345678!\r\n", "/1Bla0!\r\n", "\x06000\r\n", "/1Bla0!\r\n", "\x06000\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn a_battery_meter_is_woken_before_each_sign_on() {
    let settings = configured("wake_up = true");
    let mut meter =
        Scripted::start(&settings, meter(b"/TST5SIM\r\n", block(BODY, 3)), Parity::Even, 0, Fault::None).await;
    meter.read().await.unwrap();
    let said = meter.heard.bytes();
    assert_eq!(said[0].1, vec![0; 66], "2.2 s at 300 Bd");
    let pause = said[1].0 - said[0].0;
    assert!((Duration::from_millis(1500)..=Duration::from_millis(1700)).contains(&pause), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn waking_takes_as_long_as_the_standard_wants() {
    crate::pace::hold();
    let (path, _control) = with(Faults::default());
    let mut reader = Reader::open(&path, &configured("wake_up = true")).await;
    let start = tokio::time::Instant::now();
    reader.read().await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(2100 + 1500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn another_meter_s_readout_is_noticed_by_its_serial_number() {
    let table = meter(b"/TST5SIM\r\n", block(&format!("C.1.0(0000087654)\r\n{BODY}"), 3));
    assert_eq!(read(&configured("serial = \"87654\""), table.clone(), Parity::Even).await.unwrap(), "001234.567");
    let error = read(&configured("serial = \"87655\""), table, Parity::Even).await.unwrap_err();
    assert!(error.to_string().contains("another meter answered"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn two_errors_that_hide_each_other_from_the_check_are_seen_where_a_line_loses_its_shape() {
    let mut damaged = block(BODY, 3);
    // The same bit of a parenthesis and of a digit.
    let (parenthesis, digit) = (BODY.find('(').unwrap() + 1, BODY.find("1234").unwrap() + 1);
    damaged[parenthesis] ^= 2;
    damaged[digit] ^= 2;
    let lasting = meter(b"/TST5SIM\r\n", damaged);
    let values = Scripted::start(&settings(), lasting, Parity::Absent, 0, Fault::None).await.read().await.unwrap();
    assert!(values.iter().all(|v| v.name != "F.F"), "a line that comes twice out of shape is left out: {values:?}");
}

#[tokio::test(start_paused = true)]
async fn a_meter_with_several_faults_at_once_is_read() {
    crate::pace::hold();
    let faults = Faults { bare_acknowledgement: true, junk: true, echo: true, bad_checksums: 1, ..Faults::default() };
    let (path, _control) = with(faults);
    assert_eq!(Reader::open(&path, &settings()).await.read().await.unwrap().len(), 13);
    let (path, _control) = with(Faults { no_checks: true, ..Faults::default() });
    assert_eq!(Reader::open(&path, &configured("block_check = \"optional\"")).await.read().await.unwrap().len(), 13);
}
