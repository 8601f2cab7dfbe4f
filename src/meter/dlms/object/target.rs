//! How a person names an attribute: `1.8.0`, `1-0:1.8.0*255`, `1-0:1.8.0*255:3`, `3/1-0:1.8.0*255`.

use std::fmt;

use crate::wire::dlms::{AttributeDescriptor, LogicalName};

/// An attribute of an object; whatever was left out is found out or is 2, where every class keeps its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::meter::dlms) struct Target {
    /// The class, when it is told.
    pub(in crate::meter::dlms) class: Option<u16>,
    /// The object.
    pub(in crate::meter::dlms) name: LogicalName,
    /// The attribute, when it is told.
    pub(in crate::meter::dlms) attribute: Option<i8>,
}

impl Target {
    /// Reads `[class/]id[:attribute]`; the id in full, or its groups C.D.E for 1-0:C.D.E*255.
    ///
    /// # Errors
    /// One sentence.
    pub(in crate::meter::dlms) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" names no object: write \"1.8.0\", \"1-0:1.8.0*255\", \"1-0:1.8.0*255:3\" or \"3/1-0:1.8.0*255:2\""
            )
        };
        let (class, rest) = match text.trim().split_once('/') {
            Some((class, rest)) => (Some(class.trim().parse().map_err(|_| wrong())?), rest),
            None => (None, text.trim()),
        };
        // An id has a point behind its last colon, an attribute has none.
        let (id, attribute) = match rest.rsplit_once(':') {
            Some((id, attribute)) if !attribute.is_empty() && attribute.bytes().all(|b| b.is_ascii_digit()) => {
                (id, Some(attribute.parse().ok().filter(|a| *a > 0).ok_or_else(wrong)?))
            }
            _ => (rest, None),
        };
        let name = LogicalName::parse(id.trim()).map_err(|_| wrong())?;
        Ok(Self { class, name, attribute })
    }

    /// The attribute that is meant.
    pub(in crate::meter::dlms) fn attribute(&self) -> i8 {
        self.attribute.unwrap_or(2)
    }

    /// The attribute for a request, when the object is of this class.
    pub(in crate::meter::dlms) fn of_class(&self, class: u16) -> AttributeDescriptor {
        AttributeDescriptor::new(class, self.name, self.attribute())
    }
}

impl fmt::Display for Target {
    /// The standard's id, and the attribute unless it is 2.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match self.attribute() {
            2 => Ok(()),
            other => write!(f, ":{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attribute_is_named_in_the_ways_of_the_standard() {
        let read = |text: &str| {
            let target = Target::parse(text).unwrap();
            (target.class, target.to_string())
        };
        assert_eq!(read("1.8.0"), (None, "1-0:1.8.0*255".to_owned()));
        assert_eq!(read("1-0:1.8.0"), (None, "1-0:1.8.0*255".to_owned()));
        assert_eq!(read("0.0.96.1.0.255"), (None, "0-0:96.1.0*255".to_owned()));
        assert_eq!(read("1-0:1.8.0*101:3"), (None, "1-0:1.8.0*101:3".to_owned()));
        assert_eq!(read("7/1-0:99.1.0*255:2"), (Some(7), "1-0:99.1.0*255".to_owned()));
        assert_eq!(read("1.8.0:5"), (None, "1-0:1.8.0*255:5".to_owned()));
    }

    #[test]
    fn what_names_nothing_is_refused_with_an_example() {
        for bad in ["", "energy", "1-0:1.8", "1.8.0:0", "1.8.0:200", "x/1.8.0", "1.8.300", "1.8.0:"] {
            assert!(Target::parse(bad).unwrap_err().contains("\"1-0:1.8.0*255\""), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_attribute_or_refused(text in ".{0,40}") {
            let _ = Target::parse(&text);
        }

        #[test]
        fn what_is_shown_is_read_back(bytes in any::<[u8; 6]>(), attribute in 1..=127i8, class in any::<Option<u16>>()) {
            let target = Target { class, name: LogicalName::from_bytes(bytes), attribute: Some(attribute) };
            let class = class.map(|class| format!("{class}/")).unwrap_or_default();
            let back = Target::parse(&format!("{class}{}:{attribute}", target.name)).unwrap();
            prop_assert_eq!(back, target);
        }
    }
}
