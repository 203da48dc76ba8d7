//! Cases: what a policy must decide, written down.
//!
//! A case names the claim, the candidates and what is expected of the decision. Cases are written in YAML beside a policy,
//! run on its component and on its native twin, and travel inside the component in JSON form: a component that fails its
//! own cases is not seated.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_model::{HostPhase, Requirement, Resources};
use vmetal_policy_sdk::Kind;

use crate::columns::{LEVELS, View};
use crate::decision::Record;
use crate::engine::{PolicyEngine, choose_type, place};
use crate::error::{LoadError, PolicyError};
use crate::feasibility::gates::Gates;
use crate::input::{Hardware, HostRow, Offer, Wanted};
use crate::quota::Limit;
use crate::round::Except;
use crate::seat::{CostSeat, PlacementSeat, Seat};
use crate::slot::Holder;

/// The custom section of a component that holds its cases as a JSON list.
pub const SECTION: &str = "vmetal-policy-cases";

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub case: String,
    /// The policy's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// The time of the decision, in seconds since 1970-01-01 UTC.
    #[serde(default)]
    pub now: u64,
    /// What is asked for.
    #[serde(default)]
    pub claim: CaseClaim,
    /// Placement: labels that a host must have.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// Node types or hosts.
    pub candidates: Vec<CaseCandidate>,
    /// What is expected.
    pub expect: Expect,
}

/// The claim of a case. Its tenant cluster is `blue` unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseClaim {
    /// How many; 1 when absent.
    #[serde(default)]
    pub count: Option<u32>,
    /// The tenant cluster.
    #[serde(default)]
    pub cluster: Option<String>,
    /// The node type that is named.
    #[serde(default)]
    pub node_type: Option<String>,
    /// What is asked for.
    #[serde(default)]
    pub resources: Resources,
    /// Conditions on the node type's labels.
    #[serde(default)]
    pub requirements: Vec<Requirement>,
    /// The limits of the tenant cluster's quota, and what it holds of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quota: Vec<Limit>,
}

/// A node type or a host; what does not belong to the kind of policy is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseCandidate {
    /// Its name.
    pub name: String,
    /// Its labels; of a node type its properties.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Node type: what a host of it offers.
    #[serde(default)]
    pub resources: Resources,
    /// Node type: the operator's price.
    #[serde(default)]
    pub cost: Option<u64>,
    /// Node type: free hosts; 1 when absent.
    #[serde(default)]
    pub free: Option<u32>,
    /// Node type: hosts; as many as are free when absent.
    #[serde(default)]
    pub total: Option<u32>,
    /// Node type: free hosts that are on.
    #[serde(default)]
    pub standby: u32,
    /// Host: where it is in its life; available when absent.
    #[serde(default)]
    pub phase: Option<HostPhase>,
    /// Host: the tenant node that has it.
    #[serde(default)]
    pub claimed_by: Option<String>,
    /// Host: its last tenant cluster.
    #[serde(default)]
    pub last_tenant: String,
    /// Host: when it was last released, in seconds since 1970-01-01 UTC.
    #[serde(default)]
    pub last_release: u64,
    /// Host: how often a claim has had it.
    #[serde(default)]
    pub provisions: u32,
    /// Host: whether it runs.
    #[serde(default)]
    pub power: PowerState,
    /// Host: how it was erased.
    #[serde(default)]
    pub erased: Option<EraseLevel>,
    /// Host: failures in a row.
    #[serde(default)]
    pub failures: u32,
}

/// What is expected of a decision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Names of the chosen, best first; none is expected to be chosen when absent.
    #[serde(default)]
    pub chosen: Vec<String>,
    /// Prices of node types, as people write them.
    #[serde(default)]
    pub costs: BTreeMap<String, String>,
    /// Codes of the candidates that are not chosen for a reason; all others must fit.
    #[serde(default)]
    pub rejected: BTreeMap<String, u32>,
    /// The sentence about the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

impl Case {
    fn wanted(&self) -> Wanted {
        Wanted {
            name: "case".to_owned(),
            cluster: self.claim.cluster.clone().unwrap_or_else(|| "blue".to_owned()),
            count: self.claim.count.unwrap_or(1),
            node_type: self.claim.node_type.clone(),
            resources: self.claim.resources.clone(),
            requirements: self.claim.requirements.clone(),
            quota: self.claim.quota.clone(),
            used_up: Vec::new(),
        }
    }

    fn settings(&self) -> String {
        self.settings.clone().map_or_else(String::new, |settings| serde_json::Value::Object(settings).to_string())
    }

    fn offers(&self) -> Vec<Offer> {
        let offer = |row: &CaseCandidate| {
            let free = row.free.unwrap_or(1);
            Offer {
                name: row.name.clone(),
                deleted: false,
                selector: BTreeMap::new(),
                labels: row.labels.clone(),
                resources: row.resources.clone(),
                explicit_cost: row.cost,
                total: row.total.unwrap_or(free.max(1)),
                free,
                standby: row.standby,
                taken: String::new(),
            }
        };
        self.candidates.iter().map(offer).collect()
    }

    fn hosts(&self) -> Vec<HostRow> {
        let host = |row: &CaseCandidate| HostRow {
            name: row.name.clone(),
            deleted: false,
            held: false,
            phase: row.phase.unwrap_or(HostPhase::Available),
            claimed_by: row.claimed_by.clone(),
            labels: row.labels.clone(),
            hardware: Some(Hardware::default()),
            last_release: row.last_release,
            last_tenant: row.last_tenant.clone(),
            provisions: row.provisions,
            power: row.power,
            erased: row.erased,
            failures: row.failures,
        };
        self.candidates.iter().map(host).collect()
    }

    /// What of the decision is not as expected; empty when all is.
    pub fn problems(&self, record: &Record) -> Vec<String> {
        let mut problems = Vec::new();
        let mut differs = |what: String, expected: String, seen: String| {
            if expected != seen {
                problems.push(format!("{what}: expected {expected}, got {seen}"));
            }
        };
        differs("chosen".to_owned(), format!("{:?}", self.expect.chosen), format!("{:?}", record.chosen));
        for row in &record.candidates {
            if let Some(cost) = self.expect.costs.get(&row.name) {
                let seen = row.cost.map_or_else(|| "none".to_owned(), |cost| cost.to_string());
                differs(format!("cost of {}", row.name), cost.clone(), seen);
            }
            let expected = self.expect.rejected.get(&row.name).copied().unwrap_or(0);
            differs(format!("code of {} ({})", row.name, row.reason), expected.to_string(), row.code.to_string());
        }
        if let Some(summary) = &self.expect.summary {
            differs("summary".to_owned(), summary.clone(), record.summary.clone());
        }
        let unknown = self.expect.costs.keys().chain(self.expect.rejected.keys()).chain(&self.expect.chosen);
        for name in unknown.filter(|name| !self.candidates.iter().any(|row| row.name == **name)) {
            problems.push(format!("the case expects something of {name}, which is no candidate"));
        }
        problems
    }

    fn cost(&self, holder: &Holder<CostSeat>) -> Result<Record, CaseError> {
        let holder = Arc::new(holder.with_settings(&self.settings())?);
        Ok(choose_type(&holder, &self.wanted(), &self.offers(), self.now)?.record)
    }

    fn placement(&self, holder: &Holder<PlacementSeat>) -> Result<Record, CaseError> {
        let holder = Arc::new(holder.with_settings(&self.settings())?);
        let fleet = View::from_rows(&self.hosts(), &LEVELS.map(str::to_owned));
        let offer = Offer { selector: self.selector.clone(), ..Offer::empty("case") };
        let gates = Gates::of(&offer, &fleet);
        let placed = place(&holder, &self.wanted(), &offer, &fleet, &gates, Except::nothing(), self.now, usize::MAX)?;
        Ok(placed.record)
    }
}

/// Why a case gave no decision.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The settings are refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The policy failed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl PolicyEngine {
    /// Runs a case on the policy that has the seat, with the case's settings. No twin stands in.
    ///
    /// # Errors
    /// When the policy refuses the settings or fails. That the decision is not the expected one is told by
    /// [`Case::problems`].
    pub fn run_case(&self, kind: Kind, case: &Case) -> Result<Record, CaseError> {
        match kind {
            Kind::Cost => case.cost(&self.cost.holder()),
            Kind::Placement => case.placement(&self.placement.holder()),
        }
    }
}

/// Runs the cases that a component brings; the first that fails refuses it.
pub(crate) fn smoke<S: Seat>(
    holder: &Holder<S>,
    run: impl Fn(&Case, &Holder<S>) -> Result<Record, CaseError>,
) -> Result<(), LoadError> {
    let policy = || holder.identity.to_string();
    let failed = |case: &str, detail: String| LoadError::Smoke { policy: policy(), case: case.to_owned(), detail };
    let Some(text) = holder.embedded_cases() else { return Ok(()) };
    let cases: Vec<Case> =
        serde_json::from_str(text).map_err(|error| failed("(all)", format!("they cannot be read: {error}")))?;
    for case in &cases {
        let record = run(case, holder).map_err(|error| failed(&case.case, error.to_string()))?;
        let problems = case.problems(&record);
        if !problems.is_empty() {
            return Err(failed(&case.case, problems.join("; ")));
        }
    }
    Ok(())
}

pub(crate) fn smoke_cost(holder: &Holder<CostSeat>) -> Result<(), LoadError> {
    smoke(holder, Case::cost)
}

pub(crate) fn smoke_placement(holder: &Holder<PlacementSeat>) -> Result<(), LoadError> {
    smoke(holder, Case::placement)
}
