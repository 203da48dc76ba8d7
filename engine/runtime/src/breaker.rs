//! When to leave something alone.
//!
//! A BMC that does not answer is not helped by being asked more often, and the engine is not helped by waiting for it.
//! The breaker opens after some failures in a row, and then lets single probes through at growing intervals until one
//! of them comes back.

use std::time::Duration;

use crate::backoff::BackoffPolicy;
use crate::clock::Monotonic;
use crate::entropy::Entropy;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// This many failures in a row open it.
    pub failures: u32,
    /// How long it stays open after each probe that failed: at least half of the ceiling, the other half jittered.
    pub open: BackoffPolicy,
    /// A probe without an answer is given up after this.
    pub probe_timeout: Duration,
}

impl Default for BreakerPolicy {
    /// Five failures; 30 s to 15 min; 60 s.
    fn default() -> Self {
        let open = BackoffPolicy { base: Duration::from_secs(30), factor: 2, cap: Duration::from_secs(15 * 60) };
        Self { failures: 5, open, probe_timeout: Duration::from_secs(60) }
    }
}

/// What a breaker says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead.
    Allow,
    /// Go ahead as the one probe: something harmless. Report how it went.
    Probe,
    /// Not now; ask again then.
    Refuse {
        /// When the next probe may go.
        until: Monotonic,
    },
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed {
        /// Failures in a row so far.
        failures: u32,
    },
    /// Calls are refused.
    Open {
        /// When a probe may go.
        until: Monotonic,
        /// How often in a row it has opened.
        trips: u32,
    },
    /// One probe is on its way.
    HalfOpen {
        /// When it is given up.
        until: Monotonic,
        /// How often in a row it has opened.
        trips: u32,
    },
}

/// A circuit breaker as plain data: it holds no timer and takes the time as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: BreakerState,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: BreakerState::Closed { failures: 0 } }
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// May a call be made? Each call that may is followed by [`Breaker::succeeded`] or [`Breaker::failed`].
    pub fn admit(&mut self, now: Monotonic) -> Verdict {
        match self.state {
            BreakerState::Closed { .. } => Verdict::Allow,
            BreakerState::Open { until, trips } | BreakerState::HalfOpen { until, trips } if now >= until => {
                self.state = BreakerState::HalfOpen { until: now.saturating_add(self.policy.probe_timeout), trips };
                Verdict::Probe
            }
            BreakerState::Open { until, .. } | BreakerState::HalfOpen { until, .. } => Verdict::Refuse { until },
        }
    }

    /// A call came back.
    pub fn succeeded(&mut self) {
        match self.state {
            BreakerState::Closed { .. } | BreakerState::HalfOpen { .. } => {
                self.state = BreakerState::Closed { failures: 0 }
            }
            // A call from before the breaker opened; what opened it is newer.
            BreakerState::Open { .. } => {}
        }
    }

    /// A call failed.
    pub fn failed(&mut self, now: Monotonic, entropy: &dyn Entropy) {
        match self.state {
            BreakerState::Closed { failures } if failures.saturating_add(1) < self.policy.failures => {
                self.state = BreakerState::Closed { failures: failures + 1 };
            }
            BreakerState::Closed { .. } => self.open(0, now, entropy),
            BreakerState::HalfOpen { trips, .. } => self.open(trips, now, entropy),
            // A call from before the breaker opened.
            BreakerState::Open { .. } => {}
        }
    }

    /// A call failed in a way that must not be repeated (a refused password): opens at once, whatever the count.
    pub fn trip(&mut self, now: Monotonic, entropy: &dyn Entropy) {
        match self.state {
            BreakerState::Closed { .. } => self.open(0, now, entropy),
            BreakerState::HalfOpen { trips, .. } => self.open(trips, now, entropy),
            BreakerState::Open { .. } => {}
        }
    }

    /// What made it open has been changed by someone: start afresh.
    pub fn reset(&mut self) {
        self.state = BreakerState::Closed { failures: 0 };
    }

    fn open(&mut self, trips: u32, now: Monotonic, entropy: &dyn Entropy) {
        // Full jitter could make the pause nothing at all, and then it would not be a breaker.
        let half = self.policy.open.ceiling(trips) / 2;
        let pause = half.saturating_add(entropy.duration_up_to(half));
        self.state = BreakerState::Open { until: now.saturating_add(pause), trips: trips.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    const fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn opened(breaker: &Breaker) -> (Monotonic, u32) {
        match breaker.state() {
            BreakerState::Open { until, trips } => (until, trips),
            other => panic!("not open: {other:?}"),
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let (mut breaker, entropy) = (Breaker::new(BreakerPolicy::default()), SeededEntropy::new(1));
        for _ in 0..4 {
            breaker.failed(at(0), &entropy);
        }
        breaker.succeeded();
        for _ in 0..4 {
            breaker.failed(at(0), &entropy);
            assert_eq!(breaker.admit(at(0)), Verdict::Allow);
        }
        breaker.failed(at(0), &entropy);
        let (until, _) = opened(&breaker);
        assert!((at(15)..=at(30)).contains(&until), "{until:?}");
        assert_eq!(breaker.admit(at(14)), Verdict::Refuse { until });
        assert_eq!(breaker.admit(at(30)), Verdict::Probe);
        assert_eq!(breaker.admit(at(31)), Verdict::Refuse { until: at(90) }, "one at a time");
        assert_eq!(breaker.admit(at(90)), Verdict::Probe, "the first one never came back");
        breaker.failed(at(91), &entropy);
        let (until, trips) = opened(&breaker);
        assert!((at(91 + 30)..=at(91 + 60)).contains(&until), "the second pause is twice as long: {until:?}");
        assert_eq!(trips, 2);
        breaker.succeeded();
        assert_eq!(opened(&breaker).0, until, "an answer to an old call closes nothing");
        assert_eq!(breaker.admit(until), Verdict::Probe);
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed { failures: 0 });
    }

    #[test]
    fn a_refused_password_opens_it_at_once() {
        let (mut breaker, entropy) = (Breaker::new(BreakerPolicy::default()), SeededEntropy::new(1));
        breaker.trip(at(0), &entropy);
        assert!(matches!(breaker.admit(at(1)), Verdict::Refuse { .. }));
        breaker.reset();
        assert_eq!(breaker.admit(at(1)), Verdict::Allow);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(u64),
        Call,
        Success,
        Failure,
        Trip,
    }

    proptest! {
        /// Whatever happens: while open, at most one probe per pause goes through, and in the end it can close.
        #[test]
        fn it_never_floods_and_never_stays_shut(
            steps in proptest::collection::vec(prop_oneof![
                (0..400_u64).prop_map(Step::Wait), Just(Step::Call), Just(Step::Success), Just(Step::Failure), Just(Step::Trip)
            ], 0..200),
            seed: u64,
        ) {
            let (mut breaker, entropy) = (Breaker::new(BreakerPolicy::default()), SeededEntropy::new(seed));
            let (mut now, mut last_probe) = (at(0), None);
            for step in steps {
                match step {
                    Step::Wait(seconds) => now = now.saturating_add(Duration::from_secs(seconds)),
                    Step::Success => breaker.succeeded(),
                    Step::Failure => breaker.failed(now, &entropy),
                    Step::Trip => breaker.trip(now, &entropy),
                    Step::Call => match breaker.admit(now) {
                        Verdict::Allow => last_probe = None,
                        Verdict::Probe => {
                            if let Some(last) = last_probe.replace(now) {
                                prop_assert!(now.duration_since(last) >= Duration::from_secs(15));
                            }
                        }
                        Verdict::Refuse { until } => {
                            prop_assert!(until > now);
                            prop_assert!(until.duration_since(now) <= Duration::from_secs(15 * 60));
                        }
                    },
                }
                if breaker.state() == (BreakerState::Closed { failures: 0 }) {
                    last_probe = None;
                }
            }
            let late = now.saturating_add(Duration::from_secs(15 * 60));
            prop_assert!(matches!(breaker.admit(late), Verdict::Allow | Verdict::Probe));
            breaker.succeeded();
            prop_assert_eq!(breaker.admit(late), Verdict::Allow);
        }
    }
}
