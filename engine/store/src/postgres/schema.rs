//! The tables, and the checks before they are trusted.
//!
//! They are those of the SQLite store, for the same reasons, in a schema of their own; besides, `writer` remembers the
//! last batch of each engine (see [`super::writer`]), and `meta` says which layout this is and how late it is.

use std::sync::Arc;

use tokio_postgres::Row;

use super::address::PostgresUrl;
use super::failure::{Because, Failure};
use super::session::{Session, quoted};
use crate::error::OpenError;
use crate::time::StoreTime;
use crate::txn::Revision;

/// Raised with every change of the layout below.
pub(super) const SCHEMA_VERSION: i32 = 1;
/// The oldest server with all that is used here.
const OLDEST_SERVER: i32 = 13;
/// Engines that make the tables at the same moment wait for each other by this key ("vmtl"). After that, the order is
/// the lock on the row of `meta`.
const CREATION: i64 = 0x766d_746c;

/// Kinds and names are ordered by their bytes, as everywhere in the store.
const LAYOUT: &str = r#"
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    schema_version INTEGER NOT NULL,
    revision BIGINT NOT NULL,
    compacted BIGINT NOT NULL,
    forgotten BIGINT NOT NULL,
    at BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO meta VALUES (1, 1, 0, 0, 0, 0);

CREATE TABLE version (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    created BIGINT NOT NULL,
    at BIGINT NOT NULL,
    until BIGINT,
    crc BIGINT NOT NULL,
    value BYTEA
);
CREATE UNIQUE INDEX version_live ON version (kind, name) WHERE until IS NULL;
CREATE INDEX version_replaced ON version (until) WHERE until IS NOT NULL;
CREATE INDEX version_deleted ON version (revision) WHERE until IS NULL AND value IS NULL;
CREATE INDEX version_written ON version (revision, kind, name);

CREATE TABLE event (
    revision BIGINT NOT NULL,
    ordinal INTEGER NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    crc BIGINT NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (revision, ordinal)
);
CREATE INDEX event_subject ON event (kind, name, revision, ordinal);

CREATE TABLE unique_key (
    field TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (field, key)
);
CREATE INDEX unique_holder ON unique_key (kind, name);

CREATE TABLE request (
    id TEXT COLLATE "C" PRIMARY KEY,
    revision BIGINT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX request_age ON request (at);

CREATE TABLE lease (
    shard INTEGER PRIMARY KEY,
    holder TEXT,
    epoch BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE writer (
    engine TEXT PRIMARY KEY,
    batch BIGINT NOT NULL,
    at BIGINT NOT NULL
) WITH (fillfactor = 10);
"#;

/// What `meta` says, and the time on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) schema_version: i32,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) forgotten: Revision,
    /// The server's clock, but never earlier than the last commit: a server that took over from another may be late.
    pub(super) now: StoreTime,
}

impl Meta {
    /// What [`Meta::from_row`] reads.
    pub(super) const SELECT: &str = "SELECT schema_version, revision, compacted, forgotten, \
        greatest(at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM meta WHERE one = 1";

    pub(super) fn from_row(row: &Row) -> Result<Self, Failure> {
        Ok(Self {
            schema_version: row.try_get(0)?,
            revision: Revision(number(row, 1)?),
            compacted: Revision(number(row, 2)?),
            forgotten: Revision(number(row, 3)?),
            now: StoreTime(number(row, 4)?),
        })
    }

    /// Reads it, and refuses a layout that is not ours: another engine may migrate it under a running one.
    pub(super) fn of(rows: &[Row]) -> Result<Self, Failure> {
        let row = rows.first().ok_or_else(|| Failure::Corrupt("its meta record is missing".to_owned()))?;
        let meta = Self::from_row(row)?;
        if meta.schema_version != SCHEMA_VERSION {
            return Err(Failure::Refused(Arc::new(Because(format!(
                "the store has schema version {} now, this engine knows {SCHEMA_VERSION}: another engine has migrated it; \
                 update this engine",
                meta.schema_version
            )))));
        }
        Ok(meta)
    }
}

/// A count, as PostgreSQL keeps it.
pub(super) fn number(row: &Row, column: usize) -> Result<u64, Failure> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Failure::Corrupt(format!("a count is negative ({number})")))
}

/// Makes the tables if they are not there, and checks them if they are. Returns this engine's name in `writer`, too.
pub(super) async fn open(session: &mut Session, url: &PostgresUrl, schema: &str) -> Result<(Meta, String), OpenError> {
    let failed = |failure: Failure| OpenError::from_failure(url, failure);
    let unsuitable = |what: String| OpenError::Unsuitable { server: url.to_string(), what };
    let rows = session
        .query(
            "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
             current_setting('fsync'), pg_is_in_recovery(), gen_random_uuid()::text",
            &[],
        )
        .await
        .map_err(failed)?;
    let row = rows.first().ok_or_else(|| unsuitable("it does not say what it is".to_owned()))?;
    let text = |column| row.try_get::<_, String>(column).map_err(|error| failed(error.into()));
    let version: i32 = row.try_get(0).map_err(|error| failed(error.into()))?;
    if version < OLDEST_SERVER * 10_000 {
        return Err(unsuitable(format!("it is version {}, expected {OLDEST_SERVER} or newer", version / 10_000)));
    }
    if text(1)? != "UTF8" {
        return Err(unsuitable(format!(
            "the database has encoding {}, expected UTF8; make it with `createdb -E UTF8 -T template0 NAME`",
            text(1)?
        )));
    }
    if row.try_get(3).map_err(|error| failed(error.into()))? {
        return Err(unsuitable("it is a standby, which takes no commits; name the primary".to_owned()));
    }
    if text(2)? == "off" {
        tracing::warn!(server = %url, "the database runs with fsync off: a power failure can destroy the store");
    }
    let engine = text(4)?;
    prepare(session, schema).await.map_err(failed)?;
    let rows = session.query(Meta::SELECT, &[]).await.map_err(failed)?;
    let row = rows.first().ok_or_else(|| failed(Failure::Corrupt("its meta record is missing".to_owned())))?;
    let meta = Meta::from_row(row).map_err(failed)?;
    if meta.schema_version > SCHEMA_VERSION {
        return Err(OpenError::NewerDatabase {
            server: url.to_string(),
            found: meta.schema_version,
            known: SCHEMA_VERSION,
        });
    }
    Ok((meta, engine))
}

/// Whether there is a store.
pub(super) async fn exists(session: &mut Session, schema: &str) -> Result<bool, Failure> {
    let there = session.query("SELECT to_regclass($1) IS NOT NULL", &[&format!("{}.meta", quoted(schema))]).await?;
    Ok(there.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false))
}

/// Makes what is missing, in one transaction.
async fn prepare(session: &mut Session, schema: &str) -> Result<(), Failure> {
    if exists(session, schema).await? {
        return Ok(());
    }
    let make = format!(
        "BEGIN;
         SELECT pg_advisory_xact_lock({CREATION});
         CREATE SCHEMA IF NOT EXISTS {};
         {};
         COMMIT",
        quoted(schema),
        // Another engine may have been quicker.
        format_args!(
            "DO $do$ BEGIN IF to_regclass('{}.meta') IS NULL THEN {LAYOUT} END IF; END $do$",
            quoted(schema).replace('\'', "''")
        ),
    );
    let made = session.client().batch_execute(&make).await;
    if made.is_err() {
        // Ends the transaction; the error is what matters.
        let _ = session.client().batch_execute("ROLLBACK").await;
    }
    Ok(made?)
}
