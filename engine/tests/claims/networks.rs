//! Addresses of networks through one and two engines: one for each claim, whoever decides at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vmetal_api::{Apply, Backend as _, BackendError, EventsQuery};
use vmetal_lifecycle::grant::settle;
use vmetal_model::agent::EraseLevel;
use vmetal_model::{
    Cause, EraseRecord, Hold, Host, Kind, Lack, Lease, Network, TenantNode, TenantNodePhase, TenantNodeSpec, Timestamp,
};
use vmetal_store::{AnyStore, CommitError, StoreClock};
use vmetald::ledger::Batch;
use vmetald::ownership::Author;

use super::{consistent, member, spec, stores};
use crate::world::{self, World};

const FULL: &str = "no node type fits; t: 0 of 5 addresses left in network tenants";

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, last)
}

/// Addresses from 10.20.0.10 to a last one.
fn tenants(last: u8) -> serde_json::Value {
    serde_json::json!({ "cidr": "10.20.0.0/24", "ranges": [format!("10.20.0.10-10.20.0.{last}")], "gateway": "10.20.0.1" })
}

async fn declare(world: &World, kind: Kind, name: &str, spec: serde_json::Value) -> Result<(), BackendError> {
    world.backend(0).apply(&world::caller(), Apply::from_json(kind, name, spec)).await.map(drop)
}

/// A network with five addresses, which the node type names.
async fn network(world: &World) {
    declare(world, Kind::Network, "tenants", tenants(14)).await.unwrap();
    name_it(world, Some("tenants")).await;
}

/// Has the node type name a network, or none. As it was made: its hosts have nothing that a declaration could offer.
async fn name_it(world: &World, network: Option<&str>) {
    loop {
        let Some(vmetald::fleet::Entry::NodeType(found)) = world.entry(Kind::NodeType, "t") else { panic!("no type") };
        let mut node_type = (*found).clone();
        node_type.spec.network = network.map(str::to_owned);
        node_type.metadata.generation += 1;
        let mut batch = Batch::by(Author::Outside);
        batch.replace(node_type);
        match world.ledger().commit(batch).await {
            Ok(_) => return,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn reason(node: &TenantNode) -> String {
    node.status.decision.as_ref().map(|decision| decision.reason.clone()).unwrap_or_default()
}

async fn all_told(world: &World, why: &str) {
    let told = |node: &TenantNode| node.status.host.is_some() || reason(node) == why;
    world.until(why, |world| world.nodes().iter().all(told)).await;
}

/// Which claim has which address: each its own, and its host the same.
fn leased(world: &World) -> BTreeMap<String, Ipv4Addr> {
    let mut seen = BTreeSet::new();
    let lease = |node: TenantNode| {
        let host = world.host(node.status.host.as_ref().unwrap()).unwrap();
        assert_eq!(host.status.claim.as_ref().unwrap().lease, node.status.lease, "{}", node.name());
        let address = node.status.lease.unwrap().address;
        assert!(seen.insert(address), "{address} is given twice");
        (node.metadata.name, address)
    };
    consistent(world).into_iter().map(lease).collect()
}

fn counted(world: &World) -> (u64, u64) {
    let entry = world.entry(Kind::Network, "tenants");
    let Some(vmetald::fleet::Entry::Network(network)) = entry else { return (0, 0) };
    (network.status.addresses, network.status.used)
}

/// Keeps the engine from acting on a host: there is none behind it.
fn pause(host: &mut Host) {
    let (reason, by) = ("no server".to_owned(), "test".to_owned());
    host.status.pause = Some(Hold { reason, by, since: Timestamp::UNIX_EPOCH, until: None });
}

/// Says of a host that what its claim left there is erased, as an installer does.
fn erased(host: &mut Host) {
    let Some(claim) = &host.status.claim else { return };
    let record = EraseRecord {
        claim_uid: claim.uid.clone(),
        level: EraseLevel::default(),
        disks: Vec::new(),
        at: Timestamp::UNIX_EPOCH,
    };
    settle(&mut host.status, record);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_claims_that_come_at_once_as_many_win_as_there_are_addresses_and_no_two_have_the_same() {
    let directory = tempfile::tempdir().unwrap();
    for engines in [1, 2] {
        let directory = directory.path().join(engines.to_string());
        std::fs::create_dir(&directory).unwrap();
        for (name, store) in stores(&directory) {
            let world = World::start(store, engines).await;
            world.shared().await;
            network(&world).await;
            world.hosts_of(20, |_| "r1".into()).await;
            let applies = (0..30).map(|n| {
                let backend = world.backend(n);
                async move { world::apply(&backend, &format!("n{n:02}"), &spec()).await.unwrap() }
            });
            futures::future::join_all(applies).await;
            all_told(&world, FULL).await;
            let told = format!("{engines} engines on {name}");
            let first = leased(&world);
            assert_eq!(first.values().copied().collect::<BTreeSet<_>>(), (10..15).map(address).collect(), "{told}");
            world.until("the addresses to be counted", |world| counted(world) == (5, 5)).await;
            let waiting = world.nodes().into_iter().find(|node| node.status.host.is_none()).unwrap();
            assert_eq!(waiting.status.phase, TenantNodePhase::Pending, "{told}");
            assert_eq!(waiting.status.failure.as_ref().unwrap().cause, Cause::NoCandidate, "{told}");
            let candidate = &waiting.status.decision.as_ref().unwrap().node_types[0];
            assert_eq!((candidate.feasible, candidate.lacks), (false, Some(Lack::Address)), "{told}");

            // The network gets more: those who wait hear of it.
            declare(&world, Kind::Network, "tenants", tenants(16)).await.unwrap();
            world.until("two more to be placed", |world| world.placed() == 7).await;
            all_told(&world, &FULL.replace("of 5", "of 7")).await;
            let now = leased(&world);
            assert!(first.iter().all(|(node, address)| now[node] == *address), "{told}: {first:?}, then {now:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_held_until_its_host_is_erased_and_through_restarts() {
    let mut world = World::prepare(AnyStore::memory(StoreClock::system()), 1).await;
    network(&world).await;
    world.hosts_of(9, |_| "r1".into()).await;
    for n in 0..6 {
        world.declare(&format!("n{n}"), n, spec()).await;
    }
    world.run();
    all_told(&world, FULL).await;
    let before = leased(&world);
    assert_eq!(before["n0"], address(10), "the oldest claim comes first, and the lowest address");

    // An engine that begins on the same store knows who has what.
    let again = world.again().await;
    assert_eq!(again.fleet.leased("tenants"), (10..15).map(address).collect::<Vec<_>>());
    drop(again);

    // Given back, and the host not erased yet: the address is its host's.
    let host = world.node("n2").unwrap().status.host.unwrap();
    world.change(&host, pause).await;
    world.backend(0).delete(&world::caller(), Kind::TenantNode, "n2", None).await.unwrap();
    let leaving = |world: &World| {
        world
            .node("n2")
            .is_none_or(|node| matches!(node.status.phase, TenantNodePhase::Draining | TenantNodePhase::Released))
    };
    world.until("the claim to leave", leaving).await;
    let lease = Some(Lease { network: "tenants".into(), address: address(12) });
    assert_eq!(world.host(&host).unwrap().status.claim.unwrap().lease, lease);
    assert_eq!(reason(&world.node("n5").unwrap()), FULL, "nobody else gets it");

    world.change(&host, erased).await;
    world.until("who waited to be placed", |world| world.node("n5").unwrap().status.host.is_some()).await;
    let five = world.node("n5").unwrap().status.lease.unwrap();
    assert_eq!(five.address, address(12), "what was given back is given again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_refuses_an_address_that_a_host_has_whatever_an_engine_believes() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    network(&world).await;
    world.hosts_of(2, |_| "r1".into()).await;
    world::apply(&world.backend(0), "n", &spec()).await.unwrap();
    world.until("the claim to be placed", |world| world.placed() == 1).await;
    let placed = world.nodes()[0].status.clone();
    let mut other = world.hosts().into_iter().find(|host| host.status.claim.is_none()).unwrap();
    other.status.claim = world.host(placed.host.as_ref().unwrap()).unwrap().status.claim;
    let mut batch = Batch::by(Author::Outside);
    batch.replace(other);
    let refused = world.ledger().commit(batch).await.unwrap_err().to_string();
    assert!(refused.contains("network address") && refused.contains("10.20.0.10"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_specific_network_counts_and_a_claim_for_none_gets_no_address() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    network(&world).await;
    declare(&world, Kind::Network, "own", serde_json::json!({ "cidr": "10.30.0.0/30" })).await.unwrap();
    world.hosts_of(9, |_| "r1".into()).await;
    let backend = world.backend(0);
    let own = TenantNodeSpec { network: Some("own".into()), ..spec() };
    world::apply(&backend, "by-type", &spec()).await.unwrap();
    world::apply(&backend, "own", &own).await.unwrap();
    world.until("both to be placed", |world| world.placed() == 2).await;
    let lease = |name: &str| world.node(name).unwrap().status.lease;
    let of = |network: &str, address: &str| Some(Lease { network: network.into(), address: address.parse().unwrap() });
    assert_eq!((lease("by-type"), lease("own")), (of("tenants", "10.20.0.10"), of("own", "10.30.0.1")));
    name_it(&world, None).await;
    world::apply(&backend, "none", &spec()).await.unwrap();
    world.until("the third to be placed", |world| world.placed() == 3).await;
    assert_eq!(lease("none"), None);
    // A preview counts those that it has promised, as a round does.
    let decisions = backend.preview_placement(&own, 2).await.unwrap();
    assert!(decisions[0].host.is_some() && decisions[1].host.is_none());
    assert_eq!(decisions[1].reason, "no node type fits; t: 0 of 2 addresses left in network own");
    assert_eq!(decisions[1].node_types[0].lacks, Some(Lack::Address));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_there_are_not_enough_addresses_for_gets_none() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    network(&world).await;
    world.hosts_of(9, |_| "r1".into()).await;
    let backend = world.backend(0);
    for n in 0..6 {
        world::apply(&backend, &format!("n{n}"), &member(&format!("g{}", n / 3), 3, None)).await.unwrap();
    }
    world.until("the first group to be placed", |world| world.placed() == 3).await;
    let full = "0 of 5 addresses left in network tenants";
    world
        .until("the second group to be told", |world| {
            world.nodes().iter().filter(|node| reason(node).ends_with(full)).count() == 3
        })
        .await;
    assert_eq!(leased(&world).len(), 3);
    // One alone still has room.
    world::apply(&backend, "alone", &spec()).await.unwrap();
    world.until("one alone to be placed", |world| world.placed() == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_says_what_the_network_needs() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    network(&world).await;
    world.hosts_of(7, |_| "r1".into()).await;
    for n in 0..6 {
        world::apply(&world.backend(0), &format!("n{n}"), &spec()).await.unwrap();
    }
    world.until("five to be placed", |world| world.placed() == 5).await;
    all_told(&world, FULL).await;
    let waiting = world.nodes().into_iter().find(|node| node.status.host.is_none()).unwrap();
    let explanation = world.backend(0).explain_placement(waiting.name()).await.unwrap();
    let nearest = &explanation.nearest[0];
    assert_eq!(
        nearest.steps,
        ["a host with an address of network tenants has to be given back, or the network be given more"]
    );
}

fn told(result: Result<(), BackendError>) -> Vec<String> {
    match result.unwrap_err() {
        BackendError::Invalid { errors } => errors.iter().map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_network_may_not_be_is_refused_with_its_reason() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    let declare = async |name: &str, spec: serde_json::Value| declare(&world, Kind::Network, name, spec).await;
    let cidr = |text: &str| serde_json::json!({ "cidr": text });
    declare("tenants", tenants(14)).await.unwrap();
    assert_eq!(
        told(declare("other", cidr("10.20.0.0/16")).await),
        [
            "spec.cidr: 10.20.0.0/16 overlaps network tenants, which is 10.20.0.0/24; expected addresses that no other network \
          has (to have more of that one, add to its ranges)"
        ]
    );
    assert_eq!(
        told(declare("other", cidr("172.22.0.0/24")).await),
        [
            "spec.cidr: 172.22.0.10-172.22.0.254 is given out on the provisioning network, which has 172.22.0.10-172.22.255.250; \
             expected ranges or reserved addresses that leave it out",
            "spec.cidr: 172.22.0.1 is the engine's own on the provisioning network; expected it among the reserved addresses"
        ]
    );
    let nothing = serde_json::json!({ "cidr": "10.40.0.0/30", "reserved": ["10.40.0.0-10.40.0.3"] });
    assert_eq!(
        told(declare("other", nothing).await),
        ["spec.reserved: leaves no address for nodes; expected at least one"]
    );
    let missing = TenantNodeSpec { network: Some("nowhere".into()), ..spec() };
    let refused = world::apply(&world.backend(0), "n", &missing).await.map(drop);
    assert_eq!(told(refused), ["spec.network: names the network \"nowhere\", which does not exist; apply it first"]);
    // Of many that are declared at the same time and overlap, one is let in, whichever engine is asked.
    let both = (0..8).map(|n| {
        let backend = world.backend(n);
        let apply = Apply::from_json(Kind::Network, format!("x{n}"), cidr(&format!("10.50.0.0/{}", 16 + n)));
        async move { backend.apply(&world::caller(), apply).await.is_ok() }
    });
    let let_in = futures::future::join_all(both).await.into_iter().filter(|ok| *ok).count();
    assert_eq!(let_in, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_networks_that_two_engines_are_told_of_at_once_are_not_both_let_in() {
    let directory = tempfile::tempdir().unwrap();
    for (name, store) in stores(directory.path()) {
        let world = World::start(store, 2).await;
        for round in 0..8u8 {
            let both = (0..2).map(|n| {
                let backend = world.backend(n);
                let spec = serde_json::json!({ "cidr": format!("10.{round}.0.0/{}", 16 + n) });
                let apply = Apply::from_json(Kind::Network, format!("x{round}-{n}"), spec);
                async move { backend.apply(&world::caller(), apply).await.is_ok() }
            });
            let let_in: Vec<bool> = futures::future::join_all(both).await;
            assert_eq!(let_in.iter().filter(|ok| **ok).count(), 1, "{name}, round {round}: {let_in:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_in_use_stay_in_the_network_and_the_network_stays() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    network(&world).await;
    world.hosts_of(3, |_| "r1".into()).await;
    for n in 0..2 {
        world::apply(&world.backend(0), &format!("n{n}"), &spec()).await.unwrap();
    }
    world.until("both to be placed", |world| world.placed() == 2).await;
    let by_address: BTreeMap<Ipv4Addr, String> =
        world.nodes().into_iter().map(|node| (node.status.lease.unwrap().address, node.status.host.unwrap())).collect();
    let (ten, eleven) = (&by_address[&address(10)], &by_address[&address(11)]);
    let leaves_out = |path: &str, list: String| {
        [format!(
            "{path}: leaves out addresses that are in use: {list}; expected all of them, or delete those tenant nodes first and \
             wait until their hosts are erased"
        )]
    };
    let refused = |spec: serde_json::Value| {
        let world = &world;
        async move { told(declare(world, Kind::Network, "tenants", spec).await) }
    };
    let (first, second) = (format!("10.20.0.10 (host {ten})"), format!("10.20.0.11 (host {eleven})"));
    let mut smaller = tenants(10);
    assert_eq!(refused(smaller.clone()).await, leaves_out("spec.ranges", second.clone()));
    smaller["ranges"] = serde_json::json!([]);
    smaller["reserved"] = serde_json::json!(["10.20.0.2-10.20.0.10"]);
    assert_eq!(refused(smaller).await, leaves_out("spec.reserved", first.clone()));
    let both = by_address.iter().map(|(address, host)| format!("{address} (host {host})")).collect::<Vec<_>>();
    assert_eq!(both, [first, second]);
    let elsewhere = refused(serde_json::json!({ "cidr": "10.60.0.0/24" })).await;
    assert!(elsewhere[0].starts_with("spec.cidr: leaves out addresses that are in use: 10.20.0.1"), "{elsewhere:?}");

    // What nodes are installed with may change; those that are there keep what they have, and somebody is told.
    let mut changed = tenants(14);
    changed["mtu"] = serde_json::json!(9000);
    declare(&world, Kind::Network, "tenants", changed).await.unwrap();
    let events = EventsQuery { kind: Some(Kind::Network), name: Some("tenants".into()), ..Default::default() };
    let kept = world::messages(&world.backend(0), events, "kept").await;
    assert_eq!(kept, ["2 hosts keep what they were installed with; the next claim on each has what is declared now"]);

    let delete = || async {
        let backend = world.backend(0);
        backend.delete(&world::caller(), Kind::Network, "tenants", None).await.map(drop).map_err(|e| e.to_string())
    };
    assert!(delete().await.unwrap_err().contains("is used by node types t"));
    name_it(&world, None).await;
    let in_use = delete().await.unwrap_err();
    assert!(in_use.contains("is used by hosts ") && in_use.contains(&format!("{ten} (10.20.0.10)")), "{in_use}");
    for host in by_address.values() {
        world.change(host, pause).await;
    }
    for n in 0..2 {
        world.backend(0).delete(&world::caller(), Kind::TenantNode, &format!("n{n}"), None).await.unwrap();
    }
    for host in by_address.values() {
        world.change(host, erased).await;
    }
    delete().await.unwrap();
    world.until("the network to be gone", |world| !world.has(Kind::Network, "tenants")).await;
    assert!(world.hosts().iter().all(|host| host.status.leases().next().is_none()));
}

/// Used by the type alone: nothing is placed, and still it must stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_is_an_object_like_any_other() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    network(&world).await;
    world.until("the addresses to be counted", |world| counted(world) == (5, 0)).await;
    let shown = world.backend(0).get(Kind::Network, "tenants").await.unwrap();
    let network: Network = shown.typed().unwrap();
    assert_eq!((network.spec.cidr.to_string().as_str(), network.status.free()), ("10.20.0.0/24", 5));
}
