//! IEC 62056-21: reads the table of values that a meter sends after its sign-on (modes A, B, C).
//!
//! The line runs at 8N1 and the parity is done here: whether a meter (or the converter before it)
//! sends even parity is seen on its identification and enforced from then on; until then a sign-on
//! carries even parity, and every second one none. A value is named by its id; further values of
//! the same id are `id#2`, `id#3` ... in the order of the readout, a set without an id continues
//! the one before. With `values` set, exactly those ids are given, in that order and under those
//! names; `1.8.0` is also found as `1-0:1.8.0` or `1-0:1.8.0*255`. An id that the meter does not
//! send is null and refused, as an unknown register is in Modbus. Programming mode (load profiles,
//! passwords), the wake-up of battery meters and mode D are not here.

use std::time::Duration;

use tokio::time::Instant;

use super::{Address, Driver, MeterError, MeterSettings, Protocol, Reply, Session};
use crate::model::{Quality, Value};
use crate::os::line::Line;
use crate::setting::Problems;
use crate::wire::iec62056::{Parity, data};

mod dialogue;
pub(super) mod pick;

use dialogue::{Dialogue, Failure};

/// The row of this protocol in the table of protocols.
pub const ROW: Protocol = Protocol { name: "iec62056-21", driver: Driver::Asks(session), check };

/// The most characters of a meter's address (clause 6.3.1).
const ADDRESS_LIMIT: usize = 32;

/// The shortest time in which a meter may answer (clause 6.4.1): the rate must be changed before.
const REACTION: Duration = Duration::from_millis(200);

fn session(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    let address = address(settings);
    match address_fault(&address) {
        Some(fault) => Err(format!("the address \"{address}\" {fault}")),
        None => Ok(Box::new(Reader::new(settings, address))),
    }
}

/// Says everything in a meter's settings that can't work with this protocol.
pub fn check(settings: &MeterSettings, problems: &mut Problems) {
    if let (Some(at), Some(fault)) = (&settings.address, address_fault(&address(settings))) {
        problems.error(at.span(), format!("address {fault}"));
    }
    if let Some(profile) = &settings.profile {
        problems.error(profile.span(), "profile is for Modbus; an IEC 62056-21 meter names its values itself (values)");
    }
    if let Some(register) = settings.register.first() {
        problems.error(register.name.span(), "register is for Modbus; for an IEC 62056-21 meter list ids in values");
    }
    let whole = settings.protocol.span();
    for (number, id) in settings.values.iter().enumerate() {
        if id.trim().is_empty() || id.contains(['(', ')', '/', '!']) || !id.is_ascii() {
            problems.error(whole.clone(), format!("values has \"{id}\", which is no id such as \"1.8.0\""));
        } else if settings.values.iter().take(number).any(|earlier| earlier == id) {
            problems.error(whole.clone(), format!("values has \"{id}\" twice; keep one"));
        }
    }
    if settings.baud_change_delay >= REACTION {
        let message = "baud_change_delay is 200ms or more; a meter may answer before the rate is changed";
        problems.warning(whole, message);
    }
}

fn address(settings: &MeterSettings) -> String {
    settings.address.as_deref().map(Address::to_string).unwrap_or_default()
}

fn address_fault(address: &str) -> Option<&'static str> {
    if address.len() > ADDRESS_LIMIT {
        Some("is longer than the 32 characters that IEC 62056-21 allows")
    } else if !address.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ') {
        Some("has characters that IEC 62056-21 does not allow: use letters, digits and blanks")
    } else {
        None
    }
}

/// The session of one meter.
struct Reader {
    dialogue: Dialogue,
    values: Vec<String>,
    retries: u32,
    /// How the meter's characters carried parity when it last identified itself.
    parity: Option<Parity>,
    /// Before this a meter may still wait for a repeat request at another rate.
    quiet_until: Option<Instant>,
    /// Names and units of the last readout, for readings that fail.
    known: Vec<(String, String)>,
}

impl Reader {
    fn new(settings: &MeterSettings, address: String) -> Self {
        Self {
            dialogue: Dialogue::new(settings, address),
            values: settings.values.clone(),
            retries: settings.retries.value(),
            parity: None,
            quiet_until: None,
            known: settings.values.iter().map(|name| (name.clone(), String::new())).collect(),
        }
    }

    async fn readout(&mut self, line: &mut Line) -> Result<Vec<Value>, MeterError> {
        let mut slow = false;
        let mut attempt = 0;
        loop {
            if let Some(until) = self.quiet_until.take() {
                tokio::time::sleep_until(until).await;
            }
            let guess = if attempt % 2 == 0 { Parity::Even } else { Parity::Absent };
            let mut heard = None;
            let sending = self.parity.unwrap_or(guess);
            let result = self.dialogue.once(line, sending, slow, &mut heard).await;
            if let Some(parity) = heard {
                self.parity = Some(parity);
                self.quiet_until = Some(line.last_byte() + dialogue::REPEAT_WINDOW);
            }
            match result {
                Ok(body) => return self.keep(&body),
                Err(Failure::Again(error)) if attempt < self.retries => {
                    tracing::debug!(%error, attempt, "readout failed, signing on again");
                    slow = slow || heard.is_some();
                }
                Err(Failure::Again(error) | Failure::Final(error)) => {
                    // The converter may have been changed: find out again.
                    self.parity = None;
                    return Err(error);
                }
            }
            attempt += 1;
        }
    }

    fn keep(&mut self, body: &[u8]) -> Result<Vec<Value>, MeterError> {
        let lines = data::decode(body);
        if let Some(text) = pick::refusal(&lines) {
            return Err(MeterError::Refused(text));
        }
        let all = pick::values(&lines);
        let values = if self.values.is_empty() { all } else { pick::wanted(&all, &self.values) };
        self.known = values.iter().map(|v| (v.name.clone(), v.unit.clone())).collect();
        Ok(values)
    }
}

impl Session for Reader {
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(self.readout(line))
    }

    /// The wanted ids; without any, what the last readout had.
    fn absent(&self, quality: Quality) -> Vec<Value> {
        let null =
            |(name, unit): &(String, String)| Value { name: name.clone(), value: None, unit: unit.clone(), quality };
        self.known.iter().map(null).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::{Node, Setting};

    fn checked(toml: &str) -> Vec<String> {
        let source = format!("name = \"m\"\nport = \"p\"\nprotocol = \"iec62056-21\"\n{toml}");
        let table = toml::de::DeTable::parse(&source).unwrap();
        let value = toml::de::DeValue::Table(table.get_ref().clone());
        let mut problems = Problems::new();
        let settings = MeterSettings::read(&Node::new(&value, table.span(), "meter"), &mut problems).unwrap();
        check(&settings, &mut problems);
        problems.located(&source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn settings_that_can_not_work_are_named_with_their_place() {
        assert_eq!(checked("address = 12345678\nvalues = [\"1.8.0\", \"C.1.0\"]"), Vec::<String>::new());
        let found = checked(
            "address = \"12!\"\nprofile = \"x\"\nvalues = [\"1.8.0\", \"1.8.0\", \"a(\"]\nbaud_change_delay = \"300ms\"",
        );
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found.iter().any(|p| p.starts_with("4:11: error: address has characters")), "{found:#?}");
        assert!(found.iter().any(|p| p.contains("\"1.8.0\" twice")));
        assert!(checked(&format!("address = \"{}\"", "1".repeat(33)))[0].contains("longer than the 32"));
    }
}
