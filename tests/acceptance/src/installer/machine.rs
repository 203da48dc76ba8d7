//! One server: firmware, installer, installed system.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::sleep;
use vmetal_api::netboot::{AgentReply, AgentRequest};
use vmetal_model::agent::{
    Action, BootPurpose, ErasedDisk, Hello, InstallOrder, Installed, Order, Progress, Report, ReportBody, Seed,
};
use vmetal_model::boot::BootTarget;
use vmetal_model::inventory::{Cpu, Firmware, Identity, Inventory, Nic};

use super::line::Line;
use super::power::{First, Journal, Power};
use super::{Behaviour, Deed, Facts, Installation, Log, NetworkBoot, System, kubelet};

/// The pause before a call that was not answered is made again.
const AGAIN: Duration = Duration::from_millis(200);
/// The pause after a refusal: it may be the engine's state catching up.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);
/// Between two signs of life during work.
const PULSE: Duration = Duration::from_secs(1);
/// How long the engine may hold a question for the next order.
const HOLD_SECONDS: u64 = 5;

/// What a server is made of.
pub(super) struct Parts {
    pub(super) facts: Facts,
    pub(super) line: Line,
    pub(super) log: Log,
}

/// One server.
pub(super) struct Machine {
    parts: Parts,
    kubeconfig: PathBuf,
    /// What is on the disk.
    disk: Option<Box<Seed>>,
}

/// How an installer was booted.
struct Boot {
    token: String,
    attempt: String,
    sequence: u64,
}

impl Machine {
    pub(super) fn new(parts: Parts, kubeconfig: &Path) -> Self {
        Machine { parts, kubeconfig: kubeconfig.to_owned(), disk: None }
    }

    /// Runs whenever the power is on, for ever.
    pub(super) async fn live(mut self) {
        let mut journal = Journal::new(&self.parts.facts.journal);
        let mut power = Power::Off;
        loop {
            power = match power {
                Power::Off => journal.next().await,
                Power::On(first) => {
                    self.did(Deed::Booted);
                    let change = tokio::select! {
                        change = journal.next() => change,
                        () = self.run(first) => journal.next().await,
                    };
                    if change == Power::Off {
                        self.did(Deed::WentOff);
                    }
                    change
                }
            };
        }
    }

    fn did(&self, deed: Deed) {
        self.parts.log.did(&self.parts.facts.name, deed);
    }

    fn behaviour(&self) -> Behaviour {
        self.parts.log.behaviour(&self.parts.facts.name)
    }

    async fn run(&mut self, first: First) {
        sleep(self.behaviour().firmware).await;
        if (first == First::Network || self.disk.is_none())
            && let Some(boot) = self.netboot().await
        {
            self.installer(boot).await;
        }
        self.installed_system().await;
    }

    /// What the network says: an installer, or `None` for the disk. Firmware asks until something can be booted. Each time the
    /// engine itself is asked: a simulated server boots faster than a table that was kept while the engine was away is renewed.
    async fn netboot(&mut self) -> Option<Boot> {
        loop {
            let connected = self.behaviour().network_boot == NetworkBoot::CallsIn;
            match self.target().await {
                Some(BootTarget::Agent { attempt, token }) if connected => {
                    self.parts.log.heard_secret(&token);
                    return Some(Boot { token, attempt, sequence: 0 });
                }
                Some(BootTarget::LocalDisk) if connected && self.disk.is_some() => return None,
                _ => sleep(AGAIN).await,
            }
        }
    }

    async fn target(&self) -> Option<BootTarget> {
        let table = self.parts.line.table().await?;
        let mac = self.parts.facts.mac;
        let entry = table.entries.into_iter().find(|entry| entry.macs.contains(&mac))?;
        Some(entry.target)
    }

    /// Does what it is told until it is told to restart.
    async fn installer(&mut self, mut boot: Boot) {
        let facts = &self.parts.facts;
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            attempt: boot.attempt.clone(),
            boot_mac: facts.mac,
            identity: identity(facts),
            firmware: Firmware::Uefi,
        };
        let mut order = self.order("POST", "/agent/v1/hello", &boot, &hello).await;
        let mut begun = HashSet::new();
        loop {
            if begun.insert(order.id.clone()) {
                match &order.action {
                    Action::Wait => {}
                    Action::Reboot => return sleep(self.behaviour().firmware).await,
                    // Nobody can switch a simulated host off from inside.
                    Action::PowerOff => std::future::pending().await,
                    Action::Inspect | Action::Install(_) | Action::Erase(_) => self.work_on(&order, &mut boot).await,
                }
            }
            let path = format!("/agent/v1/order?after={}&wait={HOLD_SECONDS}", order.id);
            order = self.order("GET", &path, &boot, &()).await;
        }
    }

    async fn work_on(&mut self, order: &Order, boot: &mut Boot) {
        let work = self.behaviour().work;
        let (purpose, step) = match &order.action {
            Action::Inspect => (BootPurpose::Inspect, "inspecting"),
            Action::Install(_) => (BootPurpose::Install, "writing image"),
            _ => (BootPurpose::Erase, "erasing"),
        };
        self.did(Deed::Began(purpose));
        let mut left = work;
        loop {
            let goes_on = purpose == BootPurpose::Install && self.behaviour().installation == Installation::GoesOn;
            if left.is_zero() && !goes_on {
                break;
            }
            let slice = if goes_on { PULSE } else { left.min(PULSE) };
            sleep(slice).await;
            left = left.saturating_sub(slice);
            if goes_on || !left.is_zero() {
                let total = u64::try_from(work.as_millis()).unwrap_or(u64::MAX);
                let done = total - u64::try_from(left.as_millis()).unwrap_or(0);
                self.report(order, boot, ReportBody::Progress(Progress { step: step.to_owned(), done, total })).await;
            }
        }
        let behaviour = self.behaviour();
        let (body, disk) = match &order.action {
            Action::Install(install) => {
                self.disk = None;
                install_on(&behaviour, install)
            }
            Action::Erase(_) => {
                let erased = |disk: &vmetal_model::inventory::Disk| ErasedDisk {
                    name: disk.name.clone(),
                    serial: disk.serial.clone(),
                    size_bytes: disk.size_bytes,
                    method: "simulated".to_owned(),
                };
                (ReportBody::Erased { disks: behaviour.disks.iter().map(erased).collect() }, None)
            }
            _ => {
                let inventory = Box::new(inventory(&self.parts.facts, &behaviour));
                (ReportBody::Inspected { inventory }, self.disk.take())
            }
        };
        if let Some(token) = disk.as_deref().and_then(kubelet::join_token) {
            self.parts.log.heard_secret(&token);
        }
        self.disk = disk;
        if self.report(order, boot, body).await {
            self.did(Deed::Finished(purpose));
        }
    }

    /// Tells until it is heard; false when it was refused.
    async fn report(&self, order: &Order, boot: &mut Boot, body: ReportBody) -> bool {
        boot.sequence += 1;
        let report = Report { order: order.id.clone(), sequence: boot.sequence, body };
        self.call("POST", "/agent/v1/report", &boot.token, &report).await.status == 204
    }

    /// Asks for an order until there is one.
    async fn order(&self, method: &str, path: &str, boot: &Boot, body: &impl Serialize) -> Order {
        loop {
            let reply = self.call(method, path, &boot.token, body).await;
            match serde_json::from_slice(&reply.body) {
                Ok(order) if reply.status == 200 => return order,
                _ => sleep(AFTER_REFUSAL).await,
            }
        }
    }

    /// Calls until the engine answers.
    async fn call(&self, method: &str, path: &str, token: &str, body: &impl Serialize) -> AgentReply {
        // Plain values of the protocol always serialise.
        self.send(method, path, token, serde_json::to_vec(body).unwrap_or_default()).await
    }

    async fn send(&self, method: &str, path: &str, token: &str, body: Vec<u8>) -> AgentReply {
        let request = AgentRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            bearer_token: token.to_owned(),
            peer: "192.0.2.1:1".to_owned(),
            body,
        };
        loop {
            match self.parts.line.agent(request.clone()).await {
                Some(reply) => return reply,
                None => sleep(AGAIN).await,
            }
        }
    }

    async fn installed_system(&self) {
        let Some(seed) = &self.disk else { return std::future::pending().await };
        if self.behaviour().system == System::NeverPhonesHome {
            return std::future::pending().await;
        }
        let Some(token) = kubelet::callback_token(seed) else { return std::future::pending().await };
        while self.call("POST", "/agent/v1/phone-home", &token, &Value::Null).await.status != 204 {
            sleep(AFTER_REFUSAL).await;
        }
        self.did(Deed::PhonedHome);
        match self.behaviour().system {
            System::Joins => {
                let registered = || self.did(Deed::Registered);
                if let Err(error) = kubelet::run(&self.kubeconfig, seed, registered).await {
                    eprintln!("kubelet of {}: {error:#}", self.parts.facts.name);
                }
            }
            System::FailsToJoin(log) => {
                self.send("POST", "/agent/v1/join-failed", &token, log.into_bytes()).await;
            }
            System::NeverJoins | System::NeverPhonesHome => {}
        }
        std::future::pending().await
    }
}

fn install_on(behaviour: &Behaviour, install: &InstallOrder) -> (ReportBody, Option<Box<Seed>>) {
    if let Installation::Fails(failure) = &behaviour.installation {
        return (ReportBody::Failed(failure.clone()), None);
    }
    match (behaviour.choose_disk)(&behaviour.disks, &install.root_device) {
        Err(failure) => (ReportBody::Failed(failure), None),
        Ok(disk) => {
            let installed = Installed {
                disk: disk.name,
                disk_serial: disk.serial,
                bytes_written: 64 << 20,
                bytes_fetched: 32 << 20,
                elapsed_ms: u64::try_from(behaviour.work.as_millis()).unwrap_or(u64::MAX),
            };
            (ReportBody::Installed(installed), Some(Box::new(install.seed.clone())))
        }
    }
}

fn identity(facts: &Facts) -> Identity {
    Identity {
        serial: Some(facts.serial_number.clone()),
        uuid: Some(facts.uuid.to_ascii_lowercase()),
        manufacturer: Some("vmetal".to_owned()),
        product: Some("lab".to_owned()),
    }
}

fn inventory(facts: &Facts, behaviour: &Behaviour) -> Inventory {
    Inventory {
        identity: identity(facts),
        cpu: Cpu {
            architecture: "x86_64".to_owned(),
            model: "Simulated".to_owned(),
            sockets: 1,
            cores: facts.cpus,
            threads: facts.cpus,
        },
        memory_bytes: facts.memory_mib << 20,
        disks: behaviour.disks.clone(),
        nics: vec![Nic {
            name: "eth0".to_owned(),
            mac: facts.mac,
            driver: None,
            speed_mbps: Some(10_000),
            link_up: true,
            pci_address: None,
            boot: true,
        }],
        pci: Vec::new(),
        firmware: Firmware::Uefi,
    }
}
