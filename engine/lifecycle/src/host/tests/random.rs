//! Anything in any order: what must hold whatever fails, restarts, is ordered or is given back.

use std::collections::BTreeSet;

use proptest::prelude::*;
use vmetal_model::agent::*;

use super::*;
use crate::host::operator::act;

/// An order of an operator, by the seed's choice.
fn an_order(choice: u8) -> HostAction {
    let reason = "because".to_owned();
    match choice {
        0 => HostAction::Pause { reason },
        1 | 2 => HostAction::Resume,
        3 => HostAction::Maintenance { reason, until: None },
        4 => HostAction::Quarantine { reason },
        5 => HostAction::Unquarantine { reason },
        6 => HostAction::Inspect { reason },
        7 => HostAction::Retry,
        8 => HostAction::Power { power: PowerWish::Cycle, reason },
        9 => HostAction::Power { power: PowerWish::On, reason },
        _ => HostAction::ForceRelease { reason },
    }
}

/// Orders another password for the BMC, which may be refused.
fn rotate(world: &mut World) {
    if let Ok(change) = crate::host::rotation::order(&world.host, &world.limits, "because", "alice", world.now) {
        world.take(change.status);
    }
}

/// Orders it; what is refused changes nothing.
fn order(world: &mut World, action: &HostAction) -> bool {
    match act(&world.host, &world.limits, action, "alice", world.now) {
        Ok(change) => {
            assert!(
                change.notes.iter().any(|note| note.message.contains("alice")),
                "an order without a name: {action:?}"
            );
            world.take(change.status);
            true
        }
        Err(refused) => {
            assert!(!refused.message.is_empty() && !refused.advice.is_empty(), "{action:?}");
            false
        }
    }
}

/// One thing that happens.
fn happen(world: &mut World, choice: u8) {
    let state = world.host.status.claim.as_ref().map(|claim| claim.state);
    let set = |world: &mut World, state| world.host.status.claim.as_mut().unwrap().state = state;
    match choice {
        0 => drop(world.tick(Some(Cause::BmcUnreachable))),
        1 => drop(world.tick(Some(Cause::BmcNotApplied))),
        2 => {
            // A crash right after the intent, with or without the effect.
            let decision = step(&world.host, &world.limits, world.now);
            let kind = kind_of(&decision);
            world.take(decision.status);
            if let Some(kind) = kind.filter(|_| world.mutations.len().is_multiple_of(2)) {
                world.perform(kind);
            }
            if let Some(change) = recover(&world.host, &world.limits, world.now) {
                world.take(change.status);
            }
        }
        3 if state.is_none() && world.host.status.phase.is_claimable() => {
            if world.host.status.phase == HostPhase::Available {
                world.host.status.standby = None;
            }
            claim(&mut world.host, ClaimState::Reserved);
        }
        4 if state == Some(ClaimState::Reserved) => {
            set(world, ClaimState::Install);
            world.host.status.claim.as_mut().unwrap().image =
                Some(if world.effects.len().is_multiple_of(3) { "j" } else { "i" }.into());
        }
        5 if state == Some(ClaimState::Install) => set(world, ClaimState::Release),
        6 if state == Some(ClaimState::Release) && world.host.status.stage == Stage::NodeRemoval => {
            set(world, ClaimState::Erase);
        }
        7 => world.now += SignedDuration::from_hours(3),
        8 => {
            let (order, kind) = agent::order(&world.host);
            if world.booted && kind != agent::OrderKind::Wait {
                let (message, advice) = ("disk broke".into(), "replace it".into());
                let body = ReportBody::Failed(AgentFailure { cause: Cause::Disk, message, advice });
                let words = Report { order, sequence: 9, body };
                if let Ok(change) = agent::report(&world.host, &world.limits, &words, world.now) {
                    world.take(change.status);
                }
            }
        }
        9..=11 => world.installer(),
        13 | 14 => {
            let wish = super::standby::wish("i");
            if let Ok((status, _)) = crate::standby::install(&world.host, wish) {
                world.take(status);
            }
        }
        15 => give_back(world),
        16 | 17 => {
            if let Some(change) = agent::waits(&world.host, &world.limits, world.now) {
                world.take(change.status);
            }
        }
        12 => world.serial = if world.serial == "S1" { "S2" } else { "S1" },
        18 => rotate(world),
        20.. => drop(order(world, &an_order(choice - 20))),
        _ => drop(world.tick(None)),
    }
}

fn give_back(world: &mut World) {
    if let Some((status, _)) = crate::standby::give_back(&world.host) {
        world.take(status);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]
    /// Only listed transitions, no tenancy lost without its erase record, no wipe or installation for anyone but the claim,
    /// nothing done to a paused host (all of these are checked by the world at every change); a reason to wait, with an end
    /// or with an order that ends it, in every state; and once faults stop, the host comes to rest in the pool.
    #[test]
    fn faults_and_orders_in_any_order_leave_a_host_that_can_be_used_again(choices in prop::collection::vec(0u8..=30, 0..200)) {
        let mut world = World::new();
        let mut seen = BTreeSet::new();
        for choice in choices {
            world.now += SignedDuration::from_secs(i64::from(choice % 13) * 7);
            happen(&mut world, choice);
            seen.insert(world.host.status.phase);
            let status = &world.host.status;
            prop_assert!(status.phase != HostPhase::Available || status.claim.as_ref().is_none_or(|c| c.state != ClaimState::Erase));
            prop_assert!(!matches!(status.phase, HostPhase::Provisioned) || status.claim.is_some());
            prop_assert!(status.phase != HostPhase::Standby || status.standby.is_some() && status.unerased.is_none());
            prop_assert!(status.phase != HostPhase::Quarantined || status.claim.is_none() && status.quarantine.is_some());
            waits::check(&world);
        }
        // Faults stop, the claim, if any, is given back, and an operator ends what was ordered and tries again what had been
        // given up.
        if let Some(c) = &mut world.host.status.claim { c.state = ClaimState::Erase }
        for _ in 0..600 {
            order(&mut world, &HostAction::Resume);
            match world.host.status.phase {
                HostPhase::Error => drop(order(&mut world, &HostAction::Retry)),
                HostPhase::Quarantined => drop(order(&mut world, &HostAction::Unquarantine { reason: "mended".into() })),
                _ => {}
            }
            give_back(&mut world);
            world.now += SignedDuration::from_secs(2);
            world.tick(None);
            world.installer();
        }
        prop_assert_eq!(world.host.status.phase, HostPhase::Available, "{:#?}", world.host.status);
        prop_assert!(world.host.status.claim.is_none() && world.power == PowerState::Off);
        prop_assert!(world.host.status.unerased.is_none());
    }
}
