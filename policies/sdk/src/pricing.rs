//! The price list of the vCluster Platform, made exact: for policies that charge it or build on it.
//!
//! 10 for each processor, 2 for each GiB of memory, 10000 for each unit of every other resource; `pods` and
//! `ephemeral-storage` are free of charge. Prices are integers in millionths of a cost unit.

use crate::types::{Claim, Sym};
use crate::view::OfferRef;

/// Millionths in one cost unit.
pub const MICRO: i128 = 1_000_000;

const CPU: i128 = 10;
const MEMORY_GIB: i128 = 2;
const OTHER: i128 = 10_000;
const GIB: i128 = 1 << 30;

/// Resources that every server has and that cost nothing: ask for their symbols in `validate_settings`.
pub const FREE_OF_CHARGE: [&str; 2] = ["pods", "ephemeral-storage"];

/// The three terms of the formula over plain amounts, in millionths: processors in thousandths, bytes of memory, and the other
/// resources that are charged, in thousandths.
pub fn terms(cpu_milli: u64, memory_bytes: u64, others_milli: impl Iterator<Item = u64>) -> [(&'static str, i128); 3] {
    let cpu = i128::from(cpu_milli) * CPU * MICRO / 1000;
    let memory = (i128::from(memory_bytes) * MEMORY_GIB * MICRO + GIB - 1) / GIB;
    let others: i128 = others_milli.map(i128::from).sum();
    [("cpu x 10", cpu), ("memory GiB x 2", memory), ("other resources x 10000", others * OTHER * MICRO / 1000)]
}

/// The three terms of the formula, in millionths.
pub fn parts(offer: OfferRef<'_>, free_of_charge: &[Sym]) -> [(&'static str, i128); 3] {
    terms(offer.cpu_milli(), offer.memory_bytes(), charged(offer, free_of_charge).map(|(_, milli)| milli))
}

fn charged<'a>(offer: OfferRef<'a>, free_of_charge: &'a [Sym]) -> impl Iterator<Item = (Sym, u64)> + 'a {
    offer.resources().filter(|(name, _)| !free_of_charge.contains(name))
}

/// As large as a price can be shown.
pub fn capped(micro: i128) -> i64 {
    i64::try_from(micro).unwrap_or(i64::MAX)
}

/// The price of an offer in millionths of a cost unit: the operator's own, or the formula's. `free_of_charge` holds the
/// symbols of [`FREE_OF_CHARGE`]. A price beyond `i64` is `i64::MAX`.
pub fn price(offer: OfferRef<'_>, free_of_charge: &[Sym]) -> i64 {
    if offer.explicit_cost() > 0 {
        return offer.explicit_cost();
    }
    capped(parts(offer, free_of_charge).iter().map(|(_, micro)| micro).sum())
}

/// How much of the offer the claim leaves unused: the shares of its resources, in millionths, added up.
pub fn unused(offer: OfferRef<'_>, claim: &Claim) -> u64 {
    let asked =
        |name: Sym| claim.resources.iter().filter(|asked| asked.resource == name).map(|asked| asked.milli).sum();
    share(offer.cpu_milli(), claim.cpu_milli)
        .saturating_add(share(offer.memory_bytes(), claim.memory_bytes))
        .saturating_add(offer.resources().map(|(name, milli)| share(milli, asked(name))).fold(0, u64::saturating_add))
}

/// The unused share of one resource, in millionths, rounded down; 0 for a resource that the offer does not have.
pub fn share(offered: u64, asked: u64) -> u64 {
    let left = u128::from(offered.saturating_sub(asked)) * 1_000_000;
    left.checked_div(u128::from(offered)).map_or(0, |share| u64::try_from(share).unwrap_or(u64::MAX))
}
