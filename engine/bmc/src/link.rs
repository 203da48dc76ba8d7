//! What protects one BMC, whoever asks: rate, permits, breaker, pauses it asked for, refused passwords.
//!
//! Pure bookkeeping over instants that are passed in; nothing here sleeps or talks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Config;

/// How often a refused password is sent in all. Most BMCs lock an account at three to five.
pub(crate) const PASSWORD_TRIES: u32 = 2;
/// How many sets of credentials are remembered as refused per BMC.
const REMEMBERED: usize = 16;

/// Shared by all gateways of one origin.
pub(crate) struct Link {
    pub(crate) reads: Semaphore,
    pub(crate) writes: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) pace: Pace,
    pub(crate) breaker: Breaker,
    pub(crate) pause: Option<Pause>,
    pub(crate) refused: Refused,
}

/// A pause that the BMC asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) until: Instant,
    pub(crate) status: u16,
    pub(crate) said: String,
}

impl Link {
    pub(crate) fn new(config: &Config) -> Self {
        Link {
            reads: Semaphore::new(2),
            writes: tokio::sync::Mutex::new(()),
            state: Mutex::new(State {
                pace: Pace::new(config.rate_per_second, config.burst),
                breaker: Breaker::new(config),
                pause: None,
                refused: Refused::default(),
            }),
        }
    }

    /// Whether a new link would behave the same: nothing was refused, nothing failed, and the pace has caught up.
    pub(crate) fn is_clean(&self, now: Instant) -> bool {
        let state = self.state();
        state.refused.seen.is_empty()
            && state.breaker.failures == 0
            && state.pause.as_ref().is_none_or(|pause| pause.until <= now)
            && state.pace.next.is_none_or(|next| next <= now)
    }

    /// Never held across an await. Bookkeeping stays usable after a panic elsewhere: every update is a single assignment.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bounded rate (generic cell rate algorithm): `burst` requests at once, then one per interval.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    slack: Duration,
    next: Option<Instant>,
}

impl Pace {
    fn new(per_second: f64, burst: u32) -> Self {
        let interval = Duration::from_secs_f64(1.0 / per_second.clamp(0.001, 1e6));
        Pace { interval, slack: interval * burst.saturating_sub(1), next: None }
    }

    /// Takes a place and tells how long to wait for it.
    pub(crate) fn reserve(&mut self, now: Instant) -> Duration {
        let mine = self.next.map_or(now, |next| next.max(now));
        self.next = Some(mine + self.interval);
        mine.saturating_duration_since(now).saturating_sub(self.slack)
    }
}

/// Leaves a BMC alone after failures in a row.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    first: Duration,
    longest: Duration,
    failures: u32,
    /// Pauses in a row.
    trips: u32,
    open_until: Option<Instant>,
    last: String,
}

/// What the breaker says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Closed,
    /// The pause is over: ask something harmless first. Others are held off meanwhile.
    HalfOpen,
    /// Leave it alone.
    Open { failures: u32, last: String, retry_in: Duration },
}

impl Breaker {
    fn new(config: &Config) -> Self {
        Breaker {
            threshold: config.breaker_failures.max(1),
            first: config.breaker_pause,
            longest: config.breaker_longest,
            failures: 0,
            trips: 0,
            open_until: None,
            last: String::new(),
        }
    }

    /// `probe_within` is how long the harmless question may take at most.
    pub(crate) fn ask(&mut self, now: Instant, probe_within: Duration) -> Verdict {
        match self.open_until {
            None => Verdict::Closed,
            Some(until) if until <= now => {
                // One asks; the others wait as long as that may take. Success closes, failure opens for longer.
                self.open_until = Some(now + probe_within);
                Verdict::HalfOpen
            }
            Some(until) => Verdict::Open {
                failures: self.failures,
                last: self.last.clone(),
                retry_in: until.saturating_duration_since(now),
            },
        }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.trips = 0;
        self.open_until = None;
    }

    /// `jitter` in 0..=1 shortens the pause by up to a half, so that many BMCs behind one dead switch do not come back
    /// in step.
    pub(crate) fn failed(&mut self, now: Instant, why: String, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        self.last = why;
        if self.failures >= self.threshold {
            let pause = self.first.saturating_mul(1 << self.trips.min(16)).min(self.longest);
            self.trips += 1;
            self.open_until = Some(now + pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0));
        }
    }
}

/// Credentials that were refused, by digest, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    seen: VecDeque<([u8; 32], u32)>,
}

impl Refused {
    pub(crate) fn count(&self, credentials: &[u8; 32]) -> u32 {
        self.seen.iter().find(|(digest, _)| digest == credentials).map_or(0, |(_, count)| *count)
    }

    pub(crate) fn refused(&mut self, credentials: &[u8; 32]) {
        let count = self.count(credentials) + 1;
        self.accepted(credentials);
        self.seen.push_back((*credentials, count));
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
    }

    pub(crate) fn accepted(&mut self, credentials: &[u8; 32]) {
        self.seen.retain(|(digest, _)| digest != credentials);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::AddressGuard;

    fn config() -> Config {
        Config::new(AddressGuard::default())
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let now = Instant::now();
        let mut pace = Pace::new(2.0, 3);
        let waits: Vec<u128> = (0..6).map(|_| pace.reserve(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 500, 1000, 1500]);
        let waits: Vec<u128> = (0..4).map(|_| pace.reserve(now + s(60)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 500], "quiet time fills the burst, and no more than the burst");
    }

    #[test]
    fn five_failures_open_the_breaker_and_each_trip_lasts_longer() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(&config());
        for _ in 0..4 {
            breaker.failed(now, "refused".into(), 0.0);
            assert_eq!(breaker.ask(now, s(30)), Verdict::Closed);
        }
        breaker.failed(now, "refused".into(), 0.0);
        let open = Verdict::Open { failures: 5, last: "refused".into(), retry_in: s(30) };
        assert_eq!(breaker.ask(now, s(30)), open);
        now += s(30);
        assert_eq!(breaker.ask(now, s(30)), Verdict::HalfOpen);
        assert!(matches!(breaker.ask(now, s(30)), Verdict::Open { .. }), "only one asks");
        breaker.failed(now, "refused".into(), 0.0);
        assert!(matches!(breaker.ask(now, s(30)), Verdict::Open { retry_in, .. } if retry_in == s(60)));
        now += s(60);
        assert_eq!(breaker.ask(now, s(30)), Verdict::HalfOpen);
        breaker.succeeded();
        assert_eq!(breaker.ask(now, s(30)), Verdict::Closed);
    }

    #[test]
    fn the_longest_pause_is_bounded_and_jitter_only_shortens() {
        let now = Instant::now();
        let mut breaker = Breaker::new(&config());
        for _ in 0..100 {
            breaker.failed(now, String::new(), 0.0);
        }
        assert!(matches!(breaker.ask(now, s(30)), Verdict::Open { retry_in, .. } if retry_in == s(900)));
        breaker.failed(now, String::new(), 1.0);
        assert!(matches!(breaker.ask(now, s(30)), Verdict::Open { retry_in, .. } if retry_in == s(450)));
    }

    #[test]
    fn refused_passwords_are_counted_one_by_one() {
        let mut refused = Refused::default();
        refused.refused(&[1; 32]);
        refused.refused(&[1; 32]);
        refused.refused(&[2; 32]);
        assert_eq!((refused.count(&[1; 32]), refused.count(&[2; 32]), refused.count(&[3; 32])), (2, 1, 0));
        refused.accepted(&[1; 32]);
        assert_eq!((refused.count(&[1; 32]), refused.count(&[2; 32])), (0, 1));
        for i in 0..100 {
            refused.refused(&[i; 32]);
        }
        assert!(refused.seen.len() <= REMEMBERED);
    }
}
