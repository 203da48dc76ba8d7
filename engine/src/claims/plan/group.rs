//! Groups: hosts for all waiting members, or for none.
//!
//! Members that ask for the same are one decision, if one node type has room for all of them: the policies see how many are
//! wanted, and choose all the hosts at once, so a policy for gangs decides on a gang. Where no node type has that room, and for
//! members that differ, it is decided member by member, each as if those before it had their hosts.

use vmetal_lifecycle::node::Effected;
use vmetal_model::{Decision as Choice, Failure, GroupSpec, TenantNodeSpec};
use vmetal_policy::Bars;

use super::{Claim, Sight, told};
use crate::claims::{Place, Verdict};

/// What comes of a group.
enum Outcome {
    /// Hosts for all.
    Placed(Vec<Place>),
    /// Hosts for none: what each is told, in the order of the members.
    Short(Vec<Choice>),
    /// There is nothing to decide on: why not.
    Nowhere(String),
    /// A policy fails.
    Failed(Failure),
}

/// The members of a group that found hosts, and what was said of the others.
struct Attempt {
    places: Vec<Place>,
    failed: Option<Miss>,
}

/// Why a group does not get its hosts.
struct Miss {
    /// Who got none; nobody, when it was decided on all of them together.
    member: Option<Claim>,
    result: Result<Choice, Failure>,
}

impl Attempt {
    fn missed(places: Vec<Place>, member: Option<&Claim>, result: Result<Choice, Failure>) -> Self {
        Attempt { places, failed: Some(Miss { member: member.cloned(), result }) }
    }
}

impl Sight<'_> {
    /// Hosts for all waiting members, or for none.
    pub(super) fn group(&mut self, spec: &GroupSpec, waiting: &[&Claim], seated: &[&Claim]) -> Vec<Verdict> {
        match self.together(spec, waiting, seated) {
            Outcome::Placed(places) => vec![Verdict::Reserve(places)],
            Outcome::Short(choices) => {
                waiting.iter().zip(choices).map(|(node, choice)| self.told(node, choice)).collect()
            }
            Outcome::Nowhere(why) => {
                waiting.iter().map(|node| told(node, Ok(Effected::Gathering(why.clone())))).collect()
            }
            Outcome::Failed(failure) => waiting.iter().map(|node| told(node, Err(failure.clone()))).collect(),
        }
    }

    /// What would be decided for the members of a group, of which none has a host yet.
    pub(super) fn foresee_group(&mut self, spec: &GroupSpec, members: &[&Claim]) -> Result<Vec<Choice>, Failure> {
        match self.together(spec, members, &[]) {
            Outcome::Placed(places) => Ok(places.into_iter().map(|place| place.choice).collect()),
            Outcome::Short(choices) => Ok(choices),
            // What there would be for each alone says which node types fit.
            Outcome::Nowhere(why) => {
                let alone = |node: &&Claim| {
                    let (_, choice) = self.choose(node, &Bars::none())?;
                    Ok(Choice { host: None, reason: why.clone(), ..choice })
                };
                members.iter().map(alone).collect()
            }
            Outcome::Failed(failure) => Err(failure),
        }
    }

    fn together(&mut self, spec: &GroupSpec, waiting: &[&Claim], seated: &[&Claim]) -> Outcome {
        let mut best: Option<Attempt> = None;
        for domain in self.domains(spec, waiting.len(), seated) {
            let attempt = self.attempt(spec, waiting, domain.as_deref());
            if attempt.failed.is_none() {
                return Outcome::Placed(attempt.places);
            }
            for place in &attempt.places {
                self.round.give_back(place.host.name());
            }
            if best.as_ref().is_none_or(|best| best.places.len() < attempt.places.len()) {
                best = Some(attempt);
            }
        }
        let Some(Attempt { places, failed: Some(Miss { member, result }) }) = best else {
            return Outcome::Nowhere(format!("no host has the label {}", spec.same.as_deref().unwrap_or_default()));
        };
        let choice = match result {
            Ok(choice) => choice,
            Err(failure) => return Outcome::Failed(failure),
        };
        let within = spec.same.as_ref().map_or_else(String::new, |label| format!(" in one {label}"));
        let reason = match member {
            Some(member) => format!(
                "{} of the {} hosts that group {} waits for can be had{within}; tenant node {}: {}",
                places.len(),
                waiting.len(),
                spec.name,
                member.name(),
                choice.reason
            ),
            None => format!("group {} waits for {} hosts{within}; {}", spec.name, waiting.len(), choice.reason),
        };
        let of = |node: &Claim| places.iter().find(|place| place.node.name() == node.name()).map(|place| &place.choice);
        let each = |node: &&Claim| Choice { host: None, reason: reason.clone(), ..of(node).unwrap_or(&choice).clone() };
        Outcome::Short(waiting.iter().map(each).collect())
    }

    fn attempt(&mut self, spec: &GroupSpec, waiting: &[&Claim], domain: Option<&str>) -> Attempt {
        let same = spec.same.as_deref().zip(domain);
        if let Some(attempt) = self.attempt_as_one(waiting, same) {
            return attempt;
        }
        let mut places = Vec::with_capacity(waiting.len());
        for node in waiting {
            let bars = self.bars(node, same);
            match self.choose(node, &bars) {
                Ok((Some(host), choice)) => places.push(self.place(node, host, choice)),
                Ok((None, choice)) => return Attempt::missed(places, Some(node), Ok(choice)),
                Err(failure) => return Attempt::missed(places, Some(node), Err(failure)),
            }
        }
        Attempt { places, failed: None }
    }

    /// All waiting members as one decision; none where they differ, or no node type has room for all of them.
    fn attempt_as_one(&mut self, waiting: &[&Claim], same: Option<(&str, &str)>) -> Option<Attempt> {
        let (first, others) = waiting.split_first()?;
        let bars = self.bars(first, same);
        if others.is_empty()
            || others.iter().any(|node| !alike(&first.spec, &node.spec) || self.bars(node, same) != bars)
        {
            return None;
        }
        let count = u32::try_from(waiting.len()).ok()?;
        let (hosts, choice) = match self.choose_together(first, count, &bars) {
            Ok(chosen) => chosen,
            Err(failure) => return Some(Attempt::missed(Vec::new(), None, Err(failure))),
        };
        if hosts.len() == waiting.len() {
            let place = |(node, host): (&&Claim, std::sync::Arc<vmetal_model::Host>)| {
                let choice = Choice { host: Some(host.name().to_owned()), ..choice.clone() };
                self.place(node, host, choice)
            };
            let places = waiting.iter().zip(hosts).map(place).collect();
            return Some(Attempt { places, failed: None });
        }
        // The policy has said no to a node type that has room: that is its answer.
        choice.node_type.is_some().then(|| Attempt::missed(Vec::new(), None, Ok(choice)))
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

/// Whether two members ask for the same host: what else is declared of them does not matter to where they go.
fn alike(a: &TenantNodeSpec, b: &TenantNodeSpec) -> bool {
    let asked = |spec: &TenantNodeSpec| {
        (
            spec.cluster.clone(),
            spec.node_type.clone(),
            spec.image.clone(),
            spec.requirements.clone(),
            spec.resources.clone(),
        )
    };
    asked(a) == asked(b)
}
