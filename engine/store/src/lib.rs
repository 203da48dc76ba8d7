//! The engine's memory: objects, their history and the leases of the engines that act on them.
//!
//! The store knows no model. It keeps opaque values under a [`Key`] and gives them six properties on which everything
//! above relies:
//!
//! * **One order.** Every commit that writes gets the next [`Revision`], without gaps, so a watcher can prove that it
//!   missed nothing by counting.
//! * **All or nothing, and durable.** [`Store::commit`] returns after the transaction is on stable storage. Guards
//!   (object revision, absence, lease epoch) are checked in the same transaction, so a lost race changes nothing.
//! * **Idempotent.** A transaction that carries a [`RequestId`] is applied once, however often it is sent: a client
//!   that lost the answer sends it again and gets the revision of the first time.
//! * **History is a stream.** [`Store::watch`] delivers every commit after a revision, whole, in order, once. It never
//!   buffers without bound: a slow reader is served from the history on disk, and told [`WatchError::Compacted`] when
//!   that is gone.
//! * **Snapshots.** [`Store::list`] pages through the state at one revision, however long the paging takes.
//! * **Damage is an error.** Every record carries a CRC-32 that is checked when it is read. SQLite does not notice a
//!   flipped bit in a payload; this crate does, and names the key.
//!
//! [`AnyStore`] is the handle to pass around: [`AnyStore::memory`] is the model (tests, simulation), and
//! [`AnyStore::open`] is SQLite. Both pass one conformance suite, and random transactions are compared between them.
//!
//! # What is not promised
//!
//! A commit whose future is dropped may still happen: the writer already owns it. Store time ([`Store::now`]) is the
//! wall clock of the machine that holds the file; it never runs backwards inside one process and is meant for leases
//! and display, never for ordering, which is what revisions are for.

mod check;
mod checksum;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod conformance;
mod error;
mod feed;
mod intercept;
mod key;
mod lease;
mod memory;
mod postgres;
mod record;
mod sqlite;
mod store;
mod time;
mod txn;

pub use check::{CheckReport, Extent, Problem};
pub use error::{BackupError, CommitError, InvalidTxn, LeaseError, OpenError, ReadError, RestoreError, WatchError};
pub use intercept::{Delivery, Intercept, InterceptedStore, Verdict};
pub use key::{Key, Kind, Selector};
pub use lease::{Acquired, Epoch, Lease, PreviousLease, Shard};
pub use memory::MemoryStore;
pub use postgres::{PostgresOptions, PostgresStats, PostgresStore, PostgresUrl};
pub use record::{Change, Committed, Event, EventPage, List, ObjectChange, Page, PageToken, Stored};
pub use sqlite::{Existing, Restored, SqliteOptions, SqliteStore, Stats, backup_file, check_file, restore_file};
pub use store::{AnyStore, ChangeStream, Store};
pub use time::{StoreClock, StoreTime};
pub use txn::{EventRecord, Guard, RequestId, Revision, Txn, UniqueKey, Write, limits};
