//! Who has which address: found without looking at all of them.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

use crate::pool::Pool;

/// Addresses of one network that are held, or promised.
#[derive(Debug, Default)]
pub struct Addresses {
    /// How many hold each.
    held: BTreeMap<Ipv4Addr, u32>,
    /// Chosen for somebody, not committed yet.
    promised: HashSet<Ipv4Addr>,
    /// Below this none of the pool was free when it was last looked for. Goes back when one becomes free.
    next: u32,
    /// Addresses looked at so far, for tests that guard against looking at all of them each time.
    looked_at: u64,
}

impl Addresses {
    /// Somebody has an address.
    pub fn hold(&mut self, address: Ipv4Addr) {
        *self.held.entry(address).or_default() += 1;
    }

    /// Somebody has an address no longer.
    pub fn let_go(&mut self, address: Ipv4Addr) {
        if let Some(count) = self.held.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&address);
                self.next = self.next.min(address.into());
            }
        }
    }

    /// The lowest address of the pool that nobody has, and that is not among `taken`; promised until it is
    /// [released](Self::release).
    pub fn promise(&mut self, pool: &Pool, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let mut looked_at = 0;
        let mut free = pool
            .from(Ipv4Addr::from(self.next))
            .inspect(|_| looked_at += 1)
            .filter(|address| !self.held.contains_key(address) && !self.promised.contains(address));
        let lowest = free.next();
        let chosen = match lowest {
            Some(address) if taken.contains(&address) => free.find(|address| !taken.contains(address)),
            lowest => lowest,
        };
        drop(free);
        self.looked_at += looked_at;
        // Where none is left, none is until one is given back, or the pool becomes another.
        self.next = lowest.map_or(u32::MAX, u32::from);
        self.promised.extend(chosen);
        chosen
    }

    /// The promise is kept by now, or will not be.
    pub fn release(&mut self, address: Ipv4Addr) {
        if self.promised.remove(&address) && !self.held.contains_key(&address) {
            self.next = self.next.min(address.into());
        }
    }

    /// The pool is another one: what was full may not be any more.
    pub fn pool_changed(&mut self) {
        self.next = 0;
    }

    /// The addresses that are held, in order.
    pub fn held(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.held.keys().copied()
    }

    /// Whether nothing is held or promised.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.promised.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn between(first: u8, last: u8) -> Pool {
        Pool::between(at(first), at(last))
    }

    #[test]
    fn the_lowest_free_address_is_promised_once_and_comes_back() {
        let mut addresses = Addresses::default();
        let mut promise = |taken: &[Ipv4Addr]| addresses.promise(&between(1, 4), taken);
        assert_eq!((promise(&[]), promise(&[])), (Some(at(1)), Some(at(2))));
        assert_eq!(promise(&[at(3)]), Some(at(4)), "what the store knows to be taken is passed over");
        assert_eq!((promise(&[]), promise(&[])), (Some(at(3)), None));
        addresses.release(at(2));
        assert_eq!(addresses.promise(&between(1, 4), &[]), Some(at(2)));
        addresses.release(at(2));
        addresses.release(at(1));
        assert_eq!(addresses.promise(&between(2, 4), &[]), Some(at(2)), "never below the range");
    }

    #[test]
    fn a_fleet_of_addresses_costs_one_look_each() {
        let mut addresses = Addresses::default();
        let pool = Pool::between(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 255, 254));
        for _ in 0..10_000 {
            assert!(addresses.promise(&pool, &[]).is_some());
        }
        assert!(addresses.looked_at <= 20_000, "{} addresses were looked at for 10,000", addresses.looked_at);
    }

    /// Whatever happens in whatever order: nobody is promised what somebody has, and as long as one is free one is found.
    #[test]
    fn no_address_is_given_twice_and_none_is_lost() {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let mut pool = between(1, 12);
        let mut addresses = Addresses::default();
        // How often each is held, and what is promised, by the plainest means.
        let (mut held, mut promised) = (BTreeMap::<Ipv4Addr, u32>::new(), Vec::<Ipv4Addr>::new());
        for step in 0..20_000 {
            let told = format!("seed {seed}, step {step}");
            match random.random_range(0..6) {
                0 | 1 => {
                    let free = |address: &Ipv4Addr| !held.contains_key(address) && !promised.contains(address);
                    let expected = pool.from(Ipv4Addr::UNSPECIFIED).find(free);
                    assert_eq!(addresses.promise(&pool, &[]), expected, "{told}");
                    promised.extend(expected);
                }
                2 if !promised.is_empty() => {
                    // Kept or broken.
                    let address = promised.swap_remove(random.random_range(0..promised.len()));
                    if random.random_bool(0.7) {
                        addresses.hold(address);
                        *held.entry(address).or_default() += 1;
                    }
                    addresses.release(address);
                }
                3 => {
                    // News of another engine's, also of what this one has promised.
                    let address = at(random.random_range(0..16));
                    addresses.hold(address);
                    *held.entry(address).or_default() += 1;
                }
                4 if !held.is_empty() => {
                    let address = *held.keys().nth(random.random_range(0..held.len())).unwrap();
                    addresses.let_go(address);
                    let count = held.get_mut(&address).unwrap();
                    *count -= 1;
                    held.retain(|_, count| *count > 0);
                }
                5 if random.random_bool(0.1) => {
                    let first = random.random_range(0..10);
                    pool = between(first, first + random.random_range(0..6));
                    addresses.pool_changed();
                }
                _ => {}
            }
            assert!(addresses.held().eq(held.keys().copied()), "{told}");
            assert_eq!(addresses.is_empty(), held.is_empty() && promised.is_empty(), "{told}");
        }
    }
}
