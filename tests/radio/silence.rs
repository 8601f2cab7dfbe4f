//! A receiver that falls silent: told once, opened again, reset by USB, and heard again.

use std::fs;
use std::path::PathBuf;

use weir::sim::im871a::Im871a;
use weir::sim::stick::plug;

use super::*;

/// Half a second is a long silence here.
fn rules() -> Rules {
    Rules {
        shortest: Duration::from_millis(500),
        unlearnt: Duration::from_millis(500),
        pause: Duration::from_millis(300),
        ..Rules::default()
    }
}

/// A sysfs in which the serial port hangs at a USB bus; gives the file that resets its device.
fn usb_of(port: &Path, sys: &Path) -> PathBuf {
    let device = sys.join("devices/usb1/1-1");
    let interface = device.join("1-1:1.0");
    let class = sys.join("class/tty").join(port.file_name().unwrap());
    fs::create_dir_all(&interface).unwrap();
    fs::create_dir_all(&class).unwrap();
    fs::write(device.join("idVendor"), "10c4\n").unwrap();
    symlink(&interface, class.join("device")).unwrap();
    let authorized = device.join("authorized");
    fs::write(&authorized, "-").unwrap();
    authorized
}

#[tokio::test(start_paused = true)]
async fn a_silent_receiver_is_told_reopened_and_reset_and_its_first_telegram_ends_it() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let sys = tempfile::tempdir().unwrap();
    let mut pty = Pty::open().unwrap();
    let authorized = usb_of(pty.path(), sys.path());
    let device = Some(pty.path().to_string_lossy().into_owned());
    // Between two attempts there must be time to look.
    let rules = Rules { pause: Duration::from_secs(2), ..rules() };
    let mut running = start_by(settings("hex-lines", device, None), 4, rules, sys.path());
    let mut replay = RadioReplay::new(Lines::HexLines);
    running.status(|s| s.source == SourceState::Open).await;
    let step = replay.next(clock::now());
    pty.send(step.text.as_bytes()).await.unwrap();
    assert_eq!(running.telegram().await.1.bytes, step.telegram);

    let status = running.status(|s| s.reopened == 1 && s.opened == 2).await;
    assert_eq!((status.silences, status.resets, status.source), (1, 0, SourceState::Silent));
    assert_eq!(fs::read_to_string(&authorized).unwrap(), "-");
    let status = running.status(|s| s.resets == 1 && s.opened == 3).await;
    assert_eq!((status.silences, status.reopened, status.failures), (1, 2, 0));
    assert_eq!(fs::read_to_string(&authorized).unwrap(), "1");

    let step = replay.next(clock::now());
    pty.send(step.text.as_bytes()).await.unwrap();
    assert_eq!(running.telegram().await.1.bytes, step.telegram);
    running.status(|s| s.source == SourceState::Open).await;
    assert_eq!((logged.lines_with("WARN"), logged.lines_with("silent against its usual rate")), (1, 1));
    assert_eq!((logged.lines_with("no longer silent"), logged.lines_with("USB device was reset")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_is_there_and_answers_no_more_is_reset() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let sys = tempfile::tempdir().unwrap();
    let stick = plug(Im871a::new(0x33, 0x14, 1)).unwrap();
    let authorized = usb_of(stick.path(), sys.path());
    let device = Some(stick.path().to_string_lossy().into_owned());
    let settings = RadioSettings { baud: None, ..settings("im871a", device, None) };
    // Longer than it takes to find out that nobody answers.
    let (unlearnt, pause) = (Duration::from_secs(6), Duration::from_secs(3));
    let rules = Rules { shortest: unlearnt, unlearnt, pause, retell: Duration::from_millis(200) };
    let running = start_by(settings, 4, rules, sys.path());
    timeout(LIMIT, stick.until(|stick| stick.ids().len() == 5)).await.unwrap();
    stick.look(|stick| stick.deaf = u32::MAX);
    let mut watch = running.health.watch();
    let reset = watch.wait_for(|status| status.resets > 0);
    let status = timeout(6 * LIMIT, reset).await.expect("a reset").unwrap().clone();
    assert_eq!((status.silences, fs::read_to_string(&authorized).unwrap().as_str()), (1, "1"));
    assert_eq!((logged.lines_with("receiver is gone"), logged.lines_with("silent against its usual rate")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_reset_is_told_once_with_what_to_do_and_reopened_all_the_same() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let sys = tempfile::tempdir().unwrap();
    let pty = Pty::open().unwrap();
    let authorized = usb_of(pty.path(), sys.path());
    fs::remove_file(&authorized).unwrap();
    fs::create_dir(&authorized).unwrap();
    let device = Some(pty.path().to_string_lossy().into_owned());
    let running = start_by(settings("hex-lines", device, None), 4, rules(), sys.path());
    let status = running.status(|s| s.reopened == 3).await;
    assert_eq!((status.silences, status.resets), (1, 0));
    assert!(status.no_reset.unwrap().contains("authorized"));
    assert_eq!((logged.lines_with("WARN"), logged.lines_with("can't be reset")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_falls_silent_is_started_again() {
    crate::pace::hold();
    let step = RadioReplay::new(Lines::HexLines).next(clock::now());
    let script = format!("echo {}; exec sleep 1000", step.text.trim_end());
    let running = start_by(settings("hex-lines", None, Some(&["sh", "-c", &script])), 4, rules(), Path::new("/sys"));
    let status = running.status(|s| s.heard == 3).await;
    assert!(status.silences >= 2 && status.reopened >= 2 && status.failures == 0 && status.resets == 0, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_only_to_be_reported_is_left_open() {
    crate::pace::hold();
    let pty = Pty::open().unwrap();
    let device = Some(pty.path().to_string_lossy().into_owned());
    let quiet = RadioSettings { silence: At::nowhere(OnSilence::Report), ..settings("hex-lines", device, None) };
    let running = start_by(quiet, 4, rules(), Path::new("/sys"));
    running.status(|s| s.source == SourceState::Silent).await;
    // Long enough for two attempts, if there were any.
    let attempted = timeout(Duration::from_secs(2), running.status(|s| s.opened > 1)).await;
    assert!(attempted.is_err());
    assert_eq!(running.health.status().silences, 1);
}
