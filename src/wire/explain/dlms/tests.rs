use proptest::prelude::*;

use super::super::{Explainer, Explanation, Format};
use crate::wire::DecodeError;
use crate::wire::dlms::open::Keys;
use crate::wire::wmbus;

fn explain_with(bytes: &[u8], format: Option<Format>, keys: Option<Keys>) -> Result<Explanation, DecodeError> {
    Explainer::new(wmbus::Keys::none()).with_dlms(keys).explain(bytes, format)
}
use super::*;
use crate::wire::dlms::open::seal;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}

fn explained(text: &str) -> Explanation {
    explain(&hex(text), None).unwrap()
}

/// Requests and answers as they were seen between two implementations (serial-protocols.md, section 4).
const AARQ: &str = "60 1D A1 09 06 07 60857405080101 BE 10 04 0E 01000000 065F1F0400 401E5D FFFF";
const AARQ_LOW: &str = "60 33 A1 09 06 07 60857405080101 8A 02 0780 8B 07 60857405080201 AC 07 80 05 4775727578 BE 10 04 0E 01000000 065F1F0400 401E5D FFFF";

#[test]
fn an_association_is_told_and_its_password_is_not() {
    let text = explained(AARQ).to_string();
    assert!(text.contains("AARQ") && text.contains("65535 bytes") && text.contains("selective-access"), "{text}");
    let found = explained(AARQ_LOW);
    let (text, json) = (found.to_string(), found.to_json().to_string());
    assert!(text.contains("5 bytes, not shown"), "{text}");
    for shown in [text, json] {
        assert!(!shown.contains("Gurux") && !shown.to_uppercase().contains("4775727578"), "{shown}");
    }
}

#[test]
fn requests_and_answers_are_told_with_object_and_value() {
    let cases = [
        ("C0 01 C1 0003 0100010800FF 02 00", "1-0:1.8.0*255 attribute 2 value (class 3 Register)"),
        ("C4 01 C1 00 06 00000007", "7"),
        ("C4 01 C1 01 03", "read-write-denied"),
        ("C1 01 C1 0008 0000010000FF 02 00 09 02 3132", "12"),
        ("C3 01 C1 0046 000060030AFF 01 01 0F 00", "method 1 remote_disconnect (class 70 Disconnect control)"),
        ("D8 01 06 000007D8", "invocation counter 2008"),
        ("C4 02 C1 00 00000001 00 03 010203", "number 1, more follow"),
        ("C4 01 C1 00 13 02 02 11 12 06 01 00 02 03 00 04", "[[1, 2], [3, 4]]"),
        ("C4 01 C1 00 01 01 02 02 12 0003 09 06 0100010800FF", "[3, 1-0:1.8.0*255]"),
        ("05 01 02 FA00", "short name FA00"),
        ("0C 01 00 06 00000007", "7"),
        ("0C 01 01 03", "read-write-denied"),
        ("0D 01 00", "success"),
        ("62 03 80 01 00", "normal"),
        (
            "61 29 A1 09 06 07 60857405080101 A2 03 020101 A3 05 A10302010D BE 10 04 0E 0800 065F1F0400 00101D 04 00 0007",
            "rejected-permanent",
        ),
    ];
    for (apdu, expected) in cases {
        let text = explained(apdu).to_string();
        assert!(text.contains(expected), "{apdu}: {text}");
    }
    let json = explained("C0 01 C1 0003 0100010800FF 02 00").to_json();
    assert_eq!(json["messages"][0]["objects"][0]["name"], "1-0:1.8.0*255");
}

#[test]
fn no_secret_that_is_written_is_shown() {
    for apdu in [
        "C1 01 C1 000F 0000280000FF 07 00 09 05 4775727578",
        "C3 01 C1 000F 0000280000FF 02 01 09 05 4775727578",
        "06 01 02 FA28 01 09 05 4775727578",
    ] {
        let found = explained(apdu);
        for shown in [found.to_string(), found.to_json().to_string(), words(&hex(apdu)).join(" ")] {
            assert!(!shown.contains("Gurux") && !shown.to_uppercase().contains("4775727578"), "{shown}");
        }
        assert!(found.to_string().contains("not shown"), "{found}");
    }
}

/// An APDU in a wrapper.
fn unit(apdu: &str) -> Vec<u8> {
    let apdu = hex(apdu);
    crate::wire::dlms::wrapper::Unit { source: 1, destination: 16, apdu }.encode().unwrap()
}

/// Explains APDUs of one stream; none of "Gurux" may be seen, and that something is not shown.
fn veiled(apdus: &[&str]) -> String {
    let bytes = apdus.iter().flat_map(|apdu| unit(apdu)).collect::<Vec<_>>();
    let found = explain(&bytes, None).unwrap();
    let text = found.to_string();
    for shown in [&text, &found.to_json().to_string()] {
        assert!(!shown.contains("Gurux") && !shown.to_uppercase().contains("4775727578"), "{shown}");
    }
    assert!(text.contains("not shown"), "{text}");
    text
}

#[test]
fn every_secret_that_a_session_hides_is_hidden() {
    for (class, number) in [("002C", "05"), ("002D", "03"), ("002E", "04")] {
        veiled(&[&format!("C1 01 C1 {class} 0000190000FF {number} 00 09 05 4775727578")]);
    }
    for (class, number) in [("000C", "05"), ("000C", "06"), ("0040", "03"), ("0048", "07"), ("0048", "08")] {
        veiled(&[&format!("C3 01 C1 {class} 00002B0000FF {number} 01 09 05 4775727578")]);
    }
}

#[test]
fn a_secret_in_a_list_is_hidden_wherever_it_stands() {
    let (secret, plain) = ("000F 0000280000FF 07 00", "0001 0000600100FF 02 00");
    let values = "02 09 05 4775727578 09 02 3132";
    let text = veiled(&[&format!("C1 04 C1 02 {secret} {plain} {values}")]);
    assert!(text.contains("attribute 7") && text.contains("attribute 2"), "{text}");
    let methods = "02 000F 0000280000FF 02 0046 000060030AFF 01";
    veiled(&[&format!("C3 03 C1 {methods} 02 09 05 4775727578 0F 00")]);
}

#[test]
fn what_can_not_be_read_shows_no_password() {
    // An AARQ whose length is wrong, requests that are cut, and a write by a short name with a wrong type.
    let damaged_aarq = AARQ_LOW.replacen("60 33", "60 7F", 1);
    for apdu in [
        damaged_aarq.as_str(),
        "C1 01 C1 000F 0000280000FF 07 00 09 06 4775727578",
        "C3 01 C1 000F 0000280000FF 02 01 09 06 4775727578",
        "06 01 02 FA28 01 09 06 4775727578",
        "16 01 02 FA28 01 09 06 4775727578",
    ] {
        let text = veiled(&[apdu]);
        assert!(text.contains(&format!("{} bytes, not shown", hex(apdu).len())), "{text}");
    }
    // What is only authenticated is as good as plain.
    let text = veiled(&["C9 25 10 00000001 C101C1000F0000280000FF070009054775727578 000000000000000000000000"]);
    assert!(text.contains("no key was given"), "{text}");
    // Of others the bytes help to find the fault.
    let text = explain(&unit("C4 01 C1 00 09 06 0102"), None).unwrap().to_string();
    assert!(text.contains("c401c100"), "{text}");
}

#[test]
fn an_answer_to_a_request_of_a_secret_is_hidden() {
    let (secret, plain) = ("C0 01 C1 000F 0000280000FF 07 00", "C0 01 C1 0001 0000600100FF 02 00");
    let (answer, cut) = ("C4 01 C1 00 09 05 4775727578", "C4 01 C1 00 09 06 4775727578");
    veiled(&[secret, answer]);
    veiled(&[secret, cut]);
    veiled(&[secret, "C4 02 C1 00 00000001 00 03 090547", "C0 02 C1 00000001", "C4 02 C1 01 00000002 00 04 75727578"]);
    veiled(&[
        "C0 03 C1 02 0001 0000600100FF 02 00 000F 0000280000FF 07 00",
        "C4 03 C1 02 00 11 07 00 09 05 4775727578",
    ]);
    // Others are told: with another invoke id, or once something else was asked for.
    let shown = |apdus: &[&str]| {
        let bytes = apdus.iter().flat_map(|apdu| unit(apdu)).collect::<Vec<_>>();
        explain(&bytes, None).unwrap().to_string().contains("Gurux")
    };
    assert!(shown(&[secret, "C4 01 C2 00 0A 05 4775727578"]));
    assert!(shown(&[secret, answer, plain, "C4 01 C1 00 0A 05 4775727578"]));
}

#[test]
fn the_blocks_of_a_long_answer_are_put_together() {
    let blocks = [
        "C4 02 C1 00 00000001 00 03 010206",
        "C4 02 C1 00 00000002 00 05 0000000706",
        "C4 02 C1 01 00000003 00 04 00000008",
    ];
    let text = explain(&blocks.map(unit).concat(), None).unwrap().to_string();
    assert!(text.contains("12 bytes in 3 blocks\n  value") && text.contains("7\n") && text.contains("8\n"), "{text}");
    let gap = [unit(blocks[0]), unit(blocks[2])].concat();
    assert!(!explain(&gap, None).unwrap().to_string().contains("in 3 blocks"));
}

#[test]
fn titles_of_an_association_open_what_tells_none() {
    use crate::wire::dlms::protect::{Form, How, KeyName, Keys, Suite};
    use crate::wire::dlms::secret::Secret;
    use crate::wire::dlms::{SecurityControl, wrapper};
    const CLIENT: [u8; 8] = *b"WEI\0\0\0\0\x01";
    const METER: [u8; 8] = *b"GRX\0\0\0\0\x02";
    let secret = |byte: u8| Secret::new(vec![byte; 16]);
    let keys = Keys::new(Suite::new(0).unwrap(), &secret(1), Some(secret(2))).unwrap();
    let sealed = |title, counter, plain: &str| {
        let how = How { form: Form::Service, name: KeyName::Global, control: SecurityControl(0x30), title };
        keys.protect(&hex(plain), &how, counter).unwrap()
    };
    let initiate = sealed(CLIENT, 1, "01000000065F1F0400401E5DFFFF");
    let title = [&[0xA6, 0x0A, 0x04, 0x08][..], &CLIENT].concat();
    let length = u8::try_from(initiate.len()).unwrap();
    let information = [&[0xBE, length + 2, 0x04, length][..], &initiate].concat();
    let content = [&hex("A1 09 06 07 60857405080103")[..], &title, &information].concat();
    let aarq = [&[0x60, u8::try_from(content.len()).unwrap()][..], &content].concat();
    let title = [&[0xA4, 0x0A, 0x04, 0x08][..], &METER].concat();
    let content = [&hex("A1 09 06 07 60857405080103 A2 03 020100 A3 05 A103020100")[..], &title].concat();
    let aare = [&[0x61, u8::try_from(content.len()).unwrap()][..], &content].concat();
    let get = sealed(CLIENT, 2, "C001C100030100010800FF0200");
    let got = sealed(METER, 9, "C401C1000600000007");
    let unit = |apdu: Vec<u8>| wrapper::Unit { source: 1, destination: 1, apdu }.encode().unwrap();
    let stream = [aarq, aare, get, got.clone()].map(unit).concat();
    let both = super::Keys::new(&[1; 16], Some(&[2; 16])).unwrap();
    let json = explain(&stream, Some(&both)).unwrap().to_json();
    let messages = json["messages"].as_array().unwrap();
    assert_eq!(messages[0]["information"]["ciphering"]["state"], "verified", "{json:#}");
    assert_eq!(messages[2]["ciphering"]["state"], "verified", "{json:#}");
    assert_eq!((&messages[3]["values"][0], &messages[3]["inside"]), (&"7".into(), &"get-response".into()));
    // Alone it needs the title from a person.
    assert!(explain(&got, Some(&both)).unwrap().to_string().contains("tells no system title"));
    let text = explain_of(&got, Some(&both), Some(METER)).unwrap().to_string();
    assert!(text.contains("its tag is right") && text.contains("7"), "{text}");
}

#[test]
fn a_link_is_opened_in_words_and_a_wrapper_is_recognised() {
    let link = "7E A0 07 03 21 93 0F 01 7E";
    assert!(is_sure(&hex(link)));
    let text = explain_with(&hex(link), None, None).unwrap().to_string();
    assert!(text.contains("SNRM"), "{text}");
    let wrapped = hex(&format!("0001 0010 0001 001F {AARQ}"));
    let json = explain_with(&wrapped, None, None).unwrap().to_json();
    assert_eq!((&json["format"], &json["frames"][0]["carrier"]), (&"dlms".into(), &"wrapper".into()));
    assert_eq!(words(&wrapped), ["wrapper 16 to 1", "AARQ"]);
    assert_eq!(words(&hex(link)), ["HDLC 16 to 1: SNRM: opens the link"]);
    assert!(words(b"hello").is_empty());
}

#[test]
fn a_ciphered_push_is_opened_as_far_as_the_keys_reach() {
    let keys = |authentication: Option<&[u8; 16]>| Keys::new(&[1; 16], authentication).unwrap();
    let plain = hex("0F 00000001 00 02 02 09 06 01 00 01 08 00 FF 06 00000007");
    let both = keys(Some(&[2; 16]));
    let bytes = seal(&both, *b"WEI\0\0\0\0\x01", 0x30, 9, &plain).unwrap();
    let state = |keys: Option<&Keys>| {
        let json = explain(&bytes, keys).unwrap().to_json();
        (json["messages"][0]["ciphering"]["state"].clone(), json["messages"][0]["values"][0]["value"].clone())
    };
    assert_eq!(state(None), ("closed".into(), Value::Null));
    assert_eq!(state(Some(&keys(None))), ("unverified".into(), "7".into()));
    assert_eq!(state(Some(&both)), ("verified".into(), "7".into()));
    assert_eq!(state(Some(&keys(Some(&[3; 16])))), ("closed".into(), Value::Null));
    let untagged = seal(&both, *b"WEI\0\0\0\0\x01", 0x20, 9, &plain).unwrap();
    let text = explain(&untagged, Some(&both)).unwrap().to_string();
    assert!(text.contains("anybody may have written it") && text.contains("1-0:1.8.0*255 = 7"), "{text}");
}

#[test]
fn what_is_no_dlms_is_refused_in_a_sentence() {
    for bytes in [&b""[..], b"hello", &hex("7E A0 07 03 21 93 0F 02 7E")] {
        let sentence = explain(bytes, None).unwrap_err().to_string();
        assert!(sentence.contains("DLMS"), "{sentence}");
    }
    assert_eq!(Format::parse("dlms"), Some(Format::Dlms));
}

proptest! {
    #[test]
    fn any_bytes_behind_any_tag_are_explained_or_refused(tag in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let bytes = [&[tag], &bytes[..]].concat();
        let keys = Keys::new(&[1; 16], None).unwrap();
        if let Ok(found) = explain(&bytes, Some(&keys)) {
            prop_assert!(!found.to_string().is_empty() && found.to_json().is_object());
        }
        let _ = (words(&bytes), is_sure(&bytes));
    }
}
