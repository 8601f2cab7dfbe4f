//! Meters that promise more than they keep.

use weir::sim::iec_meter::{Faults, Options};

use crate::plumbing::{Reader, configured, ended, settings, text};
use crate::{identification, meter, with};

#[tokio::test(start_paused = true)]
async fn a_rate_that_garbles_is_left_for_a_lower_one_and_remembered() {
    crate::pace::hold();
    let (path, control) = with(Faults { clean_up_to: Some(2400), ..Faults::default() });
    let mut reader = Reader::open(&path, &settings()).await;
    let values = reader.read().await.unwrap();
    assert_eq!((values.len(), text(&values, "0.0.0"), reader.line.speed().baud), (13, "12345678", 2400));
    assert_eq!(control.state().sign_ons, 3, "9600, 4800, 2400");
    reader.read().await.unwrap();
    assert_eq!(control.state().sign_ons, 4, "the second reading begins with 2400");
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_keeps_to_300_is_read_whatever_it_announced() {
    crate::pace::hold();
    let (path, control) = with(Faults { stays_at_300: true, ..Faults::default() });
    let mut reader = Reader::open(&path, &settings()).await;
    assert_eq!(reader.read().await.unwrap().len(), 13);
    assert_eq!((control.state().sign_ons, reader.line.speed().baud), (1, 300), "its repetition at 300 is understood");
    let (path, control) = with(Faults { stays_at_300: true, ..Faults::default() });
    let mut reader = Reader::open(&path, &configured("force_baud = 300")).await;
    assert_eq!(reader.read().await.unwrap().len(), 13);
    assert_eq!(control.state().wrong_rates, 0, "with the forced rate nothing is lost");
}

#[tokio::test(start_paused = true)]
async fn a_forced_rate_is_asked_for_whatever_is_announced() {
    crate::pace::hold();
    let (path, control) = meter(Options { identification: identification('6'), ..Options::default() });
    let mut reader = Reader::open(&path, &configured("force_baud = 1200")).await;
    assert_eq!((reader.read().await.unwrap().len(), reader.line.speed().baud), (13, 1200));
    assert_eq!(control.state().wrong_rates, 0);
}

#[tokio::test(start_paused = true)]
async fn programming_mode_finds_its_rate_too() {
    crate::pace::hold();
    let (path, control) = with(Faults { clean_up_to: Some(4800), ..Faults::default() });
    let settings = configured("access = \"programming\"\nvalues = [\"0.0.0\"]");
    let values = Reader::open(&path, &settings).await.read().await.unwrap();
    assert_eq!(text(&values, "0.0.0"), "12345678");
    let state = ended(&control).await;
    assert_eq!((state.sessions, state.breaks), (2, 2), "every session is ended by a break");
}
