//! A host that is installed ahead of any claim, and what becomes of it.

use super::*;
use crate::host::agent::{Claimed, claimed, erase_level, phone_home, waits};

pub(super) fn wish(image: &str) -> Standby {
    Standby {
        uid: Uid("uid-s".into()),
        node_type: "t".into(),
        image: image.into(),
        wish: StandbyWish::Keep,
        since: Timestamp::UNIX_EPOCH,
    }
}

/// A host that waits on standby.
fn on_standby() -> World {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    world.host.status = crate::standby::install(&world.host, wish("i")).unwrap().0;
    world.run_until(HostPhase::Standby);
    world
}

/// Lets time pass; the waiting system asks for a claim if it `lives`.
fn pass(world: &mut World, time: SignedDuration, lives: bool) {
    let end = world.now + time;
    while world.now < end {
        world.now += SignedDuration::from_secs(10);
        if lives && let Some(change) = waits(&world.host, &world.limits, world.now) {
            world.take(change.status);
        }
        world.tick(None);
    }
}

fn claim_image(world: &mut World, image: &str) {
    claim(&mut world.host, ClaimState::Reserved);
    world.tick(None);
    let claim = world.host.status.claim.as_mut().unwrap();
    claim.state = ClaimState::Install;
    claim.image = Some(image.into());
    world.tick(None);
}

#[test]
fn it_is_installed_waits_and_lives() {
    let mut world = on_standby();
    let from = world.phases.iter().position(|phase| *phase == HostPhase::Available).unwrap();
    assert_eq!(world.phases[from..], [HostPhase::Available, HostPhase::Provisioning, HostPhase::Standby]);
    assert_eq!((world.power, world.host.status.claim.clone()), (PowerState::On, None));
    world.effects.clear();
    pass(&mut world, SignedDuration::from_hours(3), true);
    assert_eq!(world.host.status.phase, HostPhase::Standby);
    assert!(world.effects.iter().all(|kind| *kind == OperationKind::ReadPower), "{:?}", world.effects);
    assert!((30..40).contains(&world.effects.len()), "its power is read every five minutes: {}", world.effects.len());
}

#[test]
fn a_claim_on_its_image_takes_it_over_without_touching_the_server() {
    let mut world = on_standby();
    pass(&mut world, SignedDuration::from_mins(1), true);
    world.mutations.clear();
    let waiting = claimed(&world.host);
    claim_image(&mut world, "i");
    let status = &world.host.status;
    assert_eq!((status.phase, status.stage), (HostPhase::Provisioning, Stage::HandOver));
    assert_eq!((waiting, claimed(&world.host)), (Claimed::NotYet, Claimed::Yes));
    // What the system said of itself before, late or again, is not the claim's.
    for other in [None, Some("uid-s"), Some("another")] {
        assert!(phone_home(&world.host, &world.limits, other, world.now).is_none(), "{other:?}");
    }
    let change = phone_home(&world.host, &world.limits, Some("uid-n1"), world.now).unwrap();
    world.take(change.status);
    world.run_until(HostPhase::Provisioned);
    assert!(world.mutations.is_empty(), "{:?}", world.mutations);
    assert_eq!(claimed(&world.host), Claimed::NotYet, "the data is given for one hand-over only");
    // Given back, it is erased as after any tenancy, and nothing of standby is left.
    assert_eq!(erase_level(&world.host), EraseLevel::Discard);
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Release;
    for _ in 0..10 {
        world.tick(None);
    }
    world.host.status.claim.as_mut().unwrap().state = ClaimState::Erase;
    world.run_until(HostPhase::Available);
    let record = world.host.status.erase.as_ref().unwrap();
    assert_eq!((&record.claim_uid, record.level), (&Uid("uid-n1".into()), EraseLevel::Discard));
}

#[test]
fn a_claim_on_another_image_is_installed_as_on_any_host() {
    let mut world = on_standby();
    world.mutations.clear();
    claim_image(&mut world, "other");
    assert_eq!(world.host.status.stage, Stage::Off);
    world.run_until(HostPhase::Provisioned);
    assert_eq!(world.mutations, ["off", "on"]);
    assert_eq!(world.host.status.standby, None);
}

#[test]
fn a_hand_over_that_does_not_come_about_ends_in_an_installation() {
    let mut world = on_standby();
    claim_image(&mut world, "i");
    world.mutations.clear();
    let deadline = world.now + world.limits.hand_over;
    while world.host.status.stage == Stage::HandOver {
        assert!(world.now <= deadline + SignedDuration::from_secs(1), "it hangs");
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
    assert_eq!(world.host.status.retry.attempts, 1);
    world.run_until(HostPhase::Provisioned);
    assert_eq!(world.mutations, ["off", "on"]);
    assert!(world.host.status.claim.is_some(), "the claim is served on the same host");
}

#[test]
fn one_that_falls_silent_or_off_is_installed_anew_and_given_up_after_some_times() {
    for off in [false, true] {
        let mut world = on_standby();
        for lost in 1..world.limits.attempts {
            world.run_until(HostPhase::Standby);
            if off {
                world.power = PowerState::Off;
            }
            while world.host.status.phase == HostPhase::Standby {
                pass(&mut world, SignedDuration::from_secs(10), off);
            }
            assert_eq!(world.host.status.phase, HostPhase::Provisioning);
            assert_eq!(world.host.status.failure.as_ref().unwrap().cause, Cause::BootSilent);
            assert_eq!(world.host.status.retry.attempts, lost);
        }
        world.run_until(HostPhase::Standby);
        world.power = if off { PowerState::Off } else { world.power };
        while world.host.status.phase == HostPhase::Standby {
            pass(&mut world, SignedDuration::from_secs(10), off);
        }
        assert_eq!(world.host.status.phase, HostPhase::Quarantined);
        pass(&mut world, SignedDuration::from_mins(1), false);
        assert_eq!(world.power, PowerState::Off);
        // Out of quarantine it is erased before it is free.
        let order = HostAction::Unquarantine { reason: "mended".into() };
        let change = crate::host::operator::act(&world.host, &world.limits, &order, "alice", world.now).unwrap();
        world.take(change.status);
        let from = world.phases.len() - 1;
        world.run_until(HostPhase::Available);
        use HostPhase::*;
        assert_eq!(world.phases[from..], [Registering, Inspecting, Deprovisioning, Available]);
    }
}

#[test]
fn one_that_has_stood_by_for_long_has_all_its_attempts_again() {
    let mut world = on_standby();
    world.host.status.retry.attempts = world.limits.attempts - 1;
    let steady = world.limits.standby_steady + SignedDuration::from_mins(1);
    pass(&mut world, steady, true);
    while world.host.status.phase == HostPhase::Standby {
        pass(&mut world, SignedDuration::from_secs(10), false);
    }
    assert_eq!((world.host.status.phase, world.host.status.retry.attempts), (HostPhase::Provisioning, 1));
}

#[test]
fn a_restarted_engine_gives_it_time_to_be_heard_again() {
    let mut world = on_standby();
    pass(&mut world, SignedDuration::from_mins(1), true);
    world.now += SignedDuration::from_hours(8);
    world.limits.listening_since = world.now;
    world.tick(None);
    pass(&mut world, SignedDuration::from_mins(4), false);
    assert_eq!(world.host.status.phase, HostPhase::Standby);
    pass(&mut world, SignedDuration::from_mins(2), false);
    assert_eq!(world.host.status.phase, HostPhase::Provisioning);
}

#[test]
fn a_bmc_that_stays_away_costs_it_nothing_once_it_is_back() {
    let mut world = on_standby();
    let before = world.mutations.clone();
    while world.host.status.phase == HostPhase::Standby {
        world.now += SignedDuration::from_secs(20);
        if let Some(change) = waits(&world.host, &world.limits, world.now) {
            world.take(change.status);
        }
        world.tick(Some(Cause::BmcUnreachable));
    }
    assert_eq!(world.host.status.phase, HostPhase::Error);
    pass(&mut world, SignedDuration::from_mins(20), true);
    assert_eq!((world.host.status.phase, &world.mutations), (HostPhase::Standby, &before));
}

#[test]
fn given_back_it_is_off_and_erased_before_it_is_free() {
    let mut world = on_standby();
    let earlier = world.host.status.erase.clone();
    world.host.status = crate::standby::give_back(&world.host).unwrap().0;
    world.tick(None);
    assert_eq!(world.host.status.phase, HostPhase::Deprovisioning);
    assert_eq!(erase_level(&world.host), EraseLevel::Metadata, "no tenant had it");
    world.run_until(HostPhase::Available);
    assert_eq!((world.power, &world.host.status.standby), (PowerState::Off, &None));
    assert_eq!(world.host.status.erase, earlier, "what is known of the last tenancy stays");
}

#[test]
fn it_is_given_back_from_wherever_it_is() {
    for stage in [Stage::Off, Stage::On, Stage::Work, Stage::FirstBoot] {
        let mut world = World::new();
        world.run_until(HostPhase::Available);
        world.host.status = crate::standby::install(&world.host, wish("i")).unwrap().0;
        world.tick(None);
        while world.host.status.stage != stage {
            world.now += SignedDuration::from_secs(1);
            world.tick(None);
            if stage == Stage::FirstBoot || world.host.status.stage == Stage::Agent {
                world.installer();
            }
        }
        world.host.status = crate::standby::give_back(&world.host).unwrap().0;
        world.run_until(HostPhase::Deprovisioning);
        world.run_until(HostPhase::Available);
        assert_eq!(world.host.status.standby, None, "{stage:?}");
    }
}

#[test]
fn ordered_and_not_begun_it_leaves_no_trace() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    let mutations = world.mutations.clone();
    world.host.status = crate::standby::install(&world.host, wish("i")).unwrap().0;
    world.host.status = crate::standby::give_back(&world.host).unwrap().0;
    world.tick(None);
    assert_eq!((&world.host.status.standby, world.host.status.phase), (&None, HostPhase::Available));
    world.host.status = crate::standby::install(&world.host, wish("i")).unwrap().0;
    let order = HostAction::Maintenance { reason: "fan".into(), until: None };
    let change = crate::host::operator::act(&world.host, &world.limits, &order, "alice", world.now).unwrap();
    world.take(change.status);
    assert_eq!((&world.host.status.standby, world.host.status.phase), (&None, HostPhase::Maintenance));
    assert_eq!(world.mutations, mutations);
}

#[test]
fn maintenance_takes_it_off_standby_first() {
    let mut world = on_standby();
    let order = HostAction::Maintenance { reason: "fan".into(), until: None };
    let change = crate::host::operator::act(&world.host, &world.limits, &order, "alice", world.now).unwrap();
    world.take(change.status);
    let from = world.phases.len() - 1;
    world.run_until(HostPhase::Maintenance);
    use HostPhase::*;
    assert_eq!(world.phases[from..], [Standby, Deprovisioning, Available, Maintenance]);
    assert_eq!(world.power, PowerState::Off);
}

#[test]
fn an_inspection_or_another_bmc_takes_it_off_standby() {
    for declared in [false, true] {
        let mut world = on_standby();
        if declared {
            world.host.spec.bmc.username = "other".into();
            world.host.metadata.generation += 1;
        } else {
            let order = HostAction::Inspect { reason: "new memory".into() };
            let change = crate::host::operator::act(&world.host, &world.limits, &order, "alice", world.now).unwrap();
            world.take(change.status);
        }
        let from = world.phases.iter().rposition(|phase| *phase == HostPhase::Standby).unwrap();
        world.run_until(HostPhase::Available);
        use HostPhase::*;
        assert_eq!(world.phases[from..], [Standby, Registering, Inspecting, Deprovisioning, Available]);
    }
}

#[test]
fn a_crash_at_any_step_of_it_ends_the_same() {
    for crash in 0..40 {
        let mut world = World::new();
        world.run_until(HostPhase::Available);
        world.host.status = crate::standby::install(&world.host, wish("i")).unwrap().0;
        for step in 0..400 {
            world.now += SignedDuration::from_secs(1);
            let decision = crate::host::step(&world.host, &world.limits, world.now);
            if step == crash {
                // The intent is committed, and the engine is gone before or after the effect.
                let kind = kind_of(&decision);
                world.take(decision.status);
                if let Some(kind) = kind {
                    if crash % 2 == 0 {
                        world.perform(kind);
                    }
                    let change = crate::host::recover(&world.host, &world.limits, world.now).unwrap();
                    world.take(change.status);
                }
                continue;
            }
            world.tick(None);
            world.installer();
            if world.host.status.phase == HostPhase::Standby && step > crash {
                break;
            }
        }
        assert_eq!(world.host.status.phase, HostPhase::Standby, "crash at {crash}: {:#?}", world.host.status);
        assert_eq!(world.power, PowerState::On);
    }
}
