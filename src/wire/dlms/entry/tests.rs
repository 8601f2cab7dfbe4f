use proptest::prelude::*;

use super::super::notification::{self, Notification};
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}

/// A push with this body.
fn push(body: &str) -> Vec<u8> {
    [hex("0F 00 00 00 01 00"), hex(body)].concat()
}

/// Name, text and unit of all values.
fn read(finder: &mut Finder, apdu: &[u8]) -> Vec<String> {
    let notification = notification::decode(apdu).unwrap();
    assert_eq!(notification.left, 0);
    let shown = |entry: &Entry<'_>| {
        let text = entry.text().unwrap_or_else(|| "null".to_owned());
        format!("{}={text} {}", entry.name, entry.unit()).trim_end().to_owned()
    };
    finder.entries(&notification).iter().map(shown).collect()
}

fn shown(body: &str) -> Vec<String> {
    read(&mut Finder::new(), &push(body))
}

const ENERGY: &str = "09 06 01 00 01 08 00 FF";
const POWER: &str = "09 06 01 00 01 07 00 FF";

#[test]
fn every_arrangement_of_name_value_and_scale_says_the_same() {
    let expected = ["1-0:1.8.0*255=1234.5 Wh", "1-0:1.7.0*255=7 W"];
    let (value, scale) = ("06 00003039", "02 02 0F FF 16 1E");
    let (power, watts) = ("10 0007", "02 02 0F 00 16 1B");
    let arrangements = [
        format!("01 02 02 03 {ENERGY} {value} {scale} 02 03 {POWER} {power} {watts}"),
        format!("02 06 {ENERGY} {value} {scale} {POWER} {power} {watts}"),
        format!("02 02 02 04 {ENERGY} {value} 0F FF 16 1E 02 04 {POWER} {power} 0F 00 16 1B"),
        format!("02 02 02 02 {ENERGY} 02 02 {value} {scale} 02 02 {POWER} 02 02 {power} {watts}"),
        format!("02 02 02 05 12 0003 {ENERGY} 0F 02 {value} {scale} 02 05 12 0003 {POWER} 0F 02 {power} {watts}"),
        // The list before has a name of its own.
        format!("02 03 09 06 00 00 19 09 00 FF 02 03 {ENERGY} {value} {scale} 02 03 {POWER} {power} {watts}"),
    ];
    for arrangement in arrangements {
        let found = shown(&arrangement);
        assert!(found.ends_with(&expected.map(str::to_owned)), "{arrangement}: {found:?}");
    }
}

#[test]
fn values_of_a_push_object_list_are_named_by_it() {
    let definition =
        |class: &str, name: &str, attribute: &str| format!("02 04 12 {class} {name} 0F {attribute} 12 0000");
    let list = [
        definition("0028", "09 06 00 08 19 09 00 FF", "02"),
        definition("0008", "09 06 00 00 01 00 00 FF", "02"),
        definition("0003", ENERGY, "02"),
        definition("0003", ENERGY, "03"),
        definition("0046", "09 06 00 00 60 03 0A FF", "03"),
        definition("0046", "09 06 00 00 60 03 0A FF", "02"),
    ]
    .concat();
    let time = "09 0C 07E6 02 15 01 11 25 1E FF 8000 00";
    let found = shown(&format!("02 06 01 06 {list} {time} 06 00003039 02 02 0F FF 16 1E 16 01 03 01"));
    let expected = [
        "0-0:1.0.0*255=2022-02-21T17:37:30",
        "1-0:1.8.0*255=1234.5 Wh",
        "0-0:96.3.10*255=1",
        "0-0:96.3.10*255#attribute2=1",
    ];
    assert_eq!(found, expected);
}

#[test]
fn descriptors_without_type_tags_are_read_when_all_bytes_fit() {
    let body = "02 02 16 01 01 02 02 02 0003 0100010800FF 02 06 00003039 02 02 0046 000060030AFF 03 16 01";
    assert_eq!(shown(body), ["value-1=1", "1-0:1.8.0*255=12345", "0-0:96.3.10*255=1"]);
    let broken = push(&body[..body.len() - 3]);
    assert!(notification::decode(&broken).map_or(true, |found| found.left > 0));
}

#[test]
fn the_time_stands_with_a_tag_or_without_or_not_at_all() {
    let time = "07E7 04 01 06 15 20 23 00 FF88 80";
    for head in [format!("0C {time}"), format!("09 0C {time}"), format!("19 {time}")] {
        let apdu = hex(&format!("0F 00000001 {head} 06 00000007"));
        let notification = notification::decode(&apdu).unwrap();
        assert_eq!(notification.time.unwrap().to_string(), "2023-04-01T21:32:35+02:00", "{head}");
        assert_eq!(notification.left, 0);
    }
    assert!(notification::decode(&hex("0F 00000001 00 06 00000007")).unwrap().time.is_none());
    assert!(notification::decode(&hex("0F 00000001 05 06 00000007")).is_err());
}

#[test]
fn an_event_notification_names_its_attribute() {
    let apdu = hex("C2 01 0C 07E7 04 01 06 15 20 23 00 FF88 80 0003 0100010700FF 02 06 00000007");
    assert_eq!(read(&mut Finder::new(), &apdu), ["1-0:1.7.0*255=7"]);
    assert_eq!(read(&mut Finder::new(), &hex("C2 00 0046 000060030AFF 03 16 01")), ["0-0:96.3.10*255=1"]);
}

#[test]
fn a_list_without_names_is_read_by_its_makers_table_also_when_a_short_one_follows() {
    let mut finder = Finder::new();
    let short = push("02 01 06 000003B4");
    assert_eq!(read(&mut finder, &short), ["value-1=948"], "nobody has said yet what it is");
    let single = push(
        "02 09 09 07 4B464D5F303031 09 04 31323334 09 03 4D4131 06 000003B4 06 00000000 06 00000000 06 00000040 06 00000588 06 00000951",
    );
    let expected = [
        "1-1:0.2.129*255=KFM_001",
        "0-0:96.1.0*255=1234",
        "0-0:96.1.7*255=MA1",
        "1-0:1.7.0*255=948 W",
        "1-0:2.7.0*255=0 W",
        "1-0:3.7.0*255=0 var",
        "1-0:4.7.0*255=64 var",
        "1-0:31.7.0*255=1.416 A",
        "1-0:32.7.0*255=238.5 V",
    ];
    assert_eq!(read(&mut finder, &single), expected);
    assert_eq!(read(&mut finder, &short), ["1-0:1.7.0*255=948 W"]);
    let other = push(
        "02 09 09 03 414243 09 04 31323334 09 03 4D4131 06 000003B4 06 00000000 06 00000000 06 00000040 06 00000588 06 00000951",
    );
    assert_eq!(read(&mut Finder::new(), &other)[3], "value-4=948");
}

#[test]
fn names_without_units_get_them_from_the_makers_table_and_meters_behind_transformers_differ() {
    let body = |kind: &str| {
        let id = "0A 0E 4B616D73747275705F5630303031";
        push(&format!(
            "02 09 {id} 09 06 01 01 60 01 01 FF 0A 03 {kind} 09 06 01 01 01 08 00 FF 06 00000007 09 06 01 01 1F 07 00 FF 06 0000007B 09 06 01 01 20 07 00 FF 12 00DE"
        ))
    };
    let read = |kind: &str| {
        let apdu = body(kind);
        read(&mut Finder::new(), &apdu)
    };
    // Nine parts: the list id and four pairs.
    assert_eq!(read("363831")[2..], ["1-1:1.8.0*255=70 Wh", "1-1:31.7.0*255=1.23 A", "1-1:32.7.0*255=222 V"]);
    assert_eq!(read("363835")[3], "1-1:31.7.0*255=0.123 A");
}

#[test]
fn octets_are_characters_or_digits_and_nothing_is_no_value() {
    let found = shown("02 05 09 04 31323334 09 04 01020304 0A 06 4142 00000000 00 09 00");
    assert_eq!(found, ["value-1=1234", "value-2=01020304", "value-3=AB", "value-4=null", "value-5="]);
    assert_eq!(shown("02 03 03 01 17 43668000 04 06 A8"), ["value-1=1", "value-2=230.5", "value-3=101010"]);
    assert_eq!(shown("15 FFFFFFFFFFFFFFFF"), ["value-1=18446744073709551615"]);
}

#[test]
fn a_serial_number_of_six_digits_is_a_value_and_no_name() {
    assert_eq!(shown("02 02 09 06 00 00 60 01 01 FF 09 06 313630343536"), ["0-0:96.1.1*255=160456"]);
}

#[test]
fn a_value_with_its_own_time_keeps_it() {
    let time = "09 0C 07E7 04 01 06 15 20 23 00 FF88 80";
    let apdu = push(&format!("02 01 02 04 09 06 00 01 18 02 01 FF 06 00000007 02 02 0F FE 16 0D {time}"));
    let notification = notification::decode(&apdu).unwrap();
    let mut finder = Finder::new();
    let entries = finder.entries(&notification);
    assert_eq!(entries[0].text().as_deref(), Some("0.07"));
    assert_eq!(entries[0].time.unwrap().to_string(), "2023-04-01T21:32:35+02:00");
}

/// A tree of values as bytes.
fn tree() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(hex(ENERGY)),
        Just(hex("02 02 0F FF 16 1E")),
        Just(hex("09 0C 07E7 04 01 06 15 20 23 00 FF88 80")),
        Just(hex("02 04 12 0003 09 06 01 00 01 08 00 FF 0F 02 12 0000")),
        Just(hex("0A 07 4B464D5F303031")),
        Just(vec![0x00]),
        any::<u32>().prop_map(|n| [&[0x06][..], &n.to_be_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 0..14)
            .prop_map(|v| [&[0x09, u8::try_from(v.len()).unwrap()][..], &v].concat()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        (1..=2_u8, prop::collection::vec(inner, 0..6))
            .prop_map(|(tag, parts)| [&[tag, u8::try_from(parts.len()).unwrap()][..], &parts.concat()].concat())
    })
}

proptest! {
    #[test]
    fn any_body_is_read_and_no_value_is_told_twice_or_made_up(body in tree()) {
        let apdu = [&hex("0F 00 00 00 01 00")[..], &body].concat();
        let notification = notification::decode(&apdu).unwrap();
        let mut finder = Finder::new();
        let entries = finder.entries(&notification);
        prop_assert!(entries.len() <= body.len());
        for entry in &entries {
            let _ = (entry.text(), entry.name.to_string(), entry.unit());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), list in any::<bool>()) {
        let head = if list { &[0x0F, 0, 0, 0, 0, 0, 2][..] } else { &[0x0F][..] };
        let apdu = [head, &bytes].concat();
        if let Ok(notification) = notification::decode(&apdu) {
            for entry in Finder::new().entries(&notification) {
                let _ = (entry.text(), entry.name.to_string());
            }
        }
        let event = [&[0xC2][..], &bytes].concat();
        let _: Option<Notification<'_>> = notification::decode(&event).ok();
    }
}
