//! From words to columns: what a policy is given, and the digest of it.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use vmetal_model::{Operator, Requirement};
use vmetal_policy_sdk as sdk;

use crate::columns::View;
use crate::error::PolicyError;
use crate::feasibility::Rejection;
use crate::input::{self, Offer, Wanted};
use crate::round::Except;
use crate::symbols::Symbols;

/// One decision's input in the form that policies see.
pub(crate) struct Snapshot<Table> {
    pub(crate) symbols: Symbols,
    pub(crate) claim: sdk::Claim,
    pub(crate) table: Table,
    pub(crate) now: u64,
    pub(crate) seed: u64,
    /// SHA-256 over all of the above, hexadecimal.
    pub(crate) digest: String,
}

impl<Table> Snapshot<Table> {
    /// What every call gets besides its subject.
    pub(crate) fn context(&self, settings: &str, wanted: &[String]) -> sdk::Context {
        let symbols = wanted.iter().map(|text| self.symbols.find(text)).collect();
        sdk::Context { settings: settings.to_owned(), symbols, now: self.now, seed: self.seed }
    }
}

/// `ranks(names)[row]` is the position of the row's name among all names.
fn ranks<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let mut order: Vec<(&str, usize)> = names.zip(0..).collect();
    order.sort_unstable();
    let mut ranks = vec![0; order.len()];
    for (rank, (_, row)) in (0u32..).zip(order) {
        ranks[row] = rank;
    }
    ranks
}

pub(crate) fn rows(candidates: usize) -> Result<u32, PolicyError> {
    u32::try_from(candidates).map_err(|_| PolicyError::TooMany { candidates })
}

fn gate(rejections: &[Rejection]) -> u32 {
    rejections.first().map_or(sdk::gate::OPEN, Rejection::code)
}

/// How many more hosts of a node type the claim's tenant cluster may hold.
fn quota_left(wanted: &Wanted, offer: &Offer) -> u64 {
    let left = wanted.quota.iter().filter_map(|limit| limit.left(offer));
    left.min().unwrap_or(sdk::column::offer::UNLIMITED)
}

fn claim(wanted: &Wanted, symbols: &mut Symbols) -> sdk::Claim {
    sdk::Claim {
        id: symbols.sym(&wanted.name),
        tenant_cluster: symbols.sym(&wanted.cluster),
        count: wanted.count,
        cpu_milli: input::cpu_milli(&wanted.resources),
        memory_bytes: input::memory_bytes(&wanted.resources),
        resources: input::others(&wanted.resources)
            .map(|(name, amount)| sdk::Quantity { resource: symbols.sym(name), milli: input::milli(amount) })
            .collect(),
        requirements: wanted.requirements.iter().map(|one| requirement(one, symbols)).collect(),
    }
}

fn requirement(from: &Requirement, symbols: &mut Symbols) -> sdk::Requirement {
    let operator = match from.operator {
        Operator::In => sdk::Operator::In,
        Operator::NotIn => sdk::Operator::NotIn,
        Operator::Exists => sdk::Operator::Exists,
        Operator::DoesNotExist => sdk::Operator::DoesNotExist,
        Operator::Gt => sdk::Operator::Greater,
        Operator::Lt => sdk::Operator::Less,
    };
    let bounded = matches!(from.operator, Operator::Gt | Operator::Lt);
    let number = from.values.first().filter(|_| bounded).and_then(|value| value.parse().ok()).unwrap_or(0);
    let values = if bounded { Vec::new() } else { from.values.iter().map(|value| symbols.sym(value)).collect() };
    sdk::Requirement { key: symbols.sym(&from.key), operator, values, number }
}

/// The columns of node types.
pub(crate) fn offers(
    wanted: &Wanted,
    offers: &[Offer],
    rejections: &[Vec<Rejection>],
    now: u64,
) -> Result<Snapshot<sdk::Offers>, PolicyError> {
    let mut symbols = Symbols::default();
    let claim = claim(wanted, &mut symbols);
    let mut table = sdk::Offers {
        n: rows(offers.len())?,
        rank: ranks(offers.iter().map(|offer| offer.name.as_str())),
        gate: rejections.iter().map(|found| gate(found)).collect(),
        resource_at: vec![0],
        ..sdk::Offers::default()
    };
    let (mut watts, mut standby, mut left): (Vec<u64>, Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new(), Vec::new());
    for offer in offers {
        table.name.push(symbols.sym(&offer.name));
        table.cpu_milli.push(input::cpu_milli(&offer.resources));
        table.memory_bytes.push(input::memory_bytes(&offer.resources));
        let explicit = u128::from(offer.explicit_cost.unwrap_or(0)) * 1_000_000;
        table.explicit_cost.push(i64::try_from(explicit).unwrap_or(i64::MAX));
        table.total.push(offer.total);
        table.free.push(offer.free);
        watts.push(offer.labels.get(input::WATTS).and_then(|watts| watts.parse().ok()).unwrap_or(0));
        standby.push(u64::from(offer.standby));
        left.push(quota_left(wanted, offer));
        for (name, amount) in input::others(&offer.resources) {
            table.resource_name.push(symbols.sym(name));
            table.resource_milli.push(input::milli(amount));
        }
        table.resource_at.push(rows(table.resource_name.len())?);
    }
    use sdk::column::offer;
    let extra = [(offer::WATTS, watts), (offer::STANDBY, standby), (offer::QUOTA_LEFT, left)];
    table.extra = extra.map(|(number, cells)| sdk::Column { number, cells: cells.into() }).into();
    let digest = digest(&("offers", wanted, offers, now));
    Ok(Snapshot { symbols, claim, table, now, seed: seed(wanted), digest })
}

/// The columns of hosts, lent by the fleet, with the rules' outcome.
pub(crate) fn hosts<'a>(
    wanted: &Wanted,
    offer: &Offer,
    fleet: &'a View,
    gate: Vec<u32>,
    except: Except<'_>,
    now: u64,
) -> Snapshot<sdk::Hosts<'a>> {
    let mut symbols = Symbols::over(Arc::clone(&fleet.table.symbols));
    let claim = claim(wanted, &mut symbols);
    let promised: Vec<(usize, sdk::Sym)> = except
        .taken
        .iter()
        .filter_map(|(host, promise)| Some((fleet.table.slot(host)?, symbols.sym(&promise.cluster))))
        .collect();
    // What the rules looked at, and not their outcome: the outcome follows from it.
    let rules = (&offer.selector, &offer.resources, except.taken, except.bars);
    let digest = digest(&("hosts", wanted, rules, fleet.levels(), fleet.digest(), now));
    Snapshot { symbols, claim, table: fleet.table.lend(gate, &promised), now, seed: seed(wanted), digest }
}

/// SHA-256 over the words that an input is made of, hexadecimal. Their JSON form is the same wherever it is made: maps
/// are ordered, and there are no floating-point numbers.
fn digest(words: &impl Serialize) -> String {
    let mut hash = Sha256::new();
    hash.update("vmetal policy input ");
    hash.update(sdk::WIT_VERSION);
    // Writing plain data into memory cannot fail.
    hash.update(serde_json::to_vec(words).unwrap_or_default());
    hex::encode(hash.finalize())
}

/// The same for the same claim, whenever it is decided.
fn seed(wanted: &Wanted) -> u64 {
    let digest = Sha256::digest(wanted.name.as_bytes());
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_names_not_rows() {
        assert_eq!(ranks(["b", "c", "a"].into_iter()), [1, 2, 0]);
    }
}
