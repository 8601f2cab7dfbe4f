//! What the tests of all sticks share: telegrams, starting, hearing, pulling out.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use weir::model::{Rssi, TelegramKind};
use weir::os::clock;
use weir::setting::Count;
use weir::sim::cul_stick::CulStick;
use weir::sim::radio_replay::{Lines, RadioReplay};
use weir::sim::stick::{Plugged, Radio, plug};

use super::{LIMIT, Logged, Running, SourceState, settings, start};

/// Starts to listen to a stick.
pub(super) fn stick(receiver: &str, path: &Path, mode: Option<&str>, baud: Option<u32>) -> Running {
    let mut settings = settings(receiver, Some(path.to_string_lossy().into_owned()), None);
    settings.mode = mode.map(str::to_owned);
    settings.baud = baud.map(Count::clamped);
    start(settings, 256)
}

/// So many different telegrams.
pub(super) fn telegrams(count: usize) -> Vec<Vec<u8>> {
    let mut replay = RadioReplay::new(Lines::HexLines);
    (0..count).map(|_| replay.next(clock::now()).telegram).collect()
}

/// The real telegrams; a few made-up ones where they are missing.
pub(super) fn corpus() -> Vec<Vec<u8>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let places = [std::env::var_os("WEIR_DATA").map(Into::into), Some(beside), Some("/work/shared/data".into())];
    let file = places.into_iter().flatten().map(|place| place.join("wmbus/telegrams.jsonl")).find(|file| file.exists());
    let Some(file) = file else {
        eprintln!(
            "note: wmbus/telegrams.jsonl is not there (set WEIR_DATA to its directory); made-up telegrams are used"
        );
        return telegrams(20);
    };
    let text = std::fs::read_to_string(file).unwrap();
    let bytes = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        data_encoding::HEXLOWER_PERMISSIVE.decode(entry["telegram"].as_str().unwrap().as_bytes()).unwrap()
    };
    let all: Vec<Vec<u8>> = text.lines().map(bytes).collect();
    assert!(all.len() > 50);
    all
}

/// Waits until the log says for the `count`th time that a receiver was found, and that it is this one.
pub(super) async fn found(logged: &Logged, count: usize, who: &str) {
    let found = async {
        while logged.lines_with("receiver found") < count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, found).await.expect("the receiver is found within the limit");
    assert!(logged.lines_with(who) >= 1, "{}", String::from_utf8_lossy(&logged.0.lock().unwrap()));
}

/// Lets the stick hear all telegrams at once; each arrives byte for byte, with its strength.
pub(super) async fn hear_all<S: Radio<Strength = u8>>(
    running: &mut Running,
    plugged: &Plugged<S>,
    telegrams: &[Vec<u8>],
    raw: u8,
    rssi: Option<Rssi>,
) {
    for telegram in telegrams {
        plugged.hears(telegram, raw);
        let heard = running.telegram().await.1;
        assert_eq!((heard.kind, &heard.bytes, heard.rssi), (TelegramKind::WirelessMbus, telegram, rssi));
    }
}

/// Ends a receiver and waits until its line is closed.
pub(super) async fn end(running: Running) {
    drop(running.frames);
    running.task.abort();
    let _ = running.task.await;
}

/// A stick is pulled out in the middle of a telegram and plugged in again elsewhere.
pub(super) async fn replug<S: Radio<Strength = u8>>(receiver: &str, simulated: S, raw: u8, rssi: Option<Rssi>) {
    let (logged, _guard) = Logged::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("by-id");
    let mut plugged = plug(simulated).unwrap();
    symlink(plugged.path(), &path).unwrap();
    let mut running = stick(receiver, &path, None, None);
    let telegrams = telegrams(3);
    for (round, telegram) in telegrams.iter().enumerate() {
        found(&logged, round + 1, "receiver found").await;
        hear_all(&mut running, &plugged, std::slice::from_ref(telegram), raw, rssi).await;
        std::fs::remove_file(&path).unwrap();
        let stick = plugged.unplug().await.unwrap();
        running.status(|s| s.source == SourceState::Waiting).await;
        plugged = plug(stick).unwrap();
        plugged.restart();
        symlink(plugged.path(), &path).unwrap();
    }
    end(running).await;
}

/// Waits until a CUL is found and has taken what it was told last.
pub(super) async fn ready(logged: &Logged, plugged: &Plugged<CulStick>) {
    found(logged, 1, "CUL").await;
    timeout(LIMIT, plugged.until(|stick| stick.report != 0)).await.expect("the report is on within the limit");
}
