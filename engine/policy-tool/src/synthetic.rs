//! Fleets and traces that nobody has, made from a seed.
//!
//! The fleet is one of GPU racks: a rack is one NVLink domain of 18 trays (GB200 NVL72), four racks share a leaf, and racks
//! take turns at two power feeds. Hosts have a history: they were used more or less often, erased more or less well, a
//! tenth of them is on, a few fail. The trace asks for what such fleets are asked for: many single hosts, some halves of a
//! rack, a few whole ones and more, for hours to days, so much that the fleet is nearly full in the long run.

use std::collections::BTreeMap;

use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_model::{HostPhase, Quantity, Resources};
use vmetal_policy::{Hardware, HostRow, columns::LEVELS};

use crate::chance::Chance;
use crate::fleet::{ClaimRow, Fleet, Trace, TypeRow};

/// Trays in a rack, all in one NVLink domain.
const RACK: u32 = 18;
/// Racks at one leaf.
const LEAF: u32 = 4;
const HOUR: u64 = 3600;
/// When traces begin: 2026-01-01 00:00 UTC.
const BEGIN: u64 = 1_767_225_600;

/// How large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Racks of 18 hosts.
    pub racks: u32,
    /// Claims over the whole trace.
    pub claims: u32,
    /// How much is asked for, in percent of what the fleet has.
    pub load: u32,
}

impl Default for Size {
    fn default() -> Self {
        Size { racks: 16, claims: 600, load: 85 }
    }
}

/// Claims by size: how many of a hundred want so many hosts.
const SIZES: [(u64, u32); 6] = [(45, 1), (20, 2), (15, 4), (10, 9), (7, 18), (3, 36)];

fn gpus(count: u64) -> Resources {
    [("nvidia.com/gpu".to_owned(), Quantity::units(count)), ("cpu".to_owned(), Quantity::units(144))].into()
}

/// A fleet.
pub fn fleet(seed: u64, racks: u32) -> Fleet {
    let mut chance = Chance::new(seed);
    let hosts = (0..racks).flat_map(|rack| (0..RACK).map(move |tray| (rack, tray)));
    Fleet {
        node_types: vec![TypeRow {
            name: "gb200".to_owned(),
            selector: [("gpu".to_owned(), "gb200".to_owned())].into(),
            properties: BTreeMap::new(),
            resources: gpus(4),
            cost: None,
        }],
        hosts: hosts.map(|(rack, tray)| host(&mut chance, rack, tray)).collect(),
        ..Fleet::empty()
    }
}

fn host(chance: &mut Chance, rack: u32, tray: u32) -> HostRow {
    let place = [
        format!("feed-{}", rack % 2),
        format!("row-{}", rack / (2 * LEAF)),
        format!("leaf-{}", rack / LEAF),
        format!("rack-{rack:02}"),
        format!("nvl-{rack:02}"),
    ];
    let mut labels: BTreeMap<String, String> = LEVELS.map(str::to_owned).into_iter().zip(place).collect();
    labels.insert("gpu".to_owned(), "gb200".to_owned());
    let used = chance.below(12);
    let hardware = Hardware {
        threads: 144,
        memory_bytes: 960 << 30,
        accelerators: [("nvidia.com/gpu".to_owned(), 4)].into(),
        gpu_model: Some("10de:2941".to_owned()),
    };
    HostRow {
        name: format!("r{rack:02}-t{tray:02}"),
        deleted: false,
        held: false,
        phase: HostPhase::Available,
        claimed_by: None,
        labels,
        hardware: Some(hardware),
        last_release: if used == 0 { 0 } else { BEGIN - chance.below(30 * 24 * HOUR) },
        last_tenant: if used == 0 { String::new() } else { tenant(chance) },
        provisions: u32::try_from(used).unwrap_or(0),
        power: if chance.percent(10) { PowerState::On } else { PowerState::Off },
        erased: (used > 0).then(|| if chance.percent(70) { EraseLevel::Overwrite } else { EraseLevel::Discard }),
        failures: if chance.percent(3) { 1 } else { 0 },
    }
}

fn tenant(chance: &mut Chance) -> String {
    format!("tenant-{}", chance.below(6))
}

/// What is asked of a fleet of so many racks.
pub fn trace(seed: u64, size: Size) -> Trace {
    // Another sequence than the fleet's, so that more racks do not shift it.
    let mut chance = Chance::new(seed ^ 0x0074_7261_6365);
    let claim = |number: u32, chance: &mut Chance| {
        let mut draw = chance.below(100);
        let kind = SIZES.iter().find(|(share, _)| {
            let found = draw < *share;
            draw = draw.saturating_sub(*share);
            found
        });
        ClaimRow {
            name: format!("claim-{number:04}"),
            cluster: tenant(chance),
            count: kind.map_or(1, |(_, count)| *count),
            at: 0,
            lasts: Some(chance.between(4 * HOUR, 72 * HOUR)),
            node_type: None,
            resources: gpus(4),
            requirements: Vec::new(),
        }
    };
    let mut claims: Vec<ClaimRow> = (0..size.claims).map(|number| claim(number, &mut chance)).collect();
    // Spread over the time in which the fleet can give as much as is asked for.
    let asked: u64 = claims.iter().map(|claim| u64::from(claim.count) * claim.lasts.unwrap_or(0)).sum();
    let hosts = u64::from(size.racks) * u64::from(RACK);
    let span = asked * 100 / (hosts * u64::from(size.load)).max(1);
    let mut times: Vec<u64> = claims.iter().map(|_| BEGIN + chance.below(span)).collect();
    times.sort_unstable();
    claims.iter_mut().zip(times).for_each(|(claim, at)| claim.at = at);
    Trace { claims }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_and_another_another() {
        let size = Size::default();
        assert_eq!((fleet(1, 4), trace(1, size)), (fleet(1, 4), trace(1, size)));
        assert_ne!(fleet(1, 4).hosts, fleet(2, 4).hosts);
        assert_ne!(trace(1, size), trace(2, size));
    }

    #[test]
    fn the_trace_asks_for_as_much_as_it_says() {
        let size = Size { racks: 10, claims: 2000, load: 50 };
        let trace = trace(7, size);
        let asked: u64 = trace.claims.iter().map(|claim| u64::from(claim.count) * claim.lasts.unwrap_or(0)).sum();
        let last = trace.claims.last().map_or(0, |claim| claim.at) - BEGIN;
        let load = asked * 100 / (last * 180);
        assert!((49..=51).contains(&load), "{load}");
        assert!(SIZES.iter().all(|(_, count)| trace.claims.iter().any(|claim| claim.count == *count)));
        assert_eq!(SIZES.iter().map(|(share, _)| share).sum::<u64>(), 100);
    }
}
