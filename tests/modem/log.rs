//! What the log tells, and what it must not.

use std::io;
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;
use weir::modem::State;
use weir::sim::modem::{Make, Modem as Simulated};

use super::rig::{QUIET, Room, at, name, plug};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Hears this thread, which is the one all of a test runs on.
    fn start(&self, level: LevelFilter) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let heard = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(move || log.clone());
        tracing::subscriber::set_default(heard.finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

#[tokio::test]
async fn no_number_text_or_pin_is_logged_above_debug_and_no_pin_at_all() {
    for level in [LevelFilter::INFO, LevelFilter::TRACE] {
        let log = Log::default();
        let _guard = log.start(level);
        let folder = tempfile::tempdir().unwrap();
        let make = Make { pin: Some("48151623".into()), refuse_sending: [1].into(), ..Make::default() };
        let plugged = plug(folder.path(), Simulated::new(make));
        std::fs::write(folder.path().join("pin"), "48151623").unwrap();
        let more = format!("{QUIET}pin_file = '{}'", folder.path().join("pin").display());
        let mut room = Room::new(&name(folder.path()), folder.path(), &more, 4);
        room.until(|status| status.state == State::Ready && status.registration.is_some()).await;
        let said = plugged.stick().deliver("+34666123456", "a secret text", at());
        plugged.say(said);
        room.message().await;
        for _refused_then_sent in 0..2 {
            room.handle.send("+34600111222", "another secret").await.unwrap();
        }
        let ring = plugged.stick().ring(Some("+34600333444"));
        plugged.say(ring);
        room.next().await;
        let text = log.text();
        assert!(text.contains("the modem is ready") && text.contains("refused and is not sent"), "{text}");
        assert!(!text.contains("48151623"), "{text}");
        let private = ["666123456", "600111222", "600333444", "secret"];
        assert!(level != LevelFilter::INFO || private.iter().all(|word| !text.contains(word)), "{text}");
    }
}

#[tokio::test]
async fn a_modem_that_is_not_there_is_told_once() {
    let log = Log::default();
    let _guard = log.start(LevelFilter::DEBUG);
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(&name(folder.path()), folder.path(), QUIET, 4);
    room.until(|status| status.fault.is_some()).await;
    let again = async {
        while log.text().matches("still can't be used").count() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::rig::LIMIT, again).await.expect("it is tried again and again");
    let above = log.text().lines().filter(|line| !line.contains("DEBUG")).count();
    assert_eq!(above, 1, "{}", log.text());
    let _plugged = plug(folder.path(), Simulated::new(Make::default()));
    room.until(|status| status.state == State::Ready).await;
    assert!(log.text().contains("the modem is ready"));
}

#[tokio::test]
async fn a_modem_that_comes_and_goes_is_told_once_and_then_counted() {
    let log = Log::default();
    let _guard = log.start(LevelFilter::DEBUG);
    let folder = tempfile::tempdir().unwrap();
    let plugged = plug(folder.path(), Simulated::new(Make::default()));
    let room = Room::new(&name(folder.path()), folder.path(), QUIET, 4);
    for start in 1..4 {
        room.until(|status| status.counters.starts == start && status.registration.is_some()).await;
        let said = plugged.stick().restart();
        plugged.say(said);
    }
    room.until(|status| status.counters.starts == 4).await;
    let above: Vec<String> = log.text().lines().filter(|line| !line.contains("DEBUG")).map(str::to_owned).collect();
    let count = |words: &str| above.iter().filter(|line| line.contains(words)).count();
    assert_eq!((count("the modem is lost"), count("the modem is ready")), (1, 1), "{above:#?}");
    assert!(log.text().contains("losses=3"), "{}", log.text());
}
