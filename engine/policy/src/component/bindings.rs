//! The generated host side of `policies/wit`, and the copying between it and the SDK's types.
//!
//! Arguments are lowered straight from borrowed columns: the only copy is the one into the component's own memory.
//! The bindings come as three worlds, so that what both kinds of policy share exists once.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated bindings")]

use vmetal_policy_sdk as sdk;

pub mod common {
    wasmtime::component::bindgen!({
        path: "../../policies/wit",
        world: "vmetal:policy/policy",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub mod cost {
    wasmtime::component::bindgen!({
        path: "../../policies/wit",
        inline: "package vmetal:policy-host-cost; world only-cost { export vmetal:policy/cost@0.1.0; }",
        world: "vmetal:policy-host-cost/only-cost",
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "vmetal:policy/types@0.1.0": super::common::vmetal::policy::types },
    });
}

pub mod placement {
    wasmtime::component::bindgen!({
        path: "../../policies/wit",
        inline: "package vmetal:policy-host-placement; world only-placement { export vmetal:policy/placement@0.1.0; }",
        world: "vmetal:policy-host-placement/only-placement",
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "vmetal:policy/types@0.1.0": super::common::vmetal::policy::types },
    });
}

use common::vmetal::policy::types as wit;

/// Lends the named fields of one struct to another of the same shape.
macro_rules! lend {
    ($from:ident => $($to:ident)::+ { copy $($copied:ident),*; lend $($lent:ident),*; $($rest:tt)* }) => {
        $($to)::+ { $($copied: $from.$copied,)* $($lent: &$from.$lent,)* $($rest)* }
    };
}

pub(crate) fn context(from: &sdk::Context) -> wit::Context<'_> {
    lend!(from => wit::Context { copy now, seed; lend settings, symbols; })
}

/// A claim whose nested records are in the form that can be lent.
pub(crate) struct Lowered<'a> {
    claim: &'a sdk::Claim,
    resources: Vec<wit::Quantity>,
    requirements: Vec<wit::Requirement<'a>>,
}

impl<'a> Lowered<'a> {
    pub(crate) fn new(claim: &'a sdk::Claim) -> Self {
        let resources =
            claim.resources.iter().map(|q| wit::Quantity { resource: q.resource, milli: q.milli }).collect();
        let requirements = claim.requirements.iter().map(requirement).collect();
        Lowered { claim, resources, requirements }
    }

    pub(crate) fn lend(&self) -> wit::Claim<'_> {
        let claim = self.claim;
        lend!(claim => wit::Claim {
            copy id, tenant_cluster, count, cpu_milli, memory_bytes; lend;
            resources: &self.resources, requirements: &self.requirements
        })
    }
}

fn requirement(from: &sdk::Requirement) -> wit::Requirement<'_> {
    let operator = match from.operator {
        sdk::Operator::In => wit::Operator::IsIn,
        sdk::Operator::NotIn => wit::Operator::NotIn,
        sdk::Operator::Exists => wit::Operator::Exists,
        sdk::Operator::DoesNotExist => wit::Operator::DoesNotExist,
        sdk::Operator::Greater => wit::Operator::Greater,
        sdk::Operator::Less => wit::Operator::Less,
    };
    lend!(from => wit::Requirement { copy key, number; lend values; operator })
}

pub(crate) fn extra<'a>(from: &'a [sdk::Column<'_>]) -> Vec<wit::Column<'a>> {
    from.iter().map(|column| lend!(column => wit::Column { copy number; lend cells; })).collect()
}

pub(crate) fn offers<'a>(from: &'a sdk::Offers, extra: &'a [wit::Column<'a>]) -> wit::Offers<'a> {
    lend!(from => wit::Offers {
        copy n;
        lend name, rank, gate, cpu_milli, memory_bytes, explicit_cost, total, free, resource_at, resource_name, resource_milli;
        extra
    })
}

pub(crate) fn hosts<'a>(from: &'a sdk::Hosts<'_>, extra: &'a [wit::Column<'a>]) -> wit::Hosts<'a> {
    lend!(from => wit::Hosts {
        copy n;
        lend name, rank, gate, cpu_milli, memory_bytes, gpus, gpu_model, last_tenant, last_release, provisions, levels, domains,
            label_at, label_key, label_value;
        extra
    })
}

pub(crate) fn verdicts(from: Vec<wit::Verdict>) -> Vec<sdk::Verdict> {
    from.into_iter().map(|v| sdk::Verdict { code: v.code, arg: v.arg, score: v.score }).collect()
}

pub(crate) fn info(from: wit::Info) -> sdk::Info {
    let kind = match from.kind {
        wit::Kind::Cost => sdk::Kind::Cost,
        wit::Kind::Placement => sdk::Kind::Placement,
    };
    let reason = |reason: wit::Reason| {
        let arg = match reason.arg {
            wit::Arg::None => sdk::Arg::None,
            wit::Arg::Number => sdk::Arg::Number,
            wit::Arg::Sym => sdk::Arg::Sym,
        };
        sdk::Reason { code: reason.code, text: reason.text, arg }
    };
    let reasons = from.reasons.into_iter().map(reason).collect();
    sdk::Info { name: from.name, version: from.version, kind, reasons }
}
