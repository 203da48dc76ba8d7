//! The engine: everything that decides and acts, put together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vmetal_bmc::Gateways;
use vmetal_lifecycle::Limits;
use vmetal_lifecycle::storm::{self, Storm};
use vmetal_model::{Failure, Host, HostStatus, Kind, Timestamp};
use vmetal_policy::PolicyEngine;
use vmetal_runtime::{Clock, Entropy, Monotonic, Scheduler};
use vmetal_store::CommitError;

use crate::boots::Boots;
use crate::claims::Desk;
use crate::config::Config;
use crate::decisions::Decisions;
use crate::fleet::Fleet;
use crate::lanes::Lanes;
use crate::ledger::{Batch, Ledger, Record};
use crate::ownership::{Author, Grip, Hold, Membership, Ownership, Refusal};
use crate::questions::Questions;
use crate::seats::Seats;
use crate::tenants::Tenants;

/// How often it is looked whether too many hosts fail at once.
const STORM_LOOK: Duration = Duration::from_secs(1);

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Names one object.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        ObjectKey { kind, name: name.into() }
    }
}

/// Everything that decides and acts. One per process.
pub struct Engine {
    /// What the operator said.
    pub config: Config,
    /// All objects.
    pub fleet: Arc<Fleet>,
    /// The way to change them.
    pub ledger: Ledger,
    /// The way to the BMCs.
    pub gateways: Gateways,
    /// The way to the tenants' clusters.
    pub tenants: Tenants,
    /// Cost and placement.
    pub policies: PolicyEngine,
    /// Through which objects they are what they are.
    pub seats: Seats,
    /// Deadlines and retry counts.
    pub limits: Limits,
    /// What is this engine's to decide about.
    pub ownership: Ownership,
    /// Its part in sharing the store with other engines, if it may be shared.
    pub membership: Option<Membership>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who is to be looked at, and when.
    pub scheduler: Scheduler<ObjectKey>,
    /// What `vmetal-netboot` answers from.
    pub boots: Arc<Boots>,
    /// Claims that wait to be decided on.
    pub desk: Desk,
    /// The log of decisions.
    pub decisions: Decisions,
    /// Which claims were told that there is nothing for them, and what they were told that of.
    pub questions: Questions,
    /// How much goes on at the same time.
    pub lanes: Lanes,
    /// Whether too many hosts fail at once, and when that was last looked at.
    storm: Mutex<Option<(Monotonic, Option<Storm>)>>,
    /// Objects with an effect under way in this process.
    under_way: Mutex<HashMap<ObjectKey, Course>>,
    /// Set when no new effect may begin.
    stopping: AtomicBool,
}

/// What becomes of an effect when the engine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It is waited for.
    ToItsEnd,
    /// It may be broken off at any point and begun again later: nothing outside the engine changes by it.
    Restartable,
}

/// What the engine is made of.
pub struct Parts {
    /// What the operator said.
    pub config: Config,
    /// All objects.
    pub fleet: Arc<Fleet>,
    /// The way to change them.
    pub ledger: Ledger,
    /// The way to the BMCs.
    pub gateways: Gateways,
    /// The way to the tenants' clusters.
    pub tenants: Tenants,
    /// Cost and placement.
    pub policies: PolicyEngine,
    /// Deadlines and retry counts.
    pub limits: Limits,
    /// What is this engine's to decide about.
    pub ownership: Ownership,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Engine {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, fleet, ledger, gateways, tenants, policies, limits, ownership, clock, entropy } = parts;
        let scheduler = Scheduler::new(Arc::clone(&clock));
        let lanes = Lanes::new(&config.lanes);
        let mut random = [0; 4];
        entropy.fill(&mut random);
        // Chains sort by when they began; the rest tells engines apart that began at the same moment.
        let chain = format!("{:011x}{}", clock.now().as_millisecond(), hex::encode(random));
        let decisions = Decisions::new(config.decisions.keep, chain);
        let membership = Membership::new(&ownership, ledger.store());
        Arc::new(Engine {
            config,
            fleet,
            ledger,
            gateways,
            tenants,
            policies,
            seats: Seats::default(),
            limits,
            ownership,
            membership,
            clock,
            entropy,
            scheduler,
            boots: Arc::default(),
            desk: Desk::default(),
            decisions,
            questions: Questions::default(),
            lanes,
            storm: Mutex::default(),
            under_way: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }

    /// True while an effect on the object is under way in this process.
    pub fn is_under_way(&self, key: &ObjectKey) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// Runs an effect on an object to its end, whatever happens to whoever asked for it; at most one per object. When it
    /// has ended, the object is looked at again.
    ///
    /// The grip is what allows it, and is held until the effect has ended: only the owner of an object can act on it, and
    /// hands it over only after that.
    pub fn run<F>(self: &Arc<Self>, key: ObjectKey, grip: Grip, effect: impl FnOnce(Arc<Grip>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let grip = Arc::new(grip);
        let effect = effect(Arc::clone(&grip));
        self.start(key, Course::ToItsEnd, async move {
            effect.await;
            drop(grip);
        });
    }

    /// The same for what changes nothing outside the engine and can be begun again: it needs a hold only, and neither a stop
    /// nor a hand-over waits for it.
    pub fn run_restartable(
        self: &Arc<Self>,
        key: ObjectKey,
        _owner: Hold,
        effect: impl Future<Output = ()> + Send + 'static,
    ) {
        self.start(key, Course::Restartable, effect);
    }

    fn start(self: &Arc<Self>, key: ObjectKey, course: Course, effect: impl Future<Output = ()> + Send + 'static) {
        match self.under_way.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(free) => free.insert(course),
        };
        let engine = Arc::clone(self);
        // A task of its own: dropping the caller must not cut an effect short.
        tokio::spawn(async move {
            let ended = tokio::spawn(effect).await;
            if let Err(error) = ended {
                tracing::error!(kind = %key.kind, name = %key.name, %error, "an effect broke off; looking again");
            }
            engine.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            engine.scheduler.wake(key);
        });
    }

    /// From now on no effect begins; those under way go on to their end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// True when no new effect may begin.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Effects under way that a clean stop waits for.
    pub fn effects_under_way(&self) -> usize {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.values().filter(|course| **course == Course::ToItsEnd).count()
    }

    /// The limits for an object: nobody is called silent for what the owner before this one may have heard.
    pub fn limits_since(&self, hold: Hold) -> Limits {
        let since = self.ownership.since(hold).unwrap_or(self.limits.listening_since);
        Limits { listening_since: self.limits.listening_since.max(since), ..self.limits.clone() }
    }

    /// Whether too many hosts fail at once. Looked at anew each second.
    pub fn storm(&self) -> Option<Storm> {
        let now = self.clock.monotonic();
        let mut known = self.storm.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, storm)) = &*known
            && now.duration_since(*at) < STORM_LOOK
        {
            return storm.clone();
        }
        let hosts = self.fleet.hosts();
        let storm = storm::judge(hosts.iter().map(|host| &**host), &self.config.storm.limits(), self.now());
        let before = known.replace((now, storm.clone())).and_then(|(_, before)| before);
        match (&before, &storm) {
            (None, Some(storm)) => {
                tracing::error!(since = %storm.since, until = %storm.until, "{}; it goes on when {}", storm.reason(), storm.remedy());
            }
            (Some(_), None) => tracing::warn!("few enough hosts fail again: switching, erasing and installing go on"),
            _ => {}
        }
        storm
    }

    /// Notes that an effect may not be started now, and looks again soon: by then the lease is renewed, or the object is
    /// another engine's.
    pub(crate) fn refused(&self, key: ObjectKey, refusal: &Refusal) {
        tracing::warn!(kind = %key.kind, name = %key.name, "nothing is begun: {refusal}");
        self.scheduler.wake_after(key, Duration::from_secs(1));
    }

    /// Changes a host, deciding again on the newest state until the commit wins. `None` from `decide` ends it.
    ///
    /// `extra` may add to the batch (secrets). Returns the status that was committed, or `None` when there was nothing to
    /// do or the host is gone. Where the store does not answer, it is tried again for as long as it takes: what has
    /// happened must be recorded.
    pub async fn change_host(
        &self,
        author: Author,
        name: &str,
        decide: impl Fn(&Host) -> Option<vmetal_lifecycle::host::Change>,
        extra: impl Fn(&Host, &mut Batch),
    ) -> Result<Option<HostStatus>, CommitError> {
        loop {
            let Some(host) = self.fleet.host(name) else { return Ok(None) };
            let Some(change) = decide(&host) else { return Ok(None) };
            let mut batch = Batch::by(author);
            batch.notes(&*host, self.now(), change.notes);
            extra(&host, &mut batch);
            if change.status != host.status {
                batch.replace(host.with_status(change.status.clone()));
            }
            if batch.is_empty() {
                return Ok(Some(change.status));
            }
            match self.ledger.commit(batch).await {
                Ok(_) => return Ok(Some(change.status)),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) if error.is_retryable() => self.store_trouble(&error).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that the store does not answer, and waits a little.
    pub async fn store_trouble(&self, error: &CommitError) {
        tracing::error!(%error, "the store does not take commits; trying again");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// The failure for a fault inside the engine or its store.
    pub fn internal(&self, what: &str, error: impl std::fmt::Display) -> Failure {
        Failure {
            cause: vmetal_model::Cause::Internal,
            message: format!("{what}: {error}"),
            advice: "look at the engine's log; it tries again".to_owned(),
            at: self.now(),
        }
    }

    /// Removes an object and its secrets.
    pub async fn remove<R: Record>(
        &self,
        hold: Hold,
        object: &R,
        secrets: &[String],
        now: Timestamp,
    ) -> Result<(), CommitError> {
        let mut batch = Batch::by(Author::Owner(hold));
        batch.notes(object, now, [vmetal_lifecycle::Note::info("deleted", "removed")]);
        batch.remove(object);
        for secret in secrets {
            batch.forget(secret.clone());
        }
        self.ledger.commit(batch).await.map(|_| ())
    }
}
