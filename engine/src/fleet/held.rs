//! Which addresses hosts have: on the provisioning network, and of the networks of their claims.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use vmetal_model::Host;
use vmetal_network::Addresses;

/// Addresses by network.
#[derive(Default)]
pub(super) struct Held {
    /// Those on the provisioning network: held or declared.
    pub(super) provisioning: Addresses,
    /// Those of the networks that claims are given addresses of, by the network's name.
    pub(super) networks: BTreeMap<String, Addresses>,
}

fn on_provisioning(host: &Host) -> impl Iterator<Item = Ipv4Addr> {
    let (held, declared) = (host.status.address, host.spec.address);
    held.into_iter().chain(declared.filter(|declared| Some(*declared) != held))
}

impl Held {
    /// Takes in that a host was `before` and is `now`.
    pub(super) fn note(&mut self, before: Option<&Host>, now: Option<&Host>) {
        now.into_iter().flat_map(on_provisioning).for_each(|address| self.provisioning.hold(address));
        before.into_iter().flat_map(on_provisioning).for_each(|address| self.provisioning.let_go(address));
        for lease in now.into_iter().flat_map(|host| host.status.leases()) {
            self.of(&lease.network).hold(lease.address);
        }
        for lease in before.into_iter().flat_map(|host| host.status.leases()) {
            self.of(&lease.network).let_go(lease.address);
            self.tidy(&lease.network);
        }
    }

    /// The addresses of one network.
    pub(super) fn of(&mut self, network: &str) -> &mut Addresses {
        self.networks.entry(network.to_owned()).or_default()
    }

    /// A network was declared: what was full may not be any more.
    pub(super) fn declared(&mut self, network: &str) {
        if let Some(addresses) = self.networks.get_mut(network) {
            addresses.pool_changed();
        }
    }

    /// A promise is kept by now, or will not be.
    pub(super) fn release(&mut self, network: Option<&str>, address: Ipv4Addr) {
        match network {
            None => self.provisioning.release(address),
            Some(network) => {
                self.of(network).release(address);
                self.tidy(network);
            }
        }
    }

    /// Nothing is kept of networks that nobody has an address of.
    fn tidy(&mut self, network: &str) {
        if self.networks.get(network).is_some_and(Addresses::is_empty) {
            self.networks.remove(network);
        }
    }
}
