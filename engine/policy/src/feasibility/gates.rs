//! The rules over a whole fleet: the first rule that each host fails, as numbers.
//!
//! [`super::host`] says in words what keeps one host from being chosen; with thousands of hosts and a decision every
//! millisecond there is time for numbers only. The two agree, which a test on random fleets holds; words are made for the
//! few hosts that somebody reads about.

use std::collections::HashMap;

use vmetal_model::HostPhase;
use vmetal_model::quantity::{CPU, MEMORY};
use vmetal_policy_sdk::column::power;
use vmetal_policy_sdk::{Sym, gate};

use super::{Rejection, count_topics, tolerance};
use crate::columns::View;
use crate::input::{ACCELERATORS, HostRow, Offer};
use crate::round::{Bars, Except};

/// The rules' outcome for every host as one of a node type.
#[derive(Clone)]
pub(crate) struct Gates {
    /// Zero, or the code of the first rule that the row fails.
    pub(crate) codes: Vec<u32>,
    /// Which label or resource it was.
    details: Vec<u32>,
    /// How many rows fail each rule, by code and detail.
    tally: HashMap<(u32, u32), usize>,
}

/// What inspection measures.
#[derive(Clone, Copy)]
enum Measured {
    Threads,
    Memory,
    Accelerator(usize),
}

/// A declared amount that hosts must come up to, in thousandths, less the tolerance.
struct Need {
    measured: Measured,
    least: u128,
    code: u32,
    detail: u32,
}

impl Gates {
    /// Applies the rules. Costs no allocation for each host.
    pub(crate) fn of(offer: &Offer, fleet: &View) -> Self {
        let table = &fleet.table;
        // A key or value that no host has is known to nobody.
        let selector: Vec<(Option<Sym>, Option<Sym>)> =
            offer.selector.iter().map(|(key, value)| (table.symbols.known(key), table.symbols.known(value))).collect();
        let needs = needs(offer);
        let (codes, details): (Vec<u32>, Vec<u32>) =
            (0..fleet.len()).map(|slot| first(fleet, slot, &selector, &needs)).unzip();
        let mut gates = Gates { codes, details, tally: HashMap::new() };
        gates.count();
        gates
    }

    fn count(&mut self) {
        // Neighbours are often alike; counting them together saves most of the look-ups.
        let mut run: Option<((u32, u32), usize)> = None;
        for key in self.codes.iter().copied().zip(self.details.iter().copied()) {
            match &mut run {
                Some((same, count)) if *same == key => *count += 1,
                _ => {
                    if let Some((key, count)) = run.replace((key, 1)) {
                        *self.tally.entry(key).or_default() += count;
                    }
                }
            }
        }
        if let Some((key, count)) = run {
            *self.tally.entry(key).or_default() += count;
        }
    }

    /// Another outcome for one row.
    fn set(&mut self, slot: usize, key: (u32, u32)) {
        let before = (self.codes[slot], self.details[slot]);
        (self.codes[slot], self.details[slot]) = key;
        if let Some(count) = self.tally.get_mut(&before) {
            *count -= 1;
        }
        *self.tally.entry(key).or_default() += 1;
    }

    /// The host was promised to a claim. Gives what has to be given back should that come to nothing.
    pub(crate) fn take(&mut self, slot: usize) -> (u32, u32) {
        let before = (self.codes[slot], self.details[slot]);
        // The claim comes after label and deletion in the order of rules.
        if !matches!(before.0, gate::SELECTOR | gate::DELETED) {
            self.set(slot, (gate::CLAIMED, 0));
        }
        before
    }

    /// Undoes [`Gates::take`].
    pub(crate) fn give_back(&mut self, slot: usize, before: (u32, u32)) {
        self.set(slot, before);
    }

    /// The outcome for a claim that may not have everything; what bars say comes after all rules.
    pub(crate) fn barred(&self, fleet: &View, bars: &Bars) -> Self {
        let mut gates = self.clone();
        for slot in bars.tried.keys().filter_map(|name| fleet.table.slot(name)) {
            if gates.codes[slot] == gate::OPEN {
                gates.set(slot, (gate::TRIED, 0));
            }
        }
        for slot in bars.spare.iter().filter_map(|name| fleet.table.slot(name)) {
            if gates.codes[slot] == gate::OPEN {
                gates.set(slot, (gate::SPARE, 0));
            }
        }
        let Some((key, value)) = &bars.domain else { return gates };
        let symbols = &fleet.table.symbols;
        let (key, value) = (symbols.known(key), symbols.known(value));
        for slot in 0..gates.codes.len() {
            let seen = key.and_then(|key| fleet.table.label(slot, key));
            if gates.codes[slot] == gate::OPEN && (seen.is_none() || seen != value) {
                gates.set(slot, (gate::ELSEWHERE, 0));
            }
        }
        gates
    }

    /// Counts excluded rows by topic; `skip` leaves out those that fail one rule.
    pub(crate) fn topics(&self, offer: &Offer, bars: &Bars, skip: Option<u32>) -> Vec<(String, usize)> {
        let counted = self.tally.iter().filter(|((code, _), count)| **count > 0 && Some(*code) != skip);
        counted.filter_map(|((code, detail), count)| Some((topic(*code, *detail, offer, bars)?, *count))).collect()
    }

    /// Fills in an offer's capacity.
    pub(crate) fn fill_in(&self, offer: &mut Offer, fleet: &View, bars: &Bars) {
        let count = |of: &dyn Fn(u32) -> bool| {
            let rows: usize = self.tally.iter().filter(|((code, _), _)| of(*code)).map(|(_, count)| count).sum();
            u32::try_from(rows).unwrap_or(u32::MAX)
        };
        offer.total = count(&|code| code != gate::SELECTOR);
        offer.free = count(&|code| code == gate::OPEN);
        let on = &fleet.table.cells.power;
        let standby = self.codes.iter().zip(on).filter(|(code, on)| **code == gate::OPEN && **on == power::ON).count();
        offer.standby = u32::try_from(standby).unwrap_or(u32::MAX);
        offer.taken = count_topics(self.topics(offer, bars, Some(gate::SELECTOR)));
    }
}

/// The hosts that a claim of this node type could have now, in no order that means anything.
pub fn open_hosts(node_type: &vmetal_model::NodeType, fleet: &View) -> Vec<String> {
    let gates = Gates::of(&Offer::without_capacity(node_type), fleet);
    let open = (0..fleet.len()).filter(|slot| gates.codes[*slot] == gate::OPEN);
    open.map(|slot| fleet.table.symbols.text(fleet.table.cells.name[slot]).to_owned()).collect()
}

/// What [`Rejection::topic`] says of the rule that a row fails first; none for a row that fails none.
fn topic(code: u32, detail: u32, offer: &Offer, bars: &Bars) -> Option<String> {
    let at = detail as usize;
    let rejection = match code {
        gate::SELECTOR => {
            let (key, wanted) = offer.selector.iter().nth(at)?;
            Rejection::Label { key: key.clone(), wanted: wanted.clone(), seen: None }
        }
        gate::CPU | gate::MEMORY | gate::RESOURCE => {
            let (name, wanted) = offer.resources.iter().nth(at)?;
            Rejection::Resource { name: name.clone(), wanted: *wanted, seen: vmetal_model::Quantity::default() }
        }
        gate::DELETED => Rejection::Deleted,
        gate::CLAIMED => Rejection::Claimed { by: String::new() },
        gate::NOT_AVAILABLE => Rejection::Phase { seen: HostPhase::Error },
        gate::HELD => Rejection::Held,
        gate::NOT_INSPECTED => Rejection::NotInspected,
        gate::TRIED => Rejection::Tried { failure: String::new() },
        gate::SPARE => Rejection::Spare,
        gate::ELSEWHERE => {
            let (key, wanted) = bars.domain.clone()?;
            Rejection::Elsewhere { key, wanted, seen: None }
        }
        _ => return None,
    };
    Some(rejection.topic())
}

/// A row in words, with what has been promised since.
pub(crate) fn row(fleet: &View, slot: usize, except: Except<'_>) -> HostRow {
    let mut row = fleet.table.row(slot);
    if let Some(by) = except.taken.get(&row.name) {
        row.claimed_by = Some(by.node.clone());
        row.last_tenant.clone_from(&by.cluster);
    }
    row
}

/// All rules that a row fails, in words.
pub(crate) fn rejections(offer: &Offer, fleet: &View, slot: usize, except: Except<'_>) -> Vec<Rejection> {
    let row = row(fleet, slot, except);
    let mut found = super::host(offer, &row);
    found.extend(except.bars.of(&row));
    found
}

fn needs(offer: &Offer) -> Vec<Need> {
    let measured = |name: &str| match name {
        CPU => Some((Measured::Threads, gate::CPU)),
        MEMORY => Some((Measured::Memory, gate::MEMORY)),
        _ => {
            let at = ACCELERATORS.iter().position(|(_, resource)| *resource == name)?;
            Some((Measured::Accelerator(at), gate::RESOURCE))
        }
    };
    let need = |(detail, (name, wanted)): (u32, (&String, &vmetal_model::Quantity))| {
        let (measured, code) = measured(name)?;
        let least = wanted.milli().saturating_sub(tolerance(name, *wanted).milli());
        Some(Need { measured, least, code, detail })
    };
    (0u32..).zip(&offer.resources).filter_map(need).collect()
}

/// The rules in the order of [`super::host`].
fn first(fleet: &View, slot: usize, selector: &[(Option<Sym>, Option<Sym>)], needs: &[Need]) -> (u32, u32) {
    let (table, cells) = (&fleet.table, &fleet.table.cells);
    for (detail, (key, value)) in (0u32..).zip(selector) {
        let seen = key.and_then(|key| table.label(slot, key));
        if seen.is_none() || seen != *value {
            return (gate::SELECTOR, detail);
        }
    }
    if cells.deleted[slot] {
        return (gate::DELETED, 0);
    }
    if cells.holder[slot] != 0 {
        return (gate::CLAIMED, 0);
    }
    if !cells.phase[slot].is_claimable() {
        return (gate::NOT_AVAILABLE, 0);
    }
    if cells.held[slot] {
        return (gate::HELD, 0);
    }
    if !cells.inspected[slot] {
        return (gate::NOT_INSPECTED, 0);
    }
    let short = needs.iter().find(|need| {
        let seen = match need.measured {
            Measured::Threads => u128::from(cells.cpu_milli[slot]),
            Measured::Memory => u128::from(cells.memory_bytes[slot]) * 1000,
            Measured::Accelerator(at) => u128::from(cells.accelerators[slot][at]) * 1000,
        };
        need.least > seen
    });
    short.map_or((gate::OPEN, 0), |need| (need.code, need.detail))
}
