//! What is done to a store file from outside an engine: check, back up, restore.

use std::path::{Path, PathBuf};

use super::backup;
use super::check;
use super::lock::FileLock;
use super::schema;
use crate::check::CheckReport;
use crate::error::{BackupError, OpenError, ReadError, RestoreError};
use crate::txn::Revision;

/// What becomes of a store that a restore meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing: the restore is refused.
    Refuse,
    /// It is kept under another name.
    SetAside,
}

/// What a restore has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision of the backup.
    pub revision: Revision,
    /// Where the store that was there before is now.
    pub set_aside: Option<PathBuf>,
}

/// Checks every record, the indexes and the chain of revisions of a store file, also while an engine uses it.
///
/// # Errors
/// When there is no store that this engine knows, or it cannot be read at all. What is wrong inside is in the report.
pub fn check_file(path: &Path) -> Result<CheckReport, OpenError> {
    check::check(path)
}

/// Copies a store file to a new one, also while an engine uses it, and checks the copy. A copy that is not sound does
/// not get its name.
///
/// # Errors
/// See [`BackupError`].
pub fn backup_file(from: &Path, to: &Path) -> Result<CheckReport, BackupError> {
    let connection = schema::open_to_look(from)?;
    backup::copy_checked(&connection, to)
}

/// Puts a backup in the place of a store. The backup is checked first; the engine must not run.
///
/// # Errors
/// See [`RestoreError`]; nothing is changed then, but that a store that was to be set aside may have been.
pub fn restore_file(backup: &Path, store: &Path, existing: Existing) -> Result<Restored, RestoreError> {
    let connection = schema::open_to_look(backup)?;
    let report = check::of(&connection).map_err(|error| schema::failed(backup, error))?;
    if let Some(first) = report.problems.first() {
        let count = report.count();
        return Err(RestoreError::Damaged { backup: backup.to_owned(), count, first: first.what.clone() });
    }
    let _lock = FileLock::take(store)?;
    let set_aside = match (store.exists(), existing) {
        (false, _) => None,
        (true, Existing::Refuse) => {
            return Err(RestoreError::Exists {
                store: store.to_owned(),
                holds: describe(store),
                revision: report.revision,
            });
        }
        (true, Existing::SetAside) => Some(set_aside(store)?),
    };
    let revision = backup::copy(&connection, store)?;
    Ok(Restored { revision, set_aside })
}

/// What a store that is in the way holds, as far as it can be read.
fn describe(store: &Path) -> String {
    match check::check(store) {
        Ok(report) if report.is_sound() => {
            format!("a sound store at revision {} with {} objects", report.revision, report.objects)
        }
        Ok(report) => format!("a store at revision {} that is damaged", report.revision),
        Err(error) => format!("something that cannot be opened ({error})"),
    }
}

/// Gives a store and its log another name.
fn set_aside(store: &Path) -> Result<PathBuf, RestoreError> {
    let named = |number: u32, suffix: &str| {
        let mut name = store.as_os_str().to_owned();
        name.push(format!(".replaced-{number}{suffix}"));
        PathBuf::from(name)
    };
    let free = (1..u32::MAX).find(|number| !named(*number, "").exists()).unwrap_or(u32::MAX);
    for suffix in ["-wal", "-shm", ""] {
        let mut from = store.as_os_str().to_owned();
        from.push(suffix);
        let from = PathBuf::from(from);
        if from.exists() {
            let moved = std::fs::rename(&from, named(free, suffix));
            moved.map_err(|source| RestoreError::Open(OpenError::Io { path: from, source }))?;
        }
    }
    Ok(named(free, ""))
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt { path, what } => {
                Self::Read(ReadError::Corrupt { what: format!("{}: {what}", path.display()) })
            }
            other => Self::Open(other),
        }
    }
}
