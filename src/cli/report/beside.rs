//! What the running agent tells: it holds the ports, so its meters are read and its receivers are judged
//! through its local door.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::sheet::Check;
use super::who;
use crate::agent::local::{Client, ClientError};
use crate::cli::table::count;
use crate::meter::scan::Who;
use crate::meter::{MeterSettings, Protocol, protocol};
use crate::model::{Quality, Timestamp, Value};
use crate::radio::RadioSettings;

/// A receiver that heard nobody for so long has lost its aerial, whatever it heard before.
const DEAF_AFTER: Duration = Duration::from_hours(1);

/// A connection to the running agent.
#[derive(Debug)]
pub(super) struct Agent(Client);

impl Agent {
    /// The agent that holds this store; `None` when none runs.
    ///
    /// # Errors
    /// Why it can't be asked though it runs: one sentence.
    pub(super) fn of(store: &Path) -> Result<Option<Self>, String> {
        match Client::connect(store) {
            Ok(client) => Ok(Some(Self(client))),
            Err(ClientError::NotRunning(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ask(&mut self, question: &Json) -> Result<Json, String> {
        self.0.ask(question).map_err(|error| error.to_string())
    }

    /// Has a meter read `rounds` times; of one that sends by itself the newest message is shown.
    pub(super) fn meter(&mut self, settings: &MeterSettings, rounds: u32) -> Check {
        let subject = format!("meter {}", *settings.name);
        let listens = protocol(&settings.protocol).is_some_and(Protocol::listens);
        let rounds = if listens { 1 } else { rounds };
        let damaged = |agent: &mut Self| {
            let told = agent.ask(&json!({ "ask": "meters" })).unwrap_or_default();
            told.get(settings.name.as_str())
                .and_then(|meter| meter.pointer("/line/damaged"))
                .and_then(Json::as_u64)
                .unwrap_or(0)
        };
        let who = self.who(settings);
        let before = damaged(self);
        let (mut answered, mut values, mut fault) = (0, Vec::new(), None);
        for _ in 0..rounds {
            match self.ask(&json!({ "ask": "read", "meter": settings.name.as_str() })) {
                Ok(reading) => {
                    values = read(&reading);
                    answered += u32::from(values.iter().any(|value| value.value.is_some()));
                }
                Err(sentence) => fault = Some(sentence),
            }
        }
        let damaged = damaged(self).saturating_sub(before);
        let health = self.ask(&json!({ "ask": "meters" })).unwrap_or_default();
        let health = health.get(settings.name.as_str()).cloned().unwrap_or_default();
        let number = |name: &str| health.get(name).and_then(Json::as_u64).unwrap_or(0);
        let detail = json!({
            "protocol": settings.protocol.as_str(), "port": settings.port.as_str(), "through_agent": true,
            "address": settings.address.as_ref().map(|a| a.to_string()), "readings": rounds, "answered": answered,
            "since_start": { "answers": number("answers"), "timeouts": number("timeouts"),
                             "damaged": number("damaged"), "refused": number("refused") },
        });
        let since = format!(
            "since its start {} answers, {} timeouts, {} damaged, {} refused",
            number("answers"),
            number("timeouts"),
            number("damaged"),
            number("refused")
        );
        let bad = values.iter().find(|v| v.quality.is_fault());
        let through = who.map_or_else(String::new, |who| format!("{who}; ")) + "through the running agent";
        let told = match listens {
            true => format!("{through}: {} of its newest message; {since}", count(values.len(), "value")),
            false => format!("{through}: {answered} of {rounds} readings, {} values; {since}", values.len()),
        };
        let mut check = match (fault, bad) {
            (Some(sentence), _) => Check::fail(
                subject,
                format!("{through}: {sentence}; {since}"),
                format!("weir meters shows how it has been doing; look at it with weir trace {}", *settings.port),
                detail,
            ),
            (None, Some(first)) => {
                let todo = format!(
                    "\"{}\" is {}: weir meters shows why, weir trace {} the bytes",
                    first.name,
                    first.quality.word(),
                    *settings.port
                );
                Check::fail(subject, told, todo, detail)
            }
            (None, None) if answered < rounds => {
                Check::fail(subject, told, "it gave no value: weir meters shows why", detail)
            }
            (None, None) if damaged > 0 => Check::fail(
                subject,
                format!("{told}; {damaged} answers of these readings were damaged"),
                format!("check termination, cable and speed; weir trace {} shows the bytes", *settings.port),
                detail,
            ),
            (None, None) => Check::pass(subject, told, detail),
        };
        check.values = values;
        check
    }

    /// Has a DLMS meter say who it is; other protocols have no question for it that the agent would ask.
    fn who(&mut self, settings: &MeterSettings) -> Option<Who> {
        if *settings.protocol != "dlms" {
            return None;
        }
        let mut objects = Vec::new();
        for object in who::OBJECTS {
            let question = json!({ "ask": "dlms", "meter": settings.name.as_str(), "order": { "object": object } });
            // What the meter refuses is left out.
            objects.push(self.ask(&question).ok().and_then(|answer| who::value(&answer)));
        }
        Some(who::of(objects)).filter(|who| !who.is_nobody())
    }

    /// What a receiver has heard since the agent was started.
    pub(super) fn receiver(&mut self, settings: &RadioSettings) -> Check {
        let subject = format!("receiver {}", *settings.name);
        let told = match self.ask(&json!({ "ask": "receivers" })) {
            Ok(told) => told.get(settings.name.as_str()).cloned().unwrap_or_default(),
            Err(sentence) => {
                return Check::fail(subject, sentence, "restart the agent (systemctl restart weir)", json!({}));
            }
        };
        let number = |name: &str| told.get(name).and_then(Json::as_u64).unwrap_or(0);
        let text = |name: &str| told.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let (heard, source) = (number("heard"), text("source"));
        let words = format!(
            "through the running agent: its source is {source}; {} heard, {} passed on, {} damaged{}",
            count(usize::try_from(heard).unwrap_or(usize::MAX), "telegram"),
            number("forwarded"),
            number("damaged"),
            match text("last_heard").as_str() {
                "" => String::new(),
                last => format!(", the last at {last}"),
            }
        );
        let detail = json!({ "receiver": settings.receiver.as_str(), "through_agent": true, "heard": heard,
                             "damaged": number("damaged"), "source": source, "last_heard": told.get("last_heard") });
        let now = crate::os::clock::now();
        let silent = Timestamp::parse(&text("last_heard")).map(|last| now.since(last));
        match (source.as_str(), heard) {
            ("open", 1..) if silent.is_some_and(|silent| silent > DEAF_AFTER) => {
                Check::fail(subject, format!("{words}, more than an hour ago"), super::radio::DEAF, detail)
            }
            ("open", 1..) => Check::pass(subject, words, detail),
            ("open", _) => Check::fail(subject, words, super::radio::DEAF, detail),
            _ => Check::fail(subject, words, super::radio::NO_SOURCE, detail),
        }
    }
}

/// The values of a reading as the agent tells it.
fn read(reading: &Json) -> Vec<Value> {
    let one = |value: &Json| {
        let text = |name: &str| value.get(name).and_then(Json::as_str).map(str::to_owned);
        let word = text("quality").unwrap_or_default();
        let quality = [Quality::Good, Quality::NoAnswer, Quality::Refused, Quality::Unavailable]
            .into_iter()
            .find(|quality| quality.word() == word);
        Value {
            name: text("name").unwrap_or_default(),
            value: text("value"),
            unit: text("unit").unwrap_or_default(),
            quality: quality.unwrap_or(Quality::Invalid),
        }
    };
    reading.get("values").and_then(Json::as_array).into_iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_a_reading_keep_their_text_and_quality() {
        let reading = crate::agent::ask::reading(
            "m",
            crate::model::Timestamp::default(),
            &[
                Value { name: "a".into(), value: Some("007.50".into()), unit: "kWh".into(), quality: Quality::Good },
                Value { name: "b".into(), value: None, unit: String::new(), quality: Quality::Refused },
                Value { name: "c".into(), value: None, unit: String::new(), quality: Quality::Invalid },
            ],
        );
        let values = read(&reading);
        assert_eq!((values[0].value.as_deref(), values[0].unit.as_str()), (Some("007.50"), "kWh"));
        assert_eq!([values[1].quality, values[2].quality], [Quality::Refused, Quality::Invalid]);
    }
}
