//! Opens mode E: a sign-on that ends in a line ready for HDLC (IEC 62056-21 annex E).

use std::time::Duration;

use super::dialogue::{Dialogue, Failure, LONGEST_READOUT, budget};
use super::ladder::{Ladder, character};
use super::link::{Link, SLOWEST, Trouble};
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Line, LineError};
use crate::wire::iec62056::{BLOCK_LIMIT, Identification, Message, Mode, OptionSelect, Parity, SIGN_ON_BAUD};

/// What came of opening mode E.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// The meter agreed: the line runs at this rate with eight bits without parity, and the first
    /// HDLC frame (SNRM) may be sent.
    Hdlc {
        /// Who answered.
        identification: Identification,
        /// Bits per second of the line now.
        baud: u32,
    },
    /// The meter sends its readout instead: it does not speak mode E, or not to this choice. The
    /// readout was let pass; the line may be used for a new sign-on after two seconds.
    Readout {
        /// Who answered.
        identification: Identification,
        /// How many bytes were let pass.
        bytes: usize,
    },
}

/// Signs on and chooses HDLC (`ACK 2 Z 2`), whatever the identification says of mode E: not every
/// meter that speaks it announces `\2`. Leaves the line as the [`Opening`] says.
///
/// # Errors
/// What the line or the meter said: no identification, a mode without choice, silence after it.
pub async fn open_mode_e(line: &mut Line, settings: &MeterSettings) -> Result<Opening, MeterError> {
    let dialogue = Dialogue::new(settings);
    let mut ladder = Ladder::new(settings);
    let mut link = Link::new(line, Parity::Even);
    open(&dialogue, &mut ladder, &mut link).await.map_err(Failure::error)
}

async fn open(dialogue: &Dialogue, ladder: &mut Ladder, link: &mut Link<'_>) -> Result<Opening, Failure> {
    let identification = dialogue.sign_on(link, 0).await?.identification;
    let Mode::C(offered) = identification.mode() else {
        let text = format!("its rate character '{}' lets nothing be chosen: no mode E", identification.baud);
        return Err(Failure::Final(MeterError::Refused(text)));
    };
    let rate = ladder.rate(offered, tokio::time::Instant::now());
    let baud = if link.line().is_tcp() { offered } else { rate };
    let option = OptionSelect { protocol: '2', baud: character(baud).unwrap_or('0'), mode: '2' };
    dialogue.select(link, &identification, option).await?;
    // The meter's answer is the same six characters; those of an echoing head are dropped before.
    let deadline = link.deadline(dialogue.answer_limit, BLOCK_LIMIT, LONGEST_READOUT);
    let wanted = |message| match message {
        Message::OptionSelect(answer) if answer == option => Some(true),
        Message::OptionSelect(_) | Message::Block(_) | Message::Part(_) => Some(false),
        _ => None,
    };
    match link.listen_behind_echo(deadline, wanted).await {
        Ok((true, _)) => {
            link.set_baud(baud)?;
            Ok(Opening::Hdlc { identification, baud })
        }
        Ok((false, _)) => pass(dialogue, link, identification, baud).await,
        Err(Trouble::Line(error)) => Err(error.into()),
        Err(Trouble::Nothing(0)) => Err(Failure::Again(LineError::Silent(dialogue.answer_limit).into())),
        // A readout at another rate, or one that breaks off.
        Err(Trouble::Nothing(_) | Trouble::Damaged(_) | Trouble::Noise | Trouble::Endless) => {
            pass(dialogue, link, identification, baud).await
        }
    }
}

/// Lets a readout pass, at whatever rate it comes.
async fn pass(
    dialogue: &Dialogue,
    link: &mut Link<'_>,
    identification: Identification,
    baud: u32,
) -> Result<Opening, Failure> {
    link.allow(budget(SIGN_ON_BAUD.min(baud)));
    let bytes = dialogue.hush(link, SLOWEST.min(Duration::from_millis(500))).await?;
    link.clear().await?;
    Ok(Opening::Readout { identification, bytes })
}
