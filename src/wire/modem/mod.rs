//! What a cellular modem says on its AT port (ITU-T V.250, 3GPP TS 27.007 and 27.005): its stream in lines, and what the lines
//! mean.
//!
//! Invariants: any bytes give lines, and any cutting of the stream gives the same; what is not understood is a text. Who asked
//! knows which texts are its answer, so an echo is a text as well. Start with [`Decoder`].

mod answer;
mod code;
mod fields;
mod stream;
mod text;

pub use answer::{
    Listed, Network, Operator, Pin, Registration, Room, Signal, Strength, Technology, iccid, imei, listed, operator,
    pin, quoted_or_rest, registration, room, signal, strength,
};
pub use code::{Fault, Kind};
pub use fields::{Field, after, fields};
pub use stream::{Decoder, Ending, Event, Notice};
pub use text::{clock, hex_of_text, text_of_hex};
