//! The shipped components, built when this run first needs them, and short ways to say inputs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use vmetal_model::Resources;
use vmetal_policy::{Config, HostRow, Offer, PolicyEngine, View, Wanted};

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The directory of the shipped components. Cargo rebuilds what is out of date; a failure fails the test.
pub(crate) fn components() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policies");
        let all = [vmetal_policy_sdk::Kind::Cost, vmetal_policy_sdk::Kind::Placement].map(vmetal_policy::shipped);
        for package in all.concat() {
            if let Err(error) = vmetal_policy::componentize::build(&workspace().join("policies").join(package), &out) {
                panic!("{error}\nrun `make setup`, then `make policies`");
            }
        }
        out
    })
}

/// The shipped components, failing closed so that no twin can hide a failure.
pub(crate) fn wasm() -> &'static PolicyEngine {
    static ENGINE: OnceLock<PolicyEngine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config { hosts_kept: usize::MAX, ..Config::shipped(components()) };
        config.cost.on_failure = vmetal_policy::OnFailure::Closed;
        config.placement.on_failure = vmetal_policy::OnFailure::Closed;
        PolicyEngine::new(config).unwrap()
    })
}

pub(crate) fn native() -> PolicyEngine {
    PolicyEngine::new(Config { hosts_kept: usize::MAX, ..Config::native() }).unwrap()
}

/// A fleet with two levels of failure domains.
pub(crate) fn fleet(hosts: &[HostRow]) -> View {
    View::from_rows(hosts, &["a".to_owned(), "b".to_owned()])
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn resources(pairs: &[(&str, &str)]) -> Resources {
    pairs.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect()
}

pub(crate) fn wanted(amounts: &[(&str, &str)]) -> Wanted {
    Wanted {
        name: "node-1".to_owned(),
        cluster: "blue".to_owned(),
        count: 1,
        node_type: None,
        resources: resources(amounts),
        requirements: vec![],
        quota: vec![],
        used_up: vec![],
    }
}

pub(crate) fn offer(name: &str, amounts: &[(&str, &str)]) -> Offer {
    Offer {
        name: name.to_owned(),
        deleted: false,
        selector: map(&[("type", name)]),
        labels: map(&[("type", name)]),
        resources: resources(amounts),
        explicit_cost: None,
        total: 1,
        free: 1,
        standby: 0,
        taken: String::new(),
    }
}
