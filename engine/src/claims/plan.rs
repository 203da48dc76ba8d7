//! What a round decides, claim by claim and group by group, before anything is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vmetal_lifecycle::claim::{Unit, units};
use vmetal_lifecycle::node::{self, Effect, Effected, View};
use vmetal_model::{Cause, Decision as Choice, Failure, GroupSpec, Host, HostPhase, TenantNode, Timestamp};
use vmetal_policy::{Bars, Outcome, PolicyError, Quotas, Recorded, Round};

mod group;

use super::{Place, Verdict};
use crate::engine::Engine;

type Claim = Arc<TenantNode>;

/// The fleet as one round sees it.
struct Sight<'a> {
    engine: &'a Engine,
    hosts: BTreeMap<String, Arc<Host>>,
    /// Those that wait on standby.
    standing_by: Vec<Arc<Host>>,
    round: Round,
    now: Timestamp,
    /// Decisions that came to nothing and are logged all the same: they say something new.
    told: BTreeSet<String>,
}

/// Decisions that came to nothing and are logged, of one round: the oldest claims'. More would only drive others from the log.
const TOLD: usize = 32;

impl Engine {
    /// Decides on all claims that have no answer yet: were it only on those that happened to ask first, these would come
    /// before older ones. Computes only.
    pub(super) fn plan(&self) -> (Vec<Verdict>, Option<Recorded>) {
        let nodes = self.fleet.nodes();
        let mut sight = self.sight(&nodes);
        let now = sight.now;
        if let Some(name) = self.decisions.next_round() {
            sight.round = sight.round.recorded_as(name);
        }
        let units = units(&nodes, |node| self.is_open(node, now));
        let verdicts: Vec<Verdict> = units.into_iter().flat_map(|unit| sight.unit(unit)).collect();
        let Sight { round, mut told, .. } = sight;
        told.extend(verdicts.iter().flat_map(Verdict::logged));
        let recorded = round.end(&self.policies).and_then(|recorded| recorded.keeping(|id| told.contains(id)));
        (verdicts, recorded)
    }
}

impl Engine {
    /// A look at the fleet.
    fn sight(&self, nodes: &[Claim]) -> Sight<'_> {
        let (hosts, view) = self.fleet.look();
        let now = self.now();
        let node_types = self.fleet.node_types();
        let quotas = Quotas::of(&self.clusters(), &node_types, nodes);
        let round = Round::new(&node_types, view, now).within(quotas).on(self.networks());
        let standing_by = hosts.values().filter(|host| host.status.phase == HostPhase::Standby).cloned().collect();
        Sight { engine: self, hosts, standing_by, round, now, told: BTreeSet::new() }
    }

    /// What would be decided for claims that nobody has declared: one after the other, each as if those before it had their
    /// hosts; or, where they are a group, all together. Computes only, and nothing is logged.
    ///
    /// # Errors
    /// How a policy fails.
    pub(crate) fn foresee(&self, claims: &[Claim], group: Option<&GroupSpec>) -> Result<Vec<Choice>, Failure> {
        let mut sight = self.sight(&self.fleet.nodes());
        match group {
            None => claims.iter().map(|node| sight.promise(node)).collect(),
            Some(group) => sight.foresee_group(group, &claims.iter().collect::<Vec<_>>()),
        }
    }

    /// Whether a claim is this engine's to decide on, and wants a decision now.
    fn is_open(&self, node: &TenantNode, now: Timestamp) -> bool {
        if self.hold_of(node).is_none() {
            return false;
        }
        let host = self.fleet.host_of(node);
        let step = node::step(View { node, host: host.as_deref() }, &self.limits, now);
        let vmetal_model::Metadata { uid, generation, .. } = &node.metadata;
        step.effect == Some(Effect::Decide)
            && self.questions.due(uid, *generation, now, self.limits.decide_again).is_none()
    }
}

impl Engine {
    /// Hosts on standby with another image than a claim would install there.
    fn kept_for_others(&self, node: &TenantNode, hosts: &[Arc<Host>]) -> BTreeSet<String> {
        let digest = |image: &str| self.fleet.image(image).and_then(|image| image.status.digest.clone());
        let own = node.spec.image.as_deref().map(digest);
        let other = |host: &&Arc<Host>| {
            host.status.on_standby().is_some_and(|standby| {
                // What waits there keeps the network that it was installed with.
                if self.network_for(node, Some(&standby.node_type)).is_some() {
                    return true;
                }
                let of_type = || self.fleet.node_type(&standby.node_type)?.spec.image.as_deref().and_then(digest);
                own.clone().unwrap_or_else(of_type).as_ref() != Some(&standby.image)
            })
        };
        hosts.iter().filter(other).map(|host| host.name().to_owned()).collect()
    }
}

impl Sight<'_> {
    fn unit(&mut self, unit: Unit<'_, Claim>) -> Vec<Verdict> {
        match unit {
            Unit::One(node) => {
                let bars = self.bars(node, None);
                vec![match self.choose(node, &bars) {
                    Ok((Some(host), choice)) => Verdict::Reserve(vec![self.place(node, host, choice)]),
                    Ok((None, choice)) => self.told(node, choice),
                    Err(failure) => told(node, Err(failure)),
                }]
            }
            Unit::Elsewhere(node) => {
                let bars = self.bars(node, None);
                vec![match self.choose(node, &bars) {
                    Ok((host, choice)) => {
                        // One spare host is hope for one claim only.
                        if let Some(host) = host {
                            self.round.take(host.name(), node, choice.node_type.as_deref());
                        }
                        self.told(node, choice)
                    }
                    Err(failure) => told(node, Err(failure)),
                }]
            }
            Unit::Broken { waiting, why } => {
                waiting.into_iter().map(|node| told(node, Ok(Effected::Gathering(why.clone())))).collect()
            }
            Unit::Group { spec, waiting, seated } => self.group(spec, &waiting, &seated),
        }
    }

    /// Tells a claim that there is nothing for it. What it was told before is not logged again.
    fn told(&mut self, node: &Claim, mut choice: Choice) -> Verdict {
        let before = node.status.decision.as_ref().map(|decision| &decision.reason);
        choice.log = choice.log.take().filter(|_| before != Some(&choice.reason) && self.told.len() < TOLD);
        self.told.extend(choice.log.clone());
        told(node, Ok(Effected::Decided(choice, None)))
    }

    /// What would be decided for a claim; the host is taken by it.
    fn promise(&mut self, node: &Claim) -> Result<Choice, Failure> {
        let (host, choice) = self.choose(node, &Bars::none())?;
        if let Some(host) = host {
            self.round.take(host.name(), node, choice.node_type.as_deref());
        }
        Ok(choice)
    }

    fn place(&mut self, node: &Claim, host: Arc<Host>, choice: Choice) -> Place {
        self.round.take(host.name(), node, choice.node_type.as_deref());
        Place { node: Arc::clone(node), host, choice }
    }

    /// A host for a claim, as the round sees it, and how it was chosen.
    fn choose(&mut self, node: &TenantNode, bars: &Bars) -> Result<(Option<Arc<Host>>, Choice), Failure> {
        let (hosts, choice) = self.choose_together(node, 1, bars)?;
        Ok((hosts.into_iter().next(), choice))
    }

    /// Hosts for so many claims that ask for the same, all of them or none, as the round sees it; and how they were chosen.
    fn choose_together(
        &mut self,
        node: &TenantNode,
        count: u32,
        bars: &Bars,
    ) -> Result<(Vec<Arc<Host>>, Choice), Failure> {
        let decided = self.decide(node, count, bars);
        let outcome = decided.map_err(|error| self.failed(node, &error))?;
        let hosts = outcome.hosts();
        let mut decision = outcome.decision;
        let hosts: Vec<_> = hosts.iter().filter_map(|name| self.hosts.get(name).cloned()).collect();
        let leaving = self.engine.leaving(node, decision.node_type.as_deref());
        match leaving.filter(|_| !hosts.is_empty()) {
            Some(why) => {
                decision.host = None;
                decision.reason = why;
                Ok((Vec::new(), decision))
            }
            None => Ok((hosts, decision)),
        }
    }

    /// What the policies say. A host that is on standby with another image than the claim's would lose what it waits with: it
    /// is left to others as long as there is another host.
    fn decide(&mut self, node: &TenantNode, count: u32, bars: &Bars) -> Result<Outcome, PolicyError> {
        let policies = &self.engine.policies;
        let spare = self.engine.kept_for_others(node, &self.standing_by);
        if !spare.is_empty() {
            let outcome = self.round.decide_together(policies, node, count, &Bars { spare, ..bars.clone() })?;
            if outcome.host.is_some() {
                return Ok(outcome);
            }
        }
        self.round.decide_together(policies, node, count, bars)
    }

    /// How a policy failed. A claim that fails as before is not logged again.
    fn failed(&mut self, node: &TenantNode, error: &PolicyError) -> Failure {
        let failure = self.failure(error);
        let before = node.status.failure.as_ref().map(|failure| &failure.message);
        if before != Some(&failure.message) && self.told.len() < TOLD {
            self.told.extend(self.round.last_decision());
        }
        failure
    }

    fn failure(&self, error: &PolicyError) -> Failure {
        Failure {
            cause: Cause::Policy,
            message: format!("the policy gave no usable answer: {error}"),
            advice: "look at the policy; the claim waits and is decided again".to_owned(),
            at: self.now,
        }
    }

    fn bars(&self, node: &TenantNode, domain: Option<(&str, &str)>) -> Bars {
        let mut bars = Bars { domain: domain.map(|(key, value)| (key.to_owned(), value.to_owned())), ..Bars::none() };
        for tried in &node.status.tried {
            // A new host of an old name was not tried.
            let same = self.engine.fleet.host(&tried.host).is_some_and(|host| host.metadata.uid == tried.host_uid);
            if same {
                bars.tried.insert(tried.host.clone(), tried.failure.message.clone());
            }
        }
        bars
    }
}

impl Verdict {
    /// The names, in the log, of the decisions that it carries out.
    fn logged(&self) -> Vec<String> {
        match self {
            Verdict::Reserve(places) => places.iter().filter_map(|place| place.choice.log.clone()).collect(),
            Verdict::Told { .. } => Vec::new(),
        }
    }
}

fn told(node: &Claim, result: Result<Effected, Failure>) -> Verdict {
    Verdict::Told { node: Arc::clone(node), result }
}
