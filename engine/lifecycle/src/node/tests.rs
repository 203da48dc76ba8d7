#![allow(clippy::unwrap_used, reason = "tests")]
//! A claim driven through its life by hand-made outcomes.

use jiff::{SignedDuration, Timestamp};
use vmetal_model::*;

use super::{Decision, *};

fn node() -> TenantNode {
    let now = Timestamp::UNIX_EPOCH;
    Object {
        metadata: Metadata {
            name: "n1".into(),
            uid: Uid("uid-n1".into()),
            generation: 1,
            revision: 0,
            labels: Default::default(),
            annotations: Default::default(),
            created: now,
            deleted: None,
        },
        spec: TenantNodeSpec { cluster: "c1".into(), ..Default::default() },
        status: TenantNodeStatus::new(now),
    }
}

fn choice(reason: &str) -> Choice {
    Choice {
        node_type: None,
        host: None,
        cost: None,
        reason: reason.into(),
        node_types: vec![],
        hosts: vec![],
        policies: vec![],
        input_digest: "d".into(),
        at: Timestamp::UNIX_EPOCH,
        log: None,
    }
}

struct World {
    node: TenantNode,
    host: Option<Host>,
    now: Timestamp,
    limits: Limits,
    notes: Vec<Note>,
}

impl World {
    fn new() -> Self {
        World { node: node(), host: None, now: Timestamp::UNIX_EPOCH, limits: Limits::default(), notes: vec![] }
    }

    fn take(&mut self, decision: Decision) -> (Option<Effect>, Fate) {
        assert!(node_may(self.node.status.phase, decision.status.phase));
        self.node.status = decision.status;
        self.notes.extend(decision.notes);
        // As the engine does it: what is not the claim's is not its to change.
        let claim = self.host.as_mut().and_then(|host| host.status.claim.as_mut());
        if let (Some(state), Some(claim)) = (decision.claim, claim) {
            claim.state = state;
        }
        (decision.effect, decision.fate)
    }

    fn step(&mut self) -> (Option<Effect>, Fate) {
        let decision = step(View { node: &self.node, host: self.host.as_ref() }, &self.limits, self.now);
        self.take(decision)
    }

    fn done(&mut self, effect: Effect, effected: Effected) {
        assert_eq!(self.step().0, Some(effect), "in {:?}", self.node.status.phase);
        self.outcome(effect, Ok(effected));
    }

    fn outcome(&mut self, effect: Effect, result: Result<Effected, Failure>) {
        let view = View { node: &self.node, host: self.host.as_ref() };
        let decision = outcome(view, &self.limits, effect, result, self.now);
        self.take(decision);
    }

    fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn reserve(&mut self) {
        let mut host = crate::host::tests::host();
        host.status.claim = Some(Claim {
            node: "n1".into(),
            uid: Uid("uid-n1".into()),
            state: ClaimState::Reserved,
            since: self.now,
            image: None,
            lease: None,
        });
        let uid = host.metadata.uid.clone();
        self.host = Some(host);
        self.done(Effect::Decide, Effected::Decided(choice("cheapest"), Some(("h1".into(), uid))));
    }

    fn prepare(&mut self) {
        let prepared = Effected::Prepared {
            token_id: "abcdef".into(),
            node_name: "n1".into(),
            provider_id: "vmetal://uid-h1".into(),
            image: "digest".into(),
        };
        self.done(Effect::PrepareJoin, prepared);
    }

    fn phase(&self) -> Phase {
        self.node.status.phase
    }

    fn claim(&self) -> ClaimState {
        self.host.as_ref().unwrap().status.claim.as_ref().unwrap().state
    }

    fn become_ready(&mut self) {
        self.reserve();
        self.prepare();
        self.host.as_mut().unwrap().status.phase = HostPhase::Provisioned;
        self.step();
        self.done(Effect::CheckNode, Effected::Seen(Sight::Absent));
        self.later(3);
        self.done(Effect::CheckNode, Effected::Seen(Sight::NotReady(vec!["taint not-ready".into()])));
        self.later(3);
        self.done(Effect::CheckNode, Effected::Seen(Sight::Ready { uid: "k8s-1".into() }));
        assert_eq!(self.phase(), Phase::Joining, "not ready before the token is gone");
        self.done(Effect::RevokeToken, Effected::Revoked);
        assert_eq!((self.phase(), &self.node.status.token_id), (Phase::Ready, &None));
    }
}

fn failure(cause: Cause) -> Failure {
    Failure { cause, message: "it broke".into(), advice: "mend it".into(), at: Timestamp::UNIX_EPOCH }
}

#[test]
fn a_claim_becomes_a_ready_node_and_goes_back_in_order() {
    let mut world = World::new();
    world.become_ready();
    world.node.metadata.deleted = Some(world.now);
    let held = DrainPass::Remaining { leaving: vec!["a/b".into()], held: vec!["c/d".into()] };
    world.done(Effect::Drain, Effected::Drained(held));
    assert!(world.node.status.wait.as_ref().unwrap().unblocks.contains("c/d"), "the budget that holds is named");
    assert_eq!(world.claim(), ClaimState::Install, "power stays on while pods leave");
    world.later(6);
    world.done(Effect::Drain, Effected::Drained(DrainPass::Empty));
    assert_eq!((world.phase(), world.claim()), (Phase::Released, ClaimState::Release));
    assert_eq!(world.step().0, None, "the Node is not deleted while the host is on");
    world.host.as_mut().unwrap().status.stage = Stage::NodeRemoval;
    world.done(Effect::DeleteNode, Effected::Deleted);
    assert_eq!(world.claim(), ClaimState::Erase);
    assert_eq!(world.step(), (None, Fate::Keep), "the claim stays until the host is erased");
    let host = &mut world.host.as_mut().unwrap().status;
    (host.claim, host.phase) = (None, HostPhase::Deprovisioning);
    assert_eq!(world.step().1, Fate::Keep, "not gone before the host is in the pool");
    world.host.as_mut().unwrap().status.phase = HostPhase::Available;
    assert_eq!(world.step().1, Fate::Remove);
}

#[test]
fn no_candidate_is_said_once_and_asked_again() {
    let mut world = World::new();
    for _ in 0..3 {
        world.done(Effect::Decide, Effected::Decided(choice("0 of 2 hosts: 2 label gpu"), None));
        world.later(61);
    }
    assert_eq!(world.notes.iter().filter(|note| note.reason == "unschedulable").count(), 1);
    let failure = world.node.status.failure.clone().unwrap();
    assert_eq!((failure.cause, failure.at), (Cause::NoCandidate, Timestamp::UNIX_EPOCH));
    world.reserve();
    assert_eq!((world.phase(), &world.node.status.failure), (Phase::Scheduled, &None));
}

#[test]
fn a_join_that_never_happens_ends_at_its_deadline_with_what_was_last_seen() {
    let mut world = World::new();
    world.reserve();
    world.prepare();
    world.host.as_mut().unwrap().status.phase = HostPhase::Provisioned;
    world.step();
    world.done(Effect::CheckNode, Effected::Seen(Sight::NotReady(vec!["network plugin not ready".into()])));
    world.later(21 * 60);
    world.step();
    let failure = world.node.status.failure.clone().unwrap();
    assert_eq!((world.phase(), failure.cause), (Phase::Failed, Cause::Join));
    assert!(failure.message.contains("network plugin not ready"), "{failure}");
}

#[test]
fn a_foreign_node_is_never_adopted_and_never_deleted() {
    let mut world = World::new();
    world.reserve();
    world.prepare();
    world.host.as_mut().unwrap().status.phase = HostPhase::Provisioned;
    world.step();
    world.done(Effect::CheckNode, Effected::Seen(Sight::Foreign("provider id aws://1".into())));
    assert_eq!((world.phase(), world.node.status.failure.as_ref().unwrap().cause), (Phase::Failed, Cause::ForeignNode));
    assert_eq!(world.step().0, None);
}

#[test]
fn a_host_in_error_fails_the_claim_and_its_recovery_goes_on() {
    let mut world = World::new();
    world.reserve();
    world.prepare();
    let host = world.host.as_mut().unwrap();
    host.status.phase = HostPhase::Error;
    host.status.failure = Some(failure(Cause::RootDevice));
    world.step();
    let seen = world.node.status.failure.clone().unwrap();
    assert_eq!((world.phase(), seen.cause), (Phase::Failed, Cause::RootDevice));
    assert!(seen.message.contains("h1"), "{seen}");
    world.host.as_mut().unwrap().status.phase = HostPhase::Provisioning;
    world.step();
    assert_eq!(world.phase(), Phase::Provisioning);
}

#[test]
fn an_effect_that_fails_is_repeated_after_a_pause() {
    let mut world = World::new();
    world.reserve();
    assert_eq!(world.step().0, Some(Effect::PrepareJoin));
    world.outcome(Effect::PrepareJoin, Err(failure(Cause::TenantUnreachable)));
    assert_eq!(world.step().0, None, "not before the pause is over");
    world.later(10);
    world.prepare();
    assert_eq!(world.phase(), Phase::Provisioning);
}

#[test]
fn a_claim_without_host_is_deleted_at_once_and_a_vanished_cluster_does_not_keep_the_host() {
    let mut world = World::new();
    world.node.metadata.deleted = Some(world.now);
    assert_eq!(world.step().1, Fate::Remove);
    let mut world = World::new();
    world.become_ready();
    world.node.metadata.deleted = Some(world.now);
    assert_eq!(world.step().0, Some(Effect::Drain));
    world.outcome(Effect::Drain, Err(failure(Cause::TenantUnreachable)));
    world.later(1801);
    world.step();
    assert_eq!((world.phase(), world.claim()), (Phase::Released, ClaimState::Release));
}

#[test]
fn what_cannot_be_prepared_ends_at_its_deadline_and_a_node_that_cannot_be_deleted_does_not_keep_the_host() {
    let mut world = World::new();
    world.reserve();
    assert_eq!(world.step().0, Some(Effect::PrepareJoin));
    world.outcome(Effect::PrepareJoin, Err(failure(Cause::TenantSetup)));
    world.later(31 * 60);
    world.step();
    let seen = world.node.status.failure.clone().unwrap();
    assert_eq!((world.phase(), seen.cause), (Phase::Failed, Cause::TenantSetup));
    assert!(seen.message.contains("it broke"), "{seen}");

    let mut world = World::new();
    world.become_ready();
    world.node.metadata.deleted = Some(world.now);
    world.done(Effect::Drain, Effected::Drained(DrainPass::Empty));
    world.host.as_mut().unwrap().status.stage = Stage::NodeRemoval;
    for _ in 0..2 {
        assert_eq!(world.step().0, Some(Effect::DeleteNode));
        world.outcome(Effect::DeleteNode, Err(failure(Cause::TenantUnreachable)));
        world.later(11 * 60);
    }
    assert_eq!(world.claim(), ClaimState::Erase);
}

#[test]
fn a_reported_join_failure_carries_the_end_of_the_log() {
    let mut world = World::new();
    world.reserve();
    world.prepare();
    let view = View { node: &world.node, host: world.host.as_ref() };
    let decision = join_failed(view, &world.limits, "a\nb\n\nerror: no route to host\n", world.now).unwrap();
    assert!(decision.status.failure.as_ref().unwrap().message.contains("no route to host"));
    assert_eq!(decision.status.phase, Phase::Failed);
    assert!(join_failed(View { node: &node(), host: None }, &world.limits, "x", world.now).is_none());
}

#[test]
fn a_lost_call_after_the_drain_deadline_does_not_cost_the_pods_their_budget() {
    let held = || Effected::Drained(DrainPass::Remaining { leaving: vec![], held: vec!["c/d".into()] });
    let mut world = World::new();
    world.become_ready();
    world.node.metadata.deleted = Some(world.now);
    assert_eq!(world.step().0, Some(Effect::Drain));
    world.outcome(Effect::Drain, Err(failure(Cause::TenantUnreachable)));
    world.later(10);
    world.done(Effect::Drain, held());
    world.later(1801);
    world.done(Effect::Drain, held());
    assert_eq!(world.phase(), Phase::Draining, "trouble that is over does not count");
    world.later(10);
    assert_eq!(world.step().0, Some(Effect::Drain));
    let lost = Failure { at: world.now, ..failure(Cause::TenantUnreachable) };
    world.outcome(Effect::Drain, Err(lost.clone()));
    world.later(130);
    assert_eq!(world.step().0, Some(Effect::Drain), "one lost call is not a lost cluster");
    world.outcome(Effect::Drain, Err(Failure { at: world.now, ..lost }));
    world.later(601);
    world.step();
    assert_eq!(world.phase(), Phase::Released, "a cluster that stays away does not keep the host");
}

#[test]
fn a_claim_that_failed_before_its_join_was_prepared_stays_failed() {
    let mut world = World::new();
    world.reserve();
    world.host.as_mut().unwrap().status.phase = HostPhase::Provisioning;
    world.later(31 * 60);
    world.step();
    assert_eq!(world.phase(), Phase::Failed);
    assert!(!world.node.status.failure.as_ref().unwrap().advice.is_empty());
    for _ in 0..3 {
        world.step();
        assert_eq!(world.phase(), Phase::Failed, "its host waits for a seed that nobody makes");
    }
}

#[test]
fn a_ready_node_that_is_replaced_by_the_tenant_is_said_and_left_alone() {
    let mut world = World::new();
    world.become_ready();
    world.later(61);
    world.done(Effect::CheckNode, Effected::Seen(Sight::Foreign("provider id aws://1".into())));
    assert_eq!((world.phase(), world.claim()), (Phase::Ready, ClaimState::Install));
    assert!(world.node.status.failure.as_ref().unwrap().message.contains("aws://1"));
    assert_eq!(world.step().0, None, "looked at again after a pause");
}

#[test]
fn what_was_seen_while_the_host_reported_a_failed_join_does_not_hide_the_report() {
    let mut world = World::new();
    world.reserve();
    world.prepare();
    world.host.as_mut().unwrap().status.phase = HostPhase::Provisioned;
    world.step();
    assert_eq!(world.step().0, Some(Effect::CheckNode));
    let view = View { node: &world.node, host: world.host.as_ref() };
    let long = format!("{}\nno route to host", "x".repeat(5000));
    let decision = join_failed(view, &world.limits, &long, world.now).unwrap();
    world.take(decision);
    for result in [Ok(Effected::Seen(Sight::Absent)), Err(failure(Cause::TenantUnreachable))] {
        world.outcome(Effect::CheckNode, result);
        world.step();
        let seen = world.node.status.failure.clone().unwrap();
        assert_eq!((world.phase(), seen.cause), (Phase::Failed, Cause::Join));
        assert!(seen.message.contains("no route to host") && seen.message.len() < 1000, "{seen}");
    }
}

#[test]
fn the_same_answer_with_another_digest_is_not_written_again() {
    let mut world = World::new();
    let answer = |digest: &str, at: i64| Choice {
        input_digest: digest.into(),
        at: Timestamp::from_second(at).unwrap(),
        ..choice("0 of 2 hosts")
    };
    world.done(Effect::Decide, Effected::Decided(answer("one", 1), None));
    let before = world.node.status.clone();
    world.later(61);
    world.done(Effect::Decide, Effected::Decided(answer("two", 2), None));
    assert_eq!(world.node.status, before);
}

/// A claim whose host failed while it was installed.
fn failed_on_h1() -> World {
    let mut world = World::new();
    world.reserve();
    world.prepare();
    let host = world.host.as_mut().unwrap();
    host.status.phase = HostPhase::Error;
    host.status.failure = Some(failure(Cause::Disk));
    world.step();
    assert_eq!((world.phase(), world.node.status.recourse), (Phase::Failed, Some(Recourse::Looking)));
    world
}

fn another(host: Option<&str>) -> Effected {
    let choice = Choice { host: host.map(Into::into), ..choice("0 of 1 hosts: 1 claimed") };
    Effected::Decided(choice, None)
}

#[test]
fn a_failed_claim_leaves_its_host_in_order_and_is_decided_on_again() {
    let mut world = failed_on_h1();
    let chosen = world.node.status.decision.clone();
    world.done(Effect::Decide, another(None));
    let wait = world.node.status.wait.clone().unwrap();
    assert!(wait.unblocks.contains("no other host is free: 0 of 1 hosts"), "{wait:?}");
    assert_eq!((world.node.status.recourse, &world.node.status.decision), (None, &chosen), "nothing else changed");
    world.done(Effect::Decide, another(Some("h2")));
    assert_eq!(world.node.status.recourse, Some(Recourse::Leaving));
    assert_eq!(world.node.status.tried[0].host, "h1");
    assert_eq!(world.claim(), ClaimState::Install, "not before the token is gone");
    world.done(Effect::RevokeToken, Effected::Revoked);
    assert_eq!((world.step().0, world.claim()), (None, ClaimState::Release));
    world.host.as_mut().unwrap().status.phase = HostPhase::Deprovisioning;
    assert_eq!(world.step().0, None, "the Node is not deleted while the host is on");
    world.host.as_mut().unwrap().status.stage = Stage::NodeRemoval;
    world.done(Effect::DeleteNode, Effected::Deleted);
    assert_eq!(world.claim(), ClaimState::Erase);
    world.step();
    let status = &world.node.status;
    assert_eq!(
        (status.phase, &status.host, &status.provider_id, &status.token_id),
        (Phase::Pending, &None, &None, &None)
    );
    assert!(status.has_tried(&Uid("uid-h1".into())), "{status:?}");
    assert_eq!(world.step().0, Some(Effect::Decide));
}

#[test]
fn a_claim_that_leaves_waits_for_its_host_to_be_off() {
    let mut world = failed_on_h1();
    world.done(Effect::Decide, another(Some("h2")));
    world.done(Effect::RevokeToken, Effected::Revoked);
    world.step();
    // The host tries to obey, and fails again.
    assert_eq!((world.claim(), world.host.as_ref().unwrap().status.phase), (ClaimState::Release, HostPhase::Error));
    assert_eq!(world.step().0, None, "its kubelet would make the Node again");
    let wait = world.node.status.wait.clone().unwrap();
    assert!(wait.unblocks.contains("--force"), "{wait:?}");
    let host = world.host.as_mut().unwrap();
    (host.status.phase, host.status.stage) = (HostPhase::Deprovisioning, Stage::NodeRemoval);
    world.done(Effect::DeleteNode, Effected::Deleted);
    world.step();
    assert_eq!(world.phase(), Phase::Pending);
}

#[test]
fn a_claim_that_has_used_up_its_hosts_or_that_no_host_can_help_stays() {
    let mut world = failed_on_h1();
    for n in 0..world.limits.hosts_per_claim - 1 {
        let tried = TriedHost { host: format!("x{n}"), host_uid: Uid(format!("x{n}")), failure: failure(Cause::Disk) };
        world.node.status.tried.push(tried);
    }
    world.node.status.recourse = None;
    world.node.status.wait = None;
    assert_eq!(world.step().0, None);
    assert!(world.node.status.wait.as_ref().unwrap().unblocks.contains("no more hosts"), "{:?}", world.node.status);

    let mut world = World::new();
    world.reserve();
    world.prepare();
    let host = world.host.as_mut().unwrap();
    host.status.phase = HostPhase::Error;
    host.status.failure = Some(failure(Cause::Image));
    world.step();
    assert_eq!((world.phase(), world.node.status.recourse), (Phase::Failed, None));
    assert_eq!(world.step().0, None);
}

#[test]
fn the_host_that_was_given_up_has_no_say_any_more() {
    let mut world = failed_on_h1();
    world.done(Effect::Decide, another(Some("h2")));
    let given_up = world.host.take().unwrap();
    world.done(Effect::RevokeToken, Effected::Revoked);
    world.done(Effect::DeleteNode, Effected::Deleted);
    world.step();
    assert_eq!(world.phase(), Phase::Pending, "a host that is gone is not waited for");
    world.reserve();
    world.prepare();
    let first = world.host.as_mut().unwrap();
    first.metadata.uid = Uid("uid-h2".into());
    first.status.claim.as_mut().unwrap().uid = Uid("another".into());
    let view = View { node: &world.node, host: Some(&given_up) };
    assert!(join_failed(view, &world.limits, "late", world.now).is_some(), "asked about a host that it holds");
    let view = View { node: &world.node, host: world.host.as_ref() };
    assert!(join_failed(view, &world.limits, "late", world.now).is_none(), "another's host");
}

#[test]
fn a_policy_without_an_answer_does_not_hide_what_failed() {
    let mut world = failed_on_h1();
    assert_eq!(world.step().0, Some(Effect::Decide));
    world.outcome(Effect::Decide, Err(failure(Cause::Policy)));
    assert_eq!(world.node.status.failure.as_ref().unwrap().cause, Cause::Disk);
    assert_eq!(world.step().0, None, "asked again after a pause");
}

#[test]
fn a_group_that_is_not_whole_waits_without_a_failure() {
    let mut world = World::new();
    world.node.spec.group = Some(GroupSpec { name: "g".into(), size: 2, same: None });
    world.done(Effect::Decide, Effected::Gathering("1 of the 2 members".into()));
    let status = &world.node.status;
    assert_eq!((&status.failure, status.wait.as_ref().unwrap().reason.as_str()), (&None, "group g to be whole"));
}

/// The host ended the tenancy: installing failed for good, or somebody took it away.
fn lose(world: &mut World, end: TenancyEnd) {
    let status = &mut world.host.as_mut().unwrap().status;
    let claim = status.claim.take().unwrap();
    status.phase = HostPhase::Quarantined;
    status.unerased = Some(EndedTenancy {
        lease: None,
        node: claim.node,
        uid: claim.uid,
        since: claim.since,
        ended: world.now,
        end,
        failure: failure(Cause::Disk),
    });
}

#[test]
fn a_claim_whose_host_is_quarantined_goes_to_another_without_waiting_for_the_first() {
    let mut world = World::new();
    world.reserve();
    world.prepare();
    lose(&mut world, TenancyEnd::Failed);
    world.step();
    let seen = world.node.status.failure.clone().unwrap();
    assert_eq!((world.phase(), seen.cause, seen.message.as_str()), (Phase::Failed, Cause::Disk, "host h1: it broke"));
    world.done(Effect::Decide, another(None));
    assert_eq!(world.phase(), Phase::Failed, "nowhere to go");
    world.done(Effect::Decide, another(Some("h2")));
    world.done(Effect::RevokeToken, Effected::Revoked);
    world.done(Effect::DeleteNode, Effected::Deleted);
    world.step();
    assert_eq!((world.phase(), world.node.status.tried.len()), (Phase::Pending, 1));
}

#[test]
fn a_lost_host_that_was_put_in_order_is_as_good_as_any() {
    let mut world = World::new();
    world.reserve();
    lose(&mut world, TenancyEnd::Forced);
    world.step();
    world.done(Effect::Decide, another(Some("h1")));
    world.step();
    assert_eq!((world.phase(), world.node.status.tried.len()), (Phase::Pending, 0), "nothing was prepared yet");
}

#[test]
fn a_ready_node_whose_host_was_taken_away_is_deleted_from_the_cluster() {
    for deleted in [false, true] {
        let mut world = World::new();
        world.become_ready();
        lose(&mut world, TenancyEnd::Forced);
        if deleted {
            world.node.metadata.deleted = Some(world.now);
            world.done(Effect::Drain, Effected::Drained(DrainPass::Empty));
            world.done(Effect::DeleteNode, Effected::Deleted);
            assert_eq!(world.step().1, Fate::Remove);
        } else {
            world.step();
            assert_eq!((world.phase(), world.node.status.recourse), (Phase::Failed, Some(Recourse::Looking)));
            world.done(Effect::Decide, another(Some("h2")));
            world.done(Effect::DeleteNode, Effected::Deleted);
            world.step();
            assert_eq!(world.phase(), Phase::Pending);
        }
    }
}

#[test]
fn a_claim_that_pauses_hears_at_once_that_its_host_is_lost() {
    let mut world = World::new();
    world.become_ready();
    world.later(60);
    let away = Failure { at: world.now, ..failure(Cause::TenantUnreachable) };
    world.outcome(Effect::CheckNode, Err(away));
    assert!(world.node.status.not_before.is_some_and(|until| until > world.now), "{:?}", world.node.status);
    lose(&mut world, TenancyEnd::Forced);
    world.step();
    assert_eq!(world.phase(), Phase::Failed);
}

#[test]
fn a_pause_that_a_wrong_clock_has_set_is_over() {
    let mut world = World::new();
    world.reserve();
    world.later(5000);
    world.outcome(Effect::PrepareJoin, Err(Failure { at: world.now, ..failure(Cause::ImagePending) }));
    assert_eq!(world.step().0, None, "it pauses");
    // The clock is set right.
    world.later(-4000);
    assert_eq!(world.step().0, Some(Effect::PrepareJoin));
}

#[test]
fn the_import_of_an_image_has_its_own_time_and_what_comes_after_it_too() {
    let mut world = World::new();
    world.reserve();
    let held_up = |world: &mut World, cause| {
        assert_eq!(world.step().0, Some(Effect::PrepareJoin), "given up: {:?}", world.node.status.failure);
        let failure = Failure { at: world.now, ..failure(cause) };
        world.outcome(Effect::PrepareJoin, Err(failure));
    };
    let seed = world.limits.seed.as_secs();
    held_up(&mut world, Cause::ImagePending);
    world.later(3 * seed);
    held_up(&mut world, Cause::ImagePending);
    // Imported; now the cluster is away, for nearly as long as it may be.
    world.later(300);
    held_up(&mut world, Cause::TenantUnreachable);
    world.later(seed - 10);
    held_up(&mut world, Cause::TenantUnreachable);
    world.later(300);
    world.step();
    assert_eq!(world.phase(), Phase::Failed);

    let mut world = World::new();
    world.reserve();
    for _ in 0..100 {
        if world.step().0.is_none() {
            break;
        }
        let failure = Failure { at: world.now, ..failure(Cause::ImagePending) };
        world.outcome(Effect::PrepareJoin, Err(failure));
        world.later(600);
    }
    assert_eq!(world.phase(), Phase::Failed, "not for ever");
    assert_eq!(world.node.status.failure.as_ref().unwrap().cause, Cause::ImagePending);
}
