//! A policy's bare answer, for measurements: what a decision costs without the rules around it and the words about it.

use vmetal_policy_sdk as sdk;

use crate::columns::View;
use crate::engine::PolicyEngine;
use crate::error::PolicyError;
use crate::feasibility::gates::Gates;
use crate::input::{Offer, Wanted};
use crate::round::Except;
use crate::seat::{PlacementSeat, Seat as _};
use crate::snapshot::{self, Snapshot};

/// The input of one placement, made once to be asked about many times.
pub struct Question<'a> {
    input: Snapshot<sdk::Hosts<'a>>,
}

impl<'a> Question<'a> {
    /// Applies the rules and makes the columns.
    pub fn new(wanted: &Wanted, offer: &Offer, fleet: &'a View, now: u64) -> Self {
        let gates = Gates::of(offer, fleet);
        Question { input: snapshot::hosts(wanted, offer, fleet, gates.codes, Except::nothing(), now) }
    }

    /// The hosts as the policy sees them.
    pub fn hosts(&self) -> &sdk::Hosts<'a> {
        &self.input.table
    }

    /// The text of a symbol in them.
    pub fn text(&self, sym: sdk::Sym) -> &str {
        self.input.symbols.text(sym)
    }
}

impl PolicyEngine {
    /// Asks the placement policy and believes it.
    ///
    /// # Errors
    /// When the policy fails.
    pub fn ask(&self, question: &Question<'_>) -> Result<sdk::Decision, PolicyError> {
        let holder = self.placement.holder();
        match holder.ask(&question.input, |_, _| Ok(())) {
            Ok(answered) => Ok(answered.answer),
            Err(fault) => {
                Err(PolicyError::Failed { kind: PlacementSeat::KIND, policy: holder.identity.to_string(), fault })
            }
        }
    }
}
