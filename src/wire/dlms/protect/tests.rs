//! Ciphering against the standard's own examples, and against mischief.

use data_encoding::HEXUPPER;
use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    HEXUPPER.decode(text.as_bytes()).unwrap()
}

const CLIENT: SystemTitle = [0x4D, 0x4D, 0x4D, 0x00, 0x00, 0xBC, 0x61, 0x4E];

fn keys(suite: u8) -> Keys {
    let suite = Suite::new(suite).unwrap();
    let long = suite.key_length();
    let global = Secret::new((0..long as u8).collect());
    let authentication = Secret::new((0xD0..0xD0 + long as u8).collect());
    Keys::new(suite, &global, Some(authentication)).unwrap()
}

fn how(form: Form, control: u8) -> How {
    How { form, name: KeyName::Global, control: SecurityControl(control), title: CLIENT }
}

#[test]
fn the_get_request_of_the_green_book_is_ciphered_as_it_says() {
    // DLMS UA 1000-2, clause 9.2.7.2.4.6: glo-get-request, IC 01234567, with a tag, a ciphertext, and both.
    let plain = hex("C0010000080000010000FF0200");
    for (control, expected) in [
        (0x10, "C81E1001234567C0010000080000010000FF020006725D910F9221D263877516"),
        (0x20, "C8122001234567411312FF935A47566827C467BC"),
        (0x30, "C81E3001234567411312FF935A47566827C467BC7D825C3BE4A77C3FCC056B6B"),
    ] {
        let apdu = keys(0).protect(&plain, &how(Form::Service, control), 0x0123_4567).unwrap();
        assert_eq!(HEXUPPER.encode(&apdu), expected);
        let opened = keys(0).unprotect(&apdu, Some(CLIENT)).unwrap();
        assert_eq!((opened.plain, opened.counter, opened.name), (plain.clone(), 0x0123_4567, KeyName::Global));
    }
}

#[test]
fn what_can_not_be_opened_is_refused_by_name() {
    let plain = hex("C0010000080000010000FF0200");
    let apdu = keys(0).protect(&plain, &how(Form::Service, 0x30), 7).unwrap();
    let with = |control: u8| {
        let mut apdu = apdu.clone();
        apdu[2] = control;
        keys(0).unprotect(&apdu, Some(CLIENT))
    };
    assert_eq!(with(0xB0), Err(Fault::Compressed));
    assert_eq!(with(0x31), Err(Fault::Suite(1)));
    assert_eq!(with(0x70), Err(Fault::NoKey("the broadcast key")));
    assert_eq!(keys(0).unprotect(&plain, Some(CLIENT)), Err(Fault::Unprotected));
    assert_eq!(keys(0).unprotect(&apdu, None), Err(Fault::NoTitle));
    assert_eq!(keys(0).unprotect(&apdu, Some(*b"ABCDEFGH")), Err(Fault::WrongTag));
    // A get-response inside the tag of a get-request.
    let mut other = keys(0).protect(&hex("C401000001"), &how(Form::Service, 0x30), 7).unwrap();
    other[0] = 0xC8;
    assert_eq!(keys(0).unprotect(&other, Some(CLIENT)), Err(Fault::OtherService));
    let dedicated = How { name: KeyName::Dedicated, ..how(Form::Service, 0x30) };
    assert_eq!(keys(0).protect(&plain, &dedicated, 7), Err(Fault::NoKey("a dedicated key")));
    assert_eq!(keys(0).protect(&hex("D80101"), &how(Form::Service, 0x30), 7), Err(Fault::NoForm));
}

#[test]
fn dedicated_and_broadcast_keys_are_told_apart() {
    let plain = hex("C0010000080000010000FF0200");
    let mut keys = keys(0);
    keys.set_dedicated(Some(&Secret::new(vec![9; 16]))).unwrap();
    keys.set_broadcast(&Secret::new(vec![8; 16])).unwrap();
    for (name, control, form, tag) in [
        (KeyName::Dedicated, 0x30, Form::Service, 0xD0),
        (KeyName::Dedicated, 0x30, Form::General, 0xDC),
        (KeyName::Broadcast, 0x70, Form::General, 0xDB),
        (KeyName::Broadcast, 0x70, Form::Service, 0xC8),
    ] {
        let how = How { form, name, control: SecurityControl(control), title: CLIENT };
        let apdu = keys.protect(&plain, &how, 7).unwrap();
        assert_eq!(apdu[0], tag);
        let opened = keys.unprotect(&apdu, Some(CLIENT)).unwrap();
        assert_eq!((opened.plain, opened.name), (plain.clone(), name));
    }
    assert_eq!(keys.set_dedicated(Some(&Secret::new(vec![9; 15]))), Err(Fault::KeyLength("the dedicated key")));
}

#[test]
fn general_ciphering_names_its_key_and_vouches_for_its_head() {
    let mut keys = keys(0);
    let master = Secret::new(vec![5; 16]);
    keys.set_master(KeyEncryptionKey::new(&master).unwrap());
    let (plain, control) = (hex("0F00000001000601020304"), SecurityControl(0x30));
    let wrapped = KeyEncryptionKey::new(&master).unwrap().wrap(&Secret::new(vec![6; 16])).unwrap();
    for (info, key) in [
        (None, &keys.global),
        (Some(KeyInfo::Identified { key_id: 0 }), &keys.global),
        (Some(KeyInfo::Wrapped { kek_id: 0, ciphered_key: &wrapped }), &Key::of(&[6; 16]).unwrap()),
    ] {
        let head = [&[1, 0xAA, 8][..], &CLIENT, &[0, 0, 0]].concat();
        let mut text = plain.clone();
        let associated = keys.associated(control, &[&head]).unwrap();
        let tag = key.seal(nonce(&CLIENT, 3), associated.bytes(), &mut text).unwrap();
        let payload = [text, tag.to_vec()].concat();
        let mut apdu = vec![GENERAL_CIPHERING];
        GeneralCiphering {
            transaction_id: &[0xAA],
            originator_system_title: &CLIENT,
            recipient_system_title: &[],
            date_time: &[],
            other_information: &[],
            key_info: info,
            ciphered: CipheredService { security_control: control, invocation_counter: 3, payload: &payload },
        }
        .encode(&mut apdu)
        .unwrap();
        assert_eq!(keys.unprotect(&apdu, None).unwrap().plain, plain);
        // Another transaction is another message.
        apdu[2] ^= 1;
        assert_eq!(keys.unprotect(&apdu, None), Err(Fault::WrongTag));
    }
}

#[test]
fn a_receiver_takes_each_apdu_once_and_only_well_protected_from_the_one_it_knows() {
    let opened = |control: u8, counter, title, name| Opened {
        plain: vec![1],
        control: SecurityControl(control),
        counter,
        title,
        name,
    };
    let mut receiver = Receiver::new(SecurityControl(0x30), *b"WEIRWEIR");
    assert_eq!(receiver.take(opened(0x30, 1, *b"WEIRWEIR", KeyName::Global)), Err(Fault::OwnTitle));
    assert_eq!(receiver.take(opened(0x30, 5, CLIENT, KeyName::Global)), Ok(vec![1]));
    assert_eq!(receiver.take(opened(0x30, 5, CLIENT, KeyName::Global)), Err(Fault::Replay));
    assert_eq!(receiver.take(opened(0x30, 4, CLIENT, KeyName::Global)), Err(Fault::Replay));
    assert_eq!(receiver.take(opened(0x10, 6, CLIENT, KeyName::Global)), Err(Fault::Unprotected));
    assert_eq!(receiver.take(opened(0x20, 6, CLIENT, KeyName::Global)), Err(Fault::Unprotected));
    assert_eq!(receiver.take(opened(0x30, 6, *b"ABCDEFGH", KeyName::Global)), Err(Fault::OtherTitle));
    assert_eq!(receiver.take(opened(0x30, 1, CLIENT, KeyName::Dedicated)), Ok(vec![1]), "each key has its counter");
    assert_eq!(receiver.take(opened(0x30, 6, CLIENT, KeyName::Global)), Ok(vec![1]));
}

proptest! {
    #[test]
    fn what_is_ciphered_opens_and_one_changed_bit_anywhere_opens_nothing(
        rest in prop::collection::vec(any::<u8>(), 0..300),
        suite in 0u8..3, security in 1u8..4, general in any::<bool>(), counter in any::<u32>(),
        place in any::<prop::sample::Index>(),
    ) {
        let plain = [vec![0xC4], rest].concat();
        let control = (security << 4) | suite;
        let form = if general { Form::General } else { Form::Service };
        let mut apdu = keys(suite).protect(&plain, &how(form, control), counter).unwrap();
        prop_assert!(is_ciphered(&apdu));
        prop_assert_eq!(keys(suite).unprotect(&apdu, Some(CLIENT)).unwrap().plain, plain);
        let at = place.index(apdu.len() * 8);
        apdu[at / 8] ^= 1 << (at % 8);
        // Without a tag nothing vouches for the text; the receiver refuses it where a tag is asked for.
        let mut receiver = Receiver::new(SecurityControl::new(suite, true, false), *b"WEIRWEIR");
        let taken = keys(suite).unprotect(&apdu, Some(CLIENT)).and_then(|opened| receiver.take(opened));
        prop_assert!(taken.is_err(), "{:?}", taken);
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(tag in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let apdu = [vec![tag], bytes].concat();
        let _ = keys(0).unprotect(&apdu, Some(CLIENT));
        let _ = keys(2).unprotect(&apdu, None);
    }
}
