//! Chance that repeats itself.

use std::time::Duration;

use vmetal_runtime::{Entropy, SeededEntropy};

/// One stream of chance. What is drawn from one stream does not move another.
#[derive(Debug)]
pub struct Chance(SeededEntropy);

impl Chance {
    /// The stream of this name under a seed.
    pub fn new(seed: u64, stream: &str) -> Self {
        let mixed = stream.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
        });
        Chance(SeededEntropy::new(mixed))
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&self, end: u64) -> u64 {
        // The high half of the product: even enough for a simulation.
        ((u128::from(self.0.number()) * u128::from(end)) >> 64) as u64
    }

    /// True once in `n` times on average.
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A duration from `least` to `most`, in milliseconds.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis() as u64;
        least + Duration::from_millis(self.below(span + 1))
    }

    /// Evenly in 0..=1.
    pub fn unit(&self) -> f64 {
        self.below(1 << 53) as f64 / ((1u64 << 53) - 1) as f64
    }
}
