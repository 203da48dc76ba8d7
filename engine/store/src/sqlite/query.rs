//! What readers ask.

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::row::{self, EVENT, VERSION};
use super::schema::Marks;
use crate::error::ReadError;
use crate::key::{Key, Selector};
use crate::memory::REQUESTS_KEPT;
use crate::record::{Committed, Event, EventPage, List, Page, Stored};
use crate::time::StoreTime;
use crate::txn::{RequestId, Revision};

/// A watcher is given about this many bytes of history at a time.
const HISTORY_BYTES: usize = 4 << 20;

/// SQL conditions with their parameters.
struct Conditions<'a> {
    sql: String,
    values: Vec<&'a dyn ToSql>,
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

    fn and(&mut self, test: &str, value: &'a dyn ToSql) {
        let place = self.place(value);
        self.sql.push_str(&format!(" AND {test} {place}"));
    }

    /// Adds a parameter and returns the text that stands for it.
    fn place(&mut self, value: &'a dyn ToSql) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }
}

/// The newest revision.
pub(super) fn revision(connection: &Connection) -> Result<Revision, ReadError> {
    Ok(Marks::read(connection)?.revision)
}

/// The revision a request was committed at, unless that is too long ago.
pub(super) fn request(connection: &Connection, id: &RequestId, now: StoreTime) -> rusqlite::Result<Option<Revision>> {
    connection
        .prepare_cached("SELECT revision FROM request WHERE id = ?1 AND at > ?2")?
        .query_row((&id.0, now.saturating_sub(REQUESTS_KEPT)), |row| row.get(0))
        .optional()
}

/// One object.
pub(super) fn get(connection: &Connection, key: &Key) -> Result<Option<Stored>, ReadError> {
    let sql = format!("SELECT {VERSION} FROM version WHERE kind = ?1 AND name = ?2 AND until IS NULL");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((key.kind.as_str(), &key.name))?;
    match rows.next()? {
        Some(row) => Ok(row::version(row)?.into_stored()),
        None => Ok(None),
    }
}

/// One page of a snapshot: objects unchanged since then come from the index of the present, the others from the index
/// of what was replaced after it.
pub(super) fn list(connection: &Connection, selector: &Selector, page: &Page) -> Result<List, ReadError> {
    let marks = Marks::read(connection)?;
    let revision = page.token.as_ref().map_or(marks.revision, |token| token.revision);
    if revision < marks.compacted {
        return Err(ReadError::Expired { at: revision, oldest: marks.compacted });
    }
    if revision > marks.revision {
        return Err(ReadError::BadToken);
    }
    let (end, kind) = (selector.prefix_end(), selector.kind());
    let mut conditions = Conditions::selecting(selector, &end, &kind);
    let after = page.token.as_ref().map(|token| (token.after.kind.as_str(), &token.after.name));
    if let Some((kind, name)) = &after {
        let (kind, name) = (conditions.place(kind), conditions.place(name));
        conditions.sql.push_str(&format!(" AND (kind, name) > ({kind}, {name})"));
    }
    conditions.and("revision <=", &revision);
    let wanted = page.take() + 1;
    let most = i64::try_from(wanted).unwrap_or(i64::MAX);
    let (at, limit) = (conditions.place(&revision), conditions.place(&most));
    let Conditions { sql: filter, values } = conditions;
    let sql = format!(
        "SELECT * FROM (SELECT {VERSION} FROM version WHERE until IS NULL AND {filter} AND value IS NOT NULL ORDER BY kind, name LIMIT {limit})
         UNION ALL
         SELECT * FROM (SELECT {VERSION} FROM version WHERE until > {at} AND {filter} AND value IS NOT NULL ORDER BY kind, name LIMIT {limit})
         ORDER BY kind, name LIMIT {limit}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values.as_slice())?;
    // Deletions are left out by the query, so every row is an object.
    let rest = std::iter::from_fn(|| match rows.next() {
        Ok(row) => row.map(|row| Ok(row::version(row)?.into_stored())),
        Err(error) => Some(Err(error.into())),
    });
    page.fill(revision, rest.filter_map(Result::transpose))
}

/// Events from `after` on, in whole commits.
pub(super) fn events(
    connection: &Connection,
    subject: &Selector,
    after: Revision,
    limit: usize,
) -> Result<EventPage, ReadError> {
    let (end, kind) = (subject.prefix_end(), subject.kind());
    let mut conditions = Conditions::selecting(subject, &end, &kind);
    conditions.and("revision >", &after);
    let Conditions { sql: filter, values } = conditions;
    let sql = format!("SELECT {EVENT} FROM event WHERE {filter} ORDER BY revision, ordinal");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values.as_slice())?;
    let mut events: Vec<Event> = Vec::new();
    while let Some(row) = rows.next()? {
        let event = row::event(row)?;
        if events.len() >= limit && events.last().is_none_or(|last| last.revision != event.revision) {
            break;
        }
        events.push(event);
    }
    Ok(EventPage { events, forgotten: Marks::read(connection)?.forgotten })
}

/// The last events.
pub(super) fn latest_events(connection: &Connection, subject: &Selector, limit: usize) -> Result<EventPage, ReadError> {
    let (end, kind) = (subject.prefix_end(), subject.kind());
    let mut conditions = Conditions::selecting(subject, &end, &kind);
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let place = conditions.place(&most);
    let Conditions { sql: filter, values } = conditions;
    let sql = format!("SELECT {EVENT} FROM event WHERE {filter} ORDER BY revision DESC, ordinal DESC LIMIT {place}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values.as_slice())?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(row::event(row)?);
    }
    events.reverse();
    Ok(EventPage { events, forgotten: Marks::read(connection)?.forgotten })
}

/// What is left of the past.
pub(super) enum Past {
    /// Everything that changed something in the revisions up to `upto`.
    Commits { commits: Vec<Committed>, upto: Revision },
    /// The history does not reach back that far.
    Compacted { oldest: Revision },
}

/// Some whole commits after `after`, from the first on.
pub(super) fn history(connection: &Connection, after: Revision) -> Result<Past, ReadError> {
    let marks = Marks::read(connection)?;
    if after < marks.compacted {
        return Ok(Past::Compacted { oldest: marks.compacted });
    }
    let mut versions = connection
        .prepare_cached(&format!("SELECT {VERSION} FROM version WHERE revision > ?1 ORDER BY revision, kind, name"))?;
    let mut events = connection
        .prepare_cached(&format!("SELECT {EVENT} FROM event WHERE revision > ?1 ORDER BY revision, ordinal"))?;
    let (mut versions, mut events) = (versions.query([after])?, events.query([after])?);
    let mut version = versions.next()?.map(row::version).transpose()?;
    let mut event = events.next()?.map(row::event).transpose()?;
    let (mut commits, mut bytes) = (Vec::new(), 0);
    // Merges two sorted cursors, one commit at a time.
    while let Some((revision, at)) = first(&version, &event) {
        let mut commit = Committed { revision, at, objects: Vec::new(), events: Vec::new() };
        while let Some(found) = version.take_if(|version| version.revision == revision) {
            commit.objects.push(found.into_change());
            version = versions.next()?.map(row::version).transpose()?;
        }
        while let Some(found) = event.take_if(|event| event.revision == revision) {
            commit.events.push(found);
            event = events.next()?.map(row::event).transpose()?;
        }
        bytes += commit.weight();
        commits.push(commit);
        if bytes >= HISTORY_BYTES {
            return Ok(Past::Commits { commits, upto: revision });
        }
    }
    Ok(Past::Commits { commits, upto: marks.revision })
}

fn first(version: &Option<row::Version>, event: &Option<Event>) -> Option<(Revision, StoreTime)> {
    let version = version.as_ref().map(|version| (version.revision, version.at));
    let event = event.as_ref().map(|event| (event.revision, event.at));
    version.into_iter().chain(event).min()
}
