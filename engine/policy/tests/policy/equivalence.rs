//! Component and native twin, on random fleets; and the order of rows, which must not matter.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_model::{HostPhase, Operator, Quantity, Requirement, Resources};
use vmetal_policy::{Hardware, HostRow, Offer, Record, Wanted};

use crate::support;

/// Inputs compared in each run; another seed each time, `VMETAL_TEST_SEED` repeats a run.
const CASES: u32 = 3000;

/// Runs the test on random inputs. It says of each whether something was chosen: a run in which that hardly happens
/// would prove nothing, and fails.
fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    // The standard library's hash keys are random in every process.
    let random = || RandomState::new().build_hasher().finish();
    let seed = std::env::var("VMETAL_TEST_SEED").map_or_else(|_| random(), |seed| seed.parse().unwrap());
    println!("VMETAL_TEST_SEED={seed}");
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
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
    fn wanted()(
        name in "[a-c]{1,3}",
        count in 1u32..4,
        node_type in prop::option::weighted(0.1, "t[0-9]"),
        resources in amounts(),
        requirements in prop::collection::vec(requirement(), 0..2),
    ) -> Wanted {
        Wanted { name, cluster: "blue".to_owned(), count, node_type, resources, requirements }
    }
}

prop_compose! {
    fn offer()(
        name in "t[0-9]{1,2}",
        selector in labels(),
        labels in labels(),
        resources in amounts(),
        explicit_cost in prop::option::of(0u64..3),
        free in 0u32..5,
    ) -> Offer {
        Offer { name, deleted: false, selector, labels, resources, explicit_cost, total: 5, free, taken: String::new() }
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
    fn host()(
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
fn distinct<T: std::fmt::Debug>(
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
fn outcome(record: &Record) -> impl PartialEq + std::fmt::Debug + use<> {
    let digest = record.input_digest.clone();
    (record.chosen.clone(), record.candidates.clone(), record.summary.clone(), digest, record.stood_in_for.clone())
}

#[test]
fn cost_component_equals_native_twin() {
    let (native, wasm) = (support::native(), support::wasm());
    check(CASES, &(wanted(), distinct(offer(), |row| &row.name, 12)), |(wanted, offers)| {
        let [ours, theirs] = [wasm, &native].map(|engine| engine.choose_type(&wanted, &offers, 7).unwrap());
        prop_assert!(ours.record.fuel.is_some() && theirs.record.fuel.is_none());
        prop_assert_eq!(outcome(&ours.record), outcome(&theirs.record));
        prop_assert_eq!((ours.chosen, &ours.costs), (theirs.chosen, &theirs.costs));
        for (index, cost) in ours.costs.iter().enumerate() {
            let parts = native.explain_price(&wanted, &offers, index, 7).unwrap();
            prop_assert_eq!(parts.iter().map(|(_, part)| part.micro()).sum::<i64>(), cost.micro());
            if index == 0 {
                prop_assert_eq!(wasm.explain_price(&wanted, &offers, index, 7).unwrap(), parts);
            }
        }
        Ok(ours.chosen.is_some())
    });
}

#[test]
fn placement_component_equals_native_twin() {
    let (native, wasm) = (support::native(), support::wasm());
    check(CASES, &(wanted(), offer(), distinct(host(), |row| &row.name, 40)), |(wanted, offer, hosts)| {
        let [ours, theirs] =
            [wasm, &native].map(|engine| engine.place(&wanted, &offer, &support::fleet(&hosts), 7).unwrap());
        prop_assert!(ours.record.fuel.is_some() && theirs.record.fuel.is_none());
        prop_assert_eq!(outcome(&ours.record), outcome(&theirs.record));
        Ok(!ours.chosen.is_empty())
    });
}

#[test]
fn the_order_of_rows_changes_no_choice() {
    let native = support::native();
    let rows = (wanted(), distinct(offer(), |row| &row.name, 12), distinct(host(), |row| &row.name, 40));
    let shuffled = rows.prop_flat_map(|(wanted, offers, hosts)| {
        let permuted = (Just(offers.clone()).prop_shuffle(), Just(hosts.clone()).prop_shuffle());
        (Just((wanted, offers, hosts)), permuted)
    });
    check(CASES / 4, &shuffled, |((wanted, offers, hosts), (other_offers, other_hosts))| {
        let chosen = |offers: &[Offer]| native.choose_type(&wanted, offers, 7).unwrap().record.chosen;
        prop_assert_eq!(chosen(&offers), chosen(&other_offers));
        if let Some(offer) = offers.first() {
            let placed = |hosts: &[HostRow]| native.place(&wanted, offer, &support::fleet(hosts), 7).unwrap().record;
            let (one, two) = (placed(&hosts), placed(&other_hosts));
            prop_assert_eq!((&one.chosen, &one.summary), (&two.chosen, &two.summary));
            return Ok(!one.chosen.is_empty());
        }
        Ok(false)
    });
}
