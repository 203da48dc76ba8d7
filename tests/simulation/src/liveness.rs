//! Nobody is forgotten: whoever is due is looked at, at once, as long as the engine lives.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;
use vmetal_model::{Host, TenantNode, Wait};

use crate::clock;
use crate::fault::{EngineFault, Fault, What};
use crate::scenario::QUIET;
use crate::world::World;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(7);
/// How long an object may be due before a worker takes it. Decisions take no virtual time, and there are more workers than
/// objects, so whoever is not taken at once was overslept.
const LAG: Duration = Duration::from_secs(5);
/// How long after its next look was due an object may show no sign of it, once nothing goes wrong any more. An engine that is
/// alone looks at once; several may have to agree first on whose the object is.
const OVERDUE: Duration = Duration::from_secs(5 * 60);

/// Watches the engines' queues until the simulation ends.
pub async fn watch(world: Arc<World>) {
    loop {
        sleep(LOOK).await;
        let engines: Vec<_> = {
            let inner = world.inner();
            inner.engines.iter().filter_map(|plight| plight.process.clone()).collect()
        };
        for process in engines {
            let Some(engine) = process.engine() else { continue };
            let stats = engine.scheduler.stats();
            if stats.lag > LAG {
                let name = format!("engine-{}", process.who.engine);
                world.violated(&name, format!("{:?} has overslept: {stats:?}", process.who));
                return;
            }
        }
    }
}

/// A look that was promised and did not come: who, and why that is wrong. For the time after all faults. Where a clock was
/// wrong, what was promised by it may lie anywhere, and nothing is said.
pub fn overdue(world: &World, hosts: &[Arc<Host>], nodes: &[Arc<TenantNode>]) -> Option<(String, String)> {
    let jump = |fault: &Fault| matches!(fault.what, What::Engine { fault: EngineFault::ClockJump(_), .. });
    if world.start.elapsed() < QUIET + OVERDUE || world.scenario.faults.iter().any(jump) {
        return None;
    }
    let (now, overdue) = (clock::now(world.start), SignedDuration::try_from(OVERDUE).unwrap_or_default());
    let late = |name: &str, wait: Option<&Wait>, not_before: Option<Timestamp>| {
        let wait = wait?;
        let due = [wait.next_check, wait.deadline].into_iter().flatten().min()?;
        let late = now.duration_since(due.max(not_before.unwrap_or(due)));
        (late > overdue).then(|| (name.to_owned(), format!("was to be looked at {late:#} ago, and waits: {wait:?}")))
    };
    let host = |host: &Arc<Host>| late(host.name(), host.status.wait.as_ref(), None);
    let node = |node: &Arc<TenantNode>| late(node.name(), node.status.wait.as_ref(), node.status.not_before);
    hosts.iter().find_map(host).or_else(|| nodes.iter().find_map(node))
}
