//! Decoders of streams, all fed alike: at once, byte by byte and in pieces, with a silence somewhere.

use std::fmt::Debug;

use weir::wire::dlms::{hdlc, push, wrapper};
use weir::wire::{amber, iec62056, imst_hci, iu891a, mbus, openlinkiq_line, p1, radio_line, rc1180, sml};

/// What a target may choose: the same bytes always mean the same.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Which of its forms a target takes.
    pub choice: u8,
    /// How the bytes are cut and where the line falls silent.
    pub cuts: u8,
}

impl How {
    /// One of the choices, as a truth value.
    pub const fn flag(self, number: u8) -> bool {
        self.choice >> number & 1 != 0
    }

    /// One of `many`.
    pub fn pick<T: Copy>(self, many: &[T]) -> T {
        many[usize::from(self.choice) % many.len()]
    }

    /// Where the line falls silent: often only at the end.
    fn pause(self, length: usize) -> usize {
        if self.cuts < 0x80 { length } else { length * usize::from(self.cuts & 0x7F) / 0x80 }
    }

    /// Pieces of 1 to 40 bytes that the choice decides.
    pub fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        let mut state = u32::from(self.cuts) + 1;
        let mut rest = bytes;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (piece, behind) = rest.split_at(rest.len().min(1 + (state >> 24) as usize % 40));
            pieces.push(piece);
            rest = behind;
        }
        pieces
    }
}

/// The verbs of a codec of streams.
pub trait Stream {
    type Event: Debug + PartialEq;
    fn push(&mut self, bytes: &[u8]);
    fn next(&mut self) -> Option<Self::Event>;
    /// Tells that the line fell silent, where the codec wants to know.
    fn silence(&mut self) -> Vec<Self::Event>;
}

macro_rules! stream {
    ($decoder:ty, $event:ty, |$self:ident| $silence:expr) => {
        impl Stream for $decoder {
            type Event = $event;

            fn push(&mut self, bytes: &[u8]) {
                <$decoder>::push(self, bytes);
            }

            fn next(&mut self) -> Option<$event> {
                <$decoder>::next(self)
            }

            fn silence(&mut self) -> Vec<$event> {
                let $self = self;
                $silence
            }
        }
    };
    ($decoder:ty, $event:ty) => {
        stream!($decoder, $event, |decoder| {
            <$decoder>::silence(decoder);
            Vec::new()
        });
    };
}

stream!(amber::Decoder, amber::Event);
stream!(rc1180::Decoder, radio_line::Item);
stream!(imst_hci::Decoder, imst_hci::Event);
stream!(iu891a::Decoder, iu891a::Event);
stream!(openlinkiq_line::Decoder, openlinkiq_line::Event);
stream!(iec62056::Decoder, iec62056::Event);
stream!(p1::Decoder, p1::Event);
stream!(p1::Unsealer, p1::Sealed);
stream!(sml::Decoder, sml::Event);
stream!(push::Decoder, push::Event);
stream!(hdlc::Decoder, hdlc::Event);
stream!(mbus::Decoder, mbus::Event, |decoder| decoder.silence());
stream!(wrapper::Decoder, wrapper::Event, |_decoder| Vec::new());
stream!(radio_line::LineDecoder, radio_line::Piece, |decoder| {
    decoder.finish();
    Vec::new()
});

fn feed<S: Stream>(mut stream: S, how: How, bytes: &[u8], cut: fn(How, &[u8]) -> Vec<&[u8]>) -> Vec<S::Event> {
    let mut events = Vec::new();
    let (before, after) = bytes.split_at(how.pause(bytes.len()));
    for part in [before, after] {
        for piece in cut(how, part) {
            stream.push(piece);
            events.extend(std::iter::from_fn(|| stream.next()));
        }
        events.extend(stream.silence());
        events.extend(std::iter::from_fn(|| stream.next()));
        // A byte may end one thing and begin another; a frame may hold an APDU in a block; a silence tells of each part.
        assert!(events.len() <= 4 * bytes.len() + 4, "{} events of {} bytes", events.len(), bytes.len());
    }
    events
}

/// What a stream gives at once; asserts that cutting it changes nothing but what `normal` levels.
pub fn events_as<S: Stream>(
    new: impl Fn() -> S,
    how: How,
    bytes: &[u8],
    normal: fn(Vec<S::Event>) -> Vec<S::Event>,
) -> Vec<S::Event> {
    let at_once = normal(feed(new(), how, bytes, |_, bytes| vec![bytes]));
    let in_pieces = normal(feed(new(), how, bytes, How::pieces));
    assert_eq!(at_once, in_pieces, "pieces of {bytes:02x?}");
    let byte_by_byte = normal(feed(new(), how, bytes, |_, bytes| bytes.chunks(1).collect()));
    assert_eq!(at_once, byte_by_byte, "single bytes of {bytes:02x?}");
    at_once
}

/// Joins the noise between two things: some codecs tell it push by push.
macro_rules! joined {
    ($name:ident, $event:ty, $noise:pat => $bytes:ident) => {
        pub fn $name(found: Vec<$event>) -> Vec<$event> {
            let mut joined: Vec<$event> = Vec::new();
            for event in found {
                if let ($noise, Some(last)) = (&event, joined.last_mut()) {
                    let more = *$bytes;
                    if let $noise = last {
                        *$bytes += more;
                        continue;
                    }
                }
                joined.push(event);
            }
            joined
        }
    };
}

joined!(joined_imst, imst_hci::Event, imst_hci::Event::Skipped { bytes } => bytes);
joined!(joined_hdlc, hdlc::Event, hdlc::Event::Noise(bytes) => bytes);
joined!(joined_wrapper, wrapper::Event, wrapper::Event::Noise(bytes) => bytes);

/// What a stream gives; asserts that cutting it changes nothing.
pub fn events<S: Stream>(new: impl Fn() -> S, how: How, bytes: &[u8]) -> Vec<S::Event> {
    events_as(new, how, bytes, |events| events)
}
