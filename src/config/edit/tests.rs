//! Keys, values, and that the rest of the file stays as it was.

use proptest::prelude::*;

use super::{Edit, edited, path, value};

const FILE: &str = r#"# my gateway
[broker] # the one
url = "ssl://a:8883" # by the book

[uplink]
backoff = { first = "1s" }

# two lines
[[port]]
name = "rs485-1"
device = "/dev/ttyS1"

[[port]]
name = "2" # odd
device = "/dev/ttyS2"
rs485.direction = "kernel"

[[meter]]
name = "in.comer"
port = "rs485-1"
protocol = "modbus-rtu"
register = [{ name = "v", register = "input:0", scale = 1 }]
"#;

fn set(key: &str, text: &str) -> String {
    edited(FILE, &[Edit::Set(key.into(), text.into())]).unwrap_or_else(|e| panic!("{key}: {e}"))
}

fn refused(key: &str, text: &str) -> String {
    edited(FILE, &[Edit::Set(key.into(), text.into())]).unwrap_err().to_string()
}

/// The lines that are not in both.
fn changed(new: &str) -> Vec<&str> {
    let old: Vec<_> = FILE.lines().collect();
    new.lines().filter(|line| !old.contains(line) && !line.is_empty()).collect()
}

#[test]
fn a_key_is_set_where_it_stands_with_its_comment_and_typed_as_the_setting_takes_it() {
    let cases = [
        ("broker.url", "ssl://b:1", vec!["url = \"ssl://b:1\" # by the book"]),
        ("broker[1].username", "me", vec!["username = \"me\""]),
        ("port[rs485-1].baud", "19200", vec!["baud = 19200"]),
        ("port[1].baud", "19200", vec!["baud = 19200"]),
        ("port.2.framing", "8E1", vec!["framing = \"8E1\""]),
        ("port[2].rs485.direction", "auto", vec!["rs485.direction = \"auto\""]),
        ("port[rs485-1].rs485.direction", "kernel", vec![]),
        ("meter[\"in.comer\"].every", "15m", vec!["every = \"15m\""]),
        (
            "meter[in.comer].register[v].scale",
            "0.10",
            vec!["register = [{ name = \"v\", register = \"input:0\", scale = 0.10 }]"],
        ),
        ("uplink.backoff.max", "2s", vec!["backoff = { first = \"1s\", max = \"2s\" }"]),
        ("uplink.batch", "50", vec!["batch = 50"]),
        ("status.topic", "a/b", vec!["[status]", "topic = \"a/b\""]),
        ("status.extended", "on", vec!["[status]", "extended = true"]),
        ("port[+new].device", "/dev/ttyS9", vec!["name = \"new\"", "device = \"/dev/ttyS9\""]),
    ];
    for (key, text, lines) in cases {
        let new = set(key, text);
        assert_eq!(changed(&new), lines, "{key}: {new}");
        assert_eq!(
            value(&new, &key.replace('+', "")).unwrap().unwrap(),
            if text == "on" { "true" } else { text },
            "{key}"
        );
    }
    assert!(
        set("port[rs485-1].rs485.direction", "kernel")
            .contains("device = \"/dev/ttyS1\"\nrs485.direction = \"kernel\"\n")
    );
}

#[test]
fn a_key_or_table_is_removed_and_the_rest_stays() {
    let unset = |key: &str| edited(FILE, &[Edit::Unset(key.into())]).unwrap();
    assert_eq!(unset("port[2].device"), FILE.replace("device = \"/dev/ttyS2\"\n", ""));
    assert!(!unset("port[2]").contains("odd") && unset("port[2]").contains("# two lines"));
    assert_eq!(unset("uplink.batch"), FILE);
    assert_eq!(unset("status.topic"), FILE);
    assert_eq!(value(FILE, "uplink.batch").unwrap().as_deref(), Some("500"));
    assert_eq!(value(FILE, "status.every").unwrap().as_deref(), Some("5m"));
    assert_eq!(value(FILE, "status.topic").unwrap(), None);
}

#[test]
fn what_is_wrong_with_a_key_is_told() {
    for (key, text, words) in [
        ("brokr.url", "x", "did you mean \"broker\""),
        ("port[rs485-9].baud", "1", "known: rs485-1, 2"),
        ("port[3].baud", "1", "no port 3"),
        ("port.baud", "1", "port"),
        ("broker", "x", "broker"),
        ("uplink.batch", "many", "must be a number"),
        ("status.extended", "maybe", "on or off"),
        ("uplink.batch.x", "1", "has nothing in it"),
        ("uplink[1].batch", "1", "is no list"),
        ("port[2]", "1", "whole table"),
        ("", "1", "no key"),
        ("a..b", "1", "no key"),
        ("port[2.baud", "1", "no key"),
    ] {
        let told = refused(key, text);
        assert!(told.contains(words), "{key}: {told}");
    }
}

proptest! {
    #[test]
    fn any_key_and_value_is_taken_or_refused_without_a_panic(key in "[a-z.\\[\\]\"+0-9]{0,24}", text in ".{0,24}") {
        let _ = path::read(&key);
        let _ = (edited(FILE, &[Edit::Set(key.clone(), text)]), edited(FILE, &[Edit::Unset(key.clone())]), value(FILE, &key));
    }

    #[test]
    fn a_text_that_was_set_is_read_back(text in "[^\\p{C}]{1,30}") {
        let new = edited(FILE, &[Edit::Set("broker.username".into(), text.clone())]).unwrap();
        let expected = text.trim();
        let quoted = expected.starts_with('"') || expected.starts_with('\'');
        prop_assert!(quoted || value(&new, "broker.username").unwrap().as_deref() == Some(expected));
    }
}
