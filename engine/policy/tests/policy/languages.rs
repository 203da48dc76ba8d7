//! One policy in three languages: `examples/policies`. What is written in JavaScript and Python brings its interpreter, and
//! runs under the same rules as everything else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proptest::prelude::*;
use serde_json::json;
use vmetal_policy::cases::{Case, CaseError};
use vmetal_policy::{HostRow, Limits, LoadError, Workbench, componentize};

use crate::equivalence::{check, distinct, host, offer, outcome, wanted};
use crate::support;

/// Inputs on which all three are compared.
const CASES: u32 = 100;
/// A level of the fleets here; see [`support::fleet`].
const SETTINGS: &str = r#"{"level":"b"}"#;
const FILES: [&str; 3] = ["fill-racks.wasm", "fill-racks-javascript.wasm", "fill-racks-python.wasm"];

/// The components, where `scripts/artifacts --tests` has built them. They take tools of other languages: where nothing was
/// built, and nobody said that everything must run, the tests have nothing to do.
fn components() -> Option<[PathBuf; 3]> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("artifacts").join("examples");
    let paths = FILES.map(|file| directory.join(file));
    let Some(missing) = paths.iter().find(|path| !path.exists()).cloned() else { return Some(paths) };
    let reason = format!("{} is missing: run `scripts/artifacts --tests`", missing.display());
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    println!("SKIPPED: {reason}");
    None
}

/// All three, with their cases not yet run. Their machine code is kept beside what they were built from: compiling an
/// interpreter takes longer than all that is tested with it.
fn benches() -> Option<&'static [Workbench; 3]> {
    static BENCHES: OnceLock<Option<[Workbench; 3]>> = OnceLock::new();
    let of = |name| std::env::var_os(name).map(PathBuf::from);
    let caches = || of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")));
    let cache =
        of("VMETAL_CACHE").or_else(|| Some(caches()?.join("vmetal"))).map(|cache| cache.join("compiled-policies"));
    let open = |path: PathBuf| Workbench::component(&path, SETTINGS, cache.as_deref()).unwrap();
    BENCHES.get_or_init(|| Some(components()?.map(open))).as_ref()
}

#[test]
fn the_same_policy_in_three_languages_decides_alike() {
    let Some(benches) = benches() else { return };
    let engines = benches.each_ref().map(Workbench::engine);
    check(CASES, &(wanted(), offer(), distinct(host(), |row| &row.name, 40)), |(wanted, offer, hosts)| {
        let fleet = support::fleet(&hosts);
        let [rust, others @ ..] = engines.map(|engine| engine.place(&wanted, &offer, &fleet, 7).unwrap());
        let first = rust.record.candidates.first().map(|row| row.name.clone());
        for (engine, other) in engines[1..].iter().zip(others) {
            let who = &other.record.policy;
            prop_assert_eq!(outcome(&other.record), outcome(&rust.record), "{}", who);
            let again = engine.place(&wanted, &offer, &fleet, 7).unwrap().record;
            prop_assert_eq!((again.fuel, outcome(&again)), (other.record.fuel, outcome(&other.record)), "{}", who);
            if let Some(name) = &first {
                let parts = engine.explain_score(&wanted, &offer, &fleet, name, 7).unwrap();
                prop_assert_eq!(parts, engines[0].explain_score(&wanted, &offer, &fleet, name, 7).unwrap(), "{}", who);
            }
        }
        Ok(!rust.chosen.is_empty())
    });
}

/// So many hosts in racks of 18, of which some are taken.
fn fleet(hosts: u32) -> Vec<HostRow> {
    let row = |number: u32| HostRow {
        name: format!("host-{number:05}"),
        deleted: false,
        held: false,
        phase: vmetal_model::HostPhase::Available,
        claimed_by: (number % 7 < 3).then(|| "other".to_owned()),
        labels: support::map(&[("b", &format!("rack-{}", number / 18)), ("type", "small")]),
        hardware: Some(vmetal_policy::Hardware { threads: 8, memory_bytes: 32 << 30, ..Default::default() }),
        last_release: 0,
        last_tenant: String::new(),
        provisions: 0,
        power: Default::default(),
        erased: None,
        failures: 0,
    };
    (0..hosts).map(row).collect()
}

#[test]
fn what_an_interpreter_needs_for_many_hosts_is_far_within_its_allowance() {
    let Some(benches) = benches() else { return };
    let hosts = fleet(2000);
    let asked = support::wanted(&[("cpu", "1")]);
    let offered = support::offer("small", &[("cpu", "2"), ("memory", "4Gi")]);
    let records = benches.each_ref().map(|bench| {
        let decided = bench.engine().place(&asked, &offered, &support::fleet(&hosts), 7).unwrap();
        (decided.chosen, decided.record.fuel.unwrap())
    });
    let allowed = Limits::default().interpreted.fuel(2000);
    for ((chosen, fuel), file) in records.iter().zip(FILES) {
        println!("{file}: fuel {fuel} of {allowed}");
        assert_eq!(chosen, &records[0].0);
        assert!(*fuel < allowed / 4, "{file}: fuel {fuel} of {allowed}");
    }
    assert!(records[0].1 < Limits::default().compiled.fuel(2000) / 4);
}

#[test]
fn they_say_the_same_of_themselves_and_decide_the_cases_that_they_bring() {
    let Some(benches) = benches() else { return };
    let written = componentize::read_cases(&support::workspace().join("examples/policies/cases")).unwrap();
    let schema =
        |bench: &Workbench| -> serde_json::Value { serde_json::from_str(&bench.settings_schema().unwrap()).unwrap() };
    let [rust, others @ ..] = benches;
    assert_eq!(rust.outside().unwrap().allowance, Limits::default().compiled);
    for bench in others {
        let outside = bench.outside().unwrap();
        assert!(outside.imports.iter().all(|import| import.starts_with("vmetal:policy/")), "{:?}", outside.imports);
        assert_eq!(outside.allowance, Limits::default().interpreted);
        assert_eq!((bench.describe().unwrap(), schema(bench)), (rust.describe().unwrap(), schema(rust)));
    }
    for (bench, file) in benches.iter().zip(FILES) {
        assert_eq!(bench.cases().unwrap(), written, "{file}");
        for case in &written {
            assert_eq!(case.problems(&bench.run_case(case).unwrap()), [""; 0], "{file}: {}", case.case);
        }
        let with = |settings: serde_json::Value| {
            let settings = Some(settings.as_object().unwrap().clone());
            bench.run_case(&Case { settings, ..written[0].clone() })
        };
        for fine in [json!({}), json!({"level": ""}), json!({"level": "é\"\\ "})] {
            with(fine.clone()).unwrap_or_else(|error| panic!("{file}: {fine}: {error}"));
        }
        for wrong in [json!({"level": 7}), json!({"level": null}), json!({"toString": 1}), json!({"Level": ""})] {
            match with(wrong.clone()) {
                Err(CaseError::Load(LoadError::Settings { messages, .. })) => {
                    assert!(
                        !messages.is_empty() && messages.iter().all(|message| !message.is_empty()),
                        "{file}: {wrong}"
                    );
                }
                other => panic!("{file}: {wrong}: {other:?}"),
            }
        }
    }
}
