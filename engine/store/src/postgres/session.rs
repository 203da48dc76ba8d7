//! One connection to the database, set up the way the store needs it.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, Statement, Transaction};

use super::address::PostgresUrl;
use super::failure::Failure;

/// A parameter of a statement.
pub(super) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// No statement of ours takes longer, the wait for other engines' commits included.
const STATEMENT: Duration = Duration::from_secs(30);
/// A session that holds the order of commits and says nothing is ended by the server after this time, so that an engine
/// that has lost its network holds up the others no longer.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// An open connection. Dropping it closes it.
pub(super) struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Otherwise it would first wait for the answers to what is under way, and nobody wants them.
        self.connection.abort();
    }
}

impl Session {
    /// Opens a connection. `schema` holds the tables. Notifications go to `notified`, whose receiver is told of the end of
    /// the connection by the end of the channel.
    pub(super) async fn open(
        url: &PostgresUrl,
        schema: &str,
        notified: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Self, Failure> {
        let (client, mut connection) = url.config.connect(url.tls.clone()).await?;
        let connection = tokio::spawn(async move {
            let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let (AsyncMessage::Notification(note), Some(notified)) = (message, &notified) {
                    // Nobody listens any more: the session is about to be dropped.
                    let _ = notified.send(note.payload().to_owned());
                }
            }
        });
        let session = Self { client, statements: HashMap::new(), connection };
        session.client.batch_execute(&settings(schema)).await?;
        Ok(session)
    }

    /// The client, for what needs no prepared statement.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection is known to be gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The prepared statement for a text, prepared at most once per session.
    pub(super) async fn statement(&mut self, sql: &str) -> Result<Statement, Failure> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// The rows of one question.
    pub(super) async fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query(&statement, parameters).await?)
    }

    /// A transaction in which all questions see one state of the store. Dropping it ends it.
    pub(super) async fn snapshot(&mut self) -> Result<Transaction<'_>, Failure> {
        let snapshot = self.client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
        Ok(snapshot.read_only(true).start().await?)
    }
}

/// What every session of ours is told first. Every question of the store has its index, so the planner is kept from
/// reading whole tables and from joining in bulk, which it prefers as long as its statistics are young.
fn settings(schema: &str) -> String {
    format!(
        "SET search_path = {};
         SET jit = off;
         SET enable_seqscan = off;
         SET enable_hashjoin = off;
         SET enable_mergejoin = off;
         SET client_min_messages = warning;
         SET bytea_output = hex;
         SET statement_timeout = {};
         SET idle_in_transaction_session_timeout = {};
         SELECT set_config('synchronous_commit',
             CASE WHEN current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)",
        quoted(schema),
        STATEMENT.as_millis(),
        IDLE_IN_TRANSACTION.as_millis(),
    )
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
