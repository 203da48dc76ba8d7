//! What a batch reads and writes: each a few statements over arrays, however large the batch is.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::{try_join, try_join5};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::failure::Failure;
use super::plan::{Needs, Plan, known};
use super::schema::number;
use super::session::Session;
use crate::checksum;
use crate::key::{Key, Kind};
use crate::lease::{Epoch, Shard};
use crate::memory::{LeaseRow, REQUESTS_KEPT, State, Version};
use crate::time::StoreTime;
use crate::txn::{RequestId, Revision, UniqueKey};

/// A count as PostgreSQL keeps it. Ours are counts and times and never reach the sign.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const OBJECTS: &str = "SELECT v.kind, v.name, v.revision, v.created, v.at, v.value IS NULL
    FROM unnest($1::text[], $2::text[]) AS k (kind, name)
    JOIN version v ON v.kind = k.kind AND v.name = k.name AND v.until IS NULL";
const HELD: &str = "SELECT u.field, u.key, u.kind, u.name FROM unnest($1::text[], $2::text[]) AS k (kind, name)
    JOIN unique_key u ON u.kind = k.kind AND u.name = k.name";
const TAKEN: &str = "SELECT u.field, u.key, u.kind, u.name FROM unnest($1::text[], $2::text[]) AS k (field, key)
    JOIN unique_key u ON u.field = k.field AND u.key = k.key";
const REQUESTS: &str = "SELECT id, revision, at FROM request WHERE id = ANY ($1::text[]) AND at > $2";
const LEASES: &str = "SELECT shard, holder, epoch, expires FROM lease WHERE shard = ANY ($1::int[])";

/// Asks for everything that a batch depends on. Call it under the lock of the order of commits.
pub(super) async fn load(session: &mut Session, needs: &Needs<'_>, now: StoreTime) -> Result<State, Failure> {
    let kinds: Vec<&str> = needs.keys.iter().map(|key| key.kind.as_str()).collect();
    let names: Vec<&str> = needs.keys.iter().map(|key| key.name.as_str()).collect();
    let written_kinds: Vec<&str> = needs.written.iter().map(|key| key.kind.as_str()).collect();
    let written_names: Vec<&str> = needs.written.iter().map(|key| key.name.as_str()).collect();
    let fields: Vec<&str> = needs.unique.iter().map(|entry| entry.index.as_str()).collect();
    let keys: Vec<&str> = needs.unique.iter().map(|entry| entry.key.as_str()).collect();
    let requests: Vec<&str> = needs.requests.iter().copied().collect();
    let shards: Vec<i32> = needs.shards.iter().map(|shard| i32::from(shard.0)).collect();
    let kept = int(now.saturating_sub(REQUESTS_KEPT).0);

    let mut statements = Vec::with_capacity(5);
    for sql in [OBJECTS, HELD, TAKEN, REQUESTS, LEASES] {
        statements.push(session.statement(sql).await?);
    }
    let ask = async |place: usize, wanted: bool, parameters: &[&(dyn ToSql + Sync)]| -> Result<Vec<Row>, Failure> {
        if !wanted {
            return Ok(Vec::new());
        }
        Ok(session.client().query(&statements[place], parameters).await?)
    };
    // One round trip for all of them.
    let (objects, held, taken, requests, leases) = try_join5(
        ask(0, !kinds.is_empty(), &[&kinds, &names]),
        ask(1, !written_kinds.is_empty(), &[&written_kinds, &written_names]),
        ask(2, !fields.is_empty(), &[&fields, &keys]),
        ask(3, !requests.is_empty(), &[&requests, &kept]),
        ask(4, !shards.is_empty(), &[&shards]),
    )
    .await?;
    let unique: Result<BTreeMap<_, _>, _> = held.iter().chain(&taken).map(unique_row).collect();
    Ok(known(
        objects.iter().map(object_row).collect::<Result<_, _>>()?,
        unique?,
        requests.iter().map(request_row).collect::<Result<_, _>>()?,
        leases.iter().map(lease_row).collect::<Result<_, _>>()?,
    ))
}

fn key(row: &Row, column: usize) -> Result<Key, Failure> {
    Ok(Key { kind: Kind::from(row.try_get::<_, String>(column)?), name: row.try_get(column + 1)? })
}

/// Whether there is a value is all that a batch asks of it.
fn object_row(row: &Row) -> Result<(Key, Version), Failure> {
    let deleted: bool = row.try_get(5)?;
    let version = Version {
        revision: Revision(number(row, 2)?),
        created: Revision(number(row, 3)?),
        at: StoreTime(number(row, 4)?),
        until: None,
        value: (!deleted).then(Bytes::new),
    };
    Ok((key(row, 0)?, version))
}

fn unique_row(row: &Row) -> Result<(UniqueKey, Key), Failure> {
    Ok((UniqueKey { index: row.try_get(0)?, key: row.try_get(1)? }, key(row, 2)?))
}

fn request_row(row: &Row) -> Result<(RequestId, Revision, StoreTime), Failure> {
    Ok((RequestId(row.try_get(0)?), Revision(number(row, 1)?), StoreTime(number(row, 2)?)))
}

fn lease_row(row: &Row) -> Result<(Shard, LeaseRow), Failure> {
    let shard: i32 = row.try_get(0)?;
    let shard = u16::try_from(shard).map_err(|_| Failure::Corrupt(format!("a lease is for shard {shard}")))?;
    let (epoch, expires) = (Epoch(number(row, 2)?), StoreTime(number(row, 3)?));
    Ok((Shard(shard), LeaseRow { holder: row.try_get(1)?, epoch, expires }))
}

/// Parameters that belong to one statement.
type Parameters = Vec<Box<dyn ToSql + Sync + Send>>;

/// The statements that make a plan true, in their order.
pub(super) struct Writes(Vec<(Statement, Parameters)>);

impl Writes {
    /// Prepares what has to be written for `plan`, the marker of this batch included.
    pub(super) async fn prepare(
        session: &mut Session,
        plan: &Plan,
        engine: &str,
        batch: u64,
        channel: &str,
    ) -> Result<Self, Failure> {
        let mut writes = Self(Vec::new());
        writes.objects(session, plan).await?;
        writes.events(session, plan).await?;
        writes.unique(session, plan).await?;
        writes.requests(session, plan).await?;
        writes.leases(session, plan).await?;
        let (revision, compacted, forgotten) = plan.marks();
        let now = int(plan.now().0);
        let sql = "UPDATE meta SET revision = $1, compacted = $2, forgotten = $3, at = $4 WHERE one = 1";
        let marks = [int(revision.0), int(compacted.0), int(forgotten.0), now];
        writes.add(session, sql, marks.map(boxed).into()).await?;
        let sql = "INSERT INTO writer VALUES ($1, $2, $3)
                   ON CONFLICT (engine) DO UPDATE SET batch = excluded.batch, at = excluded.at";
        writes.add(session, sql, vec![boxed(engine.to_owned()), boxed(int(batch)), boxed(now)]).await?;
        if !plan.commits.is_empty() {
            // A notification may be lost with the connection that it goes to; it only makes watchers quicker.
            let sql = "SELECT pg_notify($1, $2)";
            writes.add(session, sql, vec![boxed(channel.to_owned()), boxed(engine.to_owned())]).await?;
        }
        Ok(writes)
    }

    async fn add(&mut self, session: &mut Session, sql: &str, parameters: Parameters) -> Result<(), Failure> {
        self.0.push((session.statement(sql).await?, parameters));
        Ok(())
    }

    async fn objects(&mut self, session: &mut Session, plan: &Plan) -> Result<(), Failure> {
        let (mut kinds, mut names, mut untils) = (Vec::new(), Vec::new(), Vec::new());
        for (key, until) in plan.replaced() {
            kinds.push(key.kind.as_str().to_owned());
            names.push(key.name.clone());
            untils.push(int(until.0));
        }
        if !kinds.is_empty() {
            let sql = "UPDATE version v SET until = k.until
                FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (kind, name, until)
                WHERE v.kind = k.kind AND v.name = k.name AND v.until IS NULL";
            self.add(session, sql, vec![boxed(kinds), boxed(names), boxed(untils)]).await?;
        }
        let (mut kinds, mut names, mut revisions, mut created) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut ats, mut untils, mut crcs, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, version) in plan.versions() {
            let Version { revision, created: first, at, until, value } = version;
            kinds.push(key.kind.as_str().to_owned());
            names.push(key.name.clone());
            revisions.push(int(revision.0));
            created.push(int(first.0));
            ats.push(int(at.0));
            untils.push(until.map(|until| int(until.0)));
            crcs.push(i64::from(checksum::object(key, *revision, *first, *at, value.as_deref())));
            values.push(Shared(value.clone()));
        }
        if kinds.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO version (kind, name, revision, created, at, until, crc, value)
            SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                                 $7::bigint[], $8::bytea[])";
        let parameters = vec![
            boxed(kinds),
            boxed(names),
            boxed(revisions),
            boxed(created),
            boxed(ats),
            boxed(untils),
            boxed(crcs),
            boxed(values),
        ];
        self.add(session, sql, parameters).await
    }

    async fn events(&mut self, session: &mut Session, plan: &Plan) -> Result<(), Failure> {
        let (mut revisions, mut ordinals, mut ats) = (Vec::new(), Vec::new(), Vec::new());
        let (mut kinds, mut names, mut crcs, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for event in plan.commits.iter().flat_map(|commit| &commit.events) {
            revisions.push(int(event.revision.0));
            ordinals.push(i32::try_from(event.ordinal).unwrap_or(i32::MAX));
            ats.push(int(event.at.0));
            kinds.push(event.subject.kind.as_str().to_owned());
            names.push(event.subject.name.clone());
            let crc = checksum::event(&event.subject, event.revision, event.ordinal, event.at, &event.value);
            crcs.push(i64::from(crc));
            values.push(Shared(Some(event.value.clone())));
        }
        if revisions.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO event (revision, ordinal, at, kind, name, crc, value)
            SELECT * FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
                                 $7::bytea[])";
        let parameters =
            vec![boxed(revisions), boxed(ordinals), boxed(ats), boxed(kinds), boxed(names), boxed(crcs), boxed(values)];
        self.add(session, sql, parameters).await
    }

    async fn unique(&mut self, session: &mut Session, plan: &Plan) -> Result<(), Failure> {
        let (fields, keys): (Vec<_>, Vec<_>) =
            plan.released().map(|entry| (entry.index.clone(), entry.key.clone())).unzip();
        if !fields.is_empty() {
            let sql = "DELETE FROM unique_key u USING unnest($1::text[], $2::text[]) AS k (field, key)
                WHERE u.field = k.field AND u.key = k.key";
            self.add(session, sql, vec![boxed(fields), boxed(keys)]).await?;
        }
        let (mut fields, mut keys, mut kinds, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (entry, holder) in plan.taken() {
            fields.push(entry.index.clone());
            keys.push(entry.key.clone());
            kinds.push(holder.kind.as_str().to_owned());
            names.push(holder.name.clone());
        }
        if fields.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO unique_key (field, key, kind, name)
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])";
        self.add(session, sql, vec![boxed(fields), boxed(keys), boxed(kinds), boxed(names)]).await
    }

    async fn requests(&mut self, session: &mut Session, plan: &Plan) -> Result<(), Failure> {
        let (ids, revisions): (Vec<_>, Vec<_>) =
            plan.requests().map(|(id, revision)| (id.0.clone(), int(revision.0))).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let expired = int(plan.now().saturating_sub(REQUESTS_KEPT).0);
        self.add(session, "DELETE FROM request WHERE at <= $1", vec![boxed(expired)]).await?;
        let sql = "INSERT INTO request (id, revision, at) SELECT id, revision, $3
            FROM unnest($1::text[], $2::bigint[]) AS r (id, revision)";
        self.add(session, sql, vec![boxed(ids), boxed(revisions), boxed(int(plan.now().0))]).await
    }

    async fn leases(&mut self, session: &mut Session, plan: &Plan) -> Result<(), Failure> {
        let (mut shards, mut holders, mut epochs, mut expires) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (shard, row) in plan.leases() {
            shards.push(i32::from(shard.0));
            holders.push(row.holder.clone());
            epochs.push(int(row.epoch.0));
            expires.push(int(row.expires.0));
        }
        if shards.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO lease (shard, holder, epoch, expires)
            SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[])
            ON CONFLICT (shard) DO UPDATE
            SET holder = excluded.holder, epoch = excluded.epoch, expires = excluded.expires";
        self.add(session, sql, vec![boxed(shards), boxed(holders), boxed(epochs), boxed(expires)]).await
    }

    /// Writes and commits in one round trip. An error of a statement means that nothing was committed: the server turns
    /// the commit of a failed transaction into its end. Everything else leaves open what has become of it.
    pub(super) async fn commit(self, session: &Session) -> Result<(), Committing> {
        let client = session.client();
        let writes = self.0.iter().map(async |(statement, parameters)| {
            let parameters = parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync));
            client.execute_raw(statement, parameters).await
        });
        let write = async {
            let results = futures::future::join_all(writes).await;
            Ok::<_, tokio_postgres::Error>(results.into_iter().find_map(Result::err))
        };
        let commit = async { Ok::<_, tokio_postgres::Error>(client.batch_execute("COMMIT").await) };
        let (refused, committed) = try_join(write, commit).await.map_err(|error| Committing::Unknown(error.into()))?;
        match (refused.map(Failure::from), committed) {
            (None, Ok(())) => Ok(()),
            (Some(lost @ Failure::Lost(_)), _) => Err(Committing::Unknown(lost)),
            (Some(refused), Ok(())) => Err(Committing::Refused(refused)),
            (Some(refused), Err(_)) => Err(Committing::Unknown(refused)),
            (None, Err(error)) => Err(Committing::Unknown(error.into())),
        }
    }
}

/// How a commit failed.
pub(super) enum Committing {
    /// Nothing was written.
    Refused(Failure),
    /// It may have been committed.
    Unknown(Failure),
}

fn boxed(parameter: impl ToSql + Sync + Send + 'static) -> Box<dyn ToSql + Sync + Send> {
    Box::new(parameter)
}

/// A value that is shared with the feed, not copied for the driver.
#[derive(Debug)]
struct Shared(Option<Bytes>);

impl ToSql for Shared {
    fn to_sql(
        &self,
        ty: &tokio_postgres::types::Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.as_deref().to_sql(ty, out)
    }

    fn accepts(ty: &tokio_postgres::types::Type) -> bool {
        <&[u8] as ToSql>::accepts(ty)
    }

    tokio_postgres::types::to_sql_checked!();
}
