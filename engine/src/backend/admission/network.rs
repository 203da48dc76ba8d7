//! Networks: what only the engine can know of them, the other networks and who has which address.

use std::net::Ipv4Addr;
use std::sync::Arc;

use vmetal_api::BackendError;
use vmetal_api::types::Secrets;
use vmetal_lifecycle::Note;
use vmetal_model::{AddressRange, FieldError, Kind, Network, NetworkSpec};
use vmetal_network::Pool;
use vmetal_store::Key;

use super::{Rules, in_use, secrets_of, users};
use crate::config;
use crate::engine::Engine;
use crate::fleet::Fleet;

/// How many addresses, or holders of them, are named one by one.
const NAMED: usize = 5;

impl Rules for Network {
    fn admit(&self, engine: &Engine, current: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError> {
        secrets_of(secrets, &[], None)?;
        let pool = Pool::of(&self.spec);
        let others = engine.fleet.networks();
        let others = others.iter().filter(|other| other.name() != self.name());
        let mut errors: Vec<FieldError> = others.filter_map(|other| overlap(&self.spec, other)).collect();
        errors.extend(provisioning(&pool, &self.spec, &engine.config.network));
        if pool.size() == 0 {
            let message = "leaves no address for nodes; expected at least one";
            errors.push(FieldError::new(narrowed_by(&self.spec), message));
        }
        if current.is_some() {
            errors.extend(stranded(self, &pool, engine));
        }
        if errors.is_empty() { Ok(()) } else { Err(BackendError::Invalid { errors }) }
    }

    /// What nodes were installed with stays on them: somebody is told.
    fn settle(&mut self, engine: &Engine, current: Option<&Self>, _: &Secrets) -> Vec<Note> {
        let used = engine.fleet.leased(self.name()).len();
        let given = |spec: &NetworkSpec| NetworkSpec { ranges: Vec::new(), reserved: Vec::new(), ..spec.clone() };
        let changed = current.is_some_and(|current| given(&current.spec) != given(&self.spec));
        let told = || {
            let message = format!(
                "{used} hosts keep what they were installed with; the next claim on each has what is declared now"
            );
            Note::warning("kept", message)
        };
        (changed && used > 0).then(told).into_iter().collect()
    }

    /// Networks are judged against each other, and by what hosts have.
    fn turnstile() -> Option<Key> {
        Some(Key::new("networks", "declared"))
    }

    fn may_go(&self, engine: &Engine) -> Result<(), BackendError> {
        let name = self.name();
        let named = |network: &Option<String>| network.as_deref() == Some(name);
        let types = engine.fleet.node_types();
        let types = types.iter().filter(|one| named(&one.spec.network)).map(|one| one.name().to_owned());
        in_use(Kind::Network, name, types.collect(), "node types", "change or delete those first")?;
        let clusters = engine.clusters();
        let clusters = clusters.iter().filter(|one| named(&one.spec.network)).map(|one| one.name().to_owned());
        in_use(Kind::Network, name, clusters.collect(), "tenant clusters", "change or delete those first")?;
        let nodes = users(engine, |node| named(&node.spec.network));
        in_use(Kind::Network, name, nodes, "tenant nodes", "delete those first")?;
        let held = holders(&engine.fleet, name).map(|(host, address)| format!("{host} ({address})")).collect();
        in_use(
            Kind::Network,
            name,
            held,
            "hosts",
            "delete the tenant nodes that hold those first, and wait until the hosts are erased",
        )
    }

    fn secret_name(&self, field: &str) -> String {
        format!("network/{}/{field}", self.metadata.uid)
    }

    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
        fleet.network(name)
    }
}

/// The field that says which addresses there are.
fn narrowed_by(spec: &NetworkSpec) -> &'static str {
    match (spec.reserved.is_empty(), spec.ranges.is_empty()) {
        (false, _) => "spec.reserved",
        (true, false) => "spec.ranges",
        (true, true) => "spec.cidr",
    }
}

/// Hosts that have addresses of a network.
fn holders(fleet: &Fleet, network: &str) -> impl Iterator<Item = (String, Ipv4Addr)> {
    fleet.hosts().into_iter().flat_map(move |host| {
        let of_it = host.status.leases().filter(|lease| lease.network == network);
        of_it.map(|lease| (host.name().to_owned(), lease.address)).collect::<Vec<_>>()
    })
}

/// Two networks with the same addresses could not be told apart by what routes between them.
fn overlap(spec: &NetworkSpec, other: &Network) -> Option<FieldError> {
    let theirs = other.spec.cidr;
    let message = || {
        format!(
            "{} overlaps network {}, which is {theirs}; expected addresses that no other network has (to have more of that one, \
             add to its ranges)",
            spec.cidr,
            other.name()
        )
    };
    spec.cidr.overlaps(theirs).then(|| FieldError::new("spec.cidr", message()))
}

/// The provisioning network gives its addresses to the same hosts, by itself.
fn provisioning(pool: &Pool, spec: &NetworkSpec, network: &config::Network) -> Vec<FieldError> {
    let path = if spec.ranges.is_empty() { "spec.cidr" } else { "spec.ranges" };
    let dynamic = AddressRange::new(network.range_start, network.range_end);
    let dynamic = dynamic.and_then(|range| Some((range, pool.common_with(range)?))).map(|(range, common)| {
        format!(
            "{common} is given out on the provisioning network, which has {range}; expected ranges or reserved addresses that \
             leave it out"
        )
    });
    let engine = network.address().filter(|address| pool.contains(*address));
    let engine = engine.map(|address| {
        format!("{address} is the engine's own on the provisioning network; expected it among the reserved addresses")
    });
    dynamic.into_iter().chain(engine).map(|message| FieldError::new(path, message)).collect()
}

/// Addresses that hosts have must stay among those that nodes may have.
fn stranded(network: &Network, pool: &Pool, engine: &Engine) -> Option<FieldError> {
    let spec = &network.spec;
    let lost: Vec<(String, Ipv4Addr)> =
        holders(&engine.fleet, network.name()).filter(|(_, address)| !pool.contains(*address)).collect();
    let first = lost.first()?.1;
    let path = if !spec.cidr.contains(first) {
        "spec.cidr"
    } else if spec.gateway == Some(first) {
        "spec.gateway"
    } else if spec.reserved.iter().any(|range| range.contains(first)) {
        "spec.reserved"
    } else {
        "spec.ranges"
    };
    let named: Vec<_> = lost.iter().take(NAMED).map(|(host, address)| format!("{address} (host {host})")).collect();
    let more = lost.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "leaves out addresses that are in use: {}{more}; expected all of them, or delete those tenant nodes first and wait \
         until their hosts are erased",
        named.join(", ")
    );
    Some(FieldError::new(path, message))
}
