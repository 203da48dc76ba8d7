//! From words to columns: what a policy is given, and the digest of it.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use vmetal_model::{Operator, Requirement};
use vmetal_policy_sdk as sdk;

use crate::error::PolicyError;
use crate::feasibility::Rejection;
use crate::input::{self, HostRow, Offer, Wanted};

/// Strings as numbers, in the order in which they were first met. Zero is the empty string.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    numbers: HashMap<String, sdk::Sym>,
    texts: Vec<String>,
}

impl Symbols {
    fn sym(&mut self, text: &str) -> sdk::Sym {
        if text.is_empty() {
            return 0;
        }
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        self.texts.push(text.to_owned());
        // Bounded: every string of an input that fits in memory is counted at most once.
        let number = sdk::Sym::try_from(self.texts.len()).unwrap_or(sdk::Sym::MAX);
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// The number of a string, or zero when no row has it.
    pub(crate) fn find(&self, text: &str) -> sdk::Sym {
        self.numbers.get(text).copied().unwrap_or(0)
    }

    /// The string of a number.
    pub(crate) fn text(&self, sym: sdk::Sym) -> &str {
        let index = (sym as usize).checked_sub(1);
        index.and_then(|index| self.texts.get(index)).map_or("", String::as_str)
    }
}

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

/// Candidates that share a name order: `ranks(names)[row]` is the position of the row's name among all names.
fn ranks<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let mut order: Vec<(&str, usize)> = names.zip(0..).collect();
    order.sort_unstable();
    let mut ranks = vec![0; order.len()];
    for (rank, (_, row)) in (0u32..).zip(order) {
        ranks[row] = rank;
    }
    ranks
}

fn rows(candidates: usize) -> Result<u32, PolicyError> {
    u32::try_from(candidates).map_err(|_| PolicyError::TooMany { candidates })
}

fn gate(rejections: &[Rejection]) -> u32 {
    rejections.first().map_or(sdk::gate::OPEN, Rejection::code)
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
    for offer in offers {
        table.name.push(symbols.sym(&offer.name));
        table.cpu_milli.push(input::cpu_milli(&offer.resources));
        table.memory_bytes.push(input::memory_bytes(&offer.resources));
        let explicit = u128::from(offer.explicit_cost.unwrap_or(0)) * 1_000_000;
        table.explicit_cost.push(i64::try_from(explicit).unwrap_or(i64::MAX));
        table.total.push(offer.total);
        table.free.push(offer.free);
        for (name, amount) in input::others(&offer.resources) {
            table.resource_name.push(symbols.sym(name));
            table.resource_milli.push(input::milli(amount));
        }
        table.resource_at.push(rows(table.resource_name.len())?);
    }
    let mut digest = Columns::new("offers", wanted, &claim, &symbols, now);
    digest.u32s(&table.name).u32s(&table.rank).u32s(&table.gate).u64s(&table.cpu_milli).u64s(&table.memory_bytes);
    digest.i64s(&table.explicit_cost).u32s(&table.total).u32s(&table.free);
    digest.u32s(&table.resource_at).u32s(&table.resource_name).u64s(&table.resource_milli);
    let digest = digest.finish();
    Ok(Snapshot { symbols, claim, table, now, seed: seed(wanted), digest })
}

/// The columns of hosts.
pub(crate) fn hosts(
    wanted: &Wanted,
    hosts: &[HostRow],
    rejections: &[Vec<Rejection>],
    levels: &[String],
    now: u64,
) -> Result<Snapshot<sdk::Hosts>, PolicyError> {
    let mut symbols = Symbols::default();
    let claim = claim(wanted, &mut symbols);
    let mut table = sdk::Hosts {
        n: rows(hosts.len())?,
        rank: ranks(hosts.iter().map(|host| host.name.as_str())),
        gate: rejections.iter().map(|found| gate(found)).collect(),
        // Not recorded by the model yet: zero means not known.
        last_tenant: vec![0; hosts.len()],
        provisions: vec![0; hosts.len()],
        levels: levels.iter().map(|level| symbols.sym(level)).collect(),
        label_at: vec![0],
        ..sdk::Hosts::default()
    };
    for host in hosts {
        table.name.push(symbols.sym(&host.name));
        let hardware = host.hardware.clone().unwrap_or_default();
        table.cpu_milli.push(u64::from(hardware.threads) * 1000);
        table.memory_bytes.push(hardware.memory_bytes);
        table.gpus.push(hardware.accelerators.values().sum());
        table.gpu_model.push(symbols.sym(hardware.gpu_model.as_deref().unwrap_or_default()));
        table.last_release.push(host.last_release);
        table.domains.extend(levels.iter().map(|level| symbols.sym(host.labels.get(level).map_or("", String::as_str))));
        for (key, value) in &host.labels {
            table.label_key.push(symbols.sym(key));
            table.label_value.push(symbols.sym(value));
        }
        table.label_at.push(rows(table.label_key.len())?);
    }
    let mut digest = Columns::new("hosts", wanted, &claim, &symbols, now);
    digest.u32s(&table.name).u32s(&table.rank).u32s(&table.gate).u64s(&table.cpu_milli).u64s(&table.memory_bytes);
    digest.u32s(&table.gpus).u32s(&table.gpu_model).u32s(&table.last_tenant).u64s(&table.last_release);
    digest.u32s(&table.provisions).u32s(&table.levels).u32s(&table.domains);
    digest.u32s(&table.label_at).u32s(&table.label_key).u32s(&table.label_value);
    let digest = digest.finish();
    Ok(Snapshot { symbols, claim, table, now, seed: seed(wanted), digest })
}

/// The same for the same claim, whenever it is decided.
fn seed(wanted: &Wanted) -> u64 {
    let digest = Sha256::digest(wanted.name.as_bytes());
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// Hashes columns, each with its length before it, so that no two inputs share a digest by running together.
struct Columns(Sha256);

impl Columns {
    fn new(table: &str, wanted: &Wanted, claim: &sdk::Claim, symbols: &Symbols, now: u64) -> Self {
        let mut columns = Columns(Sha256::new());
        columns.text("vmetal policy input").text(vmetal_policy_sdk::WIT_VERSION).text(table);
        columns.u64s(&[now, seed(wanted), u64::from(claim.count), claim.cpu_milli, claim.memory_bytes]);
        columns.u32s(&[claim.id, claim.tenant_cluster]);
        columns.u32s(&claim.resources.iter().map(|amount| amount.resource).collect::<Vec<_>>());
        columns.u64s(&claim.resources.iter().map(|amount| amount.milli).collect::<Vec<_>>());
        for requirement in &claim.requirements {
            columns.u32s(&[requirement.key, requirement.operator as u32]).u32s(&requirement.values);
            columns.i64s(&[requirement.number]);
        }
        columns.u64s(&[symbols.texts.len() as u64]);
        for text in &symbols.texts {
            columns.text(text);
        }
        columns
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.length(text.len());
        self.0.update(text);
        self
    }

    fn length(&mut self, length: usize) {
        self.0.update((length as u64).to_le_bytes());
    }

    fn u32s(&mut self, column: &[u32]) -> &mut Self {
        self.length(column.len());
        column.iter().for_each(|cell| self.0.update(cell.to_le_bytes()));
        self
    }

    fn u64s(&mut self, column: &[u64]) -> &mut Self {
        self.length(column.len());
        column.iter().for_each(|cell| self.0.update(cell.to_le_bytes()));
        self
    }

    fn i64s(&mut self, column: &[i64]) -> &mut Self {
        self.length(column.len());
        column.iter().for_each(|cell| self.0.update(cell.to_le_bytes()));
        self
    }

    fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_equal_exactly_when_their_strings_are() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.sym("a"), symbols.sym("b"));
        assert_eq!((symbols.sym("a"), symbols.sym(""), symbols.find("c")), (a, 0, 0));
        assert_ne!(a, b);
        assert_eq!((symbols.text(b), symbols.text(0), symbols.text(99)), ("b", "", ""));
    }

    #[test]
    fn ranks_follow_names_not_rows() {
        assert_eq!(ranks(["b", "c", "a"].into_iter()), [1, 2, 0]);
    }
}
