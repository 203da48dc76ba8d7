//! The addresses that a network has for nodes.

use std::net::Ipv4Addr;

use vmetal_model::{AddressRange, NetworkSpec};

/// Addresses that hosts may be given: ranges that have no address in common, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    ranges: Vec<AddressRange>,
}

impl Pool {
    /// The addresses of a network: its ranges, or all that its block has for interfaces, without the gateway and what is
    /// reserved.
    pub fn of(spec: &NetworkSpec) -> Self {
        let hosts = spec.cidr.hosts();
        let mut ranges = if spec.ranges.is_empty() { vec![hosts] } else { spec.ranges.clone() };
        // Declarations are checked before they get here; an address outside of the block would still be of no use.
        ranges = ranges.into_iter().filter_map(|range| common(range, hosts)).collect();
        let gateway = spec.gateway.and_then(|gateway| AddressRange::new(gateway, gateway));
        for taken in spec.reserved.iter().copied().chain(gateway) {
            ranges = ranges.into_iter().flat_map(|range| without(range, taken)).collect();
        }
        ranges.sort();
        Pool { ranges }
    }

    /// One range; empty where the last address comes before the first.
    pub fn between(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        Pool { ranges: AddressRange::new(first, last).into_iter().collect() }
    }

    /// How many addresses there are.
    pub fn size(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(u32::from(range.last()) - u32::from(range.first())) + 1).sum()
    }

    /// Whether an address is one of them.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// The lowest part of a range that is in the pool.
    pub fn common_with(&self, range: AddressRange) -> Option<AddressRange> {
        self.ranges.iter().find_map(|own| common(*own, range))
    }

    /// The addresses in order, from one on.
    pub fn from(&self, least: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
        let rest = self.ranges.iter().filter(move |range| range.last() >= least);
        rest.flat_map(move |range| u32::from(range.first().max(least))..=u32::from(range.last())).map(Ipv4Addr::from)
    }
}

/// What two ranges share.
fn common(a: AddressRange, b: AddressRange) -> Option<AddressRange> {
    AddressRange::new(a.first().max(b.first()), a.last().min(b.last()))
}

/// What is left of a range, before and after what is taken out of it.
fn without(range: AddressRange, taken: AddressRange) -> impl Iterator<Item = AddressRange> {
    let before = u32::from(taken.first()).checked_sub(1).map(Ipv4Addr::from);
    let after = u32::from(taken.last()).checked_add(1).map(Ipv4Addr::from);
    let before = before.and_then(|last| AddressRange::new(range.first(), last.min(range.last())));
    let after = after.and_then(|first| AddressRange::new(first.max(range.first()), range.last()));
    before.into_iter().chain(after)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn spec(cidr: &str) -> NetworkSpec {
        NetworkSpec {
            cidr: cidr.parse().unwrap(),
            ranges: Vec::new(),
            reserved: Vec::new(),
            gateway: None,
            nameservers: Vec::new(),
            search_domains: Vec::new(),
            vlan: None,
            mtu: None,
        }
    }

    fn ranges(texts: &[&str]) -> Vec<AddressRange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_block_has_neither_its_own_address_nor_the_broadcast_address_nor_the_gateway() {
        let mut network = spec("10.20.0.0/29");
        assert_eq!(Pool::of(&network).ranges, ranges(&["10.20.0.1-10.20.0.6"]));
        network.gateway = Some(Ipv4Addr::new(10, 20, 0, 1));
        network.reserved = ranges(&["10.20.0.3-10.20.0.4", "10.20.0.4", "10.20.0.6-10.20.0.7"]);
        let pool = Pool::of(&network);
        assert_eq!((&pool.ranges, pool.size()), (&ranges(&["10.20.0.2", "10.20.0.5"]), 2));
        network.reserved = ranges(&["10.20.0.0-10.20.0.7"]);
        assert_eq!(Pool::of(&network).size(), 0);
        assert_eq!(Pool::of(&spec("10.0.0.4/31")).size(), 2);
        assert_eq!(Pool::of(&spec("10.0.0.4/32")).size(), 1);
    }

    #[test]
    fn the_ends_of_the_address_space_are_no_trouble() {
        let all = Pool::between(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        assert_eq!(all.size(), 1 << 32);
        assert_eq!(all.from(Ipv4Addr::BROADCAST).count(), 1);
        let ends = "0.0.0.0-255.255.255.255".parse().unwrap();
        assert_eq!(without(all.ranges[0], ends).count(), 0);
        assert_eq!(Pool::between(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1)).size(), 0);
    }

    /// Against the same said address by address.
    #[test]
    fn a_pool_is_what_its_declaration_says_address_by_address() {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..500 {
            let mut network = spec(["10.20.0.0/26", "10.20.0.0/24"][round % 2]);
            let address =
                |random: &mut StdRng| Ipv4Addr::from(u32::from(network.cidr.first()) + random.random_range(0..300));
            let some = |random: &mut StdRng| {
                let count = random.random_range(0..5);
                let range = |(a, b): (Ipv4Addr, Ipv4Addr)| AddressRange::new(a.min(b), a.max(b)).unwrap();
                (0..count).map(|_| range((address(random), address(random)))).collect::<Vec<_>>()
            };
            let mut wanted = some(&mut random);
            let reserved = some(&mut random);
            let gateway = random.random_bool(0.5).then(|| address(&mut random));
            // Validation lets no two overlap.
            let mut kept: Vec<AddressRange> = Vec::new();
            for range in wanted.drain(..) {
                if kept.iter().all(|other| !other.overlaps(range)) {
                    kept.push(range);
                }
            }
            (network.ranges, network.reserved, network.gateway) = (kept, reserved, gateway);
            let pool = Pool::of(&network);
            let is_in = |address: Ipv4Addr| {
                let within = network.ranges.is_empty() || network.ranges.iter().any(|range| range.contains(address));
                let reserved = network.reserved.iter().any(|range| range.contains(address));
                network.cidr.hosts().contains(address) && within && !reserved && network.gateway != Some(address)
            };
            let base = u32::from(network.cidr.first()) - 5;
            let expected: BTreeSet<Ipv4Addr> = (base..base + 320).map(Ipv4Addr::from).filter(|a| is_in(*a)).collect();
            let told = format!("seed {seed}, round {round}: {network:?}");
            assert!(pool.from(Ipv4Addr::UNSPECIFIED).eq(expected.iter().copied()), "{told}");
            assert_eq!(pool.size(), expected.len() as u64, "{told}");
            let from = address(&mut random);
            assert!(pool.from(from).eq(expected.range(from..).copied()), "{told}, from {from}");
            assert!(
                (base..base + 320).map(Ipv4Addr::from).all(|a| pool.contains(a) == expected.contains(&a)),
                "{told}"
            );
        }
    }
}
