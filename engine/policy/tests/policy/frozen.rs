//! Components of every version of the boundary that there was, as they were built then; see `tests/frozen/README.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use vmetal_model::HostPhase;
use vmetal_model::PolicyKind;
use vmetal_policy::{Binding, Config, Hardware, HostRow, OnFailure, PolicyEngine, Source};
use vmetal_policy_sdk::WIT_VERSION;

use crate::support::{fleet, map, offer, wanted};

/// Version, component, digest. Lines are added and never changed.
const FROZEN: [(&str, &str, &str); 2] = [
    ("0.1.0", "cost-vcluster", "67672a9d4908b9064d33a3972a205d77835c44a99fa63e2783454afaeeb9cd02"),
    ("0.1.0", "place-first-fit", "eee3abc0a5ef61487682cdba2d594812b8e9b1ee550946d08f2eb2c82e8f0e52"),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen")
}

/// Failing closed: no twin may answer in a frozen component's place. Seating it runs the cases that it brings.
fn binding(version: &str, name: &str, sha256: &str) -> Binding {
    let path = directory().join(version).join(format!("{name}.wasm"));
    let source = Source::File { path, sha256: Some(sha256.to_owned()) };
    Binding { source, settings: String::new(), on_failure: OnFailure::Closed }
}

fn host(name: &str, phase: HostPhase) -> HostRow {
    HostRow {
        name: name.to_owned(),
        deleted: false,
        held: false,
        phase,
        claimed_by: None,
        labels: map(&[("type", "small")]),
        hardware: Some(Hardware { threads: 8, memory_bytes: 32 << 30, ..Hardware::default() }),
        last_release: 0,
        last_tenant: String::new(),
        provisions: 0,
        power: Default::default(),
        erased: None,
        failures: 0,
    }
}

#[test]
fn every_frozen_component_still_decides() {
    for (version, name, sha256) in FROZEN {
        let engine = PolicyEngine::new(Config::native()).unwrap();
        let binding = binding(version, name, sha256);
        let small = offer("small", &[("cpu", "2"), ("memory", "4Gi")]);
        let asked = wanted(&[("cpu", "1")]);
        if name.starts_with("cost-") {
            engine.install(PolicyKind::Cost, &binding).unwrap_or_else(|error| panic!("{name} of {version}: {error}"));
            let large = offer("large", &[("cpu", "32"), ("memory", "128Gi")]);
            let decision = engine.choose_type(&asked, &[large, small], 7).unwrap();
            let costs: Vec<u64> = decision.costs.iter().map(|cost| cost.units()).collect();
            assert_eq!((decision.chosen, costs), (Some(1), vec![576, 28]), "{name} of {version}");
            assert_eq!(decision.record.policy.sha256.as_deref(), Some(sha256));
        } else {
            engine
                .install(PolicyKind::Placement, &binding)
                .unwrap_or_else(|error| panic!("{name} of {version}: {error}"));
            let hosts =
                [host("h3", HostPhase::Available), host("h1", HostPhase::Error), host("h2", HostPhase::Available)];
            let decision = engine.place(&asked, &small, &fleet(&hosts), 7).unwrap();
            assert_eq!(decision.chosen, ["h2"], "{name} of {version}");
            assert_eq!(decision.record.policy.sha256.as_deref(), Some(sha256));
            let parts = engine.explain_score(&asked, &small, &fleet(&hosts), "h2", 7).unwrap();
            let score = decision.record.candidates.iter().find(|row| row.name == "h2").unwrap().score;
            assert_eq!(parts.iter().map(|(_, part)| part).sum::<i64>(), score, "{name} of {version}");
        }
    }
}

#[test]
fn every_version_of_the_boundary_and_every_frozen_file_is_run() {
    assert!(FROZEN.iter().any(|(version, ..)| *version == WIT_VERSION), "freeze components of {WIT_VERSION}");
    let mut files = Vec::new();
    for version in
        std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        files.extend(std::fs::read_dir(version).unwrap().map(|entry| entry.unwrap().path()));
    }
    let listed = |path: &PathBuf| FROZEN.iter().any(|(v, name, _)| path.ends_with(format!("{v}/{name}.wasm")));
    let unlisted: Vec<_> = files.iter().filter(|path| !listed(path)).collect();
    assert!(unlisted.is_empty() && files.len() == FROZEN.len(), "{unlisted:?} are not run");
}
