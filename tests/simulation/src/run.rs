//! One simulation, from its seed to its verdict.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use vmetal_model::{Host, HostPhase, Kind, OperationState, TenantNode, TenantNodePhase};
use vmetal_store::{MemoryStore, Selector, Store as _, StoreClock, StoreTime};
use vmetald::ledger;

use crate::clock::BEGIN;
use crate::incarnation::Incarnation;
use crate::machine::Running;
use crate::operator;
use crate::oracle;
use crate::scenario::{Defect, QUIET, Scenario};
use crate::world::World;

/// How long everything may take to become stable once nothing goes wrong any more. The longest way is an erasure that is tried
/// three times (20 min each, with two boots), after an installation that is given up.
const SETTLE: Duration = Duration::from_secs(8 * 60 * 60);
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(30);
/// How long a claim may be failed before the operator gives it up, and a host in error before he touches it.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How a simulation is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What is broken on purpose.
    pub defect: Option<Defect>,
}

/// How a simulation ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// A number that stands for everything that happened, to the millisecond.
    pub digest: u64,
    /// How much virtual time passed.
    pub virtual_time: Duration,
    /// Calls and commits.
    pub effort: u64,
    /// What must never happen and did; empty when all is well.
    pub violations: Vec<String>,
    /// The scenario, and what happened to those who are concerned.
    pub story: String,
}

thread_local! {
    /// The panics of the simulation that runs on this thread; `None` while none does.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Panics of effects are caught by the engine, which looks again; a simulation must hear of them.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = PANICS.with_borrow_mut(|panics| panics.as_mut().map(|panics| panics.push(info.to_string())));
            if ours.is_none() || std::env::var_os("SEED").is_some() {
                usual(info);
            }
        }));
    });
}

/// Runs the scenario of a seed. Blocks the thread, for a fraction of a second.
pub fn simulate(seed: u64, options: Options) -> Outcome {
    hear_panics();
    PANICS.with_borrow_mut(|panics| *panics = Some(Vec::new()));
    let scenario = Scenario::of(seed, options.defect);
    #[allow(clippy::expect_used, reason = "a runtime without I/O needs nothing from the system")]
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let run = AssertUnwindSafe(|| runtime.block_on(live(scenario.clone())));
    let world = std::panic::catch_unwind(run);
    drop(runtime);
    let panics = PANICS.with_borrow_mut(Option::take).unwrap_or_default();
    match world {
        Ok((world, virtual_time)) => {
            for panic in panics {
                world.violated("engine", format!("panic: {panic}"));
            }
            let violations = world.violations();
            let story = if violations.is_empty() { String::new() } else { story(&world, &violations) };
            Outcome { seed, digest: world.digest(), virtual_time, effort: world.efforts(), violations, story }
        }
        Err(_) => Outcome {
            seed,
            digest: 0,
            virtual_time: Duration::ZERO,
            effort: 0,
            violations: panics.into_iter().map(|panic| format!("simulation: panic: {panic}")).collect(),
            story: format!("{scenario:#?}"),
        },
    }
}

/// What a reader needs: the scenario in short, and the timeline of those who are concerned with the operator's and the
/// engines'.
fn story(world: &World, violations: &[String]) -> String {
    let mut subjects: Vec<String> =
        violations.iter().filter_map(|text| text.split(':').next()).map(str::to_owned).collect();
    if std::env::var_os("STORY").is_some_and(|which| which == "all") {
        subjects.clear();
    } else {
        subjects.extend(world.mentioned(&subjects));
        subjects.extend(["operator", "world", "cluster", "engine-0", "engine-1", "engine-2"].map(str::to_owned));
    }
    let scenario = &world.scenario;
    let mut text = format!("scenario of seed {}: {} engines\n", scenario.seed, scenario.engines);
    for plan in &scenario.hosts {
        text.push_str(&format!("  {plan:?}\n"));
    }
    for (at, wish) in &scenario.wishes {
        text.push_str(&format!("  {:>5} s {wish:?}\n", at.as_secs()));
    }
    for fault in &scenario.faults {
        text.push_str(&format!("  {:>5} s {:?}\n", fault.at.as_secs(), fault.what));
    }
    text.push_str("timeline (STORY=all shows everybody's)\n");
    text.push_str(&world.timeline(&subjects));
    text
}

async fn live(scenario: Scenario) -> (Arc<World>, Duration) {
    let start = Instant::now();
    let clock = StoreClock::from_fn(move || StoreTime((BEGIN as u64) * 1000 + start.elapsed().as_millis() as u64));
    let model = MemoryStore::new(clock);
    let (restarts, mut restarting) = mpsc::unbounded_channel::<(usize, Duration)>();
    let world = World::new(scenario, model, restarts, start);
    operator::prepare(&world);
    crate::bmc::sabotage(&world);
    tokio::spawn(oracle::watch(Arc::clone(&world)));
    for engine in 0..world.scenario.engines {
        Incarnation::start(&world, engine);
    }
    let service = Arc::clone(&world);
    tokio::spawn(async move {
        while let Some((engine, down)) = restarting.recv().await {
            let world = Arc::clone(&service);
            tokio::spawn(async move {
                sleep(down).await;
                Incarnation::start(&world, engine);
            });
        }
    });
    let judged = tokio::time::timeout(Duration::from_secs(72 * 60 * 60), judge(&world)).await;
    if judged.is_err() {
        world.violated("world", "the simulation did not come to its end");
    }
    let virtual_time = start.elapsed();
    for plight in &mut world.inner().engines {
        if let Some(process) = plight.process.take() {
            process.die();
        }
    }
    (world, virtual_time)
}

async fn judge(world: &Arc<World>) {
    let touched = Arc::new(AtomicU32::new(0));
    operator::declare(world).await;
    let faults = world.scenario.faults.clone();
    let site = Arc::clone(world);
    let striking = async move {
        for fault in faults {
            sleep_until(site.start + fault.at).await;
            site.strike(&fault);
        }
    };
    tokio::join!(operator::follow(Arc::clone(world), Arc::clone(&touched)), striking, sleep_until(world.start + QUIET));
    world.heal();
    if !settle(world, &touched, "all is quiet", settled).await {
        return;
    }
    for node in nodes(world).await {
        operator::delete(world, Kind::TenantNode, node.name()).await;
    }
    if !settle(world, &touched, "every claim was given back", returned).await {
        return;
    }
    leftovers(world);
    for host in hosts(world).await {
        operator::delete(world, Kind::Host, host.name()).await;
    }
    settle(world, &touched, "every host was deleted", |hosts, _| {
        hosts.first().map(|host| (host.name().to_owned(), "it is still there".to_owned()))
    })
    .await;
}

async fn hosts(world: &World) -> Vec<Host> {
    let list = world.model.list_all(&Selector::Kind(Kind::Host.as_str().into())).await;
    list.map(|list| list.items.iter().filter_map(|stored| ledger::decode(stored).ok()).collect()).unwrap_or_default()
}

async fn nodes(world: &World) -> Vec<TenantNode> {
    let list = world.model.list_all(&Selector::Kind(Kind::TenantNode.as_str().into())).await;
    list.map(|list| list.items.iter().filter_map(|stored| ledger::decode(stored).ok()).collect()).unwrap_or_default()
}

/// Who is not where it belongs, and why not.
type Unsettled = Option<(String, String)>;

/// Waits until nothing is unsettled, twice in a row; helps meanwhile as an operator would.
async fn settle(
    world: &Arc<World>,
    touched: &AtomicU32,
    since: &str,
    unsettled: impl Fn(&[Host], &[TenantNode]) -> Unsettled,
) -> bool {
    let end = Instant::now() + SETTLE;
    let mut calm = 0;
    loop {
        if !world.violations().is_empty() {
            return false;
        }
        let (hosts, nodes) = (hosts(world).await, nodes(world).await);
        match unsettled(&hosts, &nodes) {
            None if calm == 1 => return true,
            None => calm += 1,
            Some((who, why)) => {
                calm = 0;
                if Instant::now() >= end {
                    world.violated(&who, format!("not settled {} h after {since}: {why}", SETTLE.as_secs() / 3600));
                    return false;
                }
                help(world, touched, &hosts, &nodes).await;
            }
        }
        sleep(LOOK).await;
    }
}

fn settled(hosts: &[Host], nodes: &[TenantNode]) -> Unsettled {
    let mut free = 0;
    for host in hosts {
        let status = &host.status;
        if status.operation.as_ref().is_some_and(|op| op.state == OperationState::Intended) {
            return Some((host.name().to_owned(), format!("operation under way: {:?}", status.operation)));
        }
        match (status.phase, &status.claim) {
            (HostPhase::Available, None) => free += 1,
            (HostPhase::Provisioned, Some(_)) => {}
            (phase, claim) => {
                let why = format!(
                    "{phase:?}/{:?}, claim {claim:?}, wait {:?}, failure {:?}",
                    status.stage, status.wait, status.failure
                );
                return Some((host.name().to_owned(), why));
            }
        }
    }
    for node in nodes {
        let status = &node.status;
        let fine = match status.phase {
            TenantNodePhase::Ready => true,
            // A host that it was given up on is none for it, however free.
            TenantNodePhase::Pending => free <= status.tried.len() && !node.is_deleted(),
            _ => false,
        };
        if !fine {
            let why =
                format!("{:?}, {free} hosts free, wait {:?}, failure {:?}", status.phase, status.wait, status.failure);
            return Some((node.name().to_owned(), why));
        }
    }
    None
}

fn returned(hosts: &[Host], nodes: &[TenantNode]) -> Unsettled {
    if let Some(node) = nodes.first() {
        return Some((node.name().to_owned(), format!("{:?}, failure {:?}", node.status.phase, node.status.failure)));
    }
    settled(hosts, &[])
}

/// What only a person does: touches hosts whose failure waits for one, and gives up claims that have failed.
async fn help(world: &Arc<World>, touched: &AtomicU32, hosts: &[Host], nodes: &[TenantNode]) {
    let now = jiff::Timestamp::from_millisecond(BEGIN * 1000 + world.start.elapsed().as_millis() as i64);
    let now = now.unwrap_or(jiff::Timestamp::MAX);
    let old = |since: jiff::Timestamp| now.duration_since(since).unsigned_abs() >= PATIENCE;
    for host in hosts {
        if host.status.phase == HostPhase::Error
            && old(host.status.phase_since)
            && let Some(plan) = world.scenario.hosts.iter().find(|plan| plan.name == host.name())
        {
            let next = touched.fetch_add(1, Ordering::Relaxed) + 1;
            operator::declare_host(world, plan, next).await;
        }
    }
    for host in hosts {
        if host.status.phase == HostPhase::Quarantined && old(host.status.phase_since) {
            operator::unquarantine(world, host.name()).await;
        }
    }
    for node in nodes {
        let waiting = node.status.failure.is_some() && node.status.phase == TenantNodePhase::Failed;
        if waiting && old(node.status.phase_since) && !node.is_deleted() {
            operator::delete(world, Kind::TenantNode, node.name()).await;
        }
    }
}

/// After all claims were given back nothing of them may be left anywhere.
fn leftovers(world: &World) {
    let (machines, cluster) = {
        let inner = world.inner();
        let machines: Vec<(String, Vec<String>, bool, bool)> = inner
            .machines
            .iter()
            .map(|m| {
                let claims = m.claims().into_iter().map(str::to_owned).collect();
                (m.name.clone(), claims, matches!(m.running, Running::System(_)), m.lied)
            })
            .collect();
        let left: Vec<String> = inner.cluster.nodes.keys().chain(inner.cluster.tokens.keys()).cloned().collect();
        (machines, left)
    };
    for (name, claims, runs, lied) in machines {
        if !claims.is_empty() {
            world.violated(&name, format!("data of {claims:?} is left on its disks"));
        }
        if runs && !lied {
            world.violated(&name, "it still runs a tenant's system");
        }
    }
    if !cluster.is_empty() {
        world.say("cluster", format!("left: {cluster:?}"));
    }
}
