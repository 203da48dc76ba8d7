//! The checksum of a record. It covers the names and numbers beside the value too, so that a value that ends up under
//! another key, or an old value under a new revision, is damage as well.

use crate::key::Key;
use crate::time::StoreTime;
use crate::txn::Revision;

/// The CRC-32 of an object version; `value` is `None` for a deletion.
pub(crate) fn object(key: &Key, revision: Revision, created: Revision, at: StoreTime, value: Option<&[u8]>) -> u32 {
    let mut hasher = start(b'o', key, &[revision.0, created.0, at.0]);
    match value {
        Some(value) => {
            hasher.update(&[1]);
            hasher.update(value);
        }
        None => hasher.update(&[0]),
    }
    hasher.finalize()
}

/// The CRC-32 of an event.
pub(crate) fn event(subject: &Key, revision: Revision, ordinal: u32, at: StoreTime, value: &[u8]) -> u32 {
    let mut hasher = start(b'e', subject, &[revision.0, u64::from(ordinal), at.0]);
    hasher.update(value);
    hasher.finalize()
}

fn start(sort: u8, key: &Key, numbers: &[u64; 3]) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[sort]);
    // Names hold no NUL (the transaction is refused), so it separates them.
    hasher.update(key.kind.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(key.name.as_bytes());
    hasher.update(&[0]);
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher
}
