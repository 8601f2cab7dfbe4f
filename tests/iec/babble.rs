//! Meters and lines that never fall silent hold the bus for a bounded time, and slow readouts are read all the same.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use weir::meter::{MeterError, MeterSettings, Session, protocol};
use weir::model::Quality;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::os::pty::Pty;
use weir::wire::iec62056::Parity;

use crate::plumbing::{configured, text};
use crate::scripted::{block, command, hold_back};

/// What a meter says once it is asked for its data.
#[derive(Debug, Clone)]
enum Says {
    /// Data sets without end.
    Endless,
    /// STX and then noise without end.
    Noise,
    /// One partial block after the other, as often as it is told that the one before came.
    Parts,
    /// This, once for each time it is asked.
    Readout(Vec<u8>),
}

/// Where the meter is: on a pseudo-terminal in real time, or behind a serial server that keeps to 300 Bd.
enum End {
    Pty(Pty),
    Tcp(TcpStream),
}

impl End {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        // Else the kernel holds small pieces back, for long in virtual time.
        stream.set_nodelay(true).unwrap();
        Self::Tcp(stream)
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Self::Pty(pty) => pty.receive(buffer).await.unwrap_or(0),
            Self::Tcp(stream) => stream.read(buffer).await.unwrap_or(0),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Pty(pty) => pty.send(bytes).await.is_ok(),
            Self::Tcp(stream) => stream.write_all(bytes).await.is_ok(),
        }
    }

    fn baud(&self) -> u32 {
        if let Self::Pty(pty) = self { pty.baud().unwrap() } else { 300 }
    }

    /// Sends at the pace of the line, in real time at twenty times that of 300 Bd; a reader at another rate
    /// hears noise. False when the reader is gone.
    async fn say(&mut self, rate: u32, characters: &[u8]) -> bool {
        let mut noise = StdRng::seed_from_u64(7);
        for chunk in characters.chunks(usize::try_from(rate / 100).unwrap()) {
            let mut bytes = chunk.to_vec();
            Parity::Even.apply(&mut bytes);
            if self.baud() != rate {
                bytes.iter_mut().for_each(|byte| *byte = noise.random());
            }
            if !self.send(&bytes).await {
                return false;
            }
            self.pace(rate, chunk.len()).await;
        }
        true
    }

    async fn pace(&self, rate: u32, count: usize) {
        let on_the_way = Duration::from_millis(u64::try_from(10_000 * count).unwrap() / u64::from(rate));
        let faster = if rate == 300 && matches!(self, Self::Pty(_)) { 20 } else { 1 };
        sleep(on_the_way / faster).await;
    }

    async fn babble(&mut self, rate: u32, what: &Says) {
        let mut noise = StdRng::seed_from_u64(1);
        let mut goes_on = self.say(rate, &[2]).await;
        while goes_on {
            if matches!(what, Says::Endless) {
                goes_on = self.say(rate, b"1.8.0(001234.567*kWh)\r\n").await;
            } else {
                let bytes: [u8; 3] = noise.random();
                goes_on = self.send(&bytes).await;
                self.pace(rate, bytes.len()).await;
            }
        }
    }

    /// A meter that signs on at 300 Bd and says its data at `rate`.
    async fn serve(mut self, rate: u32, says: Says) {
        let mut asked = Vec::new();
        let mut buffer = [0; 256];
        loop {
            let count = self.receive(&mut buffer).await;
            if count == 0 {
                return;
            }
            asked.extend(buffer[..count].iter().map(|b| b & 0x7F));
            // What was sent is still on its way for so long.
            sleep(Duration::from_millis(10_000 * u64::try_from(count).unwrap() / u64::from(self.baud()))).await;
            sleep(Duration::from_millis(200)).await;
            let choice = asked.starts_with(&[6]) && asked.ends_with(b"\r\n");
            let goes_on = matches!(says, Says::Parts) && asked == [6];
            if goes_on || (matches!(says, Says::Parts) && asked.starts_with(b"\x01R")) {
                self.say(rate, &block("1.8.0(001234.567*kWh)\r\n", 4)).await;
            } else if asked.ends_with(b"!\r\n") {
                self.say(300, b"/TST5SIM\r\n").await;
            } else if choice && asked.ends_with(b"1\r\n") {
                self.say(rate, &command("P0\x02()")).await;
            } else if choice || asked == [0x15] || asked.starts_with(b"\x01R1") {
                match &says {
                    Says::Readout(bytes) => {
                        self.say(rate, bytes).await;
                    }
                    endless => self.babble(rate, endless).await,
                }
            } else if !asked.starts_with(b"\x01B0") {
                continue;
            }
            asked.clear();
        }
    }
}

async fn opened(endpoint: &Endpoint, settings: &MeterSettings) -> (Box<dyn Session>, Line) {
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    let line = Line::open(endpoint, speed, Direction::Automatic).await.unwrap();
    (protocol("iec62056-21").unwrap().session(settings).unwrap(), line)
}

/// Reads once, and tells how long it took.
async fn read(endpoint: &Endpoint, settings: &MeterSettings) -> (Result<String, MeterError>, Duration) {
    let (mut session, mut line) = opened(endpoint, settings).await;
    let begun = Instant::now();
    let result = session.read(&mut line).await.map(|values| text(&values, "1.8.0").to_owned());
    (result, begun.elapsed())
}

async fn behind_a_server(says: Says, settings: &MeterSettings) -> (Result<String, MeterError>, Duration) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move { End::accept(&listener).await.serve(300, says).await });
    read(&endpoint, settings).await
}

async fn on_a_line(rate: u32, says: Says, settings: &MeterSettings) -> (Result<String, MeterError>, Duration) {
    let pty = Pty::open().unwrap();
    let endpoint = Endpoint::Device(pty.path().to_owned());
    let task = tokio::spawn(End::Pty(pty).serve(rate, says));
    let read = read(&endpoint, settings).await;
    task.abort();
    read
}

const SINGLE: &str = "access = \"programming\"\nvalues = [\"1.8.0\"]\n";

#[tokio::test(start_paused = true)]
async fn a_meter_that_never_falls_silent_holds_the_bus_for_a_bounded_time() {
    hold_back();
    for (says, limit) in [(Says::Endless, 630), (Says::Noise, 30)] {
        for more in ["", SINGLE] {
            let (result, took) = behind_a_server(says.clone(), &configured(&format!("retries = 2\n{more}"))).await;
            let error = result.unwrap_err();
            assert_eq!(error.quality(), Quality::Invalid, "{says:?} {more}: {error}");
            assert!(took < Duration::from_secs(limit), "{says:?} {more}: {took:?}, {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_partial_blocks_without_a_last_one_holds_the_bus_for_a_bounded_time() {
    hold_back();
    let settings = configured(&format!("retries = 2\n{}", SINGLE.replace("]\n", "]\nread_command = \"R3\"\n")));
    let (result, took) = behind_a_server(Says::Parts, &settings).await;
    let error = result.unwrap_err();
    assert_eq!(error.quality(), Quality::Invalid, "{error}");
    assert!(took > Duration::from_secs(60) && took < Duration::from_secs(660), "{took:?}, {error}");
}

#[tokio::test(start_paused = true)]
async fn noise_is_told_from_a_slow_readout_at_every_rate() {
    crate::pace::hold();
    for (rate, more) in [(9600, ""), (9600, SINGLE), (300, "")] {
        let (result, took) = on_a_line(rate, Says::Noise, &configured(&format!("retries = 2\n{more}"))).await;
        assert_eq!(result.unwrap_err().quality(), Quality::Invalid, "{rate} {more}");
        assert!(took < Duration::from_secs(20), "{rate} {more}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_never_silent_is_not_signed_on_to() {
    hold_back();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move { End::accept(&listener).await.babble(300, &Says::Endless).await });
    let (mut session, mut line) = opened(&endpoint, &configured("retries = 2")).await;
    let mut first = [0; 1];
    line.receive(&mut first, Instant::now() + Duration::from_secs(60)).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    let error = session.read(&mut line).await.unwrap_err();
    assert!(error.to_string().contains("does not fall silent"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

fn readout(rows: usize) -> Says {
    let rows: String = (0..rows).map(|n| format!("1.8.0*{n:03}(001234.567*kWh)\r\n")).collect();
    Says::Readout(block(&format!("1.8.0(001234.567*kWh)\r\n{rows}!\r\n"), 3))
}

#[tokio::test(start_paused = true)]
async fn a_readout_of_nine_minutes_at_300_bd_is_read_whole() {
    hold_back();
    let (result, took) = behind_a_server(readout(590), &configured("")).await;
    assert_eq!(result.unwrap(), "001234.567");
    assert!((500..600).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_kept_to_300_bd_is_heard_out_however_long_its_readout() {
    crate::pace::hold();
    // 9600 Bd was chosen: noise, until it is asked for the block again.
    let (result, took) = on_a_line(300, readout(100), &configured("")).await;
    assert_eq!(result.unwrap(), "001234.567");
    assert!(took > Duration::from_secs(8), "two times 2700 characters: {took:?}");
}
