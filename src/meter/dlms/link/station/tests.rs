//! A station against a meter that keeps to the standard, over a line that does not.

use bench::{Bench, CLIENT, METER, Manner, Meter, answer_to, any_fault};
use proptest::prelude::*;

use super::*;
use crate::wire::dlms::hdlc::{Decoder, Event};

mod bench;

fn station(size: u16, window: u8, tries: u32) -> Station {
    let proposal = Parameters { transmit: size, receive: size, window_transmit: window, window_receive: window };
    Station::new(CLIENT, METER, proposal, tries, Duration::from_secs(1))
}

fn limits(size: u16, window: u8) -> Parameters {
    Parameters { transmit: size, receive: size, window_transmit: window, window_receive: window }
}

/// Requests of which none is like another.
fn requests() -> impl Iterator<Item = Vec<u8>> {
    (1..).map(|number: u8| vec![number; 1 + usize::from(number) * 37 % 300])
}

fn any_sizes() -> impl Strategy<Value = (u16, u8)> {
    (prop_oneof![Just(32u16), Just(128), Just(300)], 1..8u8)
}

#[test]
fn without_faults_every_request_has_its_answer_without_a_wait() {
    for ((size, window), (theirs, their_window)) in
        [((128, 1), (128, 1)), ((512, 7), (64, 3)), ((40, 2), (2030, 7)), ((32, 7), (32, 7))]
    {
        let mut bench =
            Bench::new(station(size, window, 0), Meter::new(limits(theirs, their_window), Manner::Plain), vec![]);
        bench.open().unwrap();
        for request in requests().take(40) {
            assert_eq!(bench.ask(&request).unwrap(), answer_to(&request));
        }
        bench.station.close();
        bench.run().unwrap();
        assert_eq!((bench.waits, bench.meter.connected, bench.station.is_dirty()), (0, false, false));
    }
}

#[test]
fn a_meter_that_does_not_like_parameters_or_is_still_connected_is_opened_all_the_same() {
    for manner in [Manner::RefusesByDm, Manner::RefusesByFrmr, Manner::Ignores, Manner::Stale] {
        let mut bench = Bench::new(station(512, 1, 1), Meter::new(limits(512, 1), manner), vec![]);
        bench.open().unwrap();
        let request = vec![9; 250];
        assert_eq!(bench.ask(&request).unwrap(), answer_to(&request), "{manner:?}");
        let size = if manner == Manner::Stale { 512 } else { 128 };
        assert_eq!(bench.station.size, size, "{manner:?}");
        bench.waits = 0;
        if !matches!(manner, Manner::Ignores | Manner::Stale) {
            bench.open().unwrap();
            assert_eq!((bench.waits, bench.station.refusals), (0, 0), "it is remembered: {manner:?}");
        }
    }
}

#[test]
fn a_meter_that_ignores_parameters_is_soon_opened_without_them() {
    let mut bench = Bench::new(station(512, 1, 1), Meter::new(limits(512, 1), Manner::Ignores), vec![]);
    for _ in 0..40 {
        bench.open().unwrap();
    }
    assert!(bench.waits <= 8, "{} openings of 40 waited in vain", bench.waits);
}

#[test]
fn a_meter_that_lost_the_connection_is_opened_once_more_before_its_first_answer_and_never_after() {
    let mut bench = Bench::new(station(128, 1, 1), Meter::new(limits(128, 1), Manner::Plain), vec![]);
    bench.open().unwrap();
    bench.meter.connected = false;
    assert_eq!(bench.ask(&[1]).unwrap(), answer_to(&[1]));
    bench.meter.connected = false;
    assert!(matches!(bench.ask(&[2]), Err(Failure::Dropped(_))), "the association is lost with it");
    assert_eq!(bench.ask(&[3]), Err(Failure::Closed), "and nothing is sent without one");
    bench.open().unwrap();
    assert_eq!(bench.ask(&[4]).unwrap(), answer_to(&[4]));
}

#[test]
fn a_meter_that_needs_time_is_polled_but_not_for_ever() {
    let mut bench = Bench::new(station(128, 1, 1), Meter::new(limits(128, 1), Manner::Plain), vec![]);
    bench.open().unwrap();
    bench.meter.busy = 7;
    assert_eq!(bench.ask(&[1]).unwrap(), answer_to(&[1]));
    bench.meter.busy = usize::MAX;
    assert_eq!(bench.ask(&[2]), Err(Failure::Silent));
    assert!(usize::MAX - bench.meter.busy < 30, "{} polls", usize::MAX - bench.meter.busy);
    assert!(bench.station.is_dirty());
    bench.station.close();
    bench.run().unwrap();
    assert!(!bench.meter.connected, "but it is told");
}

#[test]
fn a_meter_that_is_kept_alive_says_nothing_and_can_be_asked_then() {
    let mut bench = Bench::new(station(128, 1, 1), Meter::new(limits(128, 1), Manner::Plain), vec![]);
    bench.open().unwrap();
    assert_eq!(bench.ask(&[1]).unwrap(), answer_to(&[1]));
    bench.station.keep();
    let bytes = bench.station.transmit().unwrap();
    for frame in bench.meter.hear(&bytes) {
        bench.decoder.push(&frame);
    }
    while let Some(Event::Frame(frame)) = bench.decoder.next() {
        assert_eq!(bench.station.take(frame), Heard::Used);
    }
    assert!(bench.station.has_turn());
    assert_eq!(bench.ask(&[2]).unwrap(), answer_to(&[2]));
}

#[test]
fn of_several_requests_in_a_row_each_is_taken_before_the_next_is_sent() {
    let mut bench = Bench::new(station(64, 1, 1), Meter::new(limits(64, 1), Manner::Plain), vec![]);
    bench.open().unwrap();
    for block in 1..4 {
        assert!(!bench.station.awaits_answer());
        bench.station.request(&[0; 100][..90 + block]);
        assert!(bench.station.awaits_answer());
        bench.station.relay();
        while let Some(bytes) = bench.station.transmit() {
            for frame in bench.meter.hear(&bytes) {
                bench.decoder.push(&frame);
            }
            while let Some(Event::Frame(frame)) = bench.decoder.next() {
                assert_eq!(bench.station.take(frame), Heard::Used);
            }
        }
        assert!(bench.station.has_turn());
    }
    assert_eq!(bench.ask(&[7]).unwrap(), answer_to(&[7]));
    assert_eq!(bench.meter.executed.len(), 4);
}

#[test]
fn an_answer_without_end_is_given_up() {
    let mut station = station(2030, 1, 1);
    station.open(CLIENT);
    let frame =
        |control, segmented, information| Frame { segmented, destination: CLIENT, source: METER, control, information };
    station.take(frame(Control::Ua, false, vec![]));
    station.request(&[1]);
    for number in 0.. {
        let control = Control::I { ns: number & 7, nr: 1, pf: true };
        station.take(frame(control, true, vec![0; 2000]));
        assert!(station.came.len() <= LONGEST_APDU && number < 40);
        if let Some(Err(failure)) = station.result() {
            assert_eq!(failure, Failure::TooLong);
            break;
        }
    }
}

#[test]
fn a_meter_called_by_the_address_of_all_is_called_by_its_own_then() {
    let called = Address::Quad { upper: 1, lower: 0x3FFF };
    let own = Address::Quad { upper: 1, lower: 77 };
    let mut station = Station::new(CLIENT, called, limits(128, 1), 1, Duration::from_secs(1));
    station.open(CLIENT);
    let ua =
        |source| Frame { segmented: false, destination: CLIENT, source, control: Control::Ua, information: vec![] };
    assert_eq!(station.take(ua(Address::Quad { upper: 2, lower: 77 })), Heard::Stray);
    assert_eq!(station.take(ua(own)), Heard::Used);
    station.request(&[1]);
    let mut decoder = Decoder::new();
    decoder.push(&station.transmit().unwrap());
    assert!(matches!(decoder.next(), Some(Event::Frame(frame)) if frame.destination == own));
}

proptest! {
    #[test]
    fn one_fault_anywhere_is_mended(
        ours in any_sizes(), theirs in any_sizes(), at in 0usize..60, fault in any_fault(),
    ) {
        let mut faults = vec![None; at];
        faults.push(Some(fault));
        let meter = Meter::new(limits(theirs.0, theirs.1), Manner::Plain);
        let mut bench = Bench::new(station(ours.0, ours.1, 1), meter, faults);
        prop_assert_eq!(bench.open(), Ok(()));
        for request in requests().take(12) {
            prop_assert_eq!(bench.ask(&request), Ok(answer_to(&request)));
        }
        prop_assert!(bench.meter.executed.values().all(|times| *times == 1));
    }

    #[test]
    fn many_faults_never_give_the_answer_to_another_request_nor_do_a_request_twice(
        ours in any_sizes(), theirs in any_sizes(), busy in 0usize..3,
        faults in prop::collection::vec(prop_oneof![3 => Just(None), 1 => any_fault().prop_map(Some)], 0..200),
    ) {
        let mut meter = Meter::new(limits(theirs.0, theirs.1), Manner::Plain);
        meter.busy = busy;
        let mut bench = Bench::new(station(ours.0, ours.1, 2), meter, faults);
        let mut open = false;
        let mut first = Vec::new();
        for request in requests().take(40) {
            if !open {
                open = bench.open().is_ok();
                // It stands for the association, which may come to a meter twice.
                first.push([&LLC_REQUEST, &request[..]].concat());
            }
            if open {
                match bench.ask(&request) {
                    Ok(answer) => prop_assert_eq!(answer, answer_to(&request)),
                    Err(_) => open = false,
                }
            }
        }
        for (request, times) in &bench.meter.executed {
            prop_assert!(*times == 1 || first.contains(request), "{:?} was done {} times", request, times);
        }
    }
}
