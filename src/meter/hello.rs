//! Meters that answer "?" with one line such as "12.5 kWh".

use std::time::Duration;

use tokio::time::Instant;

use super::{Driver, MeterError, MeterSettings, Protocol, Reply, Session};
use crate::model::{Decimal, Quality, Value};
use crate::os::line::Line;
use crate::setting::Problems;

pub(super) const ROW: Protocol = Protocol { name: "hello", driver: Driver::Asks(session), check };

fn session(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    Ok(Box::new(Hello { timeout: settings.timeout }))
}

/// What the table of settings (owner.rs) can't know: values that don't fit together.
fn check(settings: &MeterSettings, problems: &mut Problems) {
    if let Some(address) = &settings.address {
        problems.error(address.span(), "a hello meter is alone on its line and has no address; remove it");
    }
}

struct Hello {
    timeout: Duration,
}

impl Session for Hello {
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(async move {
            line.discard_waiting().await?;
            line.send(b"?").await?;
            let deadline = Instant::now() + self.timeout;
            let (mut answer, mut buffer) = (Vec::new(), [0; 64]);
            while !answer.ends_with(b"\n") && answer.len() < 64 {
                let count = line.receive(&mut buffer, deadline).await?;
                answer.extend(buffer.iter().take(count));
            }
            let damaged = || MeterError::Damaged("no line such as \"12.5 kWh\"".to_owned());
            let text = std::str::from_utf8(&answer).map_err(|_| damaged())?;
            let (number, unit) = text.trim().split_once(' ').ok_or_else(damaged)?;
            // The text is checked and kept: never through a float.
            number.parse::<Decimal>().map_err(|_| damaged())?;
            Ok(vec![value(Some(number), unit, Quality::Good)])
        })
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        vec![value(None, "kWh", quality)]
    }
}

fn value(text: Option<&str>, unit: &str, quality: Quality) -> Value {
    Value { name: "energy".to_owned(), value: text.map(str::to_owned), unit: unit.to_owned(), quality }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::os::line::{Direction, Endpoint, Framing, Speed};

    #[test]
    fn the_guide_shows_this_file() {
        let guide = include_str!("../../docs/adding-a-meter.md");
        let shown = guide.split_once("```rust\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
        let ours = include_str!("hello.rs").split_once("\n#[cfg(test)]").unwrap().0;
        assert_eq!(shown, ours, "copy src/meter/hello.rs into docs/adding-a-meter.md");
    }

    #[tokio::test]
    async fn the_example_reads_a_meter_and_doubts_what_is_no_number() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Endpoint::Tcp(server.local_addr().unwrap().to_string());
        let meter = tokio::spawn(async move {
            let (mut caller, _) = server.accept().await.unwrap();
            for answer in ["12.5 kWh\n", "1z.5 kWh\n"] {
                assert_eq!(caller.read_u8().await.unwrap(), b'?');
                caller.write_all(answer.as_bytes()).await.unwrap();
            }
            caller
        });
        let settings =
            MeterSettings::parse("name = \"m\"\nport = \"p\"\nprotocol = \"hello\"\ntimeout = \"10s\"").unwrap();
        let Driver::Asks(session) = ROW.driver else { panic!() };
        let mut session = session(&settings).unwrap();
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        let mut line = Line::open(&endpoint, speed, Direction::Automatic).await.unwrap();
        assert_eq!(session.read(&mut line).await.unwrap(), [value(Some("12.5"), "kWh", Quality::Good)]);
        assert!(matches!(session.read(&mut line).await, Err(MeterError::Damaged(_))));
        let _ = meter.await.unwrap();
        assert_eq!(session.absent(Quality::NoAnswer)[0].value, None);
        let mut problems = Problems::new();
        (ROW.check)(&settings, &mut problems);
        assert!(problems.located("").is_empty());
    }
}
