//! Which hosts claims get in the world of the tests: the first free one of the cheapest type that fits.

use std::collections::BTreeSet;

use vmetal_model::{
    Candidate, Cause, Claim, ClaimState, Decision, Host, HostPhase, Lack, NodeType, TenantCluster, TenantNode,
    TenantNodePhase, TenantNodeSpec, Timestamp,
};

use super::{Inner, failure};

impl Inner {
    /// Why a claim's cluster may hold no more hosts, if so many more are promised to it already.
    fn over_quota(&self, spec: &TenantNodeSpec, promised: usize) -> Option<String> {
        let cluster = self.all::<TenantCluster>().into_iter().find(|one| one.metadata.name == spec.cluster)?;
        let most = cluster.spec.quota.hosts?;
        let holds = |node: &TenantNode| node.spec.cluster == spec.cluster && node.status.host.is_some();
        let held = self.all::<TenantNode>().into_iter().filter(holds).count() + promised;
        let hosts = if most == 1 { "host" } else { "hosts" };
        (held >= most as usize).then(|| format!("tenant cluster {} holds {held} of its {most} {hosts}", spec.cluster))
    }

    /// What is decided for a claim, as if these hosts were taken.
    pub(super) fn choice(&self, spec: &TenantNodeSpec, taken: &BTreeSet<String>) -> (Decision, Option<Host>) {
        let free = |t: &NodeType| {
            let fits = |host: &Host| {
                host.status.phase == HostPhase::Available
                    && host.status.claim.is_none()
                    && !taken.contains(&host.metadata.name)
                    && t.spec.selector.iter().all(|(k, v)| host.metadata.labels.get(k) == Some(v))
            };
            self.all::<Host>().into_iter().find(fits)
        };
        let fits = |t: &NodeType| {
            let enough = spec.resources.iter().all(|(k, v)| t.spec.resources.get(k).is_some_and(|have| have >= v));
            enough && spec.node_type.as_ref().is_none_or(|name| *name == t.metadata.name)
        };
        let types = self.all::<NodeType>();
        let full = self.over_quota(spec, taken.len());
        let candidate = |t: &NodeType| {
            let (lacks, reason) = match (fits(t), free(t), &full) {
                (true, _, Some(why)) => (Some(Lack::Quota), why.as_str()),
                (true, Some(_), None) => (None, "fits"),
                (true, None, None) => (Some(Lack::FreeHost), "0 hosts free"),
                (false, ..) => (Some(Lack::Fit), "offers less cpu than asked for"),
            };
            let value = i64::try_from(t.status.cost).ok();
            Candidate { name: t.metadata.name.clone(), value, feasible: lacks.is_none(), reason: reason.into(), lacks }
        };
        let open = |t: &&NodeType| full.is_none() && fits(t) && free(t).is_some();
        let chosen = types.iter().filter(open).min_by_key(|t| t.status.cost);
        let host = chosen.and_then(free);
        let decision = Decision {
            node_type: chosen.map(|t| t.metadata.name.clone()),
            host: host.as_ref().map(|host| host.metadata.name.clone()),
            cost: chosen.map(|t| t.status.cost),
            reason: match (chosen, &full) {
                (Some(_), _) => "the cheapest type that fits".into(),
                (None, Some(why)) => format!("no node type fits; {why}"),
                (None, None) => "no node type fits".into(),
            },
            node_types: types.iter().map(candidate).collect(),
            hosts: Vec::new(),
            policies: Vec::new(),
            input_digest: "none".into(),
            at: Timestamp::UNIX_EPOCH,
            log: None,
        };
        (decision, host)
    }

    pub(super) fn decide(&mut self, mut node: TenantNode) {
        if let Some(group) = &node.spec.group {
            let there =
                self.all::<TenantNode>().iter().filter(|other| other.spec.group.as_ref() == Some(group)).count();
            if there < group.size as usize {
                return;
            }
        }
        let (decision, free) = self.choice(&node.spec, &BTreeSet::new());
        let before = node.clone();
        node.status.decision = Some(decision);
        match free {
            Some(mut host) => {
                let node_type = node.status.decision.as_ref().and_then(|decision| decision.node_type.clone());
                node.status.lease = self.lease(&node.spec, node_type.as_deref());
                host.status.claim = Some(Claim {
                    node: node.metadata.name.clone(),
                    uid: node.metadata.uid.clone(),
                    state: ClaimState::Install,
                    since: Timestamp::now(),
                    image: None,
                    lease: node.status.lease.clone(),
                });
                node.status.host = Some(host.metadata.name.clone());
                node.status.phase = TenantNodePhase::Scheduled;
                node.status.failure = None;
                self.put(&host, "claimed");
            }
            None if node.status.failure.is_none() => {
                let reason = node.status.decision.as_ref().unwrap().reason.clone();
                node.status.failure = Some(failure(Cause::NoCandidate, &reason, "ask for less"));
            }
            None => {}
        }
        if node != before {
            self.put(&node, "decided");
        }
    }
}
