//! Copies of the store.
//!
//! A copy is written under a temporary name and linked to its own only when it is complete and on the disk, so that a
//! file with a backup's name is a backup.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::row::Version;
use super::schema::Marks;
use super::{apply, check, row, schema};
use crate::check::CheckReport;
use crate::error::{BackupError, OpenError};
use crate::memory::State;
use crate::txn::Revision;

/// What a store holds, outside of any file.
pub(crate) type Snapshot = State;

/// Copies what `from` sees.
pub(super) fn copy(from: &Connection, to: &Path) -> Result<Revision, BackupError> {
    write(to, |target| {
        all_pages(from, target)?;
        Marks::read(target).map(|marks| marks.revision)
    })
}

/// Copies what `from` sees, and checks the copy before it gets its name.
pub(super) fn copy_checked(from: &Connection, to: &Path) -> Result<CheckReport, BackupError> {
    let sound = |report: &CheckReport| match report.problems.first() {
        None => Ok(()),
        Some(first) => Err(BackupError::Damaged { count: report.count(), first: first.what.clone() }),
    };
    let copied = |target: &mut Connection| {
        all_pages(from, target)?;
        check::of(target)
    };
    write_if(to, copied, sound)
}

fn all_pages(from: &Connection, target: &mut Connection) -> rusqlite::Result<()> {
    let step = Backup::new(from, target)?.step(-1)?;
    if step == StepResult::Done {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
        Some(format!("the copy stopped early ({step:?})")),
    ))
}

/// Writes a store with the content of `snapshot`.
pub(crate) fn write_snapshot(to: &Path, snapshot: &Snapshot) -> Result<(), BackupError> {
    write(to, |target| {
        schema::create(target)?;
        let transaction = target.transaction()?;
        for (key, versions) in &snapshot.versions {
            for version in versions {
                let row = Version {
                    key: key.clone(),
                    revision: version.revision,
                    created: version.created,
                    at: version.at,
                    value: version.value.clone(),
                };
                row::insert_version(&transaction, &row, version.until)?;
            }
        }
        snapshot.events.iter().try_for_each(|event| row::insert_event(&transaction, event))?;
        for (entry, holder) in &snapshot.unique {
            apply::insert_unique(&transaction, entry, holder)?;
        }
        for (id, (revision, at)) in &snapshot.requests {
            apply::insert_request(&transaction, id, *revision, *at)?;
        }
        for (shard, lease) in &snapshot.leases {
            apply::write_lease(&transaction, *shard, lease)?;
        }
        Marks { revision: snapshot.revision, compacted: snapshot.compacted, forgotten: snapshot.forgotten }
            .write(&transaction)?;
        transaction.commit()
    })
}

fn write<T>(to: &Path, fill: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, BackupError> {
    write_if(to, fill, |_| Ok(()))
}

/// Writes a file that gets its name only if `accept` says so.
fn write_if<T>(
    to: &Path,
    fill: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    accept: impl FnOnce(&T) -> Result<(), BackupError>,
) -> Result<T, BackupError> {
    let partial = Partial::create(to)?;
    let copy = |source| BackupError::Copy { path: to.to_owned(), source };
    let mut target = Connection::open(&partial.0).map_err(copy)?;
    let result = fill(&mut target).map_err(copy)?;
    target.close().map_err(|(_, source)| copy(source))?;
    accept(&result)?;
    partial.publish(to)?;
    Ok(result)
}

/// The unfinished copy; removed when dropped.
struct Partial(PathBuf);

impl Partial {
    fn create(to: &Path) -> Result<Self, BackupError> {
        if to.exists() {
            return Err(BackupError::Exists { path: to.to_owned() });
        }
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = Self(PathBuf::from(name));
        // What an earlier process with this id left behind.
        partial.remove();
        schema::create_private(&partial.0).map_err(|error| match error {
            OpenError::Io { source, .. } => BackupError::Io { path: to.to_owned(), source },
            other => BackupError::Io { path: to.to_owned(), source: std::io::Error::other(other) },
        })?;
        Ok(partial)
    }

    fn publish(self, to: &Path) -> Result<(), BackupError> {
        let io = |source| BackupError::Io { path: to.to_owned(), source };
        File::open(&self.0).and_then(|file| file.sync_all()).map_err(io)?;
        // Unlike a rename, a link does not replace what is there.
        std::fs::hard_link(&self.0, to).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => BackupError::Exists { path: to.to_owned() },
            _ => io(source),
        })?;
        schema::sync_directory(to).map_err(io)
    }

    fn remove(&self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let mut name = self.0.clone().into_os_string();
            name.push(suffix);
            // Most of them are not there.
            let _ = std::fs::remove_file(PathBuf::from(name));
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.remove();
    }
}
