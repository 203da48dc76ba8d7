//! Component and native twin, on random fleets; and the order of rows, which must not matter.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{Config as Run, RngSeed, TestError, TestRunner};
use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_model::{HostPhase, Operator, Quantity, Requirement, Resources};
use vmetal_policy::{
    Binding, Config, Hardware, HostRow, Limit, Limited, Offer, OnFailure, PolicyEngine, Record, UsedUp, Wanted, Which,
    shipped,
};
use vmetal_policy_sdk::Kind;

use crate::support;

/// Inputs compared for each policy, some 10,000 in all; another seed each time, `VMETAL_TEST_SEED` repeats a run.
const CASES: u32 = 1200;

/// Runs the test on random inputs. It says of each whether something was chosen: a run in which that hardly happens
/// would prove nothing, and fails.
pub(crate) fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    // The standard library's hash keys are random in every process.
    let random = || RandomState::new().build_hasher().finish();
    let seed = std::env::var("VMETAL_TEST_SEED").map_or_else(|_| random(), |seed| seed.parse().unwrap());
    println!("VMETAL_TEST_SEED={seed}");
    let config = Run { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Run::default() };
    let chosen = std::cell::Cell::new(0);
    let counted = |input: S::Value| {
        chosen.set(chosen.get() + u32::from(test(input)?));
        Ok(())
    };
    match TestRunner::new(config).run(strategy, counted) {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("VMETAL_TEST_SEED={seed}: {reason}\nsmallest input: {input:#?}"),
        Err(TestError::Abort(reason)) => panic!("VMETAL_TEST_SEED={seed}: {reason}"),
    }
    println!("{} of {cases} inputs had a choice", chosen.get());
    assert!(chosen.get() > cases / 10, "VMETAL_TEST_SEED={seed}: only {} of {cases} inputs had a choice", chosen.get());
}

fn amounts() -> impl Strategy<Value = Resources> {
    let names = ["cpu", "memory", "nvidia.com/gpu", "amd.com/gpu", "pods", "ephemeral-storage", "example.com/card"];
    // Few distinct amounts, so that equal prices are common, and some that do not fit into 64 bits.
    let milli = prop_oneof![Just(0), Just(1), Just(500), 1u64..8, Just(1 << 42), Just(u64::MAX)]
        .prop_flat_map(|base| prop_oneof![3 => Just(base), 1 => 0u64..4000]);
    prop::collection::btree_map(prop::sample::select(names.to_vec()), milli, 0..5).prop_map(|map| {
        map.into_iter()
            .map(|(name, milli)| {
                let scale = if name == "memory" { milli.saturating_mul(1 << 20) } else { milli };
                (name.to_owned(), Quantity::from_milli(scale))
            })
            .collect()
    })
}

fn labels() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    prop::collection::btree_map("[ab]", "[0-2]", 0..3)
}

fn requirement() -> impl Strategy<Value = Requirement> {
    use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
    let operators = vec![In, NotIn, Exists, DoesNotExist, Gt, Lt];
    ("[ab]", prop::sample::select(operators), "[0-2]").prop_map(|(key, operator, value)| Requirement {
        key,
        values: if matches!(operator, Exists | DoesNotExist) { vec![] } else { vec![value] },
        operator,
    })
}

prop_compose! {
    pub(crate) fn wanted()(
        name in "[a-c]{1,3}",
        count in 1u32..4,
        node_type in prop::option::weighted(0.1, "t[0-9]"),
        resources in amounts(),
        requirements in prop::collection::vec(requirement(), 0..2),
        quota in prop::option::weighted(0.2, (0u64..6, 0u64..4)),
        used_up in prop::option::weighted(0.1, prop::collection::vec("t[0-9]", 0..3)),
    ) -> Wanted {
        let limit = |(most, held)| Limit {
            limited: Limited::Hosts,
            most: Quantity::units(most),
            held: Quantity::units(held),
        };
        let quota = quota.map(limit).into_iter().collect();
        let used_up = used_up.map(|types| UsedUp {
            network: "tenants".to_owned(),
            total: 5,
            left: 0,
            wanted: count,
            with: if types.is_empty() { Which::Any } else { Which::These(types) },
        });
        let used_up = used_up.into_iter().collect();
        Wanted { name, cluster: "blue".to_owned(), count, node_type, resources, requirements, quota, used_up }
    }
}

prop_compose! {
    pub(crate) fn offer()(
        name in "t[0-9]{1,2}",
        selector in labels(),
        labels in labels(),
        resources in amounts(),
        explicit_cost in prop::option::of(0u64..3),
        (free, standby) in (0u32..5, 0u32..3),
    ) -> Offer {
        Offer { name, deleted: false, selector, labels, resources, explicit_cost, total: 5, free, standby, taken: String::new() }
    }
}

fn history() -> impl Strategy<Value = (String, u32, PowerState, Option<EraseLevel>, u32, bool)> {
    let tenant = prop::sample::select(vec!["", "blue", "green"]).prop_map(str::to_owned);
    let power = prop::sample::select(vec![PowerState::Unknown, PowerState::On, PowerState::Off]);
    let levels = vec![EraseLevel::Metadata, EraseLevel::Discard, EraseLevel::Overwrite];
    let erased = prop::option::of(prop::sample::select(levels));
    (tenant, 0u32..5, power, erased, 0u32..3, prop::bool::weighted(0.1))
}

prop_compose! {
    pub(crate) fn host()(
        name in "h[0-9]{1,3}",
        labels in labels(),
        phase in prop::sample::select(HostPhase::ALL.to_vec()),
        available in prop::bool::weighted(0.7),
        claimed_by in prop::option::weighted(0.2, Just("x".to_owned())),
        threads in 1u32..100,
        gib in 1u64..600,
        last_release in 0u64..100,
        (last_tenant, provisions, power, erased, failures, held) in history(),
    ) -> HostRow {
        let hardware = Some(Hardware { threads, memory_bytes: gib << 30, ..Hardware::default() });
        let phase = if available { HostPhase::Available } else { phase };
        HostRow {
            name, deleted: false, held, phase, claimed_by, labels, hardware, last_release, last_tenant, provisions, power,
            erased, failures,
        }
    }
}

/// Rows with distinct names, as in a store.
pub(crate) fn distinct<T: std::fmt::Debug>(
    row: impl Strategy<Value = T>,
    name: fn(&T) -> &String,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(row, 0..most).prop_map(move |mut rows| {
        let mut seen = std::collections::BTreeSet::new();
        rows.retain(|row| seen.insert(name(row).clone()));
        rows
    })
}

/// What must agree between component and twin: everything but who it was and what it used.
pub(crate) fn outcome(record: &Record) -> impl PartialEq + std::fmt::Debug + use<> {
    let digest = record.input_digest.clone();
    (record.chosen.clone(), record.candidates.clone(), record.summary.clone(), digest, record.stood_in_for.clone())
}

/// The shipped policies with the settings under which they are compared.
const COST: [(&str, &str); 2] = [("cost-vcluster", ""), ("cost-effective", r#"{"ceiling":300000,"energy":7}"#)];
const PLACEMENT: [(&str, &str); 7] = [
    ("place-balanced", ""),
    ("place-first-fit", ""),
    ("place-gang-topology", r#"{"level":"b","prefer":true}"#),
    ("place-gang-topology", r#"{"level":"b","segment":1}"#),
    ("place-spread", r#"{"level":"b","max_skew":1}"#),
    ("place-spread", r#"{"level":"a","exclusive":true}"#),
    ("place-quarantine", r#"{"min_erase":"discard","rest_hours":1,"max_attestation_hours":1}"#),
];

/// Component and native twin of a policy, failing closed so that no twin can hide a failure.
fn both(kind: Kind, (name, settings): (&str, &str)) -> [PolicyEngine; 2] {
    let component = Binding::file(support::components().join(format!("{name}.wasm")));
    [component, Binding::native(name)].map(|binding| {
        let binding = Binding { settings: settings.to_owned(), on_failure: OnFailure::Closed, ..binding };
        let config = Config { hosts_kept: usize::MAX, ..Config::native() };
        PolicyEngine::new(match kind {
            Kind::Cost => Config { cost: binding, ..config },
            Kind::Placement => Config { placement: binding, ..config },
        })
        .unwrap()
    })
}

#[test]
fn every_shipped_policy_is_compared() {
    let names = |compared: &[(&'static str, &str)]| {
        compared.iter().map(|(name, _)| *name).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&COST), shipped(Kind::Cost).into_iter().collect());
    assert_eq!(names(&PLACEMENT), shipped(Kind::Placement).into_iter().collect());
}

#[test]
fn cost_components_equal_their_native_twins() {
    for policy in COST {
        let [wasm, native] = both(Kind::Cost, policy);
        check(CASES, &(wanted(), distinct(offer(), |row| &row.name, 12)), |(wanted, offers)| {
            let [ours, theirs] = [&wasm, &native].map(|engine| engine.choose_type(&wanted, &offers, 7).unwrap());
            prop_assert!(ours.record.fuel.is_some() && theirs.record.fuel.is_none());
            prop_assert_eq!(outcome(&ours.record), outcome(&theirs.record));
            prop_assert_eq!((ours.chosen, &ours.costs), (theirs.chosen, &theirs.costs));
            for (index, cost) in ours.costs.iter().enumerate() {
                let parts = native.explain_price(&wanted, &offers, index, 7).unwrap();
                prop_assert_eq!(parts.iter().map(|(_, part)| *part).sum::<i64>(), cost.micro(), "{}", policy.0);
                if index == 0 {
                    prop_assert_eq!(wasm.explain_price(&wanted, &offers, index, 7).unwrap(), parts);
                }
            }
            Ok(ours.chosen.is_some())
        });
    }
}

/// A time at which rests and attestations of the random hosts make a difference.
const NOW: u64 = 3650;

#[test]
fn placement_components_equal_their_native_twins() {
    for policy in PLACEMENT {
        let [wasm, native] = both(Kind::Placement, policy);
        let inputs = (wanted(), offer(), distinct(host(), |row| &row.name, 40));
        check(CASES, &inputs, |(wanted, offer, hosts)| {
            let fleet = support::fleet(&hosts);
            let [ours, theirs] = [&wasm, &native].map(|engine| engine.place(&wanted, &offer, &fleet, NOW).unwrap());
            prop_assert!(ours.record.fuel.is_some() && theirs.record.fuel.is_none());
            prop_assert_eq!(outcome(&ours.record), outcome(&theirs.record), "{}", policy.0);
            if let Some(row) = theirs.record.candidates.first() {
                let parts = native.explain_score(&wanted, &offer, &fleet, &row.name, NOW).unwrap();
                prop_assert_eq!(parts.iter().map(|(_, part)| part).sum::<i64>(), row.score, "{}", policy.0);
                prop_assert_eq!(wasm.explain_score(&wanted, &offer, &fleet, &row.name, NOW).unwrap(), parts);
            }
            Ok(!ours.chosen.is_empty() || policy.0 == "place-quarantine")
        });
    }
}

#[test]
fn the_order_of_rows_changes_no_choice() {
    let rows = || (wanted(), distinct(offer(), |row| &row.name, 12), distinct(host(), |row| &row.name, 40));
    let shuffled = rows().prop_flat_map(|(wanted, offers, hosts)| {
        let permuted = (Just(offers.clone()).prop_shuffle(), Just(hosts.clone()).prop_shuffle());
        (Just((wanted, offers, hosts)), permuted)
    });
    for policy in COST {
        let [_, native] = both(Kind::Cost, policy);
        check(CASES / 4, &shuffled, |((wanted, offers, _), (other, _))| {
            let chosen = |offers: &[Offer]| native.choose_type(&wanted, offers, 7).unwrap().record.chosen;
            prop_assert_eq!(chosen(&offers), chosen(&other));
            Ok(!chosen(&offers).is_empty())
        });
    }
    for policy in PLACEMENT {
        let [_, native] = both(Kind::Placement, policy);
        check(CASES / 4, &shuffled, |((wanted, offers, hosts), (_, other))| {
            let Some(offer) = offers.first() else { return Ok(false) };
            let placed = |hosts: &[HostRow]| native.place(&wanted, offer, &support::fleet(hosts), NOW).unwrap().record;
            let (one, two) = (placed(&hosts), placed(&other));
            prop_assert_eq!(
                (&one.chosen, &one.summary, &one.input_digest),
                (&two.chosen, &two.summary, &two.input_digest)
            );
            prop_assert_eq!(&one.candidates, &two.candidates);
            Ok(!one.chosen.is_empty() || policy.0 == "place-quarantine")
        });
    }
}
