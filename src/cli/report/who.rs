//! Who a DLMS meter is, from objects that every meter has.

use serde_json::Value as Json;

use crate::cli::read::member;
use crate::meter::scan::Who;

/// The logical device name, the serial number, the version of the firmware.
pub(super) const OBJECTS: [&str; 3] = ["1/0-0:42.0.0*255:2", "1/0-0:96.1.0*255:2", "1/1-0:0.2.0*255:2"];

/// The value in the answer of `weir dlms` for one attribute.
pub(super) fn value(answer: &Json) -> Option<String> {
    let value = answer.pointer("/attributes/0").map(|attribute| member(attribute, "value").trim().to_owned());
    value.filter(|text| !text.is_empty())
}

/// The meter, as the values of [`OBJECTS`] tell: a name begins with three letters of the maker (IEC 62056-6-2, clause
/// 4.1.8.2), what follows is his.
pub(super) fn of(values: Vec<Option<String>>) -> Who {
    let mut values = values.into_iter();
    let name = values.next().flatten();
    let (maker, rest) = match name.as_deref().map(|name| (name.get(..3), name.get(3..))) {
        Some((Some(letters), rest)) if letters.chars().all(|c| c.is_ascii_uppercase()) => (Some(letters), rest),
        _ => (None, name.as_deref()),
    };
    Who {
        maker: maker.map(str::to_owned),
        model: rest.map(str::trim).filter(|rest| !rest.is_empty()).map(str::to_owned),
        serial: values.next().flatten(),
        version: values.next().flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_name_tells_the_maker_and_what_he_calls_it() {
        let text = |text: &str| Some(text.to_owned());
        let who = of(vec![text("GRX0000000000001"), text("12345"), text("V2")]);
        assert_eq!(who.to_string(), "GRX 0000000000001 version V2 serial number 12345");
        assert_eq!(of(vec![text("meter 7")]).to_string(), "meter 7");
        assert!(of(vec![None, None, None]).is_nobody());
    }

    #[test]
    fn an_answer_has_its_value_in_its_only_attribute() {
        let answer = serde_json::json!({ "attributes": [{ "number": 2, "value": " LGZ1 " }] });
        assert_eq!(value(&answer).as_deref(), Some("LGZ1"));
        assert_eq!(value(&serde_json::json!({ "attributes": [{ "value": null }] })), None);
    }
}
