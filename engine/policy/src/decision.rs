//! What is kept of a decision: enough to explain it, and to know whether it could be made again.

use serde::{Deserialize, Serialize};

use crate::component::sandbox::Notes;
use crate::cost::Cost;
use crate::slot::Identity;

/// One decision of one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `cost` or `placement`.
    pub kind: String,
    /// Who decided.
    pub policy: Identity,
    /// With which settings (JSON text, or empty).
    pub settings: String,
    /// SHA-256 over everything the policy was given but its settings, hexadecimal.
    pub input_digest: String,
    /// When the decision was taken, in seconds since 1970-01-01 UTC, as the policy was told.
    pub now: u64,
    /// Names of the chosen candidates, best first.
    pub chosen: Vec<String>,
    /// Every node type, as given; of hosts the chosen ones, those that fit, and the others, up to a bound. The summary
    /// counts all of them.
    pub candidates: Vec<Candidate>,
    /// One sentence: why this one, or why none.
    pub summary: String,
    /// Set when the native twin stood in: the failure of the policy that should have decided.
    pub stood_in_for: Option<String>,
    /// Fuel that the component used; none for a native twin.
    pub fuel: Option<u64>,
    /// What the policy noted.
    pub notes: Notes,
}

/// One candidate of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Whether it could have been chosen.
    pub feasible: bool,
    /// 0, the engine's code for the rule that it fails, or the policy's own.
    pub code: u32,
    /// The policy's score; the larger the better.
    pub score: i64,
    /// Its price (node types only).
    pub cost: Option<Cost>,
    /// Why it was chosen, could have been, or could not.
    pub reason: String,
    /// The reason in a word or two; what summaries count. Empty for feasible candidates.
    pub topic: String,
    /// Of a node type that could not be chosen: what it would take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<vmetal_model::Lack>,
}

/// The choice of a node type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeDecision {
    /// The index of the chosen offer.
    pub chosen: Option<usize>,
    /// The price of every offer.
    pub costs: Vec<Cost>,
    /// What is kept of it.
    pub record: Record,
}

/// The choice of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceDecision {
    /// The names of the chosen hosts, best first; empty when there are not enough.
    pub chosen: Vec<String>,
    /// What is kept of it.
    pub record: Record,
}
