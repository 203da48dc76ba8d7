//! Many decisions over one look at the fleet.
//!
//! A round reads node types and hosts once. Claims are then decided on one after the other; a host that was chosen is
//! taken, so that the next claim sees it as claimed, and can be given back when the decision comes to nothing (a group of
//! which one member finds no host). What a claim may not have besides the rules is its [`Bars`].

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use vmetal_model as model;
use vmetal_model::Timestamp;

use crate::cost::Cost;
use crate::engine::PolicyEngine;
use crate::error::PolicyError;
use crate::feasibility::{self, Rejection};
use crate::input::{HostRow, Offer, Wanted};
use crate::outcome::{Outcome, kept, shown, unplaced};

/// What one claim may not have besides what the rules say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bars {
    /// Hosts that were given up for the claim, by name, with what failed there.
    pub tried: BTreeMap<String, String>,
    /// A label and the value that the host must have: that of the others in the claim's group.
    pub domain: Option<(String, String)>,
}

impl Bars {
    /// Nothing is barred.
    pub fn none() -> Self {
        Bars::default()
    }

    fn is_empty(&self) -> bool {
        self.tried.is_empty() && self.domain.is_none()
    }

    fn of(&self, host: &HostRow) -> Vec<Rejection> {
        let tried = self.tried.get(&host.name).map(|failure| Rejection::Tried { failure: failure.clone() });
        let elsewhere = self.domain.as_ref().and_then(|(key, wanted)| {
            let seen = host.labels.get(key);
            (seen != Some(wanted)).then(|| Rejection::Elsewhere {
                key: key.clone(),
                wanted: wanted.clone(),
                seen: seen.cloned(),
            })
        });
        tried.into_iter().chain(elsewhere).collect()
    }
}

/// One look at the fleet, and what was taken of it since.
pub struct Round {
    hosts: Vec<HostRow>,
    offers: Vec<Offer>,
    /// Per offer: why hosts of it cannot be taken, counted.
    taken: Vec<BTreeMap<String, usize>>,
    /// Hosts as seen by claims for which no node type was chosen, by the type they name; until something is taken.
    unplaced: HashMap<Option<String>, Vec<model::Candidate>>,
    now: Timestamp,
}

impl Round {
    /// Looks at the fleet. The order of `node_types` and `hosts` does not matter; hosts are named by their place in it.
    pub fn new(
        node_types: &[impl Borrow<model::NodeType>],
        hosts: &[impl Borrow<model::Host>],
        now: Timestamp,
    ) -> Self {
        let hosts: Vec<HostRow> = hosts.iter().map(|host| HostRow::from_model(host.borrow())).collect();
        let offers: Vec<Offer> = node_types.iter().map(|t| Offer::from_model(t.borrow(), &hosts)).collect();
        let taken = offers.iter().map(|offer| feasibility::taken(offer, &hosts)).collect();
        Round { hosts, offers, taken, unplaced: HashMap::new(), now }
    }

    /// The hosts, in the order in which they were given.
    pub fn hosts(&self) -> &[HostRow] {
        &self.hosts
    }

    /// From now on the host is claimed.
    pub fn take(&mut self, host: usize, by: &str) {
        self.change(host, Some(by.to_owned()));
    }

    /// The host is free again: what it was taken for comes to nothing.
    pub fn give_back(&mut self, host: usize) {
        self.change(host, None);
    }

    fn change(&mut self, index: usize, claimed_by: Option<String>) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        self.unplaced.clear();
        let before = host.clone();
        host.claimed_by = claimed_by;
        for (offer, taken) in self.offers.iter_mut().zip(&mut self.taken) {
            if !offer.selector.iter().all(|(key, value)| before.labels.get(key) == Some(value)) {
                continue;
            }
            match feasibility::host(offer, &before).first() {
                None => offer.free = offer.free.saturating_sub(1),
                Some(why) => {
                    if let Some(count) = taken.get_mut(&why.topic()) {
                        *count = count.saturating_sub(1);
                    }
                }
            }
            match feasibility::host(offer, host).first() {
                None => offer.free += 1,
                Some(why) => *taken.entry(why.topic()).or_default() += 1,
            }
            taken.retain(|_, count| *count > 0);
            offer.taken = feasibility::show_counts(taken);
        }
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
        let offers = narrowed.as_deref().unwrap_or(&self.offers);
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
            decision.hosts = match &narrowed {
                Some(offers) => kept(unplaced(&wanted, offers, &self.hosts, |host| bars.of(host))),
                None => {
                    let (offers, hosts) = (&self.offers, &self.hosts);
                    let all = self.unplaced.entry(wanted.node_type.clone());
                    all.or_insert_with(|| kept(unplaced(&wanted, offers, hosts, |_| Vec::new()))).clone()
                }
            };
            return Ok(Outcome { node_type: None, host: None, decision, records: vec![chosen.record] });
        };
        let placed = policies.place_within(&wanted, &offers[index], &self.hosts, |host| bars.of(host), seconds)?;
        let host = placed.chosen.first().copied();
        decision.node_type = Some(offers[index].name.clone());
        decision.cost = chosen.costs.get(index).copied().map(Cost::units);
        decision.host = placed.record.chosen.first().cloned();
        decision.reason = format!("{}; {}", chosen.record.summary, placed.record.summary);
        decision.hosts = kept(placed.record.candidates.iter().map(shown).collect());
        decision.policies.push(placed.record.policy.to_string());
        // One digest over both inputs: either changing changes it.
        decision.input_digest = crate::component::sha256(
            format!("{}{}", chosen.record.input_digest, placed.record.input_digest).as_bytes(),
        );
        Ok(Outcome { node_type: Some(index), host, decision, records: vec![chosen.record, placed.record] })
    }

    /// The offers as they are for a claim with bars: barred hosts are not free for it.
    fn narrowed(&self, bars: &Bars) -> Vec<Offer> {
        let mut offers = self.offers.clone();
        for offer in &mut offers {
            feasibility::count_capacity_within(offer, &self.hosts, |host| bars.of(host));
        }
        offers
    }
}

#[cfg(test)]
mod tests;
