//! One digest over all rows that costs little to keep when one of them changes.
//!
//! Rows are hashed, then blocks of row hashes in the order of names, then all blocks. A changed row costs its own hash,
//! one block and the root.

use sha2::{Digest as _, Sha256};

/// A SHA-256 value.
pub(crate) type Hash = [u8; 32];

/// Rows in one block: with 10,000 rows, block and root are of about the same size.
const BLOCK: usize = 64;

/// What is known of one host. A text's length stands before it, and a number says with each of its bytes whether more follow
/// (LEB128), so that no two rows run together into the same bytes.
pub(super) struct Row<'a>(&'a mut Vec<u8>);

impl<'a> Row<'a> {
    /// Nothing yet, in memory that other rows have used.
    pub(super) fn in_memory(bytes: &'a mut Vec<u8>) -> Self {
        bytes.clear();
        Row(bytes)
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn number(&mut self, number: u64) {
        let mut rest = number;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    /// A hash of more that is known of the host.
    pub(super) fn hash(&mut self, hash: &Hash) {
        self.0.extend_from_slice(hash);
    }

    pub(super) fn finish(self) -> Hash {
        Sha256::digest(&*self.0).into()
    }
}

/// The hashes above the rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    blocks: Vec<Option<Hash>>,
    root: Hash,
}

impl Tree {
    /// The row at this place in the order changed.
    pub(super) fn touch(&mut self, rank: u32) {
        if let Some(block) = self.blocks.get_mut(rank as usize / BLOCK) {
            *block = None;
        }
    }

    /// The order changed.
    pub(super) fn forget(&mut self) {
        self.blocks.clear();
    }

    /// Hashes what is missing.
    pub(super) fn grow(&mut self, order: &[u32], rows: &[Hash]) {
        self.blocks.resize(order.len().div_ceil(BLOCK), None);
        let mut root = Sha256::new();
        root.update((order.len() as u64).to_le_bytes());
        for (block, slots) in self.blocks.iter_mut().zip(order.chunks(BLOCK)) {
            let hash = block.get_or_insert_with(|| {
                let mut hash = Sha256::new();
                slots.iter().for_each(|slot| hash.update(rows[*slot as usize]));
                hash.finalize().into()
            });
            root.update(*hash);
        }
        self.root = root.finalize().into();
    }

    pub(super) fn root(&self) -> Hash {
        self.root
    }
}
