//! A new password for the BMC, whatever happens in between.

use super::*;
use crate::host::rotation::order;

fn ordered(world: &mut World) {
    let change = order(&world.host, &world.limits, "a leaver", "alice", world.now).unwrap();
    assert!(change.notes.iter().any(|note| note.message.contains("alice") && note.message.contains("a leaver")));
    world.take(change.status);
}

fn changes(world: &World) -> usize {
    world.effects.iter().filter(|kind| **kind == OperationKind::ChangePassword).count()
}

#[test]
fn it_is_changed_under_a_tenant_who_notices_nothing() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    let before = (world.mutations.clone(), world.host.status.phase_since);
    ordered(&mut world);
    let again = order(&world.host, &world.limits, "x", "bob", world.now).unwrap_err();
    assert!(again.message.contains("on its way"), "{again:?}");
    world.tick(None);
    assert_eq!((changes(&world), &world.host.status.rotation), (1, &None));
    assert_eq!((world.mutations.clone(), world.host.status.phase_since), before);
    assert_eq!((world.host.status.phase, &world.host.status.failure), (HostPhase::Provisioned, &None));
}

#[test]
fn a_plain_no_ends_it_and_the_host_goes_on() {
    for cause in [Cause::BmcCredentials, Cause::BmcProtocol, Cause::BmcNotApplied] {
        let mut world = World::new();
        world.run_until(HostPhase::Available);
        ordered(&mut world);
        world.tick(Some(cause));
        let rotation = world.host.status.rotation.clone().unwrap();
        assert!(rotation.ended && rotation.failure.is_some(), "{cause}");
        assert_eq!((world.host.status.phase, &world.host.status.failure), (HostPhase::Available, &None));
        for _ in 0..20 {
            world.now += SignedDuration::from_mins(5);
            world.tick(None);
        }
        assert_eq!(changes(&world), 0, "what was refused is not tried again by itself");
        ordered(&mut world);
        world.tick(None);
        assert_eq!(world.host.status.rotation, None, "another order is taken");
    }
}

/// A host that goes once its tenant has left is declared no more: a password that was changed at its BMC is told by an order.
#[test]
fn a_host_that_is_retired_and_locked_out_goes_on_with_the_password_that_it_is_told() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    world.run_until(HostPhase::Provisioned);
    world.host.metadata.deleted = Some(world.now);
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Erase;
    while world.host.status.phase != HostPhase::Error {
        world.now += SignedDuration::from_secs(30);
        world.tick(Some(Cause::BmcCredentials));
    }
    world.tick(None);
    let wait = world.host.status.wait.clone().unwrap();
    assert!(wait.unblocks.contains("rotate-password") && !wait.unblocks.contains("declaration"), "{wait:?}");
    ordered(&mut world);
    world.tick(None);
    assert_eq!((changes(&world), &world.host.status.rotation), (1, &None));
    assert_eq!((world.host.status.phase, &world.host.status.failure), (HostPhase::Deprovisioning, &None));
    // Nothing holds one that has no tenant any more.
    world.host.status.claim = None;
    let refused = order(&world.host, &world.limits, "x", "alice", world.now).unwrap_err();
    assert!(refused.message.contains("being deleted"), "{refused:?}");
}

/// An answer that did not come leaves it open which password holds: it is asked until it is known.
#[test]
fn what_may_have_happened_is_looked_at_until_it_is_known() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    ordered(&mut world);
    for _ in 0..50 {
        world.now += SignedDuration::from_mins(5);
        world.tick(Some(Cause::BmcUnreachable));
        let rotation = world.host.status.rotation.clone().unwrap();
        assert!(!rotation.ended && rotation.not_before.is_none_or(|at| at > world.now), "{rotation:?}");
        assert_eq!((world.host.status.phase, &world.host.status.failure), (HostPhase::Available, &None));
    }
    assert!(world.host.status.rotation.as_ref().unwrap().tries > 10);
    // A crash is the same: the next try is not the first.
    world.now += SignedDuration::from_mins(5);
    let decision = step(&world.host, &world.limits, world.now);
    assert_eq!(kind_of(&decision), Some(OperationKind::ChangePassword));
    world.take(decision.status);
    let change = recover(&world.host, &world.limits, world.now).unwrap();
    world.take(change.status);
    let tries = world.host.status.rotation.as_ref().unwrap().tries;
    world.tick(None);
    assert!(tries > 1 && world.host.status.rotation.is_none());
}

#[test]
fn nothing_is_begun_without_a_password_or_a_reason() {
    let mut world = World::new();
    assert!(order(&world.host, &world.limits, " ", "alice", world.now).unwrap_err().advice.contains("--reason"));
    world.host.status = crate::host::operator::discovered("h1", world.now);
    let refused = order(&world.host, &world.limits, "x", "alice", world.now).unwrap_err();
    assert!(refused.message.contains("no BMC password"), "{refused:?}");
}
