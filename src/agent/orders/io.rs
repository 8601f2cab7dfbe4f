//! Inputs and outputs by command.

use super::Orders;
use crate::agent::io::{Kind, free, levels};
use crate::control::Output;

/// Sets an output.
pub(super) fn set(orders: &Orders, output: &Output) -> Result<String, String> {
    let pins = &orders.evidence.dogs.pins;
    let pin = pins.output(&output.name, free).map_err(|error| error.to_string())?;
    pins.set(pin, output.on).map_err(|error| error.to_string())?;
    Ok(format!("{}={}", pin.name, u8::from(output.on)))
}

/// All inputs and outputs, a line each: `in0 input-1=0`, `adc0 tank=1234.5 mV`; an output that nobody set is `-`.
pub(super) async fn all(orders: &Orders) -> Result<String, String> {
    let mut counts = [0usize; 3];
    let line = |level: crate::agent::io::Level| {
        let [inputs, outputs, analog] = &mut counts;
        let count = match level.kind {
            Kind::Input => inputs,
            Kind::Output => outputs,
            Kind::Analog => analog,
        };
        let value = match level.value {
            Ok(value) => value.map_or("-".to_owned(), |value| value.to_string()),
            Err(error) => format!("? ({error})"),
        };
        let text = format!("{}{count} {}={value} {}", level.kind.word(), level.name, level.unit);
        *count += 1;
        text.trim_end().to_owned()
    };
    let lines: Vec<_> = levels(&orders.evidence.dogs).await.into_iter().map(line).collect();
    if lines.is_empty() {
        return Err(
            "this board has no inputs and outputs; name them as [[gpio]] or [[adc]] in its file (boards/README.md)"
                .to_owned(),
        );
    }
    Ok(lines.join("\n"))
}
