//! What a round decides, claim by claim and group by group, before anything is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vmetal_lifecycle::claim::{Unit, units};
use vmetal_lifecycle::node::{self, Effect, Effected, View};
use vmetal_model::{Cause, Decision as Choice, Failure, GroupSpec, Host, HostPhase, TenantNode, Timestamp};
use vmetal_policy::{Bars, Outcome, PolicyError, Quotas, Recorded, Round};

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

/// The members of a group that found hosts, and the first that did not.
struct Attempt {
    places: Vec<Place>,
    failed: Option<(Claim, Result<Choice, Failure>)>,
}

impl Engine {
    /// Decides on all claims that have no answer yet: were it only on those that happened to ask first, these would come
    /// before older ones. Computes only.
    pub(super) fn plan(&self) -> (Vec<Verdict>, Option<Recorded>) {
        let nodes = self.fleet.nodes();
        let (hosts, view) = self.fleet.look();
        let now = self.now();
        let node_types = self.fleet.node_types();
        let quotas = Quotas::of(&self.clusters(), &node_types, &nodes);
        let mut round = Round::new(&node_types, view, now).within(quotas);
        if let Some(name) = self.decisions.next_round() {
            round = round.recorded_as(name);
        }
        let standing_by = hosts.values().filter(|host| host.status.phase == HostPhase::Standby).cloned().collect();
        let mut sight = Sight { engine: self, hosts, standing_by, round, now, told: BTreeSet::new() };
        let units = units(&nodes, |node| self.is_open(node, now));
        let verdicts: Vec<Verdict> = units.into_iter().flat_map(|unit| sight.unit(unit)).collect();
        let Sight { round, mut told, .. } = sight;
        told.extend(verdicts.iter().flat_map(Verdict::logged));
        let recorded = round.end(&self.policies).and_then(|recorded| recorded.keeping(|id| told.contains(id)));
        (verdicts, recorded)
    }
}

impl Engine {
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

    fn place(&mut self, node: &Claim, host: Arc<Host>, choice: Choice) -> Place {
        self.round.take(host.name(), node, choice.node_type.as_deref());
        Place { node: Arc::clone(node), host, choice }
    }

    /// A host for a claim, as the round sees it, and how it was chosen.
    fn choose(&mut self, node: &TenantNode, bars: &Bars) -> Result<(Option<Arc<Host>>, Choice), Failure> {
        let decided = self.decide(node, bars);
        let Outcome { host, mut decision, .. } = decided.map_err(|error| self.failed(node, &error))?;
        let host = host.and_then(|name| self.hosts.get(&name).cloned());
        let leaving = self.engine.leaving(node, decision.node_type.as_deref());
        match leaving.filter(|_| host.is_some()) {
            Some(why) => {
                decision.host = None;
                decision.reason = why;
                Ok((None, decision))
            }
            None => Ok((host, decision)),
        }
    }

    /// What the policies say. A host that is on standby with another image than the claim's would lose what it waits with: it
    /// is left to others as long as there is another host.
    fn decide(&mut self, node: &TenantNode, bars: &Bars) -> Result<Outcome, PolicyError> {
        let spare = self.engine.kept_for_others(node, &self.standing_by);
        if !spare.is_empty() {
            let outcome = self.round.decide(&self.engine.policies, node, &Bars { spare, ..bars.clone() })?;
            if outcome.host.is_some() {
                return Ok(outcome);
            }
        }
        self.round.decide(&self.engine.policies, node, bars)
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

    /// Hosts for all waiting members, or for none.
    fn group(&mut self, spec: &GroupSpec, waiting: &[&Claim], seated: &[&Claim]) -> Vec<Verdict> {
        let mut best: Option<Attempt> = None;
        for domain in self.domains(spec, waiting.len(), seated) {
            let attempt = self.attempt(spec, waiting, domain.as_deref());
            if attempt.failed.is_none() {
                return vec![Verdict::Reserve(attempt.places)];
            }
            for place in &attempt.places {
                self.round.give_back(place.host.name());
            }
            if best.as_ref().is_none_or(|best| best.places.len() < attempt.places.len()) {
                best = Some(attempt);
            }
        }
        let Some(Attempt { places, failed: Some((last, failed)) }) = best else {
            let why = format!("no host has the label {}", spec.same.as_deref().unwrap_or_default());
            return waiting.iter().map(|node| told(node, Ok(Effected::Gathering(why.clone())))).collect();
        };
        let choice = match failed {
            Ok(choice) => choice,
            Err(failure) => return waiting.iter().map(|node| told(node, Err(failure.clone()))).collect(),
        };
        let reason = format!(
            "{} of the {} hosts that group {} waits for can be had{}; tenant node {}: {}",
            places.len(),
            waiting.len(),
            spec.name,
            spec.same.as_ref().map_or_else(String::new, |label| format!(" in one {label}")),
            last.name(),
            choice.reason
        );
        let placed: BTreeMap<&str, &Choice> = places.iter().map(|place| (place.node.name(), &place.choice)).collect();
        let each = |node: &&Claim| {
            let own = placed.get(node.name()).copied().unwrap_or(&choice);
            self.told(node, Choice { host: None, reason: reason.clone(), ..own.clone() })
        };
        waiting.iter().map(each).collect()
    }

    fn attempt(&mut self, spec: &GroupSpec, waiting: &[&Claim], domain: Option<&str>) -> Attempt {
        let mut places = Vec::with_capacity(waiting.len());
        for node in waiting {
            let bars = self.bars(node, spec.same.as_deref().zip(domain));
            match self.choose(node, &bars) {
                Ok((Some(host), choice)) => places.push(self.place(node, host, choice)),
                Ok((None, choice)) => return Attempt { places, failed: Some(((*node).clone(), Ok(choice))) },
                Err(failure) => return Attempt { places, failed: Some(((*node).clone(), Err(failure))) },
            }
        }
        Attempt { places, failed: None }
    }

    /// Where the waiting members may go: where the others are, else the domains in the order in which they are tried. The
    /// one that just suffices comes first, so that large ones stay whole for large groups; of those that do not suffice,
    /// only the one that comes closest, for the reason that it gives.
    fn domains(&self, spec: &GroupSpec, waiting: usize, seated: &[&Claim]) -> Vec<Option<String>> {
        let Some(label) = &spec.same else { return vec![None] };
        let of_host = |node: &&Claim| {
            let host = self.engine.fleet.host_of(node)?;
            host.metadata.labels.get(label).cloned()
        };
        if let Some(theirs) = seated.iter().find_map(of_host) {
            return vec![Some(theirs)];
        }
        let mut order: Vec<(String, usize)> = self.round.free_by_label(label).into_iter().collect();
        order.sort_by_key(|(_, free)| if *free >= waiting { (0, *free) } else { (1, usize::MAX - *free) });
        let enough = order.iter().filter(|(_, free)| *free >= waiting).count();
        order.into_iter().take(enough.max(1)).map(|(value, _)| Some(value)).collect()
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
