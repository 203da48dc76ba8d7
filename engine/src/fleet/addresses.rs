//! Who has which address on the provisioning network: found without looking at all hosts.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use vmetal_model::Host;

/// Addresses that are held, declared, or promised.
#[derive(Default)]
pub(super) struct Addresses {
    /// How many hosts hold or declare each.
    held: HashMap<Ipv4Addr, u32>,
    /// Chosen for a host, not committed yet.
    promised: HashSet<Ipv4Addr>,
    /// Below this none of the range was free when it was last looked for. Goes back when one becomes free.
    next: u32,
    /// Addresses looked at so far, for tests that guard against looking at all of them each time.
    pub(super) looked_at: u64,
}

fn of(host: &Host) -> impl Iterator<Item = Ipv4Addr> {
    let (held, declared) = (host.status.address, host.spec.address);
    held.into_iter().chain(declared.filter(|declared| Some(*declared) != held))
}

impl Addresses {
    /// Takes in that a host was `before` and is `now`.
    pub(super) fn note(&mut self, before: Option<&Host>, now: Option<&Host>) {
        for address in now.into_iter().flat_map(of) {
            *self.held.entry(address).or_default() += 1;
        }
        for address in before.into_iter().flat_map(of) {
            if let Some(count) = self.held.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&address);
                    self.next = self.next.min(address.into());
                }
            }
        }
    }

    /// The lowest address from `first` to `last` that nobody has, and that is not among `taken`; promised until it is
    /// [released](Self::release).
    pub(super) fn promise(&mut self, first: Ipv4Addr, last: Ipv4Addr, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let start = self.next.max(first.into());
        let mut looked_at = 0;
        let mut free = (start..=last.into()).map(Ipv4Addr::from).inspect(|_| looked_at += 1);
        let lowest = free.find(|address| !self.held.contains_key(address) && !self.promised.contains(address));
        let chosen = match lowest {
            Some(address) if taken.contains(&address) => free.find(|address| {
                !self.held.contains_key(address) && !self.promised.contains(address) && !taken.contains(address)
            }),
            lowest => lowest,
        };
        drop(free);
        self.looked_at += looked_at;
        self.next = lowest.map_or(u32::from(last).saturating_add(1), u32::from);
        self.promised.extend(chosen);
        chosen
    }

    /// The promise is kept by now, or will not be.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        if self.promised.remove(&address) && !self.held.contains_key(&address) {
            self.next = self.next.min(address.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn the_lowest_free_address_is_promised_once_and_comes_back() {
        let mut addresses = Addresses::default();
        let mut promise = |taken: &[Ipv4Addr]| addresses.promise(at(1), at(4), taken);
        assert_eq!((promise(&[]), promise(&[])), (Some(at(1)), Some(at(2))));
        assert_eq!(promise(&[at(3)]), Some(at(4)), "what the store knows to be taken is passed over");
        assert_eq!((promise(&[]), promise(&[])), (Some(at(3)), None));
        addresses.release(at(2));
        assert_eq!(addresses.promise(at(1), at(4), &[]), Some(at(2)));
        addresses.release(at(2));
        addresses.release(at(1));
        assert_eq!(addresses.promise(at(2), at(4), &[]), Some(at(2)), "never below the range");
    }

    #[test]
    fn a_fleet_of_addresses_costs_one_look_each() {
        let mut addresses = Addresses::default();
        let (first, last) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 255, 254));
        for _ in 0..10_000 {
            assert!(addresses.promise(first, last, &[]).is_some());
        }
        assert!(addresses.looked_at <= 20_000, "{} addresses were looked at for 10,000", addresses.looked_at);
    }
}
