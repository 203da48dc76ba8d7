//! Which claims need no new decision yet.
//!
//! A claim that found no host is looked at again whenever its last decision ends, as after any effect. Without a memory of
//! what was decided on, it would be decided on again at once, for ever. Kept in memory only: after a restart every claim is
//! decided on once more, which costs nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;
use vmetal_model::{Timestamp, Uid};

/// Decisions that found nothing.
#[derive(Debug, Default)]
pub struct Questions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts the changes of what claims may choose from.
    pool: u64,
    unanswered: HashMap<Uid, Unanswered>,
}

#[derive(Debug)]
struct Unanswered {
    pool: u64,
    generation: u64,
    at: Timestamp,
}

impl Questions {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What claims may choose from has changed.
    pub fn pool_changed(&self) {
        self.with(|state| state.pool += 1);
    }

    /// The state of the pool, to be read before a decision looks at it.
    pub fn pool(&self) -> u64 {
        self.with(|state| state.pool)
    }

    /// A decision that looked at the pool in this state, or a later one, found nothing.
    pub fn unanswered(&self, claim: &Uid, generation: u64, pool: u64, at: Timestamp) {
        self.with(|state| state.unanswered.insert(claim.clone(), Unanswered { pool, generation, at }));
    }

    /// The claim has a host, or is gone.
    pub fn forget(&self, claim: &Uid) {
        self.with(|state| state.unanswered.remove(claim));
    }

    /// When the claim is to be decided on next if nothing changes; `None` when now.
    pub fn due(&self, claim: &Uid, generation: u64, now: Timestamp, every: SignedDuration) -> Option<Timestamp> {
        self.with(|state| {
            let last = state.unanswered.get(claim)?;
            let due = last.at.saturating_add(every).unwrap_or(Timestamp::MAX);
            (last.pool == state.pool && last.generation == generation && due > now).then_some(due)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_decided_on_again_when_the_pool_or_the_claim_changes_or_time_has_passed() {
        let questions = Questions::default();
        let (claim, every) = (Uid("c".to_owned()), SignedDuration::from_mins(1));
        let at = |seconds: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        assert_eq!(questions.due(&claim, 1, at(0), every), None, "never asked");
        questions.unanswered(&claim, 1, questions.pool(), at(0));
        assert_eq!(questions.due(&claim, 1, at(1), every), Some(at(60)));
        assert_eq!(questions.due(&claim, 2, at(1), every), None, "another declaration");
        assert_eq!(questions.due(&claim, 1, at(60), every), None, "time has passed");
        let before = questions.pool();
        questions.pool_changed();
        assert_eq!(questions.due(&claim, 1, at(1), every), None, "the pool changed");
        questions.unanswered(&claim, 1, before, at(1));
        assert_eq!(questions.due(&claim, 1, at(2), every), None, "the pool changed while it was decided");
        questions.unanswered(&claim, 1, questions.pool(), at(2));
        assert_eq!(questions.due(&claim, 1, at(3), every), Some(at(62)));
        questions.forget(&claim);
        assert_eq!(questions.due(&claim, 1, at(3), every), None);
    }
}
