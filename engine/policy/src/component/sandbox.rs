//! Where components run: limits, and one fresh instance for each call.
//!
//! Three limits, of which only the first two decide anything. **Fuel** counts instructions and is deterministic: a
//! policy that fails for want of fuel fails so on every machine. **Memory** is bounded in all. The **deadline** is a
//! backstop for a machine so busy that fuel lasts too long; it is reported as such and the call is tried once more.
//!
//! Instances come from a pool whose memory stays mapped, which makes a fresh one cost microseconds. Whatever could
//! differ between machines is off: threads, relaxed SIMD; NaNs have one form.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmetal_model::policy::LARGEST_COMPONENT;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter, Store, Trap,
};

use super::bindings::common::Policy;
use super::bindings::common::vmetal::policy::{log, types};
use super::cache::{Cache, Kept};
use crate::error::{Cause, RunError};

/// How long one call may compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Fuel of any call. About one unit is one instruction.
    pub fuel_base: u64,
    /// Fuel for each candidate on top.
    pub fuel_per_row: u64,
    /// Wall-clock time, to a hundredth of a second.
    pub deadline: Duration,
}

impl Allowance {
    /// The fuel of a decision over so many candidates.
    pub fn fuel(&self, rows: u32) -> u64 {
        self.fuel_base.saturating_add(self.fuel_per_row.saturating_mul(u64::from(rows)))
    }
}

/// What a policy may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest component, in bytes.
    pub component_bytes: u64,
    /// How long a policy may compute that was compiled to WebAssembly. A simple one needs a fuel of about 350 for each host.
    pub compiled: Allowance,
    /// The same of one that brings an interpreter. What needs 560 for each host when it is compiled needs 90,000 in Python and
    /// 120,000 in JavaScript.
    pub interpreted: Allowance,
    /// All linear memory of one call together, in bytes.
    pub memory_bytes: usize,
    /// Calls at the same time; more wait for their turn.
    pub concurrent: u32,
    /// Notes kept with a decision.
    pub notes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            component_bytes: LARGEST_COMPONENT,
            compiled: Allowance { fuel_base: 50_000_000, fuel_per_row: 5_000, deadline: Duration::from_secs(2) },
            interpreted: Allowance {
                fuel_base: 500_000_000,
                fuel_per_row: 1_000_000,
                deadline: Duration::from_secs(10),
            },
            memory_bytes: 128 << 20,
            concurrent: 8,
            notes: 64,
        }
    }
}

impl Limits {
    /// How long a component of so many bytes may compute. The size tells an interpreter from compiled code, so that what a
    /// policy may do depends on nothing but its file: shipped policies have a tenth of [`INTERPRETER`], and the smallest
    /// interpreters twice as much.
    pub fn allowance(&self, bytes: usize) -> Allowance {
        if interprets(bytes) { self.interpreted } else { self.compiled }
    }
}

/// Components of so many bytes and more are taken to bring an interpreter.
const INTERPRETER: usize = 1 << 20;

/// Whether a component of so many bytes is taken to bring an interpreter.
pub(crate) fn interprets(bytes: usize) -> bool {
    bytes >= INTERPRETER
}

/// A note that a policy left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// `debug`, `info` or `warn`.
    pub level: String,
    /// The policy's own number for it.
    pub code: u32,
    /// Two numbers whose meaning is the policy's.
    pub args: [i64; 2],
}

/// The notes of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// The first ones.
    pub kept: Vec<Note>,
    /// How many more there were.
    pub dropped: u64,
    #[serde(skip)]
    pub(crate) limit: usize,
}

impl Notes {
    pub(crate) fn up_to(limit: usize) -> Self {
        Notes { limit, ..Notes::default() }
    }
}

impl vmetal_policy_sdk::Log for Notes {
    fn emit(&mut self, level: vmetal_policy_sdk::Level, code: u32, first: i64, second: i64) {
        if self.kept.len() >= self.limit {
            self.dropped += 1;
            return;
        }
        let level = match level {
            vmetal_policy_sdk::Level::Debug => "debug",
            vmetal_policy_sdk::Level::Info => "info",
            vmetal_policy_sdk::Level::Warn => "warn",
        };
        self.kept.push(Note { level: level.to_owned(), code, args: [first, second] });
    }
}

/// The host's half of one instance.
pub(crate) struct Guest {
    notes: Notes,
    memory_used: usize,
    memory_limit: usize,
    memory_wanted: Option<usize>,
}

impl log::Host for Guest {
    fn emit(&mut self, level: log::Level, code: u32, first: i64, second: i64) {
        let level = match level {
            log::Level::Debug => vmetal_policy_sdk::Level::Debug,
            log::Level::Info => vmetal_policy_sdk::Level::Info,
            log::Level::Warn => vmetal_policy_sdk::Level::Warn,
        };
        vmetal_policy_sdk::Log::emit(&mut self.notes, level, code, first, second);
    }
}

impl types::Host for Guest {}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory_used.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_limit {
            // A trap and not a refusal: how a guest takes a refusal is its own affair, and the error would be lost.
            self.memory_wanted = Some(wanted);
            return Err(wasmtime::Error::msg("policy memory limit"));
        }
        self.memory_used = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

/// Function pointers that one table may hold; generous for any language.
const TABLE_ELEMENTS: usize = 1 << 16;
/// Core instances in one component: interpreters come as dozens of linked modules.
const CORE_INSTANCES: u32 = 64;
/// Bytes of an instance's memory that stay mapped between calls.
const KEEP_RESIDENT: usize = 4 << 20;
/// The same of a table: all of those that compiled policies have.
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// The step in which deadlines are counted.
const TICK: Duration = Duration::from_millis(10);

/// What a call used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) fuel: u64,
    pub(crate) notes: Notes,
}

/// The place where components are compiled and run.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Guest>,
    pub(crate) limits: Limits,
    cache: Option<Cache>,
    pulse: Pulse,
}

/// What compiles and runs components within the limits.
pub(crate) fn compiler(limits: &Limits) -> Result<Engine, Cause> {
    let concurrent = limits.concurrent.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(concurrent)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_core_instances(concurrent.saturating_mul(CORE_INSTANCES))
        .max_memories_per_component(4)
        .total_memories(concurrent.saturating_mul(4))
        .max_tables_per_component(CORE_INSTANCES)
        .total_tables(concurrent.saturating_mul(CORE_INSTANCES))
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(limits.memory_bytes)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        // Where the kernel can tell (Linux 6.7), only the pages that a call has written are cleared after it.
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_component_model(true);
    Ok(Engine::new(&config)?)
}

impl Sandbox {
    pub(crate) fn new(limits: Limits, kept: Option<Kept>) -> Result<Self, Cause> {
        let concurrent = limits.concurrent.max(1);
        let engine = compiler(&limits)?;
        let mut linker = Linker::new(&engine);
        Policy::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest: &mut Guest| guest)?;
        let pulse = Pulse::start(engine.clone(), concurrent)?;
        let cache = kept.map(|kept| Cache::new(kept, &engine));
        Ok(Sandbox { engine, linker, limits, cache, pulse })
    }

    /// The component as machine code, from the cache when it has it.
    pub(crate) fn compiled(&self, sha256: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        match &self.cache {
            Some(cache) => cache.get_or_compile(&self.engine, sha256, bytes),
            None => Component::new(&self.engine, bytes),
        }
    }

    /// Runs one call in a store of its own. A call that only the clock stopped is tried once more.
    pub(crate) fn run<R>(
        &self,
        allowance: Allowance,
        rows: u32,
        call: impl Fn(&mut Store<Guest>) -> wasmtime::Result<R>,
    ) -> Result<(R, Usage), RunError> {
        let fuel = allowance.fuel(rows);
        match self.run_once(fuel, allowance.deadline, &call) {
            Err(RunError::Overloaded { deadline }) => {
                tracing::warn!(?deadline, "a policy call ran into the clock, not into its fuel; trying once more");
                self.run_once(fuel, deadline, &call)
            }
            done => done,
        }
    }

    fn run_once<R>(
        &self,
        fuel: u64,
        deadline: Duration,
        call: impl Fn(&mut Store<Guest>) -> wasmtime::Result<R>,
    ) -> Result<(R, Usage), RunError> {
        let _turn = self.pulse.turn();
        let guest = Guest {
            notes: Notes::up_to(self.limits.notes),
            memory_used: 0,
            memory_limit: self.limits.memory_bytes,
            memory_wanted: None,
        };
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| guest);
        store.set_fuel(fuel).map_err(|error| RunError::Call(error.into()))?;
        let ticks = deadline.as_millis() / TICK.as_millis();
        store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX).max(1));
        let result = call(&mut store);
        let left = store.get_fuel().unwrap_or(0);
        let guest = store.into_data();
        match result {
            Ok(value) => Ok((value, Usage { fuel: fuel.saturating_sub(left), notes: guest.notes })),
            Err(error) => Err(self.name(error, fuel, deadline, guest.memory_wanted)),
        }
    }

    fn name(&self, error: wasmtime::Error, fuel: u64, deadline: Duration, memory_wanted: Option<usize>) -> RunError {
        if let Some(wanted) = memory_wanted {
            return RunError::OutOfMemory { wanted, limit: self.limits.memory_bytes };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => RunError::OutOfFuel { fuel },
            Some(Trap::Interrupt) => RunError::Overloaded { deadline },
            Some(trap) => RunError::Trapped { trap: trap.to_string() },
            None => RunError::Call(error.into()),
        }
    }
}

/// Lets at most so many calls run at once, and advances the engine's epoch while any does. An idle daemon is not woken.
struct Pulse {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// A call began, or the end has come. Told only to who waits: telling nobody is a system call too.
    work: Condvar,
    /// A call ended.
    free: Condvar,
}

struct State {
    running: u32,
    most: u32,
    /// Callers that wait for their turn.
    queued: u32,
    /// Whether the ticker waits for a call.
    idle: bool,
    stop: bool,
}

impl Shared {
    /// The state is plain numbers, valid whatever happened to another holder of the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(what: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    what.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl Pulse {
    fn start(engine: Engine, most: u32) -> std::io::Result<Self> {
        let state = Mutex::new(State { running: 0, most, queued: 0, idle: false, stop: false });
        let shared = Arc::new(Shared { state, work: Condvar::new(), free: Condvar::new() });
        let seen = Arc::clone(&shared);
        let ticker = std::thread::Builder::new().name("policy-epoch".to_owned()).spawn(move || {
            let mut state = seen.lock();
            while !state.stop {
                if state.running == 0 {
                    state.idle = true;
                    state = wait(&seen.work, state);
                    state.idle = false;
                    continue;
                }
                drop(state);
                std::thread::sleep(TICK);
                engine.increment_epoch();
                state = seen.lock();
            }
        })?;
        Ok(Pulse { shared, ticker: Some(ticker) })
    }

    fn turn(&self) -> Turn<'_> {
        let mut state = self.shared.lock();
        while state.running >= state.most {
            state.queued += 1;
            state = wait(&self.shared.free, state);
            state.queued -= 1;
        }
        state.running += 1;
        if state.idle {
            self.shared.work.notify_one();
        }
        Turn(&self.shared)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_one();
        if let Some(ticker) = self.ticker.take() {
            // The thread only sleeps and counts; it has nothing to report.
            let _ = ticker.join();
        }
    }
}

/// The right to run one call.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if state.queued > 0 {
            self.0.free.notify_one();
        }
    }
}
