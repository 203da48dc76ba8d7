//! Records as rows: written with a checksum, believed only when it matches.

use bytes::Bytes;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row};

use crate::checksum;
use crate::error::ReadError;
use crate::key::{Key, Kind};
use crate::lease::Epoch;
use crate::record::{Event, ObjectChange, Stored};
use crate::time::StoreTime;
use crate::txn::Revision;

/// SQLite's integers are signed; ours are counts and never reach the sign.
macro_rules! column {
    ($($number:ident),*) => {$(
        impl ToSql for $number {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                let number = i64::try_from(self.0).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                Ok(ToSqlOutput::from(number))
            }
        }

        impl FromSql for $number {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let number = value.as_i64()?;
                u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
            }
        }
    )*};
}

column!(Revision, StoreTime, Epoch);

/// The columns that [`version`] reads, in its order.
pub(super) const VERSION: &str = "kind, name, revision, created, at, crc, value";
/// The columns that [`event`] reads, in its order.
pub(super) const EVENT: &str = "kind, name, revision, ordinal, at, crc, value";

/// A row of `version`.
pub(super) struct Version {
    pub(super) key: Key,
    pub(super) revision: Revision,
    pub(super) created: Revision,
    pub(super) at: StoreTime,
    pub(super) value: Option<Bytes>,
}

impl Version {
    pub(super) fn into_change(self) -> ObjectChange {
        let Self { key, revision, created, at: written_at, value } = self;
        match value {
            Some(value) => ObjectChange::Put(Stored { key, revision, created, written_at, value }),
            None => ObjectChange::Deleted(key),
        }
    }

    pub(super) fn into_stored(self) -> Option<Stored> {
        match self.into_change() {
            ObjectChange::Put(stored) => Some(stored),
            ObjectChange::Deleted(_) => None,
        }
    }
}

/// Reads and verifies a row selected with [`VERSION`].
pub(super) fn version(row: &Row<'_>) -> Result<Version, ReadError> {
    let version = Version {
        key: key(row)?,
        revision: row.get(2)?,
        created: row.get(3)?,
        at: row.get(4)?,
        value: row.get::<_, Option<Vec<u8>>>(6)?.map(Bytes::from),
    };
    let computed =
        checksum::object(&version.key, version.revision, version.created, version.at, version.value.as_deref());
    verify(row.get(5)?, computed, || format!("the record of {} at revision {}", version.key, version.revision))?;
    Ok(version)
}

/// Reads and verifies a row selected with [`EVENT`].
pub(super) fn event(row: &Row<'_>) -> Result<Event, ReadError> {
    let event = Event {
        revision: row.get(2)?,
        ordinal: row.get(3)?,
        at: row.get(4)?,
        subject: key(row)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(6)?),
    };
    let computed = checksum::event(&event.subject, event.revision, event.ordinal, event.at, &event.value);
    verify(row.get(5)?, computed, || {
        format!("event {} about {} at revision {}", event.ordinal, event.subject, event.revision)
    })?;
    Ok(event)
}

fn key(row: &Row<'_>) -> Result<Key, ReadError> {
    Ok(Key { kind: Kind::from(row.get::<_, String>(0)?), name: row.get(1)? })
}

fn verify(recorded: u32, computed: u32, what: impl FnOnce() -> String) -> Result<(), ReadError> {
    if recorded == computed {
        return Ok(());
    }
    let what = format!(
        "{} does not match its checksum (recorded {recorded:08x}, computed {computed:08x}); restore it from a backup",
        what()
    );
    Err(ReadError::Corrupt { what })
}

/// Inserts an object's value, or its deletion, replaced by the commit `until`.
pub(super) fn insert_version(
    connection: &Connection,
    version: &Version,
    until: Option<Revision>,
) -> rusqlite::Result<()> {
    let Version { key, revision, created, at, value } = version;
    let crc = checksum::object(key, *revision, *created, *at, value.as_deref());
    connection
        .prepare_cached("INSERT INTO version (kind, name, revision, created, at, until, crc, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute((key.kind.as_str(), &key.name, revision, created, at, until, crc, value.as_deref()))
        .map(drop)
}

/// Inserts an event.
pub(super) fn insert_event(connection: &Connection, event: &Event) -> rusqlite::Result<()> {
    let Event { revision, ordinal, at, subject, value } = event;
    let crc = checksum::event(subject, *revision, *ordinal, *at, value);
    connection
        .prepare_cached(
            "INSERT INTO event (kind, name, revision, ordinal, at, crc, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((subject.kind.as_str(), &subject.name, revision, ordinal, at, crc, value.as_ref()))
        .map(drop)
}
