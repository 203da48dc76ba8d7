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
use crate::decision::Record;
use crate::engine::PolicyEngine;
use crate::error::PolicyError;
use crate::feasibility::Rejection;
use crate::feasibility::gates::Gates;
use crate::input::{HostRow, Offer, Wanted};
use crate::journal::{self, Decided, Decider, FleetNews, Journal, Part, Step};
use crate::network::Networks;
use crate::outcome::{Outcome, shown, unplaced};
use crate::quota::Quotas;

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
    /// What clusters may hold, and what they hold with what was promised since.
    quotas: Quotas,
    /// Per taken host: the cluster that it counts for, and as one of which type.
    counted: HashMap<String, (String, String)>,
    /// What is left of the networks that claims get addresses of.
    networks: Networks,
    /// Per taken host: the network that it has an address of.
    leased: HashMap<String, String>,
    /// Hosts as seen by claims for which no node type was chosen, by the type they name; until something is taken.
    unplaced: HashMap<Option<String>, Vec<model::Candidate>>,
    now: Timestamp,
    recorder: Option<Recorder>,
}

/// Writes down what happens in a round.
struct Recorder {
    round: String,
    deciders: Vec<Decider>,
    steps: Vec<Step>,
    decisions: u32,
}

/// A round that is over, with all that was written down of it.
pub struct Recorded {
    /// The fleet that was decided over.
    pub fleet: View,
    journal: Journal,
}

impl Recorded {
    /// Leaves out the decisions that nobody acted on: `keep` says which matter. None when none is left.
    pub fn keeping(mut self, keep: impl Fn(&str) -> bool) -> Option<Self> {
        let round = self.journal.round.clone();
        self.journal.steps.retain(|step| match step {
            Step::Decided(decided) => keep(&journal::id(&round, decided.number)),
            Step::Took { .. } | Step::GaveBack { .. } => true,
        });
        let any = self.journal.decisions().next().is_some();
        any.then_some(self)
    }

    /// The journal for whoever knows another fleet, or none.
    pub fn journal(self, known: Option<&View>) -> Journal {
        Journal { fleet: self.fleet.news_since(known), ..self.journal }
    }
}

impl Round {
    /// Looks at the fleet. The order of `node_types` does not matter.
    pub fn new(node_types: &[impl Borrow<model::NodeType>], fleet: View, now: Timestamp) -> Self {
        Round::over(node_types.iter().map(|one| Offer::without_capacity(one.borrow())).collect(), fleet, now)
    }

    /// The same with node types that are given in words, nothing said about capacity.
    pub(crate) fn over(offers: Vec<Offer>, fleet: View, now: Timestamp) -> Self {
        let gated = |mut offer: Offer| {
            let gates = Gates::of(&offer, &fleet);
            gates.fill_in(&mut offer, &fleet, &Bars::none());
            (offer, gates)
        };
        let (offers, gates) = offers.into_iter().map(gated).unzip();
        Round {
            fleet,
            offers,
            gates,
            taken: Taken::new(),
            before: HashMap::new(),
            quotas: Quotas::default(),
            counted: HashMap::new(),
            networks: Networks::default(),
            leased: HashMap::new(),
            unplaced: HashMap::new(),
            now,
            recorder: None,
        }
    }

    /// Keeps claims within the quotas of their clusters.
    #[must_use]
    pub fn within(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// Keeps claims within the addresses that their networks have left.
    #[must_use]
    pub fn on(mut self, networks: Networks) -> Self {
        self.networks = networks;
        self
    }

    /// What a tenant node's claim asks, with the limits of its cluster as they are now.
    pub fn wanted(&self, node: &model::TenantNode) -> Wanted {
        self.wanted_by(node, 1)
    }

    /// The same of so many tenant nodes that ask for the same.
    fn wanted_by(&self, node: &model::TenantNode, count: u32) -> Wanted {
        let (quota, used_up) = (self.quotas.limits(node), self.networks.used_up(node, count));
        Wanted { count, quota, used_up, ..Wanted::from_model(node) }
    }

    /// Writes down from now on what happens, under the name of the round.
    #[must_use]
    pub fn recorded_as(mut self, round: String) -> Self {
        self.recorder = Some(Recorder { round, deciders: Vec::new(), steps: Vec::new(), decisions: 0 });
        self
    }

    /// The name of the decision that was written down last.
    pub fn last_decision(&self) -> Option<String> {
        let recorder = self.recorder.as_ref()?;
        Some(journal::id(&recorder.round, recorder.decisions.checked_sub(1)?))
    }

    /// Ends the round. None when nothing was written down.
    pub fn end(self, policies: &PolicyEngine) -> Option<Recorded> {
        let Recorder { round, deciders, steps, .. } = self.recorder?;
        let bare = |offer: Offer| Offer { total: 0, free: 0, standby: 0, taken: String::new(), ..offer };
        let fleet = FleetNews { whole: None, put: Vec::new(), gone: Vec::new(), digest: String::new() };
        let node_types = self.offers.into_iter().map(bare).collect();
        let kept = policies.hosts_kept();
        let journal = Journal { round, at: self.now, fleet, node_types, deciders, kept, steps };
        Some(Recorded { fleet: self.fleet, journal })
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

    /// From now on the host is claimed, as one of the node type that was chosen.
    pub fn take(&mut self, host: &str, by: &model::TenantNode, node_type: Option<&str>) {
        self.promise(host, by.name(), &by.spec.cluster);
        if !self.quotas.is_empty() {
            let counted = (by.spec.cluster.clone(), node_type.unwrap_or_default().to_owned());
            self.quotas.take(&counted.0, &counted.1);
            self.counted.insert(host.to_owned(), counted);
        }
        if let Some(network) = self.networks.take(by, node_type.unwrap_or_default()) {
            self.leased.insert(host.to_owned(), network);
        }
    }

    pub(crate) fn promise(&mut self, host: &str, node: &str, cluster: &str) {
        let Some(slot) = self.fleet.table.slot(host) else { return };
        self.give_back(host);
        let (node, cluster) = (node.to_owned(), cluster.to_owned());
        if let Some(recorder) = &mut self.recorder {
            recorder.steps.push(Step::Took { host: host.to_owned(), node: node.clone(), cluster: cluster.clone() });
        }
        self.taken.insert(host.to_owned(), Promise { node, cluster });
        let before = self.gates.iter_mut().map(|gates| gates.take(slot)).collect();
        self.before.insert(host.to_owned(), before);
        self.recount();
    }

    /// The host is free again: what it was taken for comes to nothing.
    pub fn give_back(&mut self, host: &str) {
        let (Some(slot), Some(before)) = (self.fleet.table.slot(host), self.before.remove(host)) else { return };
        if let Some(recorder) = &mut self.recorder {
            recorder.steps.push(Step::GaveBack { host: host.to_owned() });
        }
        self.taken.remove(host);
        if let Some((cluster, node_type)) = self.counted.remove(host) {
            self.quotas.give_back(&cluster, &node_type);
        }
        if let Some(network) = self.leased.remove(host) {
            self.networks.give_back(&network);
        }
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
        self.decide_together(policies, node, 1, bars)
    }

    /// Chooses a node type, and of it hosts for so many tenant nodes that ask for the same: all of them, or none. The policies
    /// are asked once, and see how many are wanted. Nothing is taken by it.
    ///
    /// # Errors
    /// As [`Round::decide`].
    pub fn decide_together(
        &mut self,
        policies: &PolicyEngine,
        node: &model::TenantNode,
        count: u32,
        bars: &Bars,
    ) -> Result<Outcome, PolicyError> {
        let wanted = self.wanted_by(node, count);
        let mut outcome = self.decide_on(policies, &wanted, bars);
        if let Some(recorder) = &mut self.recorder {
            let id = recorder.decided(wanted, bars, &outcome, policies);
            if let Ok(outcome) = &mut outcome {
                outcome.decision.log = Some(id);
            }
        }
        outcome
    }

    /// The same for a claim in words; nothing is written down.
    pub(crate) fn decide_on(
        &mut self,
        policies: &PolicyEngine,
        wanted: &Wanted,
        bars: &Bars,
    ) -> Result<Outcome, PolicyError> {
        let narrowed = (!bars.is_empty()).then(|| self.narrowed(bars));
        let (offers, gates) = narrowed.as_ref().map_or((&self.offers, &self.gates), |(offers, gates)| (offers, gates));
        let seconds = self.seconds();
        let chosen = policies.choose_type(wanted, offers, seconds)?;
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
            log: None,
        };
        let Some(index) = chosen.chosen else {
            let except = Except { taken: &self.taken, bars };
            let all = || unplaced(wanted, offers, &self.fleet, except, policies.hosts_kept());
            decision.hosts = match &narrowed {
                Some(_) => all(),
                None => self.unplaced.entry(wanted.node_type.clone()).or_insert_with(all).clone(),
            };
            return Ok(Outcome {
                node_type: None,
                host: None,
                others: Vec::new(),
                decision,
                records: vec![chosen.record],
            });
        };
        let except = Except { taken: &self.taken, bars };
        let placed = policies.place_gated(wanted, &offers[index], &self.fleet, &gates[index], except, seconds)?;
        decision.node_type = Some(offers[index].name.clone());
        decision.cost = chosen.costs.get(index).copied().map(Cost::units);
        let mut hosts = placed.chosen.into_iter();
        let (host, others) = (hosts.next(), hosts.collect());
        decision.host.clone_from(&host);
        decision.reason = format!("{}; {}", chosen.record.summary, placed.record.summary);
        decision.hosts = placed.record.candidates.iter().map(shown).collect();
        decision.policies.push(placed.record.policy.to_string());
        // One digest over both inputs: either changing changes it.
        decision.input_digest = crate::component::sha256(
            format!("{}{}", chosen.record.input_digest, placed.record.input_digest).as_bytes(),
        );
        Ok(Outcome { node_type: Some(index), host, others, decision, records: vec![chosen.record, placed.record] })
    }

    /// The node type that a policy chooses, and its sentence.
    pub(crate) fn choose_again(
        &self,
        policies: &PolicyEngine,
        wanted: &Wanted,
        bars: &Bars,
    ) -> Result<(Option<String>, String), PolicyError> {
        let (offers, _) = self.narrowed(bars);
        let chosen = policies.choose_type(wanted, &offers, self.seconds())?;
        Ok((chosen.chosen.map(|index| offers[index].name.clone()), chosen.record.summary))
    }

    /// The hosts of a node type that a policy chooses, and its sentence.
    pub(crate) fn place_again(
        &self,
        policies: &PolicyEngine,
        wanted: &Wanted,
        bars: &Bars,
        node_type: &str,
    ) -> Result<(Vec<String>, String), PolicyError> {
        let (offers, gates) = self.narrowed(bars);
        let Some(index) = offers.iter().position(|offer| offer.name == node_type) else {
            return Ok((Vec::new(), format!("there is no node type {node_type}")));
        };
        let except = Except { taken: &self.taken, bars };
        let placed =
            policies.place_gated(wanted, &offers[index], &self.fleet, &gates[index], except, self.seconds())?;
        Ok((placed.chosen, placed.record.summary))
    }

    /// The time of the round, as policies are told.
    pub(crate) fn seconds(&self) -> u64 {
        u64::try_from(self.now.as_second()).unwrap_or(0)
    }

    pub(crate) fn fleet(&self) -> &View {
        &self.fleet
    }

    pub(crate) fn taken(&self) -> &Taken {
        &self.taken
    }

    /// Offers and rules as they are for a claim with bars: barred hosts are not free for it.
    pub(crate) fn narrowed(&self, bars: &Bars) -> (Vec<Offer>, Vec<Gates>) {
        let narrowed = |(offer, gates): (&Offer, &Gates)| {
            let (mut offer, gates) = (offer.clone(), gates.barred(&self.fleet, bars));
            gates.fill_in(&mut offer, &self.fleet, bars);
            (offer, gates)
        };
        self.offers.iter().zip(&self.gates).map(narrowed).unzip()
    }
}

impl Recorder {
    /// Writes down a decision; gives its name.
    fn decided(
        &mut self,
        wanted: Wanted,
        bars: &Bars,
        outcome: &Result<Outcome, PolicyError>,
        policies: &PolicyEngine,
    ) -> String {
        let number = self.decisions;
        self.decisions += 1;
        let records = outcome.as_ref().map(|outcome| outcome.records.as_slice()).unwrap_or_default();
        let mut parts: Vec<Part> = records.iter().map(|record| self.part(record)).collect();
        let (node_type, host, others, reason, answer) = match outcome {
            Ok(outcome) => {
                let decision = &outcome.decision;
                let answer = journal::answer_digest(records);
                let (host, others) = (outcome.host.clone(), outcome.others.clone());
                (decision.node_type.clone(), host, others, decision.reason.clone(), answer)
            }
            Err(error) => {
                // Who failed is known, over which input is not: there is no record of it.
                let seated = policies.deciders().map(|decider| self.decider(decider));
                parts.extend(seated.map(|decider| Part { decider, input_digest: String::new(), stood_in_for: None }));
                (None, None, Vec::new(), error.to_string(), String::new())
            }
        };
        let bars = bars.clone();
        let decided = Decided { number, wanted, bars, parts, node_type, host, others, reason, answer };
        self.steps.push(Step::Decided(Box::new(decided)));
        journal::id(&self.round, number)
    }

    fn part(&mut self, record: &Record) -> Part {
        let decider =
            Decider { kind: record.kind.clone(), policy: record.policy.clone(), settings: record.settings.clone() };
        Part {
            decider: self.decider(decider),
            input_digest: record.input_digest.clone(),
            stood_in_for: record.stood_in_for.clone(),
        }
    }

    fn decider(&mut self, decider: Decider) -> usize {
        self.deciders.iter().position(|known| *known == decider).unwrap_or_else(|| {
            self.deciders.push(decider);
            self.deciders.len() - 1
        })
    }
}

#[cfg(test)]
mod tests;
