//! The WebAssembly side: generated bindings, and conversions between them and [`crate::types`].
//!
//! Bindings come as three worlds (what all policies share, cost, placement) because each brings export macros with
//! names of its own; a policy exports two of them and the component encoder unites the two. The conversions move whole
//! columns and copy only verdicts.
#![allow(unsafe_code, missing_docs, clippy::all, unreachable_pub, reason = "generated bindings")]

use core::marker::PhantomData;

use crate::types as sdk;
use crate::{CostPolicy, Log, PlacementPolicy, Policy};

pub mod common {
    wit_bindgen::generate!({
        path: "../wit",
        world: "vmetal:policy/policy",
        pub_export_macro: true,
        default_bindings_module: "vmetal_policy_sdk::wasm::common",
    });
}

pub mod cost {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package vmetal:policy-sdk-cost; world only-cost { export vmetal:policy/cost@0.1.0; }",
        world: "only-cost",
        with: { "vmetal:policy/types@0.1.0": super::common::vmetal::policy::types },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "vmetal_policy_sdk::wasm::cost",
    });
}

pub mod placement {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package vmetal:policy-sdk-placement; world only-placement { export vmetal:policy/placement@0.1.0; }",
        world: "only-placement",
        with: { "vmetal:policy/types@0.1.0": super::common::vmetal::policy::types },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "vmetal_policy_sdk::wasm::placement",
    });
}

/// The allocator of the standard library in a newer version: it begins with the heap that is there, where the older one grows
/// the memory at once. Growing costs the engine a third of a call about little.
#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

use common::exports::vmetal::policy::{explain, meta};
use common::vmetal::policy::{log, types as wit};

/// Stands for a cost policy in the export macros.
pub struct Cost<P>(PhantomData<P>);
/// Stands for a placement policy in the export macros.
pub struct Placement<P>(PhantomData<P>);

struct Import;

impl Log for Import {
    fn emit(&mut self, level: sdk::Level, code: u32, first: i64, second: i64) {
        let level = match level {
            sdk::Level::Debug => log::Level::Debug,
            sdk::Level::Info => log::Level::Info,
            sdk::Level::Warn => log::Level::Warn,
        };
        log::emit(level, code, first, second);
    }
}

/// Moves the named fields of one struct into another of the same shape.
macro_rules! same {
    ($from:ident => $($to:ident)::+ { $($field:ident),* } $($rest:tt)*) => { $($to)::+ { $($field: $from.$field,)* $($rest)* } };
}

fn context(from: wit::Context) -> sdk::Context {
    same!(from => sdk::Context { settings, symbols, now, seed })
}

fn claim(from: wit::Claim) -> sdk::Claim {
    let resources =
        from.resources.into_iter().map(|q| sdk::Quantity { resource: q.resource, milli: q.milli }).collect();
    let requirements = from.requirements.into_iter().map(requirement).collect();
    same!(from => sdk::Claim { id, tenant_cluster, count, cpu_milli, memory_bytes } resources, requirements)
}

fn requirement(from: wit::Requirement) -> sdk::Requirement {
    let operator = match from.operator {
        wit::Operator::IsIn => sdk::Operator::In,
        wit::Operator::NotIn => sdk::Operator::NotIn,
        wit::Operator::Exists => sdk::Operator::Exists,
        wit::Operator::DoesNotExist => sdk::Operator::DoesNotExist,
        wit::Operator::Greater => sdk::Operator::Greater,
        wit::Operator::Less => sdk::Operator::Less,
    };
    same!(from => sdk::Requirement { key, values, number } operator)
}

fn extra(from: Vec<wit::Column>) -> Vec<sdk::Column<'static>> {
    from.into_iter().map(|column| sdk::Column { number: column.number, cells: column.cells.into() }).collect()
}

fn offers(from: wit::Offers) -> sdk::Offers {
    same!(from => sdk::Offers {
        n, name, rank, gate, cpu_milli, memory_bytes, explicit_cost, total, free, resource_at, resource_name, resource_milli
    } extra: extra(from.extra))
}

/// Moves whole columns.
macro_rules! moved {
    ($from:ident => $($to:ident)::+ { copy $($copied:ident),*; move $($field:ident),*; } $($rest:tt)*) => {
        $($to)::+ { $($copied: $from.$copied,)* $($field: $from.$field.into(),)* $($rest)* }
    };
}

fn hosts(from: wit::Hosts) -> sdk::Hosts<'static> {
    moved!(from => sdk::Hosts {
        copy n;
        move name, rank, gate, cpu_milli, memory_bytes, gpus, gpu_model, last_tenant, last_release, provisions, levels,
            domains, label_at, label_key, label_value;
    } extra: extra(from.extra))
}

fn verdicts(from: Vec<sdk::Verdict>) -> Vec<wit::Verdict> {
    from.into_iter().map(|v| wit::Verdict { code: v.code, arg: v.arg, score: v.score }).collect()
}

fn factors(from: Vec<sdk::Factor>) -> Vec<explain::Factor> {
    from.into_iter().map(|f| explain::Factor { label: f.label, amount: f.amount }).collect()
}

fn info(from: sdk::Info) -> wit::Info {
    let kind = match from.kind {
        sdk::Kind::Cost => wit::Kind::Cost,
        sdk::Kind::Placement => wit::Kind::Placement,
    };
    let reason = |from: sdk::Reason| {
        let arg = match from.arg {
            sdk::Arg::None => wit::Arg::None,
            sdk::Arg::Number => wit::Arg::Number,
            sdk::Arg::Sym => wit::Arg::Sym,
        };
        same!(from => wit::Reason { code, text } arg)
    };
    let reasons = from.reasons.into_iter().map(reason).collect();
    same!(from => wit::Info { name, version } kind, reasons)
}

macro_rules! meta_guest {
    ($of:ident) => {
        impl<P: Policy> meta::Guest for $of<P> {
            fn describe() -> wit::Info {
                info(P::describe())
            }
            fn validate_settings(json: String) -> Result<Vec<String>, Vec<String>> {
                P::validate_settings(&json)
            }
            fn settings_schema() -> String {
                P::settings_schema()
            }
        }
    };
}
meta_guest!(Cost);
meta_guest!(Placement);

impl<P: CostPolicy> explain::Guest for Cost<P> {
    fn explain(ctx: wit::Context, asked: wit::Claim, subject: explain::Subject, row: u32) -> Vec<explain::Factor> {
        match subject {
            explain::Subject::Offers(table) => factors(P::explain(&context(ctx), &claim(asked), &offers(table), row)),
            explain::Subject::Hosts(_) => Vec::new(),
        }
    }
}

impl<P: PlacementPolicy> explain::Guest for Placement<P> {
    fn explain(ctx: wit::Context, asked: wit::Claim, subject: explain::Subject, row: u32) -> Vec<explain::Factor> {
        match subject {
            explain::Subject::Hosts(table) => factors(P::explain(&context(ctx), &claim(asked), &hosts(table), row)),
            explain::Subject::Offers(_) => Vec::new(),
        }
    }
}

impl<P: CostPolicy> cost::exports::vmetal::policy::cost::Guest for Cost<P> {
    fn choose(ctx: wit::Context, asked: wit::Claim, table: wit::Offers) -> cost::exports::vmetal::policy::cost::Choice {
        let from = P::choose(&context(ctx), &claim(asked), &offers(table), &mut Import);
        let verdicts = verdicts(from.verdicts);
        same!(from => cost::exports::vmetal::policy::cost::Choice { pick, prices } verdicts)
    }
}

impl<P: PlacementPolicy> placement::exports::vmetal::policy::placement::Guest for Placement<P> {
    fn place(
        ctx: wit::Context,
        asked: wit::Claim,
        table: wit::Hosts,
    ) -> placement::exports::vmetal::policy::placement::Decision {
        let from = P::place(&context(ctx), &claim(asked), &hosts(table), &mut Import);
        let verdicts = verdicts(from.verdicts);
        same!(from => placement::exports::vmetal::policy::placement::Decision { picks } verdicts)
    }
}
