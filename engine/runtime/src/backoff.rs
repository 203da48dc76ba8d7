//! How long to wait before trying again.

use std::time::Duration;

use crate::entropy::Entropy;

/// Exponential with a cap and full jitter: the n-th wait is evenly distributed between zero and the smaller of the cap
/// and `base * factor^n`. Full jitter spreads a rack that lost power together over the whole interval, instead of
/// letting it come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The ceiling of the first wait.
    pub base: Duration,
    /// By how much the ceiling grows each time.
    pub factor: u32,
    /// The highest ceiling.
    pub cap: Duration,
}

impl BackoffPolicy {
    /// The longest wait before try number `attempt` (from 0) is repeated.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let growth = self.factor.checked_pow(attempt).unwrap_or(u32::MAX);
        self.base.saturating_mul(growth).min(self.cap)
    }

    /// The wait after try number `attempt` (from 0) failed.
    pub fn delay(&self, attempt: u32, entropy: &dyn Entropy) -> Duration {
        entropy.duration_up_to(self.ceiling(attempt))
    }
}

impl Default for BackoffPolicy {
    /// 2 s, doubling, up to 15 min: patient enough for a power-on self test, quick enough for a dropped packet.
    fn default() -> Self {
        Self { base: Duration::from_secs(2), factor: 2, cap: Duration::from_secs(15 * 60) }
    }
}

/// Counts failures of one cause. When the cause changes, counting starts again: somebody who has just corrected a
/// password should not wait out what the old one has earned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff<C> {
    policy: BackoffPolicy,
    failing: Option<(C, u32)>,
}

impl<C: PartialEq> Backoff<C> {
    /// Nothing has failed yet.
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, failing: None }
    }

    /// Something failed for `cause`: how long to wait.
    pub fn failed(&mut self, cause: C, entropy: &dyn Entropy) -> Duration {
        let attempt = match &self.failing {
            Some((last, attempts)) if *last == cause => *attempts,
            _ => 0,
        };
        self.failing = Some((cause, attempt.saturating_add(1)));
        self.policy.delay(attempt, entropy)
    }

    /// There was progress (not merely a call that worked): forget the failures.
    pub fn reset(&mut self) {
        self.failing = None;
    }

    /// The present cause and how often in a row it has failed.
    pub fn failing(&self) -> Option<(&C, u32)> {
        self.failing.as_ref().map(|(cause, attempts)| (cause, *attempts))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    /// Always the longest wait.
    #[derive(Debug)]
    struct Longest;

    impl Entropy for Longest {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }

    #[test]
    fn waits_double_up_to_the_cap_and_start_again_with_a_new_cause() {
        let mut backoff = Backoff::new(BackoffPolicy::default());
        let mut seconds = |cause| backoff.failed(cause, &Longest).as_secs();
        assert_eq!(
            (0..11).map(|_| seconds("timeout")).collect::<Vec<_>>(),
            [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
        );
        assert_eq!(seconds("refused"), 2);
        assert_eq!(seconds("timeout"), 2, "the old cause is forgotten too");
        assert_eq!(backoff.failing(), Some((&"timeout", 1)));
        backoff.reset();
        assert_eq!(backoff.failing(), None);
        assert_eq!(backoff.failed("timeout", &Longest).as_secs(), 2);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_ceiling(base in 0..u64::MAX, factor in 0..u32::MAX, cap in 0..u64::MAX, attempt: u32, seed: u64) {
            let policy = BackoffPolicy { base: Duration::from_nanos(base), factor, cap: Duration::from_nanos(cap) };
            let delay = policy.delay(attempt, &SeededEntropy::new(seed));
            prop_assert!(delay <= policy.ceiling(attempt));
            prop_assert!(policy.ceiling(attempt) <= policy.cap);
        }
    }
}
