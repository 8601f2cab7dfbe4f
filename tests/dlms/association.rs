//! Associations against the meter on gurux-dlms: every authentication, keys, counters, and mischief on the way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir::meter::{Kept, MeterError, MeterSettings, Session, protocol};
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};

use crate::peers::{self, Peer};

const NAME: &str = "GRX0000000000001";

/// A meter, and the files of one client of it.
pub(crate) struct Bench {
    folder: TempDir,
    pub(crate) port: u16,
    _meter: Peer,
}

impl Bench {
    pub(crate) fn new(variables: &[(&str, &str)]) -> Self {
        Self::over("--wrapper", variables)
    }

    fn over(link: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = peers::free_port();
        let log = folder.path().join("log").display().to_string();
        let variables = [variables, &[("METER_LOG", log.as_str())]].concat();
        let meter = Peer::python_with("dlms_meter.py", &[link, &port.to_string()], &variables, "ready");
        let bench = Self { folder, port, _meter: meter };
        bench.file("password", "Gurux\n");
        bench.file("key", "000102030405060708090A0B0C0D0E0F\n");
        bench.file("authentication", "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf");
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// What the meter wrote down: associations, and the counters that it saw.
    pub(crate) fn log(&self) -> Vec<String> {
        std::fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(crate) fn count(&self, start: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(start)).count()
    }

    pub(crate) fn settings(&self, client: u16, authentication: &str, more: &str) -> MeterSettings {
        MeterSettings::parse(&self.text(client, authentication, more)).unwrap()
    }

    /// The settings of a client as text.
    pub(crate) fn text(&self, client: u16, authentication: &str, more: &str) -> String {
        text(client, authentication, more, &|name: &str| self.path(name).display().to_string())
    }

    fn session(&self, settings: &MeterSettings) -> Box<dyn Session> {
        let mut session = protocol("dlms").unwrap().session(settings).unwrap();
        session.keep_in(Kept::new(self.path("kept")));
        session
    }

    /// Reads the device's name in a session that begins with what was kept.
    pub(crate) async fn read(&self, settings: &MeterSettings) -> Result<String, MeterError> {
        read(&mut *self.session(settings), self.port).await
    }
}

/// The settings of a client whose secrets stand in these files.
fn text(client: u16, authentication: &str, more: &str, file: &dyn Fn(&str) -> String) -> String {
    let keys = match authentication {
        "gmac" => format!("key_file = {:?}\nauthentication_key_file = {:?}\n", file("key"), file("authentication")),
        "none" => String::new(),
        _ => format!("password_file = {:?}\n", file("password")),
    };
    format!(
        "name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\ntimeout = \"2s\"\nretries = 0\n\
         values = [\"0-0:42.0.0*255\"]\n{keys}[dlms]\nlink = \"wrapper\"\nclient = {client}\n\
         authentication = \"{authentication}\"\n{more}"
    )
}

pub(crate) const CIPHERED: &str = "security = \"authenticated-encrypted\"\n";

async fn read(session: &mut dyn Session, port: u16) -> Result<String, MeterError> {
    let endpoint = Endpoint::parse(&format!("tcp://127.0.0.1:{port}"));
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    let mut line = Line::open(&endpoint, speed, Direction::Automatic).await.unwrap();
    let values = session.read(&mut line).await?;
    let name = values.into_iter().find(|value| value.name == "0-0:42.0.0*255").unwrap();
    Ok(name.value.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn every_authentication_reads_the_name_of_the_device() {
    crate::pace::hold();
    let bench = Bench::new(&[]);
    for (client, authentication, more) in [
        (16, "none", ""),
        (17, "low", ""),
        (18, "manufacturer", ""),
        (19, "md5", ""),
        (20, "sha1", ""),
        (21, "sha256", ""),
        (1, "gmac", CIPHERED),
    ] {
        let settings = bench.settings(client, authentication, more);
        assert_eq!(bench.read(&settings).await.unwrap(), NAME, "{authentication}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_authentication_works_over_hdlc_too() {
    crate::pace::hold();
    let bench = Bench::over("--hdlc", &[]);
    for (client, authentication, more) in
        [(16, "none", ""), (17, "low", ""), (19, "md5", ""), (21, "sha256", ""), (1, "gmac", CIPHERED)]
    {
        let mut settings = bench.settings(client, authentication, more);
        settings.dlms.as_mut().unwrap().link = weir::meter::dlms::DlmsLink::Hdlc;
        assert_eq!(bench.read(&settings).await.unwrap(), NAME, "{authentication}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_with_short_names_is_read_by_them() {
    crate::pace::hold();
    // The object list comes in blocks.
    let bench = Bench::new(&[("METER_SN", "1"), ("METER_PDU", "100")]);
    for (client, authentication) in [(16, "none"), (17, "low"), (19, "md5"), (21, "sha256")] {
        let settings = bench.settings(client, authentication, "referencing = \"short-names\"");
        assert_eq!(bench.read(&settings).await.unwrap(), NAME, "{authentication}");
    }
    // A meter that has logical names only says so.
    let bench = Bench::new(&[]);
    let settings = bench.settings(16, "none", "referencing = \"short-names\"");
    assert!(bench.read(&settings).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn every_way_to_cipher_reads_the_name_of_the_device() {
    crate::pace::hold();
    let bench = Bench::new(&[]);
    for ciphering in ["auto", "general", "service", "dedicated"] {
        let settings = bench.settings(1, "gmac", &format!("{CIPHERED}ciphering = \"{ciphering}\""));
        assert_eq!(bench.read(&settings).await.unwrap(), NAME, "{ciphering}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_alone_or_ciphertext_alone_is_spoken_too() {
    crate::pace::hold();
    for (security, number) in [("authenticated", "16"), ("encrypted", "32")] {
        let bench = Bench::new(&[("METER_SECURITY", number)]);
        let settings = bench.settings(1, "gmac", &format!("security = \"{security}\""));
        assert_eq!(bench.read(&settings).await.unwrap(), NAME, "{security}");
    }
}

#[tokio::test(start_paused = true)]
async fn suite_2_has_keys_of_256_bits() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_SUITE", "2")]);
    let hex = |first: u8| (first..first + 32).map(|byte| format!("{byte:02x}")).collect::<String>();
    bench.file("key", &hex(0));
    bench.file("authentication", &hex(0xD0));
    let settings = bench.settings(1, "gmac", &format!("{CIPHERED}suite = 2"));
    assert_eq!(bench.read(&settings).await.unwrap(), NAME);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_sent_once_until_its_file_changes() {
    crate::pace::hold();
    for (client, authentication) in [(17, "low"), (19, "md5")] {
        let bench = Bench::new(&[]);
        bench.file("password", "wrong");
        let settings = bench.settings(client, authentication, "");
        let mut session = bench.session(&settings);
        for _ in 0..3 {
            let error = read(&mut *session, bench.port).await.unwrap_err().to_string();
            assert!(error.contains("wrong") && error.contains("change"), "{error}");
        }
        // Nor after a restart.
        assert!(bench.read(&settings).await.is_err());
        assert_eq!(bench.count("AARQ"), 1, "{authentication}");
        bench.file("password", "Gurux");
        assert_eq!(read(&mut *session, bench.port).await.unwrap(), NAME);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_file_is_no_reason_not_to_start_and_is_looked_for_at_each_reading() {
    crate::pace::hold();
    let bench = Bench::new(&[]);
    std::fs::remove_file(bench.path("key")).unwrap();
    let settings = bench.settings(1, "gmac", CIPHERED);
    let mut session = bench.session(&settings);
    let error = read(&mut *session, bench.port).await.unwrap_err();
    assert!(matches!(&error, MeterError::Unasked(why) if why.contains("key_file")), "{error}");
    bench.file("key", "000102030405060708090A0B0C0D0E0F");
    assert_eq!(read(&mut *session, bench.port).await.unwrap(), NAME);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_not_tried_again() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_STRICT", "5")]);
    bench.file("key", "FF0102030405060708090A0B0C0D0E0F");
    let settings = bench.settings(1, "gmac", CIPHERED);
    for _ in 0..2 {
        assert!(bench.read(&settings).await.is_err());
    }
    let before = bench.log();
    let error = bench.read(&settings).await.unwrap_err().to_string();
    assert!(error.contains("not sent again"), "{error}");
    assert_eq!(bench.log(), before);
    bench.file("key", "000102030405060708090A0B0C0D0E0F");
    assert_eq!(bench.read(&settings).await.unwrap(), NAME);
}

#[tokio::test(start_paused = true)]
async fn a_stale_counter_is_resynchronised_by_the_meters_exception() {
    crate::pace::hold();
    // The public client can't read the counter, so that only the exception tells it.
    let bench = Bench::new(&[("METER_STRICT", "2007"), ("METER_BLIND", "1")]);
    let settings = bench.settings(1, "gmac", CIPHERED);
    assert_eq!(bench.read(&settings).await.unwrap(), NAME);
    assert_eq!(bench.count("STALE"), 1, "{:?}", bench.log());
    assert!(bench.log().iter().any(|line| line.starts_with("IC") && line.ends_with(" 2008")), "{:?}", bench.log());
}

#[tokio::test(start_paused = true)]
async fn a_first_counter_is_read_by_the_public_client() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_STRICT", "70000"), ("METER_STALE", "silent")]);
    let settings = bench.settings(1, "gmac", CIPHERED);
    assert_eq!(bench.read(&settings).await.unwrap(), NAME);
    assert_eq!(bench.count("STALE"), 0, "{:?}", bench.log());
}

#[tokio::test(start_paused = true)]
async fn an_older_file_is_noticed_and_no_counter_is_used_twice() {
    crate::pace::hold();
    for stale in ["expected", "plain"] {
        let bench = Bench::new(&[("METER_STRICT", "0"), ("METER_STALE", stale)]);
        let settings = bench.settings(1, "gmac", CIPHERED);
        assert_eq!(bench.read(&settings).await.unwrap(), NAME);
        let files = std::fs::read_dir(bench.path("kept")).unwrap().map(|entry| entry.unwrap().path());
        let kept = files.into_iter().find(|path| path.to_string_lossy().contains("dlmscounter")).unwrap();
        let older = std::fs::read(&kept).unwrap();
        for _ in 0..3 {
            assert_eq!(bench.read(&settings).await.unwrap(), NAME);
        }
        std::fs::write(&kept, older).unwrap();
        assert_eq!(bench.read(&settings).await.unwrap(), NAME, "{stale}");
        assert_eq!(bench.count("STALE"), 1, "{:?}", bench.log());
        assert_eq!(bench.read(&settings).await.unwrap(), NAME);
        assert_eq!(bench.count("STALE"), 1, "{:?}", bench.log());
    }
}

/// Stands between client and meter: changes one bit of the meter's n-th byte, or stops after it.
async fn meddler(meter: u16, place: Arc<AtomicI64>, stops: bool) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", meter)).await.unwrap();
            let place = Arc::clone(&place);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut buffer = [0; 4096];
                let mut seen = 0i64;
                while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                    let (at, bytes) = (place.load(Ordering::SeqCst), &mut buffer[..count]);
                    if (seen..seen + count as i64).contains(&at) {
                        if stops {
                            break;
                        }
                        bytes[usize::try_from(at - seen).unwrap()] ^= 0x04;
                    }
                    seen += count as i64;
                    if to_client.write_all(bytes).await.is_err() {
                        break;
                    }
                }
                up.abort();
            });
        }
    });
    address
}

#[tokio::test(start_paused = true)]
async fn no_changed_bit_of_a_ciphered_association_gives_a_wrong_value() {
    crate::pace::hold();
    let bench = Bench::new(&[]);
    let settings = bench.settings(1, "gmac", &format!("{CIPHERED}ciphering = \"service\""));
    let place = Arc::new(AtomicI64::new(-1));
    let port = meddler(bench.port, Arc::clone(&place), false).await.port();
    assert_eq!(read(&mut *bench.session(&settings), port).await.unwrap(), NAME);
    let mut refused = 0;
    // The answers to association, proof and read together; the wrapper's headers among them.
    for byte in (8..260).step_by(3) {
        place.store(byte, Ordering::SeqCst);
        // A wrong proof is remembered, and a silent meter waited for: both are seen elsewhere.
        let _ = std::fs::remove_dir_all(bench.path("kept"));
        let settings = MeterSettings { timeout: std::time::Duration::from_millis(300), ..settings.clone() };
        match read(&mut *bench.session(&settings), port).await {
            Ok(name) => assert_eq!(name, NAME, "byte {byte}"),
            Err(_) => refused += 1,
        }
    }
    // Only what nothing vouches for may be changed without harm: parts of the plain AARE and of the release.
    assert!(refused > 50, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_cut_off_anywhere_never_use_a_counter_twice() {
    crate::pace::hold();
    let bench = Bench::new(&[("METER_STRICT", "0")]);
    let settings = bench.settings(1, "gmac", CIPHERED);
    let place = Arc::new(AtomicI64::new(-1));
    let port = meddler(bench.port, Arc::clone(&place), true).await.port();
    for byte in (0..300).step_by(20) {
        place.store(byte, Ordering::SeqCst);
        // Each one is dropped in the middle and begins anew with what was kept.
        let _ = read(&mut *bench.session(&settings), port).await;
        // One that fails again and again would be left alone.
        assert_eq!(bench.read(&settings).await.unwrap(), NAME);
    }
    let log = bench.log();
    let used: Vec<_> = log.iter().filter(|line| line.starts_with("IC") || line.starts_with("GMAC")).collect();
    let counters: Vec<_> = used.iter().map(|line| line.split_once(' ').unwrap().1).collect();
    assert!(counters.len() > 20, "{log:?}");
    assert_eq!(counters.iter().collect::<BTreeSet<_>>().len(), counters.len(), "{log:?}");
    assert_eq!(bench.count("STALE"), 0, "{log:?}");
}

/// What `a_client_that_is_killed_...` runs as another process, which is killed: reads without end.
#[tokio::test(start_paused = true)]
async fn a_client_for_killing() {
    crate::pace::hold();
    let Ok(bench) = std::env::var("WEIR_TEST_CLIENT") else { return };
    let (port, folder) = bench.split_once(' ').unwrap();
    let file = |name: &str| format!("{folder}/{name}");
    let settings = MeterSettings::parse(&text(1, "gmac", CIPHERED, &file)).unwrap();
    loop {
        let mut session = protocol("dlms").unwrap().session(&settings).unwrap();
        session.keep_in(Kept::new(file("kept")));
        let _ = read(&mut *session, port.parse().unwrap()).await;
    }
}

#[test]
fn a_client_that_is_killed_again_and_again_never_uses_a_counter_twice() {
    let bench = Bench::new(&[("METER_STRICT", "0")]);
    // A key that never worked would be left alone after two lives.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { assert_eq!(bench.read(&bench.settings(1, "gmac", CIPHERED)).await.unwrap(), NAME) });
    for life in 1..=15 {
        let mut client = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "association::a_client_for_killing", "--nocapture"])
            .env("WEIR_TEST_CLIENT", format!("{} {}", bench.port, bench.folder.path().display()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Each life ends a little later in its dialogue.
        let (before, start) = (bench.log().len(), std::time::Instant::now());
        while bench.log().len() < before + life {
            assert!(start.elapsed().as_secs() < 60, "{:?}", bench.log());
            std::thread::yield_now();
        }
        client.kill().unwrap();
        client.wait().unwrap();
    }
    let log = bench.log();
    let counters: Vec<_> =
        log.iter().filter_map(|line| line.strip_prefix("IC ").or(line.strip_prefix("GMAC "))).collect();
    assert!(counters.len() > 60, "{log:?}");
    assert_eq!(counters.iter().collect::<BTreeSet<_>>().len(), counters.len(), "{log:?}");
    assert_eq!(bench.count("STALE"), 0, "{log:?}");
}
