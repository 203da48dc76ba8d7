//! The cases beside each shipped policy, run on the component and on its native twin.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use vmetal_model::{HostPhase, Requirement, Resources};
use vmetal_policy::{Hardware, HostRow, Offer, PolicyEngine, Record, Wanted};

use crate::support;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case<Row> {
    case: String,
    #[serde(default)]
    claim: Claim,
    #[serde(default)]
    selector: BTreeMap<String, String>,
    candidates: Vec<Row>,
    expect: Expect,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Claim {
    #[serde(default)]
    count: Option<u32>,
    #[serde(default)]
    node_type: Option<String>,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    requirements: Vec<Requirement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(default)]
    chosen: Vec<String>,
    /// Costs as people write them.
    #[serde(default)]
    costs: BTreeMap<String, String>,
    /// Verdict codes of rejected candidates.
    #[serde(default)]
    rejected: BTreeMap<String, u32>,
    #[serde(default)]
    summary: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeType {
    name: String,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    cost: Option<u64>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "one")]
    free: u32,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    phase: Option<HostPhase>,
    #[serde(default)]
    claimed_by: Option<String>,
}

fn read<Row: DeserializeOwned>(policy: &str) -> Vec<Case<Row>> {
    let directory = support::workspace().join("policies").join(policy).join("cases");
    let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no cases in {}", directory.display());
    let parse = |path: &Path| -> Vec<Case<Row>> {
        serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.iter().flat_map(|path| parse(path)).collect()
}

fn claim(from: &Claim) -> Wanted {
    Wanted {
        name: "case".to_owned(),
        cluster: "blue".to_owned(),
        count: from.count.unwrap_or(1),
        node_type: from.node_type.clone(),
        resources: from.resources.clone(),
        requirements: from.requirements.clone(),
    }
}

fn compare(label: &str, expect: &Expect, record: &Record) {
    assert_eq!(record.chosen, expect.chosen, "{label}: {}", record.summary);
    for row in &record.candidates {
        if let Some(cost) = expect.costs.get(&row.name) {
            assert_eq!(&row.cost.unwrap().to_string(), cost, "{label}: cost of {}", row.name);
        }
        let rejected = expect.rejected.get(&row.name).copied().unwrap_or(0);
        assert_eq!(row.code, rejected, "{label}: {}: {}", row.name, row.reason);
    }
    if let Some(summary) = &expect.summary {
        assert_eq!(&record.summary, summary, "{label}");
    }
}

fn engines() -> [(&'static str, PolicyEngine); 2] {
    let shipped =
        vmetal_policy::Config { hosts_kept: usize::MAX, ..vmetal_policy::Config::shipped(support::components()) };
    [("component", PolicyEngine::new(shipped).unwrap()), ("native twin", support::native())]
}

#[test]
fn cost_vcluster() {
    for case in read::<NodeType>("cost-vcluster") {
        let offer = |row: &NodeType| Offer {
            explicit_cost: row.cost,
            labels: row.labels.clone(),
            resources: row.resources.clone(),
            total: 1,
            free: row.free,
            ..support::offer(&row.name, &[])
        };
        let offers: Vec<Offer> = case.candidates.iter().map(offer).collect();
        for (kind, engine) in engines() {
            let decision = engine.choose_type(&claim(&case.claim), &offers, 0).unwrap();
            assert_eq!(decision.record.stood_in_for, None);
            compare(&format!("{} ({kind})", case.case), &case.expect, &decision.record);
        }
    }
}

#[test]
fn place_first_fit() {
    for case in read::<Host>("place-first-fit") {
        let host = |row: &Host| HostRow {
            phase: row.phase.unwrap_or(HostPhase::Available),
            claimed_by: row.claimed_by.clone(),
            labels: row.labels.clone(),
            hardware: Some(Hardware::default()),
            ..support::host(&row.name, &[])
        };
        let hosts: Vec<HostRow> = case.candidates.iter().map(host).collect();
        let offer = Offer { selector: case.selector.clone(), ..support::offer("case", &[]) };
        for (kind, engine) in engines() {
            let decision = engine.place(&claim(&case.claim), &offer, &support::fleet(&hosts), 0).unwrap();
            assert_eq!(decision.record.stood_in_for, None);
            compare(&format!("{} ({kind})", case.case), &case.expect, &decision.record);
        }
    }
}
