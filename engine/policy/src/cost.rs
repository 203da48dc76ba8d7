//! Prices, exact.

use std::fmt;

use serde::{Deserialize, Serialize};

const MICRO: i64 = 1_000_000;

/// A cost in millionths of vMetal's unit-less cost unit. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cost(i64);

impl Cost {
    /// From millionths; anything below zero is zero.
    pub fn from_micro(micro: i64) -> Self {
        Cost(micro.max(0))
    }

    /// In millionths.
    pub fn micro(self) -> i64 {
        self.0
    }

    /// In whole units, rounded up.
    pub fn units(self) -> u64 {
        self.0.unsigned_abs().div_ceil(MICRO.unsigned_abs())
    }
}

impl fmt::Display for Cost {
    /// `28`, or `28.5` where there is a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:06}", self.0 % MICRO);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}", self.0 / MICRO),
            digits => write!(f, "{}.{digits}", self.0 / MICRO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_read_as_people_write_them() {
        let shown = |micro| Cost::from_micro(micro).to_string();
        assert_eq!((shown(28_000_000), shown(28_500_000), shown(1)), ("28".into(), "28.5".into(), "0.000001".into()));
        assert_eq!(
            (Cost::from_micro(1).units(), Cost::from_micro(28_000_000).units(), Cost::from_micro(-5)),
            (1, 28, Cost(0))
        );
    }
}
