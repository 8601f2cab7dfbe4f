//! Which protocol knows which setting of a `[[meter]]`, so that one that would do nothing is refused.
//!
//! [`OWNERS`] is the whole truth: a setting that is not in it is not known to the tests (which fail),
//! and one that is written for a protocol that does not know it is an error of `weir check`, also when
//! it has its default value. A new protocol needs a row for each setting of its own, and its
//! [`Group`] in the rows of those it shares; a new setting needs its row.

use super::settings::MeterSettings;
use super::{Protocol, modbus};
use crate::setting::{Printed, Problems, Setting};

/// Protocols that have settings in common.
struct Group {
    /// What a person calls them.
    word: &'static str,
    /// Their names.
    protocols: &'static [&'static str],
}

const MODBUS: Group = Group { word: "Modbus", protocols: &[modbus::RTU.name, modbus::ASCII.name, modbus::TCP.name] };
const MODBUS_TCP: Group = Group { word: "Modbus TCP", protocols: &[modbus::TCP.name] };
const IEC: Group = Group { word: "IEC 62056-21", protocols: &[super::iec62056::ROW.name] };
const M_BUS: Group = Group { word: "M-Bus", protocols: &[super::mbus::ROW.name] };
const DLMS: Group = Group { word: "DLMS", protocols: &[super::dlms::ROW.name] };
const DLMS_PUSH: Group = Group { word: "DLMS pushes", protocols: &[super::dlms::push::ROW.name] };
const P1: Group = Group { word: "DSMR P1", protocols: &[super::p1::ROW.name] };

/// Who knows a setting.
enum Whose {
    /// Every protocol.
    All,
    /// Every protocol whose meters are asked.
    Asked,
    /// Every protocol but these.
    AllBut(&'static [Group]),
    /// These protocols.
    Of(&'static [Group]),
}

use Whose::{All, AllBut, Asked, Of};

/// One setting: its key (with its table's, when it stands in one), who knows it, and what to do else.
struct Owner(&'static str, Whose, &'static str);

const REMOVE: &str = "remove it";

/// Every setting of a `[[meter]]`.
const OWNERS: &[Owner] = &[
    Owner("name", All, ""),
    Owner("port", All, ""),
    Owner("protocol", All, ""),
    Owner("every", All, ""),
    Owner("address", Asked, "it sends by itself; remove it"),
    Owner("stretch", Asked, "it sends by itself; remove it"),
    Owner("timeout", Asked, "it sends by itself; remove it"),
    Owner("retries", Asked, "it sends by itself; remove it"),
    Owner("pause", Asked, "it sends by itself; remove it"),
    Owner("baud", AllBut(&[IEC, MODBUS_TCP]), "it has a speed of its own; remove it"),
    Owner("framing", AllBut(&[IEC, MODBUS_TCP]), "it has a framing of its own; remove it"),
    Owner("values", AllBut(&[MODBUS]), "write a profile or [[meter.register]]"),
    // Modbus
    Owner("profile", Of(&[MODBUS]), "the meter names its values itself, choose some with values"),
    Owner("register", Of(&[MODBUS]), "the meter names its values itself, choose some with values"),
    Owner("max_registers", Of(&[MODBUS]), REMOVE),
    Owner("max_gap", Of(&[MODBUS]), REMOVE),
    // IEC 62056-21
    Owner("max_baud", Of(&[IEC, DLMS]), REMOVE),
    Owner("baud_change_delay", Of(&[IEC, DLMS]), REMOVE),
    Owner("force_baud", Of(&[IEC, DLMS]), REMOVE),
    Owner("sign_on_baud", Of(&[IEC, DLMS]), REMOVE),
    Owner("sign_on", Of(&[IEC, DLMS]), REMOVE),
    Owner("wake_up", Of(&[IEC, DLMS]), REMOVE),
    Owner("block_check", Of(&[IEC]), REMOVE),
    Owner("serial", Of(&[IEC]), REMOVE),
    Owner("access", Of(&[IEC]), REMOVE),
    Owner("read_command", Of(&[IEC]), REMOVE),
    Owner("password_file", Of(&[IEC, DLMS]), REMOVE),
    Owner("password_command", Of(&[IEC]), REMOVE),
    Owner("session_timeout", Of(&[IEC]), REMOVE),
    Owner("utc_offset", Of(&[IEC, DLMS]), REMOVE),
    Owner("load_profile", Of(&[IEC, DLMS]), "this build reads none of such a meter; remove it"),
    Owner("load_profile.id", Of(&[IEC, DLMS]), ""),
    Owner("load_profile.period", Of(&[IEC, DLMS]), ""),
    Owner("load_profile.every", Of(&[IEC, DLMS]), ""),
    Owner("load_profile.history", Of(&[IEC, DLMS]), ""),
    Owner("load_profile.budget", Of(&[IEC, DLMS]), ""),
    Owner("load_profile.command", Of(&[IEC]), REMOVE),
    Owner("load_profile.records", Of(&[IEC]), REMOVE),
    Owner("load_profile.stamp", Of(&[IEC]), REMOVE),
    Owner("load_profile.request_time", Of(&[IEC]), REMOVE),
    Owner("load_profile.summer_time", Of(&[IEC]), REMOVE),
    // M-Bus
    Owner("application_reset", Of(&[M_BUS]), REMOVE),
    Owner("switch_baud", Of(&[M_BUS]), REMOVE),
    Owner("max_telegrams", Of(&[M_BUS]), REMOVE),
    // DLMS
    Owner("dlms", Of(&[DLMS]), REMOVE),
    Owner("push", Of(&[DLMS_PUSH]), REMOVE),
    // DSMR P1 and DLMS
    Owner("key_file", Of(&[P1, DLMS, DLMS_PUSH]), "only its meters have keys here; remove it"),
    Owner("authentication_key_file", Of(&[P1, DLMS, DLMS_PUSH]), "only its meters have keys here; remove it"),
];

impl Whose {
    fn knows(&self, protocol: &Protocol) -> bool {
        let among = |groups: &[Group]| groups.iter().any(|group| group.protocols.contains(&protocol.name));
        match self {
            All => true,
            Asked => !protocol.listens(),
            AllBut(groups) => !among(groups),
            Of(groups) => among(groups),
        }
    }

    fn words(&self) -> String {
        let named = |groups: &[Group]| match groups {
            [many @ .., one_before, last] => {
                let many = many.iter().fold(String::new(), |text, group| text + group.word + ", ");
                format!("{many}{} and {}", one_before.word, last.word)
            }
            groups => groups.iter().map(|group| group.word).collect(),
        };
        match self {
            All => "every meter".to_owned(),
            Asked => "meters that are asked".to_owned(),
            AllBut(groups) => format!("meters that do not speak {}", named(groups)),
            Of(groups) => named(groups),
        }
    }
}

/// What `weir check --print` shows of a meter: what its protocol knows.
pub fn printed(settings: &MeterSettings) -> Printed {
    match (settings.printed(), super::protocol(&settings.protocol)) {
        (Printed::Table(mut fields), Some(protocol)) => {
            fields.retain(|(key, _)| OWNERS.iter().any(|owner| owner.0 == *key && owner.1.knows(protocol)));
            Printed::Table(fields)
        }
        (printed, _) => printed,
    }
}

/// Tells every setting that is written and means nothing to the meter's protocol.
pub(super) fn check(settings: &MeterSettings, protocol: &Protocol, problems: &mut Problems) {
    let mut refused_table = None;
    for Owner(key, whose, instead) in OWNERS.iter().filter(|owner| !owner.1.knows(protocol)) {
        let Some(place) = place(settings, key) else { continue };
        // What stands in a table that is refused need not be told again.
        let within = key.split_once('.').map(|(table, _)| table);
        if within.is_some() && within == refused_table {
            continue;
        }
        refused_table = Some(*key);
        let message = format!("{key} is for {}, not for {}: {instead}", whose.words(), protocol.name);
        problems.error(place, message);
    }
}

/// Where a setting was written.
fn place(settings: &MeterSettings, key: &str) -> Option<std::ops::Range<usize>> {
    match key.split_once('.') {
        None => settings.written.place(key),
        Some(("load_profile", key)) => settings.load_profile.as_ref()?.written.place(key),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::PROTOCOLS;
    use crate::setting::{Field, Shape};

    fn fields(shape: Shape) -> Vec<Field> {
        match shape {
            Shape::Table { fields, .. } => fields,
            Shape::Value(_) | Shape::Choice(_) | Shape::List(_) => Vec::new(),
        }
    }

    /// Every key as in the table: those of sub-tables that protocols share dotted, those of lists left out.
    fn keys() -> Vec<String> {
        let dotted = |field: Field| {
            let start = format!("{}.", field.key);
            let shared = OWNERS.iter().any(|owner| owner.0.starts_with(&start));
            let inner = if shared { fields(field.shape) } else { Vec::new() };
            let inner = inner.into_iter().map(|f| format!("{start}{}", f.key));
            std::iter::once(field.key.to_owned()).chain(inner).collect::<Vec<_>>()
        };
        fields(MeterSettings::shape()).into_iter().flat_map(dotted).collect()
    }

    #[test]
    fn every_setting_has_one_row_and_every_row_a_setting() {
        let mut rows: Vec<String> = OWNERS.iter().map(|owner| owner.0.to_owned()).collect();
        let mut keys = keys();
        rows.sort();
        keys.sort();
        assert_eq!(rows, keys, "left: OWNERS, right: the settings");
        let groups = OWNERS.iter().flat_map(|owner| match &owner.1 {
            Of(groups) | AllBut(groups) => *groups,
            All | Asked => &[],
        });
        for name in groups.flat_map(|group| group.protocols) {
            assert!(PROTOCOLS.iter().any(|p| p.name == *name), "{name} is no protocol");
        }
    }

    /// Something that may stand behind a key.
    fn example(key: &str) -> &'static str {
        match key {
            "baud" | "max_baud" | "force_baud" | "sign_on_baud" | "switch_baud" => "2400",
            "stretch" | "retries" | "max_registers" | "max_gap" | "max_telegrams" | "address" | "application_reset" => {
                "1"
            }
            "timeout" | "pause" | "baud_change_delay" | "session_timeout" => "\"1s\"",
            "framing" => "\"8E1\"",
            "values" | "sign_on" => "[\"/?!\"]",
            "register" => "[{ name = \"a\", register = \"input:0\" }]",
            "wake_up" => "false",
            "block_check" => "\"required\"",
            "access" => "\"readout\"",
            "read_command" => "\"R1\"",
            "password_command" => "\"P1\"",
            "utc_offset" => "\"+00:00\"",
            "dlms" | "push" => "{}",
            "load_profile" => "{ id = \"P.01\" }",
            _ => "\"/x\"",
        }
    }

    #[test]
    fn each_protocol_refuses_each_setting_that_is_not_its_own_and_takes_each_that_is() {
        for protocol in PROTOCOLS {
            for Owner(key, whose, _) in OWNERS.iter().filter(|owner| !owner.0.contains('.')) {
                let head = format!("name = \"m\"\nport = \"p\"\nprotocol = \"{}\"\n", protocol.name);
                let own = ["name", "port", "protocol", "every"].contains(key);
                let line = if own { String::new() } else { format!("{key} = {}\n", example(key)) };
                let text = format!("{head}{line}");
                let settings = MeterSettings::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                let mut problems = Problems::new();
                check(&settings, protocol, &mut problems);
                let told: Vec<String> = problems.located(&text).iter().map(ToString::to_string).collect();
                let expected = usize::from(!whose.knows(protocol));
                assert_eq!(told.len(), expected, "{text}{told:#?}");
                assert!(told.iter().all(|t| t.starts_with("4:1: error: ") && t.contains(key)), "{told:#?}");
            }
        }
    }

    #[test]
    fn a_setting_is_refused_also_with_its_default_value_and_says_what_to_do() {
        let text = "name = \"m\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\nprofile = \"eastron-sdm120\"\n\
            max_baud = 19200\nvalues = [\"1.8.0\"]\n";
        let settings = MeterSettings::parse(text).unwrap();
        let mut problems = Problems::new();
        crate::meter::check(&settings, &mut problems);
        let told: Vec<String> = problems.located(text).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "5:1: error: max_baud is for IEC 62056-21 and DLMS, not for modbus-rtu: remove it",
                "6:1: error: values is for meters that do not speak Modbus, not for modbus-rtu: write a profile or [[meter.register]]",
            ]
        );
    }
}
