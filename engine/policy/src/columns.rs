//! The fleet as policies see it, kept up to date one host at a time.
//!
//! A decision needs some twenty facts of every host as columns of integers. Making them from the objects costs
//! milliseconds for a large fleet, so they are made once: [`Columns`] is told of each change and touches the cells of
//! that host only. What concerns all rows (their order by name after a host came or went, the place of labels after a
//! host has another number of them) is put off to the next [`Columns::view`], so that it is paid once for many changes.
//!
//! A [`View`] is what decisions read: immutable, cheap to clone, unharmed by later changes. While one is held, the next
//! change copies the columns (not the strings) first.
//!
//! The digest of a view is a tree of hashes over the rows in the order of their names. It depends on what is known of
//! the hosts and on nothing else: not on the order of changes, and a restarted engine has the same.

mod digest;
mod table;

use std::sync::Arc;

use vmetal_model::Host;

use crate::input::HostRow;
use table::Table;

pub(crate) use table::Fact;

/// Labels that say where a host is, from the widest to the narrowest failure domain. Others can be configured.
pub const LEVELS: [&str; 5] = [
    "topology.vmetal.dev/power-feed",
    "topology.vmetal.dev/row",
    "topology.vmetal.dev/leaf",
    "topology.vmetal.dev/rack",
    "topology.vmetal.dev/nvlink-domain",
];

/// A label that says when the host's firmware and boot were last attested, in seconds since 1970-01-01 UTC.
pub const ATTESTED_AT: &str = "security.vmetal.dev/attested-at";

/// What changes have cost so far, in cells and rows written: complexity is tested by counting and not by the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows written because their host changed.
    pub rows: u64,
    /// Rows hashed.
    pub hashed: u64,
    /// Rows put in order again, because hosts came or went.
    pub ordered: u64,
    /// Rows whose labels were moved, because another host has more or fewer of them.
    pub moved: u64,
    /// Rows written anew, to drop strings that no row has any more.
    pub swept: u64,
}

/// The columns, for whoever follows the hosts.
#[derive(Debug, Clone)]
pub struct Columns {
    table: Arc<Table>,
    work: Work,
    /// About how many strings the rows have: those that were there at the last clean-up, and those that came with new rows.
    /// Strings are cleaned up when there are twice as many, because changes leave behind texts that no row has any more.
    strings: usize,
}

/// The columns at one moment, for decisions.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) table: Arc<Table>,
}

/// Fewer strings than this are never worth a clean-up.
const SWEEP: usize = 4096;

impl Default for Columns {
    fn default() -> Self {
        Columns::new(LEVELS.map(str::to_owned))
    }
}

impl Columns {
    /// No hosts yet. `levels` are the labels that say where a host is, from the widest to the narrowest.
    pub fn new(levels: impl IntoIterator<Item = String>) -> Self {
        Columns { table: Arc::new(Table::new(levels.into_iter().collect())), work: Work::default(), strings: 0 }
    }

    /// Takes in a host as it is now, new or changed.
    pub fn update(&mut self, host: &Host) {
        self.put(&Fact::from_model(host));
    }

    /// The same for a host that is given in words.
    pub fn insert(&mut self, row: &HostRow) {
        self.put(&Fact::from_row(row));
    }

    fn put(&mut self, fact: &Fact<'_>) {
        self.work.rows += 1;
        let table = Arc::make_mut(&mut self.table);
        let (rows, strings) = (table.len(), table.symbols.len());
        table.put(fact);
        if table.len() > rows {
            self.strings += table.symbols.len() - strings;
        }
    }

    /// Forgets a host.
    pub fn remove(&mut self, name: &str) {
        if self.table.slot(name).is_some() {
            self.work.rows += 1;
            self.strings -= self.strings / self.table.len();
            Arc::make_mut(&mut self.table).remove(name);
        }
    }

    /// The columns as they are now.
    pub fn view(&mut self) -> View {
        if self.table.is_stale() {
            if self.table.symbols.len() > SWEEP.max(2 * self.strings) {
                let mut table = Table::new(self.table.levels.clone());
                (0..self.table.len()).for_each(|slot| table.put(&Fact::from_row(&self.table.row(slot))));
                self.strings = table.symbols.len();
                self.work.swept += self.table.len() as u64;
                self.table = Arc::new(table);
            }
            Arc::make_mut(&mut self.table).settle(&mut self.work);
        }
        View { table: Arc::clone(&self.table) }
    }

    /// What changes have cost so far.
    pub fn work(&self) -> Work {
        self.work
    }
}

impl View {
    /// A fleet that is given in words.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = &'a HostRow>, levels: &[String]) -> Self {
        let mut columns = Columns::new(levels.iter().cloned());
        rows.into_iter().for_each(|row| columns.insert(row));
        columns.view()
    }

    /// The number of hosts.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True without hosts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SHA-256 over all that is known of the hosts, hexadecimal.
    pub fn digest(&self) -> String {
        hex::encode(self.table.digest())
    }

    /// The revision at which a host was taken in: what is decided over a view holds for that revision and no other.
    pub fn revision(&self, name: &str) -> Option<u64> {
        self.table.slot(name).map(|slot| self.table.cells.revision[slot])
    }

    /// The hosts in words, by name.
    pub fn rows(&self) -> impl Iterator<Item = HostRow> + '_ {
        self.table.order.iter().map(|slot| self.table.row(*slot as usize))
    }

    /// The labels that say where a host is.
    pub fn levels(&self) -> &[String] {
        &self.table.levels
    }
}

#[cfg(test)]
#[path = "columns/tests.rs"]
mod tests;
