//! Meters and lines that never fall silent hold the bus for a bounded time, and slow readouts are read all the same.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};
use weir::meter::{MeterError, MeterSettings};
use weir::model::Quality;
use weir::sim::pty::Pty;
use weir::wire::iec62056::Parity;

use crate::plumbing::{Reader, configured, text};
use crate::scripted::{block, command, hold_back};

/// What a meter says once it is asked for its data.
#[derive(Debug, Clone)]
enum Says {
    /// Data sets without end.
    Endless,
    /// STX and then noise without end.
    Noise,
    /// This, once for each time it is asked.
    Readout(Vec<u8>),
}

/// A meter that signs on at 300 Bd and says its data at `rate`, at the pace of the line.
async fn meter(mut pty: Pty, rate: u32, says: Says) {
    let mut asked = Vec::new();
    let mut buffer = [0; 256];
    loop {
        let Ok(count) = pty.receive(&mut buffer).await else { return };
        asked.extend(buffer[..count].iter().map(|b| b & 0x7F));
        // What was sent is still on its way for so long.
        sleep(Duration::from_millis(u64::try_from(count).unwrap() * 10_000 / u64::from(pty.baud().unwrap()))).await;
        sleep(Duration::from_millis(200)).await;
        if asked.ends_with(b"!\r\n") {
            asked.clear();
            say(&mut pty, 300, b"/TST5SIM\r\n").await;
        } else if asked.starts_with(&[6]) && asked.ends_with(b"1\r\n") {
            asked.clear();
            say(&mut pty, rate, &command("P0\x02()")).await;
        } else if (asked.starts_with(&[6]) && asked.ends_with(b"\r\n")) || asked == [0x15] || asked.starts_with(b"\x01R1") {
            asked.clear();
            match &says {
                Says::Readout(bytes) => say(&mut pty, rate, bytes).await,
                endless => babble(&mut pty, rate, endless).await,
            }
        } else if asked.starts_with(b"\x01B0") {
            asked.clear();
        }
    }
}

/// Sends at the pace of the line; a reader at another rate hears noise.
async fn say(pty: &mut Pty, rate: u32, characters: &[u8]) {
    let mut noise = StdRng::seed_from_u64(7);
    let piece = usize::try_from(rate / 150).unwrap();
    for chunk in characters.chunks(piece) {
        let mut bytes = chunk.to_vec();
        Parity::Even.apply(&mut bytes);
        if pty.baud().unwrap() != rate {
            bytes.iter_mut().for_each(|byte| *byte = noise.random());
        }
        pty.send(&bytes).await.unwrap();
        sleep(Duration::from_millis(u64::try_from(10_000 * chunk.len()).unwrap() / u64::from(rate))).await;
    }
}

async fn babble(pty: &mut Pty, rate: u32, what: &Says) {
    let mut noise = StdRng::seed_from_u64(1);
    say(pty, rate, &[2]).await;
    loop {
        if matches!(what, Says::Endless) {
            say(pty, rate, b"1.8.0(001234.567*kWh)\r\n").await;
        } else {
            let bytes: [u8; 32] = noise.random();
            pty.send(&bytes).await.unwrap();
            sleep(Duration::from_millis(320_000 / u64::from(rate))).await;
        }
    }
}

/// Reads once in virtual time, and tells how long it took.
async fn read(rate: u32, says: Says, settings: &MeterSettings) -> (Result<String, MeterError>, Duration) {
    hold_back();
    let pty = Pty::open().unwrap();
    let path = pty.path().to_owned();
    let task = tokio::spawn(meter(pty, rate, says));
    let mut reader = Reader::open(&path, settings).await;
    let begun = Instant::now();
    let result = reader.read().await.map(|values| text(&values, "1.8.0").to_owned());
    task.abort();
    (result, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_never_falls_silent_holds_the_bus_for_a_bounded_time() {
    let single = "access = \"programming\"\nvalues = [\"1.8.0\"]\n";
    for (rate, says, limit) in [
        // The largest block takes 68 s at 9600 Bd, 34 s at 19,200.
        (9600, Says::Endless, 120),
        (9600, Says::Noise, 30),
        // It stays at 300 Bd whatever it was told; noise is told from a slow readout there, too.
        (300, Says::Noise, 30),
        (300, Says::Endless, 660),
    ] {
        for (settings, access) in [("", "readout"), (single, "programming")] {
            // A meter that never changed its rate is asked for a lower one, rate by rate.
            if rate == 300 && access == "programming" {
                continue;
            }
            let (result, took) = read(rate, says.clone(), &configured(&format!("retries = 2\n{settings}"))).await;
            let error = result.unwrap_err();
            assert_eq!(error.quality(), Quality::Invalid, "{rate} {says:?} {access}: {error}");
            assert!(took < Duration::from_secs(limit), "{rate} {says:?} {access}: {took:?}, {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_never_silent_is_not_signed_on_to() {
    hold_back();
    let mut pty = Pty::open().unwrap();
    let path = pty.path().to_owned();
    let task = tokio::spawn(async move { babble(&mut pty, 9600, &Says::Endless).await });
    let mut reader = Reader::open(&path, &configured("retries = 2")).await;
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let error = reader.read().await.unwrap_err();
    assert!(error.to_string().contains("does not fall silent"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_readout_is_read_whole_also_where_the_meter_kept_to_300_bd() {
    let rows: String = (0..200).map(|n| format!("1.8.0*{n:02}(001234.567*kWh)\r\n")).collect();
    let readout = |rows: &str| block(&format!("1.8.0(001234.567*kWh)\r\n{rows}!\r\n"), 3);
    for (rows, settings, least) in [
        // Nearly ten minutes: as long as was ever allowed.
        (rows.repeat(3), "force_baud = 300", 500),
        // 9600 Bd was chosen, and the meter went on at 300: it is noise for three minutes, then it is asked for again.
        (rows, "", 300),
    ] {
        let (result, took) = read(300, Says::Readout(readout(&rows)), &configured(settings)).await;
        assert_eq!(result.unwrap(), "001234.567", "{settings}");
        assert!((least..600).contains(&took.as_secs()), "{settings}: {took:?}");
    }
}
