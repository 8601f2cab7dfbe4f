//! What a status message may say, and how its text is made: pure; the figures come from whoever writes it.

mod fields;
mod template;

use super::settings::StatusSettings;
use crate::setting::Problems;

pub use fields::{Field, PortField, markdown};
pub use template::{Placeholder, Template};

/// The text of a status message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// weir's own JSON document (docs/mqtt.md).
    Document,
    /// A text with fields.
    Text(Template),
}

impl Statement {
    /// Makes the one that the settings ask for; `ports` are the names of the gateway's ports. Second, what somebody
    /// should look at.
    ///
    /// # Errors
    /// Everything that is wrong with the template, a sentence each.
    pub fn of(settings: &StatusSettings, ports: &[&str]) -> Result<(Self, Option<String>), Vec<String>> {
        match settings.template.trim() {
            "weir" => Ok((Self::Document, None)),
            "mtx" => Template::parse(&mtx(settings.extended, ports), ports)
                .map(|(text, warning)| (Self::Text(text), warning)),
            text => Template::parse(text, ports).map(|(text, warning)| (Self::Text(text), warning)),
        }
    }
}

/// The MTX-style message: flat JSON, capitals, every value a text. The keys are weir's own (docs/status.md).
fn mtx(extended: bool, ports: &[&str]) -> String {
    let mut keys: Vec<(String, String)> = MTX.iter().map(|(key, field)| ((*key).into(), field.name().into())).collect();
    if extended {
        keys.extend(MTX_EXTENDED.iter().map(|(key, field)| ((*key).into(), field.name().into())));
        for (number, port) in ports.iter().enumerate() {
            for field in PortField::ALL {
                keys.push((
                    format!("COM{number}_{}", field.name().to_ascii_uppercase()),
                    format!("port.{port}.{}", field.name()),
                ));
            }
        }
    }
    let members: Vec<_> = keys.iter().map(|(key, field)| format!("\"{key}\":\"{{{field}}}\"")).collect();
    format!("{{{}}}", members.join(","))
}

const MTX: &[(&str, Field)] = &[
    ("IMEI", Field::Imei),
    ("ID", Field::Id),
    ("IP", Field::Ip),
    ("CSQ", Field::Csq),
    ("TECH", Field::Technology),
    ("OPER", Field::Operator),
    ("CELL", Field::Cell),
    ("VER", Field::Version),
    ("MOD", Field::Board),
    ("TIME", Field::Time),
    ("UPTIME", Field::Uptime),
    ("RESET", Field::Restart),
];

const MTX_EXTENDED: &[(&str, Field)] = &[
    ("RSSI", Field::Rssi),
    ("RSRP", Field::Rsrp),
    ("ICCID", Field::Iccid),
    ("REG", Field::Registration),
    ("CLOCK", Field::Clock),
    ("TEMP", Field::Temperature),
    ("DISK", Field::DiskFree),
    ("QUEUE", Field::Queue),
    ("DATA", Field::DataUsed),
    ("LOCK", Field::Locked),
    ("CONF", Field::Configuration),
    ("DIN", Field::Inputs),
    ("DOUT", Field::Outputs),
    ("ADC", Field::Analog),
];

/// Says what is wrong with the settings of the status message.
pub fn check_status(settings: &StatusSettings, ports: &[&str], problems: &mut Problems) {
    if settings.every.is_zero() {
        problems.error(settings.every.span(), "every must be more than 0s; leave [status] out for no status message");
    }
    match Statement::of(settings, ports) {
        Ok((_, None)) => {}
        Ok((_, Some(warning))) => problems.warning(settings.template.span(), warning),
        Err(faults) => faults.into_iter().for_each(|fault| problems.error(settings.template.span(), fault)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn the_page_shows_the_keys_of_the_mtx_message() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md")).unwrap();
        let (_, block) = page.split_once("```json mtx\n").unwrap();
        let shown: Json = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
        let (template, _) = Template::parse(&mtx(false, &[]), &[]).unwrap();
        let made: Json = serde_json::from_str(&template.fill(|_| Json::Null)).unwrap();
        let keys = |json: &Json| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&shown), keys(&made));
        for (key, _) in MTX_EXTENDED {
            assert!(page.contains(&format!("`{key}`")), "{key}");
        }
    }

    #[test]
    fn the_mtx_message_is_flat_json_of_texts() {
        for extended in [false, true] {
            let (template, warning) =
                Template::parse(&mtx(extended, &["rs485-1", "roof b"]), &["rs485-1", "roof b"]).unwrap();
            assert_eq!(warning, None);
            let text = template.fill(|_| json!("x\"y"));
            let told: Json = serde_json::from_str(&text).unwrap();
            assert!(told.as_object().unwrap().values().all(Json::is_string), "{text}");
            assert_eq!(told.get("COM1_TO_PORT").is_some(), extended, "{text}");
        }
    }
}
