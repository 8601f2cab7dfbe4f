//! General block transfer of pushes (IEC 62056-5-3, clause 8.2): nobody acknowledges, so blocks must come in order.

use super::super::{GeneralBlockTransfer, decode};
use super::{Damage, LONGEST};

/// Puts the blocks of one APDU together.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The number of the newest block, and the bytes of all.
    open: Option<(u16, Vec<u8>)>,
}

/// What came of a block.
pub(super) struct Joined {
    /// Why the APDU before, or this block, is lost.
    pub(super) damage: Option<Damage>,
    /// The APDU, when it is whole.
    pub(super) apdu: Option<Vec<u8>>,
}

impl Blocks {
    /// Takes what follows the tag of a block.
    pub(super) fn push(&mut self, content: &[u8]) -> Joined {
        let lost = |damage| Joined { damage: Some(damage), apdu: None };
        let Ok((block, _)) = decode::<GeneralBlockTransfer<'_>>(content) else {
            self.open = None;
            return lost(Damage::Block);
        };
        let mut damage = None;
        let mut bytes = match (block.block_number, self.open.take()) {
            // An acknowledgement of the other side.
            (0, open) => {
                self.open = open;
                return Joined { damage, apdu: None };
            }
            (1, Some((1, first))) if first == block.block_data => {
                self.open = Some((1, first));
                return Joined { damage, apdu: None };
            }
            (1, before) => {
                damage = before.map(|_| Damage::Cut);
                Vec::new()
            }
            (number, Some((newest, bytes))) if newest == number => {
                self.open = Some((newest, bytes));
                return Joined { damage, apdu: None };
            }
            (number, Some((newest, bytes))) if newest.checked_add(1) == Some(number) => bytes,
            (_, Some(_)) => return lost(Damage::Gap),
            (_, None) => return lost(Damage::Headless),
        };
        if bytes.len() + block.block_data.len() > LONGEST {
            return lost(Damage::Long);
        }
        bytes.extend_from_slice(block.block_data);
        if block.control.last_block() {
            return Joined { damage, apdu: Some(bytes) };
        }
        self.open = Some((block.block_number, bytes));
        Joined { damage, apdu: None }
    }

    /// Forgets what has begun; says whether something had.
    pub(super) fn drop_open(&mut self) -> bool {
        self.open.take().is_some()
    }
}
