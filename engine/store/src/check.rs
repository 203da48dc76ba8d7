//! Looks at everything in a store and says what is wrong with it.
//!
//! The rules are here, once; each store brings its rows to them, in order. What can be known from the records alone is
//! checked: the checksum of each, that each value ends where the next one of its object begins, that no record is newer
//! than the counter of revisions, that the records of one commit agree, that events of a commit are complete, that unique
//! entries belong to objects. Not checked, because nothing in a store says it twice: leases and request ids beyond their
//! form, and how far compaction has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::key::Key;
use crate::lease::{Epoch, Shard};
use crate::time::StoreTime;
use crate::txn::{Revision, UniqueKey};

/// At most so many problems are told; the others are counted.
const TOLD: usize = 100;

/// How far a problem reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One record: reading it is an error, everything else can be used.
    Record,
    /// What holds the records together: nothing that is read can be relied on.
    Store,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How far it reaches.
    pub extent: Extent,
    /// What was expected, what was seen, where.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// The newest commit.
    pub revision: Revision,
    /// Replaced values before this commit are given up.
    pub compacted: Revision,
    /// Events before this commit are given up.
    pub forgotten: Revision,
    /// Objects there are.
    pub objects: u64,
    /// Values that objects have or had, deletions included.
    pub versions: u64,
    /// Events.
    pub events: u64,
    /// What is wrong; at most a hundred, those of the whole store first.
    pub problems: Vec<Problem>,
    /// Problems that are not listed.
    pub more: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many problems there are.
    pub fn count(&self) -> u64 {
        self.problems.len() as u64 + self.more
    }
}

/// One value of an object, as it is stored.
pub(crate) struct VersionRow {
    pub(crate) key: Key,
    pub(crate) revision: Revision,
    pub(crate) created: Revision,
    pub(crate) at: StoreTime,
    pub(crate) until: Option<Revision>,
    pub(crate) deleted: bool,
}

/// One event, as it is stored.
pub(crate) struct EventRow {
    pub(crate) subject: Key,
    pub(crate) revision: Revision,
    pub(crate) ordinal: u32,
    pub(crate) at: StoreTime,
    /// Recorded and computed.
    pub(crate) checksums: (u64, u32),
}

/// Takes rows in and keeps what is wrong with them.
#[derive(Default)]
pub(crate) struct Checker {
    report: CheckReport,
    last: Option<VersionRow>,
    last_event: Option<(Revision, u32, StoreTime)>,
    live: BTreeSet<Key>,
    /// The time of each commit of which there is a value, as the first of them has it.
    times: BTreeMap<Revision, StoreTime>,
}

impl Checker {
    /// Begins with how far the store says that it is.
    pub(crate) fn new(revision: Revision, compacted: Revision, forgotten: Revision) -> Self {
        let mut checker =
            Self { report: CheckReport { revision, compacted, forgotten, ..Default::default() }, ..Self::default() };
        if compacted > revision || forgotten > compacted {
            checker.problem(format!(
                "the store is at revision {revision}, but says that it was compacted up to {compacted} and its events \
                 forgotten up to {forgotten}"
            ));
        }
        checker
    }

    /// Something is wrong with the whole.
    pub(crate) fn problem(&mut self, what: String) {
        self.tell(Problem { extent: Extent::Store, what });
    }

    fn tell(&mut self, problem: Problem) {
        if self.report.problems.len() < TOLD {
            self.report.problems.push(problem);
        } else {
            self.report.more += 1;
            // The first one that reaches further than a record must not go under.
            if problem.extent == Extent::Store
                && let Some(place) = self.report.problems.iter_mut().rev().find(|told| told.extent == Extent::Record)
            {
                *place = problem;
            }
        }
    }

    fn written(&mut self, what: &str, revision: Revision, at: StoreTime, first: StoreTime) {
        if revision > self.report.revision || revision == Revision::ZERO {
            let newest = self.report.revision;
            self.problem(format!("{what} is of revision {revision}, but the newest revision is {newest}"));
        }
        if first != at {
            self.problem(format!(
                "{what} was written at {} by revision {revision}, another record of that revision at {}",
                at.0, first.0
            ));
        }
    }

    /// The recorded and the computed checksum of a value.
    pub(crate) fn checksum(&mut self, key: &Key, revision: Revision, checksums: (u64, u32)) {
        self.compare(&format_args!("{key} at revision {revision}"), checksums);
    }

    fn compare(&mut self, what: &dyn fmt::Display, (recorded, computed): (u64, u32)) {
        if recorded != u64::from(computed) {
            let what = format!("{what} does not match its checksum (recorded {recorded:08x}, computed {computed:08x})");
            self.tell(Problem { extent: Extent::Record, what });
        }
    }

    /// The next value, ordered by key and then revision.
    pub(crate) fn version(&mut self, row: VersionRow) {
        self.report.versions += 1;
        let what = format!("{} at revision {}", row.key, row.revision);
        let first = *self.times.entry(row.revision).or_insert(row.at);
        self.written(&what, row.revision, row.at, first);
        if row.created > row.revision {
            self.problem(format!("{what} says that it was created later, by revision {}", row.created));
        }
        let before = self.last.take();
        match &before {
            Some(before) if before.key == row.key => self.follows(before, &row),
            Some(before) => self.ends(before),
            None => {}
        }
        if row.until.is_none() && !row.deleted {
            self.report.objects += 1;
            self.live.insert(row.key.clone());
        }
        self.last = Some(row);
    }

    /// One value of an object after another.
    fn follows(&mut self, before: &VersionRow, row: &VersionRow) {
        let given_up = before.until.is_some_and(|until| until <= self.report.compacted);
        if before.until != Some(row.revision) && !given_up {
            let until = before.until.map_or("as the present one".to_owned(), |until| format!("up to revision {until}"));
            self.problem(format!(
                "{} at revision {} is recorded {until}, but its next value is of revision {}",
                row.key, before.revision, row.revision
            ));
        }
        let expected = if before.deleted { row.revision } else { before.created };
        if row.created != expected && before.until == Some(row.revision) {
            self.problem(format!(
                "{} at revision {} says that it was created by revision {}, expected {expected}",
                row.key, row.revision, row.created
            ));
        }
    }

    /// The last value of an object.
    fn ends(&mut self, last: &VersionRow) {
        if let Some(until) = last.until
            && until > self.report.compacted
        {
            self.problem(format!(
                "{} at revision {} is recorded up to revision {until}, but what came then is missing",
                last.key, last.revision
            ));
        }
    }

    /// The next event, ordered by revision and then ordinal. Values must have been told before.
    pub(crate) fn event(&mut self, row: EventRow) {
        self.report.events += 1;
        let what = format!("event {} of revision {} about {}", row.ordinal, row.revision, row.subject);
        self.compare(&what, row.checksums);
        let before = self.last_event.filter(|(revision, ..)| *revision == row.revision);
        let first = self.times.get(&row.revision).copied().or(before.map(|(.., at)| at)).unwrap_or(row.at);
        self.written(&what, row.revision, row.at, first);
        let expected = before.map_or(0, |(_, ordinal, _)| ordinal.saturating_add(1));
        // Forgotten events go in portions, which need not end with a commit.
        if row.ordinal != expected && row.revision > self.report.forgotten {
            self.problem(format!("{what} follows where event {expected} is expected"));
        }
        self.last_event = Some((row.revision, row.ordinal, row.at));
    }

    /// A unique entry. Values must have been told before.
    pub(crate) fn unique(&mut self, entry: &UniqueKey, holder: &Key) {
        if let Some(last) = self.last.take() {
            self.ends(&last);
        }
        if !self.live.contains(holder) {
            self.problem(format!("{} {:?} is held by {holder}, which does not exist", entry.index, entry.key));
        }
    }

    /// A request id.
    pub(crate) fn request(&mut self, id: &str, revision: Revision) {
        if revision > self.report.revision {
            let newest = self.report.revision;
            self.problem(format!("request {id:?} was committed at revision {revision}, but the newest is {newest}"));
        }
    }

    /// A lease.
    pub(crate) fn lease(&mut self, shard: Shard, epoch: Epoch) {
        if epoch == Epoch::default() {
            self.problem(format!("the lease on shard {shard} has no epoch"));
        }
    }

    /// What was found.
    pub(crate) fn finish(mut self) -> CheckReport {
        if let Some(last) = self.last.take() {
            self.ends(&last);
        }
        self.report.problems.sort_by_key(|problem| problem.extent == Extent::Record);
        self.report
    }
}
