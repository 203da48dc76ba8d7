//! Decisions on claims, explained and taken again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::tenant_node::Decision;

/// Why a claim got what it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The tenant node.
    pub node: String,
    /// What was decided.
    pub decision: Decision,
    /// What it was explained from.
    pub basis: Basis,
    /// The node types, as decided on.
    pub node_types: Vec<Explained>,
    /// Hosts: the chosen one, then those that fit, the best first, then others.
    pub hosts: Vec<Explained>,
    /// What would let the claim have other candidates, the least change first.
    pub nearest: Vec<Remedy>,
}

/// What an explanation is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The fleet as it was when the decision was taken, by the log.
    Log,
    /// The fleet as it is now: what was decided is not in the log any more, or nothing was decided yet.
    Present,
}

/// A candidate and the parts of its price or score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The candidate.
    pub name: String,
    /// Whether it could be chosen.
    pub feasible: bool,
    /// Why it was chosen, could have been, or could not.
    pub reason: String,
    /// Price in millionths of a cost unit (node types) or score (hosts).
    pub value: i64,
    /// The parts of the value; they add up to it. Empty where they were not asked for.
    pub terms: Vec<Term>,
}

/// A named part of a price or score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// What it is for.
    pub label: String,
    /// How much of the whole it is.
    pub amount: i64,
}

/// What it would take to have a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// The node type or host.
    pub candidate: String,
    /// For a host: the node type that it would be taken as.
    pub node_type: Option<String>,
    /// All of these.
    pub steps: Vec<String>,
}

/// A logged decision that was taken again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Its name in the log.
    pub decision: String,
    /// The tenant node that it was for; of several that were decided on together, the first.
    pub node: String,
    /// When it was taken.
    pub at: Timestamp,
    /// The policies, as `name@version sha256:…`.
    pub policies: Vec<String>,
    /// SHA-256 over each policy's input as logged.
    pub inputs: Vec<String>,
    /// The host that was chosen; of several that were decided on together, all, with commas between them.
    pub host: Option<String>,
    /// One sentence: why this one, or why none.
    pub reason: String,
    /// SHA-256 over the full records of the decision, as logged.
    pub logged: String,
    /// The same of the decision taken again.
    pub replayed: String,
    /// What was chosen this time.
    pub replayed_host: Option<String>,
}

impl Replay {
    /// Whether the same came out, byte for byte.
    pub fn is_same(&self) -> bool {
        self.logged == self.replayed
    }
}
