//! Whatever a resource looks like, whatever is configured and whatever was there before: what leaves as a plan or as the
//! answer to an apply keeps Terraform core's rules, or says itself that it does not.
//!
//! The rules stand in `rules/core.rs`, apart from the crate's own reading of them. Requests go the way of a real core's:
//! encoded, through the service, and back.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "rules/arbitrary.rs"]
mod arbitrary;
#[path = "rules/core.rs"]
mod core;
#[path = "rules/provider.rs"]
mod provider;

use std::sync::atomic::{AtomicUsize, Ordering};

use arbitrary::{Specs, any_specs, config, known_config, object, prior};
use proptest::prelude::*;
use provider::{Lie, Random, THING};
use tfplugin::{
    Value, codec,
    server::ProviderService,
    wire::{self, provider_client::ProviderClient, provider_server::ProviderServer},
};

/// A core that talks to a provider in process.
struct Core {
    specs: Specs,
    client: ProviderClient<ProviderServer<ProviderService<Random>>>,
    runtime: tokio::runtime::Runtime,
}

impl Core {
    fn new(specs: &Specs, seed: u64, lie: Lie) -> Self {
        let provider = Random { specs: specs.clone(), seed, lie };
        let client = ProviderClient::new(ProviderServer::new(ProviderService::new(provider)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { specs: specs.clone(), client, runtime }
    }

    fn pack(&self, value: &Value) -> Option<wire::DynamicValue> {
        Some(codec::to_wire(value, &object(&self.specs)))
    }

    fn unpack(&self, value: Option<&wire::DynamicValue>) -> Value {
        codec::from_wire(value, &object(&self.specs)).unwrap()
    }

    /// The plan, or what the provider says is wrong with it.
    fn plan(&mut self, prior: &Value, config: &Value) -> Result<Value, String> {
        let request = wire::PlanResourceChangeRequest {
            type_name: THING.into(),
            prior_state: self.pack(prior),
            proposed_new_state: self.pack(&core::propose(&self.specs, prior, config)),
            config: self.pack(config),
            ..Default::default()
        };
        let reply = self.runtime.block_on(self.client.plan_resource_change(request)).unwrap().into_inner();
        said(&reply.diagnostics)?;
        Ok(self.unpack(reply.planned_state.as_ref()))
    }

    /// The object after the apply, or what the provider says is wrong with it.
    fn apply(&mut self, prior: &Value, config: &Value, planned: &Value) -> Result<Value, String> {
        let request = wire::ApplyResourceChangeRequest {
            type_name: THING.into(),
            prior_state: self.pack(prior),
            planned_state: self.pack(planned),
            config: self.pack(config),
            ..Default::default()
        };
        let reply = self.runtime.block_on(self.client.apply_resource_change(request)).unwrap().into_inner();
        said(&reply.diagnostics)?;
        Ok(self.unpack(reply.new_state.as_ref()))
    }
}

fn said(diagnostics: &[wire::Diagnostic]) -> Result<(), String> {
    let all: Vec<_> = diagnostics.iter().map(|one| format!("{}: {}", one.summary, one.detail)).collect();
    if all.is_empty() { Ok(()) } else { Err(all.join("\n")) }
}

fn nothing() -> Vec<String> {
    Vec::new()
}

/// A schema, what was there, and what is configured.
fn change() -> impl Strategy<Value = (Specs, Value, Value)> {
    any_specs().prop_flat_map(|specs| {
        let (prior, config) = (prior(&specs), config(&specs));
        (Just(specs), prior, config)
    })
}

fn known_change() -> impl Strategy<Value = (Specs, Value, Value)> {
    any_specs().prop_flat_map(|specs| {
        let (prior, config) = (prior(&specs), known_config(&specs));
        (Just(specs), prior, config)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    /// Of a provider that only decides what is left to it, every reply is good.
    #[test]
    fn honest_providers_keep_the_rules((specs, prior, config) in change(), seed in any::<u64>()) {
        prop_assert_eq!(arbitrary::schema(&specs).faults(), nothing());
        let mut core = Core::new(&specs, seed, Lie::Never);
        let planned = core.plan(&prior, &config).map_err(TestCaseError::fail)?;
        prop_assert_eq!(core::plan_faults(&specs, &prior, &config, &planned), nothing());
        let state = core.apply(&prior, &config, &planned).map_err(TestCaseError::fail)?;
        prop_assert_eq!(core::apply_faults(&specs, &planned, &state), nothing());
    }

    /// What was just applied needs no further change, and a plan is the same whenever it is asked for.
    #[test]
    fn what_was_applied_is_settled((specs, prior, config) in known_change(), seed in any::<u64>()) {
        let mut core = Core::new(&specs, seed, Lie::Never);
        let planned = core.plan(&prior, &config).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&core.plan(&prior, &config).map_err(TestCaseError::fail)?, &planned);
        let state = core.apply(&prior, &config, &planned).map_err(TestCaseError::fail)?;
        let again = core.plan(&state, &config).map_err(TestCaseError::fail)?;
        prop_assert!(again.equivalent(&state, &object(&specs)), "{again:?}\n is planned after\n{state:?}");
    }
}

/// A provider that lies is found out before core has to: no reply that core would refuse leaves without an error. Counts
/// that there was something to find.
#[test]
fn lies_are_found_out() {
    let (found, harmless) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let config =
        ProptestConfig { cases: 1024, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() };
    proptest!(config, |((specs, prior, config) in change(), seed in any::<u64>(), in_plan in any::<bool>())| {
        let mut core = Core::new(&specs, seed, if in_plan { Lie::Plan } else { Lie::Apply });
        let planned = match core.plan(&prior, &config) {
            Ok(planned) => planned,
            Err(said) => {
                prop_assert!(said.contains("inconsistent plan"), "{said}");
                found.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        };
        prop_assert_eq!(core::plan_faults(&specs, &prior, &config, &planned), nothing());
        match core.apply(&prior, &config, &planned) {
            Ok(state) => {
                prop_assert_eq!(core::apply_faults(&specs, &planned, &state), nothing());
                harmless.fetch_add(1, Ordering::Relaxed);
            }
            Err(said) => {
                prop_assert!(said.contains("inconsistent change"), "{said}");
                found.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let (found, harmless) = (found.into_inner(), harmless.into_inner());
    assert!(found > 100 && harmless > 100, "{found} lies were found out, {harmless} were none");
}
