//! Requests of every function, and answers that fit or do not.

use proptest::prelude::*;

use super::*;

const READ_TWO: Request = Request::Read { table: Table::Input, address: 0, quantity: 2 };

fn pdu(request: &Request) -> Vec<u8> {
    let mut pdu = Vec::new();
    request.encode(&mut pdu);
    pdu
}

#[test]
fn a_request_says_how_long_its_answer_must_be() {
    assert_eq!(pdu(&READ_TWO), [4, 0, 0, 0, 2]);
    assert_eq!(READ_TWO.answer_length(&[]), Some(6));
    let coils = Request::Read { table: Table::Coil, address: 5, quantity: 9 };
    assert_eq!((coils.answer_bytes(), coils.answer_length(&[])), (Some(2), Some(4)));
    assert_eq!(Request::WriteRegister { address: 1, word: 2 }.answer_length(&[]), Some(5));
}

#[test]
fn the_examples_of_the_specification_are_encoded_as_it_prints_them() {
    // Clauses 6.5, 6.6, 6.11, 6.12, 6.17 and 6.21.
    let coil = Request::WriteCoil { address: 0xAC, on: true };
    assert_eq!(pdu(&coil), [5, 0, 0xAC, 0xFF, 0]);
    assert_eq!(pdu(&Request::WriteRegister { address: 1, word: 3 }), [6, 0, 1, 0, 3]);
    let states = [1, 0, 1, 1, 0, 0, 1, 1, 1, 0].map(|bit| bit == 1).to_vec();
    assert_eq!(pdu(&Request::WriteCoils { address: 0x13, states }), [15, 0, 0x13, 0, 10, 2, 0xCD, 1]);
    let registers = Request::WriteRegisters { address: 1, words: vec![10, 0x102] };
    assert_eq!(pdu(&registers), [16, 0, 1, 0, 2, 4, 0, 10, 1, 2]);
    let both = Request::ReadWrite { address: 3, quantity: 6, write_address: 14, words: vec![255; 3] };
    assert_eq!(pdu(&both), [23, 0, 3, 0, 6, 0, 14, 0, 3, 6, 0, 255, 0, 255, 0, 255]);
    assert_eq!(pdu(&Request::Identify { level: Level::Basic, object: 0 }), [43, 14, 1, 0]);
}

#[test]
fn an_answer_of_another_length_or_function_is_refused() {
    assert_eq!(READ_TWO.decode_answer(&[4, 4, 1, 2, 3, 4]), Ok(Answer::Data(vec![1, 2, 3, 4])));
    assert_eq!(READ_TWO.decode_answer(&[0x84, 2]), Ok(Answer::Refused(Exception(2))));
    for wrong in [&[4, 2, 1, 2][..], &[3, 4, 1, 2, 3, 4], &[4, 4, 1, 2, 3], &[0x83, 2], &[0x84], &[]] {
        assert!(READ_TWO.decode_answer(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_write_is_confirmed_by_its_own_address_and_content_only() {
    let request = Request::WriteRegisters { address: 0x102, words: vec![7, 8] };
    assert_eq!(request.decode_answer(&[16, 1, 2, 0, 2]), Ok(Answer::Written));
    assert_eq!(request.decode_answer(&[0x90, 3]), Ok(Answer::Refused(Exception(3))));
    for wrong in [&[16, 1, 3, 0, 2][..], &[16, 1, 2, 0, 1], &[16, 1, 2, 0], &[6, 1, 2, 0, 2], &[16, 1, 2, 0, 2, 0]] {
        assert!(request.decode_answer(wrong).is_err(), "{wrong:?}");
    }
    let one = Request::WriteRegister { address: 1, word: 3 };
    assert_eq!(one.decode_answer(&[6, 0, 1, 0, 3]), Ok(Answer::Written));
    assert!(one.decode_answer(&[6, 0, 1, 0, 4]).is_err());
}

#[test]
fn an_identification_is_as_long_as_its_objects_say() {
    let request = Request::Identify { level: Level::Regular, object: 0 };
    let answer = [43, 14, 2, 2, 0xFF, 2, 2, 0, 1, b'A', 1, 2, b'B', b'C'];
    for cut in 0..answer.len() {
        assert!(request.decode_answer(&answer[..cut]).is_err(), "{cut}");
        assert!(request.check_start(&answer[..cut]).is_ok(), "{cut}");
    }
    let Ok(Answer::Identity(identity)) = request.decode_answer(&answer) else { panic!() };
    assert_eq!(identity.more_from, Some(2));
    assert_eq!(identity.objects, [(0, b"A".to_vec()), (1, b"BC".to_vec())]);
    assert!(request.check_start(&[43, 14, 1]).is_err(), "another level");
}

#[test]
fn a_request_beyond_the_table_is_refused() {
    for wrong in [[4, 0, 0, 0, 0], [4, 0, 0, 0, 126], [4, 0xFF, 0xFF, 0, 2], [7, 0, 0, 0, 1], [5, 0, 0, 1, 0]] {
        assert!(Request::decode(&wrong).is_err(), "{wrong:?}");
    }
    assert!(Request::decode(&[16, 0, 0, 0, 1, 3, 0, 0]).is_err());
    assert!(Request::decode(&[43, 14, 5, 0]).is_err());
}

pub(in crate::wire::modbus) fn any_request() -> impl Strategy<Value = Request> {
    let table = prop_oneof![Just(Table::Coil), Just(Table::Discrete), Just(Table::Holding), Just(Table::Input)];
    let level = prop_oneof![Just(Level::Basic), Just(Level::Regular), Just(Level::Extended), Just(Level::One)];
    let words = || prop::collection::vec(any::<u16>(), 1..121);
    prop_oneof![
        (table, 0u16..60_000, 1u16..126).prop_map(|(table, address, quantity)| Request::Read {
            table,
            address,
            quantity
        }),
        (any::<u16>(), any::<bool>()).prop_map(|(address, on)| Request::WriteCoil { address, on }),
        (any::<u16>(), any::<u16>()).prop_map(|(address, word)| Request::WriteRegister { address, word }),
        (0u16..60_000, prop::collection::vec(any::<bool>(), 1..300))
            .prop_map(|(address, states)| Request::WriteCoils { address, states }),
        (0u16..60_000, words()).prop_map(|(address, words)| Request::WriteRegisters { address, words }),
        (0u16..60_000, 1u16..126, 0u16..60_000, words()).prop_map(|(address, quantity, write_address, words)| {
            Request::ReadWrite { address, quantity, write_address, words }
        }),
        (level, any::<u8>()).prop_map(|(level, object)| Request::Identify { level, object }),
    ]
}

proptest! {
    #[test]
    fn every_request_is_read_back_and_its_length_is_known(request in any_request()) {
        let bytes = pdu(&request);
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
        prop_assert_eq!(Request::length(&bytes), Some(bytes.len()));
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(pdu(&request).len(), bytes.len());
        }
        for request in [READ_TWO, Request::Identify { level: Level::Basic, object: 0 }] {
            if let Ok(answer) = request.decode_answer(&bytes) {
                let mut again = Vec::new();
                answer.encode(&request, &mut again);
                prop_assert_eq!(again, bytes.clone());
            }
        }
    }
}
