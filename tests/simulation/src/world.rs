//! Everything outside the engines, and what is known about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vmetal_model::boot::{BootNews, BootTarget};
use vmetal_model::{Host, Kind, MacAddr, TenantNode};
use vmetal_store::{MemoryStore, Selector, Store, Stored};
use vmetald::ledger::{self, Record};

use crate::chance::Chance;
use crate::cluster::Cluster;
use crate::fault::{ClusterFault, EngineFault, Fault, Side, Step, What};
use crate::incarnation::{Incarnation, Who};
use crate::machine::{Machine, Running};
use crate::scenario::{PASSWORD, Scenario};

/// Calls and commits of one simulation after which an engine counts as spinning.
const PATIENCE: u64 = 400_000;

/// One line of what happened.
#[derive(Debug, Clone)]
pub struct Line {
    /// Since the beginning.
    pub at: Duration,
    /// To whom.
    pub subject: String,
    /// What.
    pub text: String,
}

/// How an engine fares.
#[derive(Default)]
pub struct Plight {
    /// The process, while there is one.
    pub process: Option<Arc<Incarnation>>,
    /// Counts its processes.
    pub starts: u32,
    /// Until when its store is away.
    pub store_away: Option<Instant>,
    /// How much later its store answers, until when.
    pub store_slow: Option<(Duration, Instant)>,
    /// How many more commits end in nobody knows what.
    pub unknown_commits: u32,
    /// Until when it reaches no BMC.
    pub bmcs_away: Option<Instant>,
    /// Until when installers do not reach it.
    pub installers_away: Option<Instant>,
    /// Where it is to be killed, and for how long it is then gone.
    pub crash_at: Option<(Step, Duration)>,
}

/// What changes.
pub struct Inner {
    /// The servers.
    pub machines: Vec<Machine>,
    /// The tenant's cluster.
    pub cluster: Cluster,
    /// The engines.
    pub engines: Vec<Plight>,
    /// What the network boot service answers from: by host, with the revision at which it was said.
    boot: BTreeMap<String, (u64, Option<(MacAddr, BootTarget)>)>,
    lines: Vec<Line>,
    violations: Vec<String>,
    digest: u64,
    effort: u64,
    /// Who made each commit.
    pub authors: BTreeMap<u64, Who>,
    /// What the operator believes the passwords of the BMCs to be, and which he has declared.
    pub passwords: Vec<String>,
    /// Who committed the intent of each host's present operation: by host, operation and author.
    pub intents: BTreeMap<String, (u64, Who)>,
}

/// Everything outside the engines.
pub struct World {
    /// What was planned.
    pub scenario: Scenario,
    /// Chance of everything but plan and engines.
    pub chance: Chance,
    /// The beginning.
    pub start: Instant,
    /// The store itself.
    pub model: MemoryStore,
    /// Engines that are to be started again: which, and after how long.
    pub restarts: mpsc::UnboundedSender<(usize, Duration)>,
    inner: Mutex<Inner>,
    read: Mutex<Read>,
}

/// What was read from the store last, by name: most questions are about what has not changed since.
#[derive(Default)]
struct Read {
    hosts: BTreeMap<String, Arc<Host>>,
    nodes: BTreeMap<String, Arc<TenantNode>>,
}

/// The object that is stored, decoded only if it is another than before.
fn remembered<R: Record>(read: &mut BTreeMap<String, Arc<R>>, stored: &Stored) -> Option<Arc<R>> {
    let known = read.get(stored.key.name.as_str()).filter(|known| known.metadata().revision == stored.revision.0);
    if let Some(known) = known {
        return Some(Arc::clone(known));
    }
    let object = Arc::new(ledger::decode::<R>(stored).ok()?);
    read.insert(stored.key.name.clone(), Arc::clone(&object));
    Some(object)
}

impl World {
    /// A world at its beginning.
    pub fn new(
        scenario: Scenario,
        model: MemoryStore,
        restarts: mpsc::UnboundedSender<(usize, Duration)>,
        start: Instant,
    ) -> Arc<Self> {
        let machines = scenario.hosts.iter().map(|plan| plan.machine()).collect();
        let passwords = vec![PASSWORD.to_owned(); scenario.hosts.len()];
        let engines = (0..scenario.engines).map(|_| Plight::default()).collect();
        let inner = Inner {
            machines,
            cluster: Cluster::default(),
            engines,
            boot: BTreeMap::new(),
            lines: Vec::new(),
            violations: Vec::new(),
            digest: 0xcbf2_9ce4_8422_2325,
            effort: 0,
            authors: BTreeMap::new(),
            passwords,
            intents: BTreeMap::new(),
        };
        let chance = Chance::new(scenario.seed, "world");
        Arc::new(World { scenario, chance, start, model, restarts, inner: Mutex::new(inner), read: Mutex::default() })
    }

    /// What changes. Never held across a wait.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happened.
    pub fn say(&self, subject: &str, text: impl Into<String>) {
        let (at, text) = (self.start.elapsed(), text.into());
        let mut inner = self.inner();
        let bytes = at.as_millis().to_le_bytes();
        inner.digest = bytes
            .iter()
            .chain(subject.as_bytes())
            .chain(text.as_bytes())
            .fold(inner.digest, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
        inner.lines.push(Line { at, subject: subject.to_owned(), text });
    }

    /// Writes down what must never happen.
    pub fn violated(&self, subject: &str, text: impl Into<String>) {
        let text = text.into();
        self.say(subject, format!("VIOLATION: {text}"));
        self.inner().violations.push(format!("{subject}: {text}"));
    }

    /// What must never happen and did.
    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// A number that stands for everything that happened.
    pub fn digest(&self) -> u64 {
        self.inner().digest
    }

    /// Counts a call or a commit; an engine that makes them without end is a violation, and is stopped.
    pub fn effort(&self) -> bool {
        let mut inner = self.inner();
        inner.effort += 1;
        match inner.effort.cmp(&PATIENCE) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => {
                drop(inner);
                self.violated("engine", format!("{PATIENCE} calls and commits: it spins"));
                false
            }
            std::cmp::Ordering::Greater => false,
        }
    }

    /// How many calls and commits there were.
    pub fn efforts(&self) -> u64 {
        self.inner().effort
    }

    /// What happened, for people; of all, or of these subjects.
    pub fn timeline(&self, subjects: &[String]) -> String {
        let mut text = String::new();
        for line in &self.inner().lines {
            if subjects.is_empty() || subjects.contains(&line.subject) || line.text.starts_with("VIOLATION") {
                let s = line.at.as_secs();
                let (h, m, s, ms) = (s / 3600, s / 60 % 60, s % 60, line.at.subsec_millis());
                let _ = writeln!(text, "{h:02}:{m:02}:{s:02}.{ms:03} {:<10} {}", line.subject, line.text);
            }
        }
        text
    }

    /// Everybody who is named in the lines of these subjects.
    pub fn mentioned(&self, subjects: &[String]) -> Vec<String> {
        let inner = self.inner();
        let lines = inner.lines.iter().filter(|line| subjects.contains(&line.subject));
        let words = lines.flat_map(|line| line.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
        let named = words.filter(|word| word.starts_with("node-") || word.starts_with("host-"));
        named.map(str::to_owned).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// A host as the store has it.
    pub fn host(&self, name: &str) -> Option<Arc<Host>> {
        let stored = self.model.get(&ledger::key(Kind::Host, name)).now_or_never()?.ok()??;
        remembered(&mut self.read().hosts, &stored)
    }

    /// A claim as the store has it.
    pub fn node(&self, name: &str) -> Option<Arc<TenantNode>> {
        let stored = self.model.get(&ledger::key(Kind::TenantNode, name)).now_or_never()?.ok()??;
        remembered(&mut self.read().nodes, &stored)
    }

    /// All hosts as the store has them.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let list = self.list(Kind::Host);
        let mut read = self.read();
        list.iter().filter_map(|stored| remembered(&mut read.hosts, stored)).collect()
    }

    /// All claims as the store has them.
    pub fn nodes(&self) -> Vec<Arc<TenantNode>> {
        let list = self.list(Kind::TenantNode);
        let mut read = self.read();
        list.iter().filter_map(|stored| remembered(&mut read.nodes, stored)).collect()
    }

    fn list(&self, kind: Kind) -> Vec<Stored> {
        let list = self.model.list_all(&Selector::Kind(kind.as_str().into())).now_or_never();
        list.and_then(Result::ok).map(|list| list.items).unwrap_or_default()
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes news for network boot, of whichever engine; what is older than what is known of a host is no news.
    pub fn boot_news(&self, told: BootNews) {
        let mut inner = self.inner();
        let (revision, entries, gone) = match told {
            BootNews::Change(change) => (change.revision, change.entries, change.gone),
            BootNews::Whole(table) => {
                let there = |host: &String| table.entries.iter().any(|entry| entry.host == *host);
                let gone = inner.boot.keys().filter(|host| !there(host)).cloned().collect();
                (table.revision, table.entries, gone)
            }
        };
        let entries = entries.into_iter().map(|entry| (entry.host, Some((entry.macs[0], entry.target))));
        for (host, target) in entries.chain(gone.into_iter().map(|host| (host, None))) {
            if inner.boot.get(&host).is_none_or(|(known, _)| *known <= revision) {
                inner.boot.insert(host, (revision, target));
            }
        }
    }

    /// What a machine is told to boot.
    pub fn boot_target(&self, machine: usize) -> Option<BootTarget> {
        let inner = self.inner();
        let Machine { name, mac, .. } = &inner.machines[machine];
        let (_, known) = inner.boot.get(name)?;
        known.as_ref().filter(|(theirs, _)| theirs == mac).map(|(_, target)| target.clone())
    }

    /// Lets a fault come to pass.
    pub fn strike(self: &Arc<Self>, fault: &Fault) {
        match &fault.what {
            What::Bmc { host, fault, times, changing } => {
                self.say(&self.scenario.hosts[*host].name, format!("fault: BMC {fault:?} x{times} ({changing:?})"));
                self.inner().machines[*host].bmc_faults.push((fault.clone(), *times, *changing));
            }
            What::Machine { host, fault, times } => {
                self.say(&self.scenario.hosts[*host].name, format!("fault: machine {fault:?} x{times}"));
                self.inner().machines[*host].faults.push((fault.clone(), *times));
            }
            What::Cluster(fault) => {
                self.say("cluster", format!("fault: {fault:?}"));
                let now = Instant::now();
                let cluster = &mut self.inner().cluster;
                match fault {
                    ClusterFault::Away(time) => cluster.away = Some(now + *time),
                    ClusterFault::Status(status, times) => cluster.refusing = Some((*status, *times)),
                    ClusterFault::Budgets(time) => cluster.budgets = Some(now + *time),
                }
            }
            What::Engine { engine, fault } => self.strike_engine(*engine, fault),
            What::Link { host, side, how } => {
                self.say(&self.scenario.hosts[*host].name, format!("fault: link {side:?} {how:?}"));
                let machine = &mut self.inner().machines[*host];
                let link = match side {
                    Side::Bmc => &mut machine.bmc_link,
                    Side::Boot => &mut machine.link,
                };
                link.flap(Instant::now(), *how);
            }
        }
    }

    fn strike_engine(self: &Arc<Self>, engine: usize, fault: &EngineFault) {
        self.say(&format!("engine-{engine}"), format!("fault: {fault:?}"));
        let now = Instant::now();
        let mut inner = self.inner();
        let plight = &mut inner.engines[engine];
        match fault {
            EngineFault::Crash(down) => {
                drop(inner);
                self.kill(engine, *down);
            }
            EngineFault::CrashAt(step, down) => plight.crash_at = Some((*step, *down)),
            EngineFault::StoreAway(time) => {
                plight.store_away = Some(now + *time);
                if let Some(process) = &plight.process {
                    process.cut.notify_waiters();
                }
            }
            EngineFault::UnknownCommits(count) => plight.unknown_commits += count,
            EngineFault::SlowStore(by, time) => plight.store_slow = Some((*by, now + *time)),
            EngineFault::NoBmcs(time) => plight.bmcs_away = Some(now + *time),
            EngineFault::NoInstallers(time) => plight.installers_away = Some(now + *time),
            EngineFault::ClockJump(seconds) => {
                if let Some(process) = &plight.process {
                    process.clock.jump(jiff::SignedDuration::from_secs(*seconds));
                }
            }
        }
    }

    /// Kills an engine's process. It is started again after `down`.
    pub fn kill(&self, engine: usize, down: Duration) {
        let Some(process) = self.inner().engines[engine].process.take() else { return };
        self.say(&format!("engine-{engine}"), format!("process {} killed", process.who.process));
        process.die();
        // An error means that the simulation is over.
        let _ = self.restarts.send((engine, down));
    }

    /// Kills the engine if that is what is planned for this step.
    pub fn crash_point(&self, who: Who, step: Step) {
        let planned = {
            let mut inner = self.inner();
            let plight = &mut inner.engines[who.engine];
            let alive = plight.process.as_ref().is_some_and(|process| process.who == who);
            plight.crash_at.take_if(|(at, _)| alive && *at == step)
        };
        if let Some((step, down)) = planned {
            self.say(&format!("engine-{}", who.engine), format!("killed {step:?}"));
            self.kill(who.engine, down);
        }
    }

    /// Nothing goes wrong from now on.
    pub fn heal(&self) {
        let mut inner = self.inner();
        for machine in &mut inner.machines {
            machine.bmc_faults.clear();
            machine.faults.clear();
            machine.bmc_away = None;
            machine.bmc_link.mend();
            machine.link.mend();
            machine.next_reset_hangs = None;
        }
        inner.cluster.away = None;
        inner.cluster.refusing = None;
        inner.cluster.budgets = None;
        for plight in &mut inner.engines {
            if let Some(process) = &plight.process {
                process.clock.set_right();
            }
            let process = plight.process.take();
            *plight = Plight { process, starts: plight.starts, ..Plight::default() };
        }
        drop(inner);
        self.say("world", "no more faults");
    }

    /// True while the start `start` of a machine goes on.
    pub fn runs(&self, machine: usize, start: u64) -> bool {
        let inner = self.inner();
        let machine = &inner.machines[machine];
        machine.on && machine.starts == start
    }

    /// Takes the power away.
    pub fn power_off(&self, index: usize, why: &str) {
        let mut inner = self.inner();
        let machine = &mut inner.machines[index];
        if !machine.on {
            return;
        }
        machine.on = false;
        machine.running = Running::Nothing;
        let flow = machine.flow.take();
        let name = machine.name.clone();
        drop(inner);
        self.say(&name, format!("power off ({why})"));
        if let Some(flow) = flow {
            flow.abort();
        }
    }

    /// Gives power, and with it life.
    pub fn power_on(self: &Arc<Self>, index: usize) {
        let mut inner = self.inner();
        let machine = &mut inner.machines[index];
        if machine.on {
            return;
        }
        machine.on = true;
        machine.starts += 1;
        machine.running = Running::Firmware;
        let (start, name) = (machine.starts, machine.name.clone());
        drop(inner);
        self.say(&name, format!("power on (start {start})"));
        let flow = tokio::spawn(crate::life::start(Arc::clone(self), index, start)).abort_handle();
        self.inner().machines[index].flow = Some(flow);
    }
}
