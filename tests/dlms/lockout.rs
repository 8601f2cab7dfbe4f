//! A wrong password or key is shown a bounded number of times, whatever the meter does with it, over every link, and
//! over restarts of weir.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weir::meter::bus::{self, Meter, Port};
use weir::meter::{Health, MeterSettings};
use weir::os::clock::Clock;
use weir::os::line::{Endpoint, Framing, Speed};
use weir::wire::dlms::hdlc::{Control, Decoder as Framer, Event as Framed, Frame};
use weir::wire::dlms::wrapper::{Decoder, Event, Unit};
use weir::wire::iec62056;

/// What carries the APDUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Wrapper,
    Hdlc,
    ModeE,
}

/// What the meter does with a password or proof that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It closes the connection.
    HangsUp,
    /// It does not answer any more.
    Silent,
    /// It says by HDLC that there is no connection.
    Dm,
    /// It ends the HDLC connection.
    Disc,
    /// It refuses with this diagnostic, or with this result of the action.
    Says(u8),
}

/// What the meter answers.
enum Answer {
    Apdu(Vec<u8>),
    Does(Manner),
}

/// A meter that counts how often it was shown something wrong.
#[derive(Clone)]
struct Scripted {
    manner: Manner,
    shown: Arc<Mutex<usize>>,
    /// It closes the connection when the public client calls.
    private: bool,
    port: u16,
}

const HEAD: [u8; 11] = [0xA1, 9, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 1];
const GRANTED: [u8; 18] = [0xBE, 0x10, 4, 0x0E, 8, 0, 6, 0x5F, 0x1F, 4, 0, 0, 0x10, 0, 2, 0, 0, 7];
/// `mechanism-name` of HLS 3, MD5, as a request and an answer hold it.
const MD5: [u8; 7] = [0x60, 0x85, 0x74, 5, 8, 2, 3];

impl Scripted {
    async fn start(way: Way, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let meter = Self { manner, shown: Arc::default(), private: false, port };
        let served = meter.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let meter = served.clone();
                tokio::spawn(async move {
                    match way {
                        Way::Wrapper => meter.wrapper(stream).await,
                        Way::Hdlc => meter.hdlc(stream).await,
                        Way::ModeE => meter.mode_e(stream).await,
                    }
                });
            }
        });
        meter
    }

    fn shown(&self) -> usize {
        *self.shown.lock().unwrap()
    }

    fn wrong(&self) -> Answer {
        *self.shown.lock().unwrap() += 1;
        Answer::Does(self.manner)
    }

    fn answer(&self, apdu: &[u8]) -> Answer {
        let has = |part: &[u8]| apdu.windows(part.len()).any(|window| window == part);
        Answer::Apdu(match apdu {
            [0x60, ..] if has(&MD5) => {
                let proof = [&[0x88, 2, 7, 0x80, 0x89, 7][..], &MD5, &[0xAA, 0x12, 0x80, 0x10], &[7; 16]].concat();
                aare(&[&[0xA2, 3, 2, 1, 0, 0xA3, 5, 0xA1, 3, 2, 1, 0x0E], &proof[..], &GRANTED].concat())
            }
            [0x60, ..] if has(b"right") => {
                aare(&[&[0xA2, 3, 2, 1, 0, 0xA3, 5, 0xA1, 3, 2, 1, 0][..], &GRANTED].concat())
            }
            [0x60, ..] => match self.wrong() {
                Answer::Does(Manner::Says(code)) => aare(&[0xA2, 3, 2, 1, 1, 0xA3, 5, 0xA1, 3, 2, 1, code]),
                other => return other,
            },
            [0xC3, 1, id, ..] => match self.wrong() {
                Answer::Does(Manner::Says(code)) => vec![0xC7, 1, *id, code, 0],
                other => return other,
            },
            [0xC0, 1, id, 0, 1, 0, 0, 42, ..] => vec![0xC4, 1, *id, 0, 9, 4, b'N', b'A', b'M', b'E'],
            [0xC0, 1, id, ..] => vec![0xC4, 1, *id, 1, 4],
            [0x62, ..] => vec![0x63, 3, 0x80, 1, 0],
            _ => vec![0xD8, 1, 2],
        })
    }

    async fn wrapper(&self, mut stream: TcpStream) {
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            decoder.push(&buffer[..count]);
            while let Some(event) = decoder.next() {
                let Event::Unit(unit) = event else { continue };
                if self.private && unit.source == 16 {
                    return;
                }
                let apdu = match self.answer(&unit.apdu) {
                    Answer::Apdu(apdu) => apdu,
                    Answer::Does(Manner::Silent) => continue,
                    Answer::Does(_) => return,
                };
                let unit = Unit { source: unit.destination, destination: unit.source, apdu };
                stream.write_all(&unit.encode().unwrap()).await.unwrap();
            }
        }
    }

    async fn mode_e(&self, mut stream: TcpStream) {
        let (mut decoder, mut buffer) = (iec62056::Decoder::new(), [0; 256]);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            decoder.push(&buffer[..count]);
            while let Some(event) = decoder.next() {
                let iec62056::Event::Message(message, _) = event else { continue };
                let (answer, done) = match message {
                    iec62056::Message::Request { .. } => {
                        let identification = iec62056::Identification {
                            manufacturer: "WEI".into(),
                            baud: '5',
                            enhanced: vec!['2'],
                            model: "SIM".into(),
                        };
                        (iec62056::Message::Identification(identification), false)
                    }
                    choice @ iec62056::Message::OptionSelect(_) => (choice, true),
                    _ => continue,
                };
                let mut bytes = Vec::new();
                iec62056::encode(&answer, &mut bytes);
                iec62056::Parity::Even.apply(&mut bytes);
                stream.write_all(&bytes).await.unwrap();
                if done {
                    return self.hdlc(stream).await;
                }
            }
        }
    }

    async fn hdlc(&self, mut stream: TcpStream) {
        let (mut framer, mut buffer) = (Framer::new(), [0; 4096]);
        let (mut sent, mut taken, mut deaf) = (0, 0, false);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            framer.push(&buffer[..count]);
            while let Some(event) = framer.next() {
                let Framed::Frame(frame) = event else { continue };
                let mut information = Vec::new();
                let control = match frame.control {
                    Control::Snrm => {
                        (sent, taken, deaf) = (0, 0, false);
                        Control::Ua
                    }
                    Control::Disc => Control::Ua,
                    // A copy is shown to nobody, but it would be if the meter had begun anew meanwhile.
                    Control::I { ns, .. } if ns != taken => {
                        *self.shown.lock().unwrap() += 1;
                        continue;
                    }
                    Control::I { .. } => {
                        taken = (taken + 1) & 7;
                        match self.answer(&frame.information[3..]) {
                            Answer::Apdu(apdu) => {
                                information = [&[0xE6, 0xE7, 0][..], &apdu].concat();
                                sent += 1;
                                Control::I { ns: (sent - 1) & 7, nr: taken, pf: true }
                            }
                            Answer::Does(Manner::Silent) => {
                                deaf = true;
                                continue;
                            }
                            Answer::Does(Manner::Dm) => Control::Dm,
                            Answer::Does(Manner::Disc) => Control::Disc,
                            Answer::Does(_) => return,
                        }
                    }
                    Control::Rr { .. } if !deaf => Control::Rr { nr: taken, pf: true },
                    _ => continue,
                };
                let (destination, source) = (frame.source, frame.destination);
                let frame = Frame { segmented: false, destination, source, control, information };
                stream.write_all(&frame.encode().unwrap()).await.unwrap();
            }
        }
    }
}

fn aare(rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(HEAD.len() + rest.len()).unwrap();
    [&[0x61, length][..], &HEAD, rest].concat()
}

fn settings(way: Way, authentication: &str, folder: &Path, more: &str) -> MeterSettings {
    let link = match way {
        Way::Wrapper => "wrapper",
        Way::Hdlc => "hdlc",
        Way::ModeE => "hdlc-mode-e",
    };
    MeterSettings::parse(&format!(
        "name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\ntimeout = \"150ms\"\nretries = 1\nevery = \"1s\"\n{more}\
         values = [\"1/0-0:42.0.0*255\"]\npassword_file = {:?}\n[dlms]\nlink = \"{link}\"\nclient = 17\n\
         authentication = \"{authentication}\"\nmode_e_pause = \"1ms\"\n",
        folder.join("password").display().to_string(),
    ))
    .unwrap()
}

fn port(number: u16) -> Port {
    let endpoint = Endpoint::parse(&format!("tcp://127.0.0.1:{number}"));
    Port::plain("p", endpoint, Speed { baud: 9600, framing: Framing::EIGHT_N_ONE })
}

fn meter(settings: &MeterSettings, folder: &Path) -> Meter {
    Meter::new(settings).unwrap().kept_in(&folder.join("kept"))
}

/// An agent's life: readings by its schedule, and many that somebody asks for.
async fn life(number: u16, settings: &MeterSettings, folder: &Path) -> Vec<String> {
    let (frames, mut taken) = mpsc::channel(8);
    let (door, inbox) = bus::Handle::new("p");
    let meters = vec![meter(settings, folder)];
    let running = tokio::spawn(bus::run(port(number), meters, frames, inbox, Clock::system(), Health::new()));
    let drain = tokio::spawn(async move { while taken.recv().await.is_some() {} });
    let mut told = Vec::new();
    for _ in 0..8 {
        told.push(door.read("m").await.unwrap_err());
    }
    running.abort();
    drain.abort();
    told
}

/// Reads a meter that is shown a wrong password or proof, through two lives of an agent and by hand; how often it was.
async fn tried(way: Way, authentication: &str, manner: Manner) -> usize {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "wrong").unwrap();
    let scripted = Scripted::start(way, manner).await;
    let settings = settings(way, authentication, folder.path(), "");
    for _ in 0..2 {
        let told = life(scripted.port, &settings, folder.path()).await;
        let last = told.last().unwrap();
        assert!(last.contains("password or key") && last.contains("not sent again before"), "{told:#?}");
    }
    for _ in 0..3 {
        bus::read_once(&port(scripted.port), &mut meter(&settings, folder.path())).await.unwrap_err();
    }
    let shown = scripted.shown();
    if authentication == "low" {
        std::fs::write(folder.path().join("password"), "right").unwrap();
        let values = bus::read_once(&port(scripted.port), &mut meter(&settings, folder.path())).await.unwrap();
        assert_eq!(values[0].value.as_deref(), Some("NAME"));
    }
    shown
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_hangs_up_on_a_wrong_password_is_shown_it_twice() {
    crate::pace::hold();
    for way in [Way::Wrapper, Way::Hdlc, Way::ModeE] {
        assert_eq!(tried(way, "low", Manner::HangsUp).await, 2, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_stays_silent_on_a_wrong_password_is_shown_it_twice() {
    crate::pace::hold();
    for way in [Way::Wrapper, Way::Hdlc, Way::ModeE] {
        assert_eq!(tried(way, "low", Manner::Silent).await, 2, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_disconnects_on_a_wrong_password_is_shown_it_twice() {
    crate::pace::hold();
    for way in [Way::Hdlc, Way::ModeE] {
        for manner in [Manner::Dm, Manner::Disc] {
            assert_eq!(tried(way, "low", manner).await, 2, "{way:?} {manner:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_a_meter_does_with_a_wrong_proof_it_is_shown_it_twice() {
    crate::pace::hold();
    for (way, manner) in [
        (Way::Wrapper, Manner::HangsUp),
        (Way::Wrapper, Manner::Silent),
        (Way::Hdlc, Manner::HangsUp),
        (Way::Hdlc, Manner::Silent),
        (Way::Hdlc, Manner::Dm),
        (Way::Hdlc, Manner::Disc),
        (Way::ModeE, Manner::Dm),
        // Temporary failure, hardware fault.
        (Way::Wrapper, Manner::Says(2)),
        (Way::Hdlc, Manner::Says(1)),
    ] {
        assert_eq!(tried(way, "md5", manner).await, 2, "{way:?} {manner:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_meter_refuses_clearly_is_shown_once_and_without_a_reason_twice() {
    crate::pace::hold();
    for way in [Way::Wrapper, Way::Hdlc, Way::ModeE] {
        assert_eq!(tried(way, "low", Manner::Says(13)).await, 1, "{way:?}");
    }
    assert_eq!(tried(Way::Wrapper, "low", Manner::Says(1)).await, 2);
    assert_eq!(tried(Way::Wrapper, "low", Manner::Says(0)).await, 2);
    // Read-write denied, other reason.
    assert_eq!(tried(Way::Wrapper, "md5", Manner::Says(3)).await, 1);
    assert_eq!(tried(Way::Hdlc, "md5", Manner::Says(250)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_password_that_works_is_not_given_up_for_a_connection_that_breaks_now_and_then() {
    crate::pace::hold();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "right").unwrap();
    let good = Scripted::start(Way::Wrapper, Manner::HangsUp).await;
    let settings = settings(Way::Wrapper, "low", folder.path(), "");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let between = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        // Every second connection is cut when the request has come.
        for number in 0.. {
            let Ok((mut client, _)) = listener.accept().await else { return };
            let mut server = TcpStream::connect(("127.0.0.1", good.port)).await.unwrap();
            if number % 2 == 1 {
                let _ = client.read(&mut [0; 4096]).await;
                continue;
            }
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    for _ in 0..12 {
        let values = bus::read_once(&port(between), &mut meter(&settings, folder.path())).await.unwrap();
        assert_eq!(values[0].value.as_deref(), Some("NAME"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_hangs_up_on_the_public_client_is_read_all_the_same() {
    crate::pace::hold();
    // What is ciphered is asked of the meter on gurux; this one only stands before it.
    let bench = crate::association::Bench::new(&[("METER_STRICT", "2007")]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let between = listener.local_addr().unwrap().port();
    let behind = bench.port;
    let called = Arc::new(Mutex::new(0));
    let count = called.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
            let count = count.clone();
            tokio::spawn(async move {
                let mut first = [0; 4096];
                let size = client.read(&mut first).await?;
                if first[2..4] == [0, 16] {
                    *count.lock().unwrap() += 1;
                    return Ok(());
                }
                server.write_all(&first[..size]).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.map(|_| ())
            });
        }
    });
    let settings = bench.settings(1, "gmac", crate::association::CIPHERED);
    for _ in 0..3 {
        let mut meter = Meter::new(&settings).unwrap().kept_in(&bench.path("kept"));
        let values = bus::read_once(&port(between), &mut meter).await.unwrap();
        assert_eq!(values[0].value.as_deref(), Some("GRX0000000000001"));
    }
    assert_eq!(*called.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_fails_while_the_counter_is_read_is_no_refusal_of_the_key() {
    crate::pace::hold();
    let bench = crate::association::Bench::new(&[("METER_STRICT", "5")]);
    let settings = bench.settings(1, "gmac", crate::association::CIPHERED);
    assert!(bench.read(&settings).await.is_ok());
    // From now on the meter can't decipher, and the connection breaks when the public client asks for the counter.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let broken = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
                while let Ok(count @ 1..) = client.read(&mut buffer).await {
                    decoder.push(&buffer[..count]);
                    while let Some(Event::Unit(unit)) = decoder.next() {
                        if unit.source == 16 {
                            return;
                        }
                        // Exception: deciphering error.
                        let unit = Unit { source: 1, destination: unit.source, apdu: vec![0xD8, 1, 5] };
                        client.write_all(&unit.encode().unwrap()).await.unwrap();
                    }
                }
            });
        }
    });
    let mut meter = Meter::new(&settings).unwrap().kept_in(&bench.path("kept"));
    bus::read_once(&port(broken), &mut meter).await.unwrap_err();
    // The next reading is well again: nothing was remembered for a day.
    assert!(bench.read(&settings).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_never_came_to_the_meter_is_not_counted() {
    crate::pace::hold();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "right").unwrap();
    let settings = settings(Way::Hdlc, "low", folder.path(), "");
    // A serial server with nothing behind it.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let dead = listener.local_addr().unwrap().port();
    let (held, mut holds) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            held.send(stream).await.unwrap();
        }
    });
    for _ in 0..6 {
        let (port, mut meter) = (port(dead), meter(&settings, folder.path()));
        let read = bus::read_once(&port, &mut meter);
        assert!(tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap_err().is_silence());
    }
    holds.close();
    let scripted = Scripted::start(Way::Hdlc, Manner::HangsUp).await;
    let values = bus::read_once(&port(scripted.port), &mut meter(&settings, folder.path())).await.unwrap();
    assert_eq!(values[0].value.as_deref(), Some("NAME"));
}
