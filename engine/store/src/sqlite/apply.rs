//! What a transaction does to the tables. Runs in a savepoint that is rolled back when it is refused.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::failure::Stop;
use super::query;
use super::row::{self, Version};
use super::writer::Batch;
use crate::error::{CommitError, LeaseError};
use crate::key::{Key, Kind};
use crate::lease::{Acquired, Epoch, Lease, PreviousLease, Shard};
use crate::memory::{LeaseRow, REQUESTS_KEPT};
use crate::record::{Committed, Event, ObjectChange};
use crate::time::StoreTime;
use crate::txn::{Guard, RequestId, Revision, Txn, UniqueKey, Write};

type Applied<T> = Result<T, Stop<CommitError>>;

/// Applies a transaction at the next revision.
pub(super) fn commit(batch: &mut Batch<'_>, txn: &Txn) -> Applied<Revision> {
    if let Some(id) = &txn.request_id
        && let Some(revision) = query::request(batch.connection, id, batch.now)?
    {
        return Ok(revision);
    }
    txn.guards.iter().try_for_each(|guard| check(batch.connection, guard))?;
    let revision = if txn.is_read_only() { batch.marks.revision } else { batch.marks.revision.next() };
    if let Some(id) = &txn.request_id {
        remember(batch, id, revision)?;
    }
    if txn.is_read_only() {
        return Ok(revision);
    }
    batch.marks.revision = revision;
    let mut committed = Committed { revision, at: batch.now, objects: Vec::new(), events: Vec::new() };
    // All are given up before any is taken, so that two objects can swap theirs.
    let mut taken = Vec::with_capacity(txn.writes.len());
    for write in &txn.writes {
        taken.push(release_unique(batch.connection, write)?);
    }
    for (write, taken) in txn.writes.iter().zip(taken) {
        taken.into_iter().try_for_each(|entry| take_unique(batch.connection, entry, write.key()))?;
        committed.objects.extend(apply(batch, write, revision)?);
    }
    committed.objects.sort_by(|a, b| a.key().cmp(b.key()));
    for (ordinal, event) in (0..).zip(&txn.events) {
        let event =
            Event { revision, ordinal, at: batch.now, subject: event.subject.clone(), value: event.value.clone() };
        row::insert_event(batch.connection, &event)?;
        committed.events.push(event);
    }
    batch.committed.push(committed);
    Ok(revision)
}

fn check(connection: &Connection, guard: &Guard) -> Applied<()> {
    let conflict = |key: &Key, found| Err(Stop::Refused(CommitError::Conflict { key: key.clone(), found }));
    match guard {
        Guard::Revision(key, expected) => match live(connection, key)?.map(|live| live.revision) {
            Some(found) if found == *expected => Ok(()),
            found => conflict(key, found),
        },
        Guard::Absent(key) => match live(connection, key)? {
            None => Ok(()),
            Some(live) => conflict(key, Some(live.revision)),
        },
        Guard::Epoch(shard, expected) => {
            let found = lease(connection, *shard)?.filter(|row| row.holder.is_some()).map(|row| row.epoch);
            if found == Some(*expected) {
                Ok(())
            } else {
                Err(Stop::Refused(CommitError::Fenced { shard: *shard, found }))
            }
        }
    }
}

struct Live {
    revision: Revision,
    created: Revision,
}

fn live(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Live>> {
    connection
        .prepare_cached("SELECT revision, created FROM version WHERE kind = ?1 AND name = ?2 AND until IS NULL AND value IS NOT NULL")?
        .query_row((key.kind.as_str(), &key.name), |row| Ok(Live { revision: row.get(0)?, created: row.get(1)? }))
        .optional()
}

fn apply(batch: &Batch<'_>, write: &Write, revision: Revision) -> Applied<Option<ObjectChange>> {
    let live = live(batch.connection, write.key())?;
    let (key, created, value) = match (write, live) {
        (Write::Put { key, value, .. }, live) => {
            (key, live.map_or(revision, |live| live.created), Some(Bytes::copy_from_slice(value)))
        }
        (Write::Delete(key), Some(live)) => (key, live.created, None),
        (Write::Delete(_), None) => return Ok(None),
    };
    batch
        .connection
        .prepare_cached("UPDATE version SET until = ?3 WHERE kind = ?1 AND name = ?2 AND until IS NULL")?
        .execute((key.kind.as_str(), &key.name, revision))?;
    let version = Version { key: key.clone(), revision, created, at: batch.now, value };
    row::insert_version(batch.connection, &version, None)?;
    Ok(Some(version.into_change()))
}

/// Gives up the unique entries that an object no longer has, and returns those that it is to take. What stays is not touched:
/// most writes change none, and each entry that is written lies on two pages that nothing else of the commit touches.
fn release_unique<'a>(connection: &Connection, write: &'a Write) -> rusqlite::Result<Vec<&'a UniqueKey>> {
    let (key, wanted) = match write {
        Write::Put { key, unique, .. } => (key, unique.as_slice()),
        Write::Delete(key) => (key, [].as_slice()),
    };
    let mut statement = connection.prepare_cached("SELECT field, key FROM unique_key WHERE kind = ?1 AND name = ?2")?;
    let held = statement
        .query_map((key.kind.as_str(), &key.name), |row| Ok(UniqueKey { index: row.get(0)?, key: row.get(1)? }))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for entry in held.iter().filter(|entry| !wanted.contains(entry)) {
        connection
            .prepare_cached("DELETE FROM unique_key WHERE field = ?1 AND key = ?2")?
            .execute((&entry.index, &entry.key))?;
    }
    Ok(wanted.iter().filter(|entry| !held.contains(entry)).collect())
}

fn take_unique(connection: &Connection, entry: &UniqueKey, holder: &Key) -> Applied<()> {
    if insert_unique(connection, entry, holder)? {
        return Ok(());
    }
    let held_by = connection
        .prepare_cached("SELECT kind, name FROM unique_key WHERE field = ?1 AND key = ?2")?
        .query_row((&entry.index, &entry.key), |row| {
            Ok(Key { kind: Kind::from(row.get::<_, String>(0)?), name: row.get(1)? })
        })?;
    let UniqueKey { index, key } = entry.clone();
    Err(Stop::Refused(CommitError::Unique { index, key, held_by }))
}

/// Inserts a unique entry; `false` if it is taken.
pub(super) fn insert_unique(connection: &Connection, entry: &UniqueKey, holder: &Key) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("INSERT INTO unique_key (field, key, kind, name) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (field, key) DO NOTHING")?
        .execute((&entry.index, &entry.key, holder.kind.as_str(), &holder.name))
        .map(|rows| rows == 1)
}

fn remember(batch: &Batch<'_>, id: &RequestId, revision: Revision) -> rusqlite::Result<()> {
    let expired = batch.now.saturating_sub(REQUESTS_KEPT);
    batch.connection.prepare_cached("DELETE FROM request WHERE at <= ?1")?.execute([expired])?;
    insert_request(batch.connection, id, revision, batch.now)
}

/// Inserts a request id.
pub(super) fn insert_request(
    connection: &Connection,
    id: &RequestId,
    revision: Revision,
    at: StoreTime,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO request (id, revision, at) VALUES (?1, ?2, ?3)")?
        .execute((&id.0, revision, at))
        .map(drop)
}

fn lease(connection: &Connection, shard: Shard) -> rusqlite::Result<Option<LeaseRow>> {
    connection
        .prepare_cached("SELECT holder, epoch, expires FROM lease WHERE shard = ?1")?
        .query_row([shard.0], |row| Ok(LeaseRow { holder: row.get(0)?, epoch: row.get(1)?, expires: row.get(2)? }))
        .optional()
}

/// Inserts or replaces a lease.
pub(super) fn write_lease(connection: &Connection, shard: Shard, row: &LeaseRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO lease (shard, holder, epoch, expires) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (shard) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, expires = excluded.expires",
        )?
        .execute((shard.0, &row.holder, row.epoch, row.expires))
        .map(drop)
}

/// Takes a lease that is free, expired or the holder's own.
pub(super) fn acquire(
    batch: &mut Batch<'_>,
    shard: Shard,
    holder: &str,
    ttl: Duration,
) -> Result<Acquired, Stop<LeaseError>> {
    let row = lease(batch.connection, shard)?.unwrap_or_default();
    let previous = match row.holder {
        Some(other) if other != holder && row.expires > batch.now => {
            return Err(Stop::Refused(LeaseError::Held { shard, holder: other, expires: row.expires }));
        }
        Some(holder) => Some(PreviousLease { holder, expires: row.expires }),
        None => None,
    };
    let row =
        LeaseRow { holder: Some(holder.to_owned()), epoch: row.epoch.next(), expires: batch.now.saturating_add(ttl) };
    write_lease(batch.connection, shard, &row)?;
    let lease = Lease { shard, holder: holder.to_owned(), epoch: row.epoch, expires: row.expires };
    Ok(Acquired { lease, previous })
}

/// Extends a lease.
pub(super) fn renew(
    batch: &mut Batch<'_>,
    shard: Shard,
    epoch: Epoch,
    ttl: Duration,
) -> Result<Lease, Stop<LeaseError>> {
    let (holder, mut row) = held(batch, shard, epoch)?;
    row.expires = batch.now.saturating_add(ttl);
    write_lease(batch.connection, shard, &row)?;
    Ok(Lease { shard, holder, epoch, expires: row.expires })
}

/// Gives a lease up.
pub(super) fn release(batch: &mut Batch<'_>, shard: Shard, epoch: Epoch) -> Result<(), Stop<LeaseError>> {
    let (_, row) = held(batch, shard, epoch)?;
    Ok(write_lease(batch.connection, shard, &LeaseRow { holder: None, ..row })?)
}

fn held(batch: &Batch<'_>, shard: Shard, epoch: Epoch) -> Result<(String, LeaseRow), Stop<LeaseError>> {
    match lease(batch.connection, shard)? {
        Some(row) if row.epoch == epoch => match row.holder.clone() {
            Some(holder) => Ok((holder, row)),
            None => Err(Stop::Refused(LeaseError::Lost { shard, epoch })),
        },
        _ => Err(Stop::Refused(LeaseError::Lost { shard, epoch })),
    }
}
