//! What can go wrong, in words for the person who has to act on it.

use std::path::PathBuf;

use crate::key::Key;
use crate::lease::{Epoch, Shard};
use crate::time::StoreTime;
use crate::txn::{Revision, limits};

/// Shared by clones of one failure that hit several callers at once (a batch whose commit failed).
type Cause = std::sync::Arc<dyn std::error::Error + Send + Sync>;

/// Why a transaction was not applied, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A guard on an object did not hold. Nothing was applied; read the object again and decide again.
    #[error("{key} has changed: it is {}", match found { Some(revision) => format!("at revision {revision} now"), None => "absent now".to_owned() })]
    Conflict {
        /// The object.
        key: Key,
        /// Its revision, or `None` if it does not exist.
        found: Option<Revision>,
    },
    /// The lease has another epoch or is not held. Nothing was applied; stop acting on the shard now.
    #[error("shard {shard} is no longer held at the expected epoch: it is {}", match found { Some(epoch) => format!("held at epoch {epoch}"), None => "not held".to_owned() })]
    Fenced {
        /// The shard.
        shard: Shard,
        /// The present epoch, or `None` if nobody holds the shard.
        found: Option<Epoch>,
    },
    /// Another object holds a unique entry. Nothing was applied.
    #[error("{index} {key:?} is already used by {held_by}")]
    Unique {
        /// The index.
        index: String,
        /// The entry in it.
        key: String,
        /// The object that holds it.
        held_by: Key,
    },
    /// The transaction itself is not acceptable. Nothing was applied; sending it again will not help.
    #[error("transaction refused")]
    Invalid(#[from] InvalidTxn),
    /// The store could not take the transaction. Nothing was applied; it may be sent again.
    #[error("store unavailable, nothing was written: {reason}")]
    Unavailable {
        /// What stood in the way.
        reason: String,
        /// The cause, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// The store failed while making the transaction durable: it may or may not have been applied. Look up the request
    /// id with [`crate::Store::outcome`] once the store is back, or send the same request id again.
    #[error("outcome unknown, the transaction may have been applied: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
        /// The cause, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// Stored data is damaged. Nothing was applied; restore from a backup.
    #[error("store is damaged: {what}")]
    Corrupt {
        /// Where, and what was expected.
        what: String,
    },
    /// No space is left on the store's file system. Nothing was applied; free some space and send it again.
    #[error("no space left for the store, nothing was written: free some space on its file system")]
    Full,
}

impl CommitError {
    /// Whether sending the same transaction again can succeed without anyone changing it.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unknown { .. } | Self::Full)
    }
}

/// Why no store would accept a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTxn {
    /// More parts than a transaction may have.
    #[error("it has {count} {what}; the limit is {}", limits::ITEMS)]
    TooMany {
        /// Which parts.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A name that is empty, too long or holds a NUL.
    #[error("{what} {text:?} must have 1 to {limit} bytes and no NUL")]
    Text {
        /// Which name.
        what: &'static str,
        /// Its beginning.
        text: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A value that is too large.
    #[error("the value for {key} has {bytes} bytes; the limit is {}", limits::VALUE)]
    ValueTooLarge {
        /// The object.
        key: Key,
        /// The size.
        bytes: usize,
    },
    /// All values together are too large.
    #[error("its values have {bytes} bytes together; the limit is {}", limits::TXN)]
    TooLarge {
        /// The size.
        bytes: usize,
    },
    /// A key is written more than once.
    #[error("it writes {key} twice")]
    WrittenTwice {
        /// The object.
        key: Key,
    },
    /// An object names a unique entry more than once.
    #[error("{key} names an entry of index {index} twice")]
    UniqueTwice {
        /// The object.
        key: Key,
        /// The index.
        index: String,
    },
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The snapshot that a page token points at is gone: start the list again.
    #[error("the snapshot at revision {at} is gone (history before revision {oldest} was compacted): list again")]
    Expired {
        /// The snapshot.
        at: Revision,
        /// The oldest snapshot that can still be read.
        oldest: Revision,
    },
    /// The page token is not one this store gave out.
    #[error("the page token is not valid: pass it back exactly as it was returned")]
    BadToken,
    /// A stored record does not match its checksum, or the file is damaged. Restore from a backup.
    #[error("store is damaged: {what}")]
    Corrupt {
        /// Where, and what was expected.
        what: String,
    },
    /// The store could not be read now.
    #[error("store unavailable: {reason}")]
    Unavailable {
        /// What stood in the way.
        reason: String,
        /// The cause, where there is one.
        #[source]
        source: Option<Cause>,
    },
}

/// Why a watch ended. Every watch ends after its first error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The history after the asked revision is gone: list, and watch from the list's revision.
    #[error("history up to revision {oldest} was compacted: list again and watch from there")]
    Compacted {
        /// The oldest revision that can be watched from.
        oldest: Revision,
    },
    /// The asked revision has not happened in this store: it was restored from a backup, or is another store.
    #[error(
        "revision {after} has not happened in this store, which is at {head}: it was restored or replaced; list again"
    )]
    Ahead {
        /// The asked revision.
        after: Revision,
        /// The store's newest revision.
        head: Revision,
    },
    /// The store has been closed.
    #[error("the store has been closed")]
    Closed,
    /// Reading the history failed.
    #[error("reading the history failed")]
    Read(#[from] ReadError),
}

/// Why a lease operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another engine holds the shard.
    #[error("shard {shard} is held by {holder} until {expires:?}")]
    Held {
        /// The shard.
        shard: Shard,
        /// Who holds it.
        holder: String,
        /// Until when by store time, unless it renews.
        expires: StoreTime,
    },
    /// The lease to renew or release is not held any more: stop acting on the shard now.
    #[error("the lease on shard {shard} at epoch {epoch} is lost")]
    Lost {
        /// The shard.
        shard: Shard,
        /// The epoch that is over.
        epoch: Epoch,
    },
    /// The store failed.
    #[error("lease not changed")]
    Store(#[from] CommitError),
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is already there. Backups never overwrite.
    #[error("{} already exists: choose another name, a backup never overwrites", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target could not be written.
    #[error("backup to {} failed", path.display())]
    Io {
        /// The target.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The store could not be copied.
    #[error("backup to {} failed", path.display())]
    Copy {
        /// The target.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The store is in a database that has tools of its own for this.
    #[error("a store in PostgreSQL is backed up with PostgreSQL's tools: {}", postgres_backup(server, schema))]
    Elsewhere {
        /// The database.
        server: String,
        /// The schema with the tables.
        schema: String,
    },
    /// The store could not be read.
    #[error("backup failed")]
    Read(#[from] ReadError),
    /// There is no store to back up.
    #[error("backup failed")]
    Open(#[source] OpenError),
    /// The copy is damaged, because the store is.
    #[error(
        "no backup was made: the store is damaged ({count} problems, the first: {first}); `vmetal store check` lists them. \
         Restore an earlier backup, or stop the engine and copy the files as they are"
    )]
    Damaged {
        /// How many problems were found.
        count: u64,
        /// The first of them.
        first: String,
    },
}

/// Why a store was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup, or the store, cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backup is damaged.
    #[error("the backup {} is damaged ({count} problems, the first: {first}); nothing was changed", backup.display())]
    Damaged {
        /// The backup.
        backup: PathBuf,
        /// How many problems were found.
        count: u64,
        /// The first of them.
        first: String,
    },
    /// There is a store already.
    #[error(
        "{} exists already and holds {holds}; the backup is at revision {revision}. Nothing was changed: what happened \
         after the backup would be forgotten, and servers do not go back in time with it",
        store.display()
    )]
    Exists {
        /// The store.
        store: PathBuf,
        /// What it holds.
        holds: String,
        /// The revision of the backup.
        revision: Revision,
    },
    /// The backup could not be copied.
    #[error(transparent)]
    Copy(#[from] BackupError),
}

/// The command that backs a PostgreSQL store up. The password comes from `~/.pgpass` or `PGPASSWORD`.
pub(crate) fn postgres_backup(server: &str, schema: &str) -> String {
    format!("pg_dump --format=custom --schema={schema} --file=vmetal.dump {server}")
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the store {} is in use by {}: stop that one first; two engines must never share a store file",
        path.display(),
        match pid { Some(pid) => format!("process {pid}"), None => "another process".to_owned() }
    )]
    Locked {
        /// The store file.
        path: PathBuf,
        /// The process that holds it, as it wrote into the lock file.
        pid: Option<u32>,
    },
    /// A file could not be opened, created or given its mode.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{} is not a vmetal store (application id {found:#x}, expected {expected:#x})", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// Its application id.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A newer engine wrote the file.
    #[error("{} has schema version {found}, this engine knows up to {known}: use the engine that wrote it, or a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest this engine knows.
        known: u32,
    },
    /// The file is damaged.
    #[error(
        "the store {} is damaged: {what}; `vmetal store check` lists everything, `vmetal store restore --replace` puts a \
         backup in its place and keeps this one",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the check found.
        what: String,
    },
    /// SQLite refused.
    #[error("cannot open the store {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The URL of a database cannot be used.
    #[error("the URL of the store cannot be used: {what}; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url {
        /// What is wrong with it; no part of the password.
        what: String,
    },
    /// A database cannot be reached.
    #[error("cannot open the store in {server}")]
    Connect {
        /// The database.
        server: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A database cannot hold a store, or holds a damaged one.
    #[error("cannot use {server} as the store: {what}")]
    Unsuitable {
        /// The database.
        server: String,
        /// What was found, what was expected.
        what: String,
    },
    /// A newer engine wrote the store in a database.
    #[error(
        "the store in {server} has schema version {found}, this engine knows up to {known}: use the engine that wrote it, or a newer one"
    )]
    NewerDatabase {
        /// The database.
        server: String,
        /// Its schema version.
        found: i32,
        /// The newest this engine knows.
        known: i32,
    },
}
