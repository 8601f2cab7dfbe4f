//! The PDUs of messages (3GPP TS 23.040, 9.2.2) as modems give and take them: the service centre's address in front
//! (3GPP TS 27.005, 3.1).

use super::address::{self, Address};
use super::body::UserData;
use super::reader::Reader;
use crate::model::Timestamp;
use crate::wire::DecodeError;

/// A longer PDU is none: 140 octets of user data and what stands in front of it.
const LONGEST: usize = 200;

/// A message of any kind that a modem holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// One that came.
    Deliver(Deliver),
    /// One that is to be sent, or was.
    Submit(Submit),
    /// What became of one that was sent.
    Report(Report),
}

/// A message that came (SMS-DELIVER, 9.2.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The service centre, when the modem tells it.
    pub centre: Option<Address>,
    /// Who sent it.
    pub from: Address,
    /// The protocol identifier; 0 for ordinary text.
    pub protocol: u8,
    /// The data coding scheme (3GPP TS 23.038, 4).
    pub coding: u8,
    /// When the service centre got it; `None` when that is no date.
    pub at: Option<Timestamp>,
    /// What it says.
    pub data: UserData,
}

/// A message to be sent (SMS-SUBMIT, 9.2.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// The service centre; `None`: the SIM's own.
    pub centre: Option<Address>,
    /// The message's number; the modem sets its own.
    pub reference: u8,
    /// Whom it is for.
    pub to: Address,
    /// The protocol identifier; 0 for ordinary text.
    pub protocol: u8,
    /// The data coding scheme (3GPP TS 23.038, 4).
    pub coding: u8,
    /// How long it may wait for its receiver, relative ([`super::validity`]); `None`: as the service centre likes.
    pub validity: Option<u8>,
    /// Whether a report is wanted.
    pub wants_report: bool,
    /// What it says.
    pub data: UserData,
}

/// What became of a message (SMS-STATUS-REPORT, 9.2.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The message's number.
    pub reference: u8,
    /// Whom it was for.
    pub to: Address,
    /// When the service centre got it.
    pub at: Option<Timestamp>,
    /// When it was delivered or given up.
    pub ended: Option<Timestamp>,
    /// 0 to 31: delivered; 32 to 63: still tried; above: given up (9.2.3.15).
    pub status: u8,
}

const HAS_HEADER: u8 = 0x40;

/// Reads a PDU with its service centre in front.
///
/// # Errors
/// Where it is none.
pub fn decode(pdu: &[u8]) -> Result<Message, DecodeError> {
    if pdu.len() > LONGEST {
        return Err(DecodeError::new(LONGEST, "the end of the message", format!("{} octets", pdu.len())));
    }
    let mut reader = Reader::new(pdu);
    let centre = Address::decode_centre(&mut reader)?;
    let offset = reader.offset();
    let first = reader.octet("a message")?;
    match first & 3 {
        0 => deliver(centre, first, &mut reader).map(Message::Deliver),
        1 => submit(centre, first, &mut reader).map(Message::Submit),
        2 => report(&mut reader).map(Message::Report),
        _ => Err(DecodeError::new(offset, "a kind of message", format!("{first:02X}"))),
    }
}

fn deliver(centre: Option<Address>, first: u8, reader: &mut Reader<'_>) -> Result<Deliver, DecodeError> {
    let from = Address::decode(reader)?;
    let protocol = reader.octet("the protocol identifier")?;
    let coding = reader.octet("the data coding scheme")?;
    let at = address::decode_time(reader.take(7, "the time stamp")?);
    let data = UserData::decode(reader, coding, first & HAS_HEADER != 0)?;
    Ok(Deliver { centre, from, protocol, coding, at, data })
}

fn submit(centre: Option<Address>, first: u8, reader: &mut Reader<'_>) -> Result<Submit, DecodeError> {
    let reference = reader.octet("the message's number")?;
    let to = Address::decode(reader)?;
    let protocol = reader.octet("the protocol identifier")?;
    let coding = reader.octet("the data coding scheme")?;
    let validity = match first >> 3 & 3 {
        0 => None,
        2 => Some(reader.octet("the validity period")?),
        // Enhanced and absolute: seven octets that nobody here needs.
        _ => reader.take(7, "the validity period").map(|_| None)?,
    };
    let data = UserData::decode(reader, coding, first & HAS_HEADER != 0)?;
    Ok(Submit { centre, reference, to, protocol, coding, validity, wants_report: first & 0x20 != 0, data })
}

fn report(reader: &mut Reader<'_>) -> Result<Report, DecodeError> {
    let reference = reader.octet("the message's number")?;
    let to = Address::decode(reader)?;
    let at = address::decode_time(reader.take(7, "the time stamp")?);
    let ended = address::decode_time(reader.take(7, "the discharge time")?);
    let status = reader.octet("the status")?;
    Ok(Report { reference, to, at, ended, status })
}

fn start(centre: Option<&Address>, out: &mut Vec<u8>) -> usize {
    let before = out.len();
    match centre {
        Some(centre) => centre.encode_centre(out),
        None => out.push(0),
    }
    out.len() - before
}

impl Submit {
    /// An ordinary message to somebody.
    pub fn new(to: Address, data: UserData) -> Self {
        let coding = data.body.coding();
        Self { centre: None, reference: 0, to, protocol: 0, coding, validity: None, wants_report: false, data }
    }

    /// Appends the PDU and returns the length that `AT+CMGS` wants: without the service centre.
    ///
    /// # Errors
    /// When the user data is too long for one message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let before = out.len() + start(self.centre.as_ref(), out);
        let header = if self.data.header.is_empty() { 0 } else { HAS_HEADER };
        let validity = if self.validity.is_some() { 0x10 } else { 0 };
        out.extend([0x01 | header | validity | if self.wants_report { 0x20 } else { 0 }, self.reference]);
        self.to.encode(out);
        out.extend([self.protocol, self.coding]);
        out.extend(self.validity);
        self.data.encode(out)?;
        Ok(out.len() - before)
    }
}

impl Deliver {
    /// An ordinary message from somebody.
    pub const fn new(from: Address, at: Timestamp, data: UserData) -> Self {
        let coding = data.body.coding();
        Self { centre: None, from, protocol: 0, coding, at: Some(at), data }
    }

    /// Appends the PDU and returns its length without the service centre; the time is written in a zone so many
    /// quarters of an hour east of Greenwich.
    ///
    /// # Errors
    /// When the user data is too long for one message.
    pub fn encode(&self, quarters: i8, out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let before = out.len() + start(self.centre.as_ref(), out);
        // 0x04: no more messages are waiting.
        out.push(0x04 | if self.data.header.is_empty() { 0 } else { HAS_HEADER });
        self.from.encode(out);
        out.extend([self.protocol, self.coding]);
        match self.at {
            Some(at) => address::encode_time(at, quarters, out),
            None => out.extend([0; 7]),
        }
        self.data.encode(out)?;
        Ok(out.len() - before)
    }
}

impl Report {
    /// Appends the PDU and returns its length without the service centre.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        let before = out.len() + start(None, out);
        out.extend([0x06, self.reference]);
        self.to.encode(out);
        for at in [self.at, self.ended] {
            match at {
                Some(at) => address::encode_time(at, 0, out),
                None => out.extend([0; 7]),
            }
        }
        out.push(self.status);
        out.len() - before
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sms::{Body, Element, split};

    fn deliver_of(hex: &str) -> Deliver {
        match decode(&HEXUPPER.decode(hex.as_bytes()).unwrap()) {
            Ok(Message::Deliver(deliver)) => deliver,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_of_the_textbook_is_read() {
        let hex = "07917283010010F5040BC87238880900F10000993092516195800AE8329BFD4697D9EC37";
        let found = deliver_of(hex);
        assert_eq!(found.centre.unwrap().to_string(), "+27381000015");
        assert_eq!(found.from.to_string(), "27838890001");
        assert_eq!(found.data.body.text(), "hellohello");
        assert_eq!(found.at.unwrap().to_string(), "2099-03-29T13:16:59Z");
    }

    #[test]
    fn a_submitted_message_is_as_the_textbook_writes_it() {
        let mut out = Vec::new();
        let submit = Submit::new(Address::parse("+46708251358").unwrap(), split("hellohello", 0, 1).unwrap().remove(0));
        let submit = Submit { validity: Some(0xAA), ..submit };
        assert_eq!(submit.encode(&mut out).unwrap(), out.len() - 1);
        assert_eq!(HEXUPPER.encode(&out), "0011000B916407281553F80000AA0AE8329BFD4697D9EC37");
    }

    #[test]
    fn a_report_is_read_and_reads_back() {
        let at = Timestamp::parse("2026-11-22T15:00:00Z");
        let report = Report { reference: 9, to: Address::parse("+346").unwrap(), at, ended: at, status: 0x41 };
        let mut out = Vec::new();
        assert_eq!(report.encode(&mut out), out.len() - 1);
        assert_eq!(decode(&out), Ok(Message::Report(report)));
    }

    #[test]
    fn a_date_that_is_none_does_not_cost_the_message() {
        let mut out = Vec::new();
        let data = UserData::plain(Body::of("x"));
        let deliver = Deliver::new(Address::Name("Info".into()), Timestamp::default(), data);
        Deliver { at: None, ..deliver.clone() }.encode(0, &mut out).unwrap();
        assert_eq!(decode(&out), Ok(Message::Deliver(Deliver { at: None, ..deliver })));
    }

    fn address() -> impl Strategy<Value = Address> {
        prop_oneof![
            "[0-9]{1,20}".prop_map(Address::International),
            "[0-9*#abc]{1,20}".prop_map(Address::National),
            "[A-Za-z0-9 ]{1,10}[A-Z]".prop_map(Address::Name),
        ]
    }

    fn user_data() -> impl Strategy<Value = UserData> {
        let body = prop_oneof![
            proptest::collection::vec(0u8..128, 0..120).prop_map(Body::Gsm),
            proptest::collection::vec(any::<u16>(), 0..55).prop_map(Body::Ucs2),
            proptest::collection::vec(any::<u8>(), 0..110).prop_map(Body::Octets),
        ];
        let element = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..8));
        let header = proptest::collection::vec(element.prop_map(|(id, data)| Element { id, data }), 0..3);
        (header, body).prop_map(|(header, body)| UserData { header, body })
    }

    proptest! {
        #[test]
        fn what_is_delivered_reads_back(from in address(), seconds in 946_684_800i64..4_000_000_000, zone in -79i8..80, data in user_data(), centre in proptest::option::of("[0-9]{2,10}[0-9]?")) {
            let at = Timestamp::from_millis(seconds * 1000);
            let centre = centre.map(Address::International);
            let deliver = Deliver { centre, ..Deliver::new(from, at, data) };
            let mut out = Vec::new();
            deliver.encode(zone, &mut out).unwrap();
            prop_assert_eq!(decode(&out).unwrap(), Message::Deliver(deliver));
        }

        #[test]
        fn what_is_submitted_reads_back(to in address(), data in user_data(), validity in any::<Option<u8>>(), wants_report: bool, reference: u8) {
            let submit = Submit { validity, wants_report, reference, ..Submit::new(to, data) };
            let mut out = Vec::new();
            submit.encode(&mut out).unwrap();
            prop_assert_eq!(decode(&out).unwrap(), Message::Submit(submit));
        }

        #[test]
        fn any_octets_are_a_message_or_an_error(octets in proptest::collection::vec(any::<u8>(), 0..240)) {
            let _ = decode(&octets);
        }

        #[test]
        fn a_damaged_message_is_a_message_or_an_error(data in user_data(), at in 0usize..300, by: u8, cut in 0usize..300) {
            let mut out = Vec::new();
            Deliver::new(Address::Name("A".into()), Timestamp::default(), data).encode(0, &mut out).unwrap();
            if let Some(octet) = out.get_mut(at) {
                *octet ^= by;
            }
            out.truncate(cut);
            let _ = decode(&out);
        }
    }
}
