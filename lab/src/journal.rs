//! The request journal: what a client asked this BMC to change, in order, and what the machine did.
//!
//! Tests read it to prove that no action was repeated: "one `ComputerSystem.Reset` with `On` between these two boots". Reads are not
//! recorded, unless their password was refused. Each entry has a sequence number without gaps, a time, and, when a fault shaped the answer, the fault's id. Passwords
//! in bodies are replaced before anything is kept. Entries are kept in memory and, when the lab has a state directory, appended to
//! `bmc-<host>.jsonl`, one JSON object per line.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{LabError, clock};

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position in this BMC's journal, from 1, without gaps.
    pub seq: u64,
    /// When it was written.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: Record,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A client sent POST, PATCH, PUT or DELETE, or a read with a refused password.
    Request {
        /// HTTP method.
        method: String,
        /// Path as asked for.
        path: String,
        /// Body, passwords replaced; null when it was not JSON.
        body: Value,
        /// Status answered; null when the connection was dropped or left hanging.
        status: Option<u16>,
        /// The fault that shaped the answer.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        fault: Option<u64>,
    },
    /// The machine began a boot.
    Boot {
        /// Number of this boot since the host was made, from 1.
        boot: u64,
        /// Boot devices in the order the firmware tries them.
        order: Vec<crate::config::BootDevice>,
        /// Why it booted.
        cause: String,
    },
    /// The machine lost power.
    PowerOff {
        /// Why it went off.
        cause: String,
    },
}

/// The journal of one BMC.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    entries: Vec<Entry>,
    file: Option<File>,
}

impl Journal {
    /// A journal in memory only.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { inner: Mutex::new(Inner { next: 1, entries: Vec::new(), file: None }) }
    }

    /// A journal that also appends to `path`; numbering goes on where the file ends.
    ///
    /// # Errors
    /// When the file cannot be read or opened for appending.
    pub fn at(path: &Path) -> Result<Self, LabError> {
        let file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .map_err(LabError::file("open the BMC journal", path))?;
        let mut next = 1;
        for line in BufReader::new(&file).lines() {
            let line = line.map_err(LabError::file("read the BMC journal", path))?;
            if let Ok(entry) = serde_json::from_str::<Entry>(&line) {
                next = entry.seq + 1;
            }
        }
        Ok(Self { inner: Mutex::new(Inner { next, entries: Vec::new(), file: Some(file) }) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The journal stays consistent after a panic elsewhere: each entry is pushed whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, what: Record) {
        let mut inner = self.lock();
        let entry = Entry { seq: inner.next, time: clock::now(), what };
        inner.next += 1;
        if let Some(file) = &mut inner.file {
            let written = serde_json::to_string(&entry)
                .map_err(std::io::Error::other)
                .and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
            if let Err(error) = written {
                tracing::error!(%error, "cannot write the BMC journal");
            }
        }
        inner.entries.push(entry);
    }

    /// Everything recorded since this process opened the journal.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }
}

/// Replaces every value whose key speaks of a password or token.
pub(crate) fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.to_ascii_lowercase();
                if key.contains("password") || key.contains("token") || key.contains("secret") {
                    *value = Value::from("***");
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn numbering_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bmc-a.jsonl");
        let off = || Record::PowerOff { cause: "test".to_owned() };
        Journal::at(&path).unwrap().record(off());
        let journal = Journal::at(&path).unwrap();
        journal.record(off());
        assert_eq!(journal.entries()[0].seq, 2);
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Entry> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].what, off());
    }

    #[test]
    fn passwords_are_never_kept() {
        let mut body = serde_json::json!({"UserName": "u", "Password": "p", "Deep": [{"NewPassword": "q"}]});
        redact(&mut body);
        assert_eq!(body, serde_json::json!({"UserName": "u", "Password": "***", "Deep": [{"NewPassword": "***"}]}));
    }
}
