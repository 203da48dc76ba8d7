//! Transactions: what must hold, what to write, what to remember about it.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use crate::error::InvalidTxn;
use crate::key::Key;
use crate::lease::{Epoch, Shard};

/// Sizes a transaction may have. They bound the memory one writer can take; real objects are a few KiB.
pub mod limits {
    /// Longest kind, in bytes.
    pub const KIND: usize = 64;
    /// Longest object name, index name, index key or request id, in bytes.
    pub const NAME: usize = 512;
    /// Largest value of an object or event, in bytes.
    pub const VALUE: usize = 1 << 20;
    /// Most guards, writes or events in one transaction (each). A claim over a few thousand hosts is one transaction.
    pub const ITEMS: usize = 16_384;
    /// Largest sum of all values in one transaction, in bytes.
    pub const TXN: usize = 64 << 20;
}

/// A point in the history of a store. Revision 0 is the empty store; each commit that writes adds exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The empty store.
    pub const ZERO: Self = Self(0);

    /// The revision of the commit after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one intent of a client, so that sending it twice applies it once. Remembered for 24 hours after the commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that must hold for a transaction to be applied. Checked in order; the first that fails is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The object exists and was last written by this commit.
    Revision(Key, Revision),
    /// The object does not exist.
    Absent(Key),
    /// The shard's lease is held and has this epoch. Expiry is not asked: whoever let it expire is fenced only once
    /// another engine has taken it, which is what makes a late commit harmless.
    Epoch(Shard, Epoch),
}

/// An entry in a unique index: no two objects may hold the same one at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueKey {
    /// Which index, for example `boot-mac`.
    pub index: String,
    /// The value that must be unique there, in its normal form (the store compares bytes).
    pub key: String,
}

impl UniqueKey {
    /// An entry from its parts.
    pub fn new(index: impl Into<String>, key: impl Into<String>) -> Self {
        Self { index: index.into(), key: key.into() }
    }
}

/// One change of a transaction. A key may be written at most once per transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces an object, together with *all* its unique entries: those it had and that are not named
    /// here are released. Two objects may swap entries in one transaction.
    Put {
        /// The object.
        key: Key,
        /// Its value; the store does not look inside.
        value: Vec<u8>,
        /// Its unique entries.
        unique: Vec<UniqueKey>,
    },
    /// Removes an object and its unique entries. Removing what is not there changes nothing and is no error.
    Delete(Key),
}

impl Write {
    /// A put without unique entries.
    pub fn put(key: Key, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key, value: value.into(), unique: Vec::new() }
    }

    /// The object that this changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// Something that happened to an object, kept in order with the change that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// The object it is about; it need not exist.
    pub subject: Key,
    /// What happened; the store does not look inside.
    pub value: Bytes,
}

impl EventRecord {
    /// An event about `subject`.
    pub fn new(subject: Key, value: impl Into<Bytes>) -> Self {
        Self { subject, value: value.into() }
    }
}

/// A transaction. Applied as a whole if every guard holds and no unique entry is taken, else not at all.
///
/// A transaction without writes and events only asks whether its guards hold: it takes no revision and returns the
/// present one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// All are applied, at one revision.
    pub writes: Vec<Write>,
    /// Appended at the same revision.
    pub events: Vec<EventRecord>,
    /// Makes the transaction idempotent.
    pub request_id: Option<RequestId>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a guard.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a write.
    #[must_use]
    pub fn write(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Adds a put without unique entries.
    #[must_use]
    pub fn put(self, key: Key, value: impl Into<Vec<u8>>) -> Self {
        self.write(Write::put(key, value))
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(self, key: Key) -> Self {
        self.write(Write::Delete(key))
    }

    /// Adds an event.
    #[must_use]
    pub fn event(mut self, subject: Key, value: impl Into<Bytes>) -> Self {
        self.events.push(EventRecord::new(subject, value));
        self
    }

    /// Names the intent.
    #[must_use]
    pub fn request(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(RequestId(id.into()));
        self
    }

    /// Whether the transaction takes a revision.
    pub(crate) fn is_read_only(&self) -> bool {
        self.writes.is_empty() && self.events.is_empty()
    }

    /// Refuses what no store accepts, before any store sees it.
    pub(crate) fn validate(&self) -> Result<(), InvalidTxn> {
        for (what, count) in
            [("guards", self.guards.len()), ("writes", self.writes.len()), ("events", self.events.len())]
        {
            if count > limits::ITEMS {
                return Err(InvalidTxn::TooMany { what, count });
            }
        }
        if let Some(RequestId(id)) = &self.request_id {
            check_text("request id", id, limits::NAME)?;
        }
        for guard in &self.guards {
            match guard {
                Guard::Revision(key, _) | Guard::Absent(key) => check_key(key)?,
                Guard::Epoch(..) => {}
            }
        }
        let mut total = 0;
        let mut seen = BTreeSet::new();
        for write in &self.writes {
            check_key(write.key())?;
            if !seen.insert(write.key()) {
                return Err(InvalidTxn::WrittenTwice { key: write.key().clone() });
            }
            if let Write::Put { key, value, unique } = write {
                total += value.len();
                check_value(key, value.len())?;
                let mut entries = BTreeSet::new();
                for entry in unique {
                    check_text("index name", &entry.index, limits::NAME)?;
                    check_text("index key", &entry.key, limits::NAME)?;
                    if !entries.insert(entry) {
                        return Err(InvalidTxn::UniqueTwice { key: key.clone(), index: entry.index.clone() });
                    }
                }
            }
        }
        for event in &self.events {
            check_key(&event.subject)?;
            check_value(&event.subject, event.value.len())?;
            total += event.value.len();
        }
        if total > limits::TXN {
            return Err(InvalidTxn::TooLarge { bytes: total });
        }
        Ok(())
    }
}

fn check_key(key: &Key) -> Result<(), InvalidTxn> {
    check_text("kind", key.kind.as_str(), limits::KIND)?;
    check_text("name", &key.name, limits::NAME)
}

fn check_text(what: &'static str, text: &str, limit: usize) -> Result<(), InvalidTxn> {
    // A NUL would end the text early for the sqlite3 shell and other tools written in C.
    if text.is_empty() || text.len() > limit || text.contains('\0') {
        return Err(InvalidTxn::Text { what, text: text.chars().take(64).collect(), limit });
    }
    Ok(())
}

fn check_value(key: &Key, bytes: usize) -> Result<(), InvalidTxn> {
    if bytes > limits::VALUE {
        return Err(InvalidTxn::ValueTooLarge { key: key.clone(), bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_written_once_per_transaction() {
        let key = Key::new("host", "a");
        let txn = Txn::new().put(key.clone(), "x").delete(key.clone());
        assert_eq!(txn.validate(), Err(InvalidTxn::WrittenTwice { key }));
    }

    #[test]
    fn names_are_bounded_and_not_empty() {
        for name in [String::new(), "x".repeat(limits::NAME + 1), "a\0b".to_owned()] {
            let refused = Txn::new().put(Key::new("host", name), "x").validate();
            assert!(matches!(refused, Err(InvalidTxn::Text { what: "name", .. })), "{refused:?}");
        }
        assert_eq!(Txn::new().put(Key::new("host", "x".repeat(limits::NAME)), "x").validate(), Ok(()));
    }

    #[test]
    fn values_are_bounded() {
        let key = Key::new("host", "a");
        let txn = Txn::new().put(key.clone(), vec![0; limits::VALUE + 1]);
        assert_eq!(txn.validate(), Err(InvalidTxn::ValueTooLarge { key, bytes: limits::VALUE + 1 }));
    }
}
