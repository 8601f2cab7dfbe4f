//! HDLC as the standard has it when things go wrong: a scripted meter rejects, is not ready, loses or forgets the
//! connection at one frame, and the whole reading comes all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weir::model::Quality;
use weir::wire::dlms::DataBuf;
use weir::wire::dlms::hdlc::{Control, Decoder, Event, Frame, Parameters};

use crate::link::Reader;
use crate::scripted::{Fault, Meter, Nature};

/// What happens at one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// It is rejected (REJ): it must be sent again.
    Rejects,
    /// The answer is not ready for three polls (RNR).
    NotReady,
    /// It was lost: nothing is said until the client asks.
    Deaf,
    /// The meter says that it is not connected (DM).
    Disconnected,
    /// The meter rejects the frame (FRMR) and the connection with it.
    FrameReject,
    /// The meter's inactivity time-out ended the connection: whoever does not open it anew is not answered.
    Inactive,
}

#[derive(Debug, Default)]
struct Seen {
    snrm: usize,
    disc: usize,
    /// Requests in order, repetitions included.
    requests: Vec<(u8, Vec<u8>)>,
    polls: usize,
}

/// The scripted meter's end of the connection.
struct Secondary {
    brain: Meter,
    seen: Arc<Mutex<Seen>>,
    size: u16,
    /// What happens at the request of this number.
    trick: Option<Trick>,
    at: usize,
    connected: bool,
    vs: u8,
    vr: u8,
    /// How many polls come too early.
    waiting: u32,
    answer: Option<Vec<u8>>,
}

impl Secondary {
    fn take(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        let seen = self.seen.clone();
        let mut seen = seen.lock().unwrap();
        let (control, information) = match &frame.control {
            Control::Snrm => {
                seen.snrm += 1;
                (self.connected, self.vs, self.vr, self.waiting, self.answer) = (true, 0, 0, 0, None);
                let size = self.size;
                let limits = Parameters { transmit: size, receive: size, window_transmit: 1, window_receive: 1 };
                (Control::Ua, limits.encode())
            }
            Control::Disc => {
                seen.disc += 1;
                (if std::mem::take(&mut self.connected) { Control::Ua } else { Control::Dm }, vec![])
            }
            _ if !self.connected => return None,
            Control::I { ns, .. } => {
                seen.requests.push((*ns, frame.information.clone()));
                let at = self.at;
                let trick = self.trick.take_if(|_| seen.requests.len() == at + 1);
                self.request(*ns, &frame.information, trick)?
            }
            Control::Rr { .. } => {
                seen.polls += 1;
                self.speak()
            }
            _ => return None,
        };
        let (destination, source) = (frame.source, frame.destination);
        Some(Frame { segmented: false, destination, source, control, information }.encode().unwrap())
    }

    fn request(&mut self, ns: u8, information: &[u8], trick: Option<Trick>) -> Option<(Control, Vec<u8>)> {
        match trick {
            Some(Trick::Rejects) => return Some((Control::Rej { nr: self.vr, pf: true }, vec![])),
            Some(Trick::Deaf) => return None,
            Some(Trick::Disconnected | Trick::FrameReject | Trick::Inactive) => self.connected = false,
            Some(Trick::NotReady) => self.waiting = 4,
            None => {}
        }
        match trick {
            Some(Trick::Disconnected) => return Some((Control::Dm, vec![])),
            Some(Trick::FrameReject) => return Some((Control::Frmr, vec![0; 3])),
            Some(Trick::Inactive) => return None,
            _ => {}
        }
        assert_eq!(ns, self.vr, "a request is not taken twice");
        self.vr = (self.vr + 1) & 7;
        self.answer = Some([&[0xE6, 0xE7, 0][..], &self.brain.answer_to(&information[3..])].concat());
        Some(self.speak())
    }

    fn speak(&mut self) -> (Control, Vec<u8>) {
        let nr = self.vr;
        if self.waiting > 0 {
            self.waiting -= 1;
            return (Control::Rnr { nr, pf: true }, vec![]);
        }
        let Some(answer) = self.answer.take() else { return (Control::Rr { nr, pf: true }, vec![]) };
        let ns = self.vs;
        self.vs = (self.vs + 1) & 7;
        (Control::I { ns, nr, pf: true }, answer)
    }
}

/// A meter whose frames carry so many bytes; the trick happens at its request of this number.
async fn secondary(trick: Option<Trick>, at: usize, size: u16) -> (u16, Arc<Mutex<Seen>>) {
    let value = |n: u8| ((1, [0, 0, 96, n, 0, 255], 2), DataBuf::Unsigned(100 + n));
    let brain = Meter::start(Nature::with(BTreeMap::from([1, 2, 3].map(value))), usize::MAX, Fault::None).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut meter = Secondary {
        brain,
        seen: seen.clone(),
        size,
        trick,
        at,
        connected: false,
        vs: 0,
        vr: 0,
        waiting: 0,
        answer: None,
    };
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            decoder.push(&buffer[..length]);
            while let Some(event) = decoder.next() {
                let Event::Frame(frame) = event else { continue };
                if let Some(said) = meter.take(&frame) {
                    stream.write_all(&said).await.unwrap();
                }
            }
        }
    });
    (port, seen)
}

const SETTINGS: &str = "timeout = \"400ms\"\nretries = 1\n\
                        values = [\"1/0-0:96.1.0*255\", \"1/0-0:96.2.0*255\", \"1/0-0:96.3.0*255\"]\n";

#[tokio::test(start_paused = true)]
async fn a_reading_survives_everything_that_may_happen_to_a_frame() {
    crate::pace::hold();
    use Trick::{Deaf, Disconnected, FrameReject, Inactive, NotReady, Rejects};
    for (trick, at, openings) in [
        (Rejects, 0, 1),
        (Rejects, 2, 1),
        (NotReady, 0, 1),
        (NotReady, 2, 1),
        (Deaf, 0, 1),
        (Deaf, 2, 1),
        (Disconnected, 0, 2),
        (Disconnected, 2, 2),
        (FrameReject, 0, 2),
        (FrameReject, 2, 2),
        (Inactive, 2, 2),
    ] {
        let (port, seen) = secondary(Some(trick), at, 128).await;
        let mut reader = Reader::tcp(port, SETTINGS).await;
        let values = reader.read().await.unwrap_or_else(|error| panic!("{trick:?} at {at}: {error}"));
        let told: Vec<_> = values.iter().map(|v| (v.value.as_deref(), v.quality)).collect();
        let good = |text| (Some(text), Quality::Good);
        assert_eq!(told, [good("101"), good("102"), good("103")], "{trick:?} at {at}");
        let seen = seen.lock().unwrap();
        assert_eq!(seen.snrm, openings, "{trick:?} at {at}");
        if matches!(trick, Rejects | Deaf) {
            assert_eq!(seen.requests[at], seen.requests[at + 1], "{trick:?} at {at}: it is sent again as it was");
        }
        if trick == NotReady {
            assert!(seen.polls >= 4, "{} polls", seen.polls);
        }
        assert!(seen.disc >= 1, "the connection is ended");
    }
}

#[tokio::test(start_paused = true)]
async fn an_apdu_is_asked_for_that_fills_the_meters_frames() {
    crate::pace::hold();
    // 1024 bytes and the three of the LLC: nine frames of 128, the last with three bytes. One frame of 2030 holds them.
    for (size, pdu) in [(128u16, 1021u16), (300, 897), (512, 1021), (2030, 1024)] {
        let (port, seen) = secondary(None, 0, size).await;
        Reader::tcp(port, SETTINGS).await.read().await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.requests[0].1.last_chunk(), Some(&pdu.to_be_bytes()), "{size}");
    }
}
