//! The opening by IEC 62056-21 mode E of a simulated meter.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::Control;
use crate::os::pty::Pty;
use crate::wire::iec62056::{Decoder, Event, Identification, Message, OptionSelect, Parity, SIGN_ON_BAUD, encode};

/// The time in which a meter answers a message (IEC 62056-21, clause 6.4.1).
const REACTION: Duration = Duration::from_millis(200);

/// A meter that waits for its opening.
#[derive(Debug)]
pub(super) struct Opening {
    decoder: Decoder,
    rate: char,
    done: bool,
}

impl Opening {
    pub(super) fn new(baud: u32) -> Self {
        let rate = match baud {
            300 => '0',
            600 => '1',
            1200 => '2',
            2400 => '3',
            4800 => '4',
            19_200 => '6',
            _ => '5',
        };
        Self { decoder: Decoder::new(), rate, done: false }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// The connection was ended: the next one needs an opening.
    pub(super) const fn again(&mut self) {
        self.done = false;
    }

    pub(super) async fn take(&mut self, bytes: &[u8], pty: &mut Pty, control: &Control) -> io::Result<()> {
        if pty.baud()? != SIGN_ON_BAUD {
            control.state().wrong_rate += bytes.len() as u64;
            return Ok(());
        }
        self.decoder.push(bytes);
        while let Some(event) = self.decoder.next() {
            let Event::Message(message, _) = event else { continue };
            let answer = match message {
                Message::Request { .. } => Message::Identification(Identification {
                    manufacturer: "WEI".into(),
                    baud: self.rate,
                    enhanced: vec!['2'],
                    model: "SIM".into(),
                }),
                Message::OptionSelect(choice @ OptionSelect { protocol: '2', mode: '2', .. }) => {
                    self.done = choice.baud == self.rate;
                    Message::OptionSelect(choice)
                }
                _ => continue,
            };
            sleep(REACTION).await;
            let mut bytes = Vec::new();
            encode(&answer, &mut bytes);
            Parity::Even.apply(&mut bytes);
            pty.send(&bytes).await?;
        }
        Ok(())
    }
}
