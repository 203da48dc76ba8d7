//! What PostgreSQL's errors mean to a caller.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::error::{CommitError, ReadError};

/// A failure of the database or of the way to it.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The connection is gone, or the server is going: nothing is known about what was under way.
    Lost(Cause),
    /// Stored data is damaged.
    Corrupt(String),
    /// No space is left on the server.
    Full,
    /// The server refused, for a reason that has nothing to do with the data.
    Refused(Cause),
}

/// Shared by all callers that one failure hit.
pub(super) type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// A failure in words of our own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Because(pub(super) String);

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // Without an answer of the server it is the connection, or a value that does not have the type it must have.
            return match std::error::Error::source(&error) {
                Some(source) if !error.is_closed() && !source.is::<std::io::Error>() => {
                    Self::Corrupt(format!("{error}: {source}"))
                }
                _ => Self::Lost(Arc::new(error)),
            };
        };
        let code = db.code().clone();
        match code.code() {
            "53100" => Self::Full,
            // Damage that the server itself has found, by its page checksums or otherwise.
            "XX001" | "XX002" => Self::Corrupt(db.message().to_owned()),
            _ if ends_the_session(&code) => Self::Lost(Arc::new(error)),
            _ => Self::Refused(Arc::new(error)),
        }
    }
}

/// Codes after which the server closes the connection, or is not one that can write any more (a failover).
fn ends_the_session(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("08") || code.starts_with("57P") || code == "25006" || code == "25P03"
}

impl Failure {
    /// A failure of the connection, in our words.
    pub(super) fn lost(what: impl Into<String>) -> Self {
        Self::Lost(Arc::new(Because(what.into())))
    }

    /// The error for a transaction that was certainly not applied.
    pub(super) fn not_applied(self) -> CommitError {
        match self {
            Self::Corrupt(what) => CommitError::Corrupt { what },
            Self::Full => CommitError::Full,
            Self::Lost(source) => {
                CommitError::Unavailable { reason: "the database cannot be reached".to_owned(), source: Some(source) }
            }
            Self::Refused(source) => {
                CommitError::Unavailable { reason: "the database refused".to_owned(), source: Some(source) }
            }
        }
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Corrupt(what) => Self::Corrupt { what },
            Failure::Full => {
                Self::Unavailable { reason: "no space is left on the database server".into(), source: None }
            }
            Failure::Lost(source) => {
                Self::Unavailable { reason: "the database cannot be reached".to_owned(), source: Some(source) }
            }
            Failure::Refused(source) => {
                Self::Unavailable { reason: "the database refused".to_owned(), source: Some(source) }
            }
        }
    }
}

/// Why a question was not answered.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The database failed.
    Failed(Failure),
    /// It answered, and the answer is an error.
    Answer(ReadError),
}

impl From<tokio_postgres::Error> for Unanswered {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ReadError> for Unanswered {
    fn from(error: ReadError) -> Self {
        Self::Answer(error)
    }
}

impl From<Unanswered> for ReadError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Failed(failure) => failure.into(),
            Unanswered::Answer(error) => error,
        }
    }
}
