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
    host(Available, Provisioning, "claimed"),
    host(Provisioning, Provisioned, "installed system phoned home"),
    host(Provisioned, Deprovisioning, "claim released"),
    host(Provisioning, Deprovisioning, "claim released early"),
    host(Deprovisioning, Available, "erased, host off"),
    host(Available, Registering, "BMC or boot interface changed, or inspection ordered"),
    host(Inspecting, Registering, "BMC or boot interface changed, or inspection ordered"),
    host(Registering, Error, "BMC refuses or stays away"),
    host(Inspecting, Error, "retries used up"),
    host(Provisioning, Error, "retries used up"),
    host(Deprovisioning, Error, "retries used up; the claim stays"),
    host(Error, Registering, "declaration changed, or tried again"),
    host(Error, Inspecting, "declaration changed, or tried again"),
    host(Error, Provisioning, "declaration changed, or tried again"),
    host(Error, Deprovisioning, "claim released, or tried again"),
    host(Available, Maintenance, "ordered or declared"),
    host(Error, Maintenance, "ordered or declared"),
    host(Maintenance, Registering, "over: registered and inspected anew"),
    host(Provisioning, Quarantined, "failed for good: the claim ends here"),
    host(Error, Quarantined, "ordered, or the claim was taken away"),
    host(Inspecting, Quarantined, "another machine than before answers"),
    host(Registering, Quarantined, "another machine than before answers"),
    host(Available, Quarantined, "ordered"),
    host(Maintenance, Quarantined, "ordered"),
    host(Provisioned, Quarantined, "claim taken away by force"),
    host(Deprovisioning, Quarantined, "claim taken away by force, or another machine answers"),
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

fn diagram<P: Copy>(edges: &[Edge<P>], name: impl Fn(P) -> &'static str, first: &str, last: &[&str]) -> String {
    let mut text = format!("```mermaid\nstateDiagram-v2\n    [*] --> {first}\n");
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
    format!(
        "# Lifecycle\n\n\
         Made from `engine/lifecycle/src/transitions.rs` by `make docs`; a test fails when it is stale.\n\n\
         ## Host\n\n{}\n\
         A host leaves `deprovisioning` only with an erase record for the tenancy that ended. A host without a claim can be\n\
         deleted in any phase; one with a claim cannot.\n\n\
         ## Tenant node\n\n{}\n\
         `ready` means that the Node of this claim is Ready in the tenant's cluster: the right name, provider id, labels and\n\
         taints, and no not-ready taint left.\n",
        diagram(HOST, HostPhase::as_str, "registering", &["available", "error"]),
        diagram(NODE, N::as_str, "pending", &["pending", "released"]),
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
