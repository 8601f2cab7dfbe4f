//! The opening of mode E, and meters that answer it with something else.

use std::time::Duration;

use tokio::time::Instant;
use weir::meter::iec62056::{Opening, open_mode_e};
use weir::model::Quality;
use weir::os::line::Framing;
use weir::sim::iec_meter::{Faults, Options};

use crate::plumbing::{PythonMeter, Reader, settings};
use crate::{identification, meter};

/// SNRM and UA as a recorded meter exchanged them.
const SNRM: &[u8] = &[0x7E, 0xA0, 0x07, 0x03, 0x21, 0x93, 0x0F, 0x01, 0x7E];

#[tokio::test(start_paused = true)]
async fn after_the_opening_the_line_is_ready_for_hdlc() {
    crate::pace::hold();
    for (baud, echo, announced) in [('5', false, true), ('3', true, true), ('5', false, false)] {
        let mut identification = identification(baud);
        if !announced {
            identification.enhanced.clear();
        }
        let (path, control) = meter(Options { identification, mode_e: true, ..Options::default() });
        control.state().faults = Faults { echo, ..Faults::default() };
        let mut line = Reader::open(&path, &settings()).await.line;
        let opening = open_mode_e(&mut line, &settings()).await.unwrap();
        let expected = if baud == '5' { 9600 } else { 2400 };
        assert!(matches!(&opening, Opening::Hdlc { baud, .. } if *baud == expected), "{opening:?}");
        assert_eq!((line.speed().baud, line.speed().framing), (expected, Framing::EIGHT_N_ONE));
        line.send(SNRM).await.unwrap();
        let (mut heard, mut buffer) = (Vec::new(), [0; 64]);
        while heard.len() < 32 {
            let count = line.receive(&mut buffer, Instant::now() + Duration::from_secs(5)).await.unwrap();
            heard.extend_from_slice(&buffer[..count]);
        }
        assert_eq!((heard[0], heard[5], heard.len(), control.state().wrong_rates), (0x7E, 0x73, 32, 0), "UA");
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_sends_its_readout_instead_is_noticed() {
    crate::pace::hold();
    let (path, _control) = meter(Options { identification: identification('5'), ..Options::default() });
    let mut line = Reader::open(&path, &settings()).await.line;
    let opening = open_mode_e(&mut line, &settings()).await.unwrap();
    assert!(
        matches!(&opening, Opening::Readout { identification, .. } if identification.manufacturer == "WEI"),
        "{opening:?}"
    );
    let (path, control) = meter(Options { real_time: true, ..Options::default() });
    control.state().faults.takes_any_choice = true;
    let mut line = Reader::open(&path, &settings()).await.line;
    let opening = open_mode_e(&mut line, &settings()).await.unwrap();
    assert!(matches!(&opening, Opening::Readout { .. }), "at the chosen rate: {opening:?}");
    // An independent meter takes the choice and says nothing.
    let python = PythonMeter::start(&["--parity", "--mode", "E"]);
    let mut line = Reader::open(&python.device, &settings()).await.line;
    let opening = open_mode_e(&mut line, &settings()).await;
    assert!(matches!(&opening, Err(error) if error.quality() == Quality::NoAnswer), "{opening:?}");
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_falls_silent_or_has_no_choice_gives_no_opening() {
    crate::pace::hold();
    let (path, control) = meter(Options::default());
    control.state().faults.silent = true;
    let mut line = Reader::open(&path, &settings()).await.line;
    assert!(open_mode_e(&mut line, &settings()).await.is_err());
    let (path, _control) = meter(Options { identification: identification('E'), ..Options::default() });
    let mut line = Reader::open(&path, &settings()).await.line;
    let error = open_mode_e(&mut line, &settings()).await.unwrap_err();
    assert!(error.to_string().contains("no mode E"), "{error}");
}
