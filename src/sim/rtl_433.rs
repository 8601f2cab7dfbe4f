//! What rtl_433 prints for a telegram, as its versions do.

use std::fmt::Write;

use data_encoding::HEXLOWER;

use crate::wire::wmbus::format::{FrameFormat, encode};

/// What `data` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 22.11, as in Debian 12: L 2 too small and the last block's CRC for frame format A.
    V22,
    /// 25.12: the telegram for frame format A.
    V25,
}

/// The line of a telegram of format A in mode T, received at `time` (as it would print it) with `rssi` dB below full scale.
pub fn line(version: Version, telegram: &[u8], time: &str, rssi: f32) -> String {
    let mut data = telegram.to_vec();
    let mut frame = Vec::new();
    if version == Version::V22 && encode(FrameFormat::A, telegram, &mut frame).is_ok() {
        data.extend(frame.last_chunk::<2>().into_iter().flatten());
        if let Some(length) = data.first_mut() {
            *length = length.wrapping_sub(2);
        }
    }
    let number = |at: usize| telegram.get(at).copied().unwrap_or(0);
    let id: String = (4..8).rev().map(|at| format!("{:02x}", number(at))).collect();
    let mut out = format!(
        r#"{{"time" : "{time}", "model" : "Wireless-MBus", "mode" : "T", "M" : "{}", "#,
        letters(number(2), number(3))
    );
    let _ = write!(
        out,
        r#""id" : {}, "version" : {}, "type" : {}, "C" : {}, "data" : "{}", "mic" : "CRC", "mod" : "FSK", "#,
        id.trim_start_matches('0'),
        number(8),
        number(9),
        number(1),
        HEXLOWER.encode(&data)
    );
    let _ =
        write!(out, r#""freq1" : 868.997, "freq2" : 868.899, "rssi" : {rssi:.3}, "snr" : 18.250, "noise" : -30.121}}"#);
    out.push('\n');
    out
}

fn letters(low: u8, high: u8) -> String {
    let code = u16::from_le_bytes([low, high]);
    [10, 5, 0].iter().map(|shift| char::from((code >> shift & 0x1F) as u8 + b'@')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::radio_line::Item;
    use crate::wire::rtl_433;

    #[test]
    fn what_it_prints_is_read_back_whatever_the_version() {
        let telegram = b"\x18\x44\xAE\x4C\x44\x55\x22\x33\x68\x07\x7A\x55\0\0\0\0\x04\x13\x89\xE2\x01\0\x02\x3B\0";
        for version in [Version::V22, Version::V25] {
            let text = line(version, telegram, "2026-11-22 11:39:14", -11.25);
            let read = rtl_433::decode(text.as_bytes());
            assert!(matches!(&read[..], [Item::Heard(r)] if r.bytes == telegram), "{text}: {read:?}");
            assert!(text.contains(r#""M" : "SEN", "id" : 33225544, "version" : 104, "type" : 7, "C" : 68"#), "{text}");
        }
    }
}
