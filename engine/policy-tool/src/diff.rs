//! What another policy would have decided: the logged decisions of an engine, taken again.

use serde::Serialize;
use vmetal_policy::journal::{Decided, Journal, Replica};

use crate::error::ToolError;
use crate::spec::Spec;

/// A policy beside what was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Which policy, as `name@version sha256:…`.
    pub policy: String,
    /// What it chooses: `node types` or `hosts`.
    pub chooses: &'static str,
    /// Decisions that were taken again.
    pub decisions: usize,
    /// Those of them that come out as they did.
    pub same: usize,
    /// The others, oldest first.
    pub differences: Vec<Difference>,
}

/// A decision that would be another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name in the log.
    pub decision: String,
    /// The tenant node; of several that were decided on together, the first and how many more.
    pub node: String,
    /// Who was chosen; hosts that were chosen together with commas between them.
    pub before: Option<String>,
    /// Who would be.
    pub after: Option<String>,
    /// The policy's sentence, or how it fails.
    pub reason: String,
}

/// Takes the last so many decisions of a log again. `rounds` are packed and in order.
///
/// # Errors
/// When the policy is refused, or the log cannot be read.
pub fn diff(policy: &Spec, rounds: &[Vec<u8>], last: usize) -> Result<Diff, ToolError> {
    let bench = policy.open()?;
    let chooses = match bench.kind() {
        vmetal_policy_sdk::Kind::Cost => "node types",
        vmetal_policy_sdk::Kind::Placement => "hosts",
    };
    let journals = rounds.iter().map(|round| Journal::unpack(round)).collect::<Result<Vec<_>, _>>()?;
    let all: usize = journals.iter().map(|journal| journal.decisions().count()).sum();
    let mut skip = all.saturating_sub(last);
    let mut found =
        Diff { policy: bench.identity().to_string(), chooses, decisions: 0, same: 0, differences: Vec::new() };
    let mut replica = Replica::default();
    for journal in &journals {
        let fleet = replica.follow(journal)?;
        for decided in journal.decisions() {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let tried = bench.engine().try_on(bench.kind(), journal, fleet.clone(), decided.number);
            let Some(tried) = tried else { continue };
            found.decisions += 1;
            let (after, reason) = tried.after.unwrap_or_else(|error| (Vec::new(), error.to_string()));
            if after == tried.before {
                found.same += 1;
                continue;
            }
            let (decision, node) = (journal.id(decided.number), subject(decided));
            let (before, after) = (together(&tried.before), together(&after));
            found.differences.push(Difference { decision, node, before, after, reason });
        }
    }
    Ok(found)
}

/// Whom a decision was about: the tenant node, or the first of several and how many more there are.
fn subject(decided: &Decided) -> String {
    match decided.wanted.count.saturating_sub(1) {
        0 => decided.wanted.name.clone(),
        more => format!("{} and {more} more", decided.wanted.name),
    }
}

/// Those who were chosen together, as one text.
fn together(chosen: &[String]) -> Option<String> {
    (!chosen.is_empty()).then(|| chosen.join(", "))
}

/// One decision of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub decision: String,
    /// When, RFC 3339.
    pub at: String,
    /// The tenant node; of several that were decided on together, the first and how many more.
    pub node: String,
    /// The node type that was chosen.
    pub node_type: Option<String>,
    /// The host that was chosen, or the hosts with commas between them.
    pub host: Option<String>,
    /// One sentence: why this one, or why none.
    pub reason: String,
}

/// The last so many decisions of a log, oldest first.
///
/// # Errors
/// When the log cannot be read.
pub fn entries(rounds: &[Vec<u8>], last: usize) -> Result<Vec<Entry>, ToolError> {
    let mut all = Vec::new();
    for round in rounds {
        let journal = Journal::unpack(round)?;
        all.extend(journal.decisions().map(|decided| Entry {
            decision: journal.id(decided.number),
            at: journal.at.to_string(),
            node: subject(decided),
            node_type: decided.node_type.clone(),
            host: together(&decided.hosts()),
            reason: decided.reason.clone(),
        }));
    }
    // Engines that share a store write chains of their own.
    all.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(all.split_off(all.len().saturating_sub(last)))
}
