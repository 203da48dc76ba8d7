//! Everything in a file, brought to the rules of [`crate::check`].

use std::path::Path;

use rusqlite::{Connection, Row};

use super::failure::Failure;
use super::row::{EVENT, VERSION};
use super::schema::{self, Marks};
use crate::check::{CheckReport, Checker, EventRow, VersionRow};
use crate::checksum;
use crate::error::OpenError;
use crate::key::{Key, Kind};
use crate::lease::{Epoch, Shard};
use crate::time::StoreTime;
use crate::txn::{Revision, UniqueKey};

/// Checks a file, also one that an engine is using. Changes nothing.
///
/// # Errors
/// When it is not a store that this engine knows, or cannot be read at all. What is wrong inside is in the report.
pub(super) fn check(path: &Path) -> Result<CheckReport, OpenError> {
    let connection = schema::open_to_look(path)?;
    of(&connection).map_err(|error| schema::failed(path, error))
}

/// Checks what a connection sees. Damage is part of the report, and only other failures are errors.
pub(super) fn of(connection: &Connection) -> rusqlite::Result<CheckReport> {
    let snapshot = connection.unchecked_transaction()?;
    let marks = match Marks::read(&snapshot) {
        Ok(marks) => marks,
        Err(error) => {
            let mut checker = Checker::new(Revision::ZERO, Revision::ZERO, Revision::ZERO);
            part(&mut checker, "the meta record", Err(error))?;
            return Ok(checker.finish());
        }
    };
    let mut checker = Checker::new(marks.revision, marks.compacted, marks.forgotten);
    let structure = structure(&snapshot, &mut checker);
    part(&mut checker, "the structure", structure)?;
    // Not by an index: what is found in the table itself is what counts. Twice, so that no value has to be sorted.
    let read = each(&snapshot, &format!("SELECT {VERSION} FROM version NOT INDEXED"), |row| {
        let (key, revision) = (key(row)?, row.get(2)?);
        let value: Option<Vec<u8>> = row.get(6)?;
        let computed = checksum::object(&key, revision, row.get(3)?, row.get(4)?, value.as_deref());
        checker.checksum(&key, revision, (row.get::<_, i64>(5)?.cast_unsigned(), computed));
        Ok(())
    });
    part(&mut checker, "the values", read)?;
    let sql = "SELECT kind, name, revision, created, at, until, value IS NULL FROM version NOT INDEXED
               ORDER BY kind, name, revision";
    let read = each(&snapshot, sql, |row| {
        checker.version(VersionRow {
            key: key(row)?,
            revision: row.get(2)?,
            created: row.get(3)?,
            at: row.get(4)?,
            until: row.get(5)?,
            deleted: row.get(6)?,
        });
        Ok(())
    });
    part(&mut checker, "the objects", read)?;
    let sql = format!("SELECT {EVENT} FROM event NOT INDEXED ORDER BY revision, ordinal");
    let read = each(&snapshot, &sql, |row| {
        checker.event(event(row)?);
        Ok(())
    });
    part(&mut checker, "the events", read)?;
    let read = each(&snapshot, "SELECT kind, name, field, key FROM unique_key NOT INDEXED", |row| {
        let entry = UniqueKey { index: row.get(2)?, key: row.get(3)? };
        checker.unique(&entry, &key(row)?);
        Ok(())
    });
    part(&mut checker, "the unique entries", read)?;
    let read = each(&snapshot, "SELECT id, revision FROM request NOT INDEXED", |row| {
        checker.request(&row.get::<_, String>(0)?, row.get(1)?);
        Ok(())
    });
    part(&mut checker, "the request ids", read)?;
    let read = each(&snapshot, "SELECT shard, epoch, holder, expires FROM lease", |row| {
        // That holder and expiry are what they should be at all.
        let (_, _) = (row.get::<_, Option<String>>(2)?, row.get::<_, StoreTime>(3)?);
        checker.lease(Shard(row.get(0)?), row.get::<_, Epoch>(1)?);
        Ok(())
    });
    part(&mut checker, "the leases", read)?;
    Ok(checker.finish())
}

/// A part that cannot be read to its end is a problem like any other; what comes after it is still looked at.
fn part(checker: &mut Checker, what: &str, read: rusqlite::Result<()>) -> rusqlite::Result<()> {
    match read.map_err(Failure::from) {
        Ok(()) => Ok(()),
        Err(Failure::Corrupt(why)) => {
            checker.problem(format!("{what} cannot be read whole: {why}"));
            Ok(())
        }
        Err(Failure::Full) => {
            Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None))
        }
        Err(Failure::Other(error)) => Err(error),
    }
}

/// SQLite's own check: pages, cells, and that each index has what its table has.
fn structure(connection: &Connection, checker: &mut Checker) -> rusqlite::Result<()> {
    each(connection, "PRAGMA integrity_check(100)", |row| {
        let said: String = row.get(0)?;
        if said != "ok" {
            checker.problem(said);
        }
        Ok(())
    })
}

fn each(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key { kind: Kind::from(row.get::<_, String>(0)?), name: row.get(1)? })
}

fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let (subject, revision, ordinal, at) = (key(row)?, row.get(2)?, row.get(3)?, row.get(4)?);
    let computed = checksum::event(&subject, revision, ordinal, at, &row.get::<_, Vec<u8>>(6)?);
    Ok(EventRow { subject, revision, ordinal, at, checksums: (row.get::<_, i64>(5)?.cast_unsigned(), computed) })
}
