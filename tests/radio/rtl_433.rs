//! rtl_433: what the real program printed, and a stream of it.

use weir::wire::radio_line::Item;
use weir::wire::{rtl_433 as codec, wmbus};

use super::*;
use weir::sim::rtl_433::{Version, line};

const SHORT: &str = "1844ae4c4455223368077a55000000041389e20100023b0000";

/// Printed by Debian 12's rtl_433 22.11 (`-R 104 -F json -M level -y`), which was given frames of format A and B made of
/// two telegrams: a water meter's of 25 bytes, and one of 130 bytes.
#[test]
fn what_rtl_433_22_11_prints_of_frames_a_and_b_is_the_telegram_and_its_broken_one_is_refused() {
    let printed = include_str!("rtl_433-22.11.txt");
    let long = format!("8144ae4c4455223368077a55000000{}", "ab".repeat(115));
    let read: Vec<_> = printed.lines().flat_map(|line| codec::decode(line.as_bytes())).collect();
    let hex = |item: &Item| match item {
        Item::Heard(heard) => data_encoding::HEXLOWER.encode(&heard.bytes),
        other => format!("{other:?}"),
    };
    let read: Vec<String> = read.iter().map(hex).collect();
    assert_eq!(read[..3], [SHORT, &long, SHORT]);
    // Of a long frame of format B the program puts the second block into the first.
    assert!(read[3].starts_with("Damaged"), "{}", read[3]);
    assert_eq!(read.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn telegrams_of_a_program_that_prints_other_sensors_too_are_heard() {
    crate::pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    let telegram = data_encoding::HEXLOWER.decode(SHORT.as_bytes()).unwrap();
    assert!(wmbus::decode(&telegram).is_ok());
    let mut text = "rtl_433 version 22.11\n{\"model\" : \"Acurite-Tower\", \"id\" : 7}\n".to_owned();
    let mut other = telegram.clone();
    other[11] ^= 1;
    text += &line(Version::V22, &telegram, "2026-11-22 11:39:14", -11.6);
    text += &line(Version::V25, &other, "2026-11-22 11:39:15", -3.0);
    std::fs::write(&file, text).unwrap();
    let file = file.to_string_lossy().into_owned();
    let mut running = start(settings("rtl-433", None, Some(&["sh", "-c", "cat \"$0\"; exec sleep 1000", &file])), 4);
    let first = running.telegram().await.1;
    assert_eq!((first.bytes, first.rssi), (telegram, Some(Rssi::Relative(-12))));
    let second = running.telegram().await.1;
    assert_eq!((second.bytes, second.rssi), (other, Some(Rssi::Relative(-3))));
    let status = running.status(|s| s.heard == 2).await;
    assert_eq!((status.noise, status.damaged, status.opened), (2, 0, 1));
}
