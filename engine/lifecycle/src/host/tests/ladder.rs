//! What is tried, in which order, and where it ends.

use super::*;

/// Drives an installation to the given stage.
fn installing(stage: Stage) -> World {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    claim(&mut world.host, ClaimState::Install);
    while !(world.host.status.phase == HostPhase::Provisioning && world.host.status.stage == stage) {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
    world
}

/// Has one effect fail, again and again, until the phase changes.
fn fail_always(world: &mut World, broken: OperationKind, cause: Cause) {
    let phase = world.host.status.phase;
    for _ in 0..400 {
        world.now += SignedDuration::from_secs(20);
        let fails = kind_of(&step(&world.host, &world.limits, world.now)) == Some(broken);
        world.tick(fails.then_some(cause));
        if world.host.status.phase != phase {
            return;
        }
    }
    panic!("never given up: {:#?}", world.host.status);
}

#[test]
fn a_server_that_does_not_switch_on_has_its_bmc_restarted_and_its_power_drained_before_it_is_given_up() {
    let mut world = installing(Stage::On);
    world.mutations.clear();
    fail_always(&mut world, OperationKind::PowerOn, Cause::BmcNotApplied);
    assert_eq!(world.mutations, ["reset"], "the BMC is restarted once; a host that is off already is not switched off");
    let status = &world.host.status;
    assert_eq!((status.phase, status.failed_phase), (HostPhase::Error, Some(HostPhase::Provisioning)));
    // It is tried again by itself, without another restart, and the claim waits for it only so long.
    let gone = world.now + world.limits.claim_patience + SignedDuration::from_mins(20);
    while world.now < gone && world.host.status.claim.is_some() {
        world.now += SignedDuration::from_secs(20);
        let fails = kind_of(&step(&world.host, &world.limits, world.now)) == Some(OperationKind::PowerOn);
        world.tick(fails.then_some(Cause::BmcNotApplied));
    }
    assert_eq!(world.mutations.iter().filter(|m| **m == "reset").count(), 1);
    let status = &world.host.status;
    assert_eq!(status.phase, HostPhase::Quarantined);
    let ended = status.lost_by(&Uid("uid-n1".into())).expect("the claim can tell that it lost the host");
    assert_eq!((ended.end, ended.failure.cause), (TenancyEnd::Failed, Cause::BmcNotApplied));
}

#[test]
fn a_bmc_that_cannot_be_restarted_is_no_dead_end() {
    let mut world = installing(Stage::On);
    for _ in 0..400 {
        world.now += SignedDuration::from_secs(20);
        let kind = kind_of(&step(&world.host, &world.limits, world.now));
        let fails = matches!(kind, Some(OperationKind::PowerOn | OperationKind::ResetBmc));
        world.tick(fails.then_some(Cause::BmcProtocol));
        if world.host.status.phase == HostPhase::Error {
            break;
        }
    }
    assert_eq!(world.host.status.phase, HostPhase::Error);
}

#[test]
fn a_claim_whose_host_fails_for_good_is_let_go_and_the_host_kept_out_of_the_pool() {
    let mut world = installing(Stage::Agent);
    for _ in 0..2000 {
        let next = world.tick(None);
        world.now = world.now.max(next.unwrap_or(world.now)) + SignedDuration::from_secs(1);
        if world.host.status.phase == HostPhase::Quarantined && world.host.status.stage == Stage::Idle {
            break;
        }
    }
    let status = world.host.status.clone();
    assert_eq!((status.phase, &status.claim, &status.boot), (HostPhase::Quarantined, &None, &None));
    assert_eq!(world.power, PowerState::Off, "nothing of the tenancy goes on there");
    let ended = status.lost_by(&Uid("uid-n1".into())).unwrap();
    assert_eq!(ended.failure.cause, Cause::AgentSilent);
    assert!(status.lost_by(&Uid("another".into())).is_none());
    // Whatever time passes or is declared: it stays there.
    world.host.metadata.generation += 1;
    for _ in 0..50 {
        world.now += SignedDuration::from_hours(1);
        world.tick(None);
        assert_eq!(world.host.status.phase, HostPhase::Quarantined);
    }
    // Released from quarantine, it is erased for the tenancy that ended, and looked at anew.
    let order = HostAction::Unquarantine { reason: "cable replaced".into() };
    let change = crate::host::operator::act(&world.host, &world.limits, &order, "alice", world.now).unwrap();
    world.take(change.status);
    let from = world.phases.len() - 1;
    world.run_until(HostPhase::Available);
    use HostPhase::*;
    assert_eq!(world.phases[from..], [Deprovisioning, Registering, Inspecting, Available]);
    assert_eq!(world.host.status.erase.as_ref().unwrap().claim_uid, Uid("uid-n1".into()));
}

#[test]
fn the_power_is_drained_before_the_last_network_boot() {
    let mut world = World::new();
    let mut drained = Vec::new();
    while world.host.status.phase != HostPhase::Error {
        let next = world.tick(None);
        let status = &world.host.status;
        if status.stage == Stage::Drain {
            drained.push((status.retry.attempts, world.power));
        }
        world.now = world.now.max(next.unwrap_or(world.now)) + SignedDuration::from_millis(1);
    }
    assert!(drained.iter().all(|(attempts, _)| *attempts + 1 == world.limits.attempts), "{drained:?}");
    assert!(drained.iter().any(|(_, power)| *power == PowerState::Off));
}

#[test]
fn a_declaration_that_is_wrong_costs_no_server() {
    for cause in [Cause::Image, Cause::RootDevice] {
        let mut world = installing(Stage::Agent);
        world.host.status.boot.as_mut().unwrap().called_in = Some(world.now);
        let (order, _) = agent::order(&world.host);
        let body = ReportBody::Failed(AgentFailure { cause, message: "m".into(), advice: "a".into() });
        let words = Report { order, sequence: 1, body };
        let change = agent::report(&world.host, &world.limits, &words, world.now).unwrap();
        world.take(change.status);
        assert_eq!(world.host.status.phase, HostPhase::Error, "{cause}");
        assert!(world.host.status.claim.is_some());
    }
}

#[test]
fn another_machine_behind_the_bmc_is_found_at_the_next_registration() {
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    world.host.spec.bmc.password_version = "2".into();
    world.host.metadata.generation += 1;
    world.serial = "S2";
    world.mutations.clear();
    for _ in 0..50 {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
    let status = &world.host.status;
    assert_eq!((status.phase, world.mutations.len()), (HostPhase::Quarantined, 0), "{status:#?}");
    let failure = status.failure.as_ref().unwrap();
    assert!(failure.message.contains("S1") && failure.message.contains("S2"), "{failure}");
    // Another BMC or boot interface is declared: that is another server, and no surprise.
    let mut world = World::new();
    world.run_until(HostPhase::Available);
    world.host.spec.boot_mac = "52:54:00:00:00:77".parse().unwrap();
    world.host.metadata.generation += 1;
    world.serial = "S2";
    world.tick(None);
    world.run_until(HostPhase::Available);
    assert_eq!(world.host.status.inventory.as_ref().unwrap().identity.serial.as_deref(), Some("S2"));
}

#[test]
fn a_server_without_disks_does_not_reach_the_pool() {
    let mut world = World::new();
    let mut asked = 0;
    for _ in 0..400 {
        world.now += SignedDuration::from_secs(3);
        world.tick(None);
        let (order, kind) = agent::order(&world.host);
        if world.booted && kind == agent::OrderKind::Inspect {
            asked += 1;
            let body = ReportBody::Inspected { inventory: Box::default() };
            let change = agent::report(&world.host, &world.limits, &Report { order, sequence: 1, body }, world.now);
            world.take(change.unwrap().status);
        }
        assert_ne!(world.host.status.phase, HostPhase::Available);
    }
    let failure = world.host.status.failure.as_ref().unwrap();
    assert_eq!((world.host.status.phase, failure.cause, asked), (HostPhase::Error, Cause::Inspection, 3));
    assert!(failure.message.contains("no disk") && !failure.advice.is_empty());
}

#[test]
fn a_stage_that_misses_its_deadline_says_so_and_climbs() {
    let mut world = World::new();
    while world.host.status.stage != Stage::BootDevice {
        world.now += SignedDuration::from_secs(1);
        world.tick(None);
    }
    // A BMC that asks for patience, for ever: its pauses do not outlast the stage.
    let decision = step(&world.host, &world.limits, world.now);
    world.take(decision.status);
    let id = world.host.status.operation.as_ref().unwrap().id;
    let setback = Setback { failure: failure_at(Cause::BmcNotApplied, world.now), not_before: Some(Timestamp::MAX) };
    let change = outcome(&world.host, &world.limits, id, Err(setback), world.now).unwrap();
    world.take(change.status);
    let next = world.tick(None).unwrap();
    assert!(next <= world.now + world.limits.bmc, "{next}");
    world.now = next;
    let decision = step(&world.host, &world.limits, world.now);
    assert!(decision.notes.iter().any(|note| note.reason == "deadline"), "{:?}", decision.notes);
    assert_eq!(decision.status.stage, Stage::ResetBmc);
    assert_eq!(decision.status.breach.as_ref().unwrap().stage, Stage::BootDevice);
}
