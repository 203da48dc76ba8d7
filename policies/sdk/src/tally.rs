//! Counting by symbol: how many hosts are in each domain.

use crate::types::{Hosts, Sym};
use crate::view::HostRef;

/// A count for each symbol. A list and not a map: symbols are small numbers, and a list has no order to depend on.
#[derive(Debug, Clone, Default)]
pub struct Tally(Vec<u32>);

impl Tally {
    /// Counts the hosts that `wanted` says yes to by what `of` says; symbol zero (not known) is not counted.
    pub fn of(hosts: &Hosts, of: impl Fn(HostRef<'_>) -> Sym, wanted: impl Fn(HostRef<'_>) -> bool) -> Self {
        let mut tally = Tally::default();
        hosts.rows().filter(|host| wanted(*host)).for_each(|host| tally.add(of(host), 1));
        tally
    }

    /// Adds to one count.
    pub fn add(&mut self, sym: Sym, count: u32) {
        if sym == 0 {
            return;
        }
        let at = sym as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += count;
    }

    /// The count of a symbol.
    pub fn get(&self, sym: Sym) -> u32 {
        self.0.get(sym as usize).copied().unwrap_or(0)
    }
}

impl Hosts<'_> {
    /// The number of a level by its name's symbol, for [`HostRef::domain`]. None for a level that the engine does not know.
    pub fn level(&self, name: Sym) -> Option<usize> {
        self.levels.iter().position(|level| *level == name && name != 0)
    }
}
