//! Orders about hosts, as `vmetal host ...` gives them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use vmetal_api::{Backend as _, BackendError, Secret};
use vmetal_model::{Cause, Host, HostAction, PowerWish};

use super::{Said, backend, caller};
use crate::clock::now;
use crate::scenario::Order;
use crate::world::World;

/// Gives an order until it is taken or refused.
pub async fn order(world: &Arc<World>, host: &str, what: Order) -> Said {
    world.say("operator", format!("orders {what:?} of {host}"));
    let action = action(world, what);
    loop {
        sleep(world.chance.between(Duration::from_millis(1), Duration::from_millis(30))).await;
        let Some(backend) = backend(world) else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        let caller = caller();
        let acted = backend.act_on_host(&caller, host, None, &action);
        match tokio::time::timeout(Duration::from_secs(30), acted).await {
            Ok(Ok(_)) => return Said::Taken,
            Ok(Err(BackendError::Unavailable { .. })) | Err(_) => sleep(Duration::from_secs(1)).await,
            Ok(Err(error)) => {
                world.say("operator", format!("{what:?} of {host} was refused: {error}"));
                return Said::NotNow;
            }
        }
    }
}

/// Helps a host in error that cannot be declared any more, as its wait says. A BMC whose password was changed by hand lets in
/// with that one; where it is the same as before, it says no to the change, and it is tried again.
pub async fn rescue(world: &Arc<World>, host: &Host) {
    let locked_out = host.status.failure.as_ref().is_some_and(|failure| failure.cause == Cause::BmcCredentials);
    if !locked_out || host.status.rotation.is_some() {
        order(world, host.name(), Order::Retry).await;
        return;
    }
    let Some(index) = world.scenario.hosts.iter().position(|plan| plan.name == host.name()) else { return };
    let Some(backend) = backend(world) else { return };
    let password = Secret::new(world.inner().passwords[index].clone());
    world.say("operator", format!("tells the password of {}", host.name()));
    let told = backend.rotate_bmc_password(&caller(), host.name(), &password, "it was changed by hand").await;
    if let Err(error) = told {
        world.say("operator", format!("the password of {} was refused: {error}", host.name()));
    }
}

fn action(world: &World, order: Order) -> HostAction {
    let reason = "the simulated operator says so".to_owned();
    match order {
        Order::Pause => HostAction::Pause { reason },
        Order::Resume => HostAction::Resume,
        Order::Maintenance(time) => {
            let until = time.and_then(|time| now(world.start).checked_add(time).ok());
            HostAction::Maintenance { reason, until }
        }
        Order::Quarantine => HostAction::Quarantine { reason },
        Order::Unquarantine => HostAction::Unquarantine { reason },
        Order::Inspect => HostAction::Inspect { reason },
        Order::Retry => HostAction::Retry,
        Order::ForceRelease => HostAction::ForceRelease { reason },
        Order::PowerCycle => HostAction::Power { power: PowerWish::Cycle, reason },
        Order::Detach => HostAction::Detach { reason },
        Order::Retire => HostAction::Retire { reason },
    }
}
