//! One decision, taken apart: what each candidate's verdict is, what its score is the sum of, and what would have to change
//! for one that was left out.

use std::collections::BTreeMap;

use serde::Serialize;
use vmetal_policy::feasibility;
use vmetal_policy::{HostRow, Offer, Record, Workbench};
use vmetal_policy_sdk::Kind;

use crate::error::ToolError;
use crate::fleet::{ClaimRow, Fleet};
use crate::spec::Spec;

/// One decision.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Who decided, as `name@version sha256:…`.
    pub policy: String,
    /// `cost` or `placement`.
    pub kind: String,
    /// Placement: the node type that hosts were wanted of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_type: Option<String>,
    /// One sentence.
    pub summary: String,
    /// Who was chosen, best first.
    pub chosen: Vec<String>,
    /// The chosen ones, then those that fit, the best first, then the others.
    pub candidates: Vec<Verdict>,
    /// Hosts that were left out and would be taken if least changed, the nearest first.
    pub nearest: Vec<Near>,
    /// Fuel that it used; none for a native twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
}

/// One candidate.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// Whether it could be chosen.
    pub feasible: bool,
    /// The code of the reason why not, or 0.
    pub code: u32,
    /// In words.
    pub reason: String,
    /// The policy's score; of a node type its price, in millionths, negated.
    pub score: i64,
    /// A node type's price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// What score or price is the sum of.
    pub terms: Vec<(String, i64)>,
}

/// A host that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Near {
    /// Its name.
    pub name: String,
    /// Each thing that would have to be otherwise.
    pub changes: Vec<String>,
}

/// Hosts shown as nearest.
const NEAREST: usize = 3;

/// Takes the decision that a claim would get, and takes it apart. Terms are asked for of the first `shown` candidates and of
/// `only`, whom everything else is then left out for.
///
/// # Errors
/// When the policy is refused or fails, or there is no such candidate.
pub fn explain(
    spec: &Spec,
    fleet: &Fleet,
    claim: &ClaimRow,
    only: Option<&str>,
    shown: usize,
) -> Result<Explanation, ToolError> {
    let bench = spec.open()?;
    match bench.kind() {
        Kind::Cost => types(&bench, fleet, claim, only, shown),
        Kind::Placement => hosts(&bench, fleet, claim, only, shown),
    }
}

fn failed(what: &str) -> impl Fn(vmetal_policy::PolicyError) -> ToolError {
    move |source| ToolError::Decision { when: what.to_owned(), source }
}

fn types(
    bench: &Workbench,
    fleet: &Fleet,
    claim: &ClaimRow,
    only: Option<&str>,
    shown: usize,
) -> Result<Explanation, ToolError> {
    let offers = fleet.counted(&fleet.columns().view());
    let wanted = claim.wanted();
    let decided = bench.engine().choose_type(&wanted, &offers, claim.at).map_err(failed("there is no decision"))?;
    let terms = |name: &str| {
        let Some(index) = offers.iter().position(|offer| offer.name == name) else { return Ok(Vec::new()) };
        bench.engine().explain_price(&wanted, &offers, index, claim.at).map_err(failed("the price cannot be explained"))
    };
    told(bench, None, decided.record, "node type", only, shown, terms, Vec::new())
}

fn hosts(
    bench: &Workbench,
    fleet: &Fleet,
    claim: &ClaimRow,
    only: Option<&str>,
    shown: usize,
) -> Result<Explanation, ToolError> {
    let view = fleet.columns().view();
    let wanted = claim.wanted();
    let offer = node_type(bench, fleet, claim)?;
    let decided = bench.engine().place(&wanted, &offer, &view, claim.at).map_err(failed("there is no decision"))?;
    let terms = |name: &str| {
        let parts = bench.engine().explain_score(&wanted, &offer, &view, name, claim.at);
        parts.map_err(failed("the score cannot be explained"))
    };
    let nearest = nearest(&offer, &fleet.hosts, &decided.record);
    told(bench, Some(offer.name.clone()), decided.record, "host", only, shown, terms, nearest)
}

/// The type that the claim names, or that the default cost policy takes; if none fits, the one whose selector matches most
/// hosts, so that there is something to explain.
fn node_type(bench: &Workbench, fleet: &Fleet, claim: &ClaimRow) -> Result<Offer, ToolError> {
    let offers = fleet.counted(&fleet.columns().view());
    if let Some(name) = &claim.node_type {
        let found = offers.into_iter().find(|offer| offer.name == *name);
        return found.ok_or_else(|| ToolError::NoSuchRow { what: "node type", name: name.clone() });
    }
    let chosen =
        bench.engine().choose_type(&claim.wanted(), &offers, claim.at).map_err(failed("choosing a node type"))?.chosen;
    let largest = || (0..offers.len()).max_by_key(|at| (offers[*at].total, std::cmp::Reverse(*at)));
    let found = chosen.or_else(largest).and_then(|at| offers.get(at).cloned());
    found.ok_or_else(|| ToolError::NoSuchRow { what: "node type", name: "(any)".to_owned() })
}

#[expect(clippy::too_many_arguments, reason = "what the two kinds have in common")]
fn told(
    bench: &Workbench,
    node_type: Option<String>,
    record: Record,
    what: &'static str,
    only: Option<&str>,
    shown: usize,
    terms: impl Fn(&str) -> Result<Vec<(String, i64)>, ToolError>,
    nearest: Vec<Near>,
) -> Result<Explanation, ToolError> {
    let mut candidates = Vec::new();
    for (at, row) in record.candidates.into_iter().enumerate() {
        let wanted = only.is_none_or(|only| only == row.name);
        if !wanted {
            continue;
        }
        let parts = if at < shown || only.is_some() { terms(&row.name)? } else { Vec::new() };
        candidates.push(Verdict {
            name: row.name,
            feasible: row.feasible,
            code: row.code,
            reason: row.reason,
            score: row.score,
            cost: row.cost.map(|cost| cost.to_string()),
            terms: parts,
        });
    }
    if let (Some(only), true) = (only, candidates.is_empty()) {
        return Err(ToolError::NoSuchRow { what, name: only.to_owned() });
    }
    Ok(Explanation {
        policy: bench.identity().to_string(),
        kind: record.kind,
        node_type,
        summary: record.summary,
        chosen: record.chosen,
        candidates,
        nearest: nearest.into_iter().filter(|near| only.is_none_or(|only| only == near.name)).take(NEAREST).collect(),
        fuel: record.fuel,
    })
}

/// Who would fit if least were otherwise: by the number of rules that it fails, then by name. What only the policy says
/// against a host counts as one.
fn nearest(offer: &Offer, hosts: &[HostRow], record: &Record) -> Vec<Near> {
    let rows: BTreeMap<&str, &HostRow> = hosts.iter().map(|host| (host.name.as_str(), host)).collect();
    let near = |candidate: &vmetal_policy::Candidate| {
        let row = rows.get(candidate.name.as_str())?;
        let rules: Vec<String> = feasibility::host(offer, row).iter().map(ToString::to_string).collect();
        let changes = if rules.is_empty() { vec![candidate.reason.clone()] } else { rules };
        Some(Near { name: candidate.name.clone(), changes })
    };
    let mut found: Vec<Near> = record.candidates.iter().filter(|row| !row.feasible).filter_map(near).collect();
    found.sort_by(|a, b| a.changes.len().cmp(&b.changes.len()).then_with(|| a.name.cmp(&b.name)));
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fleet() -> Fleet {
        let text = "
node_types:
- { name: gpu, selector: { gpu: h100 }, resources: { cpu: \"8\" } }
hosts:
- { name: a, phase: available, power: \"on\", labels: { gpu: h100 }, hardware: { threads: 8 } }
- { name: b, phase: available, labels: { gpu: h100 }, hardware: { threads: 8 }, provisions: 3 }
- { name: c, phase: provisioned, claimed_by: web-1, labels: { gpu: a100 }, hardware: { threads: 8 } }
- { name: d, phase: available, labels: { gpu: h100 }, hardware: { threads: 4 } }
";
        serde_yaml_ng::from_str(text).unwrap()
    }

    fn claim(text: &str) -> ClaimRow {
        serde_yaml_ng::from_str(text).unwrap()
    }

    #[test]
    fn verdicts_terms_and_the_nearest_host() {
        let told =
            explain(&Spec::read("place-balanced"), &fleet(), &claim("{ name: x, resources: { cpu: \"8\" } }"), None, 2)
                .unwrap();
        assert_eq!((told.chosen.as_slice(), told.node_type.as_deref()), (["a".to_owned()].as_slice(), Some("gpu")));
        for row in &told.candidates[..2] {
            assert_eq!(row.terms.iter().map(|(_, points)| points).sum::<i64>(), row.score, "{row:?}");
        }
        assert!(told.candidates[2].terms.is_empty());
        let names: Vec<_> = told.nearest.iter().map(|near| (near.name.as_str(), near.changes.len())).collect();
        assert_eq!(names, [("d", 1), ("c", 2)]);
        assert_eq!(told.nearest[0].changes, ["cpu 8 wanted, 4 there"]);
    }

    #[test]
    fn one_host_of_an_impossible_claim() {
        let asked = claim("{ name: x, count: 3, node_type: gpu, resources: { cpu: \"8\" } }");
        let told = explain(&Spec::read("place-first-fit"), &fleet(), &asked, Some("c"), 1).unwrap();
        assert_eq!((told.candidates.len(), told.chosen.len(), told.nearest.len()), (1, 0, 1));
        assert!(told.summary.starts_with("2 of 4 hosts (3 wanted)"), "{}", told.summary);
        let gone = explain(&Spec::read("place-first-fit"), &fleet(), &asked, Some("z"), 1).unwrap_err();
        assert_eq!(gone.to_string(), "the fleet has no host \"z\"");
    }

    #[test]
    fn prices_are_taken_apart() {
        let told =
            explain(&Spec::read("cost-effective"), &fleet(), &claim("{ name: x, resources: { cpu: \"8\" } }"), None, 9)
                .unwrap();
        let [gpu] = told.candidates.as_slice() else { panic!("{told:?}") };
        assert_eq!(gpu.terms.iter().map(|(_, part)| part).sum::<i64>(), -gpu.score);
        assert_eq!((told.kind.as_str(), gpu.cost.is_some()), ("cost", true));
    }
}
