//! Decisions on claims: in rounds, each over one look at the fleet.
//!
//! Claims that ask for a decision while a round is under way wait for the next one. A round decides on every claim that has
//! no answer about the pool as it is, whether it has asked yet or not: oldest first, then by name, each group as one. What a round chooses is reserved by one commit per claim or group, guarded by
//! the revisions of every claim and host in it and of whatever the claims refer to. So a round needs no lock against other
//! engines, or against the API: whoever was overtaken changes nothing and is decided on again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::oneshot;
use vmetal_lifecycle::claim::{self, Reserved, Seat};
use vmetal_lifecycle::node::{self, Effect, Effected, View};
use vmetal_model::network::chosen;
use vmetal_model::{Decision as Choice, Failure, Host, Kind, TenantNode};
use vmetal_store::CommitError;

use crate::engine::{Engine, ObjectKey};
use crate::fleet::AddressPromise;
use crate::ledger::{Batch, Record};
use crate::ownership::{Author, Hold};

mod network;
mod plan;
mod quota;

pub(crate) use quota::turnstile;

/// Commits of one round that are under way at the same time: the store makes many of them durable at once.
const COMMITS: usize = 64;
/// How long a claim that was overtaken waits for the news about what overtook it, before it is decided on again.
const CATCH_UP: Duration = Duration::from_millis(200);

/// Claims that wait for the next round.
#[derive(Default)]
pub struct Desk {
    waiting: Mutex<BTreeMap<String, Vec<oneshot::Sender<()>>>>,
    /// Held by the round under way. Only one per engine: a second one would choose the same hosts.
    turn: tokio::sync::Mutex<()>,
}

impl Desk {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Vec<oneshot::Sender<()>>>) -> T) -> T {
        f(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask(&self, name: &str) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        self.with(|waiting| waiting.entry(name.to_owned()).or_default().push(answer));
        answered
    }

    fn take(&self) -> BTreeMap<String, Vec<oneshot::Sender<()>>> {
        self.with(std::mem::take)
    }
}

/// What a round came to for one claim or group, to be committed as one.
#[expect(clippy::large_enum_variant, reason = "a round has few, each for a moment")]
enum Verdict {
    /// All of these, or none.
    Reserve(Vec<Place>),
    /// No host, for now.
    Told {
        /// The claim.
        node: Arc<TenantNode>,
        /// What it is told.
        result: Result<Effected, Failure>,
    },
}

/// A claim and its host.
struct Place {
    node: Arc<TenantNode>,
    host: Arc<Host>,
    choice: Choice,
}

impl Engine {
    /// Has a claim decided on in the next round. Returns when its outcome is recorded, or was overtaken.
    pub(crate) async fn decide(&self, name: &str) {
        let mut answered = self.desk.ask(name);
        let _turn = self.desk.turn.lock().await;
        // A round that began after the question has answered it.
        if !matches!(answered.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            return;
        }
        let asked = self.desk.take();
        // Before the look at the fleet: what changes from here on is news to whoever finds nothing now.
        let pool = self.questions.pool();
        let (verdicts, recorded) = self.plan();
        // In this order: the reservations are on their way to the store before the log is written.
        tokio::join!(self.carry_out(verdicts, pool), self.log(recorded));
        for answer in asked.into_values().flatten() {
            // Whoever is gone needs no answer.
            let _ = answer.send(());
        }
    }

    async fn carry_out(&self, verdicts: Vec<Verdict>, pool: u64) {
        futures::stream::iter(self.queues(verdicts))
            .for_each_concurrent(COMMITS, |queue| async move {
                for verdict in queue {
                    match verdict {
                        Verdict::Reserve(places) => self.reserve(places).await,
                        Verdict::Told { node, result } => self.tell(&node, result, pool).await,
                    }
                }
            })
            .await;
    }

    /// Reserves all hosts for all claims, or none.
    async fn reserve(&self, places: Vec<Place>) {
        let now = self.now();
        let promises = match self.leases(&places) {
            Ok(promises) => promises,
            Err(blocked) => return self.blocked(&places, blocked).await,
        };
        let seats = places.iter().zip(&promises).map(|(Place { node, host, choice }, promise)| Seat {
            node,
            host,
            choice: choice.clone(),
            lease: promise.as_ref().and_then(AddressPromise::lease),
        });
        let reserved = match claim::reserve(seats.collect(), &self.limits, now) {
            Ok(reserved) => reserved,
            Err(error) => {
                // The rules are applied before and after every policy; this would be a fault of ours.
                tracing::error!(%error, "a decision was not carried out; deciding again");
                return tokio::time::sleep(CATCH_UP).await;
            }
        };
        // The members of a group may belong to several engines: whoever owns one may decide, under the revisions of all.
        let holds = places.iter().filter_map(|place| self.hold_of(&place.node)).collect::<Vec<_>>();
        let Some(hold) = holds.first() else { return };
        let mut batch = Batch::by(Author::Owner(*hold));
        holds.iter().skip(1).for_each(|hold| batch.also(*hold));
        match self.pass(&places, &mut batch).await {
            Ok(()) => {}
            Err(blocked) => return self.blocked(&places, blocked).await,
        }
        for place in &places {
            let node_type = place.choice.node_type.as_deref();
            // What was decided by may have begun to go since, or be gone.
            if self.gone(&place.node, node_type) || self.leaving(&place.node, node_type).is_some() {
                return self.questions.forget(&place.node.metadata.uid);
            }
            for reference in self.references(&place.node, node_type) {
                batch.needs(reference.0, &reference.1, reference.2);
            }
            self.questions.forget(&place.node.metadata.uid);
        }
        for Reserved { node, node_notes, host, host_notes } in reserved {
            batch.notes(&node, now, node_notes);
            batch.notes(&host, now, host_notes);
            batch.replace(node);
            batch.replace(host);
        }
        self.settle(&places[0].node, batch).await;
    }

    /// Records that there is no host for a claim, and why.
    async fn tell(&self, node: &TenantNode, result: Result<Effected, Failure>, pool: u64) {
        if result.is_ok() {
            self.questions.unanswered(&node.metadata.uid, node.metadata.generation, pool, self.now());
        }
        let host = self.fleet.host_of(node);
        let view = View { node, host: host.as_deref() };
        let decision = node::outcome(view, &self.limits, Effect::Decide, result, self.now());
        let Some(hold) = self.hold_of(node) else { return };
        let mut batch = Batch::by(Author::Owner(hold));
        batch.notes(node, self.now(), decision.notes);
        if decision.status != node.status {
            let mut changed = node.clone();
            changed.status = decision.status;
            batch.replace(changed);
        }
        if !batch.is_empty() {
            self.settle(node, batch).await;
        }
    }

    /// Commits; what does not come about is decided on again, because the claim asks again.
    async fn settle(&self, node: &TenantNode, batch: Batch) {
        let news = self.fleet.changed();
        match self.ledger.commit(batch).await {
            Ok(_) => {}
            // Of an address, too: another engine has given it to a host, and that is on its way here.
            Err(CommitError::Conflict { .. } | CommitError::Unique { .. }) => {
                self.questions.forget(&node.metadata.uid);
                // Until the news is here, deciding again would come to the same.
                let _ = tokio::time::timeout(CATCH_UP, news).await;
            }
            Err(error) if error.is_retryable() => {
                self.questions.forget(&node.metadata.uid);
                self.store_trouble(&error).await;
            }
            Err(error @ CommitError::Fenced { .. }) => self.ownership.heed(&error),
            Err(error) => {
                tracing::error!(node = node.name(), %error, "a decision could not be recorded; deciding again");
                tokio::time::sleep(super::claims::PAUSE).await;
            }
        }
    }

    fn hold_of(&self, node: &TenantNode) -> Option<Hold> {
        self.ownership.hold(&ObjectKey::new(Kind::TenantNode, node.name()))
    }

    /// What a claim refers to, at the revision at which it was seen: the reservation holds only while all of it is so.
    fn references(&self, node: &TenantNode, node_type: Option<&str>) -> Vec<(Kind, String, u64)> {
        fn seen<R: Record>(found: Option<Arc<R>>) -> Option<(Kind, String, u64)> {
            found.map(|o| (R::KIND, o.metadata().name.clone(), o.metadata().revision))
        }
        let node_type = node_type.and_then(|name| self.fleet.node_type(name));
        let image = node.spec.image.clone().or_else(|| node_type.as_ref().and_then(|t| t.spec.image.clone()));
        let image = image.and_then(|name| seen(self.fleet.image(&name)));
        let cluster = self.fleet.cluster(&node.spec.cluster);
        let of_type = node_type.as_ref().map(|one| &one.spec);
        let network = chosen(&node.spec, cluster.as_ref().map(|one| &one.spec), of_type);
        let network = network.and_then(|name| seen(self.fleet.network(name)));
        [seen(cluster), seen(node_type), image, network].into_iter().flatten().collect()
    }

    /// Whether the cluster or the class that a claim was decided by is gone.
    fn gone(&self, node: &TenantNode, node_type: Option<&str>) -> bool {
        let no_type = node_type.is_some_and(|name| self.fleet.node_type(name).is_none());
        no_type || self.fleet.cluster(&node.spec.cluster).is_none()
    }

    /// What a claim refers to and what is being deleted: it must not be given a host for it any more.
    fn leaving(&self, node: &TenantNode, node_type: Option<&str>) -> Option<String> {
        let leaving = |(kind, name, _): &(Kind, String, u64)| {
            self.fleet.entry(*kind, name).is_some_and(|entry| entry.metadata().deleted.is_some())
        };
        let found = self.references(node, node_type).into_iter().find(leaving)?;
        Some(format!("{} {} is being deleted", found.0, found.1))
    }
}

/// The pause after a commit that the store refuses for good: the effect it was about is begun again.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);
