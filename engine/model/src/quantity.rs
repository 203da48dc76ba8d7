//! Amounts of resources, exact, in Kubernetes' notation.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An exact, non-negative amount, counted in thousandths (so that `500m` CPU is a whole number).
///
/// Reads `2`, `500m`, `1.5`, `16Gi`, `64G`, `1Ti`: decimal suffixes m k M G T P, binary suffixes Ki Mi Gi Ti Pi.
/// Keeps the value, not the spelling: `1024Mi` equals `1Gi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Quantity {
    milli: u128,
}

/// Text that is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity; expected a number such as 2, 500m, 1.5, 16Gi or 64G")]
pub struct QuantityError(pub String);

const BINARY: [(&str, u32); 5] = [("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: [(&str, u32); 5] = [("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3)];
/// Keeps every computation on amounts far from overflow: 2^80 units are more bytes than exist.
const MAX_MILLI: u128 = 1 << 90;

impl Quantity {
    /// A whole number of units.
    pub const fn units(units: u64) -> Self {
        Quantity { milli: units as u128 * 1000 }
    }

    /// Thousandths of a unit.
    pub const fn from_milli(milli: u64) -> Self {
        Quantity { milli: milli as u128 }
    }

    /// The amount in thousandths.
    pub const fn milli(self) -> u128 {
        self.milli
    }

    /// Whole units, rounded up.
    pub fn units_ceil(self) -> u64 {
        u64::try_from(self.milli.div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Quantity) -> Self {
        Quantity { milli: self.milli.saturating_add(other.milli) }
    }

    /// The difference; nothing where it would be less.
    #[must_use]
    pub const fn minus(self, other: Quantity) -> Self {
        Quantity { milli: self.milli.saturating_sub(other.milli) }
    }

    /// So many times the amount.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Quantity { milli: self.milli.saturating_mul(count as u128) }
    }

    /// True for nothing at all.
    pub const fn is_zero(self) -> bool {
        self.milli == 0
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError(text.to_owned());
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, suffix) = trimmed.split_at(split);
        // The multiplier over thousandths.
        let scale: u128 = match suffix {
            "" => 1000,
            "m" => 1,
            _ => match (BINARY.iter().find(|(s, _)| *s == suffix), DECIMAL.iter().find(|(s, _)| *s == suffix)) {
                (Some((_, bits)), _) => 1000u128 << bits,
                (_, Some((_, zeros))) => 1000 * 10u128.pow(*zeros),
                _ => return Err(bad()),
            },
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 24 || fraction.len() > 9 || fraction.contains('.') {
            return Err(bad());
        }
        let digits = |part: &str| if part.is_empty() { Ok(0) } else { part.parse::<u128>().map_err(|_| bad()) };
        let tenths = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
        let milli = digits(whole)?
            .checked_mul(scale)
            .and_then(|milli| milli.checked_add((digits(fraction).ok()? * scale).div_ceil(tenths)))
            .filter(|milli| *milli <= MAX_MILLI);
        digits(fraction)?;
        Ok(Quantity { milli: milli.ok_or_else(bad)? })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.milli.is_multiple_of(1000) {
            return write!(f, "{}m", self.milli);
        }
        let units = self.milli / 1000;
        let exact = BINARY.iter().find(|(_, bits)| units > 0 && units.is_multiple_of(1 << bits));
        match exact {
            Some((suffix, bits)) => write!(f, "{}{suffix}", units >> bits),
            None => write!(f, "{units}"),
        }
    }
}

impl TryFrom<String> for Quantity {
    type Error = QuantityError;
    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> String {
        quantity.to_string()
    }
}

/// Amounts by resource name: `cpu`, `memory` (bytes) and extended resources such as `nvidia.com/gpu`.
pub type Resources = BTreeMap<String, Quantity>;

/// The resource name of processors, counted in cores.
pub const CPU: &str = "cpu";
/// The resource name of memory, counted in bytes.
pub const MEMORY: &str = "memory";
/// Resources that every node has and that no class of hosts is chosen for.
pub const ORDINARY: [&str; 4] = [CPU, MEMORY, "pods", "ephemeral-storage"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn notations_mean_what_kubernetes_means() {
        assert_eq!(q("500m").milli(), 500);
        assert_eq!(q("1.5"), q("1500m"));
        assert_eq!(q("1024Mi"), q("1Gi"));
        assert_eq!(q("64G").milli(), 64_000_000_000_000);
        assert_eq!(q("2").units_ceil(), 2);
        assert_eq!(q("1500m").units_ceil(), 2);
        assert_eq!(
            (q("1Gi").to_string(), q("1500m").to_string(), q("3").to_string()),
            ("1Gi".into(), "1500m".into(), "3".into())
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "-1", "1e3", "Gi", "1.2.3", "1 Gi", "9999999999999999999999999", "1GiB", ".", "1.x"] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_equal(milli in 0u64..=u64::MAX) {
            let quantity = Quantity::from_milli(milli);
            prop_assert_eq!(quantity.to_string().parse::<Quantity>().unwrap(), quantity);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
