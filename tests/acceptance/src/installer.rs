//! What runs on a simulated server: the installer, and later the installed system.
//!
//! A `sim` host of the lab is a BMC with a power switch and nothing behind it. [`Installers`] is what is behind it: for each
//! host it follows the BMC's journal, and whenever the power goes on it boots what the boot order says. From the network
//! that is what the engine's boot table says, asked over the same socket as `vmetal-netboot` uses; from the disk it is what
//! the last order put there. The installer speaks the protocol of [`vmetal_model::agent`] like the real one does: it calls in,
//! asks for orders for ever, begins each once, reports until it is heard, and outlives an engine that is away. Power that goes
//! off ends it at that very moment.
//!
//! The installed system reads what a real one reads, the seed: its phone-home token and its join configuration. Its kubelet is
//! a hollow one: it registers a Node and keeps it Ready for as long as the power is on.
//!
//! What differs from host to host is data ([`Behaviour`]), and can be changed while the host runs: it counts from the host's
//! next step on.

mod kubelet;
mod line;
mod machine;
mod power;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::sync::oneshot;
use vmetal_model::agent::{AgentFailure, BootPurpose};
use vmetal_model::inventory::Disk;
use vmetal_model::{Cause, MacAddr, RootDeviceHints};

use self::line::Line;
use crate::stack::Place;

/// What a server does, from power-on to joining.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// From power-on to the first request over the network, or to the start of the installed system.
    pub firmware: Duration,
    /// Whether the installer finds its way to the engine.
    pub network_boot: NetworkBoot,
    /// How long each order takes.
    pub work: Duration,
    /// What comes of an order to install.
    pub installation: Installation,
    /// What the installed system does.
    pub system: System,
    /// The disks that inspection finds and installation may choose from.
    pub disks: Vec<Disk>,
    /// How the disk is chosen.
    pub choose_disk: ChooseDisk,
}

/// Chooses a disk by hints, or says why none can be chosen. The real one is `vmetal_agent::root_device::select`.
pub type ChooseDisk = fn(&[Disk], &RootDeviceHints) -> Result<Disk, AgentFailure>;

/// Whether the installer finds its way to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkBoot {
    /// It does.
    CallsIn,
    /// The network port is unplugged.
    NeverCallsIn,
}

/// What comes of an order to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installation {
    /// It succeeds if a disk can be chosen.
    Succeeds,
    /// It fails.
    Fails(AgentFailure),
    /// It goes on until the behaviour is changed, and ends as that says.
    GoesOn,
}

/// What the installed system does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// It phones home and joins.
    Joins,
    /// It phones home; its kubelet never registers.
    NeverJoins,
    /// It phones home; `kubeadm join` ends with this log.
    FailsToJoin(String),
    /// It does not boot.
    NeverPhonesHome,
}

impl Default for Behaviour {
    /// Everything works, in half a second each; one NVMe disk of 64 GiB.
    fn default() -> Self {
        Behaviour {
            firmware: Duration::from_millis(300),
            network_boot: NetworkBoot::CallsIn,
            work: Duration::from_millis(300),
            installation: Installation::Succeeds,
            system: System::Joins,
            disks: vec![disk("nvme0n1", 64, "SIM-NVME-0")],
            choose_disk: only_disk,
        }
    }
}

/// An NVMe disk.
pub fn disk(name: &str, gib: u64, serial: &str) -> Disk {
    Disk {
        name: name.to_owned(),
        size_bytes: gib << 30,
        bus: "nvme".to_owned(),
        serial: Some(serial.to_owned()),
        model: Some("Simulated".to_owned()),
        sector_bytes: 512,
        ..Disk::default()
    }
}

fn only_disk(disks: &[Disk], _: &RootDeviceHints) -> Result<Disk, AgentFailure> {
    match disks {
        [disk] => Ok(disk.clone()),
        _ => Err(AgentFailure {
            cause: Cause::RootDevice,
            message: format!("{} disks, and this simulated host chooses only where there is one", disks.len()),
            advice: "give the behaviour a choose_disk".to_owned(),
        }),
    }
}

/// What a server did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// The power went on.
    Booted,
    /// The power went off.
    WentOff,
    /// The installer began an order.
    Began(BootPurpose),
    /// The installer's report on an order was taken.
    Finished(BootPurpose),
    /// The installed system was heard.
    PhonedHome,
    /// The Node is registered and Ready.
    Registered,
}

/// Who the server says it is: as the lab's BMC says it.
#[derive(Debug, Clone, Deserialize)]
struct Facts {
    name: String,
    mac: MacAddr,
    serial_number: String,
    uuid: String,
    cpus: u32,
    memory_mib: u64,
    journal: std::path::PathBuf,
}

#[derive(Deserialize)]
struct Lab {
    hosts: Vec<Facts>,
}

/// What the tests may see and change of one server.
#[derive(Debug, Default)]
struct Shared {
    behaviours: BTreeMap<String, Behaviour>,
    deeds: Vec<(String, Deed)>,
    secrets: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Shared>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every change is one push or one insert, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn did(&self, host: &str, deed: Deed) {
        self.lock().deeds.push((host.to_owned(), deed));
    }

    fn heard_secret(&self, secret: &str) {
        let mut shared = self.lock();
        if !shared.secrets.iter().any(|known| known == secret) {
            shared.secrets.push(secret.to_owned());
        }
    }

    fn behaviour(&self, host: &str) -> Behaviour {
        self.lock().behaviours.get(host).cloned().unwrap_or_default()
    }
}

/// The software of all simulated hosts of a lab. Dropping it ends it.
#[derive(Debug)]
pub struct Installers {
    log: Log,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Installers {
    /// Starts the software of every host of the lab at `place`. Hosts without a behaviour have the default one.
    ///
    /// # Errors
    /// When the lab's description cannot be read.
    pub fn start(place: &Place, behaviours: BTreeMap<String, Behaviour>) -> Result<Self> {
        let socket = place.state().join("netboot.sock");
        Self::start_on(&place.directory.join("lab"), &place.kubeconfig(), behaviours, |_| vec![socket.clone()])
    }

    /// Starts the software of every host of a lab that `sockets` knows a way to an engine for: the sockets of one or more
    /// engines, of which it uses the next whenever one does not answer.
    ///
    /// # Errors
    /// When the lab's description cannot be read.
    pub fn start_on(
        lab_state: &Path,
        kubeconfig: &Path,
        behaviours: BTreeMap<String, Behaviour>,
        sockets: impl Fn(&str) -> Vec<PathBuf>,
    ) -> Result<Self> {
        let path = lab_state.join("lab.json");
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lab: Lab = serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
        let log = Log(Arc::new(Mutex::new(Shared { behaviours, ..Shared::default() })));
        let (stop, stopped) = oneshot::channel::<()>();
        let (kubeconfig, shared) = (kubeconfig.to_owned(), log.clone());
        let hosts = lab.hosts.into_iter().map(|facts| (sockets(&facts.name), facts));
        let hosts: Vec<_> = hosts.filter(|(sockets, _)| !sockets.is_empty()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("installers".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let all = run(&kubeconfig, hosts, shared);
                tokio::select! {
                    () = all => {}
                    // Either it is told to stop or its owner is gone.
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Installers { log, stop: Some(stop), thread: Some(thread) })
    }

    /// Changes a host, from its next step on.
    pub fn set(&self, host: &str, behaviour: Behaviour) {
        self.log.lock().behaviours.insert(host.to_owned(), behaviour);
    }

    /// What a host did so far.
    pub fn deeds(&self, host: &str) -> Vec<Deed> {
        let shared = self.log.lock();
        shared.deeds.iter().filter(|(name, _)| name == host).map(|(_, deed)| deed.clone()).collect()
    }

    /// How often a host did something.
    pub fn count(&self, host: &str, deed: &Deed) -> usize {
        self.deeds(host).iter().filter(|done| *done == deed).count()
    }

    /// Every secret that a server was given so far: boot tokens and join tokens.
    pub fn secrets(&self) -> Vec<String> {
        self.log.lock().secrets.clone()
    }

    /// Waits until any host has done something at least so often.
    ///
    /// # Errors
    /// When it did not happen in time: with what was done instead.
    pub fn wait_for(&self, host: &str, deed: &Deed, times: usize, limit: Duration) -> Result<()> {
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        while self.count(host, deed) < times {
            if waited > limit {
                bail!("{host} did not do {deed:?} {times} times within {limit:?}; it did {:?}", self.deeds(host));
            }
            std::thread::sleep(step);
            waited += step;
        }
        Ok(())
    }
}

impl Drop for Installers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // An error means that it panicked; the panic has been printed.
            let _ = thread.join();
        }
    }
}

async fn run(kubeconfig: &Path, hosts: Vec<(Vec<PathBuf>, Facts)>, log: Log) {
    let machines = hosts.into_iter().map(|(sockets, facts)| {
        let parts = machine::Parts { facts, line: Line::new(&sockets), log: log.clone() };
        machine::Machine::new(parts, kubeconfig).live()
    });
    futures::future::join_all(machines).await;
}
