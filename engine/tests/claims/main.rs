//! Claims through the real engine: who gets a host when there are not enough, groups, and deletions in the middle.
//!
//! Hosts are declared as available and stay so: no BMC is called. What is tried is the way from the API over the rounds of
//! decisions to the store, in memory and in SQLite.
#![allow(clippy::unwrap_used, reason = "tests")]

mod again;
mod faults;
// Components that misbehave in one way each.
#[allow(dead_code, reason = "the policies' own tests use all of it")]
#[path = "../../policy/tests/policy/fixtures.rs"]
mod fixtures;
mod groups;
mod networks;
mod policies;
mod quota;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use vmetal_api::{Annotate, Backend, BackendError, EventsQuery, WatchItem};
use vmetal_model::{
    Cause, GroupSpec, Host, Kind, Lack, NodeType, TenantCluster, TenantNode, TenantNodePhase, TenantNodeSpec, Uid,
};
use vmetal_store::{AnyStore, SqliteOptions, StoreClock};
use world::World;

/// What the fixtures need.
mod support {
    pub(crate) fn workspace() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }
}

/// Every store that a single machine has, each with a name for messages.
fn stores(directory: &std::path::Path) -> Vec<(&'static str, AnyStore)> {
    let sqlite = AnyStore::open(directory.join("store.db"), SqliteOptions::default()).unwrap();
    vec![("memory", AnyStore::memory(StoreClock::system())), ("sqlite", sqlite)]
}

fn spec() -> TenantNodeSpec {
    TenantNodeSpec { cluster: "c".into(), ..Default::default() }
}

fn member(group: &str, size: u32, same: Option<&str>) -> TenantNodeSpec {
    let group = GroupSpec { name: group.into(), size, same: same.map(Into::into) };
    TenantNodeSpec { group: Some(group), ..spec() }
}

/// What must be so whatever happens: a host and a claim name each other, or neither the other.
fn consistent(world: &World) -> Vec<TenantNode> {
    agreed(world.nodes(), &world.hosts())
}

/// The same of what was seen at one moment. The nodes that are placed.
fn agreed(nodes: Vec<TenantNode>, known: &[Host]) -> Vec<TenantNode> {
    let placed: Vec<TenantNode> = nodes.into_iter().filter(|node| node.status.host.is_some()).collect();
    let mut hosts = BTreeSet::new();
    for node in &placed {
        let name = node.status.host.as_ref().unwrap();
        assert!(hosts.insert(name.clone()), "host {name} is promised twice");
        let host = known.iter().find(|host| host.metadata.name == *name);
        let host = host.unwrap_or_else(|| panic!("{} is on the removed host {name}", node.name()));
        let claim = host.status.claim.as_ref().unwrap_or_else(|| panic!("{name} does not know {}", node.name()));
        assert_eq!((&claim.node, &claim.uid), (&node.metadata.name, &node.metadata.uid));
    }
    let claimed = known.iter().filter(|host| host.status.claim.is_some()).count();
    assert_eq!(claimed, placed.len(), "a claim on a host that no tenant node knows of");
    placed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_1000_claims_that_come_at_once_exactly_100_get_the_100_hosts_and_the_rest_are_told_why() {
    let directory = tempfile::tempdir().unwrap();
    for (name, store) in stores(directory.path()) {
        let world = World::start(store, 1).await;
        world.hosts_of(100, |_| "r1".into()).await;
        let applies = (0..1000).map(|n| {
            let backend = world.backend(n % 2);
            async move { world::apply(&backend, &format!("n{n:03}"), &spec()).await.unwrap() }
        });
        futures::future::join_all(applies).await;
        let told = |node: &TenantNode| node.status.host.is_some() || node.status.decision.is_some();
        world.until("every claim to be decided on", |world| world.nodes().iter().all(told)).await;
        let full = "no node type fits; t: 0 of 100 hosts free: 100 claimed";
        let reason = |node: &TenantNode| node.status.decision.as_ref().unwrap().reason.clone();
        world
            .until("the last reason", |world| {
                world.nodes().iter().filter(|n| n.status.host.is_none()).all(|node| reason(node) == full)
            })
            .await;
        assert_eq!(consistent(&world).len(), 100, "on {name}");
        for node in world.nodes().iter().filter(|node| node.status.host.is_none()) {
            assert_eq!((node.status.phase, reason(node).as_str()), (TenantNodePhase::Pending, full), "on {name}");
            assert_eq!(node.status.failure.as_ref().unwrap().cause, Cause::NoCandidate);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_decision_that_was_acted_on_is_logged_explained_and_comes_out_the_same_when_taken_again() {
    let directory = tempfile::tempdir().unwrap();
    for (name, store) in stores(directory.path()) {
        let world = World::start(store, 1).await;
        world.hosts_of(40, |n| format!("r{}", n / 8)).await;
        let backend = world.backend(0);
        let mut members = 0;
        for n in 0..45 {
            let spec = if n % 9 == 0 { member(&format!("g{n}"), 1, Some("rack")) } else { spec() };
            members += usize::from(spec.group.is_some());
            world::apply(&backend, &format!("n{n:02}"), &spec).await.unwrap();
        }
        let told = |node: &TenantNode| node.status.host.is_some() || node.status.decision.is_some();
        world.until("every claim to be decided on", |world| world.nodes().iter().all(told)).await;
        let placed = consistent(&world);
        assert_eq!((placed.len(), members), (40, 5), "on {name}");
        let mut unplaced = 0;
        for node in world.nodes() {
            let decision = node.status.decision.as_ref().unwrap();
            let Some(id) = &decision.log else {
                assert!(
                    node.status.host.is_none(),
                    "{} on {name} has a host by a decision that is not logged",
                    node.name()
                );
                continue;
            };
            world::until_logged(&backend, id).await;
            let replay = backend.replay_decision(id).await.unwrap();
            assert!(replay.is_same(), "on {name}: {replay:?}");
            assert_eq!((&replay.node, &replay.replayed_host), (&node.metadata.name, &node.status.host));
            assert_eq!(replay.policies, decision.policies);
            assert!(!replay.inputs.is_empty());
            let explanation = backend.explain_placement(node.name()).await.unwrap();
            assert_eq!((explanation.basis, &explanation.decision.host), (vmetal_model::Basis::Log, &node.status.host));
            for row in explanation.hosts.iter().filter(|row| !row.terms.is_empty()) {
                assert_eq!(row.terms.iter().map(|term| term.amount).sum::<i64>(), row.value, "{row:?}");
            }
            if node.status.host.is_none() {
                unplaced += 1;
                assert!(!explanation.nearest.is_empty(), "{explanation:?}");
            }
        }
        assert!(unplaced > 0, "on {name}: no claim without a host is logged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_preview_says_what_would_be_decided_and_takes_nothing() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(3, |_| "r1".into()).await;
    let before = world.hosts();
    let preview = |count| {
        let backend = world.backend(0);
        async move { backend.preview_placement(&spec(), count).await.unwrap() }
    };
    let decisions = preview(4).await;
    let hosts: BTreeSet<_> = decisions.iter().filter_map(|decision| decision.host.clone()).collect();
    assert_eq!((decisions.len(), hosts.len()), (4, 3), "each host once, and none for the fourth");
    assert_eq!(decisions[3].node_types[0].lacks, Some(Lack::FreeHost));
    assert_eq!((world.hosts(), world.nodes().len()), (before, 0), "nothing was written");
    let promised = decisions[0].host.clone();
    world::apply(&world.backend(0), "n", &spec()).await.unwrap();
    world
        .until("the claim to be decided on", |world| world.nodes().iter().all(|node| node.status.host.is_some()))
        .await;
    assert_eq!(world.nodes()[0].status.host, promised, "and it comes true");
    let many = world.backend(0).preview_placement(&spec(), GroupSpec::LARGEST + 1).await.unwrap_err();
    assert!(many.to_string().contains("too many"), "{many}");
}

/// What a client that made an object has of it: notes are not declarations, and who follows hears of all that happens to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_note_declares_nothing_and_whoever_follows_hears_of_it() {
    let directory = tempfile::tempdir().unwrap();
    for (name, store) in stores(directory.path()) {
        // An engine that does nothing by itself.
        let world = World::prepare(store, 1).await;
        let backend = world.backend(0);
        let made = world::apply(&backend, "n", &spec()).await.unwrap();
        let mut news = backend.follow(made.clone());
        let note = |uid: &Uid, set: &[&str], remove: &[&str]| Annotate {
            kind: Kind::TenantNode,
            name: "n".into(),
            uid: Some(uid.clone()),
            set: set.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect(),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        };
        let write = async |note| backend.annotate(&world::caller(), note).await;
        let stranger = write(note(&Uid("u".into()), &["a"], &[])).await;
        assert!(matches!(stranger, Err(BackendError::Conflict { .. })), "{name}: {stranger:?}");
        let uid = &made.metadata.uid;
        write(note(uid, &["a", "b"], &[])).await.unwrap();
        write(note(uid, &[], &["a", "c"])).await.unwrap();
        let noted = backend.get(Kind::TenantNode, "n").await.unwrap();
        write(note(uid, &["b"], &["a"])).await.unwrap();
        assert_eq!(backend.get(Kind::TenantNode, "n").await.unwrap(), noted, "{name}: nothing is written twice");
        assert_eq!(noted.metadata.annotations.keys().collect::<Vec<_>>(), ["b"], "{name}");
        assert_eq!(noted.metadata.generation, made.metadata.generation, "{name}");
        // One who was slow hears of what is, and not of each step on the way.
        let Some(Ok(WatchItem::Changed(seen))) = news.next().await else { panic!("{name}: no change was told") };
        assert_eq!(seen, noted, "{name}");
        backend.delete(&world::caller(), Kind::TenantNode, "n", None).await.unwrap();
        let Some(Ok(WatchItem::Changed(seen))) = news.next().await else { panic!("{name}: no change was told") };
        assert!(seen.metadata.deleted.is_some(), "{name}");
        let query = EventsQuery { kind: Some(Kind::TenantNode), name: Some("n".into()), ..EventsQuery::default() };
        let told = world::messages(&backend, query, "annotated").await;
        assert_eq!(told, ["annotations written: a, b by test", "annotations removed: a, c by test"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_oldest_claims_win_and_the_same_claims_always_do() {
    let seed: u64 = std::env::var("VMETAL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    println!("seed {seed} (VMETAL_SEED)");
    let directory = tempfile::tempdir().unwrap();
    let mut winners: Vec<BTreeMap<String, String>> = Vec::new();
    for (_, store) in stores(directory.path()) {
        let mut world = World::prepare(store, 1).await;
        world.hosts_of(20, |_| "r1".into()).await;
        // Declared in no order, each with the age that its number says.
        for n in world::shuffled(200, seed) {
            world.declare(&format!("n{n:03}"), i64::try_from(n / 2).unwrap(), spec()).await;
        }
        world.run();
        let told = |node: &TenantNode| node.status.host.is_some() || node.status.decision.is_some();
        world.until("every claim to be decided on", |world| world.nodes().iter().all(told)).await;
        let placed = consistent(&world);
        winners.push(placed.into_iter().map(|n| (n.metadata.name, n.status.host.unwrap())).collect());
    }
    let oldest: Vec<String> = (0..20).map(|n| format!("n{n:03}")).collect();
    assert_eq!(winners[0].keys().cloned().collect::<Vec<_>>(), oldest);
    assert_eq!(winners[0], winners[1], "the same claims, and each on the same host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_get_all_their_hosts_or_none_however_many_want_them() {
    let directory = tempfile::tempdir().unwrap();
    for (name, store) in stores(directory.path()) {
        let world = World::start(store, 1).await;
        world.hosts_of(10, |n| format!("r{}", n / 5)).await;
        // Ten groups of 3 want 30 of 10 hosts; three fit.
        let applies = (0..30).map(|n| {
            let backend = world.backend(n % 2);
            async move {
                let spec = member(&format!("g{}", n % 10), 3, None);
                world::apply(&backend, &format!("n{n:02}"), &spec).await.unwrap()
            }
        });
        futures::future::join_all(applies).await;
        let told = |node: &TenantNode| {
            let why = node.status.decision.as_ref().map_or("", |decision| decision.reason.as_str());
            node.status.host.is_some() || why.starts_with("1 of the 3 hosts that group g") && why.contains("can be had")
        };
        world.until("the rest to be told", |world| world.placed() == 9 && world.nodes().iter().all(told)).await;
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for node in consistent(&world) {
            *groups.entry(node.spec.group.unwrap().name).or_default() += 1;
        }
        assert_eq!(groups.values().copied().collect::<Vec<_>>(), [3, 3, 3], "on {name}: {groups:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_waits_to_be_whole_and_goes_where_it_can_be_together() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    // Racks with 1, 3 and 2 hosts.
    let racks = ["a", "b", "b", "b", "c", "c"];
    world.hosts_of(6, |n| racks[n].into()).await;
    let backend = world.backend(0);
    world::apply(&backend, "one", &member("pair", 2, Some("rack"))).await.unwrap();
    world.until("the first to wait", |world| world.node("one").unwrap().status.wait.is_some()).await;
    let wait = world.node("one").unwrap().status.wait.unwrap();
    assert_eq!(wait.reason, "group pair to be whole");
    assert_eq!(wait.unblocks, "1 of the 2 members of group pair are declared (one); 1 more to come");
    assert_eq!(world.node("one").unwrap().status.failure, None);
    world::apply(&backend, "two", &member("pair", 2, Some("rack"))).await.unwrap();
    world.until("both to be placed", |world| world.placed() == 2).await;
    assert_eq!(world.racks(&["one", "two"]), ["c", "c"], "the rack that just suffices");
    for n in 0..4 {
        world::apply(&backend, &format!("big{n}"), &member("big", 4, Some("rack"))).await.unwrap();
    }
    let reason = |world: &World| world.node("big0").unwrap().status.decision.map(|decision| decision.reason);
    world.until("the big group to be told", |world| reason(world).is_some()).await;
    let why = reason(&world).unwrap();
    assert!(why.starts_with("3 of the 4 hosts that group big waits for can be had in one rack; tenant node"), "{why}");
    assert_eq!(consistent(&world).len(), 2, "nothing is held for a group that cannot be placed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_deleted_while_claims_come_leaves_no_claim_on_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for (name, store) in stores(directory.path()) {
        for round in 0..8 {
            let mut world = World::start(store.clone(), 1).await;
            let tag = format!("x{round}");
            world.hosts_of(6, |_| tag.clone()).await;
            let (one, two) = (world.backend(0), world.backend(1));
            let claims = (0..6).map(|n| {
                let backend = one.clone();
                let name = format!("{tag}-{n}");
                // Refused once the cluster or the type goes: that is one of the two good ends.
                async move { world::apply(&backend, &name, &spec()).await.is_ok() }
            });
            let deletes = async {
                tokio::time::sleep(Duration::from_millis(round * 3)).await;
                let host = two.delete(&world::caller(), Kind::Host, "h000", None).await.is_ok();
                let node_type = two.delete(&world::caller(), Kind::NodeType, "t", None).await.is_ok();
                let cluster = two.delete(&world::caller(), Kind::TenantCluster, "c", None).await.is_ok();
                (host, node_type, cluster)
            };
            let (made, deleted) = tokio::join!(futures::future::join_all(claims), deletes);
            // For what must not happen.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let left = world.end().await;
            let (nodes, types) = (left.all::<TenantNode>(), left.all::<NodeType>());
            let clusters = left.all::<TenantCluster>().len();
            assert!(nodes.is_empty() || clusters == 1, "{name}: {nodes:?} are for a cluster that is gone");
            for node in agreed(nodes, &left.all::<Host>()) {
                let by = node.status.decision.as_ref().unwrap().node_type.clone().unwrap();
                let there = types.iter().any(|one| one.metadata.name == by);
                assert!(there, "{name}: {} was placed by a type that is gone", node.name());
            }
            println!("{name} {round}: {made:?}, host, type, cluster deleted: {deleted:?}");
            world.clear().await;
        }
    }
}
