//! The export file is cut, bent, lengthened and forged; each time reading says so.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::{Body, Stamp, Telegram, TelegramKind, Timestamp};

fn key() -> (tempfile::TempDir, Key) {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::open_or_create(&dir.path().join("key")).unwrap();
    (dir, key)
}

fn frame(lane: Lane, length: usize) -> Vec<u8> {
    let bytes = vec![length as u8; length];
    let body = Body::Telegram(Telegram { kind: TelegramKind::OpenlinkIq, bytes, rssi: None, corrected_bits: 0 });
    let time = Stamp::synced(Timestamp::from_millis(5));
    block::encode_frame(&Frame { time, lane, body, origin: None }).unwrap()
}

fn header() -> Header {
    Header { gateway: "KAM1".into(), time: "2026-11-22T00:00:00Z".into(), taken: false }
}

/// Frames by lane and length, numbered from 1 in steps of 3.
fn written(lengths: &[(bool, usize)], key: &Key) -> (Vec<u8>, Vec<Batch>) {
    let mut sorted = lengths.to_vec();
    sorted.sort_by_key(|(priority, _)| !priority);
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    let mut all: Vec<Batch> = Vec::new();
    for ((priority, length), sequence) in sorted.into_iter().zip((1..).step_by(3)) {
        let lane = if priority { Lane::Priority } else { Lane::Ordinary };
        let bytes = frame(lane, length);
        writer.push(lane, sequence, &bytes).unwrap();
        let entry = (sequence, bytes.len(), block::decode_frame(&bytes).unwrap());
        match all.last_mut() {
            Some(batch) if batch.lane == lane => batch.frames.push(entry),
            _ => all.push(Batch { lane, frames: vec![entry] }),
        }
    }
    (writer.finish(key).unwrap().0, all)
}

fn read(file: &[u8]) -> Result<(Vec<Batch>, Totals, Public), FormatError> {
    let mut reader = Reader::begin(file)?;
    let mut all: Vec<Batch> = Vec::new();
    while let Some(batch) = reader.next()? {
        match all.last_mut() {
            Some(before) if before.lane == batch.lane => before.frames.extend(batch.frames),
            _ => all.push(batch),
        }
        assert!(reader.verified().is_none(), "believed before the end");
    }
    let (totals, signer) = reader.verified().unwrap();
    assert_eq!(reader.header(), &header());
    Ok((all, totals, signer))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_export_reads_back_as_it_was_written(lengths in vec((any::<bool>(), 0usize..3_000), 0..120)) {
        let (_dir, key) = key();
        let (file, all) = written(&lengths, &key);
        let (found, totals, signer) = read(&file).unwrap();
        prop_assert_eq!(found, all);
        prop_assert_eq!((totals.frames, signer), (lengths.len() as u64, key.public()));
        prop_assert_eq!(totals.priority, lengths.iter().filter(|l| l.0).count() as u64);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
        prop_assert!(read(&[&MAGIC[..], &bytes].concat()).is_err());
    }
}

#[test]
fn every_single_changed_bit_and_every_cut_is_noticed() {
    let (_dir, key) = key();
    let (file, _) = written(&[(true, 20), (false, 30), (false, 5)], &key);
    for at in 0..file.len() {
        let mut bent = file.clone();
        bent[at] ^= 1 << (at % 8);
        assert!(read(&bent).is_err(), "a change at byte {at} of {}", file.len());
        let error = read(&file[..at]).unwrap_err();
        assert!(matches!(error, FormatError::Cut(n) if n == at as u64) || at < MAGIC.len(), "{at}: {error}");
    }
    assert!(matches!(read(&[&file[..], b"x"].concat()), Err(FormatError::Longer(n)) if n == file.len() as u64));
}

#[test]
fn records_that_were_left_out_repeated_or_exchanged_are_noticed_though_each_is_whole() {
    let (_dir, key) = key();
    let (file, _) = written(&[(true, 20), (false, FULL), (false, FULL), (false, 9)], &key);
    let mut records = Vec::new();
    let mut rest = &file[MAGIC.len()..];
    while !rest.is_empty() {
        let length = 9 + u32::from_le_bytes(rest[1..5].try_into().unwrap()) as usize;
        records.push(&rest[..length]);
        rest = &rest[length..];
    }
    assert_eq!(
        records.iter().map(|r| r[0]).collect::<Vec<_>>(),
        [HEADER, FRAMES, FRAMES, FRAMES, FRAMES, END, SIGNATURE]
    );
    let joined =
        |order: &[usize]| [&MAGIC[..], &order.iter().flat_map(|i| records[*i].to_vec()).collect::<Vec<_>>()].concat();
    assert!(read(&joined(&[0, 1, 2, 3, 4, 5, 6])).is_ok());
    assert!(matches!(read(&joined(&[0, 1, 3, 4, 5, 6])), Err(FormatError::Totals)));
    assert!(matches!(read(&joined(&[0, 1, 2, 2, 3, 4, 5, 6])), Err(FormatError::Frame(4))));
    assert!(matches!(read(&joined(&[0, 1, 3, 2, 4, 5, 6])), Err(FormatError::Frame(4))));
    assert!(matches!(read(&joined(&[0, 2, 1, 3, 4, 5, 6])), Err(FormatError::Damaged(_))));
    assert!(matches!(read(&joined(&[1, 2, 3, 4, 5, 6])), Err(FormatError::Damaged(8))));
    assert!(matches!(read(&joined(&[0, 1, 2, 3, 4, 6])), Err(FormatError::Damaged(_))));
    assert!(matches!(read(&joined(&[0, 1, 2, 3, 4, 5])), Err(FormatError::Cut(_))));
    // Whole records with a right end, but signed for another file.
    let (other, _) = written(&[(true, 20), (false, FULL), (false, FULL), (false, 10)], &key);
    let mixed = [&joined(&[0, 1, 2, 3, 4, 5])[..], &other[other.len() - 105..]].concat();
    assert!(matches!(read(&mixed), Err(FormatError::Forged)));
}

#[test]
fn a_frame_of_another_version_or_lane_is_refused() {
    let (_dir, key) = key();
    let mut strange = frame(Lane::Ordinary, 9);
    strange[0] = 200;
    for bytes in [strange, frame(Lane::Priority, 9)] {
        let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
        writer.push(Lane::Ordinary, 7, &bytes).unwrap();
        assert!(matches!(read(&writer.finish(&key).unwrap().0), Err(FormatError::Frame(7))));
    }
    let mut later = written(&[], &key).0;
    later[7] = b'2';
    assert!(matches!(read(&later), Err(FormatError::Version)));
    assert!(matches!(read(b"PK\x03\x04 something else"), Err(FormatError::Stranger)));
}
