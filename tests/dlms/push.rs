//! Pushes of real meters, as others recorded them, against what others read in them.

use std::fmt::Write as _;
use std::path::PathBuf;

use weir::wire::dlms::notification::{self, Node};
use weir::wire::dlms::open::{self, Keys};
use weir::wire::dlms::push::{Damage, Decoder, Event};
use weir::wire::dlms::{Data, DateTime};

/// A recording with its keys and what is expected of it, line by line.
pub(super) struct Capture {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) encryption: Option<[u8; 16]>,
    pub(super) authentication: Option<[u8; 16]>,
    expected: String,
}

impl Capture {
    pub(super) fn keys(&self) -> Option<Keys> {
        Keys::new(self.encryption.as_ref()?, self.authentication.as_ref())
    }
}

/// The recordings beside the checkout; none, with a note, when they are not there.
pub(super) fn captures() -> Vec<Capture> {
    let places = [
        std::env::var("WEIR_DATA").unwrap_or_default(),
        concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").to_owned(),
        "/work/shared/data".to_owned(),
    ];
    let Some(folder) = places.iter().map(|p| PathBuf::from(p).join("dlms-push")).find(|p| p.is_dir()) else {
        eprintln!("NOTE: no recordings of DLMS pushes beside the checkout (WEIR_DATA); nothing was compared");
        return Vec::new();
    };
    let hex = |text: &str| {
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
    };
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let beside = |ending: &str| std::fs::read_to_string(path.with_extension(ending)).ok();
            let key = |ending: &str| beside(ending).map(|text| hex(&text).try_into().unwrap());
            Capture {
                bytes: hex(&std::fs::read_to_string(&path).unwrap()),
                encryption: key("key"),
                authentication: key("gak"),
                expected: std::fs::read_to_string(folder.join(format!("{name}_decoded.xml"))).unwrap(),
                name,
            }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!found.is_empty(), "{} holds no recording", folder.display());
    found
}

/// All that a stream holds, cut like this.
pub(super) fn events(bytes: &[u8], cut: usize) -> Vec<Event> {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    for part in bytes.chunks(cut) {
        decoder.push(part);
        found.extend(std::iter::from_fn(|| decoder.next()));
    }
    decoder.silence();
    found.extend(std::iter::from_fn(|| decoder.next()));
    found
}

/// The plain notifications of a recording.
pub(super) fn plain(capture: &Capture) -> Vec<Vec<u8>> {
    let apdus = events(&capture.bytes, usize::MAX).into_iter().filter_map(|event| match event {
        Event::Apdu(apdu) => Some(apdu),
        _ => None,
    });
    let open = |apdu: Vec<u8>| match open::sealed(&apdu).unwrap() {
        None => apdu,
        Some(sealed) => {
            let opened = sealed.open(&capture.keys().unwrap(), None, false).unwrap();
            assert_eq!(opened.verified, capture.authentication.is_some(), "{}", capture.name);
            opened.apdu
        }
    };
    apdus.map(open).collect()
}

/// What one line of the expected text says: a tag, and its value if it has one.
fn lines(expected: &str) -> Vec<String> {
    let attribute = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let wanted = |line: &str| {
        let tag: String = line.trim().strip_prefix('<')?.chars().take_while(char::is_ascii_alphanumeric).collect();
        let value = attribute(line, "Value").or_else(|| attribute(line, "Qty"));
        match tag.as_str() {
            "DataNotification" => Some(format!("DataNotification {}", attribute(line, "LongInvokeId")?)),
            "" | "GeneralGloCiphering" | "AttributeDescriptor" => None,
            _ => Some(format!("{tag} {}", value.unwrap_or_default()).trim().to_owned()),
        }
    };
    expected.lines().filter_map(wanted).collect()
}

/// The same of a tree of ours.
fn shown(node: &Node<'_>, into: &mut Vec<String>) {
    match node {
        Node::Array(parts) | Node::Structure(parts) => {
            let tag = if matches!(node, Node::Array(_)) { "ARRAY" } else { "STRUCTURE" };
            into.push(format!("{tag} {}", parts.len()));
            parts.iter().for_each(|part| shown(part, into));
        }
        Node::Descriptor(d) => {
            let name = dotted(d.instance_id.as_bytes());
            into.extend([
                format!("ClassId {:04X}", d.class_id),
                format!("InstanceId {name}"),
                format!("AttributeId {:02X}", d.attribute_id),
            ]);
        }
        Node::Leaf(Data::OctetString(octets)) => into.push(format!("OCTETSTRING {}", octets_shown(octets))),
        Node::Leaf(Data::VisibleString(octets)) => {
            into.push(format!("VISIBLESTRING {}", String::from_utf8_lossy(octets)));
        }
        Node::Leaf(data) => {
            let tag = match data {
                Data::Unsigned(_) => "UINT8",
                Data::LongUnsigned(_) => "UINT16",
                Data::DoubleLongUnsigned(_) => "UINT32",
                Data::Integer(_) => "INT8",
                Data::Long(_) => "INT16",
                Data::Enum(_) => "ENUM",
                other => panic!("{other:?}"),
            };
            into.push(format!("{tag} {}", data.as_i64().unwrap()));
        }
    }
}

fn dotted(octets: &[u8]) -> String {
    octets.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

fn octets_shown(octets: &[u8]) -> String {
    match octets.len() {
        6 => dotted(octets),
        12 if octets[0] == 0x07 => time_shown(DateTime::from_bytes(octets.try_into().unwrap())),
        _ => String::from_utf8_lossy(octets).into_owned(),
    }
}

fn time_shown(time: DateTime) -> String {
    let mut text = format!("{:04}-{:02}-{:02} ", time.year, time.month, time.day_of_month);
    write!(text, "{:02}:{:02}:{:02}", time.hour, time.minute, time.second).unwrap();
    if time.hundredths != 0xFF {
        write!(text, ".{:02}", time.hundredths).unwrap();
    }
    if time.deviation != i16::MIN {
        let sign = if time.deviation < 0 { '-' } else { '+' };
        let minutes = time.deviation.unsigned_abs();
        write!(text, " {sign}{:02}:{:02}", minutes / 60, minutes % 60).unwrap();
    }
    text
}

#[test]
fn every_recording_is_read_as_others_read_it_and_the_damaged_one_is_refused() {
    for capture in captures() {
        let plain = plain(&capture);
        if capture.name == "hdlc_landis_gyr_zmf100" {
            assert_eq!(plain, Vec::<Vec<u8>>::new());
            let found = events(&capture.bytes, usize::MAX);
            assert!(found.contains(&Event::Damaged(Damage::Check)), "{found:?}");
            continue;
        }
        let [apdu] = plain.as_slice() else { panic!("{}: {} APDUs", capture.name, plain.len()) };
        let notification = notification::decode(apdu).unwrap_or_else(|e| panic!("{}: {e}", capture.name));
        assert_eq!(notification.left, 0, "{}", capture.name);
        let mut found = vec![format!("DataNotification {:08X}", notification.invoke.unwrap())];
        let time = notification.time.map(time_shown).unwrap_or_default();
        found.push(format!("DateTime {time}").trim().to_owned());
        shown(&notification.body, &mut found);
        assert_eq!(found, lines(&capture.expected), "{}", capture.name);
    }
}

#[test]
fn however_a_recording_is_cut_the_same_is_found() {
    for capture in captures() {
        let whole = events(&capture.bytes, usize::MAX);
        for cut in [1, 2, 3, 7, 64, 257] {
            assert_eq!(events(&capture.bytes, cut), whole, "{} cut into {cut}", capture.name);
        }
    }
}

/// Draws numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

/// A recording with bytes changed, lost, doubled and put in.
fn mutated(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(6) {
        let at = dice.below(bytes.len());
        let until = (at + 1 + dice.below(20)).min(bytes.len());
        match dice.below(5) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
            2 => drop(bytes.drain(at..until)),
            3 => {
                let part = bytes[at..until].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.insert(at, [0x7E, 0x68, 0xFF, 0x00][dice.below(4)]),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

#[test]
fn mutated_recordings_are_read_or_refused_and_never_read_as_something_else() {
    let mut dice = Dice(0x5EED_2026);
    for capture in captures() {
        let right = plain(&capture);
        let keys = capture.keys();
        // Nothing checks a bare APDU but its own shape; a tag can't be verified without a key.
        let sure = !capture.name.starts_with("raw");
        for _ in 0..1500 {
            let bytes = mutated(&capture.bytes, &mut dice);
            let cut = 1 + dice.below(300);
            let found = events(&bytes, cut);
            assert_eq!(found, events(&bytes, usize::MAX), "{}", capture.name);
            // As a line on which right frames came before: the wrapper and bare APDUs are out.
            let primed = [&capture.bytes[..], &bytes].concat();
            for event in events(&primed, usize::MAX) {
                let Event::Apdu(apdu) = event else { continue };
                let opened = match (open::sealed(&apdu), &keys) {
                    (Ok(None), _) => apdu,
                    (Ok(Some(sealed)), Some(keys)) => match sealed.open(keys, None, false) {
                        Ok(opened) => opened.apdu,
                        Err(_) => continue,
                    },
                    _ => continue,
                };
                let Ok(notification) = notification::decode(&opened) else { continue };
                let mut finder = weir::wire::dlms::entry::Finder::new();
                for entry in finder.entries(&notification) {
                    let _ = (entry.name.to_string(), entry.text());
                }
                // An M-Bus checksum is one byte; without a tag it lets something through.
                let checked = sure && (capture.name.starts_with("hdlc") || capture.authentication.is_some());
                assert!(!checked || notification.left > 0 || right.contains(&opened), "{}", capture.name);
            }
            let hex = data_encoding::HEXUPPER.encode(&bytes);
            let explained = weir::wire::explain::dlms::explain(
                &data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap(),
                keys.as_ref(),
            );
            assert!(explained.is_err() || !explained.unwrap().to_string().is_empty());
        }
    }
}

#[test]
fn a_wrong_key_opens_no_recording() {
    for capture in captures() {
        let (Some(encryption), Some(authentication)) = (capture.encryption, capture.authentication) else { continue };
        let changed = |key: [u8; 16]| key.map(|b| b ^ 1);
        for keys in [
            Keys::new(&changed(encryption), Some(&authentication)),
            Keys::new(&encryption, Some(&changed(authentication))),
        ] {
            for event in events(&capture.bytes, usize::MAX) {
                let Event::Apdu(apdu) = event else { continue };
                let sealed = open::sealed(&apdu).unwrap().unwrap();
                assert_eq!(sealed.open(keys.as_ref().unwrap(), None, true), Err(open::Closed::Tag), "{}", capture.name);
            }
        }
    }
}

#[test]
fn every_recording_is_explained_down_to_its_values_and_the_damaged_one_is_refused() {
    for capture in captures() {
        let explained = weir::wire::explain::dlms::explain(&capture.bytes, capture.keys().as_ref());
        if capture.name == "hdlc_landis_gyr_zmf100" {
            assert!(explained.unwrap_err().to_string().contains("check sequence"));
            continue;
        }
        let explanation = explained.unwrap();
        let (text, json) = (explanation.to_string(), explanation.to_json());
        let messages = json["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1, "{}", capture.name);
        let state = match (capture.encryption, capture.authentication) {
            (None, _) => serde_json::Value::Null,
            (Some(_), Some(_)) => "verified".into(),
            // The one without a tag.
            (Some(_), None) => "untagged".into(),
        };
        assert_eq!(messages[0]["ciphering"]["state"], state, "{}: {text}", capture.name);
        // Each object that others found has a line with its value.
        let values = messages[0]["values"].as_array().unwrap();
        assert!(values.iter().all(|value| value["value"].is_string() || value["value"].is_null()), "{json:#}");
        let expected = lines(&capture.expected);
        let objects = expected.iter().filter_map(|line| line.strip_prefix("OCTETSTRING "));
        let objects = objects.filter(|text| text.split('.').count() == 6 && text.ends_with(".255"));
        for object in objects {
            let parts: Vec<&str> = object.split('.').collect();
            let name = format!("{}-{}:{}.{}.{}*{}", parts[0], parts[1], parts[2], parts[3], parts[4], parts[5]);
            assert!(values.iter().any(|value| value["name"] == name.as_str()), "{}: no {name} in {text}", capture.name);
        }
        // Without the key, or cut short, it is not opened, and says so.
        if capture.encryption.is_some() {
            let closed = weir::wire::explain::dlms::explain(&capture.bytes, None).unwrap().to_string();
            assert!(closed.contains("no key was given") && !closed.contains("values"), "{closed}");
        }
        let cut = &capture.bytes[..capture.bytes.len() * 2 / 3];
        let told = weir::wire::explain::dlms::explain(cut, capture.keys().as_ref());
        let told = told.map_or_else(|error| error.to_string(), |explanation| explanation.to_string());
        assert!(told.contains("breaks off") || told.contains("can't be read") || told.contains("found"), "{told}");
    }
}
