//! Puts together an answer that comes in blocks (IEC 62056-5-3, clause 7.4.1.9).

use super::{LONGEST_VALUE, Services, damage};
use crate::meter::MeterError;
use crate::wire::dlms::{Apdu, DataAccessResult, DataBlockG, GetRequest, GetResponse, InvokeId};

/// The bytes of the blocks so far.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    bytes: Vec<u8>,
    number: u32,
    blocks: u32,
}

impl Assembly {
    /// Takes a block.
    ///
    /// # Errors
    /// [`MeterError::Damaged`] when it is not the next one, has nothing in it, or makes the whole too long.
    pub(super) fn push(&mut self, number: u32, last: bool, bytes: &[u8]) -> Result<(), MeterError> {
        // Some meters count from 0.
        let expected = if self.blocks == 0 { number.min(1) } else { self.number.saturating_add(1) };
        if number != expected {
            return Err(MeterError::Damaged(format!("block {number} came, not block {expected}")));
        }
        if bytes.is_empty() && !last {
            return Err(damage("a block without content came that is not the last"));
        }
        if self.bytes.len() + bytes.len() > LONGEST_VALUE {
            return Err(damage("the value is longer than 1 MiB"));
        }
        self.bytes.extend_from_slice(bytes);
        self.number = number;
        self.blocks += 1;
        Ok(())
    }

    /// What came, and of how many blocks it was made.
    pub(super) fn finish(self) -> (Vec<u8>, u32) {
        (self.bytes, self.blocks)
    }
}

impl Services<'_> {
    /// The bytes of all blocks of a get-response, or the refusal that stands in one of them, and the number of blocks.
    pub(super) async fn rest_of(
        &mut self,
        invoke_id: InvokeId,
        first: DataBlockG<'_>,
    ) -> Result<(Result<Vec<u8>, DataAccessResult>, u32), MeterError> {
        let mut assembly = Assembly::default();
        let Some((mut number, mut last)) = take(&mut assembly, &first)? else {
            return Ok((Err(first.result.err().unwrap_or(DataAccessResult::OtherReason)), 1));
        };
        while !last {
            let request = GetRequest::Next { invoke_id, block_number: number };
            let answer = self.say(&Apdu::GetRequest(request)).await?;
            match self.response(&answer, invoke_id)? {
                GetResponse::WithDataBlock { block, .. } => match take(&mut assembly, &block)? {
                    Some(taken) => (number, last) = taken,
                    None => {
                        let refusal = block.result.err().unwrap_or(DataAccessResult::OtherReason);
                        return Ok((Err(refusal), number));
                    }
                },
                // A meter that lost the thread says so with an ordinary answer.
                GetResponse::Normal { result, .. } => {
                    let refusal =
                        result.value().err().ok_or_else(|| damage("a whole value came instead of a block"))?;
                    return Ok((Err(refusal), number));
                }
                GetResponse::WithList { .. } => return Err(damage("a list came instead of a block")),
            }
        }
        let (bytes, blocks) = assembly.finish();
        Ok((Ok(bytes), blocks))
    }
}

/// Takes one block; `None` when it is a refusal.
fn take(assembly: &mut Assembly, block: &DataBlockG<'_>) -> Result<Option<(u32, bool)>, MeterError> {
    let Ok(bytes) = block.result else { return Ok(None) };
    assembly.push(block.block_number, block.last_block, bytes)?;
    Ok(Some((block.block_number, block.last_block)))
}
