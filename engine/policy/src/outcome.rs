//! A whole decision for one tenant node: the node type, then the host, in the model's words.

use std::borrow::Borrow;

use vmetal_model as model;
use vmetal_model::Timestamp;

use crate::columns::View;
use crate::cost::Cost;
use crate::decision::{Candidate, Record};
use crate::engine::PolicyEngine;
use crate::error::PolicyError;
use crate::feasibility::gates;
use crate::input::{Offer, Wanted};
use crate::round::{Bars, Except, Round};

/// What was decided for a tenant node.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The index of the chosen node type.
    pub node_type: Option<usize>,
    /// The name of the chosen host; of several that were asked for together, the best. There is none without a node type; there
    /// may be a node type without a host.
    pub host: Option<String>,
    /// The other hosts of those that were asked for together: all of them, or none.
    pub others: Vec<String>,
    /// The same in the form that a tenant node's status keeps.
    pub decision: model::Decision,
    /// The full records: of the node type and, when one was chosen, of the host.
    pub records: Vec<Record>,
}

impl Outcome {
    /// The chosen hosts, best first.
    pub fn hosts(&self) -> Vec<String> {
        self.host.iter().chain(&self.others).cloned().collect()
    }
}

impl PolicyEngine {
    /// Chooses node type and host for a tenant node.
    ///
    /// The order of `node_types` and of hosts does not matter. Computes only; see [`PolicyEngine`]. Many claims are decided
    /// on in one [`Round`].
    ///
    /// # Errors
    /// When a policy fails and its binding says that there is no decision then. That nothing fits is no error.
    pub fn decide(
        &self,
        node: &model::TenantNode,
        node_types: &[impl Borrow<model::NodeType>],
        fleet: &View,
        now: Timestamp,
    ) -> Result<Outcome, PolicyError> {
        Round::new(node_types, fleet.clone(), now).decide(self, node, &Bars::none())
    }
}

/// A candidate as the model keeps it: the cost of a node type in whole units, the score of a host.
pub(crate) fn shown(candidate: &Candidate) -> model::Candidate {
    let units = |cost: Cost| i64::try_from(cost.units()).unwrap_or(i64::MAX);
    model::Candidate {
        name: candidate.name.clone(),
        value: candidate.cost.map(units).or(candidate.feasible.then_some(candidate.score)),
        feasible: candidate.feasible,
        reason: candidate.reason.clone(),
        lacks: candidate.lacks,
    }
}

/// Where no node type was chosen: what keeps each host from being taken as one of the node types it belongs to. As many
/// hosts as are kept, by name.
pub(crate) fn unplaced(
    wanted: &Wanted,
    offers: &[Offer],
    fleet: &View,
    except: Except<'_>,
    keep: usize,
) -> Vec<model::Candidate> {
    let asked: Vec<&Offer> =
        offers.iter().filter(|offer| wanted.node_type.as_ref().is_none_or(|name| *name == offer.name)).collect();
    let verdict = |slot: &u32| {
        let slot = *slot as usize;
        let of_type = |offer: &&Offer| {
            let rejections = gates::rejections(offer, fleet, slot, except);
            (rejections.len(), rejections, offer.name.clone())
        };
        // The type that the host misses by the fewest rules says most.
        let nearest = asked.iter().map(of_type).min_by(|a, b| a.0.cmp(&b.0).then_with(|| a.2.cmp(&b.2)));
        let reason = match nearest {
            None => "no node type asks for it".to_owned(),
            Some((0, _, name)) => format!("free, but its node type {name} does not fit the claim"),
            Some((_, rejections, name)) => {
                let all: Vec<_> = rejections.iter().map(ToString::to_string).collect();
                format!("as {name}: {}", all.join("; "))
            }
        };
        let name = fleet.table.symbols.text(fleet.table.cells.name[slot]).to_owned();
        model::Candidate { name, value: None, feasible: false, reason, lacks: None }
    };
    fleet.table.order.iter().take(keep).map(verdict).collect()
}
