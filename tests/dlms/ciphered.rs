//! Pushes that other libraries ciphered: in all forms, of suites 0, 1 and 2. Believed are those whose tag is right, once.

use std::process::Command;

use weir::meter::{Listener, MeterSettings, protocol};
use weir::wire::dlms::wrapper::Unit;

use crate::peers;

/// A data-notification of one register, 7 in tenths of watt-hours.
const PUSH: &str = "0f00000001000203090601 00010800ff0600000007 02020fff161e";

/// The push as dlms-cosem or gurux-dlms ciphers it.
fn ciphered(form: &str, suite: u8, counter: u32) -> Vec<u8> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/dlms_push.py");
    let plain = PUSH.replace(' ', "");
    let mut command = Command::new(peers::python());
    let output = command.args([script, form, &suite.to_string(), &counter.to_string(), &plain]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dlms_push.py failed ({told}); tests/run installs its libraries");
    data_encoding::HEXLOWER.decode(output.stdout.trim_ascii()).unwrap()
}

/// A listener whose keys have so many digits' worth of bytes.
fn listener(folder: &std::path::Path, length: usize, encryption: &str) -> Box<dyn Listener> {
    for (name, digits) in [("ek", encryption), ("ak", "11")] {
        std::fs::write(folder.join(name), digits.repeat(length)).unwrap();
    }
    let folder = folder.display();
    let settings = format!(
        "name = \"m\"\nport = \"p\"\nprotocol = \"dlms-push\"\nkey_file = \"{folder}/ek\"\nauthentication_key_file = \"{folder}/ak\"\n"
    );
    protocol("dlms-push").unwrap().listener(&MeterSettings::parse(&settings).unwrap()).unwrap()
}

/// The energy, or why it is not believed.
fn heard(listener: &mut dyn Listener, apdu: &[u8], bare: bool) -> Result<String, String> {
    let unit = Unit { source: 1, destination: 103, apdu: apdu.to_vec() }.encode().unwrap();
    let mut found = listener.push(if bare { apdu } else { &unit });
    found.extend(listener.silence());
    assert_eq!(found.len(), 1, "{found:?}");
    let values = found.remove(0).map_err(|error| error.to_string())?;
    Ok(values.iter().find(|v| v.name == "1-0:1.8.0*255").unwrap().value.clone().unwrap())
}

#[test]
fn pushes_ciphered_by_others_in_every_form_and_suite_are_believed_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for (form, suite) in [("glo", 0), ("glo", 1), ("glo", 2), ("ded", 0), ("ded", 2), ("general", 1), ("general", 2)] {
        let length = if suite == 2 { 32 } else { 16 };
        let first = &mut *listener(folder.path(), length, "aa");
        let five = ciphered(form, suite, 5);
        assert_eq!(heard(first, &five, false).as_deref(), Ok("0.7"), "{form} {suite}");
        assert_eq!(
            heard(first, &ciphered(form, suite, 6), true).as_deref(),
            Ok("0.7"),
            "{form} {suite}: without a carrier"
        );
        let mut second = listener(folder.path(), length, "aa");
        second.take_over(&first.to_keep().unwrap());
        for listener in [first, &mut *second] {
            let replay = heard(listener, &five, false).unwrap_err();
            assert!(replay.contains("replay"), "{form} {suite}: {replay}");
        }
        // From the control byte on: counter, content or tag; and in the head of general-ciphering.
        let seven = ciphered(form, suite, 7);
        for at in if form == "general" { 1 } else { 11 }..seven.len() {
            let mut forged = seven.clone();
            forged[at] ^= 1;
            // A length that lies leaves no message, or a damaged one.
            let unit = Unit { source: 1, destination: 103, apdu: forged }.encode().unwrap();
            let mut found = second.push(&unit);
            found.extend(second.silence());
            assert!(found.iter().all(Result::is_err), "{form} {suite}: byte {at} was changed and it was believed");
        }
        let wrong = &mut *listener(folder.path(), length, "ab");
        assert!(heard(wrong, &seven, false).unwrap_err().contains("tag is wrong"), "{form} {suite}");
        let other = &mut *listener(folder.path(), 48 - length, "aa");
        assert!(heard(other, &seven, false).unwrap_err().contains("security suite"), "{form} {suite}");
        assert_eq!(heard(&mut *second, &seven, false).as_deref(), Ok("0.7"), "nothing forged has spent its counter");
    }
}
