//! Groups as policies see them: one decision on all members, the same one that a preview tells of, logged once.

use std::collections::BTreeSet;

use vmetal_api::Backend as _;
use vmetal_model::{Lack, PolicyKind, TenantNode, TenantNodeSpec};
use vmetal_policy::Binding;
use vmetal_store::{AnyStore, StoreClock};

use super::{consistent, member, spec};
use crate::world::{self, World};

const RACK: &str = "topology.vmetal.dev/rack";

/// Hosts in racks that policies know of.
async fn racks(sizes: &[(&str, usize)]) -> World {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    let all: Vec<&str> = sizes.iter().flat_map(|(rack, size)| std::iter::repeat_n(*rack, *size)).collect();
    world.hosts_of(all.len(), |n| all[n].into()).await;
    let known = |host: &mut vmetal_model::Host| {
        let rack = host.metadata.labels["rack"].clone();
        host.metadata.labels.insert(RACK.into(), rack);
    };
    world.alter(known).await;
    let in_racks = |world: &World| world.hosts().iter().all(|host| host.metadata.labels.contains_key(RACK));
    world.until("the racks to be known", in_racks).await;
    world
}

async fn declare(world: &World, group: &str, size: u32, same: Option<&str>) {
    for n in 0..size {
        world::apply(&world.backend(0), &format!("{group}{n}"), &member(group, size, same)).await.unwrap();
    }
}

fn of(world: &World, group: &str) -> Vec<TenantNode> {
    let is_member = |node: &TenantNode| node.spec.group.as_ref().is_some_and(|spec| spec.name == group);
    world.nodes().into_iter().filter(is_member).collect()
}

fn racks_of(world: &World, group: &str) -> Vec<String> {
    let names: Vec<String> = of(world, group).into_iter().map(|node| node.metadata.name).collect();
    world.racks(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// One by one, each would go where it leaves the fewest hosts over, and the group would be all over the place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_one_decision_that_its_policy_takes_for_all_members() {
    let world = racks(&[("a", 2), ("b", 4), ("c", 3)]).await;
    declare(&world, "g", 4, None).await;
    world.until("the group to be placed", |world| world.placed() == 4).await;
    assert_eq!(racks_of(&world, "g"), ["b", "b", "b", "b"], "the one rack that takes all of them");

    let members = consistent(&world);
    let decided: BTreeSet<_> = members.iter().map(|node| node.status.decision.as_ref().unwrap().log.clone()).collect();
    assert_eq!(decided.len(), 1, "asked once: {decided:?}");
    let id = decided.into_iter().flatten().next().unwrap();
    let backend = world.backend(0);
    world::until_logged(&backend, &id).await;
    let replay = backend.replay_decision(&id).await.unwrap();
    assert!(replay.is_same(), "{replay:?}");
    let mut hosts: Vec<String> = replay.host.unwrap().split(", ").map(str::to_owned).collect();
    hosts.sort();
    let mut held: Vec<String> = members.iter().filter_map(|node| node.status.host.clone()).collect();
    held.sort();
    assert_eq!(hosts, held, "the log has all of them");
    for node in &members {
        let decision = node.status.decision.as_ref().unwrap();
        assert_eq!(decision.host, node.status.host);
        let explained = backend.explain_placement(node.name()).await.unwrap();
        assert_eq!((explained.node.as_str(), &explained.decision.host), (node.name(), &node.status.host));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_for_gangs_refuses_a_group_as_a_whole_and_a_preview_says_so_before() {
    let world = racks(&[("a", 2), ("b", 4), ("c", 3)]).await;
    let gangs = Binding { settings: format!(r#"{{"level":"{RACK}"}}"#), ..Binding::native("place-gang-topology") };
    world.seat(PolicyKind::Placement, &gangs);
    let backend = world.backend(0);
    let preview = async |spec: TenantNodeSpec, count| backend.preview_placement(&spec, count).await.unwrap();
    // Five hosts are free, but not in one rack.
    let foreseen = preview(member("big", 5, None), 5).await;
    assert!(foreseen.len() == 5 && foreseen.iter().all(|decision| decision.host.is_none()), "{foreseen:?}");
    let why = foreseen[0].reason.clone();
    assert!(why.starts_with("group big waits for 5 hosts; "), "{why}");
    // Without a group they are five claims for one host each.
    assert!(preview(spec(), 5).await.iter().all(|decision| decision.host.is_some()));
    declare(&world, "big", 5, None).await;
    let reason = |node: &TenantNode| node.status.decision.as_ref().map(|decision| decision.reason.clone());
    let told = |world: &World| of(world, "big").iter().all(|node| reason(node).as_ref() == Some(&why));
    world.until("all of them to be told what was foreseen", told).await;
    assert_eq!(consistent(&world).len(), 0, "nothing is held for a group that is refused");

    let foreseen = preview(member("fit", 4, None), 4).await;
    let hosts: Vec<_> = foreseen.into_iter().map(|decision| decision.host.unwrap()).collect();
    declare(&world, "fit", 4, None).await;
    world.until("the group to be placed", |world| world.placed() == 4).await;
    let placed: Vec<_> = of(&world, "fit").into_iter().map(|node| node.status.host.unwrap()).collect();
    assert_eq!((placed, racks_of(&world, "fit")), (hosts, vec!["b".to_owned(); 4]), "what was foreseen comes true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_of_a_group_keeps_its_members_together_or_says_what_is_missing() {
    let world = racks(&[("a", 2), ("b", 3)]).await;
    let backend = world.backend(0);
    let preview = async |same: &str, count| {
        let decisions = backend.preview_placement(&member("g", count, Some(same)), count).await.unwrap();
        assert_eq!(decisions.len(), count as usize);
        decisions
    };
    let three: BTreeSet<_> = preview("rack", 3).await.into_iter().map(|decision| decision.host.unwrap()).collect();
    assert_eq!(three, ["h002", "h003", "h004"].map(str::to_owned).into());
    let four = preview("rack", 4).await;
    assert!(four.iter().all(|decision| decision.host.is_none()));
    assert!(four[0].reason.starts_with("3 of the 4 hosts that group g waits for can be had in one rack"), "{four:?}");
    let lacking = four.iter().flat_map(|decision| &decision.node_types).filter_map(|candidate| candidate.lacks);
    assert!(lacking.clone().count() > 0 && lacking.clone().all(|lack| lack == Lack::FreeHost), "waiting can mend it");
    let nowhere = preview("cage", 2).await;
    assert_eq!((nowhere[0].reason.as_str(), &nowhere[0].host), ("no host has the label cage", &None));
    assert!(nowhere[0].node_types[0].feasible, "a node type fits: {nowhere:?}");
    assert_eq!(world.placed(), 0);
}

/// Members that differ, and groups that no node type has room for, are decided on member by member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_differ_are_placed_together_all_the_same() {
    let world = racks(&[("a", 2), ("b", 2)]).await;
    let of_type = TenantNodeSpec { node_type: Some("t".into()), ..member("g", 2, Some("rack")) };
    world::apply(&world.backend(0), "g0", &of_type).await.unwrap();
    world::apply(&world.backend(0), "g1", &member("g", 2, Some("rack"))).await.unwrap();
    world.until("both to be placed", |world| world.placed() == 2).await;
    let racks = racks_of(&world, "g");
    assert_eq!(racks[0], racks[1]);
    let logs: BTreeSet<_> = consistent(&world).into_iter().map(|node| node.status.decision.unwrap().log).collect();
    assert_eq!(logs.len(), 2, "a decision each");
}
