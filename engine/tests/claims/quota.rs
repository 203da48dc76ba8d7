//! Quotas through one and two engines: what a cluster may hold, whoever decides at the same time.

use vmetal_api::{Backend as _, EventsQuery};
use vmetal_model::{Kind, Lack, Quota, TenantNode};
use vmetal_store::{AnyStore, StoreClock};

use super::{consistent, member, spec, stores};
use crate::world::{self, World};

fn hosts(most: u32) -> Quota {
    Quota { hosts: Some(most), ..Quota::default() }
}

fn reason(node: &TenantNode) -> String {
    node.status.decision.as_ref().map(|decision| decision.reason.clone()).unwrap_or_default()
}

/// Every claim has a host, or was told this.
async fn all_told(world: &World, why: &str) {
    let told = |node: &TenantNode| node.status.host.is_some() || reason(node) == why;
    world.until(why, |world| world.nodes().iter().all(told)).await;
}

/// Which claim has which host.
fn held(world: &World) -> Vec<(String, Option<String>)> {
    consistent(world).into_iter().map(|node| (node.metadata.name, node.status.host)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_claims_that_come_at_once_exactly_as_many_win_as_the_quota_allows() {
    let directory = tempfile::tempdir().unwrap();
    for engines in [1, 2] {
        let directory = directory.path().join(engines.to_string());
        std::fs::create_dir(&directory).unwrap();
        for (name, store) in stores(&directory) {
            let world = World::start(store, engines).await;
            world.shared().await;
            world.hosts_of(40, |_| "r1".into()).await;
            world.quota(&hosts(7)).await;
            let applies = (0..60).map(|n| {
                let backend = world.backend(n);
                async move { world::apply(&backend, &format!("n{n:02}"), &spec()).await.unwrap() }
            });
            futures::future::join_all(applies).await;
            let full = |held: u32, most: u32| {
                format!("no node type fits; t: tenant cluster c holds {held} of its {most} hosts")
            };
            all_told(&world, &full(7, 7)).await;
            let placed = consistent(&world);
            assert_eq!((placed.len(), world.most_held().await), (7, 7), "{engines} engines on {name}");
            let waiting = world.nodes().into_iter().find(|node| node.status.host.is_none()).unwrap();
            let candidate = &waiting.status.decision.as_ref().unwrap().node_types[0];
            assert_eq!((candidate.feasible, candidate.lacks), (false, Some(Lack::Quota)));

            // More is allowed: those who wait hear of it.
            world.quota(&hosts(9)).await;
            world.until("two more to be placed", |world| world.placed() == 9).await;
            all_told(&world, &full(9, 9)).await;
            // Less is allowed: what is held stays, and the reason says what is so.
            let before = held(&world);
            world.quota(&hosts(3)).await;
            all_told(&world, &full(9, 3)).await;
            assert_eq!((held(&world), world.most_held().await), (before, 9), "{engines} engines on {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_below_what_is_held_is_let_in_and_told() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(4, |_| "r1".into()).await;
    let backend = world.backend(0);
    for n in 0..3 {
        world::apply(&backend, &format!("n{n}"), &spec()).await.unwrap();
    }
    world.until("all to be placed", |world| world.placed() == 3).await;
    world.quota(&hosts(3)).await;
    world.quota(&hosts(1)).await;
    let events = EventsQuery { kind: Some(Kind::TenantCluster), name: Some("c".into()), ..Default::default() };
    let told = world::messages(&backend, events, "over_quota").await;
    assert_eq!(
        told,
        [
            "tenant cluster c holds 3 of its 1 host: nothing is taken away, and nothing more is given until enough has been \
          given back"
        ]
    );
    assert_eq!(world.placed(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_does_not_fit_into_the_quota_gets_nothing_of_it() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(9, |_| "r1".into()).await;
    world.quota(&hosts(4)).await;
    let backend = world.backend(0);
    for n in 0..6 {
        world::apply(&backend, &format!("n{n}"), &member(&format!("g{}", n / 3), 3, None)).await.unwrap();
    }
    world.until("the first group to be placed", |world| world.placed() == 3).await;
    let told = |world: &World| world.nodes().iter().filter(|node| reason(node).contains("holds 4 of its 4")).count();
    world.until("the second group to be told", |world| told(world) == 3).await;
    let why = reason(&world.node("n5").unwrap());
    assert!(why.starts_with("1 of the 3 hosts that group g1 waits for can be had; tenant node"), "{why}");
    assert_eq!((consistent(&world).len(), world.most_held().await), (3, 3));
    // A preview counts those that it has promised, as a round does.
    let decisions = backend.preview_placement(&spec(), 2).await.unwrap();
    assert!(decisions[0].host.is_some() && decisions[1].host.is_none());
    assert_eq!(decisions[1].node_types[0].lacks, Some(Lack::Quota));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_says_what_quota_would_be_needed() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(2, |_| "r1".into()).await;
    world.quota(&hosts(1)).await;
    let backend = world.backend(0);
    world::apply(&backend, "first", &spec()).await.unwrap();
    world.until("the first to be placed", |world| world.placed() == 1).await;
    world::apply(&backend, "second", &spec()).await.unwrap();
    all_told(&world, "no node type fits; t: tenant cluster c holds 1 of its 1 host").await;
    // By the log, once it is written, and before that by what is so now: the same.
    let explanation = backend.explain_placement("second").await.unwrap();
    let nearest = &explanation.nearest[0];
    assert_eq!((nearest.candidate.as_str(), &nearest.node_type), ("t", &None), "{:?}", explanation.nearest);
    assert_eq!(nearest.steps, ["tenant cluster c has to give back as much, or be allowed 2 hosts"]);
}
