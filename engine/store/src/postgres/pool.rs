//! The connections that read.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::address::PostgresUrl;
use super::failure::Failure;
use super::session::Session;

/// So many, that a long list does not hold up a get.
const READERS: usize = 4;

/// Connections that are opened when they are needed and used by one question at a time.
pub(super) struct Pool {
    url: PostgresUrl,
    schema: String,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

impl Pool {
    pub(super) fn new(url: PostgresUrl, schema: String) -> Self {
        Self { url, schema, idle: Mutex::default(), permits: Semaphore::new(READERS) }
    }

    /// A connection, waiting for one if all are in use.
    pub(super) async fn take(&self) -> Result<Borrowed<'_>, Failure> {
        let permit = self.permits.acquire().await.map_err(|_| Failure::lost("the store is closed"))?;
        let idle = self.lock().pop();
        let session = match idle.filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => Session::open(&self.url, &self.schema, None).await?,
        };
        Ok(Borrowed { pool: self, session: Some(session), _permit: permit })
    }

    /// Forgets idle connections: the server has closed one, so the others are most likely gone too.
    pub(super) fn forget_idle(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        // A list of connections is sound whatever happened to who looked at it.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that goes back when it is dropped.
pub(super) struct Borrowed<'a> {
    pool: &'a Pool,
    session: Option<Session>,
    _permit: SemaphorePermit<'a>,
}

impl Borrowed<'_> {
    pub(super) fn session(&mut self) -> Result<&mut Session, Failure> {
        self.session.as_mut().ok_or_else(|| Failure::lost("there is no connection to the database"))
    }

    /// Does not give it back.
    pub(super) fn discard(mut self) {
        self.session = None;
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && !session.is_closed()
        {
            self.pool.lock().push(session);
        }
    }
}

/// Asks on a connection of a pool; once more on a new one if the first turns out to be gone.
macro_rules! ask {
    ($pool:expr, $session:ident => $question:expr) => {{
        let pool = $pool;
        let mut again = true;
        loop {
            let answer = match pool.take().await {
                Ok(mut borrowed) => {
                    let answer = match borrowed.session() {
                        Ok($session) => $question.await,
                        Err(failure) => Err(failure.into()),
                    };
                    if let Err($crate::postgres::failure::Unanswered::Failed(_)) = &answer {
                        borrowed.discard();
                    }
                    answer
                }
                Err(failure) => Err(failure.into()),
            };
            match answer {
                Err($crate::postgres::failure::Unanswered::Failed($crate::postgres::failure::Failure::Lost(_)))
                    if again =>
                {
                    again = false;
                    pool.forget_idle();
                }
                answer => break answer.map_err($crate::error::ReadError::from),
            }
        }
    }};
}
pub(super) use ask;
