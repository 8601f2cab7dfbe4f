//! The interface classes (IEC 62056-6-2): names of attributes and methods, where the values stand.

use crate::wire::dlms::{LogicalName, describe};

/// Classes to try for an object when the meter does not show its list: data and the registers.
pub(in crate::meter::dlms) const CANDIDATES: &[u16] = &[3, 1, 4, 5, 8, 7, 70, 71, 21];

/// The attributes of an M-Bus client (IEC 62056-6-2, clause 4.8.3), which the codec's table lacks.
const M_BUS_CLIENT: [&str; 14] = [
    "logical_name",
    "mbus_port_reference",
    "capture_definition",
    "capture_period",
    "primary_address",
    "identification_number",
    "manufacturer_id",
    "version",
    "device_type",
    "access_number",
    "status",
    "alarm",
    "configuration",
    "encryption_key_status",
];
const M_BUS_CLIENT_METHODS: [&str; 8] = [
    "slave_install",
    "slave_deinstall",
    "capture",
    "reset_alarm",
    "synchronize_clock",
    "data_send",
    "set_encryption_key",
    "transfer_key",
];

/// What a class is called; empty for one that nobody knows.
pub(in crate::meter::dlms) fn class_name(class: u16, version: u8) -> &'static str {
    describe(class, version).map_or("", |class| class.name)
}

/// What an attribute is called; empty for one that nobody knows.
pub(in crate::meter::dlms) fn attribute_name(class: u16, version: u8, attribute: i8) -> &'static str {
    if attribute == 1 {
        return "logical_name";
    }
    let index = usize::try_from(attribute).unwrap_or(0).wrapping_sub(1);
    match class {
        72 => M_BUS_CLIENT.get(index).copied().unwrap_or_default(),
        _ => describe(class, version).and_then(|c| c.attribute(attribute)).map_or("", |a| a.name),
    }
}

/// What a method is called; empty for one that nobody knows.
pub(in crate::meter::dlms) fn method_name(class: u16, version: u8, method: i8) -> &'static str {
    let index = usize::try_from(method).unwrap_or(0).wrapping_sub(1);
    match class {
        72 => M_BUS_CLIENT_METHODS.get(index).copied().unwrap_or_default(),
        _ => describe(class, version).and_then(|c| c.method(method)).map_or("", |m| m.name),
    }
}

/// The attributes that a class has, as far as it is known; else the name and the value.
pub(in crate::meter::dlms) fn attributes(class: u16, version: u8) -> Vec<i8> {
    match class {
        72 => (1..=if version == 0 { 12 } else { 14 }).collect(),
        _ => match describe(class, version) {
            Some(class) if !class.is_name_only() => class.attributes.iter().map(|a| a.index).collect(),
            _ => vec![1, 2],
        },
    }
}

/// Where the scaler and unit of an attribute stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::meter::dlms) enum Scales {
    /// It has none.
    Plain,
    /// In this attribute of the object.
    Own(i8),
    /// They are those of the attribute that this one of the object names.
    Watched(i8),
}

/// Where the scaler and unit of an attribute stand.
pub(in crate::meter::dlms) const fn scales(class: u16, attribute: i8) -> Scales {
    match (class, attribute) {
        (3 | 4, 2) => Scales::Own(3),
        (5, 2 | 3) => Scales::Own(4),
        // Thresholds of a register monitor and a limiter (IEC 62056-6-2, clauses 4.5.6 and 4.5.9).
        (21, 2) => Scales::Watched(3),
        (71, 3..=5) => Scales::Watched(2),
        _ => Scales::Plain,
    }
}

/// Whether a class has thresholds for something else.
pub(in crate::meter::dlms) const fn watches(class: u16) -> bool {
    matches!(class, 21 | 71)
}

/// The attributes of a class that a reading of the whole meter shows.
pub(in crate::meter::dlms) const fn value_attributes(class: u16) -> &'static [i8] {
    match class {
        1 | 3 | 8 => &[2],
        4 => &[2, 5],
        5 => &[2, 3],
        70 => &[2, 3],
        _ => &[],
    }
}

/// Whether an attribute is a buffer or list that may take minutes.
pub(in crate::meter::dlms) const fn is_long(class: u16, attribute: i8) -> bool {
    matches!((class, attribute), (7 | 15, 2))
}

/// What a number in an attribute stands for; empty where the standard has no word.
pub(in crate::meter::dlms) const fn value_word(class: u16, attribute: i8, number: i64) -> &'static str {
    match (class, attribute, number) {
        (7, 5, 1) => "first in, first out",
        (7, 5, 2) => "last in, first out",
        (7, 5, 3) => "largest first",
        (7, 5, 4) => "smallest first",
        (7, 5, 5) => "nearest to zero first",
        (7, 5, 6) => "farthest from zero first",
        (8, 9, 0) | (15, 8, 0) => {
            if class == 8 {
                "not defined"
            } else {
                "not associated"
            }
        }
        (8, 9, 1) => "internal crystal",
        (8, 9, 2) => "mains 50 Hz",
        (8, 9, 3) => "mains 60 Hz",
        (8, 9, 4) => "satellites",
        (8, 9, 5) => "radio",
        (15, 8, 1) => "association pending",
        (15, 8, 2) => "associated",
        (18, 6, 0) => "not initiated",
        (18, 6, 1) => "initiated",
        (18, 6, 2) => "verification initiated",
        (18, 6, 3) => "verification successful",
        (18, 6, 4) => "verification failed",
        (18, 6, 5) => "activation initiated",
        (18, 6, 6) => "activation successful",
        (18, 6, 7) => "activation failed",
        (70, 3, 0) => "disconnected",
        (70, 3, 1) => "connected",
        (70, 3, 2) => "ready for reconnection",
        _ => "",
    }
}

/// Whether a column of a profile with this name is a status (IEC 62056-6-1, clause 6.2.29: 0-b:96.10.x).
pub(in crate::meter::dlms) const fn is_status(name: LogicalName) -> bool {
    let [_, _, c, d, _, _] = *name.as_bytes();
    c == 96 && d == 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_methods_have_the_names_of_the_standard() {
        assert_eq!((class_name(3, 0), attribute_name(3, 0, 3)), ("Register", "scaler_unit"));
        assert_eq!((class_name(72, 1), attribute_name(72, 1, 6)), ("M-Bus client", "identification_number"));
        assert_eq!((method_name(70, 0, 2), method_name(72, 0, 1)), ("remote_reconnect", "slave_install"));
        assert_eq!((attribute_name(9999, 0, 2), attribute_name(9999, 0, 1)), ("", "logical_name"));
        assert_eq!(attributes(5, 0), (1..=9).collect::<Vec<_>>());
        assert_eq!(attributes(9999, 0), [1, 2]);
    }

    #[test]
    fn a_demand_register_keeps_its_scaler_elsewhere() {
        assert_eq!(
            [(3, 2), (4, 2), (5, 2), (5, 3), (4, 5), (1, 2), (71, 4), (71, 6), (21, 2)].map(|(c, a)| scales(c, a)),
            [
                Scales::Own(3),
                Scales::Own(3),
                Scales::Own(4),
                Scales::Own(4),
                Scales::Plain,
                Scales::Plain,
                Scales::Watched(2),
                Scales::Plain,
                Scales::Watched(3),
            ]
        );
    }
}
