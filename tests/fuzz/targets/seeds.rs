//! What each target begins with: what the sources have, as each receiver or meter would send it, and messages of
//! protocols that nothing recorded is there of.

use data_encoding::HEXLOWER;
use weir::wire::amber::{self as amber_wire, Form};
use weir::wire::dlms::hdlc::{self, Address, Control, Parameters};
use weir::wire::dlms::open::{Keys, seal};
use weir::wire::dlms::wrapper::Unit;
use weir::wire::iec62056::{self as iec, Message};
use weir::wire::modbus::tcp::{self, Header};
use weir::wire::modbus::{Answer, Exception, Request, Table, ascii, rtu};
use weir::wire::numbered as numbered_wire;
use weir::wire::openlinkiq_line::{self as openlinkiq_wire, Capture, Payload, Time};
use weir::wire::unframed::{self as unframed_wire, Strength};
use weir::wire::wmbus::chips::{self as chips_wire, BitOrder, LineCode};
use weir::wire::wmbus::format::{self, FrameFormat};
use weir::wire::{cul as cul_wire, imst_hci as imst, iu891a as iu891a_wire, mbus as mbus_wire, rc1180 as rc1180_wire};

use super::dlms::TITLE;
use super::sources::{Seeds, Sources, bytes_of};
use super::words::{sml_file, sml_transport};

pub fn amber(from: &Sources) -> Seeds {
    let forms = [(false, false), (true, false), (false, true), (true, true)];
    let told = forms.map(|(framed, rssi)| {
        from.told(|telegram, line| amber_wire::encode_telegram(telegram, Form { framed, rssi }, 0x50, line))
    });
    let mut answer = Vec::new();
    amber_wire::encode(amber_wire::command::GET | 0x80, &[&[0, 120][..], &[1; 120]].concat(), &mut answer);
    told.concat().into_iter().chain([answer]).collect()
}

pub fn rc1180(from: &Sources) -> Seeds {
    let told = [None, Some(0x50)].map(|rssi| from.told(|telegram, line| rc1180_wire::encode(telegram, rssi, line)));
    let listing = [vec![1; 128], vec![0xFF; 128], vec![b'>']].concat();
    told.concat().into_iter().chain([listing]).collect()
}

pub fn unframed(from: &Sources) -> Seeds {
    let forms = [Strength::None, Strength::Counted, Strength::Behind];
    forms.map(|form| from.told(|telegram, line| unframed_wire::encode(telegram, form, 0x50, line))).concat()
}

pub fn imst_hci(from: &Sources) -> Seeds {
    let message = |telegram: &[u8], checked: bool| imst::Message {
        endpoint: imst::RADIO,
        id: imst::TELEGRAM,
        payload: telegram.get(1..).unwrap_or_default().to_vec(),
        stamp: checked.then_some(7),
        rssi: Some(0x50),
        checked,
    };
    let told =
        [true, false].map(|checked| from.told(|telegram, line| drop(imst::encode(&message(telegram, checked), line))));
    told.concat()
}

pub fn iu891a(from: &Sources) -> Seeds {
    let reported = iu891a_wire::Reported { clock: 7, status: [0; 2], mode: 3, rssi: -70 };
    from.told(|telegram, line| {
        drop(iu891a_wire::encode(&iu891a_wire::Message::telegram(reported, telegram), line));
    })
}

pub fn openlinkiq_line(from: &Sources) -> Seeds {
    let heard = |bits: &Vec<u8>| {
        let capture = Capture { payload: Payload::Bits(bits.clone()), rssi: Some(-70), time: Time::Unknown };
        let mut line = Vec::new();
        let _ = openlinkiq_wire::encode(&openlinkiq_wire::Message::Name("fuzz 1.0".into()), &mut line);
        let _ = openlinkiq_wire::encode(&openlinkiq_wire::Message::Heard(capture), &mut line);
        line
    };
    from.on_air.iter().map(heard).collect()
}

pub fn cul(from: &Sources) -> Seeds {
    let forms = [(FrameFormat::A, None), (FrameFormat::A, Some((0x20, 0xD0))), (FrameFormat::B, None)];
    forms
        .map(|(form, quality)| from.told(|telegram, line| drop(cul_wire::encode(form, telegram, quality, line))))
        .concat()
}

pub fn hex_lines(from: &Sources) -> Vec<String> {
    let telegrams = from.telegrams.iter().map(|(_, telegram)| telegram);
    telegrams.chain(&from.mbal).map(|telegram| HEXLOWER.encode(telegram)).collect()
}

pub fn hex(from: &Sources) -> Seeds {
    hex_lines(from).into_iter().map(|line| format!("0x{line};-70;3\r\n{line}\n").into_bytes()).collect()
}

pub fn rtl_wmbus(from: &Sources) -> Seeds {
    let line = |hex| format!("T1;1;1;2026-11-22 11:39:14.000;77;42;33007719;0x{hex}\n");
    hex_lines(from).into_iter().map(|hex| line(hex).into_bytes()).collect()
}

pub fn rtl_433(from: &Sources) -> Seeds {
    let line = |hex| {
        format!(
            "{{\"time\" : \"2026-11-22 11:39:14\", \"model\" : \"Wireless-MBus\", \"data\" : \"{hex}\", \"mic\" : \"CRC\", \"rssi\" : -1.5}}\n"
        )
    };
    hex_lines(from).into_iter().map(|hex| line(hex).into_bytes()).collect()
}

pub fn lines(from: &Sources) -> Seeds {
    let mut seeds = [cul(from), rtl_wmbus(from)].concat();
    seeds.push(vec![b'x'; 9000]);
    seeds
}

pub fn mbal(from: &Sources) -> Seeds {
    from.mbal.clone()
}

pub fn on_air(from: &Sources) -> Seeds {
    from.on_air.clone()
}

pub fn telegrams(from: &Sources) -> Seeds {
    from.told(|telegram, line| line.extend_from_slice(telegram)).into_iter().chain(from.mbal.clone()).collect()
}

pub fn formats(from: &Sources) -> Seeds {
    let forms = [FrameFormat::A, FrameFormat::B];
    forms.map(|form| from.told(|telegram, frame| drop(format::encode(form, telegram, frame)))).concat()
}

pub fn chips(from: &Sources) -> Seeds {
    let codes = [LineCode::ThreeOfSix, LineCode::Manchester];
    let seeds = codes.map(|code| {
        from.told(|telegram, line| {
            let mut frame = Vec::new();
            if format::encode(FrameFormat::A, telegram, &mut frame).is_ok() {
                chips_wire::encode(code, BitOrder::HighFirst, &frame, line);
            }
        })
    });
    seeds.concat()
}

/// The key, the telegram, and the same telegram again.
pub fn keyed_telegrams(from: &Sources) -> Seeds {
    from.telegrams.iter().map(|(key, telegram)| [&key[..], telegram, telegram].concat()).collect()
}

pub fn mbus(from: &Sources) -> Seeds {
    let mut seeds = from.wired.clone();
    seeds.extend([vec![0xE5], bytes_of("10 5b 01 5c 16")]);
    seeds
}

/// The records of answers, as they stand behind the header.
pub fn records(from: &Sources) -> Seeds {
    let long = from.wired.iter().filter_map(|frame| frame.get(19..frame.len().checked_sub(2)?));
    long.map(<[u8]>::to_vec).chain([bytes_of("0c13010001004406881300030f"), bytes_of("02fd170100426cbf2c")]).collect()
}

pub fn p1(from: &Sources) -> Seeds {
    let mut seeds = from.p1.clone();
    seeds.push(
        b"/ABC5fuzz\r\n\r\n1-0:1.8.1(000001.234*kWh)\r\n0-1:24.2.1(101209112500W)(12785.123*m3)\r\n!\r\n".to_vec(),
    );
    seeds
}

pub fn sml(_: &Sources) -> Seeds {
    // GetList response: no client, a server's number, no list name, no time, one value, no signature, no time.
    let body = "77 01 0b 0a 01 45 4d 48 00 00 00 00 00 00 01 01 72 62 01 65 00 00 00 07 \
                71 77 07 01 00 01 08 00 ff 65 00 00 01 82 01 62 1e 52 ff 56 00 00 00 00 2a 01 01 01";
    let body = bytes_of(body);
    vec![body.clone(), sml_file(&body), sml_transport(&sml_file(&body)), sml_transport(&[0x1B; 9])]
}

pub fn iec62056(_: &Sources) -> Seeds {
    let messages = [
        Message::Request { address: "12345678".into() },
        Message::Identification(iec::Identification {
            manufacturer: "ABC".into(),
            baud: '5',
            enhanced: vec!['2'],
            model: "fuzz 1.0".into(),
        }),
        Message::OptionSelect(iec::OptionSelect { protocol: '0', baud: '5', mode: '1' }),
        Message::Command(iec::Command::new('P', '0', *b"(12345678)")),
        Message::Command(iec::Command::BREAK),
        Message::Block(DATA.to_vec()),
        Message::Part(PROFILE.to_vec()),
        Message::Repeat,
    ];
    let lines = messages.map(|message| {
        let mut line = Vec::new();
        iec::encode(&message, &mut line);
        line
    });
    let session = lines.concat();
    let mut even = session.clone();
    iec::Parity::Even.apply(&mut even);
    lines.into_iter().chain([session, even]).collect()
}

const DATA: &[u8] = b"F.F(00000000)\r\n1.8.0(000001.234*kWh)\r\n1.8.0*01(000001.000*kWh)(2611220000)2.8.0(1)\r\n!\r\n";
const PROFILE: &[u8] = b"P.01(2611220000)(08)(15)(2)(1.5)(kW)(2.5)(kW)\r\n(0.001)(0.002)\r\n(0.003*kW)(0.004)\r\n\
      P.01(261122001530)(00)(15)(0)\r\nP.98(1261122003000)(0001)()\r\n";

pub fn data(from: &Sources) -> Seeds {
    from.p1.iter().cloned().chain([DATA.to_vec(), PROFILE.to_vec()]).collect()
}

pub fn profile(_: &Sources) -> Seeds {
    vec![PROFILE.to_vec(), DATA.to_vec()]
}

/// Requests and their answers.
fn pdus() -> Seeds {
    let requests = [
        Request::Read { table: Table::Holding, address: 0, quantity: 4 },
        Request::Read { table: Table::Coil, address: 3, quantity: 11 },
        Request::WriteCoil { address: 1, on: true },
        Request::WriteRegister { address: 1, word: 0x1234 },
        Request::WriteCoils { address: 1, states: vec![true, false, true] },
        Request::WriteRegisters { address: 1, words: vec![1, 2, 3] },
        Request::ReadWrite { address: 0, quantity: 2, write_address: 5, words: vec![7] },
    ];
    let mut pdus = Seeds::new();
    for request in &requests {
        for answer in
            [Answer::Data(vec![1; 8]), Answer::Data(vec![1; 2]), Answer::Written, Answer::Refused(Exception(2))]
        {
            let mut pdu = Vec::new();
            answer.encode(request, &mut pdu);
            pdus.push(pdu);
        }
        let mut pdu = Vec::new();
        request.encode(&mut pdu);
        pdus.push(pdu);
    }
    pdus.push(bytes_of("2b 0e 01 00"));
    pdus.push(bytes_of("2b 0e 01 81 ff 02 02 00 03 414243 01 02 3132"));
    pdus
}

pub fn modbus_pdu(_: &Sources) -> Seeds {
    pdus()
}

/// Each PDU as `encode` sends it, and all of them one after the other.
fn sent(encode: impl Fn(&[u8], &mut Vec<u8>)) -> Seeds {
    let lines: Seeds = pdus()
        .iter()
        .map(|pdu| {
            let mut line = Vec::new();
            encode(pdu, &mut line);
            line
        })
        .collect();
    let all = lines.concat();
    lines.into_iter().chain([all]).collect()
}

pub fn modbus_rtu(_: &Sources) -> Seeds {
    sent(|pdu, line| rtu::encode(1, pdu, line)).into_iter().chain(pdus()).collect()
}

pub fn modbus_ascii(_: &Sources) -> Seeds {
    sent(|pdu, line| ascii::encode(1, pdu, line))
}

pub fn modbus_tcp(_: &Sources) -> Seeds {
    sent(|pdu, line| tcp::encode(Header { transaction: 1, unit: 1 }, pdu, line))
}

/// Made as the standard has them: associations, services, pushes, a block, ciphering.
const APDUS: [&str; 14] = [
    "60 1d a109 0607 60857405080101 be10 040e 01000000 065f1f0400 007e1f 04b0",
    "61 29 a109 0607 60857405080101 a203 020100 a305 a103 020100 be10 040e 0800 065f1f0400 001014 0400 0007",
    "62 03 800100",
    "63 03 800100",
    "c0 01 c1 0003 0100010800ff 02 00",
    "c4 01 c1 00 06 0000002a",
    "c4 02 c1 00 00000001 00 03 010203",
    "c4 01 c1 00 13 02 02 11 12 06 01 00 02 03 00 04",
    "c1 01 c1 0001 0000600100ff 02 00 09 02 3132",
    "c3 01 c1 0046 000060030aff 01 01 0f 00",
    "d8 01 06",
    "e0 80 0001 0000 08 0f00000001 00 06 07",
    "0f 00000001 0c 07e80b16020a0f00ff800000 02 02 02 03 0906 0100010800ff 06 0000002a 0202 0f00 161e \
     02 02 0906 0000600100ff 0a04 34373131",
    "c2 00 0003 0100010800ff 02 06 0000002a",
];

/// The APDUs, plain, under a cipher, as blocks behind their length, and what else stands in APDUs.
pub fn apdus(_: &Sources) -> Seeds {
    let keys = Keys::of(&[1; 16], Some(&[2; 16])).expect("they are keys");
    let plain = APDUS.map(bytes_of);
    let sealed = plain.clone().map(|apdu| seal(&keys, TITLE, 0x30, 7, &apdu).unwrap_or_default());
    let blocks = ["08 40 0001 0000 02 0102", "08 c0 0002 0001 02 0304"].map(bytes_of).concat();
    let ciphering = "dd 01 07 08 46555a0000000001 00 00 00 01 00 00 15 30 00000005 01020304050607080910111213141516";
    plain.into_iter().chain(sealed).chain([blocks, bytes_of(ciphering)]).collect()
}

fn in_hdlc(apdu: &[u8], control: Control) -> Vec<u8> {
    let frame = hdlc::Frame {
        segmented: false,
        destination: Address::Single(32),
        source: Address::Double { upper: 1, lower: 17 },
        control,
        information: apdu.to_vec(),
    };
    frame.encode().unwrap_or_default()
}

/// What was recorded, and the APDUs in everything that carries them.
pub fn pushes(from: &Sources) -> Seeds {
    let mut seeds: Seeds = from.pushes.iter().map(|(_, push)| push.clone()).collect();
    seeds.push(in_hdlc(&Parameters::default().encode(), Control::Snrm));
    for apdu in apdus(from) {
        seeds.push(in_hdlc(&[&hdlc::LLC_RESPONSE[..], &apdu].concat(), Control::Ui));
        let data = [&[0x01, 0x67], &apdu[..]].concat();
        let mut frame = Vec::new();
        mbus_wire::encode(&mbus_wire::Frame::Long { control: 0x53, address: 0xFF, ci: 0x10, data }, &mut frame);
        seeds.push(frame);
        seeds.push(apdu);
    }
    seeds.extend(wrapped(from));
    seeds
}

pub fn wrapped(from: &Sources) -> Seeds {
    apdus(from).into_iter().filter_map(|apdu| Unit { source: 1, destination: 16, apdu }.encode()).collect()
}

/// Both keys, then the stream.
pub fn keyed_pushes(from: &Sources) -> Seeds {
    let recorded = from.pushes.iter().map(|(keys, push)| [&keys[..], push].concat());
    let made = pushes(from).into_iter().map(|push| [&[1; 16][..], &[2; 16], &push].concat());
    recorded.chain(made).collect()
}

/// What `weir decode` may be given.
pub fn anything(from: &Sources) -> Seeds {
    [telegrams(from), formats(from), mbus(from), on_air(from), pushes(from)].concat()
}

pub fn config_txt(_from: &Sources) -> Seeds {
    let files = [
        "\u{feff}COMM_baudrate: 9600\r\nMQTT_server: ssl://host:8883\r\n\r\nMQTT_login:\r\n",
        "# comment\nUDP_ localPort: 20010\nMTX_mode: serverTELNET_port: 20023\nno parameter\n",
    ];
    files.iter().map(|file| file.as_bytes().to_vec()).collect()
}

pub fn commands(_from: &Sources) -> Seeds {
    let commands = [
        "AT",
        "AT+CSQ",
        "#7 AT^MTXTUNNEL=SETPARAM,MQTT_server,ssl://a:8883",
        "AT^WEIR=RS232,0,<HEX>0102</HEX>OPE1<HEX>03</HEX>",
        "ab<T>AT</T>c<T>never",
    ];
    commands.iter().map(|command| command.as_bytes().to_vec()).collect()
}

pub fn modem(_from: &Sources) -> Seeds {
    let answers: [&[u8]; 4] = [
        b"AT+CSQ\r\r\n+CSQ: 17,99\r\n\r\nOK\r\n",
        b"\r\n+CMTI: \"SM\",3\r\n\r\nRING\r\n\r\n+CLIP: \"+34600111222\",145\r\n",
        b"\r\n+CMGL: 1,0,,24\r\n07914366\r\n\r\nOK\r\n\r\n> ",
        b"\r\n+CME ERROR: 10\r\n\r\n+CMT: ,3\r\nABC\r\n",
    ];
    answers.map(<[u8]>::to_vec).to_vec()
}

pub fn numbered(_from: &Sources) -> Seeds {
    let session = numbered_wire::Session { caller: 1, number: 2, listener: 3 };
    let message = numbered_wire::Message {
        kind: numbered_wire::Kind::Call,
        session,
        gap: false,
        patience: 10_000,
        stamp: 5,
        echo: 4,
        offset: 0,
        arrived: 0,
        credit: 65_536,
        bytes: b"0123456789".to_vec(),
    };
    let mut bytes = Vec::new();
    numbered_wire::encode(&message, &mut bytes);
    vec![bytes]
}

pub fn rfc2217(_from: &Sources) -> Seeds {
    let speed = b"\xFF\xFB\x2C\xFF\xFD\x2C\xFF\xFA\x2C\x01\x00\x00\x25\x80\xFF\xF0abc\xFF\xFFdef";
    vec![speed.to_vec(), b"\xFF\xFA\x2C\x65\x00\x00\xFF\xFF\x80\xFF\xF0\xFF\xF6".to_vec()]
}

pub fn short_messages(_from: &Sources) -> Seeds {
    use weir::wire::sms::{Address, Body, Submit, UserData};
    let to = Address::parse("+34666123456").unwrap();
    let texts = ["hello {world}", "\u{20ac} 5", "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}"];
    texts
        .iter()
        .map(|text| {
            let mut bytes = Vec::new();
            Submit::new(to.clone(), UserData::plain(Body::of(text))).encode(&mut bytes).unwrap();
            bytes
        })
        .chain(
            ["07917283010010F5040BC87238880900F10000993092516195800AE8329BFD4697D9EC37"]
                .map(|hex| data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap()),
        )
        .collect()
}
