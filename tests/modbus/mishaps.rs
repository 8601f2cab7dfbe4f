//! Late, short, doubled, echoed, corrupted and foreign answers, wherever in an exchange: a value that
//! is given is one that the meter sent for that very register.
//!
//! Each answer of the scripted meter holds a number of its own, made of the register's address and of a
//! count. A copy that comes on its own after the next request was sent is not among the mishaps:
//! nothing in RTU or ASCII tells it from an answer (docs/decisions/0002-modbus.md).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use weir::model::Quality;
use weir::os::line::Endpoint;
use weir::os::pty::Pty;
use weir::wire::modbus::{Answer, Request, ascii, rtu, tcp};

use crate::device::Device;

const TIMEOUT: u64 = 120;
/// The registers that are read, each in a request of its own.
const PLACES: [u16; 3] = [0, 2, 5];
const UNIT: u8 = 1;

#[derive(Debug, Clone)]
enum Mishap {
    None,
    /// Milliseconds, below the two time limits that the reader allows for.
    Late(u64),
    /// So many bytes are missing at the end.
    Short(usize),
    Doubled,
    Echoed,
    /// One bit, counted over the frame.
    Flipped(usize),
    /// Another unit's answer with another value comes first, or instead.
    Foreign(bool),
    Noise(Vec<u8>),
    /// The answer comes in two pieces with a pause of so many milliseconds.
    Torn(usize, u64),
    Silent,
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        3 => Just(Mishap::None),
        2 => (1..TIMEOUT * 3 / 2).prop_map(Mishap::Late),
        1 => (1usize..30).prop_map(Mishap::Short),
        1 => Just(Mishap::Doubled),
        1 => Just(Mishap::Echoed),
        2 => (0usize..200).prop_map(Mishap::Flipped),
        1 => any::<bool>().prop_map(Mishap::Foreign),
        1 => prop::collection::vec(any::<u8>(), 1..12).prop_map(Mishap::Noise),
        1 => ((1usize..12), 1..TIMEOUT).prop_map(|(at, pause)| Mishap::Torn(at, pause)),
        1 => Just(Mishap::Silent),
    ]
}

/// How the scripted meter frames, and what it has sent as answers to which register.
#[derive(Debug, Clone)]
struct Script {
    protocol: &'static str,
    mishaps: Vec<Mishap>,
    sent: Arc<Mutex<Vec<(u16, u16)>>>,
}

/// A request as it came: its header, and what it asks.
type Asked = (tcp::Header, Request);

impl Script {
    fn frame(&self, header: tcp::Header, pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match self.protocol {
            "modbus-rtu" => rtu::encode(header.unit, pdu, &mut out),
            "modbus-ascii" => ascii::encode(header.unit, pdu, &mut out),
            _ => tcp::encode(header, pdu, &mut out),
        }
        out
    }

    fn answer(&self, header: tcp::Header, request: &Request, value: u16) -> Vec<u8> {
        let mut pdu = Vec::new();
        Answer::Data(value.to_be_bytes().to_vec()).encode(request, &mut pdu);
        self.frame(header, &pdu)
    }

    /// The pieces that go out for the nth request, each after a pause in milliseconds.
    fn pieces(&self, n: usize, (header, request): &Asked) -> Vec<(u64, Vec<u8>)> {
        let Request::Read { address, .. } = *request else { panic!("{request:?}") };
        let value = address << 8 | (n & 0xFF) as u16;
        self.sent.lock().unwrap().push((address, value));
        let answer = self.answer(*header, request, value);
        let other = tcp::Header { unit: UNIT + 1, transaction: header.transaction.wrapping_sub(1) };
        let foreign = self.answer(other, request, 0xEEEE);
        let mut echo = Vec::new();
        request.encode(&mut echo);
        match self.mishaps[n % self.mishaps.len()].clone() {
            Mishap::None => vec![(0, answer)],
            Mishap::Late(by) => vec![(by, answer)],
            Mishap::Short(by) => vec![(0, answer[..answer.len().saturating_sub(by)].to_vec())],
            Mishap::Doubled => vec![(0, [answer.clone(), answer].concat())],
            Mishap::Echoed => vec![(0, [self.frame(*header, &echo), answer].concat())],
            Mishap::Flipped(bit) => {
                let mut answer = answer;
                // Over TCP the kernel's checksum guards the bytes; the framing's own ones may still be wrong.
                let guarded = if self.protocol == "modbus-tcp" { answer.len() - 2 } else { answer.len() };
                let at = bit % (8 * guarded);
                answer[at / 8] ^= 1 << (at % 8);
                vec![(0, answer)]
            }
            Mishap::Foreign(instead) => vec![(0, if instead { foreign } else { [foreign, answer].concat() })],
            Mishap::Noise(noise) => vec![(0, [noise, answer].concat())],
            Mishap::Torn(at, pause) => {
                let (front, back) = answer.split_at(at.min(answer.len()));
                vec![(0, front.to_vec()), (pause, back.to_vec())]
            }
            Mishap::Silent => Vec::new(),
        }
    }

    async fn on_pty(self, mut pty: Pty) {
        let (mut rtu, mut ascii) = (rtu::RequestDecoder::default(), ascii::Decoder::default());
        let mut buffer = [0; 256];
        let mut n = 0;
        loop {
            let Ok(count) = pty.receive(&mut buffer).await else { return };
            let asked: Vec<(u8, Request)> = if self.protocol == "modbus-rtu" {
                rtu.push(&buffer[..count])
            } else {
                let frames = ascii.push(&buffer[..count]).into_iter().flatten();
                frames.map(|(unit, pdu)| (unit, Request::decode(&pdu).unwrap())).collect()
            };
            for (unit, request) in asked {
                for (pause, piece) in self.pieces(n, &(tcp::Header { transaction: 0, unit }, request)) {
                    sleep(Duration::from_millis(pause)).await;
                    if pty.send(&piece).await.is_err() {
                        return;
                    }
                }
                n += 1;
            }
        }
    }

    async fn on_tcp(self, listener: TcpListener) {
        let mut n = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            n = self.serve(&mut stream, n).await;
        }
    }

    async fn serve(&self, stream: &mut TcpStream, mut n: usize) -> usize {
        let mut decoder = tcp::Decoder::default();
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            decoder.push(&buffer[..count]);
            while let Some(Ok((header, pdu))) = decoder.next() {
                let request = Request::decode(&pdu).unwrap();
                for (pause, piece) in self.pieces(n, &(header, request)) {
                    sleep(Duration::from_millis(pause)).await;
                    if stream.write_all(&piece).await.is_err() {
                        return n + 1;
                    }
                }
                n += 1;
            }
        }
        n
    }
}

/// Reads a few times and judges every value; what is wrong, in words.
async fn judge(protocol: &'static str, mishaps: Vec<Mishap>) -> Result<usize, String> {
    let script = Script { protocol, mishaps, sent: Arc::default() };
    let mut tasks = JoinSet::new();
    let endpoint = if protocol == "modbus-tcp" {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(script.clone().on_tcp(listener));
        Endpoint::Tcp(address.to_string())
    } else {
        let pty = Pty::open().unwrap();
        let path = pty.path().to_owned();
        tasks.spawn(script.clone().on_pty(pty));
        Endpoint::Device(path)
    };
    let registers = PLACES.map(|a| format!("{{ name = \"{a}\", register = \"holding:{a}\" }}")).join(", ");
    let text = format!("protocol = \"{protocol}\"\nretries = 1\ntimeout = \"{TIMEOUT}ms\"\nregister = [{registers}]");
    let mut device = Device::open(endpoint, &text).await;
    let mut good = 0;
    for _ in 0..4 {
        let Ok(values) = device.read().await else { continue };
        for value in values.iter().filter(|v| v.quality == Quality::Good) {
            let (address, number): (u16, u16) =
                (value.name.parse().unwrap(), value.value.as_ref().unwrap().parse().unwrap());
            if !script.sent.lock().unwrap().contains(&(address, number)) {
                return Err(format!("{number:#06x} was given for register {address}, but never sent for it"));
            }
            good += 1;
        }
    }
    Ok(good)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn a_value_is_one_that_the_meter_sent_for_that_register(
        cases in prop::collection::vec(prop::collection::vec(mishap(), 1..12), 40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (good, wrong) = runtime.block_on(async {
            crate::pace::hold();
            let mut tasks = JoinSet::new();
            for (n, mishaps) in cases.iter().enumerate() {
                let protocol = ["modbus-rtu", "modbus-ascii", "modbus-tcp"][n % 3];
                let mishaps = mishaps.clone();
                tasks.spawn(async move { (judge(protocol, mishaps.clone()).await, protocol, mishaps) });
            }
            let (mut good, mut wrong) = (0, Vec::new());
            while let Some(done) = tasks.join_next().await {
                match done.unwrap() {
                    (Ok(count), ..) => good += count,
                    (Err(why), protocol, mishaps) => wrong.push((why, protocol, mishaps)),
                }
            }
            (good, wrong)
        });
        prop_assert!(wrong.is_empty(), "{wrong:?}");
        prop_assert!(good > 40, "only {good} values were read at all");
    }
}
