//! Digital inputs and outputs by command.

use super::Orders;
use crate::agent::dogs::MODEM_RESET;
use crate::control::Output;
use crate::os::gpio::Pin;

/// An output that is no tool of weir itself.
fn free(pin: &Pin) -> bool {
    pin.name != MODEM_RESET
}

/// Sets an output.
pub(super) fn set(orders: &Orders, output: &Output) -> Result<String, String> {
    let pins = &orders.evidence.dogs.pins;
    let pin = pins.output(&output.name, free).map_err(|error| error.to_string())?;
    pins.set(pin, output.on).map_err(|error| error.to_string())?;
    Ok(format!("{}={}", pin.name, u8::from(output.on)))
}

/// All inputs and outputs, a line each: `in0 input-1=0`; an output that nobody set is `-`.
pub(super) fn all(orders: &Orders) -> Result<String, String> {
    let pins = &orders.evidence.dogs.pins;
    let mut counts = [0usize; 2];
    let lines: Vec<_> = pins
        .all()
        .iter()
        .filter(|pin| free(pin))
        .map(|pin| {
            let [inputs, outputs] = &mut counts;
            let (way, count) = if pin.output { ("out", outputs) } else { ("in", inputs) };
            let number = *count;
            *count += 1;
            let level = match pins.get(pin) {
                Ok(Some(on)) => u8::from(on).to_string(),
                Ok(None) => "-".to_owned(),
                Err(error) => format!("? ({error})"),
            };
            format!("{way}{number} {}={level}", pin.name)
        })
        .collect();
    if lines.is_empty() {
        return Err(
            "this board has no inputs and outputs; name them as [[gpio]] in its file (boards/README.md)".to_owned()
        );
    }
    Ok(lines.join("\n"))
}
