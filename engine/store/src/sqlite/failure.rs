//! What SQLite's errors mean to a caller.

use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::error::{CommitError, ReadError};

/// A failure of the store itself, as opposed to a transaction that was refused.
#[derive(Debug)]
pub(super) enum Failure {
    Corrupt(String),
    Full,
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::SqliteFailure(cause, _) => match cause.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt(error.to_string()),
                ErrorCode::DiskFull => Self::Full,
                _ => Self::Other(error),
            },
            // The schema is strict, so a value of the wrong type or range is not one we wrote.
            E::InvalidColumnType(..)
            | E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::Utf8Error(..) => Self::Corrupt(error.to_string()),
            _ => Self::Other(error),
        }
    }
}

impl Failure {
    /// The error for a transaction that was certainly not applied.
    pub(super) fn not_applied(self) -> CommitError {
        match self {
            Self::Corrupt(what) => CommitError::Corrupt { what },
            Self::Full => CommitError::Full,
            Self::Other(error) => {
                CommitError::Unavailable { reason: "the database refused".to_owned(), source: Some(Arc::new(error)) }
            }
        }
    }

    /// The error for a transaction whose commit failed. Out of space is reported before anything is durable; any other
    /// failure may have come after the log was written.
    pub(super) fn at_commit(self) -> CommitError {
        match self {
            Self::Full => CommitError::Full,
            Self::Corrupt(what) => CommitError::Unknown { reason: format!("the commit failed: {what}"), source: None },
            Self::Other(error) => {
                CommitError::Unknown { reason: "the commit failed".to_owned(), source: Some(Arc::new(error)) }
            }
        }
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        match Failure::from(error) {
            Failure::Corrupt(what) => Self::Corrupt { what },
            Failure::Full => {
                Self::Unavailable { reason: "no space left on the store's file system".to_owned(), source: None }
            }
            Failure::Other(error) => {
                Self::Unavailable { reason: "the database refused".to_owned(), source: Some(Arc::new(error)) }
            }
        }
    }
}

/// Why an operation inside a batch stopped.
#[derive(Debug)]
pub(super) enum Stop<E> {
    /// It was refused; the rest of the batch goes on.
    Refused(E),
    /// The store failed; the batch is rolled back.
    Failed(Failure),
}

impl<E> From<rusqlite::Error> for Stop<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}
