//! The numbered envelope of a tunnel: what a message needs so that a stream of bytes arrives exactly once, in order.
//!
//! A message is a head of 60 bytes, numbers big-endian, and bytes of the stream. Both directions use the same one:
//!
//! | at | bytes | what |
//! | --- | --- | --- |
//! | 0 | 2 | "WT" |
//! | 2 | 1 | version: 1 |
//! | 3 | 1 | kind: 1 call, 2 accept, 3 carry, 4 end |
//! | 4 | 1 | flags: 1 something before this is missing here |
//! | 5 | 1 | reason of an end, else 0 |
//! | 6 | 2 | 0 |
//! | 8 | 4 | the caller, chosen at random when it started |
//! | 12 | 4 | the number of its session, growing |
//! | 16 | 4 | the listener's own random number for this session; 0 in a call |
//! | 20 | 4 | the longest silence that the sender bears, ms |
//! | 24 | 8 | stamp: the sender's own clock, ms |
//! | 32 | 8 | echo: the last stamp heard, grown by how long ago that was; 0: none was |
//! | 40 | 8 | offset in the sender's stream of the first byte that follows |
//! | 48 | 8 | how many bytes of the other stream have arrived |
//! | 56 | 4 | how many more after those may be sent |

use super::DecodeError;

/// Bytes of a head.
pub const HEAD: usize = 60;
/// The most bytes of a stream in one message.
pub const LARGEST: usize = 65_536;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller asks for a session.
    Call,
    /// The listener grants it.
    Accept,
    /// Bytes, an acknowledgement, a sign of life: any of them.
    Carry,
    /// There is no such session, or not any more.
    End(Reason),
}

/// Why a session ended or is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// One side wanted it.
    Closed,
    /// Another caller has the line.
    Busy,
    /// The listener does not know the session: it has started anew.
    Unknown,
    /// Nothing fresh was heard for too long.
    Cut,
    /// The line was gone, or could not be had in time.
    Line,
}

impl Reason {
    const ALL: [(Self, u8); 5] =
        [(Self::Closed, 1), (Self::Busy, 2), (Self::Unknown, 3), (Self::Cut, 4), (Self::Line, 5)];
}

/// The names of a session: both sides chose a part, so that it is never mistaken for an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Session {
    /// Who calls.
    pub caller: u32,
    /// The caller's sessions grow by one each time.
    pub number: u32,
    /// The listener's own name for it; 0 while it is not known.
    pub listener: u32,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// Of which session.
    pub session: Session,
    /// The sender sees that bytes before the ones it got are missing.
    pub gap: bool,
    /// The longest silence that the sender bears, ms.
    pub patience: u32,
    /// The sender's clock, ms.
    pub stamp: u64,
    /// The last stamp that it heard, grown by the time since then, ms; 0: none.
    pub echo: u64,
    /// Where in the sender's stream `bytes` begin.
    pub offset: u64,
    /// How many bytes of the other stream have arrived, in order.
    pub arrived: u64,
    /// How many more after those may be sent.
    pub credit: u32,
    /// Bytes of the stream.
    pub bytes: Vec<u8>,
}

/// Reads a message.
///
/// # Errors
/// What is not such a message, also one of another version, or with more than [`LARGEST`] bytes.
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let short = || DecodeError::new(bytes.len(), "a head of 60 bytes", format!("{} bytes", bytes.len()));
    let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or_else(short)?;
    let [w, t, version, kind, flags, reason, zero, nought, numbers @ ..] = head;
    if [*w, *t, *version] != [b'W', b'T', 1] {
        return Err(DecodeError::new(0, "\"WT\" and version 1", format!("{w:02x} {t:02x} {version:02x}")));
    }
    let known = Reason::ALL.iter().find(|(_, code)| code == reason).map(|(reason, _)| *reason);
    let kind = match (kind, known) {
        (1, None) if *reason == 0 => Kind::Call,
        (2, None) if *reason == 0 => Kind::Accept,
        (3, None) if *reason == 0 => Kind::Carry,
        (4, Some(reason)) => Kind::End(reason),
        _ => return Err(DecodeError::new(3, "a kind and its reason", format!("{kind} and {reason}"))),
    };
    if *flags > 1 || [*zero, *nought] != [0, 0] {
        return Err(DecodeError::new(4, "flags of version 1", format!("{flags:02x} {zero:02x} {nought:02x}")));
    }
    if rest.len() > LARGEST {
        return Err(DecodeError::new(HEAD, "65536 bytes at most", format!("{} bytes", rest.len())));
    }
    let mut numbers = &numbers[..];
    let mut small = || take::<4>(&mut numbers).map(u32::from_be_bytes).ok_or_else(short);
    let (caller, number, listener, patience) = (small()?, small()?, small()?, small()?);
    let mut large = || take::<8>(&mut numbers).map(u64::from_be_bytes).ok_or_else(short);
    let (stamp, echo, offset, arrived) = (large()?, large()?, large()?, large()?);
    let credit = take::<4>(&mut numbers).map(u32::from_be_bytes).ok_or_else(short)?;
    let session = Session { caller, number, listener };
    let (gap, bytes) = (*flags == 1, rest.to_vec());
    Ok(Message { kind, session, gap, patience, stamp, echo, offset, arrived, credit, bytes })
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*first)
}

/// Writes a message; of bytes beyond [`LARGEST`] only the first.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    let reason = |wanted| Reason::ALL.iter().find(|(reason, _)| *reason == wanted).map_or(0, |(_, code)| *code);
    let (kind, reason) = match message.kind {
        Kind::Call => (1, 0),
        Kind::Accept => (2, 0),
        Kind::Carry => (3, 0),
        Kind::End(why) => (4, reason(why)),
    };
    let Session { caller, number, listener } = message.session;
    out.reserve(HEAD + message.bytes.len());
    out.extend([b'W', b'T', 1, kind, u8::from(message.gap), reason, 0, 0]);
    for number in [caller, number, listener, message.patience] {
        out.extend(number.to_be_bytes());
    }
    for number in [message.stamp, message.echo, message.offset, message.arrived] {
        out.extend(number.to_be_bytes());
    }
    out.extend(message.credit.to_be_bytes());
    out.extend_from_slice(message.bytes.get(..LARGEST).unwrap_or(&message.bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Message> {
        let reasons = proptest::sample::select(Reason::ALL.map(|(reason, _)| reason).to_vec());
        let kinds = prop_oneof![Just(Kind::Call), Just(Kind::Accept), Just(Kind::Carry), reasons.prop_map(Kind::End)];
        let names = (any::<u32>(), any::<u32>(), any::<u32>());
        let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
        let bytes = proptest::collection::vec(any::<u8>(), 0..300);
        (kinds, names, any::<bool>(), numbers, bytes).prop_map(|(kind, names, gap, numbers, bytes)| {
            let (caller, number, listener) = names;
            let (patience, stamp, echo, offset, arrived, credit) = numbers;
            let session = Session { caller, number, listener };
            Message { kind, session, gap, patience, stamp, echo, offset, arrived, credit, bytes }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(message in messages()) {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            prop_assert_eq!(bytes.len(), HEAD + message.bytes.len());
            prop_assert_eq!(decode(&bytes), Ok(message));
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error_and_a_message_has_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
            let mut bytes = bytes;
            if like && bytes.len() > 8 {
                let head = [b'W', b'T', 1, bytes[3] % 6, bytes[4] % 3, bytes[5] % 7, 0, 0];
                bytes[..8].copy_from_slice(&head);
            }
            if let Ok(message) = decode(&bytes) {
                let mut again = Vec::new();
                encode(&message, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn the_head_is_as_the_table_says() {
        let message = Message {
            kind: Kind::End(Reason::Cut),
            session: Session { caller: 0x0102_0304, number: 5, listener: 6 },
            gap: true,
            patience: 10_000,
            stamp: 7,
            echo: 8,
            offset: 9,
            arrived: 10,
            credit: 11,
            bytes: b"x".to_vec(),
        };
        let mut bytes = Vec::new();
        encode(&message, &mut bytes);
        let expected = "5754010401040000 01020304 00000005 00000006 00002710 0000000000000007 0000000000000008 \
            0000000000000009 000000000000000a 0000000b 78";
        let expected = data_encoding::HEXLOWER.decode(expected.replace(' ', "").as_bytes()).unwrap();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn raw_bytes_other_versions_and_messages_too_long_are_refused() {
        assert!(decode(b"\x01\x03\0\0\0\x02\xC4\x0B").is_err());
        let mut bytes = vec![0; HEAD];
        bytes[..4].copy_from_slice(b"WT\x02\x03");
        assert!(decode(&bytes).unwrap_err().to_string().contains("version 1"));
        bytes[2] = 1;
        assert!(decode(&bytes).is_ok());
        bytes.resize(HEAD + LARGEST + 1, 0);
        assert!(decode(&bytes).is_err());
    }
}
