//! What it takes to take decisions again: the fleet as it was, what was asked, in which order, and who decided.
//!
//! Decisions are taken in rounds over one look at the fleet, so a round is what is written down: its node types, its claims
//! and who was promised which host in between. The fleet is written as what is new since the round before; now and then it is
//! written whole, so that the oldest rounds can be dropped without the others losing their ground.
//!
//! Whoever has a [`Journal`] and the fleet that it speaks of has every input of its decisions, and can ask the same policies
//! again ([`PolicyEngine::replay`]), or others ([`PolicyEngine::try_on`]).

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vmetal_model::{Basis, Explanation, Timestamp};
use vmetal_policy_sdk::Kind;

use crate::columns::{Columns, View};
use crate::decision::Record;
use crate::engine::PolicyEngine;
use crate::error::{LoadError, PolicyError};
use crate::input::{HostRow, Offer, Wanted};
use crate::outcome::Outcome;
use crate::round::{Bars, Round};
use crate::slot::Identity;

/// One round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Names the round; the store's key.
    pub round: String,
    /// When the fleet was looked at.
    pub at: Timestamp,
    /// What of the fleet is new.
    pub fleet: FleetNews,
    /// The node types, with nothing said about capacity: that follows from the fleet.
    pub node_types: Vec<Offer>,
    /// Who decided.
    pub deciders: Vec<Decider>,
    /// Hosts of which a decision's record keeps the verdict.
    pub kept: usize,
    /// What happened, in order.
    pub steps: Vec<Step>,
}

/// The fleet, or what of it is new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetNews {
    /// The labels that say where a host is, when the fleet is told whole; otherwise this adds to the fleet of the round before.
    pub whole: Option<Vec<String>>,
    /// Hosts that came or changed.
    pub put: Vec<HostRow>,
    /// Hosts that went.
    pub gone: Vec<String>,
    /// The digest of the fleet with all that.
    pub digest: String,
}

/// A policy as it decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decider {
    /// `cost` or `placement`.
    pub kind: String,
    /// Which policy.
    pub policy: Identity,
    /// With which settings (JSON text, or empty).
    pub settings: String,
}

/// Something that happened in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A claim was decided on.
    Decided(Box<Decided>),
    /// From here on a host is promised.
    Took {
        /// The host.
        host: String,
        /// The tenant node that it is promised to.
        node: String,
        /// That one's tenant cluster.
        cluster: String,
    },
    /// The promise came to nothing.
    GaveBack {
        /// The host.
        host: String,
    },
}

/// One decision: what was asked, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Counts the decisions of the round, from 0.
    pub number: u32,
    /// What was asked for.
    pub wanted: Wanted,
    /// What the claim could not have besides what the rules say.
    pub bars: Bars,
    /// Each policy's part: which decider, over which input.
    pub parts: Vec<Part>,
    /// The chosen node type.
    pub node_type: Option<String>,
    /// The chosen host; of several that were decided on together, the best.
    pub host: Option<String>,
    /// The other hosts of those that were decided on together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// One sentence: why this one, or why none; or how a policy failed.
    pub reason: String,
    /// SHA-256 over the full records of the decision, hexadecimal; empty when a policy failed and there is none.
    pub answer: String,
}

impl Decided {
    /// The chosen hosts, best first.
    pub fn hosts(&self) -> Vec<String> {
        self.host.iter().chain(&self.others).cloned().collect()
    }
}

/// What one policy was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its place among [`Journal::deciders`].
    pub decider: usize,
    /// SHA-256 over everything that it was given but its settings, hexadecimal.
    pub input_digest: String,
    /// Set when it stood in for a policy that failed: how that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood_in_for: Option<String>,
}

/// What is known of a packed round without unpacking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// When the round was.
    pub at: Timestamp,
    /// Whether it tells the fleet whole.
    pub whole: bool,
    /// How many decisions it has.
    pub decisions: usize,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The bytes are not a packed round.
    #[error("a logged round cannot be read: {detail}")]
    Damaged {
        /// What is wrong.
        detail: String,
    },
    /// The round before is missing.
    #[error("logged round {round} adds to a round that is not in the log any more")]
    NoGround {
        /// The round.
        round: String,
    },
    /// The fleet is not the one that was decided over.
    #[error("the fleet of logged round {round} has digest {seen}, {expected} was logged")]
    OtherFleet {
        /// The round.
        round: String,
        /// What was logged.
        expected: String,
        /// What came out.
        seen: String,
    },
    /// A policy of the time is not here.
    #[error("{policy} decided, and this engine has it no more; it runs {present}")]
    PolicyGone {
        /// The policy.
        policy: String,
        /// Those that are here for the same kind of decision.
        present: String,
    },
    /// A shipped policy of another version than this engine's decided, without a component.
    #[error("{policy} decided, and this engine has {shipped}, which may decide otherwise")]
    OtherVersion {
        /// The policy.
        policy: String,
        /// What is shipped under the same name.
        shipped: String,
    },
    /// The policy refuses the settings of the time.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The decision failed when it was taken: there is no answer that could be compared.
    #[error("there was no answer when the decision was taken: {reason}")]
    Failed {
        /// How it failed.
        reason: String,
    },
    /// It fails now.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl JournalError {
    /// What to do.
    pub fn advice(&self) -> &'static str {
        match self {
            JournalError::PolicyGone { .. } => {
                "install the very component that decided (`vmetal policy install`), or take another decision"
            }
            JournalError::OtherVersion { .. } => {
                "an engine of that version gives the same bytes; `vmetal policy diff` shows what the present one would decide"
            }
            JournalError::Load(_)
            | JournalError::Policy(_)
            | JournalError::Failed { .. }
            | JournalError::Damaged { .. }
            | JournalError::NoGround { .. }
            | JournalError::OtherFleet { .. } => "take another decision; `vmetal policy log` lists them",
        }
    }
}

/// The most that a packed round may unpack to, in bytes.
const UNPACKED: u64 = 1 << 30;
/// How hard a round is compressed: the least, which costs a millisecond for a megabyte.
const LEVEL: i32 = 1;

impl Journal {
    /// The name of one of its decisions.
    pub fn id(&self, number: u32) -> String {
        id(&self.round, number)
    }

    /// Its decisions, in order.
    pub fn decisions(&self) -> impl Iterator<Item = &Decided> {
        self.steps.iter().filter_map(|step| match step {
            Step::Decided(decided) => Some(&**decided),
            _ => None,
        })
    }

    /// As few bytes as are had cheaply: a line that says what is inside, then the rest, compressed.
    pub fn pack(&self) -> Vec<u8> {
        let header = Header { at: self.at, whole: self.fleet.whole.is_some(), decisions: self.decisions().count() };
        // Plain data; writing it into memory cannot fail.
        let mut packed = serde_json::to_vec(&header).unwrap_or_default();
        packed.push(b'\n');
        let body = serde_json::to_vec(self).unwrap_or_default();
        packed.extend(zstd::bulk::compress(&body, LEVEL).unwrap_or_default());
        packed
    }

    /// What [`Journal::pack`] packed.
    ///
    /// # Errors
    /// When it is something else.
    pub fn unpack(packed: &[u8]) -> Result<Self, JournalError> {
        let damaged = |detail: String| JournalError::Damaged { detail };
        let (_, body) = split(packed)?;
        let mut text = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(body).map_err(|error| damaged(error.to_string()))?;
        decoder.take(UNPACKED).read_to_end(&mut text).map_err(|error| damaged(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
    }

    /// What is known of a packed round without unpacking it.
    ///
    /// # Errors
    /// When it is something else.
    pub fn header(packed: &[u8]) -> Result<Header, JournalError> {
        let (header, _) = split(packed)?;
        serde_json::from_slice(header).map_err(|error| JournalError::Damaged { detail: error.to_string() })
    }

    /// The round as it was when a decision was taken, over the fleet that it speaks of; and the decision.
    pub fn at(&self, fleet: View, number: u32) -> Option<(Round, &Decided)> {
        let mut round = Round::over(self.node_types.clone(), fleet, self.at);
        for step in &self.steps {
            match step {
                Step::Decided(decided) if decided.number == number => return Some((round, decided)),
                Step::Decided(_) => {}
                Step::Took { host, node, cluster } => round.promise(host, node, cluster),
                Step::GaveBack { host } => round.give_back(host),
            }
        }
        None
    }
}

/// The name of a decision.
pub(crate) fn id(round: &str, number: u32) -> String {
    format!("{round}-{number}")
}

/// The round and the number that a decision's name says.
pub fn parse_id(id: &str) -> Option<(&str, u32)> {
    let (round, number) = id.rsplit_once('-')?;
    Some((round, number.parse().ok()?))
}

fn split(packed: &[u8]) -> Result<(&[u8], &[u8]), JournalError> {
    let end = packed.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| JournalError::Damaged { detail: "it has no header".to_owned() })?;
    Ok((&packed[..end], &packed[end + 1..]))
}

/// SHA-256 over the full records of a decision: the answers themselves, and not who stood in for whom, nor what it took.
pub(crate) fn answer_digest(records: &[Record]) -> String {
    let mut hash = Sha256::new();
    for record in records {
        let policy = Identity { generation: 0, ..record.policy.clone() };
        let answer = Record { policy, stood_in_for: None, fuel: None, ..record.clone() };
        // Plain data; writing it into memory cannot fail.
        hash.update(serde_json::to_vec(&answer).unwrap_or_default());
    }
    hex::encode(hash.finalize())
}

impl View {
    /// What of this fleet is new to whoever knows another; everything to whoever knows none.
    pub fn news_since(&self, known: Option<&View>) -> FleetNews {
        let Some(known) = known.filter(|known| known.levels() == self.levels()) else {
            let put = (0..self.len()).map(|slot| self.table.row(slot)).collect();
            return FleetNews { whole: Some(self.levels().to_vec()), put, gone: Vec::new(), digest: self.digest() };
        };
        let (new, old) = (&self.table, &known.table);
        let is_known = |slot: &usize| {
            let name = new.name(*slot);
            // Hosts seldom move: where it was before is the first place to look.
            let before = if *slot < old.len() && old.name(*slot) == name { Some(*slot) } else { old.slot(name) };
            before.is_some_and(|before| old.cells.digest[before] == new.cells.digest[*slot])
        };
        let put = (0..new.len()).filter(|slot| !is_known(slot)).map(|slot| new.row(slot)).collect();
        let is_gone = |slot: &usize| {
            let name = old.name(*slot);
            !(*slot < new.len() && new.name(*slot) == name) && new.slot(name).is_none()
        };
        let gone = (0..old.len()).filter(is_gone).map(|slot| old.name(slot).to_owned()).collect();
        FleetNews { whole: None, put, gone, digest: self.digest() }
    }
}

/// A fleet that is followed through a journal.
#[derive(Debug, Default)]
pub struct Replica(Option<Columns>);

impl Replica {
    /// The fleet of a round, which must be the next after the last one, or tell the fleet whole.
    ///
    /// # Errors
    /// When it is not, or the fleet that comes out is not the one that was decided over.
    pub fn follow(&mut self, journal: &Journal) -> Result<View, JournalError> {
        let news = &journal.fleet;
        if let Some(levels) = &news.whole {
            self.0 = Some(Columns::new(levels.iter().cloned()));
        }
        let no_ground = || JournalError::NoGround { round: journal.round.clone() };
        let columns = self.0.as_mut().ok_or_else(no_ground)?;
        news.gone.iter().for_each(|name| columns.remove(name));
        news.put.iter().for_each(|row| columns.insert(row));
        let view = columns.view();
        let seen = view.digest();
        if seen != news.digest {
            let expected = news.digest.clone();
            return Err(JournalError::OtherFleet { round: journal.round.clone(), expected, seen });
        }
        Ok(view)
    }
}

/// What came of taking a decision again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// The decision now.
    pub outcome: Outcome,
    /// The digest of its records.
    pub answer: String,
}

impl PolicyEngine {
    /// Takes a logged decision again, with the policies and settings of the time, over the fleet of its round.
    ///
    /// # Errors
    /// When the policies are not here any more, or there was no answer.
    pub fn replay(&self, journal: &Journal, fleet: View, number: u32) -> Result<Option<Replayed>, JournalError> {
        let Some((mut round, decided)) = journal.at(fleet, number) else { return Ok(None) };
        if decided.answer.is_empty() {
            return Err(JournalError::Failed { reason: decided.reason.clone() });
        }
        let deciders: Vec<&Decider> =
            decided.parts.iter().filter_map(|part| journal.deciders.get(part.decider)).collect();
        let engine = self.as_of(&deciders, journal.kept)?;
        let outcome = round.decide_on(&engine, &decided.wanted, &decided.bars)?;
        let answer = answer_digest(&outcome.records);
        Ok(Some(Replayed { outcome, answer }))
    }

    /// Explains a logged decision, with the policies and settings of the time, over the fleet of its round.
    ///
    /// # Errors
    /// When the policies are not here any more, or fail.
    pub fn explain_logged(
        &self,
        journal: &Journal,
        fleet: View,
        number: u32,
    ) -> Result<Option<Explanation>, JournalError> {
        let Some((mut round, decided)) = journal.at(fleet, number) else { return Ok(None) };
        let deciders: Vec<&Decider> =
            decided.parts.iter().filter_map(|part| journal.deciders.get(part.decider)).collect();
        let engine = self.as_of(&deciders, journal.kept)?;
        let mut explanation = round.explain(&engine, &decided.wanted, &decided.bars, Basis::Log)?;
        explanation.decision.log = Some(journal.id(number));
        Ok(Some(explanation))
    }

    /// Takes one part of a logged decision again, with the policy that has that seat here: the choice of the node type, or that
    /// of the host among those of the node type that was chosen. None when that part was never decided: a policy failed, or
    /// no node type fitted and no host was looked for.
    pub fn try_on(&self, kind: Kind, journal: &Journal, fleet: View, number: u32) -> Option<Tried> {
        let (round, decided) = journal.at(fleet, number)?;
        if decided.answer.is_empty() {
            return None;
        }
        match kind {
            Kind::Cost => {
                let after = round.choose_again(self, &decided.wanted, &decided.bars);
                let after = after.map(|(chosen, reason)| (chosen.into_iter().collect(), reason));
                Some(Tried { before: decided.node_type.iter().cloned().collect(), after })
            }
            Kind::Placement => {
                let node_type = decided.node_type.as_deref()?;
                let after = round.place_again(self, &decided.wanted, &decided.bars, node_type);
                Some(Tried { before: decided.hosts(), after })
            }
        }
    }
}

/// What a policy decided, and what another would have.
#[derive(Debug)]
pub struct Tried {
    /// Who was chosen: a node type, or as many hosts as were wanted; nobody where nobody was.
    pub before: Vec<String>,
    /// Who would have been, and the sentence about it.
    pub after: Result<(Vec<String>, String), PolicyError>,
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
