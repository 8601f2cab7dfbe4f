use super::*;

fn entry(name: &[u8], unit: u8, scaler: i8, value: Content) -> Entry {
    Entry { name: name.to_vec(), status: None, unit, scaler, value }
}

fn texts(entries: Vec<Entry>) -> Vec<(String, String, String)> {
    let values = values(&[List { server: vec![0x0A, 0x01], entries }]);
    values.into_iter().map(|v| (v.name, v.value.unwrap_or("-".into()), v.unit)).collect()
}

fn row(name: &str, text: &str, unit: &str) -> (String, String, String) {
    (name.to_owned(), text.to_owned(), unit.to_owned())
}

#[test]
fn numbers_are_exact_and_everything_has_its_name_and_unit() {
    let energy =
        Entry { status: Some(0x0001_0182), ..entry(&[1, 0, 1, 8, 0, 255], 30, -1, Content::Number(172_433_680)) };
    let found = texts(vec![
        entry(&[129, 129, 199, 130, 3, 255], 0, 0, Content::Octets(b"EMH".to_vec())),
        energy,
        entry(&[1, 0, 16, 7, 0, 255], 27, 0, Content::Number(-500)),
        entry(&[1, 0, 2, 8, 0, 255], 30, 2, Content::Number(i128::from(u64::MAX))),
        entry(&[1, 0, 96, 1, 0, 255], 0, 0, Content::Octets(b"AB".to_vec())),
        entry(&[1, 0, 0, 2, 0, 0], 0, 0, Content::Absent),
        entry(&[1, 0, 96, 8, 0, 255], 0, 0, Content::Seconds(7)),
        entry(&[1, 0, 16, 7, 0, 255], 27, 0, Content::Bool(true)),
        entry(b"name", 99, 0, Content::Number(1)),
    ]);
    let expected = [
        row("server_id", "0A01", ""),
        row("129-129:199.130.3*255", "EMH", ""),
        row("1-0:1.8.0*255", "17243368.0", "Wh"),
        row("1-0:1.8.0*255#status", "65922", ""),
        row("1-0:16.7.0*255", "-500", "W"),
        row("1-0:2.8.0*255", "1844674407370955161500", "Wh"),
        row("1-0:96.1.0*255", "4142", ""),
        row("1-0:96.8.0*255", "7", "s"),
        row("1-0:16.7.0*255#2", "1", "W"),
        row("6E616D65", "1", ""),
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_id_is_wanted_with_or_without_its_ends() {
    let text = "name = \"m\"\nport = \"p\"\nprotocol = \"sml\"\nvalues = [\"1.8.0\", \"1-0:16.7.0*255\"]";
    let mut wishes = Wishes::new(&MeterSettings::parse(text).unwrap());
    let all =
        values(&[List { server: vec![1], entries: vec![entry(&[1, 0, 1, 8, 0, 255], 30, -1, Content::Number(15))] }]);
    let kept = wishes.keep(all);
    assert_eq!((kept[0].name.as_str(), kept[0].value.as_deref()), ("1.8.0", Some("1.5")));
    assert_eq!((kept[1].value.as_deref(), kept[1].quality), (None, Quality::Refused));
}
