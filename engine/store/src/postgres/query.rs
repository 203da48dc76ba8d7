//! What readers ask.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio_postgres::{Portal, Row, Transaction};

use super::failure::{Failure, Unanswered};
use super::rows::int;
use super::schema::{Meta, number};
use super::session::{Parameter, Session};
use crate::check::{CheckReport, Checker, EventRow, VersionRow};
use crate::checksum;
use crate::error::ReadError;
use crate::key::{Key, Kind, Selector};
use crate::lease::{Epoch, Shard};
use crate::record::{Committed, Event, EventPage, List, ObjectChange, Page, Stored};
use crate::time::StoreTime;
use crate::txn::{Revision, UniqueKey};

/// A watcher is given about this many bytes of history at a time.
const HISTORY_BYTES: usize = 4 << 20;
/// Rows that are fetched at a time where their size is not known.
const ROWS: i32 = 64;

const VERSION: &str = "kind, name, revision, created, at, crc, value";
const EVENT: &str = "kind, name, revision, ordinal, at, crc, value";

type Answered<T> = Result<T, Unanswered>;

/// SQL conditions with their parameters.
struct Conditions<'a> {
    sql: String,
    values: Vec<Parameter<'a>>,
}

impl<'a> Conditions<'a> {
    /// Conditions on `kind` and `name` that hold for what the selector points at.
    fn selecting(selector: &'a Selector, prefix_end: &'a Option<String>, kind: &'a &'a str) -> Self {
        let mut conditions = Self { sql: "TRUE".to_owned(), values: Vec::new() };
        match selector {
            Selector::All => {}
            Selector::Kind(_) => conditions.and("kind =", kind),
            Selector::Prefix(_, prefix) => {
                conditions.and("kind =", kind);
                conditions.and("name >=", prefix);
                if let Some(end) = prefix_end {
                    conditions.and("name <", end);
                }
            }
            Selector::Key(key) => {
                conditions.and("kind =", kind);
                conditions.and("name =", &key.name);
            }
        }
        conditions
    }

    fn and(&mut self, test: &str, value: Parameter<'a>) {
        let place = self.place(value);
        self.sql.push_str(&format!(" AND {test} {place}"));
    }

    /// Adds a parameter and returns the text that stands for it.
    fn place(&mut self, value: Parameter<'a>) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}

/// Rows that are fetched as they are needed.
struct Cursor<'a> {
    snapshot: &'a Transaction<'a>,
    portal: Portal,
    rows: VecDeque<Row>,
    ended: bool,
}

impl<'a> Cursor<'a> {
    async fn open(
        snapshot: &'a Transaction<'a>,
        statement: &tokio_postgres::Statement,
        values: &[Parameter<'_>],
    ) -> Result<Self, Failure> {
        let portal = snapshot.bind(statement, values).await?;
        Ok(Self { snapshot, portal, rows: VecDeque::new(), ended: false })
    }

    async fn next(&mut self) -> Result<Option<Row>, Failure> {
        if self.rows.is_empty() && !self.ended {
            self.rows = self.snapshot.query_portal(&self.portal, ROWS).await?.into();
            self.ended = self.rows.len() < ROWS as usize;
        }
        Ok(self.rows.pop_front())
    }
}

/// How far the store is.
pub(super) async fn meta(session: &mut Session) -> Answered<Meta> {
    let rows = session.query(Meta::SELECT, &[]).await?;
    Ok(Meta::of(&rows)?)
}

async fn marks(snapshot: &Transaction<'_>, statement: &tokio_postgres::Statement) -> Answered<Meta> {
    Ok(Meta::of(&snapshot.query(statement, &[]).await.map_err(Failure::from)?)?)
}

/// One object.
pub(super) async fn get(session: &mut Session, key: &Key) -> Answered<Option<Stored>> {
    let sql = format!("SELECT {VERSION} FROM version WHERE kind = $1 AND name = $2 AND until IS NULL");
    let rows = session.query(&sql, &[&key.kind.as_str(), &key.name]).await?;
    match rows.first().map(version).transpose()? {
        Some((ObjectChange::Put(stored), ..)) => Ok(Some(stored)),
        _ => Ok(None),
    }
}

/// One page of a snapshot: objects unchanged since then come from the index of the present, the others from the index
/// of what was replaced after it.
pub(super) async fn list(session: &mut Session, selector: &Selector, page: &Page) -> Answered<List> {
    let (end, kind) = (selector.prefix_end(), selector.kind());
    let mut conditions = Conditions::selecting(selector, &end, &kind);
    let after = page.token.as_ref().map(|token| (token.after.kind.as_str(), &token.after.name));
    if let Some((kind, name)) = &after {
        let (kind, name) = (conditions.place(kind), conditions.place(name));
        conditions.sql.push_str(&format!(" AND (kind, name) > ({kind}, {name})"));
    }
    // Filled in below, when it is known which snapshot it is.
    let (at, limit) = (conditions.values.len() + 1, conditions.values.len() + 2);
    let Conditions { sql: filter, mut values } = conditions;
    let sql = format!(
        "SELECT * FROM (
           (SELECT {VERSION} FROM version WHERE until IS NULL AND {filter} AND value IS NOT NULL AND revision <= ${at}
            ORDER BY kind, name LIMIT ${limit})
           UNION ALL
           (SELECT {VERSION} FROM version WHERE until > ${at} AND {filter} AND value IS NOT NULL AND revision <= ${at}
            ORDER BY kind, name LIMIT ${limit})) AS page
         ORDER BY kind, name LIMIT ${limit}"
    );
    let (of_marks, of_page) = (session.statement(Meta::SELECT).await?, session.statement(&sql).await?);
    let snapshot = session.snapshot().await?;
    let marks = marks(&snapshot, &of_marks).await?;
    let revision = page.token.as_ref().map_or(marks.revision, |token| token.revision);
    if revision < marks.compacted {
        return Err(ReadError::Expired { at: revision, oldest: marks.compacted }.into());
    }
    if revision > marks.revision {
        return Err(ReadError::BadToken.into());
    }
    let (at, most) = (int(revision.0), int(page.take() as u64 + 1));
    values.extend([&at as Parameter<'_>, &most]);
    let mut cursor = Cursor::open(&snapshot, &of_page, &values).await?;
    let (mut found, mut bytes): (Vec<Result<Stored, ReadError>>, usize) = (Vec::new(), 0);
    // One more than fits, so that the page knows that there is more.
    while bytes <= Page::BYTES
        && let Some(row) = cursor.next().await?
    {
        // Deletions are left out by the question, so every row is an object.
        if let (ObjectChange::Put(stored), ..) = version(&row)? {
            bytes += stored.value.len();
            found.push(Ok(stored));
        }
    }
    Ok(page.fill(revision, found.into_iter())?)
}

/// Events from `after` on, in whole commits.
pub(super) async fn events(
    session: &mut Session,
    subject: &Selector,
    after: Revision,
    limit: usize,
) -> Answered<EventPage> {
    let (end, kind, after) = (subject.prefix_end(), subject.kind(), int(after.0));
    let mut conditions = Conditions::selecting(subject, &end, &kind);
    conditions.and("revision >", &after);
    let Conditions { sql: filter, values } = conditions;
    let sql = format!("SELECT {EVENT} FROM event WHERE {filter} ORDER BY revision, ordinal");
    let (of_marks, of_events) = (session.statement(Meta::SELECT).await?, session.statement(&sql).await?);
    let snapshot = session.snapshot().await?;
    let mut cursor = Cursor::open(&snapshot, &of_events, &values).await?;
    let mut events: Vec<Event> = Vec::new();
    while let Some(row) = cursor.next().await? {
        let event = event(&row)?;
        if events.len() >= limit && events.last().is_none_or(|last| last.revision != event.revision) {
            break;
        }
        events.push(event);
    }
    Ok(EventPage { events, forgotten: marks(&snapshot, &of_marks).await?.forgotten })
}

/// The last events.
pub(super) async fn latest_events(session: &mut Session, subject: &Selector, limit: usize) -> Answered<EventPage> {
    let (end, kind, most) = (subject.prefix_end(), subject.kind(), int(limit as u64));
    let mut conditions = Conditions::selecting(subject, &end, &kind);
    let place = conditions.place(&most);
    let Conditions { sql: filter, values } = conditions;
    let sql = format!("SELECT {EVENT} FROM event WHERE {filter} ORDER BY revision DESC, ordinal DESC LIMIT {place}");
    let (of_marks, of_events) = (session.statement(Meta::SELECT).await?, session.statement(&sql).await?);
    let snapshot = session.snapshot().await?;
    let rows = snapshot.query(&of_events, &values).await.map_err(Failure::from)?;
    let events: Result<Vec<_>, _> = rows.iter().rev().map(event).collect();
    Ok(EventPage { events: events?, forgotten: marks(&snapshot, &of_marks).await?.forgotten })
}

/// What is left of the past.
pub(super) enum Past {
    /// Everything that changed something in the revisions up to `upto`.
    Commits { commits: Vec<Committed>, upto: Revision },
    /// The history does not reach back that far.
    Compacted { oldest: Revision },
}

/// Some whole commits after `after`, from the first on.
pub(super) async fn history(session: &mut Session, after: Revision) -> Answered<Past> {
    let of_marks = session.statement(Meta::SELECT).await?;
    let sql = format!("SELECT {VERSION} FROM version WHERE revision > $1 ORDER BY revision, kind, name");
    let of_versions = session.statement(&sql).await?;
    let sql = format!("SELECT {EVENT} FROM event WHERE revision > $1 ORDER BY revision, ordinal");
    let of_events = session.statement(&sql).await?;
    let snapshot = session.snapshot().await?;
    let marks = marks(&snapshot, &of_marks).await?;
    if after < marks.compacted {
        return Ok(Past::Compacted { oldest: marks.compacted });
    }
    let after = int(after.0);
    let mut versions = Cursor::open(&snapshot, &of_versions, &[&after]).await?;
    let mut events = Cursor::open(&snapshot, &of_events, &[&after]).await?;
    let mut next_version = versions.next().await?.as_ref().map(version).transpose()?;
    let mut next_event = events.next().await?.as_ref().map(event).transpose()?;
    let (mut commits, mut bytes) = (Vec::new(), 0);
    // Merges two sorted cursors, one commit at a time.
    while let Some((revision, at)) = first(&next_version, &next_event) {
        let mut commit = Committed { revision, at, objects: Vec::new(), events: Vec::new() };
        while let Some((change, ..)) = next_version.take_if(|(_, written, _)| *written == revision) {
            commit.objects.push(change);
            next_version = versions.next().await?.as_ref().map(version).transpose()?;
        }
        while let Some(found) = next_event.take_if(|event| event.revision == revision) {
            commit.events.push(found);
            next_event = events.next().await?.as_ref().map(event).transpose()?;
        }
        bytes += commit.weight();
        commits.push(commit);
        if bytes >= HISTORY_BYTES {
            return Ok(Past::Commits { commits, upto: revision });
        }
    }
    Ok(Past::Commits { commits, upto: marks.revision })
}

/// Everything there is, brought to the rules of [`crate::check`].
pub(super) async fn check(session: &mut Session) -> Answered<CheckReport> {
    let mut statements = Vec::new();
    for sql in [
        Meta::SELECT.to_owned(),
        format!("SELECT {VERSION}, until FROM version ORDER BY kind, name, revision"),
        format!("SELECT {EVENT} FROM event ORDER BY revision, ordinal"),
        "SELECT kind, name, field, key FROM unique_key".to_owned(),
        "SELECT id, revision FROM request".to_owned(),
        "SELECT shard, epoch FROM lease".to_owned(),
    ] {
        statements.push(session.statement(&sql).await?);
    }
    let snapshot = session.snapshot().await?;
    // Reading everything takes its time, and no index is to be believed.
    snapshot
        .batch_execute(
            "SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off;
             SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off",
        )
        .await
        .map_err(Failure::from)?;
    let marks = marks(&snapshot, &statements[0]).await?;
    let mut checker = Checker::new(marks.revision, marks.compacted, marks.forgotten);
    let mut cursor = Cursor::open(&snapshot, &statements[1], &[]).await?;
    while let Some(row) = cursor.next().await? {
        let (version, checksums) = version_to_check(&row)?;
        checker.checksum(&version.key, version.revision, checksums);
        checker.version(version);
    }
    let mut cursor = Cursor::open(&snapshot, &statements[2], &[]).await?;
    while let Some(row) = cursor.next().await? {
        checker.event(event_to_check(&row)?);
    }
    let mut cursor = Cursor::open(&snapshot, &statements[3], &[]).await?;
    while let Some(row) = cursor.next().await? {
        let entry = UniqueKey { index: row.try_get(2)?, key: row.try_get(3)? };
        checker.unique(&entry, &key(&row)?);
    }
    let mut cursor = Cursor::open(&snapshot, &statements[4], &[]).await?;
    while let Some(row) = cursor.next().await? {
        checker.request(row.try_get(0)?, Revision(number(&row, 1)?));
    }
    let mut cursor = Cursor::open(&snapshot, &statements[5], &[]).await?;
    while let Some(row) = cursor.next().await? {
        let shard: i32 = row.try_get(0)?;
        let shard = u16::try_from(shard).map_err(|_| Failure::Corrupt(format!("a lease is for shard {shard}")))?;
        checker.lease(Shard(shard), Epoch(number(&row, 1)?));
    }
    Ok(checker.finish())
}

fn version_to_check(row: &Row) -> Answered<(VersionRow, (u64, u32))> {
    let (key, revision, created) = (key(row)?, Revision(number(row, 2)?), Revision(number(row, 3)?));
    let (at, value) = (StoreTime(number(row, 4)?), row.try_get::<_, Option<&[u8]>>(6)?);
    let checksums = (number(row, 5)?, checksum::object(&key, revision, created, at, value));
    let until: Option<i64> = row.try_get(7)?;
    let until = until.map(|until| Revision(until.cast_unsigned()));
    Ok((VersionRow { deleted: value.is_none(), key, revision, created, at, until }, checksums))
}

fn event_to_check(row: &Row) -> Answered<EventRow> {
    let (subject, revision, at) = (key(row)?, Revision(number(row, 2)?), StoreTime(number(row, 4)?));
    let ordinal = row.try_get::<_, i32>(3)?.cast_unsigned();
    let computed = checksum::event(&subject, revision, ordinal, at, row.try_get(6)?);
    Ok(EventRow { subject, revision, ordinal, at, checksums: (number(row, 5)?, computed) })
}

type Version = (ObjectChange, Revision, StoreTime);

fn first(version: &Option<Version>, event: &Option<Event>) -> Option<(Revision, StoreTime)> {
    let version = version.as_ref().map(|(_, revision, at)| (*revision, *at));
    let event = event.as_ref().map(|event| (event.revision, event.at));
    version.into_iter().chain(event).min()
}

fn key(row: &Row) -> Result<Key, Failure> {
    Ok(Key { kind: Kind::from(row.try_get::<_, String>(0)?), name: row.try_get(1)? })
}

/// Reads and verifies a row selected with [`VERSION`].
fn version(row: &Row) -> Answered<Version> {
    let (key, revision, created) = (key(row)?, Revision(number(row, 2)?), Revision(number(row, 3)?));
    let (written_at, value) = (StoreTime(number(row, 4)?), row.try_get::<_, Option<Vec<u8>>>(6)?.map(Bytes::from));
    let computed = checksum::object(&key, revision, created, written_at, value.as_deref());
    verify(row, computed, || format!("the record of {key} at revision {revision}"))?;
    let change = match value {
        Some(value) => ObjectChange::Put(Stored { key, revision, created, written_at, value }),
        None => ObjectChange::Deleted(key),
    };
    Ok((change, revision, written_at))
}

/// Reads and verifies a row selected with [`EVENT`].
fn event(row: &Row) -> Answered<Event> {
    let ordinal: i32 = row.try_get(3)?;
    let event = Event {
        revision: Revision(number(row, 2)?),
        ordinal: u32::try_from(ordinal).map_err(|_| Failure::Corrupt(format!("an event has ordinal {ordinal}")))?,
        at: StoreTime(number(row, 4)?),
        subject: key(row)?,
        value: Bytes::from(row.try_get::<_, Vec<u8>>(6)?),
    };
    let computed = checksum::event(&event.subject, event.revision, event.ordinal, event.at, &event.value);
    verify(row, computed, || {
        format!("event {} about {} at revision {}", event.ordinal, event.subject, event.revision)
    })?;
    Ok(event)
}

fn verify(row: &Row, computed: u32, what: impl FnOnce() -> String) -> Answered<()> {
    let recorded = number(row, 5)?;
    if recorded == u64::from(computed) {
        return Ok(());
    }
    let what = format!(
        "{} does not match its checksum (recorded {recorded:08x}, computed {computed:08x}); restore it from a backup",
        what()
    );
    Err(ReadError::Corrupt { what }.into())
}
