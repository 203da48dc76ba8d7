//! Chance as an argument.

use std::fmt::{self, Debug};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// A source of random bytes.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A number, all 64 bits random.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A duration from zero to `most`, both included, evenly distributed (to better than one in a million for ranges
    /// of up to an hour).
    fn duration_up_to(&self, most: Duration) -> Duration {
        let range = most.as_nanos().saturating_add(1);
        // The high half of a 64 x 96 bit product is even enough without rejection.
        let nanos = (range.min(u128::from(u64::MAX)) * u128::from(self.number())) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The machine's cryptographically secure source, fit for tokens and keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[allow(clippy::disallowed_methods, reason = "the edge to the real source")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// A source that repeats itself from its seed. For simulations and tests, never for secrets.
pub struct SeededEntropy(Mutex<Xoshiro256PlusPlus>);

impl SeededEntropy {
    /// The source of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

impl Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededEntropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself() {
        let (one, two, other) = (SeededEntropy::new(7), SeededEntropy::new(7), SeededEntropy::new(8));
        let numbers: Vec<_> = (0..5).map(|_| one.number()).collect();
        assert!(numbers.iter().all(|number| *number == two.number()));
        assert_ne!(numbers[0], other.number());
    }

    #[test]
    fn the_system_source_is_not_constant() {
        assert_ne!(SystemEntropy.number(), SystemEntropy.number());
    }

    #[test]
    fn durations_fill_their_range_and_stay_in_it() {
        let (entropy, most) = (SeededEntropy::new(1), Duration::from_nanos(3));
        let mut seen = [0; 4];
        for _ in 0..4_000 {
            seen[entropy.duration_up_to(most).as_nanos() as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
        assert_eq!(entropy.duration_up_to(Duration::ZERO), Duration::ZERO);
        assert!(entropy.duration_up_to(Duration::MAX) > Duration::ZERO);
    }
}
