//! Carries one APDU there and one back, in numbered blocks where they are long (IEC 62056-5-3, clause 7.3.13).

use crate::meter::MeterError;
use crate::meter::dlms::link::Link;
use crate::os::line::Line;
use crate::wire::dlms::blocks::{Incoming, Outgoing, Step};
use crate::wire::dlms::{GeneralBlockTransfer, decode};

/// The tag of a block.
const BLOCK: u8 = 0xE0;
/// How often a lost block is asked for again, in a row.
const RETRIES: u32 = 3;

/// What is said to go, and how.
pub(super) struct Parcel<'a> {
    /// The APDU.
    pub(super) apdu: &'a [u8],
    /// The longest APDU that the other side takes, where blocks may be used for longer ones.
    pub(super) blocks: Option<usize>,
    /// Whether it shows a password or key: no trace may.
    pub(super) secret: bool,
    /// Whether it is sent over this link only.
    pub(super) once: bool,
}

/// Sends an APDU and gives the next one that comes.
///
/// # Errors
/// When the line fails, or blocks are lost for good.
pub(super) async fn exchange(link: &mut Link, line: &mut Line, parcel: &Parcel<'_>) -> Result<Vec<u8>, MeterError> {
    if parcel.once {
        link.only_once();
    }
    let first = match parcel.blocks {
        Some(longest) if parcel.apdu.len() > longest => {
            let mut out = Outgoing::new(parcel.apdu, longest).ok_or_else(|| {
                MeterError::Order("the request is longer than general block transfer can carry".to_owned())
            })?;
            send_blocks(link, line, &mut out, parcel.secret).await?
        }
        _ if parcel.secret => {
            link.send_secret(line, parcel.apdu).await?;
            link.receive(line).await?
        }
        _ => {
            link.send(line, parcel.apdu).await?;
            link.receive(line).await?
        }
    };
    whole(link, line, first).await
}

/// Receives the next APDU without asking for it.
///
/// # Errors
/// As [`exchange`].
pub(super) async fn receive(link: &mut Link, line: &mut Line) -> Result<Vec<u8>, MeterError> {
    let first = link.receive(line).await?;
    whole(link, line, first).await
}

/// Sends all blocks of a request and gives the first APDU of the answer.
async fn send_blocks(
    link: &mut Link,
    line: &mut Line,
    out: &mut Outgoing<'_>,
    secret: bool,
) -> Result<Vec<u8>, MeterError> {
    let mut failed = 0;
    loop {
        while let Some(block) = out.next_block() {
            if secret {
                link.send_secret(line, &block).await?;
            } else {
                link.send(line, &block).await?;
            }
        }
        let answer = match link.receive(line).await {
            Err(error) if error.is_silence() => {
                // The end of the window was lost, or what says so: it is sent again.
                failed += 1;
                if failed > RETRIES {
                    return Err(error);
                }
                out.again();
                continue;
            }
            answer => answer?,
        };
        let Some(block) = block(&answer)? else { return Ok(answer) };
        let before = out.acknowledged();
        if !out.acknowledge(block.block_number_ack, block.control.window()) {
            return Err(damaged("a block was acknowledged that was not sent"));
        }
        if out.is_done() && (!block.block_data.is_empty() || block.control.last_block()) {
            return Ok(answer);
        }
        failed = if out.acknowledged() > before { 0 } else { failed + 1 };
        if failed > RETRIES {
            return Err(damaged("the meter does not take the blocks of a request"));
        }
    }
}

/// Puts an APDU together when it comes in blocks.
async fn whole(link: &mut Link, line: &mut Line, first: Vec<u8>) -> Result<Vec<u8>, MeterError> {
    let mut incoming = Incoming::new();
    let mut next = first;
    let mut failed = 0;
    loop {
        let Some(block) = block(&next)? else {
            // An error comes whole, whatever was under way.
            return Ok(next);
        };
        let before = incoming.acknowledged();
        let step = incoming.push(&block).map_err(|fault| MeterError::Damaged(fault.to_string()))?;
        failed = if incoming.acknowledged() > before { 0 } else { failed + 1 };
        let mut acknowledge = match step {
            Step::Whole(apdu) => return Ok(apdu),
            Step::More => false,
            Step::Acknowledge => true,
        };
        next = loop {
            if failed > RETRIES {
                return Err(damaged("blocks of an answer are lost again and again"));
            }
            if acknowledge {
                link.send(line, &incoming.acknowledgement()).await?;
            }
            match link.receive(line).await {
                Err(error) if error.is_silence() => {
                    failed += 1;
                    if failed > RETRIES {
                        return Err(error);
                    }
                    acknowledge = true;
                }
                answer => break answer?,
            }
        };
    }
}

fn block(apdu: &[u8]) -> Result<Option<GeneralBlockTransfer<'_>>, MeterError> {
    match apdu.split_first() {
        Some((&BLOCK, rest)) => {
            let (block, _) = decode(rest).map_err(|error| MeterError::Damaged(error.to_string()))?;
            Ok(Some(block))
        }
        _ => Ok(None),
    }
}

fn damaged(message: &str) -> MeterError {
    MeterError::Damaged(message.to_owned())
}
