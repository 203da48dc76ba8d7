//! The installer's loop: ask, do, tell, for ever.
//!
//! An order is begun once, whatever is answered afterwards: orders that were seen are remembered by id. While one is
//! worked on, a second thread sends progress, or a heartbeat when there is none, so that the engine can tell a slow disk
//! from a dead machine. Results are sent until they are taken.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmetal_model::MacAddr;
use vmetal_model::agent::{Action, Hello, Order, Progress as ProgressReport, ReportBody};

use crate::clock;
use crate::console::say;
use crate::engine::{CallError, Engine, sleep_unless};
use crate::erase;
use crate::error::AgentError;
use crate::install;
use crate::inventory::{self, Sysfs};

/// The machine that is worked on.
pub struct Machine {
    /// Its hardware.
    pub sysfs: Sysfs,
    /// Where its device nodes are: `/dev`.
    pub dev: PathBuf,
    /// The interface it was booted over.
    pub boot_mac: MacAddr,
    /// The boot attempt.
    pub attempt: String,
    /// A thread that ends when the machine's disks have been found. No disk is looked at before.
    pub settling: Mutex<Option<JoinHandle<()>>>,
}

impl Machine {
    fn wait_for_disks(&self, progress: &Progress) {
        let mut settling = self.settling.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(thread) = settling.take() else { return };
        if !thread.is_finished() {
            progress.begin("waiting until all disks are found", 0);
        }
        if let Err(panic) = thread.join() {
            say(&format!("waiting for disks failed: {}", panic_text(panic.as_ref())));
        }
    }
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Restart from disk.
    Reboot,
    /// Power off.
    PowerOff,
}

/// How far the present work is. Shared between the threads that work and the one that reports.
#[derive(Default)]
pub struct Progress {
    step: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Begins a step of `total` bytes (0 when unknown).
    pub fn begin(&self, step: &str, total: u64) {
        say(step);
        let mut current = self.step.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *current = step.to_owned();
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// So many bytes more.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// For a report.
    pub fn get(&self) -> ProgressReport {
        // The lock keeps step and counts together.
        let step = self.step.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        ProgressReport {
            step: step.clone(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }
}

/// Calls the engine and does what it says, until it says to restart or to power off.
pub fn run(engine: &Engine, machine: &Machine) -> Farewell {
    let mut order = first_order(engine, machine);
    let mut begun: HashSet<String> = HashSet::new();
    loop {
        if begun.insert(order.id.clone()) {
            match &order.action {
                Action::Wait => {}
                Action::Reboot => return Farewell::Reboot,
                Action::PowerOff => return Farewell::PowerOff,
                _ => work_on(engine, machine, &order),
            }
        }
        order = next_order(engine, &order);
    }
}

fn first_order(engine: &Engine, machine: &Machine) -> Order {
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        attempt: machine.attempt.clone(),
        boot_mac: machine.boot_mac,
        identity: inventory::identity(&machine.sysfs),
        firmware: inventory::firmware(&machine.sysfs),
    };
    let order = persist(engine, || engine.hello(&hello));
    say("the engine answered");
    order
}

fn next_order(engine: &Engine, last: &Order) -> Order {
    let asked = clock::now();
    let order = persist(engine, || engine.order(&last.id));
    // An engine that does not hold the call is not asked a thousand times per second.
    if order.id == last.id {
        thread::sleep(engine.pace().retry_min.saturating_sub(asked.elapsed()));
    }
    order
}

/// Calls until there is an answer. A refusal may be the engine's state catching up with the machine, so that it is not
/// final either; it is only asked more slowly.
fn persist(engine: &Engine, call: impl Fn() -> Result<Order, CallError>) -> Order {
    let mut tries = 0;
    loop {
        match call() {
            Ok(order) => return order,
            Err(error) => {
                let wait = match error {
                    CallError::Away { .. } => engine.pace().backoff(tries),
                    CallError::Refused { .. } | CallError::Nonsense { .. } => engine.pace().retry_max,
                };
                say(&format!("{error}; trying again in {} s", wait.as_secs_f32()));
                thread::sleep(wait);
                tries += 1;
            }
        }
    }
}

fn work_on(engine: &Engine, machine: &Machine, order: &Order) {
    let progress = Progress::default();
    let finished = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        scope.spawn(|| pulse(engine, &order.id, &progress, &finished));
        let result = catch_unwind(AssertUnwindSafe(|| perform(engine, machine, order, &progress)));
        finished.store(true, Ordering::Release);
        result.unwrap_or_else(|panic| Err(AgentError::Internal(panic_text(panic.as_ref()))))
    });
    let body = result.unwrap_or_else(|error| {
        let failure = error.to_failure();
        say(&format!("failed: {} ({})", failure.message, failure.advice));
        ReportBody::Failed(failure)
    });
    match engine.report_surely(&order.id, body) {
        Ok(()) => say("reported"),
        Err(error) => say(&format!("{error}; the result is lost, waiting for new orders")),
    }
}

fn perform(engine: &Engine, machine: &Machine, order: &Order, progress: &Progress) -> Result<ReportBody, AgentError> {
    machine.wait_for_disks(progress);
    match &order.action {
        Action::Inspect => {
            progress.begin("inspecting", 0);
            let inventory = Box::new(inventory::read(&machine.sysfs, Some(machine.boot_mac)));
            say(&summary(&inventory));
            Ok(ReportBody::Inspected { inventory })
        }
        Action::Install(install) => {
            check_serial(machine, install.expected_serial.as_deref())?;
            install::install(engine, machine, &order.id, install, progress).map(ReportBody::Installed)
        }
        Action::Erase(erase) => {
            check_serial(machine, erase.expected_serial.as_deref())?;
            let disks = inventory::disks(&machine.sysfs);
            let disks = erase::erase_all(&disks, &machine.dev, erase.level, &order.id, progress)?;
            for disk in &disks {
                say(&format!("erased {}: {}", disk.name, disk.method));
            }
            Ok(ReportBody::Erased { disks })
        }
        Action::Wait | Action::Reboot | Action::PowerOff => Ok(ReportBody::Heartbeat),
    }
}

/// Is this the machine that the order is for? Asked before anything is touched.
fn check_serial(machine: &Machine, expected: Option<&str>) -> Result<(), AgentError> {
    let Some(expected) = expected else { return Ok(()) };
    let seen = inventory::identity(&machine.sysfs).serial;
    if seen.as_deref().is_some_and(|seen| seen.eq_ignore_ascii_case(expected.trim())) {
        Ok(())
    } else {
        Err(AgentError::WrongMachine { expected: expected.to_owned(), seen })
    }
}

fn summary(inventory: &vmetal_model::Inventory) -> String {
    let disks: Vec<String> =
        inventory.disks.iter().map(|d| format!("{} {} {} GiB", d.name, d.bus, d.size_bytes >> 30)).collect();
    format!(
        "{} threads, {} MiB, disks [{}], {} interfaces, {} PCI functions",
        inventory.cpu.threads,
        inventory.memory_bytes >> 20,
        disks.join(", "),
        inventory.nics.len(),
        inventory.pci.len()
    )
}

/// Sends progress when there is some and heartbeats when there is not. Lost ones are lost.
fn pulse(engine: &Engine, order: &str, progress: &Progress, finished: &AtomicBool) {
    let pace = engine.pace();
    let mut last_sent = clock::now();
    let mut last = ProgressReport { step: String::new(), done: 0, total: 0 };
    loop {
        sleep_unless(finished, pace.progress);
        if finished.load(Ordering::Acquire) {
            return;
        }
        let now = progress.get();
        let body = if now != last && !now.step.is_empty() {
            last = now.clone();
            ReportBody::Progress(now)
        } else if last_sent.elapsed() >= pace.heartbeat {
            ReportBody::Heartbeat
        } else {
            continue;
        };
        last_sent = clock::now();
        if let Err(error) = engine.report(order, body) {
            say(&error.to_string());
            // Not to hammer an engine that is being restarted.
            sleep_unless(finished, pace.retry_min.max(Duration::from_millis(100)));
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without text").to_owned()
}
