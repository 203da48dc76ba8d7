//! Every allowed change of phase, and why it happens.

use vmetal_model::HostPhase::{self, *};
use vmetal_model::TenantNodePhase::{self as N};

/// One allowed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge<Phase: 'static> {
    /// Before.
    pub from: Phase,
    /// After.
    pub to: Phase,
    /// When it happens, in an operator's words.
    pub when: &'static str,
}

const fn host(from: HostPhase, to: HostPhase, when: &'static str) -> Edge<HostPhase> {
    Edge { from, to, when }
}

const fn node(from: N, to: N, when: &'static str) -> Edge<N> {
    Edge { from, to, when }
}

/// All changes of a host's phase.
pub const HOST: &[Edge<HostPhase>] = &[
    host(Discovered, Registering, "BMC password applied"),
    host(Registering, Inspecting, "BMC reached and identified"),
    host(Inspecting, Available, "inventory reported, host off"),
    host(Available, Provisioning, "claimed, or wanted on standby"),
    host(Provisioning, Provisioned, "installed system phoned home"),
    host(Provisioning, Standby, "installed ahead of any claim, and waiting"),
    host(Standby, Provisioning, "claimed, or lost and installed anew"),
    host(Standby, Deprovisioning, "not wanted on standby any more"),
    host(Provisioned, Deprovisioning, "claim released"),
    host(Provisioning, Deprovisioning, "claim released early, or not wanted on standby any more"),
    host(Deprovisioning, Available, "erased, host off"),
    host(Available, Registering, "BMC or boot interface changed, or inspection ordered"),
    host(Inspecting, Registering, "BMC or boot interface changed, or inspection ordered"),
    host(Standby, Registering, "BMC or boot interface changed, or inspection ordered"),
    host(Registering, Error, "BMC refuses or stays away"),
    host(Inspecting, Error, "retries used up"),
    host(Provisioning, Error, "retries used up"),
    host(Standby, Error, "BMC refuses or stays away"),
    host(Deprovisioning, Error, "retries used up; the claim stays"),
    host(Error, Registering, "declaration changed, or tried again"),
    host(Error, Inspecting, "declaration changed, or tried again"),
    host(Error, Provisioning, "declaration changed, or tried again"),
    host(Error, Standby, "tried again"),
    host(Error, Deprovisioning, "claim released, not wanted on standby any more, or tried again"),
    host(Inspecting, Deprovisioning, "a tenancy or an installation was not erased"),
    host(Deprovisioning, Registering, "erased after a quarantine"),
    host(Available, Maintenance, "ordered or declared"),
    host(Error, Maintenance, "ordered or declared"),
    host(Maintenance, Registering, "over: registered and inspected anew"),
    host(Provisioning, Quarantined, "failed for good: the claim ends here"),
    host(Error, Quarantined, "ordered, or the claim was taken away"),
    host(Inspecting, Quarantined, "ordered, or another machine than before answers"),
    host(Registering, Quarantined, "ordered, or another machine than before answers"),
    host(Available, Quarantined, "ordered"),
    host(Standby, Quarantined, "ordered"),
    host(Maintenance, Quarantined, "ordered"),
    host(Provisioned, Quarantined, "claim taken away by force"),
    host(Deprovisioning, Quarantined, "ordered, or claim taken away by force"),
    host(Quarantined, Deprovisioning, "quarantine ended with a tenancy not erased"),
    host(Quarantined, Registering, "quarantine ended"),
];

/// All changes of a tenant node's phase.
pub const NODE: &[Edge<N>] = &[
    node(N::Pending, N::Scheduled, "type and host chosen, host reserved"),
    node(N::Scheduled, N::Provisioning, "join token and user data ready"),
    node(N::Provisioning, N::Joining, "host provisioned"),
    node(N::Joining, N::Ready, "Node is ours and Ready, token revoked"),
    node(N::Scheduled, N::Failed, "tenant cluster refuses"),
    node(N::Provisioning, N::Failed, "host in error, or lost"),
    node(N::Joining, N::Failed, "not Ready in time, or joining failed"),
    node(N::Ready, N::Failed, "host taken away by force"),
    node(N::Failed, N::Provisioning, "host goes on"),
    node(N::Failed, N::Joining, "host goes on"),
    node(N::Scheduled, N::Draining, "deleted"),
    node(N::Provisioning, N::Draining, "deleted"),
    node(N::Joining, N::Draining, "deleted"),
    node(N::Ready, N::Draining, "deleted"),
    node(N::Failed, N::Pending, "another host is free, and the first is given back"),
    node(N::Failed, N::Draining, "deleted"),
    node(N::Draining, N::Released, "pods gone, or the deadline passed"),
];

/// True when a host may change like this.
pub fn host_may(from: HostPhase, to: HostPhase) -> bool {
    from == to || HOST.iter().any(|edge| edge.from == from && edge.to == to)
}

/// True when a tenant node may change like this.
pub fn node_may(from: N, to: N) -> bool {
    from == to || NODE.iter().any(|edge| edge.from == from && edge.to == to)
}

fn diagram<P: Copy>(edges: &[Edge<P>], name: impl Fn(P) -> &'static str, first: &[&str], last: &[&str]) -> String {
    let mut text = "```mermaid\nstateDiagram-v2\n".to_owned();
    for phase in first {
        text.push_str(&format!("    [*] --> {phase}\n"));
    }
    for edge in edges {
        text.push_str(&format!("    {} --> {}: {}\n", name(edge.from), name(edge.to), edge.when));
    }
    for phase in last {
        text.push_str(&format!("    {phase} --> [*]\n"));
    }
    text.push_str("```\n");
    text
}

/// The page `docs/lifecycle.md`, whole.
pub fn page() -> String {
    let limits = crate::Limits::default();
    let (failures, attempts) = (limits.failures, limits.attempts);
    format!(
        "# Lifecycle\n\n\
         Made from `engine/lifecycle/src/transitions.rs` by `make docs`; a test fails when it is stale.\n\n\
         ## Host\n\n{}\n\
         A host enters the pool (`available`) only without a claim, without a tenancy that ended unerased and without an\n\
         installation ahead of a claim; they go only with an erase record for that very tenancy or installation. A host without a\n\
         claim can be deleted in any phase; one with a claim can be retired, which deletes it\n\
         once it is free.\n\n\
         On `standby` a system of the class's image runs and waits. A claim on the same image takes it over (`hand_over`) without\n\
         writing or booting anything; where that does not come about in time, and for a claim on another image, the host is\n\
         installed as if it had been `available`.\n\n\
         `discovered` hosts have no BMC password and are never acted on. In `maintenance` and `quarantined` nothing is done to a\n\
         host but what is ordered of its power, and one thing: after a claim has ended on it without an erasure, a quarantined\n\
         host is switched off if its BMC still answers. A pause is no phase: it stops the host where it is.\n\n\
         ### Deadlines and escalation\n\n\
         What is tried when a stage fails, or is not done in time: the same again with growing pauses ({failures} times, counted\n\
         per cause), or another network boot ({attempts} in all); then what the table names, each once per phase, where it may help\n\
         against the cause; then `error`, or `quarantined` where the server is to blame for a failed claim. The times are defaults.\n\n{}\n\
         ## Tenant node\n\n{}\n\
         `ready` means that the Node of this claim is Ready in the tenant's cluster: the right name, provider id, labels and\n\
         taints, and no not-ready taint left.\n",
        diagram(HOST, HostPhase::as_str, &["registering", "discovered"], &["available", "quarantined", "error"]),
        crate::ladder::table(&limits),
        diagram(NODE, N::as_str, &["pending"], &["pending", "released"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_can_be_reached_and_left() {
        for phase in HostPhase::ALL {
            assert!(HOST.iter().any(|e| e.from == phase), "{phase:?} has no way out");
            assert!(
                matches!(phase, Discovered | Registering) || HOST.iter().any(|e| e.to == phase),
                "{phase:?} has no way in"
            );
        }
    }

    #[test]
    fn the_page_in_docs_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lifecycle.md");
        let have = std::fs::read_to_string(path).unwrap_or_default();
        assert!(have == page(), "docs/lifecycle.md is stale: run `make docs`");
    }
}
