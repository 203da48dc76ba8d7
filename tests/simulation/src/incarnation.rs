//! One process of an engine: the real engine between simulated seams. When it dies, nothing of it reaches the world any more.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use vmetal_api::netboot::NetbootBackend as _;
use vmetal_bmc::{AddressGuard, Gateways};
use vmetal_policy::PolicyEngine;
use vmetal_runtime::{Clock, SeededEntropy};
use vmetal_store::{AnyStore, InterceptedStore};
use vmetald::engine::Parts;
use vmetald::fleet::Fleet;
use vmetald::ledger::Ledger;
use vmetald::ownership::{Ownership, Shared, Terms};
use vmetald::tenants::Tenants;
use vmetald::{Config, Engine};

use crate::bmc::Lines;
use crate::clock::SimClock;
use crate::cluster::Clusters;
use crate::way::Way;
use crate::world::World;

/// A process of an engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Which engine.
    pub engine: usize,
    /// Which of its processes, from 1.
    pub process: u32,
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine-{}/{}", self.engine, self.process)
    }
}

/// A process of an engine, from its start to its end.
pub struct Incarnation {
    /// Which one.
    pub who: Who,
    /// Its clocks.
    pub clock: SimClock,
    /// Breaks its watches of the store off.
    pub cut: Notify,
    dead: CancellationToken,
    engine: Mutex<Option<Arc<Engine>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The network of the simulated site, and deadlines that an impatient operator might choose.
const CONFIG: &str = r#"
[network]
range_start = "172.22.0.10"
range_end = "172.22.15.255"
url = "http://172.22.0.1:8080"
[bmc]
allow = ["10.0.0.0/8"]
[decisions]
keep = 8
[deadlines]
call_in = "10m"
inspect = "10m"
install = "20m"
erase = "20m"
first_boot = "10m"
seed = "10m"
join = "10m"
"#;

impl Incarnation {
    /// Starts a process. It is in the world at once and serves once it has read its store.
    pub fn start(world: &Arc<World>, engine: usize) -> Arc<Self> {
        let mut inner = world.inner();
        let plight = &mut inner.engines[engine];
        plight.starts += 1;
        let incarnation = Arc::new(Incarnation {
            who: Who { engine, process: plight.starts },
            clock: SimClock::new(world.start),
            cut: Notify::new(),
            dead: CancellationToken::new(),
            engine: Mutex::default(),
            tasks: Mutex::default(),
        });
        plight.process = Some(Arc::clone(&incarnation));
        drop(inner);
        world.say(&format!("engine-{engine}"), format!("process {} starts", incarnation.who.process));
        incarnation.keep(serve(Arc::clone(world), Arc::clone(&incarnation)));
        incarnation
    }

    /// True until it dies.
    pub fn is_alive(&self) -> bool {
        !self.dead.is_cancelled()
    }

    /// Goes on if the process lives, and never if it does not.
    pub async fn alive(&self) {
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    /// Completes when it dies.
    pub async fn death(&self) {
        self.dead.cancelled().await;
    }

    /// The engine in it, once it serves.
    pub fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it: its loops stop, and whatever it has left under way waits for ever at the next seam.
    pub fn die(&self) {
        self.dead.cancel();
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

/// What `vmetald::run` does, without sockets.
async fn serve(world: Arc<World>, process: Arc<Incarnation>) {
    let way = Way::new(&world, &process);
    let store = AnyStore::Intercepted(InterceptedStore::new(world.model.clone(), Arc::new(way)));
    let engine = loop {
        match open(&world, &process, store.clone()).await {
            Ok(engine) => break engine,
            Err(error) => {
                // The service manager starts it again.
                world.say(&format!("engine-{}", process.who.engine), format!("does not start: {error}"));
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    };
    process.keep(Arc::clone(&engine).reconcile_forever());
    process.keep(Arc::clone(&engine).follow_forever());
    let sharing = Arc::clone(&engine);
    process.keep(async move { sharing.take_part_forever().await });
    let house = Arc::clone(&engine);
    process.keep(async move { vmetald::housekeeping::keep_house(house.ledger.store(), house.fleet.revision()).await });
    let mut news = engine.watch_boot();
    let site = Arc::clone(&world);
    process.keep(async move {
        while let Some(told) = news.next().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
            site.boot_news(told);
        }
    });
    *process.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
    world.say(&format!("engine-{}", process.who.engine), "serves");
}

#[allow(clippy::expect_used, reason = "constants")]
async fn open(world: &Arc<World>, process: &Arc<Incarnation>, store: AnyStore) -> Result<Arc<Engine>, String> {
    let fleet = Arc::new(Fleet::default());
    let ledger = Ledger::open(store, Arc::clone(&fleet)).await.map_err(|error| error.to_string())?;
    let clock: Arc<dyn Clock> = Arc::new(process.clock.clone());
    let ownership = Ownership::open(ledger.store(), terms(world, process.who), Arc::clone(&clock));
    let ownership = ownership.await.map_err(|error| error.to_string())?;
    let config: Config = toml::from_str(CONFIG).expect("the configuration above is valid");
    let guard = AddressGuard::parse(&config.bmc.allow).expect("the networks above are networks");
    let limits = vmetal_lifecycle::Limits { listening_since: clock.now(), ..config.deadlines.limits() };
    let who = process.who;
    let seed = world.scenario.seed ^ (u64::from(who.process) << 32) ^ ((who.engine as u64) << 56);
    let engine = Engine::new(Parts {
        gateways: Gateways::over(vmetal_bmc::Config::new(guard), Arc::new(Lines::new(world, process))),
        tenants: Tenants::new(Arc::new(Clusters::new(world, process))),
        policies: PolicyEngine::new(vmetal_policy::Config::native()).expect("the native policies need nothing"),
        config,
        fleet,
        ledger,
        limits,
        ownership,
        clock,
        entropy: Arc::new(SeededEntropy::new(seed)),
    });
    engine.restore_boot_tokens().await.map_err(|error| error.to_string())?;
    engine.decisions.open(engine.ledger.store()).await.map_err(|error| error.to_string())?;
    Ok(engine)
}

/// As `vmetald::run` has them: an engine that is alone, or one of several.
fn terms(world: &World, who: Who) -> Terms {
    if world.scenario.engines == 1 {
        return Terms::Alone;
    }
    Terms::Shared(Shared {
        id: format!("{who:?}"),
        lease: Duration::from_secs(15),
        longest_call: Duration::from_secs(30),
        margin: Duration::from_secs(3),
    })
}
