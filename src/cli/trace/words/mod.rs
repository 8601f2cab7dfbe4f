//! What the bytes on a line mean, as far as a codec of `wire` knows them: one file a protocol, one row a
//! protocol in [`TONGUES`].

use std::fmt;

mod dlms;
mod iec;
mod mbus;
mod modbus;
mod sml;

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From weir to the meter.
    Sent,
    /// To weir; who only listens hears both sides this way.
    Received,
}

/// What one protocol says about bytes, one sentence each thing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// A check was right: it is what it looks like.
    sure: Vec<String>,
    /// What is wrong, if it is this protocol.
    unsure: Vec<String>,
}

impl Told {
    fn sure(sentence: String) -> Self {
        Self { sure: vec![sentence], unsure: Vec::new() }
    }

    fn unsure(sentence: String) -> Self {
        Self { sure: Vec::new(), unsure: vec![sentence] }
    }
}

/// Knows one protocol. It hears every byte, so that it finds what came in pieces.
trait Tongue: fmt::Debug {
    /// Explains bytes that followed each other without a pause.
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told;

    /// The line was opened, closed or silent for long: nothing half stays.
    fn forget(&mut self);
}

/// One row of the table of protocols: its word, whether a port of unknown meters is looked at for it, too, and who
/// explains it.
type Row = (&'static str, bool, fn() -> Box<dyn Tongue>);

/// The protocols of meters; the stricter ones first.
const TONGUES: &[Row] = &[
    ("modbus-tcp", false, || Box::new(modbus::Tcp::default())),
    ("modbus-rtu", true, || Box::new(modbus::Rtu::default())),
    ("modbus-ascii", true, || Box::new(modbus::Ascii::default())),
    ("m-bus", true, || Box::new(mbus::Mbus::default())),
    ("dlms", true, || Box::new(dlms::Dlms::default())),
    ("dlms-push", false, || Box::new(dlms::Dlms::default())),
    ("sml", true, || Box::new(sml::Sml::default())),
    ("dsmr-p1", true, || Box::new(iec::Telegrams::new("P1"))),
    ("iec-d0", false, || Box::new(iec::Telegrams::new("D0"))),
    ("iec62056-21", true, || Box::new(iec::Iec::default())),
];

/// Knows what the protocols of one port look like.
#[derive(Debug, Default)]
pub(super) struct Words {
    tongues: Vec<Box<dyn Tongue>>,
    /// The protocols are known, so that what fits none is damage.
    named: bool,
}

impl Words {
    /// Looks for the protocols that the meters of a port speak; for all when none is known.
    pub(super) fn new(protocols: &[&str]) -> Self {
        let named = !protocols.is_empty();
        let wanted = TONGUES.iter().filter(|(name, always, _)| if named { protocols.contains(name) } else { *always });
        Self { tongues: wanted.map(|(_, _, make)| make()).collect(), named }
    }

    /// Explains bytes that followed each other without a pause, one sentence each thing.
    pub(super) fn explain(&mut self, way: Way, bytes: &[u8]) -> Vec<String> {
        let told: Vec<Told> = self.tongues.iter_mut().map(|tongue| tongue.explain(way, bytes)).collect();
        // The first one that is sure: P1 looks like IEC 62056-21, too.
        if let Some(sure) = told.iter().find(|told| !told.sure.is_empty()) {
            return sure.sure.clone();
        }
        let unsure = told.into_iter().map(|told| told.unsure).find(|unsure| !unsure.is_empty());
        unsure.filter(|_| self.named).unwrap_or_default()
    }

    /// The line was opened, closed or silent for long: nothing half stays.
    pub(super) fn forget(&mut self) {
        self.tongues.iter_mut().for_each(|tongue| tongue.forget());
    }
}

/// The first values of a message, indented, and how many more there are.
fn some(values: &[String]) -> Vec<String> {
    const MOST: usize = 24;
    let rest = values.len().saturating_sub(MOST);
    let more = (rest > 0).then(|| format!("  ... and {rest} more"));
    values.iter().take(MOST).map(|value| format!("  {value}")).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::modbus::{ascii, rtu};

    #[test]
    fn a_modbus_request_and_its_answer_are_told_apart_also_when_both_are_only_heard() {
        let request = [1, 3, 0, 100, 0, 2, 133, 212];
        let mut answer = Vec::new();
        rtu::encode(1, &[3, 4, 0x43, 0x66, 0x80, 0], &mut answer);
        let mut refusal = Vec::new();
        rtu::encode(1, &[0x83, 2], &mut refusal);
        for way in [Way::Sent, Way::Received] {
            let mut words = Words::new(&["modbus-rtu"]);
            let told = words.explain(way, &request);
            assert_eq!(told, ["Modbus unit 1: read holding registers, 2 from 100 on; CRC right"]);
            let told = words.explain(Way::Received, &answer);
            assert_eq!(told, ["Modbus unit 1: answer to read holding registers: 17254 32768; CRC right"]);
            let told = words.explain(Way::Received, &refusal);
            assert!(told[0].contains("refused") && told[0].contains("illegal data address"), "{told:?}");
            answer[4] ^= 1;
            assert!(words.explain(Way::Received, &answer)[0].contains("CRC is wrong"));
            answer[4] ^= 1;
        }
        // In two pieces.
        let mut words = Words::new(&["modbus-rtu"]);
        words.explain(Way::Sent, &request);
        assert!(words.explain(Way::Received, &answer[..4])[0].contains("not a whole"));
        assert!(words.explain(Way::Received, &answer[4..])[0].contains("17254"));
    }

    #[test]
    fn an_iec_dialogue_is_told_message_by_message() {
        let mut words = Words::new(&["iec62056-21"]);
        assert_eq!(words.explain(Way::Sent, b"/?123!\r\n"), ["IEC 62056-21: request, meter 123"]);
        assert!(words.explain(Way::Received, b"/XYZ5mod").is_empty());
        let told = words.explain(Way::Received, b"el1\r\n");
        assert_eq!(told, ["IEC 62056-21: identification, manufacturer XYZ, baud 5, model1"]);
        let told = words.explain(Way::Sent, b"\x06050\r\n");
        assert_eq!(told, ["IEC 62056-21: option select, protocol 0, baud 5, mode 0"]);
        let told = words.explain(Way::Received, b"\x021.8.0(001234.567*kWh)\x03[");
        assert_eq!(told, ["IEC 62056-21: data, 21 bytes; block check right", "  1.8.0 = 001234.567 kWh"]);
        assert!(words.explain(Way::Sent, &[0; 66])[0].contains("66 NUL characters, the wake-up"));
        let told = words.explain(Way::Sent, b"\x01R1\x021.8.0()\x03Z");
        assert_eq!(told, ["IEC 62056-21: command R1 1.8.0()"]);
        let told = words.explain(Way::Sent, b"\x01P1\x02(00000000)\x03a");
        assert_eq!(told, ["IEC 62056-21: command P1"]);
    }

    #[test]
    fn modbus_in_hex_is_told_as_rtu_is_and_a_wrong_check_too() {
        let mut words = Words::new(&["modbus-ascii"]);
        let mut request = Vec::new();
        ascii::encode(17, &[3, 0, 107, 0, 3], &mut request);
        let told = words.explain(Way::Sent, &request);
        assert_eq!(told, ["Modbus ASCII unit 17: read holding registers, 3 from 107 on; LRC right"]);
        let mut answer = Vec::new();
        ascii::encode(17, &[3, 4, 0, 1, 0, 2], &mut answer);
        assert!(words.explain(Way::Received, &answer[..7]).is_empty());
        let told = words.explain(Way::Received, &answer[7..]);
        assert_eq!(told, ["Modbus ASCII unit 17: answer to read holding registers: 1 2; LRC right"]);
        answer[4] ^= 1;
        assert!(words.explain(Way::Received, &answer)[0].contains("LRC"));
    }

    #[test]
    fn an_m_bus_dialogue_is_told_with_its_records() {
        let frame = |hex: &str| data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap();
        // The port of meters that are configured, and one of which nothing is known.
        for protocols in [&["m-bus"][..], &[]] {
            let mut words = Words::new(protocols);
            assert_eq!(words.explain(Way::Sent, &frame("1040024216")), ["M-Bus: SND_NKE, slave 2; checksum right"]);
            let told = words.explain(Way::Received, &[0xE5]);
            assert!(told[0].contains("the slave has understood"), "{told:?}");
            let told = words.explain(Way::Sent, &frame("107B027D16"));
            assert_eq!(told, ["M-Bus: REQ_UD2, FCB 1, slave 2; checksum right"]);
            let answer = frame("681F1F680802727856341224400107550000000313153100DA023B13018B60043718021816");
            assert!(words.explain(Way::Received, &answer[..20]).is_empty());
            let told = words.explain(Way::Received, &answer[20..]);
            assert!(told[0].contains("RSP_UD, slave 2") && told[0].contains("id 12345678"), "{told:?}");
            assert_eq!(
                told[1..],
                ["  volume = 12.565 m³", "  volume_flow[5]:max = 0.113 m³/h", "  energy:t2:u1 = 218370 Wh"]
            );
        }
        let mut words = Words::new(&["m-bus"]);
        assert!(words.explain(Way::Sent, &frame("1040024316"))[0].contains("no right frame"));
        assert_eq!(Words::new(&[]).explain(Way::Received, &[0x12, 0xE5, 0x34]), Vec::<String>::new());
    }

    #[test]
    fn messages_that_a_meter_sends_by_itself_are_told_with_their_values() {
        let lines = crate::wire::iec62056::data::decode(
            b"1-0:1.8.1(000123.456*kWh)\r\n0-1:24.2.1(261122100000W)(00042.001*m3)\r\n!",
        );
        let mut p1 = Vec::new();
        crate::wire::p1::encode("XMX5LGBBFG1009325446", &lines, &mut p1);
        for protocols in [&["dsmr-p1"][..], &[]] {
            let mut words = Words::new(protocols);
            words.explain(Way::Received, &p1[..60]);
            let told = words.explain(Way::Received, &p1[60..]);
            assert_eq!(
                told,
                [
                    "P1 message of XMX5LGBBFG1009325446, 2 values; CRC right",
                    "  1-0:1.8.1 = 000123.456 kWh",
                    "  0-1:24.2.1 = 261122100000W, 00042.001 m3"
                ]
            );
        }
        p1[30] ^= 1;
        let told = Words::new(&["dsmr-p1"]).explain(Way::Received, &p1);
        assert!(told[0].contains("the CRC is wrong"), "{told:?}");
        let told = Words::new(&["dsmr-p1"]).explain(Way::Received, &[0xDB, 8, 1, 2]);
        assert!(told[0].contains("ciphered"), "{told:?}");
        let many: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        assert_eq!(some(&many).last().unwrap(), "  ... and 6 more");
    }

    #[test]
    fn a_dlms_dialogue_is_told_with_control_and_service_names_and_without_its_password() {
        use crate::wire::dlms::hdlc::{self, Address, Control};
        let frame = |(destination, source): (u8, u8), control, apdu: &[u8]| {
            let (destination, source) = (Address::Single(destination), Address::Single(source));
            let llc = if apdu.is_empty() { &[][..] } else { &hdlc::LLC_REQUEST };
            let information = [llc, apdu].concat();
            hdlc::Frame { segmented: false, destination, source, control, information }.encode().unwrap()
        };
        let hex = |text: &str| data_encoding::HEXUPPER.decode(text.replace(' ', "").as_bytes()).unwrap();
        let (up, down) = ((1, 16), (16, 1));
        let numbered = |ns, nr| Control::I { ns, nr, pf: true };
        for protocols in [&["dlms"][..], &[]] {
            let mut words = Words::new(protocols);
            assert_eq!(
                words.explain(Way::Sent, &frame(up, Control::Snrm, &[])),
                ["DLMS: HDLC 16 to 1: SNRM: opens the link"]
            );
            assert_eq!(
                words.explain(Way::Received, &frame(down, Control::Ua, &[])),
                ["DLMS: HDLC 1 to 16: UA: agrees"]
            );
            let aarq = hex(
                "60 33 A1 09 06 07 60857405080101 8A 02 0780 8B 07 60857405080201 AC 07 80 05 4775727578 BE 10 04 0E 01000000 065F1F0400 401E5D FFFF",
            );
            let told = words.explain(Way::Sent, &frame(up, numbered(0, 0), &aarq)).join("\n");
            assert!(told.contains("AARQ") && !told.contains("Gurux") && !told.contains("4775"), "{told}");
            let get = frame(up, numbered(1, 1), &hex("C0 01 C1 0003 0100010800FF 02 00"));
            // In two pieces, as a line gives them.
            assert!(words.explain(Way::Sent, &get[..9]).is_empty());
            let told = words.explain(Way::Sent, &get[9..]);
            assert!(
                told[0].contains("I, number 1") && told[1].starts_with("DLMS: get-request 1-0:1.8.0*255"),
                "{told:?}"
            );
            let told = words.explain(Way::Received, &frame(down, numbered(1, 2), &hex("C4 01 C1 00 06 00000007")));
            assert_eq!(told[1], "DLMS: get-response 7");
            let told = words.explain(Way::Received, &frame(down, numbered(2, 2), &hex("C4 01 C1 01 03")));
            assert_eq!(told[1], "DLMS: get-response read-write-denied");
        }
        let mut words = Words::new(&["dlms"]);
        assert_eq!(
            words.explain(Way::Sent, b"*****************"),
            ["DLMS: 17 bytes with a password or key, not shown"]
        );
        assert_eq!(words.explain(Way::Sent, b"/?!\r\n"), ["IEC 62056-21: request, any meter"]);
        let mut damaged = frame(up, Control::Ui, &hex("C0 01 C1 0003 0100010800FF 02 00"));
        damaged[15] ^= 1;
        assert!(words.explain(Way::Received, &damaged)[0].contains("check sequence"));
        let wrapped = hex("0001 0010 0001 000D C0 01 C1 0003 0100010800FF 02 00");
        let told = words.explain(Way::Sent, &wrapped);
        assert_eq!(told[0], "DLMS: wrapper 16 to 1");
        assert!(Words::new(&[]).explain(Way::Sent, &wrapped).is_empty(), "it may be anything");
    }

    #[test]
    fn a_push_is_told_with_its_values() {
        let push = "0F 00000001 00 02 03 0906 0100010800FF 06 00000007 0202 0F00 161E";
        let push = data_encoding::HEXUPPER.decode(push.replace(' ', "").as_bytes()).unwrap();
        let frame = crate::wire::dlms::wrapper::Unit { source: 1, destination: 103, apdu: push }.encode().unwrap();
        let told = Words::new(&["dlms-push"]).explain(Way::Received, &frame);
        assert_eq!(told, ["DLMS: wrapper 1 to 103", "DLMS: data-notification", "  1-0:1.8.0*255 = 7 Wh"]);
    }

    #[cfg(feature = "demo")]
    #[test]
    fn an_sml_transmission_is_told_with_its_values() {
        let sml = crate::sim::push_meter::one(crate::sim::push_meter::Kind::Sml);
        for protocols in [&["sml"][..], &[]] {
            let mut words = Words::new(protocols);
            let (start, rest) = sml.split_at(50);
            words.explain(Way::Received, start);
            let told = words.explain(Way::Received, rest);
            assert!(
                told[0].starts_with("SML transmission of meter ") && told[0].ends_with("every CRC right"),
                "{told:?}"
            );
            assert!(told.iter().any(|t| t.starts_with("  1-0:1.8.0*255 = ") && t.ends_with(" Wh")), "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_explained_or_not_without_a_panic(
            pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            protocols in prop::sample::select(vec![vec![], vec!["modbus-tcp", "iec-d0", "modbus-ascii"], vec!["iec62056-21"], vec!["dlms"], vec!["dlms-push"]]),
        ) {
            let mut words = Words::new(&protocols);
            for (sent, bytes) in pieces {
                words.explain(if sent { Way::Sent } else { Way::Received }, &bytes);
            }
            words.forget();
        }
    }
}
