//! The log of decisions: who decided what over which inputs, for the last so many.
//!
//! A claim's own record says which policies decided, over inputs of which digest, in the very transaction that reserves its
//! host. What it takes to take the decision again is kept here, a round at a time, because the decisions of a round share
//! their fleet: each round is one value of the store, written while the round's reservations are, so that no claim waits for
//! it. Of a round that was not written because the engine died meanwhile the inputs are lost, and nothing else.
//!
//! Rounds are in chains, one for each run of an engine. Each adds to the one before it; now and then one tells the fleet whole
//! and begins a segment, and segments are what is dropped when there are more decisions than are to be kept. So the log is
//! bounded: in decisions, because a segment has no more than a quarter of them, and in bytes.

mod reading;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use vmetal_model::Timestamp;
use vmetal_policy::journal::{Journal, JournalError};
use vmetal_policy::{Recorded, View};
use vmetal_store::{AnyStore, Key, ReadError, Selector, Store, Txn, Write};

/// The kind of the log's values in the store.
pub const KIND: &str = "decision";
/// The largest part of a round, in bytes: values of the store are bounded.
const PART: usize = 768 << 10;
/// All of the log, in bytes. A segment that alone is larger is kept until there is another.
const BYTES: usize = 32 << 20;

/// What the engine knows of its log.
pub struct Decisions {
    /// How many decisions are kept, at least; none when nothing is logged.
    keep: usize,
    chain: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The fleet of the round before.
    known: Option<View>,
    /// Rounds of this chain so far.
    rounds: u64,
    /// Hosts told since the fleet was told whole.
    told: usize,
    /// The oldest first.
    segments: VecDeque<Segment>,
}

/// Rounds that are dropped together.
struct Segment {
    chain: String,
    at: Timestamp,
    decisions: usize,
    bytes: usize,
    keys: Vec<Key>,
}

impl Decisions {
    /// An empty log for `keep` decisions. `chain` tells this run of the engine from all others.
    pub fn new(keep: usize, chain: String) -> Self {
        Decisions { keep, chain, state: Mutex::default() }
    }

    /// Takes in what earlier runs have logged, so that it is dropped in its turn.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(&self, store: &AnyStore) -> Result<(), ReadError> {
        let mut segments: Vec<Segment> = Vec::new();
        for round in reading::rounds(store).await? {
            let header = round.header();
            let begins = header.as_ref().is_none_or(|header| header.whole);
            if begins || segments.last().is_none_or(|last| last.chain != round.chain()) {
                let at = header.as_ref().map_or(Timestamp::UNIX_EPOCH, |header| header.at);
                segments.push(Segment::new(round.chain().to_owned(), at));
            }
            if let Some(segment) = segments.last_mut() {
                segment.decisions += header.map_or(0, |header| header.decisions);
                segment.bytes += round.bytes();
                segment.keys.extend(round.keys());
            }
        }
        segments.sort_by_key(|segment| segment.at);
        self.with(|state| state.segments = segments.into());
        Ok(())
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // Whatever a panic left behind, the worst is a round that cannot be read.
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The name of the next round; none when nothing is logged.
    pub(crate) fn next_round(&self) -> Option<String> {
        (self.keep > 0).then(|| self.with(|state| format!("{}.{:08}", self.chain, state.rounds)))
    }

    /// What has to be written for a round.
    fn write(&self, recorded: Recorded) -> Txn {
        self.with(|state| {
            let fleet = recorded.fleet.clone();
            let full = state.segments.back().is_none_or(|last| {
                last.chain != self.chain || last.decisions >= self.keep.div_ceil(4) || last.bytes >= BYTES / 4
            });
            let whole = full || state.told > fleet.len();
            let journal = recorded.journal(state.known.as_ref().filter(|_| !whole));
            let whole = journal.fleet.whole.is_some();
            if whole {
                state.told = 0;
                state.segments.push_back(Segment::new(self.chain.clone(), journal.at));
            } else {
                state.told += journal.fleet.put.len();
            }
            state.rounds += 1;
            state.known = Some(fleet);
            let packed = journal.pack();
            let mut txn = Txn::default();
            if let Some(segment) = state.segments.back_mut() {
                segment.decisions += journal.decisions().count();
                segment.bytes += packed.len();
                for (part, bytes) in packed.chunks(PART).enumerate() {
                    let key = Key::new(KIND, format!("{}/{part:04}", journal.round));
                    segment.keys.push(key.clone());
                    txn.writes.push(Write::put(key, bytes));
                }
            }
            for dropped in state.excess(self.keep) {
                txn.writes.extend(dropped.keys.into_iter().map(Write::Delete));
            }
            txn
        })
    }

    /// What was written last is not there: the next round stands on its own.
    fn lost(&self) {
        self.with(|state| {
            state.known = None;
            state.told = 0;
        });
    }
}

impl State {
    /// Segments without which there is still enough.
    fn excess(&mut self, keep: usize) -> Vec<Segment> {
        let mut dropped = Vec::new();
        let mut decisions: usize = self.segments.iter().map(|segment| segment.decisions).sum();
        let mut bytes: usize = self.segments.iter().map(|segment| segment.bytes).sum();
        while self.segments.len() > 1 {
            let Some(oldest) = self.segments.front() else { break };
            if decisions - oldest.decisions < keep && bytes <= BYTES {
                break;
            }
            decisions -= oldest.decisions;
            bytes -= oldest.bytes;
            dropped.extend(self.segments.pop_front());
        }
        dropped
    }
}

impl Segment {
    fn new(chain: String, at: Timestamp) -> Self {
        Segment { chain, at, decisions: 0, bytes: 0, keys: Vec::new() }
    }
}

impl crate::engine::Engine {
    /// Keeps what was written down of a round. A log that cannot be written fails no decision.
    pub(crate) async fn log(&self, recorded: Option<Recorded>) {
        let Some(recorded) = recorded else { return };
        let txn = self.decisions.write(recorded);
        if let Err(error) = self.ledger.store().commit(txn).await {
            self.decisions.lost();
            tracing::warn!(%error, "the inputs of decisions could not be kept; these decisions cannot be taken again");
        }
    }
}

/// Why a logged decision cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl LogError {
    /// What to do.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            LogError::Read(_) => "try again once the store answers",
            LogError::Journal(error) => error.advice(),
        }
    }
}

/// All of the log, for tests and tools: every round in order.
///
/// # Errors
/// When the store or a round cannot be read.
pub async fn journals(store: &AnyStore) -> Result<Vec<Journal>, LogError> {
    let rounds = reading::rounds(store).await?;
    rounds.iter().map(|round| Ok(Journal::unpack(&round.packed())?)).collect()
}

fn selector() -> Selector {
    Selector::Kind(KIND.into())
}

#[cfg(test)]
#[path = "decisions/tests.rs"]
mod tests;
