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
use vmetal_store::{MemoryStore, StoreClock, StoreTime};

use crate::clock::{self, BEGIN};
use crate::incarnation::Incarnation;
use crate::liveness;
use crate::machine::Running;
use crate::operator::{self, Tells};
use crate::oracle;
use crate::scenario::{Defect, Order, QUIET, Scenario};
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
    run(Scenario::of(seed, options.defect), Course::Life)
}

/// Plays a scenario that was written out. Blocks the thread.
pub fn play(scenario: Scenario) -> Outcome {
    run(scenario, Course::Life)
}

/// Registers a whole fleet that is declared at once, and ends when every host is available. Blocks the thread.
pub fn register(scenario: Scenario) -> Outcome {
    run(scenario, Course::Registration)
}

/// What is played.
#[derive(Debug, Clone, Copy)]
enum Course {
    /// As the module says.
    Life,
    /// Hosts are declared and reach the pool.
    Registration,
}

fn run(scenario: Scenario, course: Course) -> Outcome {
    let seed = scenario.seed;
    hear_panics();
    PANICS.with_borrow_mut(|panics| *panics = Some(Vec::new()));
    #[allow(clippy::expect_used, reason = "a runtime without I/O needs nothing from the system")]
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let run = AssertUnwindSafe(|| runtime.block_on(live(scenario.clone(), course)));
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
    for (at, standby) in &scenario.standby {
        text.push_str(&format!("  {:>5} s {standby} hosts on standby\n", at.as_secs()));
    }
    for (at, quota) in &scenario.quotas {
        text.push_str(&format!("  {:>5} s {quota:?}\n", at.as_secs()));
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

async fn live(scenario: Scenario, course: Course) -> (Arc<World>, Duration) {
    let start = Instant::now();
    let clock = StoreClock::from_fn(move || StoreTime((BEGIN as u64) * 1000 + start.elapsed().as_millis() as u64));
    let model = MemoryStore::new(clock);
    let (restarts, mut restarting) = mpsc::unbounded_channel::<(usize, Duration)>();
    let world = World::new(scenario, model, restarts, start);
    operator::prepare(&world);
    crate::bmc::sabotage(&world);
    tokio::spawn(oracle::watch(Arc::clone(&world)));
    tokio::spawn(liveness::watch(Arc::clone(&world)));
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
    let judged = tokio::time::timeout(Duration::from_secs(72 * 60 * 60), async {
        match course {
            Course::Life => judge(&world).await,
            Course::Registration => registration(&world).await,
        }
    });
    let judged = judged.await;
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
    let standby = world.scenario.standby.last().map_or(0, |(_, standby)| *standby);
    let quota = world.scenario.quotas.last().and_then(|(_, plan)| plan.hosts);
    if !settle(world, &touched, "all is quiet", |hosts, nodes| settled(standby, quota, hosts, nodes)).await {
        return;
    }
    for node in world.nodes() {
        operator::delete(world, Kind::TenantNode, node.name()).await;
    }
    if standby > 0 {
        operator::declare_class(world, 0).await;
    }
    if !settle(world, &touched, "every claim was given back", returned).await {
        return;
    }
    leftovers(world);
    for host in world.hosts() {
        operator::delete(world, Kind::Host, host.name()).await;
    }
    settle(world, &touched, "every host was deleted", |hosts, _| {
        hosts.first().map(|host| (host.name().to_owned(), "it is still there".to_owned()))
    })
    .await;
}

/// Everything is declared at once; whatever goes wrong, goes wrong meanwhile.
async fn registration(world: &Arc<World>) {
    operator::declare(world).await;
    let faults = world.scenario.faults.clone();
    let site = Arc::clone(world);
    tokio::spawn(async move {
        for fault in faults {
            sleep_until(site.start + fault.at).await;
            site.strike(&fault);
        }
    });
    let hosts = 0..world.scenario.hosts.len();
    futures::future::join_all(hosts.map(|index| operator::declare_host(world, index, 0, Tells::Password))).await;
    let end = Instant::now() + SETTLE;
    loop {
        sleep(Duration::from_secs(1)).await;
        let hosts = world.hosts();
        let Some(late) = hosts.iter().find(|host| host.status.phase != HostPhase::Available) else { return };
        if !world.violations().is_empty() {
            return;
        }
        if Instant::now() >= end {
            let status = &late.status;
            let why =
                format!("{:?}/{:?}, wait {:?}, failure {:?}", status.phase, status.stage, status.wait, status.failure);
            return world.violated(
                late.name(),
                format!("not available {} h after it was declared: {why}", SETTLE.as_secs() / 3600),
            );
        }
    }
}

/// Who is not where it belongs, and why not.
type Unsettled = Option<(String, String)>;

/// Waits until nothing is unsettled, twice in a row; helps meanwhile as an operator would.
async fn settle(
    world: &Arc<World>,
    touched: &AtomicU32,
    since: &str,
    unsettled: impl Fn(&[Arc<Host>], &[Arc<TenantNode>]) -> Unsettled,
) -> bool {
    let end = Instant::now() + SETTLE;
    let mut calm = 0;
    loop {
        if !world.violations().is_empty() {
            return false;
        }
        let (hosts, nodes) = (world.hosts(), world.nodes());
        if let Some((who, why)) = liveness::overdue(world, &hosts, &nodes) {
            world.violated(&who, why);
            return false;
        }
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

fn settled(standby: u32, quota: Option<u32>, hosts: &[Arc<Host>], nodes: &[Arc<TenantNode>]) -> Unsettled {
    let (mut free, mut waiting) = (0, 0);
    for host in hosts {
        let status = &host.status;
        // One that is retired stays for as long as its claim does.
        if host.is_deleted() && status.claim.is_none() {
            return Some((host.name().to_owned(), format!("deleted and still there: {:?}", status.wait)));
        }
        if status.operation.as_ref().is_some_and(|op| op.state == OperationState::Intended) {
            return Some((host.name().to_owned(), format!("operation under way: {:?}", status.operation)));
        }
        if let Some(pause) = &status.pause {
            return Some((host.name().to_owned(), format!("paused: {pause:?}")));
        }
        match (status.phase, &status.claim) {
            (HostPhase::Available, None) => free += 1,
            (HostPhase::Standby, None) => waiting += 1,
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
    if waiting > standby || waiting < standby && free > 0 {
        return Some((
            "host-0".to_owned(),
            format!("{waiting} hosts on standby instead of {standby}, {free} are free"),
        ));
    }
    let free = free + waiting as usize;
    for node in nodes {
        let status = &node.status;
        let fine = match status.phase {
            TenantNodePhase::Ready => true,
            TenantNodePhase::Pending => !node.is_deleted() && !could_be_placed(node, nodes, free, quota),
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

/// Whether there is a host for a claim that waits for one, and room in the quota: for all of its group that waits, if it is in
/// one that is whole.
fn could_be_placed(node: &TenantNode, nodes: &[Arc<TenantNode>], free: usize, quota: Option<u32>) -> bool {
    let group = |node: &TenantNode| node.spec.group.as_ref().map(|group| group.name.clone());
    let with_it = |other: &&Arc<TenantNode>| {
        node.name() == other.name() || group(node).is_some() && group(node) == group(other) && !other.is_deleted()
    };
    let members: Vec<_> = nodes.iter().filter(with_it).collect();
    let waiting: Vec<_> = members.iter().filter(|member| member.status.phase == TenantNodePhase::Pending).collect();
    let held = nodes.iter().filter(|other| other.status.host.is_some()).count();
    let allowed = quota.is_none_or(|most| held + waiting.len() <= most as usize);
    // A host that a claim was given up on is none for it, however free.
    let wanted: usize = waiting.iter().map(|member| 1 + member.status.tried.len()).sum();
    let whole = node.spec.group.as_ref().is_none_or(|group| members.len() >= group.size as usize);
    whole && allowed && free >= wanted
}

fn returned(hosts: &[Arc<Host>], nodes: &[Arc<TenantNode>]) -> Unsettled {
    if let Some(node) = nodes.first() {
        return Some((node.name().to_owned(), format!("{:?}, failure {:?}", node.status.phase, node.status.failure)));
    }
    if let Some(host) = hosts.iter().find(|host| host.status.claim.is_some()) {
        return Some((host.name().to_owned(), format!("still held: {:?}", host.status.claim)));
    }
    settled(0, None, hosts, &[])
}

/// What only a person does: ends what he has ordered and forgotten, touches hosts whose failure waits for one, and gives up
/// claims that have failed.
async fn help(world: &Arc<World>, touched: &AtomicU32, hosts: &[Arc<Host>], nodes: &[Arc<TenantNode>]) {
    let now = clock::now(world.start);
    let old = |since: jiff::Timestamp| now.duration_since(since).unsigned_abs() >= PATIENCE;
    for host in hosts {
        let (name, status) = (host.name(), &host.status);
        if let Some(pause) = &status.pause {
            if old(pause.since) {
                operator::order(world, name, Order::Resume).await;
            }
            continue;
        }
        match status.phase {
            // What is being deleted is declared no more.
            HostPhase::Error if old(status.phase_since) && host.is_deleted() => {
                operator::rescue(world, host).await;
            }
            HostPhase::Error if old(status.phase_since) => {
                let index = world.scenario.hosts.iter().position(|plan| plan.name == name);
                let next = touched.fetch_add(1, Ordering::Relaxed) + 1;
                if let Some(index) = index {
                    operator::declare_host(world, index, next, Tells::Password).await;
                }
            }
            HostPhase::Quarantined if old(status.phase_since) => {
                operator::order(world, name, Order::Unquarantine).await;
            }
            HostPhase::Maintenance if old(status.phase_since) => {
                operator::order(world, name, Order::Resume).await;
            }
            _ => {}
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
            // Its host went, and it was left as it was.
            .filter(|m| !m.left)
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
