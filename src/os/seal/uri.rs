//! Which key of which token, and where its PIN is: what a `pkcs11:` URI (RFC 7512) may say here.
//!
//! `pkcs11:token=LABEL;id=%01?module-path=/PATH&pin-source=file:/PATH`, all four of them. A key is known by its `id` only: what else
//! RFC 7512 has (`object`, `serial`, `slot-id` ...) is refused, since `pkcs11-tool` 0.23 signs with the first key it finds, whatever
//! label it is asked for.

use std::path::{Component, PathBuf};

use data_encoding::HEXLOWER;

/// The longest URI, in bytes: it is the first line of a small file.
const LONGEST: usize = 960;
/// The longest label of a token (`CK_TOKEN_INFO`, PKCS#11 2.40, 3.2), and the longest `id` weir takes.
const LONGEST_NAME: usize = 32;
const SHAPE: &str = "write 'pkcs11:token=LABEL;id=%01?module-path=/PATH/OF/MODULE.so&pin-source=file:/PATH/OF/PIN'";

/// A key of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uri {
    /// As it was written: printable ASCII.
    pub(super) text: String,
    /// The token's label.
    pub(super) token: String,
    /// The key's `CKA_ID` in hexadecimal, as `pkcs11-tool` takes it.
    pub(super) id: String,
    /// The maker's module, an absolute path.
    pub(super) module: PathBuf,
    /// The file with the PIN, an absolute path.
    pub(super) pin: PathBuf,
}

impl Uri {
    /// Reads one; what is wrong with it in a sentence, which shows no value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("pkcs11:").ok_or_else(|| format!("it is no PKCS#11 URI; {SHAPE}"))?;
        if text.len() > LONGEST || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(format!(
                "its URI has more than {LONGEST} bytes, or spaces or signs that must be written as %20; {SHAPE}"
            ));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut found: [Option<Vec<u8>>; 4] = Default::default();
        let parts = path.split(';').map(|part| (part, true)).chain(query.split('&').map(|part| (part, false)));
        for (part, is_path) in parts.filter(|(part, _)| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match (is_path, name) {
                (true, "token") => 0,
                (true, "id") => 1,
                (false, "module-path") => 2,
                (false, "pin-source") => 3,
                (true, "type") if value == "private" => continue,
                (_, "pin-value") => {
                    return Err("a PIN does not belong into a URI, which others see: write it into a file and name that by pin-source=file:/PATH".to_owned());
                }
                _ => return Err(format!("its URI says more than weir looks at (or in another part of it); {SHAPE}")),
            };
            let value = decoded(value).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| format!("{name} in its URI is empty, or has a % without two digits"))?;
            match found.get_mut(place) {
                Some(slot @ None) => *slot = Some(value),
                _ => return Err(format!("{name} stands twice in its URI")),
            }
        }
        let [Some(token), Some(id), Some(module), Some(pin)] = found else {
            return Err(format!("its URI lacks one of token, id, module-path and pin-source; {SHAPE}"));
        };
        if token.len() > LONGEST_NAME || id.len() > LONGEST_NAME {
            return Err(format!("the token's label or the id in its URI has more than {LONGEST_NAME} bytes"));
        }
        let pin = pin.strip_prefix(b"file:").unwrap_or(&pin);
        let pin = pin.strip_prefix(b"//").unwrap_or(pin);
        Ok(Self {
            text: text.to_owned(),
            token: written(&token).ok_or("the token's label in its URI is no text")?,
            id: HEXLOWER.encode(&id),
            module: absolute(&module).ok_or_else(|| format!("module-path in its URI is no absolute path; {SHAPE}"))?,
            pin: absolute(pin).ok_or_else(|| format!("pin-source in its URI names no file; {SHAPE}"))?,
        })
    }
}

fn decoded(value: &str) -> Option<Vec<u8>> {
    let mut pieces = value.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.as_bytes().split_at_checked(2)?;
        bytes.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?);
        bytes.extend_from_slice(rest);
    }
    Some(bytes)
}

fn written(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.contains(char::is_control)).then(|| text.to_owned())
}

/// A path that says where it leads.
fn absolute(bytes: &[u8]) -> Option<PathBuf> {
    let is_plain = |path: &PathBuf| path.is_absolute() && path.components().all(|part| part != Component::ParentDir);
    written(bytes).map(PathBuf::from).filter(is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "pkcs11:token=my%20token;id=%01%aB?module-path=/usr/lib/m.so&pin-source=file:/etc/weir/pin";

    #[test]
    fn a_uri_names_the_token_the_key_the_module_and_the_file_of_the_pin() {
        let uri = Uri::parse(GOOD).unwrap();
        assert_eq!((uri.token.as_str(), uri.id.as_str(), uri.text.as_str()), ("my token", "01ab", GOOD));
        assert_eq!((uri.module, uri.pin), ("/usr/lib/m.so".into(), "/etc/weir/pin".into()));
        for pin in ["/etc/weir/pin", "file:///etc/weir/pin", "file:%2Fetc/weir/pin"] {
            let text = GOOD.replace("file:/etc/weir/pin", pin).replace(";id", ";type=private;id");
            assert_eq!(Uri::parse(&text).unwrap().pin, PathBuf::from("/etc/weir/pin"), "{text}");
        }
    }

    #[test]
    fn what_a_uri_must_not_say_is_refused_in_a_sentence_that_shows_no_pin() {
        for (from, to, why) in [
            ("pkcs11:", "pkcs12:", "no PKCS#11 URI"),
            ("my%20", "my ", "written as %20"),
            ("token=my%20token;", "", "lacks one of"),
            ("id=%01%aB", "object=weir", "more than weir looks at"),
            ("id=%01%aB", "id=%01;id=%02", "id stands twice"),
            ("id=%01%aB", "id=%0", "without two digits"),
            ("id=%01%aB", "id=", "empty"),
            ("my%20token", "%ff", "no text"),
            ("my%20token", "a%00b", "no text"),
            ("my%20token", "abcdefghijabcdefghijabcdefghijabc", "more than 32 bytes"),
            ("/usr/lib/m.so", "m.so", "no absolute path"),
            ("file:/etc/weir/pin", "%7Ccat", "names no file"),
            ("pin-source=file:/etc/weir/pin", "pin-value=1234", "does not belong into a URI"),
            ("token=my%20token", "token=t;pin-value=1234", "does not belong into a URI"),
            ("module-path", "module-name", "more than weir looks at"),
        ] {
            let told = Uri::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(told.contains(why) && !told.contains("1234"), "{to}: {told}");
        }
        let long = format!("{GOOD}{}", "x".repeat(LONGEST));
        assert!(Uri::parse(&long).unwrap_err().contains("more than 960 bytes"));
    }

    const PIECES: &[&str] = &[
        "token=",
        "id=",
        "module-path=/",
        "pin-source=file:",
        ";",
        "&",
        "?",
        "=",
        "%",
        "%4",
        "%41",
        "%zz",
        "//",
        "x",
        "é",
    ];

    proptest! {
        #[test]
        fn any_text_is_a_key_or_refused(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..24)) {
            let _ = Uri::parse(&format!("pkcs11:{}", pieces.concat()));
        }

        #[test]
        fn any_label_and_id_come_back(label in "[ -~é]{1,16}", id in proptest::collection::vec(any::<u8>(), 1..32)) {
            let percent = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let (token, key) = (percent(label.as_bytes()), percent(&id));
            let uri = Uri::parse(&format!("pkcs11:id={key};token={token}?pin-source=/p&module-path=/m")).unwrap();
            prop_assert_eq!((uri.token, uri.id), (label, HEXLOWER.encode(&id)));
        }
    }
}
