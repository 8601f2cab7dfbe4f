//! What carries DLMS: HDLC, the wrapper, and pushes in any of them.

use weir::wire::dlms::hdlc::{self, Address, Control, Frame, Parameters};
use weir::wire::dlms::push::{self, Event};
use weir::wire::dlms::wrapper::{self, Unit};

use super::stream::{How, events, events_as, joined_hdlc, joined_wrapper};

pub fn hdlc(how: How, bytes: &[u8]) {
    let mut told = 0;
    for event in events_as(hdlc::Decoder::new, how, bytes, joined_hdlc) {
        match event {
            hdlc::Event::Noise(bytes) => told += bytes,
            hdlc::Event::Frame(frame) => {
                told += frame.information.len();
                hdlc_again(how, &frame);
            }
        }
    }
    assert!(told <= bytes.len(), "more came out than went in");
    let parameters = Parameters::decode(bytes);
    assert_eq!(Parameters::decode(&parameters.encode()), parameters);
    let addresses =
        [Address::Single(0x10), Address::Double { upper: 1, lower: 0x11 }, Address::Quad { upper: 1, lower: 0x1234 }];
    hdlc_again(
        how,
        &Frame {
            segmented: how.flag(2),
            destination: how.pick(&addresses),
            source: Address::Single(how.cuts & 0x7F),
            control: Control::of(how.choice),
            information: bytes[..bytes.len().min(hdlc::LONGEST - hdlc::OVERHEAD)].to_vec(),
        },
    );
}

/// What was decoded is decoded from its own encoding.
fn hdlc_again(how: How, frame: &Frame) {
    let line = frame.encode().expect("it is short enough");
    let again = events_as(hdlc::Decoder::new, How { cuts: how.cuts & 0x7F, ..how }, &line, joined_hdlc);
    match again.as_slice() {
        // The control byte of unnumbered frames has its poll bit set.
        [hdlc::Event::Frame(found)] => {
            let (found, sent) = (found.clone(), frame.clone());
            assert_eq!(found.control.byte(), sent.control.byte());
            assert_eq!(Frame { control: Control::Ui, ..found }, Frame { control: Control::Ui, ..sent });
        }
        other => panic!("{other:?} of {line:02x?}"),
    }
}

pub fn wrapper(how: How, bytes: &[u8]) {
    let mut told = 0;
    for event in events_as(wrapper::Decoder::new, how, bytes, joined_wrapper) {
        told += match event {
            wrapper::Event::Noise(bytes) => bytes,
            wrapper::Event::Unit(unit) => unit.apdu.len(),
        };
    }
    assert!(told <= bytes.len(), "more came out than went in");
    let unit = Unit { source: how.choice.into(), destination: how.cuts.into(), apdu: bytes.to_vec() };
    if let Some(line) = unit.encode() {
        let again = events(wrapper::Decoder::new, How { cuts: how.cuts & 0x7F, ..how }, &line);
        assert_eq!(again, [wrapper::Event::Unit(unit)]);
    }
}

pub fn push(how: How, bytes: &[u8]) {
    let found = events(push::Decoder::new, how, bytes);
    let (mut carried, mut apdus, mut skipped) = (0, 0, 0);
    for event in &found {
        match event {
            Event::Frame(push::Frame::Hdlc(frame)) => carried += frame.information.len(),
            Event::Frame(push::Frame::Mbus(segment)) => carried += segment.data.len(),
            Event::Frame(push::Frame::Wrapper(unit)) => carried += unit.apdu.len(),
            Event::Frame(push::Frame::Bare(apdu)) => carried += apdu.len(),
            Event::Apdu(apdu) => {
                assert!(apdu.len() <= push::LONGEST);
                apdus += apdu.len();
            }
            Event::Skipped { bytes } => skipped += bytes,
            Event::Block { .. } | Event::Damaged(_) => {}
        }
    }
    assert!(carried + skipped <= bytes.len(), "more came out than went in");
    assert!(apdus <= carried, "an APDU is made of what frames carried");
}
