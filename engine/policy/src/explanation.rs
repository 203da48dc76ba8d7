//! Decisions in full: every candidate with the parts of its price or score, and what it would take to have others.

use vmetal_model::{Basis, Explained, Explanation, Remedy, Term};

use crate::decision::Record;
use crate::engine::PolicyEngine;
use crate::error::PolicyError;
use crate::feasibility::gates;
use crate::feasibility::{self, Rejection};
use crate::input::{Offer, Wanted};
use crate::outcome::Outcome;
use crate::round::{Bars, Except, Round};

/// Hosts whose scores are taken apart: each costs a call of the policy.
const TAKEN_APART: usize = 8;
/// Changes that are told.
const NEAREST: usize = 5;

impl Round {
    /// Decides, and explains the decision. Nothing is taken, and nothing written down.
    ///
    /// # Errors
    /// When a policy fails.
    pub fn explain(
        &mut self,
        policies: &PolicyEngine,
        wanted: &Wanted,
        bars: &Bars,
        basis: Basis,
    ) -> Result<Explanation, PolicyError> {
        let Outcome { node_type, decision, records, .. } = self.decide_on(policies, wanted, bars)?;
        let now = self.seconds();
        let (offers, gates) = self.narrowed(bars);
        let mut node_types = records.first().map(|record| values(record, true)).unwrap_or_default();
        for (index, row) in node_types.iter_mut().enumerate() {
            row.terms = terms(policies.explain_price(wanted, &offers, index, now)?);
        }
        let mut hosts = records.get(1).map(|record| values(record, false)).unwrap_or_default();
        if let Some(index) = node_type {
            let except = Except { taken: self.taken(), bars };
            for row in hosts.iter_mut().filter(|row| row.feasible).take(TAKEN_APART) {
                let (offer, gates) = (&offers[index], &gates[index]);
                let parts = policies.explain_gated(wanted, offer, self.fleet(), gates, except, &row.name, now)?;
                row.terms = terms(parts);
            }
        }
        let nearest = self.nearest(wanted, &offers, node_type, bars);
        Ok(Explanation { node: wanted.name.clone(), decision, basis, node_types, hosts, nearest })
    }

    /// What would let the claim have node types, where none fits, and hosts: the least change first.
    fn nearest(&self, wanted: &Wanted, offers: &[Offer], chosen: Option<usize>, bars: &Bars) -> Vec<Remedy> {
        let mut types: Vec<Remedy> = match chosen {
            Some(_) => Vec::new(),
            None => {
                offers.iter().map(|offer| change(&offer.name, None, &feasibility::node_type(wanted, offer))).collect()
            }
        };
        types.sort_by(|a, b| a.steps.len().cmp(&b.steps.len()).then_with(|| a.candidate.cmp(&b.candidate)));
        types.truncate(NEAREST);
        let asked: Vec<&Offer> = match chosen {
            Some(index) => offers.get(index).into_iter().collect(),
            None => offers.iter().filter(|o| wanted.node_type.as_ref().is_none_or(|name| *name == o.name)).collect(),
        };
        let except = Except { taken: self.taken(), bars };
        let missed = |slot: usize| {
            let of = |offer: &&Offer| (gates::rejections(offer, self.fleet(), slot, except), offer.name.clone());
            asked.iter().map(of).filter(|(found, _)| !found.is_empty()).min_by_key(|(found, _)| found.len())
        };
        let table = &self.fleet().table;
        // In the order of names, so that equal ones stay in it.
        let mut hosts: Vec<(usize, Vec<Rejection>, String)> = table
            .order
            .iter()
            .filter_map(|slot| missed(*slot as usize).map(|(found, name)| (*slot as usize, found, name)))
            .collect();
        hosts.sort_by_key(|(_, found, _)| found.len());
        let hosts = hosts.into_iter().take(NEAREST);
        types.extend(hosts.map(|(slot, found, of)| change(table.name(slot), Some(of), &found)));
        types.retain(|change| !change.steps.is_empty());
        types
    }
}

fn change(candidate: &str, node_type: Option<String>, found: &[Rejection]) -> Remedy {
    Remedy { candidate: candidate.to_owned(), node_type, steps: found.iter().map(Rejection::remedy).collect() }
}

fn values(record: &Record, prices: bool) -> Vec<Explained> {
    let explained = |row: &crate::decision::Candidate| Explained {
        name: row.name.clone(),
        feasible: row.feasible,
        reason: row.reason.clone(),
        value: if prices { row.cost.map_or(0, crate::cost::Cost::micro) } else { row.score },
        terms: Vec::new(),
    };
    record.candidates.iter().map(explained).collect()
}

fn terms(parts: Vec<(String, i64)>) -> Vec<Term> {
    parts.into_iter().map(|(label, amount)| Term { label, amount }).collect()
}
