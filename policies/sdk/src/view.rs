//! Columns seen as rows: a row is a number and a reference, and each accessor reads one cell of one column.
//!
//! The engine guarantees that every column is complete. Should one be short all the same, accessors answer with the
//! "not known" value (zero) instead of panicking: a policy must not fail on a fact that it could do without.

use crate::types::{Hosts, Offers, Sym};

/// The cell of a row, or the type's zero.
fn cell<T: Copy + Default>(column: &[T], row: u32) -> T {
    column.get(row as usize).copied().unwrap_or_default()
}

/// The part of a concatenated column that belongs to a row.
fn part<'a, T>(at: &[u32], column: &'a [T], row: u32) -> &'a [T] {
    let bound = |index: usize| at.get(index).map(|offset| *offset as usize);
    let from = row as usize;
    match (bound(from), bound(from + 1)) {
        (Some(start), Some(end)) => column.get(start..end).unwrap_or(&[]),
        _ => &[],
    }
}

macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])* pub fn $name(self) -> $type { cell(&self.table.$name, self.row) })*
    };
}

/// One host of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct HostRef<'a> {
    table: &'a Hosts<'a>,
    row: u32,
}

impl<'a> HostRef<'a> {
    /// The number by which decisions name the host.
    pub fn row(self) -> u32 {
        self.row
    }

    /// True when the engine allows the host to be chosen.
    pub fn is_open(self) -> bool {
        self.gate() == crate::gate::OPEN
    }

    cells! {
        /// The host's name.
        name: Sym;
        /// The position of the name among all names, in byte order.
        rank: u32;
        /// Zero, or why the host must not be chosen; see [`crate::gate`].
        gate: u32;
        /// Processors, in thousandths.
        cpu_milli: u64;
        /// Memory, in bytes.
        memory_bytes: u64;
        /// Number of accelerators.
        gpus: u32;
        /// Model of the accelerators, or zero.
        gpu_model: Sym;
        /// The tenant cluster that used the host last, or zero.
        last_tenant: Sym;
        /// When it was released, in seconds since 1970-01-01 UTC, or zero.
        last_release: u64;
        /// How often the host was provisioned.
        provisions: u32;
    }

    /// The host's place at a level, or zero where it is not known. Levels count from the widest.
    pub fn domain(self, level: usize) -> Sym {
        let levels = self.table.levels.len();
        if level >= levels {
            return 0;
        }
        self.table.domains.get(self.row as usize * levels + level).copied().unwrap_or(0)
    }

    /// The value of a label. A symbol of zero (the snapshot does not know the key) has none.
    pub fn label(self, key: Sym) -> Option<Sym> {
        self.labels().find(|(found, _)| *found == key && key != 0).map(|(_, value)| value)
    }

    /// All labels as (key, value), in the order of the keys' names.
    pub fn labels(self) -> impl Iterator<Item = (Sym, Sym)> + 'a {
        let keys = part(&self.table.label_at, &self.table.label_key, self.row);
        let values = part(&self.table.label_at, &self.table.label_value, self.row);
        keys.iter().copied().zip(values.iter().copied())
    }

    /// A numbered column that was added after this version was frozen; see [`crate::column`].
    pub fn extra(self, number: u16) -> Option<u64> {
        let column = self.table.extra.iter().find(|column| column.number == number)?;
        column.cells.get(self.row as usize).copied()
    }

    /// Whether the host runs: [`crate::column::power`].
    pub fn power(self) -> u64 {
        self.extra(crate::column::POWER).unwrap_or(0)
    }

    /// The level at which the disks were last erased: [`crate::column::erase`].
    pub fn erase_level(self) -> u64 {
        self.extra(crate::column::ERASE_LEVEL).unwrap_or(0)
    }

    /// True while a claim has the host.
    pub fn is_occupied(self) -> bool {
        self.extra(crate::column::OCCUPIED) == Some(1)
    }

    /// When the host was last attested, in seconds since 1970-01-01 UTC, or 0.
    pub fn attested(self) -> u64 {
        self.extra(crate::column::ATTESTED).unwrap_or(0)
    }

    /// How often the present step has failed; 0 for a host that is well.
    pub fn failures(self) -> u64 {
        self.extra(crate::column::FAILURES).unwrap_or(0)
    }
}

/// One node type of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct OfferRef<'a> {
    table: &'a Offers,
    row: u32,
}

impl<'a> OfferRef<'a> {
    /// The number by which decisions name the offer.
    pub fn row(self) -> u32 {
        self.row
    }

    /// True when the engine allows the offer to be chosen.
    pub fn is_open(self) -> bool {
        self.gate() == crate::gate::OPEN
    }

    cells! {
        /// The node type's name.
        name: Sym;
        /// The position of the name among all names, in byte order.
        rank: u32;
        /// Zero, or why the type must not be chosen; see [`crate::gate`].
        gate: u32;
        /// Processors, in thousandths.
        cpu_milli: u64;
        /// Memory, in bytes.
        memory_bytes: u64;
        /// The operator's price in millionths of a cost unit, or zero.
        explicit_cost: i64;
        /// Hosts of the type.
        total: u32;
        /// Those of them that are free.
        free: u32;
    }

    /// What a host of the type draws, in watts, or 0 where it is not known.
    pub fn watts(self) -> u64 {
        self.extra(crate::column::offer::WATTS).unwrap_or(0)
    }

    /// Free hosts of the type that are on already.
    pub fn standby(self) -> u64 {
        self.extra(crate::column::offer::STANDBY).unwrap_or(0)
    }

    /// How many more hosts of the type the claim's tenant cluster may hold; none where no quota limits it.
    pub fn quota_left(self) -> Option<u64> {
        self.extra(crate::column::offer::QUOTA_LEFT).filter(|left| *left != crate::column::offer::UNLIMITED)
    }

    /// Other resources as (name, thousandths).
    pub fn resources(self) -> impl Iterator<Item = (Sym, u64)> + 'a {
        let names = part(&self.table.resource_at, &self.table.resource_name, self.row);
        let amounts = part(&self.table.resource_at, &self.table.resource_milli, self.row);
        names.iter().copied().zip(amounts.iter().copied())
    }

    /// A numbered column that was added after this version was frozen.
    pub fn extra(self, number: u16) -> Option<u64> {
        let column = self.table.extra.iter().find(|column| column.number == number)?;
        column.cells.get(self.row as usize).copied()
    }
}

impl Hosts<'_> {
    /// The cells of a numbered column; empty where there is none. For policies that look at it in every row.
    pub fn column(&self, number: u16) -> &[u64] {
        self.extra.iter().find(|column| column.number == number).map_or(&[], |column| &column.cells)
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = HostRef<'_>> {
        (0..self.n).map(|row| HostRef { table: self, row })
    }

    /// One row.
    pub fn row(&self, row: u32) -> Option<HostRef<'_>> {
        (row < self.n).then_some(HostRef { table: self, row })
    }
}

impl Offers {
    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = OfferRef<'_>> {
        (0..self.n).map(|row| OfferRef { table: self, row })
    }

    /// One row.
    pub fn row(&self, row: u32) -> Option<OfferRef<'_>> {
        (row < self.n).then_some(OfferRef { table: self, row })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn hosts() -> Hosts<'static> {
        Hosts {
            n: 2,
            name: vec![1, 2].into(),
            gate: vec![0, 3].into(),
            gpu_model: vec![7, 0].into(),
            levels: vec![20, 21].into(),
            domains: vec![30, 31, 30, 32].into(),
            label_at: vec![0, 2, 2].into(),
            label_key: vec![10, 11].into(),
            label_value: vec![12, 0].into(),
            ..Hosts::default()
        }
    }

    #[test]
    fn rows_read_their_own_cells() {
        let table = hosts();
        let rows: Vec<_> = table.rows().collect();
        assert_eq!((rows[0].name(), rows[0].gpu_model(), rows[0].is_open()), (1, 7, true));
        assert_eq!((rows[1].name(), rows[1].gpu_model(), rows[1].is_open()), (2, 0, false));
        assert_eq!((rows[1].domain(0), rows[1].domain(1), rows[1].domain(2)), (30, 32, 0));
        assert_eq!(
            (rows[0].label(10), rows[0].label(11), rows[0].label(12), rows[1].label(10)),
            (Some(12), Some(0), None, None)
        );
        assert_eq!(rows[0].label(0), None, "a key that the snapshot does not know is no label");
    }

    #[test]
    fn a_short_column_means_not_known() {
        assert_eq!(hosts().row(1).unwrap().cpu_milli(), 0);
        assert_eq!(hosts().row(1).unwrap().extra(1), None);
        assert!(hosts().row(2).is_none());
    }
}
