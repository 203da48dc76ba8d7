//! A simulated server: power switch, firmware, installer, installed system.
//!
//! It speaks to the engine over the network boot process' socket, as `vmetal-netboot` passes installers' requests on, in the
//! protocol of [`vmetal_model::agent`]: it boots what the boot table says, calls in, does what it is told in no time, reports,
//! and holds a question for the next order until its power goes off. An installed system phones home with the token from its
//! seed and its kubelet registers a Node with the simulated cluster.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use vmetal_api::netboot::{AgentReply, AgentRequest, NetbootClient};
use vmetal_model::MacAddr;
use vmetal_model::agent::{Action, ErasedDisk, Hello, InstallOrder, Installed, Order, Report, ReportBody, Seed};
use vmetal_model::boot::BootTarget;
use vmetal_model::inventory::{Cpu, Disk, Firmware, Identity, Inventory, Nic};

use crate::cluster::Clusters;

/// How long a question for the next order is held: as the real installer has it.
const HOLD_SECONDS: u64 = 20;
/// The pause before a call that was not answered is made again.
const AGAIN: Duration = Duration::from_millis(500);

/// What ails a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sickness {
    /// Nothing.
    Healthy,
    /// It takes requests and never answers.
    Hangs,
    /// It says 503 to everything.
    Busy,
    /// Its answers break off.
    Truncates,
}

/// What all machines share.
pub struct World {
    /// What each MAC should boot, as told by the engine.
    pub boots: Boots,
    /// The way to the engine.
    pub engine: NetbootClient,
    /// Where installed systems register.
    pub clusters: Arc<Clusters>,
    /// From power-on to the first request over the network, in milliseconds.
    firmware: AtomicU64,
    /// Requests of installers and systems so far.
    pub requests: AtomicU64,
}

impl World {
    /// Nothing boots yet.
    pub fn new(engine: NetbootClient, clusters: Arc<Clusters>, firmware: Duration) -> Self {
        let world = World {
            boots: Boots::default(),
            engine,
            clusters,
            firmware: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        };
        world.boot_after(firmware);
        world
    }

    /// From now on servers take so long from power-on to their first request.
    pub fn boot_after(&self, firmware: Duration) {
        self.firmware.store(u64::try_from(firmware.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn firmware(&self) -> Duration {
        Duration::from_millis(self.firmware.load(Ordering::Relaxed))
    }
}

/// The boot table, with a signal per machine.
#[derive(Default)]
pub struct Boots(Mutex<HashMap<MacAddr, watch::Sender<Option<BootTarget>>>>);

impl Boots {
    fn lock(&self) -> MutexGuard<'_, HashMap<MacAddr, watch::Sender<Option<BootTarget>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what one MAC should boot.
    pub fn set(&self, mac: MacAddr, target: Option<BootTarget>) {
        let mut boots = self.lock();
        let sender = boots.entry(mac).or_insert_with(|| watch::Sender::new(None));
        sender.send_if_modified(|now| {
            let news = *now != target;
            if news {
                *now = target;
            }
            news
        });
    }

    fn follow(&self, mac: MacAddr) -> watch::Receiver<Option<BootTarget>> {
        self.lock().entry(mac).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }
}

/// One server.
pub struct Machine {
    /// The host's name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// What ails its BMC.
    pub sickness: Sickness,
    world: Arc<World>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    on: bool,
    network_once: bool,
    revision: u64,
    running: Option<AbortHandle>,
    disk: Option<Box<Seed>>,
}

/// A server as its BMC shows it.
pub struct View {
    /// Whether the power is on.
    pub on: bool,
    /// Whether the next boot is from the network.
    pub network_once: bool,
    /// Counts changes.
    pub revision: u64,
}

/// The boot MAC of server number `index`.
pub fn mac(index: u32) -> MacAddr {
    let [a, b, c, d] = index.to_be_bytes();
    MacAddr([0x52, 0x54, a, b, c, d])
}

/// The name of server number `index`.
pub fn name(index: u32) -> String {
    format!("h{index:05}")
}

impl Machine {
    /// A server that is off, with an empty disk.
    pub fn new(index: u32, sickness: Sickness, world: Arc<World>) -> Arc<Self> {
        Arc::new(Machine { name: name(index), index, sickness, world, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The serial number.
    pub fn serial(&self) -> String {
        format!("BENCH{:05}", self.index)
    }

    /// The system's UUID.
    pub fn uuid(&self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.index)
    }

    /// As the BMC shows it.
    pub fn view(&self) -> View {
        let state = self.lock();
        View { on: state.on, network_once: state.network_once, revision: state.revision }
    }

    /// Sets the boot override.
    pub fn boot_from_network_once(&self) {
        let mut state = self.lock();
        state.network_once = true;
        state.revision += 1;
    }

    /// Switches on, if it is off: it boots.
    pub fn power_on(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.on {
            return;
        }
        let network = std::mem::take(&mut state.network_once);
        (state.on, state.revision) = (true, state.revision + 1);
        let this = Arc::clone(self);
        state.running = Some(tokio::spawn(async move { this.run(network).await }).abort_handle());
    }

    /// Switches off at once.
    pub fn power_off(&self) {
        let mut state = self.lock();
        (state.on, state.revision) = (false, state.revision + 1);
        if let Some(running) = state.running.take() {
            running.abort();
        }
    }

    async fn run(&self, network: bool) {
        tokio::time::sleep(self.world.firmware()).await;
        if network {
            self.installer().await;
            // The installer ends with a restart, and this time the disk is what is left.
            tokio::time::sleep(self.world.firmware()).await;
        }
        self.installed_system().await;
    }

    /// Waits until the network says what to boot; then does what it is told until it is told to restart.
    async fn installer(&self) {
        let mut boots = self.world.boots.follow(mac(self.index));
        let (attempt, token) = loop {
            if let Some(BootTarget::Agent { attempt, token }) = boots.borrow_and_update().clone() {
                break (attempt, token);
            }
            if boots.changed().await.is_err() {
                return;
            }
        };
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            attempt,
            boot_mac: mac(self.index),
            identity: self.identity(),
            firmware: Firmware::Uefi,
        };
        let mut order = self.order("POST", "/agent/v1/hello", &token, &hello).await;
        let (mut begun, mut sequence) = (String::new(), 0);
        loop {
            if order.id != begun {
                begun.clone_from(&order.id);
                let body = match &order.action {
                    Action::Inspect => Some(ReportBody::Inspected { inventory: Box::new(self.inventory()) }),
                    Action::Install(install) => Some(self.install(install)),
                    Action::Erase(_) => Some(self.erase()),
                    Action::Reboot => return,
                    Action::PowerOff => std::future::pending().await,
                    Action::Wait => None,
                };
                if let Some(body) = body {
                    sequence += 1;
                    self.call("POST", "/agent/v1/report", &token, &Report { order: order.id.clone(), sequence, body })
                        .await;
                }
            }
            let path = format!("/agent/v1/order?after={}&wait={HOLD_SECONDS}", order.id);
            order = self.order("GET", &path, &token, &()).await;
        }
    }

    fn install(&self, order: &InstallOrder) -> ReportBody {
        self.lock().disk = Some(Box::new(order.seed.clone()));
        let disk = disk(self.index);
        ReportBody::Installed(Installed {
            disk: disk.name,
            disk_serial: disk.serial,
            bytes_written: 64 << 20,
            bytes_fetched: 32 << 20,
            elapsed_ms: 1,
        })
    }

    fn erase(&self) -> ReportBody {
        self.lock().disk = None;
        let Disk { name, serial, size_bytes, .. } = disk(self.index);
        ReportBody::Erased { disks: vec![ErasedDisk { name, serial, size_bytes, method: "simulated".to_owned() }] }
    }

    async fn installed_system(&self) {
        let Some(seed) = self.lock().disk.clone() else { return };
        let Some(token) = callback_token(&seed) else {
            return eprintln!("bench: the seed of {} has no phone-home token", self.name);
        };
        self.call("POST", "/agent/v1/phone-home", &token, &Value::Null).await;
        match file(&seed, "/kubeadm-join.yaml").and_then(|text| serde_json::from_str::<Value>(&text).ok()) {
            Some(join) => self.world.clusters.register(&join),
            None => eprintln!("bench: the seed of {} has no join configuration", self.name),
        }
    }

    /// Asks for an order until there is one.
    async fn order(&self, method: &str, path: &str, token: &str, body: &impl Serialize) -> Order {
        loop {
            let reply = self.call(method, path, token, body).await;
            match serde_json::from_slice(&reply.body) {
                Ok(order) if reply.status == 200 => return order,
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Calls until the engine answers.
    async fn call(&self, method: &str, path: &str, token: &str, body: &impl Serialize) -> AgentReply {
        let request = AgentRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            bearer_token: token.to_owned(),
            peer: "192.0.2.1:1".to_owned(),
            body: serde_json::to_vec(body).unwrap_or_default(),
        };
        loop {
            self.world.requests.fetch_add(1, Ordering::Relaxed);
            match self.world.engine.agent(request.clone()).await {
                Ok(reply) if reply.status != 503 => return reply,
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            serial: Some(self.serial()),
            uuid: Some(self.uuid()),
            manufacturer: Some("vmetal".to_owned()),
            product: Some("bench".to_owned()),
        }
    }

    fn inventory(&self) -> Inventory {
        let cpu = Cpu {
            architecture: "x86_64".to_owned(),
            model: "Simulated".to_owned(),
            sockets: 2,
            cores: 64,
            threads: 128,
        };
        let nic = Nic {
            name: "eth0".to_owned(),
            mac: mac(self.index),
            driver: None,
            speed_mbps: Some(25_000),
            link_up: true,
            pci_address: None,
            boot: true,
        };
        Inventory {
            identity: self.identity(),
            cpu,
            memory_bytes: 512 << 30,
            disks: vec![disk(self.index)],
            nics: vec![nic],
            pci: Vec::new(),
            firmware: Firmware::Uefi,
        }
    }
}

fn disk(index: u32) -> Disk {
    Disk {
        name: "nvme0n1".to_owned(),
        size_bytes: 960 << 30,
        bus: "nvme".to_owned(),
        serial: Some(format!("NVME{index:05}")),
        model: Some("Simulated".to_owned()),
        sector_bytes: 512,
        ..Disk::default()
    }
}

/// A file that the seed writes.
fn file(seed: &Seed, name: &str) -> Option<String> {
    let document: Value = serde_json::from_str(seed.user_data.strip_prefix("#cloud-config\n")?).ok()?;
    let files = document["write_files"].as_array()?;
    let file = files.iter().find(|file| file["path"].as_str().is_some_and(|path| path.ends_with(name)))?;
    Some(file["content"].as_str()?.to_owned())
}

fn callback_token(seed: &Seed) -> Option<String> {
    Some(file(seed, "/phone-home.header")?.trim().strip_prefix("Authorization: Bearer ")?.to_owned())
}

/// A range of addresses on the provisioning network that is large enough for everyone.
pub const RANGE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 80, 0, 1), Ipv4Addr::new(10, 80, 255, 254));
