//! The file: its layout, its settings and the checks before it is trusted.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::check;
use super::failure::Failure;
use crate::check::{Extent, Problem};
use crate::error::OpenError;
use crate::txn::Revision;

/// "vmtl": says that a SQLite file is a store of ours.
pub(super) const APPLICATION_ID: u32 = 0x766d_746c;
/// Raised with every change of the layout below.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// `version`: the values each object has had; `until` is NULL for the newest one, `value` is NULL for a deletion.
/// The partial indexes hold one entry per live object, per replaced value and per deletion, so that reading the present
/// does not slow down with the length of the history.
const LAYOUT: &str = "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    forgotten INTEGER NOT NULL
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0);

CREATE TABLE version (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created INTEGER NOT NULL,
    at INTEGER NOT NULL,
    until INTEGER,
    crc INTEGER NOT NULL,
    value BLOB
) STRICT;
CREATE UNIQUE INDEX version_live ON version (kind, name) WHERE until IS NULL;
CREATE INDEX version_replaced ON version (until) WHERE until IS NOT NULL;
CREATE INDEX version_deleted ON version (revision) WHERE until IS NULL AND value IS NULL;
CREATE INDEX version_written ON version (revision);

CREATE TABLE event (
    revision INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    crc INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (revision, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_subject ON event (kind, name, revision, ordinal);

CREATE TABLE unique_key (
    field TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (field, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX unique_holder ON unique_key (kind, name);

CREATE TABLE request (
    id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX request_age ON request (at);

CREATE TABLE lease (
    shard INTEGER PRIMARY KEY,
    holder TEXT,
    epoch INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
";

/// How far the history reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// The newest commit.
    pub(super) revision: Revision,
    /// Values replaced up to here are gone.
    pub(super) compacted: Revision,
    /// Events up to here are gone.
    pub(super) forgotten: Revision,
}

impl Marks {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("SELECT revision, compacted, forgotten FROM meta")?
            .query_row([], |row| Ok(Self { revision: row.get(0)?, compacted: row.get(1)?, forgotten: row.get(2)? }))
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE meta SET revision = ?1, compacted = ?2, forgotten = ?3")?
            .execute((self.revision, self.compacted, self.forgotten))
            .map(drop)
    }
}

/// Opens or creates the file for its one writer.
pub(super) fn open(path: &Path) -> Result<(Connection, Marks), OpenError> {
    create_private(path)?;
    let connection = connect(path)?;
    let sqlite = |source| failed(path, source);
    let marks = match identify(&connection, path)? {
        Identity::Empty => {
            configure(&connection, path)?;
            create(&connection).map_err(sqlite)?;
            Marks::read(&connection).map_err(sqlite)?
        }
        Identity::Ours => {
            configure(&connection, path)?;
            trust(&connection, path)?
        }
    };
    Ok((connection, marks))
}

/// Writes the layout into an empty file.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN; {LAYOUT} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    ))
}

/// Opens the file for one of its readers.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true).map_err(|source| failed(path, source))?;
    Ok(connection)
}

/// Opens a file to look at it, without a lock and without changing it; an engine may be using it.
pub(super) fn open_to_look(path: &Path) -> Result<Connection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Io { path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() });
    }
    let connection = open_reader(path)?;
    let sqlite = |source| failed(path, source);
    // Otherwise the last one to close the file would write the log back into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    match identify(&connection, path)? {
        Identity::Ours => Ok(connection),
        Identity::Empty => Err(OpenError::NotAStore { path: path.to_owned(), found: 0, expected: APPLICATION_ID }),
    }
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = |source| failed(path, source);
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    // Someone may be looking at the file with the sqlite3 shell.
    connection.busy_timeout(Duration::from_secs(5)).map_err(sqlite)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sqlite)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(sqlite)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes sure that the file exists and that nobody else can read it; SQLite gives its log the same mode.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
    sync_directory(path).map_err(io)
}

/// Makes the name of a file as durable as its content.
pub(super) fn sync_directory(of: &Path) -> std::io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

enum Identity {
    Empty,
    Ours,
}

/// Looks at a file without changing it.
fn identify(connection: &Connection, path: &Path) -> Result<Identity, OpenError> {
    let pragma = |name| {
        connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0)).map_err(|source| failed(path, source))
    };
    let objects: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|source| failed(path, source))?;
    let application = pragma("application_id")?;
    if application == 0 && objects == 0 {
        return Ok(Identity::Empty);
    }
    if application != APPLICATION_ID {
        return Err(OpenError::NotAStore { path: path.to_owned(), found: application, expected: APPLICATION_ID });
    }
    let found = pragma("user_version")?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    Ok(Identity::Ours)
}

fn configure(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |source| failed(path, source);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        let message = format!(
            "the file system does not support write-ahead logging (journal mode stays {mode}); use a local disk"
        );
        return Err(sqlite(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(message),
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    // A fleet that moves writes the same pages over and over: the longer the log, the fewer of them are copied to the database
    // again and again. In KiB (negative) of memory, and in pages of 4 KiB of log.
    connection.pragma_update(None, "cache_size", -8_192).map_err(sqlite)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 2_048, |_| Ok(())).map_err(sqlite)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(sqlite)
}

/// Checks a file that was written before. Damage to single records is left to those who read them: the others can be
/// used, and replacing them mends them. Anything else is refused.
fn trust(connection: &Connection, path: &Path) -> Result<Marks, OpenError> {
    let sqlite = |source| failed(path, source);
    let corrupt = |what| OpenError::Corrupt { path: path.to_owned(), what };
    let report = check::of(connection).map_err(sqlite)?;
    match report.problems.first() {
        Some(Problem { extent: Extent::Store, what }) => return Err(corrupt(what.clone())),
        Some(Problem { extent: Extent::Record, what }) => {
            tracing::error!(
                path = %path.display(), records = report.count(), first = what,
                "records of the store are damaged: reading them will fail; `vmetal store check` lists them"
            );
        }
        None => {}
    }
    let marks = Marks::read(connection).optional().map_err(sqlite)?;
    marks.ok_or_else(|| corrupt("its meta record is missing".to_owned()))
}

pub(super) fn failed(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match Failure::from(source) {
        Failure::Corrupt(what) => OpenError::Corrupt { path, what },
        Failure::Full => OpenError::Io { path, source: std::io::ErrorKind::StorageFull.into() },
        Failure::Other(source) => OpenError::Sqlite { path, source },
    }
}
