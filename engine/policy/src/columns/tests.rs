#![allow(clippy::unwrap_used, reason = "tests")]
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use vmetal_model::HostPhase;
use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;

use super::*;
use crate::feasibility::{self, gates::Gates};
use crate::input::{Hardware, Offer};
use crate::round::{Bars, Except};

fn levels() -> Vec<String> {
    vec!["row".to_owned(), "rack".to_owned()]
}

fn host(name: &str, labels: &[(&str, &str)]) -> HostRow {
    HostRow {
        name: name.to_owned(),
        deleted: false,
        held: false,
        phase: HostPhase::Available,
        claimed_by: None,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        hardware: Some(Hardware { threads: 64, memory_bytes: 256 << 30, ..Hardware::default() }),
        last_release: 0,
        last_tenant: String::new(),
        provisions: 0,
        power: PowerState::Off,
        erased: None,
        failures: 0,
    }
}

prop_compose! {
    fn any_host()(
        number in 0u32..12,
        labels in prop::collection::btree_map(prop::sample::select(vec!["row", "rack", "gpu", "x"]).prop_map(str::to_owned),
            prop::sample::select(vec!["", "a", "b", "c"]).prop_map(str::to_owned), 0..4),
        (deleted, held) in (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        phase in prop::sample::select(vec![HostPhase::Available, HostPhase::Available, HostPhase::Error]),
        claimed_by in prop::option::weighted(0.2, "[a-c]"),
        hardware in prop::option::weighted(0.9, (1u32..5, 1u64..5, 0u32..3)),
        (last_release, provisions, failures) in (0u64..9, 0u32..9, 0u32..3),
        last_tenant in "[a-b]?",
        power in prop::sample::select(vec![PowerState::Unknown, PowerState::On, PowerState::Off]),
        erased in prop::option::of(prop::sample::select(vec![EraseLevel::Metadata, EraseLevel::Discard, EraseLevel::Overwrite])),
    ) -> HostRow {
        let hardware = hardware.map(|(threads, gib, gpus)| Hardware {
            threads,
            memory_bytes: gib << 30,
            accelerators: (gpus > 0).then(|| ("nvidia.com/gpu".to_owned(), gpus)).into_iter().collect(),
            gpu_model: (gpus > 0).then(|| "10de:2330".to_owned()),
        });
        HostRow {
            name: format!("h{number}"), deleted, held, phase, claimed_by, labels, hardware, last_release, last_tenant,
            provisions, power, erased, failures,
        }
    }
}

prop_compose! {
    fn any_offer()(
        selector in prop::collection::btree_map(prop::sample::select(vec!["gpu", "rack", "nobody"]).prop_map(str::to_owned),
            prop::sample::select(vec!["", "a", "b", "unheard-of"]).prop_map(str::to_owned), 0..2),
        amounts in prop::collection::btree_map(
            prop::sample::select(vec!["cpu", "memory", "nvidia.com/gpu", "amd.com/gpu", "example.com/card"]).prop_map(str::to_owned),
            0u64..6, 0..4),
    ) -> Offer {
        let amount = |name: &str, n: u64| if name == "memory" { n << 30 } else { n };
        let resources = amounts.iter().map(|(name, n)| (name.clone(), vmetal_model::Quantity::units(amount(name, *n)))).collect();
        Offer {
            name: "t".to_owned(), deleted: false, selector: selector.clone(), labels: selector, resources,
            explicit_cost: None, total: 0, free: 0, standby: 0, taken: String::new(),
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(HostRow),
    Remove(String),
    Look,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => any_host().prop_map(Change::Put),
        2 => (0u32..12).prop_map(|number| Change::Remove(format!("h{number}"))),
        1 => Just(Change::Look),
    ]
}

fn run<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let random = || RandomState::new().build_hasher().finish();
    let seed = std::env::var("VMETAL_TEST_SEED").map_or_else(|_| random(), |seed| seed.parse().unwrap());
    println!("VMETAL_TEST_SEED={seed}");
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(strategy, test).unwrap_or_else(|error| panic!("VMETAL_TEST_SEED={seed}: {error}"));
}

/// What a policy would see of the host, by name, so that the place of rows does not matter.
fn seen(view: &View) -> BTreeMap<String, Vec<String>> {
    let table = view.table.lend(vec![0; view.len()], &[]);
    let text = |sym| view.table.symbols.text(sym).to_owned();
    let row = |host: vmetal_policy_sdk::HostRef<'_>| {
        let mut facts = vec![
            host.rank().to_string(),
            host.cpu_milli().to_string(),
            host.memory_bytes().to_string(),
            host.gpus().to_string(),
            text(host.gpu_model()),
            text(host.last_tenant()),
            host.last_release().to_string(),
            host.provisions().to_string(),
            host.power().to_string(),
            host.erase_level().to_string(),
            host.failures().to_string(),
            text(host.domain(0)),
            text(host.domain(1)),
        ];
        facts.extend(host.labels().map(|(key, value)| format!("{}={}", text(key), text(value))));
        (text(host.name()), facts)
    };
    table.rows().map(row).collect()
}

#[test]
fn columns_kept_up_to_date_are_those_made_from_scratch() {
    run(600, &(prop::collection::vec(change(), 0..40), any_offer()), |(changes, offer)| {
        let mut columns = Columns::new(levels());
        let mut truth: BTreeMap<String, HostRow> = BTreeMap::new();
        let mut held = Vec::new();
        for change in changes {
            match change {
                Change::Put(row) => {
                    columns.insert(&row);
                    truth.insert(row.name.clone(), row);
                }
                Change::Remove(name) => {
                    columns.remove(&name);
                    truth.remove(&name);
                }
                // A view that is held must not change any more.
                Change::Look => held.push((columns.view(), truth.values().cloned().collect::<Vec<_>>())),
            }
        }
        held.push((columns.view(), truth.values().cloned().collect()));
        for (view, rows) in held {
            prop_assert_eq!(&view.rows().collect::<Vec<_>>(), &rows);
            let fresh = View::from_rows(&rows, &levels());
            prop_assert_eq!(seen(&view), seen(&fresh));
            prop_assert_eq!(view.digest(), fresh.digest());
            let backwards = View::from_rows(rows.iter().rev(), &levels());
            prop_assert_eq!(view.digest(), backwards.digest(), "the order in which hosts came must not matter");

            // Rules by numbers say what rules in words say.
            let gates = Gates::of(&offer, &view);
            let bars = Bars {
                tried: rows.iter().take(2).map(|row| (row.name.clone(), "broke".to_owned())).collect(),
                spare: rows.iter().skip(1).take(2).map(|row| row.name.clone()).collect(),
                domain: Some(("rack".to_owned(), "a".to_owned())),
            };
            for (gates, bars) in [(gates.clone(), &Bars::none()), (gates.barred(&view, &bars), &bars)] {
                let except = Except { bars, ..Except::nothing() };
                let mut topics = BTreeMap::new();
                for (slot, code) in gates.codes.iter().enumerate() {
                    let words = feasibility::gates::rejections(&offer, &view, slot, except);
                    prop_assert_eq!(*code, words.first().map_or(0, feasibility::Rejection::code), "{:?}", words);
                    if let Some(first) = words.first() {
                        *topics.entry(first.topic()).or_insert(0usize) += 1;
                    }
                }
                prop_assert_eq!(
                    feasibility::count_topics(gates.topics(&offer, bars, None)),
                    feasibility::count_topics(topics)
                );
            }
        }
        Ok(())
    });
}

#[test]
fn every_fact_is_in_the_digest() {
    let base = host("a", &[("row", "1")]);
    let variants = [
        base.clone(),
        HostRow { name: "b".to_owned(), ..base.clone() },
        HostRow { deleted: true, ..base.clone() },
        HostRow { held: true, ..base.clone() },
        HostRow { phase: HostPhase::Error, ..base.clone() },
        HostRow { claimed_by: Some("n".to_owned()), ..base.clone() },
        HostRow { labels: BTreeMap::new(), ..base.clone() },
        HostRow { hardware: None, ..base.clone() },
        HostRow { last_release: 1, ..base.clone() },
        HostRow { last_tenant: "blue".to_owned(), ..base.clone() },
        HostRow { provisions: 1, ..base.clone() },
        HostRow { power: PowerState::On, ..base.clone() },
        HostRow { erased: Some(EraseLevel::Discard), ..base.clone() },
        HostRow { failures: 1, ..base },
    ];
    let digests: BTreeSet<String> = variants.iter().map(|row| View::from_rows([row], &levels()).digest()).collect();
    assert_eq!(digests.len(), variants.len());
}

#[test]
fn one_change_costs_one_row_however_large_the_fleet() {
    for hosts in [100u32, 5000] {
        let mut columns = Columns::new(levels());
        let row = |n: u32| host(&format!("h{n:05}"), &[("row", "1"), ("rack", &format!("r{}", n / 16))]);
        (0..hosts).for_each(|n| columns.insert(&row(n)));
        drop(columns.view());
        let before = columns.work();
        for n in 0..10 {
            columns.insert(&HostRow { claimed_by: Some("n".to_owned()), ..row(n * 7) });
        }
        drop(columns.view());
        let after = columns.work();
        let spent = Work {
            rows: after.rows - before.rows,
            hashed: after.hashed - before.hashed,
            ordered: after.ordered - before.ordered,
            moved: after.moved - before.moved,
            swept: after.swept - before.swept,
        };
        assert_eq!(spent, Work { rows: 10, hashed: 10, ordered: 0, moved: 0, swept: 0 }, "{hosts} hosts");

        // What concerns all rows is paid once for many changes.
        for n in 0..10 {
            columns.insert(&host(&format!("new{n}"), &[("row", "2")]));
            columns.insert(&host(&format!("h{n:05}"), &[]));
        }
        drop(columns.view());
        let (now, rows) = (columns.work(), u64::from(hosts) + 10);
        assert_eq!((now.ordered - after.ordered, now.moved - after.moved, now.hashed - after.hashed), (rows, rows, 20));
        // Nothing happened since: looking again costs nothing.
        drop(columns.view());
        assert_eq!(columns.work(), now);
    }
}

#[test]
fn making_the_columns_anew_writes_orders_and_hashes_each_row_once() {
    for hosts in [10u32, 10_000] {
        let mut columns = Columns::new(levels());
        for n in 0..hosts {
            columns.insert(&host(&format!("h{n:05}"), &[("row", "1"), ("serial", &format!("s-{n}"))]));
        }
        drop(columns.view());
        let each = u64::from(hosts);
        assert_eq!(columns.work(), Work { rows: each, hashed: each, ordered: each, moved: 0, swept: 0 });
    }
}

#[test]
fn strings_of_hosts_that_come_and_go_are_dropped_too() {
    let mut columns = Columns::new(levels());
    for n in 0..6 * SWEEP {
        columns.insert(&host(&format!("h{n}"), &[]));
        if n >= 10 {
            columns.remove(&format!("h{}", n - 10));
        }
        if n % 100 == 0 {
            drop(columns.view());
        }
    }
    assert!(columns.view().table.symbols.len() < SWEEP + 200, "{}", columns.view().table.symbols.len());
    assert_eq!(columns.view().len(), 10);
}

#[test]
fn strings_that_nobody_has_any_more_are_dropped() {
    let mut columns = Columns::new(levels());
    for n in 0..3 * SWEEP {
        columns.insert(&host("a", &[("x", &format!("value-{n}"))]));
        if n % 100 == 0 {
            drop(columns.view());
        }
    }
    assert!(columns.view().table.symbols.len() < SWEEP + 200, "{}", columns.view().table.symbols.len());
    assert_eq!(columns.view().rows().next().unwrap().labels["x"], format!("value-{}", 3 * SWEEP - 1));
}
