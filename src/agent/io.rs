//! What the board's inputs and outputs say, for GETIOS and the status.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::dogs::{Dogs, MODEM_RESET};
use crate::board::Adc;
use crate::model::Decimal;
use crate::os::gpio::{Pin, Pins};
use crate::os::machine::count_in;

/// What kind of line it is, and the word before its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A digital input.
    Input,
    /// A digital output.
    Output,
    /// An analog input.
    Analog,
}

impl Kind {
    /// `in`, `out` or `adc`.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Input => "in",
            Self::Output => "out",
            Self::Analog => "adc",
        }
    }
}

/// A line and what it says.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// `Ok(None)`: an output that nobody set.
    pub(super) value: Result<Option<Decimal>, String>,
    /// Empty for digital ones.
    pub(super) unit: String,
}

/// A line that is no tool of weir itself.
pub(super) fn free(pin: &Pin) -> bool {
    pin.name != MODEM_RESET
}

/// Reads all of them, in the order of the board's file: digital ones first.
pub(super) async fn levels(dogs: &Dogs) -> Vec<Level> {
    away(dogs.pins.clone(), dogs.adc.clone()).await
}

/// On a thread that may wait: a converter behind a slow bus takes its time.
async fn away(pins: Pins, adc: Arc<[Adc]>) -> Vec<Level> {
    tokio::task::spawn_blocking(move || read(&pins, &adc, |_| true)).await.unwrap_or_default()
}

/// What is not wanted is not read.
fn read(pins: &Pins, adc: &[Adc], wanted: impl Fn(Kind) -> bool) -> Vec<Level> {
    let kind = |pin: &Pin| if pin.output { Kind::Output } else { Kind::Input };
    let digital = pins.all().iter().filter(|pin| free(pin) && wanted(kind(pin))).map(|pin| Level {
        kind: kind(pin),
        name: pin.name.clone(),
        value: pins.get(pin).map(|on| on.map(|on| Decimal::from(i64::from(on)))).map_err(|e| e.to_string()),
        unit: String::new(),
    });
    let analog = adc.iter().filter(|_| wanted(Kind::Analog)).map(|adc| {
        let value = count_in(&adc.path)
            .and_then(|count| Decimal::from(count).times(adc.factor).map(Some).map_err(|error| error.to_string()));
        Level { kind: Kind::Analog, name: adc.name.clone(), value, unit: adc.unit.clone() }
    });
    digital.chain(analog).collect()
}

/// Those of one kind as a text, in order: `0,1,-`; `-` is what is not known. May wait for a converter.
pub(super) fn listed(dogs: &Dogs, kind: Kind) -> String {
    list(&read(&dogs.pins, &dogs.adc, |wanted| wanted == kind))
}

fn list(all: &[Level]) -> String {
    let told = |level: &Level| level.value.as_ref().ok().copied().flatten().map_or("-".to_owned(), |v| v.to_string());
    all.iter().map(told).collect::<Vec<_>>().join(",")
}

/// All of them by their names, for the document. May wait for a converter.
pub(super) fn shown(dogs: &Dogs) -> Json {
    named(read(&dogs.pins, &dogs.adc, |_| true))
}

fn named(levels: Vec<Level>) -> Json {
    let member = |level: Level| {
        let (value, error) = match level.value {
            Ok(value) => (value.map(|value| value.to_string()), None),
            Err(error) => (None, Some(error)),
        };
        let unit = (!level.unit.is_empty()).then_some(level.unit);
        (level.name, json!({ "kind": level.kind.word(), "value": value, "unit": unit, "error": error }))
    };
    Json::Object(levels.into_iter().map(member).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BootId;
    use crate::os::gpio::Kernel;

    #[tokio::test]
    async fn a_converter_that_takes_its_time_holds_up_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("slow");
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        let adc = Adc { name: "slow".into(), path: file.clone(), factor: "1".parse().unwrap(), unit: String::new() };
        let pins = Pins::open(Vec::new(), Kernel, home.path().join("outputs"), BootId::new([1; 8]));
        let (alive, is_alive) = std::sync::mpsc::channel();
        // It is done when another task of the same thread has run, else much later.
        let converter = std::thread::spawn(move || {
            let mut out = std::fs::OpenOptions::new().write(true).open(file).unwrap();
            let others_ran = is_alive.recv_timeout(std::time::Duration::from_secs(10)).is_ok();
            std::io::Write::write_all(&mut out, b"7\n").unwrap();
            others_ran
        });
        let (levels, ()) = tokio::join!(away(pins, [adc].into()), async { alive.send(()).unwrap() });
        assert_eq!(list(&levels), "7");
        assert!(converter.join().unwrap());
    }

    #[test]
    fn analog_inputs_are_told_exactly_and_one_that_fails_does_not_hide_the_others() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("in_voltage0_raw");
        std::fs::write(&file, "4095\n").unwrap();
        let adc = |name: &str, file: &str, factor: &str| Adc {
            name: name.into(),
            path: home.path().join(file),
            factor: factor.parse().unwrap(),
            unit: "mV".into(),
        };
        let adc = [adc("gone", "none", "1"), adc("tank", "in_voltage0_raw", "0.439453125")];
        let pin = |name: &str, output| Pin { name: name.into(), line: "WEIR-NONE".into(), output, active_low: false };
        let pins = vec![pin("relay", true), pin("door", false), pin(MODEM_RESET, true)];
        let pins = Pins::open(pins, Kernel, home.path().join("outputs"), BootId::new([1; 8]));
        let one = |kind| list(&read(&pins, &adc, |wanted| wanted == kind));
        assert_eq!(one(Kind::Analog), "-,1799.560546875");
        assert_eq!((one(Kind::Output), one(Kind::Input)), ("-".into(), "-".into()));
        let told = named(read(&pins, &adc, |_| true));
        assert_eq!(told["tank"], json!({ "kind": "adc", "value": "1799.560546875", "unit": "mV", "error": null }));
        assert_eq!(told["relay"], json!({ "kind": "out", "value": null, "unit": null, "error": null }));
        assert!(told["gone"]["error"].as_str().unwrap().contains("can't be read"), "{told}");
        assert!(told["door"]["error"].as_str().unwrap().contains("WEIR-NONE"), "{told}");
        assert_eq!(told.as_object().unwrap().len(), 4, "{told}");
    }
}
