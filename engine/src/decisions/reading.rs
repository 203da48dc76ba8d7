//! Reading the log: explaining a decision and taking it again.

use vmetal_api::{BackendError, LogPart};
use vmetal_model::{Basis, Explanation, Kind, Replay};
use vmetal_policy::journal::{Decided, Header, Journal, Replica, parse_id};
use vmetal_policy::{Bars, Round, View};
use vmetal_store::{AnyStore, Key, ReadError, Store as _, Stored};

use super::{LogError, selector};
use crate::backend::reference;
use crate::engine::Engine;

/// One round as it is stored.
pub(super) struct Parts {
    round: String,
    stored: Vec<Stored>,
}

impl Parts {
    pub(super) fn chain(&self) -> &str {
        self.round.split_once('.').map_or(self.round.as_str(), |(chain, _)| chain)
    }

    pub(super) fn header(&self) -> Option<Header> {
        Journal::header(&self.stored.first()?.value).ok()
    }

    pub(super) fn bytes(&self) -> usize {
        self.stored.iter().map(|stored| stored.value.len()).sum()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.stored.iter().map(|stored| stored.key.clone())
    }

    pub(super) fn packed(&self) -> Vec<u8> {
        self.stored.iter().flat_map(|stored| stored.value.iter().copied()).collect()
    }
}

/// Every round, chain by chain, in order.
pub(super) async fn rounds(store: &AnyStore) -> Result<Vec<Parts>, ReadError> {
    let mut items = store.list_all(&selector()).await?.items;
    items.sort_by(|a, b| a.key.name.cmp(&b.key.name));
    let mut rounds: Vec<Parts> = Vec::new();
    for stored in items {
        let name = &stored.key.name;
        let round = name.split_once('/').map_or(name.as_str(), |(round, _)| round).to_owned();
        match rounds.last_mut().filter(|last| last.round == round) {
            Some(last) => last.stored.push(stored),
            None => rounds.push(Parts { round, stored: vec![stored] }),
        }
    }
    Ok(rounds)
}

/// A logged decision with the fleet that it was taken over.
struct Found {
    journal: Journal,
    number: u32,
    fleet: View,
}

impl Found {
    fn round(&self) -> Option<(Round, &Decided)> {
        self.journal.at(self.fleet.clone(), self.number)
    }
}

/// Hosts that were chosen in one decision, as one text.
fn together(hosts: &[String]) -> Option<String> {
    (!hosts.is_empty()).then(|| hosts.join(", "))
}

impl Engine {
    /// A logged decision by its name.
    async fn logged(&self, id: &str) -> Result<Option<Found>, LogError> {
        let Some((name, number)) = parse_id(id) else { return Ok(None) };
        let rounds = rounds(self.ledger.store()).await?;
        let Some(at) = rounds.iter().position(|round| round.round == name) else { return Ok(None) };
        let chain = rounds[at].chain();
        let is_ground = |round: &&Parts| round.header().is_some_and(|header| header.whole);
        let from =
            rounds[..=at].iter().rev().take_while(|round| round.chain() == chain).position(|round| is_ground(&round));
        // Without ground it begins at itself, and says what is missing.
        let from = from.map_or(at, |back| at - back);
        let mut replica = Replica::default();
        let mut found = None;
        for round in &rounds[from..=at] {
            let journal = Journal::unpack(&round.packed())?;
            let fleet = replica.follow(&journal)?;
            found = Some(Found { journal, number, fleet });
        }
        Ok(found)
    }

    /// Takes a logged decision again.
    pub(crate) async fn replay_decision(&self, id: &str) -> Result<Replay, BackendError> {
        let missing = || BackendError::Precondition {
            message: format!("the log has no decision {id:?}"),
            advice: "`vmetal describe tenant-node` names a claim's decision; `decisions.keep` says how many are kept"
                .to_owned(),
        };
        let unusable = |error: &dyn std::fmt::Display, advice: &str| BackendError::Precondition {
            message: format!("decision {id} cannot be taken again: {error}"),
            advice: advice.to_owned(),
        };
        let found = self.logged(id).await.map_err(|error| unusable(&error, error.advice()))?.ok_or_else(missing)?;
        let replayed = self.policies.replay(&found.journal, found.fleet.clone(), found.number);
        let replayed = replayed.map_err(|error| unusable(&error, error.advice()))?.ok_or_else(missing)?;
        let (_, decided) = found.round().ok_or_else(missing)?;
        let policy = |at: usize| found.journal.deciders.get(at).map(|decider| decider.policy.to_string());
        Ok(Replay {
            decision: id.to_owned(),
            node: decided.wanted.name.clone(),
            at: found.journal.at,
            policies: decided.parts.iter().filter_map(|part| policy(part.decider)).collect(),
            inputs: decided.parts.iter().map(|part| part.input_digest.clone()).collect(),
            host: together(&decided.hosts()),
            reason: decided.reason.clone(),
            logged: decided.answer.clone(),
            replayed: replayed.answer,
            replayed_host: together(&replayed.outcome.hosts()),
        })
    }

    /// Why a claim got what it got: by the log where it still has the decision, else as it would be decided now.
    pub(crate) async fn explain_node(&self, name: &str) -> Result<Explanation, BackendError> {
        let object = reference(Kind::TenantNode, name);
        let node = self.fleet.node(name).ok_or(BackendError::NotFound { object })?;
        let unusable = |error: &dyn std::fmt::Display| BackendError::Unavailable {
            message: format!("the decision on tenant_node/{name} cannot be explained: {error}"),
        };
        let id = node.status.decision.as_ref().and_then(|decision| decision.log.clone());
        let found = match &id {
            Some(id) => self.logged(id).await.map_err(|error| unusable(&error))?,
            None => None,
        };
        if let Some(Found { journal, number, fleet }) = found {
            match self.policies.explain_logged(&journal, fleet, number) {
                Ok(Some(mut explanation)) => {
                    // Of a decision on several, each has its own host.
                    explanation.node = name.to_owned();
                    if explanation.decision.host.is_some() {
                        explanation.decision.host = node.status.decision.as_ref().and_then(|own| own.host.clone());
                    }
                    return Ok(explanation);
                }
                Ok(None) => {}
                // Another policy has the seat: what it would say of the fleet as it is now is better than nothing.
                Err(error) => {
                    tracing::info!(node = name, %error, "a logged decision is explained by the present policies")
                }
            }
        }
        let (_, fleet) = self.fleet.look();
        let mut round =
            Round::new(&self.fleet.node_types(), fleet, self.now()).within(self.quotas()).on(self.networks());
        let wanted = round.wanted(&node);
        let explanation = round.explain(&self.policies, &wanted, &Bars::none(), Basis::Present);
        explanation.map_err(|error| unusable(&error))
    }

    /// The log as it is stored, a part of a round at a time.
    pub(crate) async fn decision_log(&self) -> Result<Vec<LogPart>, BackendError> {
        let rounds = rounds(self.ledger.store()).await;
        let rounds = rounds.map_err(|error| BackendError::Unavailable { message: error.to_string() })?;
        let parts = |round: Parts| {
            let last = round.stored.len().saturating_sub(1);
            let part = |(at, stored): (usize, Stored)| LogPart { bytes: stored.value.to_vec(), ends_round: at == last };
            round.stored.into_iter().enumerate().map(part).collect::<Vec<_>>()
        };
        Ok(rounds.into_iter().flat_map(parts).collect())
    }
}
