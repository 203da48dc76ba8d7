//! Many decisions over one look at the fleet.
//!
//! A round reads node types and hosts once. Claims are then decided on one after the other; a host that was chosen is
//! taken, so that the next claim sees it as claimed, and can be given back when the decision comes to nothing (a group of
//! which one member finds no host). What a claim may not have besides the rules is its [`Bars`].

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use vmetal_model as model;
use vmetal_model::Timestamp;

use crate::columns::View;
use crate::cost::Cost;
use crate::engine::PolicyEngine;
use crate::error::PolicyError;
use crate::feasibility::Rejection;
use crate::feasibility::gates::Gates;
use crate::input::{HostRow, Offer, Wanted};
use crate::outcome::{Outcome, shown, unplaced};

/// What one claim may not have besides what the rules say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bars {
    /// Hosts that were given up for the claim, by name, with what failed there.
    pub tried: BTreeMap<String, String>,
    /// Hosts that are better left to others: on standby with another image than the claim's.
    #[serde(default)]
    pub spare: BTreeSet<String>,
    /// A label and the value that the host must have: that of the others in the claim's group.
    pub domain: Option<(String, String)>,
}

impl Bars {
    /// Nothing is barred.
    pub const fn none() -> Self {
        Bars { tried: BTreeMap::new(), spare: BTreeSet::new(), domain: None }
    }

    fn is_empty(&self) -> bool {
        self.tried.is_empty() && self.spare.is_empty() && self.domain.is_none()
    }

    pub(crate) fn of(&self, host: &HostRow) -> Vec<Rejection> {
        let tried = self.tried.get(&host.name).map(|failure| Rejection::Tried { failure: failure.clone() });
        let elsewhere = self.domain.as_ref().and_then(|(key, wanted)| {
            let seen = host.labels.get(key);
            (seen != Some(wanted)).then(|| Rejection::Elsewhere {
                key: key.clone(),
                wanted: wanted.clone(),
                seen: seen.cloned(),
            })
        });
        let spare = self.spare.contains(&host.name).then_some(Rejection::Spare);
        tried.into_iter().chain(spare).chain(elsewhere).collect()
    }
}

/// Hosts that claims have been promised since the fleet was looked at.
pub(crate) type Taken = BTreeMap<String, Promise>;

/// Who was promised a host. Policies see the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Promise {
    pub(crate) node: String,
    pub(crate) cluster: String,
}

/// What one decision has to know besides the fleet.
#[derive(Clone, Copy)]
pub(crate) struct Except<'a> {
    pub(crate) taken: &'a Taken,
    pub(crate) bars: &'a Bars,
}

impl Except<'static> {
    pub(crate) fn nothing() -> Self {
        Except { taken: const { &Taken::new() }, bars: const { &Bars::none() } }
    }
}

/// One look at the fleet, and what was taken of it since.
pub struct Round {
    fleet: View,
    offers: Vec<Offer>,
    /// Per offer: the rules' outcome for each host.
    gates: Vec<Gates>,
    taken: Taken,
    /// Per taken host: what the rules said of it before, for each offer.
    before: HashMap<String, Vec<(u32, u32)>>,
    /// Hosts as seen by claims for which no node type was chosen, by the type they name; until something is taken.
    unplaced: HashMap<Option<String>, Vec<model::Candidate>>,
    now: Timestamp,
}

impl Round {
    /// Looks at the fleet. The order of `node_types` does not matter.
    pub fn new(node_types: &[impl Borrow<model::NodeType>], fleet: View, now: Timestamp) -> Self {
        let gated = |node_type: &model::NodeType| {
            let mut offer = Offer::without_capacity(node_type);
            let gates = Gates::of(&offer, &fleet);
            gates.fill_in(&mut offer, &fleet, &Bars::none());
            (offer, gates)
        };
        let (offers, gates) = node_types.iter().map(|one| gated(one.borrow())).unzip();
        Round { fleet, offers, gates, taken: Taken::new(), before: HashMap::new(), unplaced: HashMap::new(), now }
    }

    /// How many hosts can be taken now, by the value of a label. Hosts without it are not counted.
    pub fn free_by_label(&self, key: &str) -> BTreeMap<String, usize> {
        let table = &self.fleet.table;
        let mut free = BTreeMap::new();
        let Some(key) = table.symbols.known(key) else { return free };
        for slot in 0..self.fleet.len() {
            let Some(value) = table.label(slot, key) else { continue };
            let name = table.symbols.text(table.cells.name[slot]);
            let takable = table.cells.holder[slot] == 0
                && !table.cells.deleted[slot]
                && !table.cells.held[slot]
                && table.cells.phase[slot].is_claimable()
                && !self.taken.contains_key(name);
            *free.entry(table.symbols.text(value).to_owned()).or_default() += usize::from(takable);
        }
        free
    }

    /// From now on the host is claimed.
    pub fn take(&mut self, host: &str, by: &model::TenantNode) {
        let Some(slot) = self.fleet.table.slot(host) else { return };
        self.give_back(host);
        let promise = Promise { node: by.name().to_owned(), cluster: by.spec.cluster.clone() };
        self.taken.insert(host.to_owned(), promise);
        let before = self.gates.iter_mut().map(|gates| gates.take(slot)).collect();
        self.before.insert(host.to_owned(), before);
        self.recount();
    }

    /// The host is free again: what it was taken for comes to nothing.
    pub fn give_back(&mut self, host: &str) {
        let (Some(slot), Some(before)) = (self.fleet.table.slot(host), self.before.remove(host)) else { return };
        self.taken.remove(host);
        self.gates.iter_mut().zip(before).for_each(|(gates, before)| gates.give_back(slot, before));
        self.recount();
    }

    fn recount(&mut self) {
        self.unplaced.clear();
        let fleet = &self.fleet;
        self.offers.iter_mut().zip(&self.gates).for_each(|(offer, gates)| gates.fill_in(offer, fleet, &Bars::none()));
    }

    /// Chooses node type and host for a tenant node. Nothing is taken by it.
    ///
    /// # Errors
    /// When a policy fails and its binding says that there is no decision then. That nothing fits is no error.
    pub fn decide(
        &mut self,
        policies: &PolicyEngine,
        node: &model::TenantNode,
        bars: &Bars,
    ) -> Result<Outcome, PolicyError> {
        let wanted = Wanted::from_model(node);
        let narrowed = (!bars.is_empty()).then(|| self.narrowed(bars));
        let (offers, gates) = narrowed.as_ref().map_or((&self.offers, &self.gates), |(offers, gates)| (offers, gates));
        let seconds = u64::try_from(self.now.as_second()).unwrap_or(0);
        let chosen = policies.choose_type(&wanted, offers, seconds)?;
        let mut decision = model::Decision {
            node_type: None,
            host: None,
            cost: None,
            reason: chosen.record.summary.clone(),
            node_types: chosen.record.candidates.iter().map(shown).collect(),
            hosts: Vec::new(),
            policies: vec![chosen.record.policy.to_string()],
            input_digest: chosen.record.input_digest.clone(),
            at: self.now,
        };
        let Some(index) = chosen.chosen else {
            let except = Except { taken: &self.taken, bars };
            let all = || unplaced(&wanted, offers, &self.fleet, except, policies.hosts_kept());
            decision.hosts = match &narrowed {
                Some(_) => all(),
                None => self.unplaced.entry(wanted.node_type.clone()).or_insert_with(all).clone(),
            };
            return Ok(Outcome { node_type: None, host: None, decision, records: vec![chosen.record] });
        };
        let except = Except { taken: &self.taken, bars };
        let placed = policies.place_gated(&wanted, &offers[index], &self.fleet, &gates[index], except, seconds)?;
        let host = placed.chosen.first().cloned();
        decision.node_type = Some(offers[index].name.clone());
        decision.cost = chosen.costs.get(index).copied().map(Cost::units);
        decision.host.clone_from(&host);
        decision.reason = format!("{}; {}", chosen.record.summary, placed.record.summary);
        decision.hosts = placed.record.candidates.iter().map(shown).collect();
        decision.policies.push(placed.record.policy.to_string());
        // One digest over both inputs: either changing changes it.
        decision.input_digest = crate::component::sha256(
            format!("{}{}", chosen.record.input_digest, placed.record.input_digest).as_bytes(),
        );
        Ok(Outcome { node_type: Some(index), host, decision, records: vec![chosen.record, placed.record] })
    }

    /// Offers and rules as they are for a claim with bars: barred hosts are not free for it.
    fn narrowed(&self, bars: &Bars) -> (Vec<Offer>, Vec<Gates>) {
        let narrowed = |(offer, gates): (&Offer, &Gates)| {
            let (mut offer, gates) = (offer.clone(), gates.barred(&self.fleet, bars));
            gates.fill_in(&mut offer, &self.fleet, bars);
            (offer, gates)
        };
        self.offers.iter().zip(&self.gates).map(narrowed).unzip()
    }
}

#[cfg(test)]
mod tests;
