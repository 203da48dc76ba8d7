//! Nobody has to guess what a host waits for.

use super::*;
use crate::host::operator::{act, discovered};

/// Every state tells why it waits and what ends that, and has a time at which it looks again or gives up, unless a person, a
/// tenant or the outcome of an effect ends it.
pub(super) fn check(world: &World) {
    let decision = step(&world.host, &world.limits, world.now);
    let status = &decision.status;
    let at = format!("{:?}/{:?}", status.phase, status.stage);
    let Some(wait) = &status.wait else {
        // Between two steps: it looks again at once.
        let turning = decision.next == Some(world.now) || decision.effect.is_some() || decision.fate == Fate::Remove;
        assert!(
            turning || status == &world.host.status && decision.next.is_some(),
            "{at} neither waits nor goes on: {decision:?}"
        );
        return;
    };
    for text in [&wait.reason, &wait.unblocks] {
        assert!(!text.trim().is_empty(), "{at} waits without words: {wait:?}");
    }
    assert!(wait.since <= world.now || decision.effect.is_some(), "{at} waits since the future");
    let by_others = matches!(
        status.phase,
        HostPhase::Discovered
            | HostPhase::Available
            | HostPhase::Maintenance
            | HostPhase::Provisioned
            | HostPhase::Quarantined
            | HostPhase::Error
    ) || matches!(status.stage, Stage::Seed | Stage::NodeRemoval)
        || status.pause.is_some();
    let ends = wait.deadline.is_some() || wait.next_check.is_some() || decision.next.is_some();
    assert!(ends || by_others || decision.effect.is_some(), "{at} may hang: {wait:?}");
}

#[test]
fn every_stage_of_a_life_says_what_it_waits_for() {
    let mut world = World::new();
    let mut stages = std::collections::BTreeSet::new();
    let mut look = |world: &mut World, seconds: i64| {
        world.now += SignedDuration::from_secs(seconds);
        check(world);
        stages.insert(world.host.status.stage);
        world.tick(None);
    };
    for round in 0..60 {
        look(&mut world, 1);
        if round % 2 == 1 {
            world.installer();
        }
    }
    claim(&mut world.host, ClaimState::Reserved);
    for _ in 0..3 {
        look(&mut world, 1);
    }
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Install;
    for round in 0..60 {
        look(&mut world, 1);
        if round % 2 == 1 {
            world.installer();
        }
    }
    assert_eq!(world.host.status.phase, HostPhase::Provisioned);
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Release;
    for _ in 0..10 {
        look(&mut world, 1);
    }
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Erase;
    for _ in 0..60 {
        look(&mut world, 1);
        world.installer();
    }
    assert_eq!(world.host.status.phase, HostPhase::Available);
    world.host.status = crate::standby::install(&world.host, super::standby::wish("i")).unwrap().0;
    for _ in 0..60 {
        look(&mut world, 1);
        world.installer();
    }
    assert_eq!(world.host.status.phase, HostPhase::Standby);
    claim(&mut world.host, ClaimState::Install);
    world.host.status.claim.as_mut().unwrap().image = Some("i".into());
    for _ in 0..4 {
        look(&mut world, 1);
    }
    assert_eq!(world.host.status.stage, Stage::HandOver);
    for stage in [Stage::ResetBmc, Stage::Drain] {
        (world.host.status.phase, world.host.status.claim) = (HostPhase::Inspecting, None);
        world.host.status.stage = stage;
        world.host.status.stage_since = world.now;
        for _ in 0..4 {
            look(&mut world, 1);
        }
    }
    for stage in Stage::ALL {
        assert!(stages.contains(&stage), "{stage:?} was not walked through: {stages:?}");
    }
}

#[test]
fn a_host_without_a_password_is_never_acted_on_and_says_so() {
    let mut world = World::new();
    world.host.status = discovered("h1", world.now);
    for _ in 0..20 {
        world.now += SignedDuration::from_hours(1);
        check(&world);
        assert_eq!(step(&world.host, &world.limits, world.now).effect, None);
        world.tick(None);
    }
    assert!(world.host.status.wait.as_ref().unwrap().reason.contains("password"));
    let change = crate::host::operator::introduced(&world.host, &world.limits, world.now).unwrap();
    world.take(change.status);
    assert!(world.host.status.failure.is_none());
    world.run_until(HostPhase::Available);
}

#[test]
fn a_paused_host_says_who_paused_it_and_how_to_go_on() {
    let mut world = World::new();
    world.tick(None);
    let pause = HostAction::Pause { reason: "the PDU is moved".into() };
    let change = act(&world.host, &world.limits, &pause, "alice", world.now).unwrap();
    world.take(change.status);
    world.now += SignedDuration::from_hours(5);
    check(&world);
    world.tick(None);
    let wait = world.host.status.wait.clone().unwrap();
    assert!(wait.reason.contains("the PDU is moved") && wait.reason.contains("alice"), "{wait:?}");
    assert!(wait.unblocks.contains("vmetal host resume h1"), "{wait:?}");
    let change = act(&world.host, &world.limits, &HostAction::Resume, "bob", world.now).unwrap();
    world.take(change.status);
    world.run_until(HostPhase::Available);
    assert!(world.host.status.breach.is_none(), "the stage's time stood still");
}

/// The engine was stopped in a stage that was late already: the pause before it looks is waited for, not spun through.
#[test]
fn a_pause_in_a_stage_that_is_late_is_waited_for() {
    let mut world = World::new();
    world.run_until(HostPhase::Inspecting);
    world.host.status.power = PowerState::On;
    world.now += SignedDuration::from_hours(3);
    let decision = step(&world.host, &world.limits, world.now);
    assert_eq!(kind_of(&decision), Some(OperationKind::PowerOff));
    world.take(decision.status);
    let change = recover(&world.host, &world.limits, world.now).unwrap();
    world.take(change.status);
    let decision = decide(&world.host, &world.limits, world.now);
    assert!(decision.next.unwrap() > world.now, "{decision:?}");
}
