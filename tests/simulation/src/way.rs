//! The way between one process of an engine and the store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};
use vmetal_model::Kind;
use vmetal_store::{CommitError, Delivery, Guard, Intercept, Revision, Txn, Verdict};

use crate::fault::Step;
use crate::incarnation::Incarnation;
use crate::scenario::Defect;
use crate::world::World;

/// The kind of the values that every reservation for a cluster with a quota writes.
const QUOTA: &str = "quota";

/// The way of one process.
pub struct Way {
    world: Arc<World>,
    process: Arc<Incarnation>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({:?})", self.process.who)
    }
}

impl Way {
    /// The way of this process.
    pub fn new(world: &Arc<World>, process: &Arc<Incarnation>) -> Self {
        Way { world: Arc::clone(world), process: Arc::clone(process) }
    }

    fn hop(&self) -> Duration {
        let slow = self.world.inner().engines[self.process.who.engine].store_slow;
        let slow = slow.filter(|(_, until)| *until > Instant::now()).map_or(Duration::ZERO, |(by, _)| by);
        slow + self.world.chance.between(Duration::ZERO, Duration::from_millis(8))
    }

    fn away(&self) -> bool {
        self.world.inner().engines[self.process.who.engine].store_away.is_some_and(|until| until > Instant::now())
    }
}

/// Whether a guard is about what a tenant cluster may hold, or about who was given something of it last.
fn guards_a_quota(guard: &Guard) -> bool {
    match guard {
        Guard::Revision(key, _) | Guard::Absent(key) => {
            key.kind.as_str() == Kind::TenantCluster.as_str() || key.kind.as_str() == QUOTA
        }
        Guard::Epoch(..) => false,
    }
}

impl Intercept for Way {
    fn commit<'a>(&'a self, txn: &'a mut Txn) -> BoxFuture<'a, Delivery> {
        Box::pin(async move {
            let (world, process) = (&self.world, &self.process);
            process.alive().await;
            if !world.effort() {
                std::future::pending::<()>().await;
            }
            world.crash_point(process.who, Step::BeforeCommit);
            process.alive().await;
            sleep(self.hop()).await;
            // What was sent before the end may arrive after it.
            if !process.is_alive() && world.chance.one_in(2) {
                std::future::pending::<()>().await;
            }
            if world.scenario.defect == Some(Defect::GuardsDropped) {
                txn.guards.clear();
            }
            if world.scenario.defect == Some(Defect::QuotasUnguarded) {
                txn.guards.retain(|guard| !guards_a_quota(guard));
            }
            if self.away() {
                sleep(world.chance.between(Duration::from_millis(50), Duration::from_secs(3))).await;
                return if world.chance.one_in(3) { Delivery::Unknown } else { Delivery::Lost };
            }
            if world.scenario.defect == Some(Defect::CommitsForgotten)
                && !txn.writes.is_empty()
                && world.chance.one_in(6)
            {
                txn.writes.clear();
                txn.events.clear();
                txn.guards.clear();
                return Delivery::Arrives;
            }
            let unknown = {
                let left = &mut world.inner().engines[process.who.engine].unknown_commits;
                let any = *left > 0;
                *left = left.saturating_sub(1);
                any
            };
            match unknown {
                true if world.chance.one_in(2) => Delivery::Unknown,
                true => Delivery::AnswerLost,
                false => Delivery::Arrives,
            }
        })
    }

    fn committed<'a>(&'a self, outcome: &'a Result<Revision, CommitError>) -> BoxFuture<'a, ()> {
        // Before any wait: whoever reads the store now must know whose commit it is.
        if let Ok(revision) = outcome {
            self.world.inner().authors.insert(revision.0, self.process.who);
        }
        Box::pin(async move {
            self.world.crash_point(self.process.who, Step::AfterCommit);
            self.process.alive().await;
            sleep(self.hop()).await;
            self.process.alive().await;
        })
    }

    fn call(&self) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            self.process.alive().await;
            sleep(self.hop()).await;
            self.process.alive().await;
            if self.away() { Verdict::Fail } else { Verdict::Pass }
        })
    }

    fn cut(&self) -> BoxFuture<'static, ()> {
        let (away, process) = (self.away(), Arc::clone(&self.process));
        Box::pin(async move {
            if !away {
                process.cut.notified().await;
            }
        })
    }

    fn news(&self) -> BoxFuture<'static, ()> {
        let (process, hop) = (Arc::clone(&self.process), self.hop());
        Box::pin(async move {
            process.alive().await;
            sleep(hop).await;
            process.alive().await;
        })
    }
}
