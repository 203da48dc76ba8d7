//! Orders of operators.

use super::*;
use crate::host::operator::{ActionRefused, act as act_on};

fn act(world: &mut World, action: &HostAction) -> Result<Vec<crate::Note>, ActionRefused> {
    let change = act_on(&world.host, &world.limits, action, "alice", world.now)?;
    world.take(change.status);
    Ok(change.notes)
}

fn because(text: &str) -> String {
    text.to_owned()
}

fn rest(world: &mut World) {
    for _ in 0..20 {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
}

#[test]
fn maintenance_takes_a_free_host_out_of_the_pool_until_it_ends() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    let until = world.now + SignedDuration::from_hours(2);
    act(&mut world, &HostAction::Maintenance { reason: because("new DIMMs"), until: Some(until) }).unwrap();
    let before = world.effects.len();
    rest(&mut world);
    let wait = world.host.status.wait.clone().unwrap();
    assert_eq!((world.host.status.phase, world.effects.len()), (HostPhase::Maintenance, before));
    assert!(wait.reason.contains("new DIMMs") && wait.reason.contains("alice"), "{wait:?}");
    assert_eq!(wait.next_check, Some(until));
    world.now = until;
    world.run_until(HostPhase::Available);
    assert!(world.phases.ends_with(&[HostPhase::Registering, HostPhase::Inspecting, HostPhase::Available]));
    assert_eq!(world.host.status.maintenance, None);
}

#[test]
fn declared_maintenance_waits_for_the_tenant_and_ends_with_its_declaration() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    world.host.spec.maintenance = Some(DeclaredMaintenance { reason: because("new fans"), until: None });
    world.tick(None);
    let wait = world.host.status.wait.clone().unwrap();
    assert!(wait.unblocks.contains("n1 is deleted; then maintenance: new fans"), "{wait:?}");
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Erase;
    world.run_until(HostPhase::Maintenance);
    let refused = act(&mut world, &HostAction::Resume).unwrap_err();
    assert!(refused.advice.contains("declar"), "{refused:?}");
    world.host.spec.maintenance = None;
    world.run_until(HostPhase::Available);
}

#[test]
fn a_held_host_is_its_tenants() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    let before = world.host.status.clone();
    for action in [
        HostAction::Maintenance { reason: because("x"), until: None },
        HostAction::Quarantine { reason: because("x") },
        HostAction::Inspect { reason: because("x") },
        HostAction::Detach { reason: because("x") },
        HostAction::Power { power: PowerWish::Off, reason: because("x") },
    ] {
        let refused = act(&mut world, &action).unwrap_err();
        assert!(refused.message.contains("tenant node n1"), "{refused:?}");
        assert!(refused.advice.contains("delete the tenant node"), "{refused:?}");
    }
    assert_eq!(world.host.status, before);
}

#[test]
fn an_order_needs_a_reason() {
    let mut world = World::new();
    for reason in ["", "  "] {
        let refused = act(&mut world, &HostAction::Pause { reason: because(reason) }).unwrap_err();
        assert!(refused.advice.contains("--reason"));
    }
}

#[test]
fn force_takes_a_dead_host_from_its_tenant_and_keeps_it_out_of_the_pool() {
    for dead in [false, true] {
        let mut world = World::new();
        world.run_until(HostPhase::Available);
        claim(&mut world.host, ClaimState::Install);
        world.run_until(HostPhase::Provisioned);
        assert_eq!(crate::grant::DisruptionGrant::on(&world.host.status), None, "a running tenant is no ground");
        let notes = act(&mut world, &HostAction::ForceRelease { reason: because("board burnt") }).unwrap();
        assert!(notes.iter().any(|n| n.message.contains("alice") && n.message.contains("board burnt")), "{notes:?}");
        for _ in 0..300 {
            world.now += SignedDuration::from_secs(10);
            world.tick(dead.then_some(Cause::BmcUnreachable));
        }
        let status = world.host.status.clone();
        assert_eq!((status.phase, status.stage, &status.claim), (HostPhase::Quarantined, Stage::Idle, &None));
        assert_eq!(world.power == PowerState::Off, !dead, "switched off where its BMC answers");
        let ended = status.lost_by(&Uid("uid-n1".into())).unwrap();
        assert_eq!((ended.end, ended.failure.cause), (TenancyEnd::Forced, Cause::Forced));
        assert!(ended.failure.message.contains("alice"), "{}", ended.failure);
        // It can be deleted only by saying what becomes of the disks.
        world.host.metadata.deleted = Some(world.now);
        assert_eq!(step(&world.host, &world.limits, world.now).fate, Fate::Keep);
        world.host.spec.on_delete = OnDelete::Orphan;
        assert_eq!(step(&world.host, &world.limits, world.now).fate, Fate::Remove);
    }
}

#[test]
fn an_orphan_is_left_as_it_is() {
    for ordered in [false, true] {
        let mut world = World::new();
        while !world.booted {
            world.now += SignedDuration::from_secs(1);
            world.tick(None);
        }
        match ordered {
            true => drop(act(&mut world, &HostAction::Detach { reason: because("moves house") }).unwrap()),
            false => world.host.spec.on_delete = OnDelete::Orphan,
        }
        world.host.metadata.deleted = Some(world.now);
        let decision = step(&world.host, &world.limits, world.now);
        assert_eq!((decision.fate, decision.effect), (Fate::Remove, None));
    }
}

#[test]
fn a_retired_host_stays_with_its_tenant_and_goes_once_it_is_free_and_erased() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    act(&mut world, &HostAction::Retire { reason: because("its rack goes") }).unwrap();
    world.host.metadata.deleted = Some(world.now);
    let before = (world.host.status.phase, world.effects.len());
    rest(&mut world);
    assert_eq!((world.host.status.phase, world.effects.len()), before, "nothing is done to the tenant");
    assert!(world.host.status.claim.is_some());
    assert_eq!(step(&world.host, &world.limits, world.now).fate, Fate::Keep);
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Erase;
    for _ in 0..200 {
        world.now += SignedDuration::from_secs(1);
        if step(&world.host, &world.limits, world.now).fate == Fate::Remove {
            break;
        }
        world.tick(None);
        world.installer();
    }
    assert_eq!(step(&world.host, &world.limits, world.now).fate, Fate::Remove);
    assert_eq!((&world.host.status.claim, &world.host.status.unerased), (&None, &None), "not before it was erased");
    assert!(!world.phases.ends_with(&[HostPhase::Available]), "and never by way of the pool: {:?}", world.phases);
}

#[test]
fn what_is_not_erased_is_not_retired() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    act(&mut world, &HostAction::ForceRelease { reason: because("board burnt") }).unwrap();
    let refused = act(&mut world, &HostAction::Retire { reason: because("scrapped") }).unwrap_err();
    assert!(refused.advice.contains("unquarantine") && refused.advice.contains("detach"), "{refused:?}");
    world.host.spec.on_delete = OnDelete::Orphan;
    act(&mut world, &HostAction::Retire { reason: because("scrapped") }).unwrap();
}

#[test]
fn quarantine_leaves_a_host_alone_and_its_end_looks_at_it_anew() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    act(&mut world, &HostAction::Quarantine { reason: because("smells burnt") }).unwrap();
    let before = world.effects.len();
    rest(&mut world);
    assert_eq!((world.host.status.phase, world.effects.len()), (HostPhase::Quarantined, before));
    // The board was replaced meanwhile; the person who ends the quarantine vouches for it.
    world.serial = "S2";
    act(&mut world, &HostAction::Unquarantine { reason: because("new board") }).unwrap();
    world.run_until(HostPhase::Available);
    assert_eq!(world.host.status.bmc.as_ref().unwrap().serial.as_deref(), Some("S2"));
    assert_eq!(world.host.status.quarantine, None);
}

#[test]
fn retry_and_inspect_do_what_they_say() {
    let mut world = World::new();
    world.tick(None);
    world.tick(None);
    world.tick(Some(Cause::BmcCredentials));
    assert_eq!(world.host.status.phase, HostPhase::Error);
    act(&mut world, &HostAction::Retry).unwrap();
    world.run_until(HostPhase::Available);
    assert!(act(&mut world, &HostAction::Retry).is_err(), "there is nothing to try again");
    act(&mut world, &HostAction::Inspect { reason: because("a disk was added") }).unwrap();
    assert_eq!(world.host.status.phase, HostPhase::Registering);
    world.run_until(HostPhase::Available);
}

fn power(power: PowerWish) -> HostAction {
    HostAction::Power { power, reason: because("a new fan") }
}

#[test]
fn power_is_ordered_of_hosts_that_the_engine_leaves_alone() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    let refused = act(&mut world, &power(PowerWish::On)).unwrap_err();
    assert!(refused.message.contains("is available") && refused.advice.contains("maintenance"), "{refused:?}");

    act(&mut world, &HostAction::Maintenance { reason: because("fans"), until: None }).unwrap();
    rest(&mut world);
    let told = |world: &World| (world.host.status.phase, world.power, world.host.status.power_order.is_some());
    act(&mut world, &power(PowerWish::On)).unwrap();
    let again = act(&mut world, &power(PowerWish::Off)).unwrap_err();
    assert!(again.message.contains("already ordered") && again.message.contains("a new fan"), "{again:?}");
    rest(&mut world);
    assert_eq!(told(&world), (HostPhase::Maintenance, PowerState::On, false));
    world.mutations.clear();
    act(&mut world, &power(PowerWish::Cycle)).unwrap();
    rest(&mut world);
    assert_eq!((told(&world), world.mutations.clone()), (told(&world), vec!["off", "on"]));
    // What is so already is only looked at.
    world.mutations.clear();
    act(&mut world, &power(PowerWish::On)).unwrap();
    rest(&mut world);
    assert_eq!((told(&world).2, world.mutations.len()), (false, 0));
    act(&mut world, &power(PowerWish::Off)).unwrap();
    rest(&mut world);
    assert_eq!(told(&world), (HostPhase::Maintenance, PowerState::Off, false));
    // The end of the maintenance begins with a look at what there is.
    act(&mut world, &HostAction::Resume).unwrap();
    world.run_until(HostPhase::Available);
}

#[test]
fn an_order_of_power_that_fails_ends_and_says_so() {
    for cause in [Cause::BmcUnreachable, Cause::BmcNotApplied, Cause::BmcCredentials] {
        let mut world = World::new();
        world.run_until(HostPhase::Available);
        act(&mut world, &HostAction::Maintenance { reason: because("fans"), until: None }).unwrap();
        act(&mut world, &power(PowerWish::On)).unwrap();
        for _ in 0..100 {
            world.now += SignedDuration::from_secs(60);
            world.tick(Some(cause));
        }
        let status = &world.host.status;
        assert_eq!((status.phase, &status.power_order), (HostPhase::Maintenance, &None), "{cause}");
        assert_eq!(status.failure.as_ref().map(|failure| failure.cause), Some(cause));
        act(&mut world, &HostAction::Resume).unwrap();
        world.run_until(HostPhase::Available);
    }
}

#[test]
fn what_was_left_on_a_host_is_not_made_to_run() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    act(&mut world, &HostAction::ForceRelease { reason: because("board burnt") }).unwrap();
    let busy = act(&mut world, &power(PowerWish::Off)).unwrap_err();
    assert!(busy.message.contains("being switched off"), "{busy:?}");
    rest(&mut world);
    for wish in [PowerWish::On, PowerWish::Cycle] {
        let refused = act(&mut world, &power(wish)).unwrap_err();
        assert!(refused.message.contains("tenant node n1 left") && refused.advice.contains("erasure"), "{refused:?}");
    }
    act(&mut world, &power(PowerWish::Off)).unwrap();
    rest(&mut world);
    assert_eq!((world.host.status.phase, world.power), (HostPhase::Quarantined, PowerState::Off));
    assert_eq!(world.host.status.power_order, None);
}
