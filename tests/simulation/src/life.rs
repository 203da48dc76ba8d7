//! The life of a machine from power-on: firmware, network boot, installer, installed system.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use vmetal_api::netboot::{AgentReply, AgentRequest, NetbootBackend as _};
use vmetal_model::agent::{
    Action, AgentFailure, EraseOrder, ErasedDisk, Hello, Installed, Order, Report, ReportBody, Seed,
};
use vmetal_model::boot::BootTarget;
use vmetal_model::inventory::{Cpu, Disk as DiskFacts, Firmware, Identity, Nic};
use vmetal_model::{BootMode, Cause, ClaimState, HostPhase, Inventory, TenantNodePhase};

use crate::fault::MachineFault;
use crate::machine::{Content, Running, System};
use crate::scenario::Defect;
use crate::world::World;

/// One start of one machine.
struct Start {
    world: Arc<World>,
    index: usize,
    number: u64,
    name: String,
    faults: Vec<MachineFault>,
}

/// Lives until the power goes.
pub async fn start(world: Arc<World>, index: usize, number: u64) {
    let (name, faults, firmware, network) = {
        let mut inner = world.inner();
        let machine = &mut inner.machines[index];
        // An override for one start is used up by it.
        let network = std::mem::take(&mut machine.network_next);
        machine.etag += 1;
        (machine.name.clone(), machine.take_faults(), machine.firmware, network)
    };
    let start = Start { world, index, number, name, faults };
    let slow = start.faults.iter().find_map(|fault| match fault {
        MachineFault::SlowFirmware(time) => Some(*time),
        _ => None,
    });
    sleep(firmware + slow.unwrap_or_default()).await;
    if network && !start.has(&MachineFault::NoNetworkBoot) {
        start.network_boot(firmware).await;
    }
    start.disk_boot().await;
    std::future::pending::<()>().await;
}

/// Why a call gave nothing.
enum Silence {
    /// Nobody answered: try again.
    Away,
    /// An answer that does not change.
    Refused(u16, String),
}

impl Start {
    fn has(&self, fault: &MachineFault) -> bool {
        self.faults.contains(fault)
    }

    fn say(&self, text: impl Into<String>) {
        self.world.say(&self.name, text);
    }

    fn run(&self, running: Running) {
        self.world.inner().machines[self.index].running = running;
    }

    /// The network boot service is asked; what it answers is booted.
    async fn network_boot(&self, firmware: Duration) {
        sleep(self.world.chance.between(Duration::from_secs(1), Duration::from_secs(8))).await;
        if !self.offered().await {
            return self.say("network boot: no answer, on to the disk");
        }
        let Some(BootTarget::Agent { attempt, token }) = self.world.boot_target(self.index) else {
            return self.say("network boot: nothing but the disk");
        };
        self.say(format!("network boot: the installer of attempt {attempt}"));
        self.run(Running::Installer);
        sleep(self.world.chance.between(Duration::from_secs(2), Duration::from_secs(12))).await;
        if self.has(&MachineFault::NeverCalls) {
            std::future::pending::<()>().await;
        }
        self.installer(&attempt, &token).await;
        self.run(Running::Firmware);
        sleep(firmware).await;
    }

    fn link_is_down(&self) -> bool {
        self.world.inner().machines[self.index].link.is_down(Instant::now())
    }

    /// Firmware asks for an address four times, with growing pauses, and then tries the disk.
    async fn offered(&self) -> bool {
        for pause in [4, 8, 16, 32] {
            if !self.link_is_down() {
                return true;
            }
            sleep(Duration::from_secs(pause)).await;
        }
        false
    }

    /// One request to whichever engine the network boot service is connected to.
    async fn call(&self, method: &str, path: &str, token: &str, body: Vec<u8>) -> Result<Vec<u8>, Silence> {
        sleep(self.world.chance.between(Duration::from_millis(1), Duration::from_millis(30))).await;
        if self.link_is_down() {
            sleep(Duration::from_secs(5)).await;
            return Err(Silence::Away);
        }
        let now = Instant::now();
        let process = {
            let inner = self.world.inner();
            let open = inner.engines.iter().filter(|e| e.installers_away.is_none_or(|until| until <= now));
            let alive: Vec<_> = open.filter_map(|engine| engine.process.clone()).collect();
            if alive.is_empty() { None } else { Some(self.world.chance.pick(&alive).clone()) }
        };
        let engine = process.as_ref().and_then(|process| process.engine());
        let (Some(process), Some(engine)) = (process, engine) else { return Err(Silence::Away) };
        let request = AgentRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            bearer_token: token.to_owned(),
            peer: "172.22.0.50".to_owned(),
            body,
        };
        let reply = tokio::select! {
            biased;
            () = process.death() => return Err(Silence::Away),
            () = sleep(Duration::from_secs(60)) => return Err(Silence::Away),
            reply = engine.agent(request) => reply,
        };
        sleep(self.world.chance.between(Duration::from_millis(1), Duration::from_millis(30))).await;
        if self.link_is_down() {
            return Err(Silence::Away);
        }
        let AgentReply { status, body } = reply;
        match status {
            200..300 => Ok(body),
            408 | 425 | 429 | 500.. => Err(Silence::Away),
            _ => Err(Silence::Refused(status, String::from_utf8_lossy(&body).into_owned())),
        }
    }

    /// The installer: ask, do, tell, until it is to restart.
    async fn installer(&self, attempt: &str, token: &str) {
        let hello = {
            let inner = self.world.inner();
            let machine = &inner.machines[self.index];
            Hello {
                version: "simulated".to_owned(),
                attempt: attempt.to_owned(),
                boot_mac: machine.mac,
                identity: identity(&machine.serial, &machine.uuid),
                firmware: firmware(machine.mode),
            }
        };
        let mut sequence = 0;
        let mut begun: HashSet<String> = HashSet::new();
        let mut order = self.persist("POST", "/agent/v1/hello", token, encode(&hello)).await;
        loop {
            if begun.insert(order.id.clone()) {
                match &order.action {
                    Action::Wait => {}
                    Action::Reboot | Action::PowerOff => return,
                    work => {
                        self.say(format!("installer: order {}", order.id));
                        let body = self.work(work, &order.id, token, &mut sequence).await;
                        sequence += 1;
                        self.report_surely(&order.id, token, sequence, body).await;
                    }
                }
            }
            let last = order.id.clone();
            let path = format!("/agent/v1/order?after={last}&wait=20");
            order = self.persist("GET", &path, token, Vec::new()).await;
            if order.id == last {
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    async fn persist(&self, method: &str, path: &str, token: &str, body: Vec<u8>) -> Order {
        let mut tries = 0;
        loop {
            match self.call(method, path, token, body.clone()).await {
                Ok(body) => {
                    if let Ok(order) = serde_json::from_slice(&body) {
                        return order;
                    }
                    self.world.violated(&self.name, format!("{method} {path}: the answer is no order"));
                    sleep(Duration::from_secs(10)).await;
                }
                Err(Silence::Away) => sleep(backoff(tries)).await,
                Err(Silence::Refused(status, text)) => {
                    if tries == 0 {
                        self.say(format!("installer: refused with {status}: {text}"));
                    }
                    sleep(Duration::from_secs(10)).await;
                }
            }
            tries += 1;
        }
    }

    async fn report_surely(&self, order: &str, token: &str, sequence: u64, body: ReportBody) {
        let report = encode(&Report { order: order.to_owned(), sequence, body });
        let mut tries = 0;
        loop {
            match self.call("POST", "/agent/v1/report", token, report.clone()).await {
                Ok(_) => return,
                Err(Silence::Away) => sleep(backoff(tries)).await,
                Err(Silence::Refused(status, text)) => {
                    return self.say(format!("installer: report refused with {status}: {text}"));
                }
            }
            tries += 1;
        }
    }

    /// Works for a while, and says so every five seconds; what is done to disks is done at the beginning and at the end.
    async fn work(&self, action: &Action, order: &str, token: &str, sequence: &mut u64) -> ReportBody {
        if let Err(failure) = self.begin(action) {
            return ReportBody::Failed(failure);
        }
        let factor = self.faults.iter().find_map(|fault| match fault {
            MachineFault::Slow(times) => Some(*times),
            _ => None,
        });
        let least = if matches!(action, Action::Inspect) { 2 } else { 15 };
        let time = self.world.chance.between(Duration::from_secs(least), Duration::from_secs(least * 4));
        let end = Instant::now() + time * factor.unwrap_or(1);
        while Instant::now() < end {
            sleep(Duration::from_secs(5).min(end - Instant::now())).await;
            if self.has(&MachineFault::Hangs) {
                self.say("installer: hangs");
                std::future::pending::<()>().await;
            }
            if self.has(&MachineFault::PowerLoss) {
                let (world, index) = (Arc::clone(&self.world), self.index);
                tokio::spawn(async move { world.power_off(index, "power loss") });
                std::future::pending::<()>().await;
            }
            *sequence += 1;
            let beat = encode(&Report { order: order.to_owned(), sequence: *sequence, body: ReportBody::Heartbeat });
            // A lost one is lost.
            let _ = timeout(Duration::from_secs(4), self.call("POST", "/agent/v1/report", token, beat)).await;
        }
        if self.has(&MachineFault::WorkFails) {
            return ReportBody::Failed(AgentFailure {
                cause: if matches!(action, Action::Inspect) { Cause::Inspection } else { Cause::Disk },
                message: "the simulated work failed".to_owned(),
                advice: "none".to_owned(),
            });
        }
        self.end(action, token)
    }

    fn begin(&self, action: &Action) -> Result<(), AgentFailure> {
        let expected = match action {
            Action::Install(order) => order.expected_serial.as_ref(),
            Action::Erase(EraseOrder { expected_serial, .. }) => expected_serial.as_ref(),
            _ => None,
        };
        let mut inner = self.world.inner();
        let machine = &mut inner.machines[self.index];
        if expected.is_some_and(|expected| *expected != machine.serial) {
            drop(inner);
            self.world.violated(&self.name, "an order for another machine");
            return Err(AgentFailure {
                cause: Cause::WrongMachine,
                message: "another serial number was expected".to_owned(),
                advice: "none".to_owned(),
            });
        }
        drop(inner);
        match action {
            Action::Install(order) => self.check_install(&instance_of(&order.seed)),
            Action::Erase(_) => self.check_erase(),
            _ => {}
        }
        if let Action::Install(order) = action {
            let content = if waits(&order.seed) { Content::Foreign } else { Content::Data(instance_of(&order.seed)) };
            self.world.inner().machines[self.index].disks[0].content = content;
        }
        Ok(())
    }

    /// What the machine sees when it is to write a system for a claim.
    fn check_install(&self, claim: &str) {
        let others: Vec<String> = {
            let inner = self.world.inner();
            let claims = inner.machines[self.index].claims();
            claims.into_iter().filter(|other| *other != claim).map(str::to_owned).collect()
        };
        if !others.is_empty() {
            self.world.violated(&self.name, format!("claim {claim} gets disks with the data of {others:?}"));
        }
        let Some(host) = self.world.host(&self.name) else {
            return self.world.violated(&self.name, "an installation of a host that does not exist");
        };
        let held = host.status.claim.as_ref().is_some_and(|held| held.uid.0 == claim);
        if held && host.status.phase == HostPhase::Provisioned {
            self.world.violated(&self.name, format!("claim {claim} uses the host, which is installed over"));
        }
    }

    /// What the machine sees when it is to erase its disks.
    fn check_erase(&self) {
        let claims: Vec<String> =
            self.world.inner().machines[self.index].claims().into_iter().map(str::to_owned).collect();
        let Some(host) = self.world.host(&self.name) else {
            return self.world.violated(&self.name, "an erasure of a host that does not exist");
        };
        let Some(held) = &host.status.claim else { return };
        if claims.contains(&held.uid.0) && matches!(held.state, ClaimState::Reserved | ClaimState::Install) {
            self.world
                .violated(&self.name, format!("the disks of claim {} are erased while it holds the host", held.uid));
        }
        // One that has moved on is Ready elsewhere.
        let here = |node: &Arc<vmetal_model::TenantNode>| {
            node.metadata.uid == held.uid && node.status.host.as_ref() == Some(&self.name)
        };
        let node = self.world.node(&held.node).filter(here);
        if let Some(node) =
            node.filter(|node| matches!(node.status.phase, TenantNodePhase::Joining | TenantNodePhase::Ready))
        {
            self.world
                .violated(&self.name, format!("erased while tenant node {} is {:?}", node.name(), node.status.phase));
        }
    }

    fn end(&self, action: &Action, token: &str) -> ReportBody {
        let mut inner = self.world.inner();
        let machine = &mut inner.machines[self.index];
        match action {
            Action::Inspect => ReportBody::Inspected {
                inventory: Box::new(Inventory {
                    identity: identity(&machine.serial, &machine.uuid),
                    cpu: Cpu {
                        architecture: "x86_64".to_owned(),
                        model: "simulated".to_owned(),
                        sockets: 1,
                        cores: 8,
                        threads: 16,
                    },
                    memory_bytes: 64 << 30,
                    disks: machine
                        .disks
                        .iter()
                        .enumerate()
                        .map(|(n, disk)| facts(n, &disk.serial, disk.bytes))
                        .collect(),
                    nics: vec![Nic {
                        name: "eth0".to_owned(),
                        mac: machine.mac,
                        driver: None,
                        speed_mbps: Some(10_000),
                        link_up: true,
                        pci_address: None,
                        boot: true,
                    }],
                    pci: Vec::new(),
                    firmware: firmware(machine.mode),
                }),
            },
            Action::Install(order) => {
                machine.disks[0].content = Content::System(Box::new(system(&order.seed, token)));
                let serial = machine.disks[0].serial.clone();
                drop(inner);
                self.say(format!("installer: wrote the system of {}", instance_of(&order.seed)));
                ReportBody::Installed(Installed {
                    disk: "sda".to_owned(),
                    disk_serial: Some(serial),
                    bytes_written: 1 << 30,
                    bytes_fetched: 1 << 29,
                    elapsed_ms: 1000,
                })
            }
            Action::Erase(order) => {
                let level = order.level;
                if self.world.scenario.defect != Some(Defect::ErasesNothing) {
                    for disk in &mut machine.disks {
                        disk.content = Content::Blank;
                    }
                }
                let disks = machine.disks.iter().enumerate().map(|(n, disk)| ErasedDisk {
                    name: device(n),
                    serial: Some(disk.serial.clone()),
                    size_bytes: disk.bytes,
                    method: format!("{level:?}"),
                });
                let disks = disks.collect();
                drop(inner);
                self.say("installer: erased every disk");
                ReportBody::Erased { disks }
            }
            Action::Wait | Action::Reboot | Action::PowerOff => ReportBody::Heartbeat,
        }
    }

    /// The first disk with a system starts it.
    async fn disk_boot(&self) {
        let system = {
            let inner = self.world.inner();
            let disks = &inner.machines[self.index].disks;
            disks.iter().find_map(|disk| match &disk.content {
                Content::System(system) => Some((**system).clone()),
                _ => None,
            })
        };
        let Some(mut system) = system else { return self.say("nothing to boot from") };
        self.say(format!("boots the system of {}", system.claim));
        self.run(Running::System(system.claim.clone()));
        if self.has(&MachineFault::NoFirstBoot) {
            std::future::pending::<()>().await;
        }
        sleep(self.world.chance.between(Duration::from_secs(10), Duration::from_secs(60))).await;
        if system.waits {
            system = self.stand_by(&system).await;
        }
        if !system.phoned_home {
            self.phone_home(&system).await;
        }
        self.kubelet(&system).await;
    }

    fn note(&self, change: impl Fn(&mut System)) {
        for disk in &mut self.world.inner().machines[self.index].disks {
            if let Content::System(system) = &mut disk.content {
                change(system);
            }
        }
    }

    /// As the service in the user data does: says that it waits, and asks until there is a claim, whose system this is then.
    async fn stand_by(&self, system: &System) -> System {
        let home = format!("/agent/v1/phone-home?instance={}", system.claim);
        while self.call("POST", &home, &system.boot_token, b"up".to_vec()).await.is_err() {
            sleep(Duration::from_secs(2)).await;
        }
        self.say("the system on standby waits");
        if self.has(&MachineFault::PowerLoss) {
            sleep(self.world.chance.between(Duration::from_secs(1), Duration::from_secs(1800))).await;
            let (world, index) = (Arc::clone(&self.world), self.index);
            tokio::spawn(async move { world.power_off(index, "power loss") });
            std::future::pending::<()>().await;
        }
        let seed: Seed = loop {
            match self.call("GET", "/agent/v1/claim?wait=25", &system.boot_token, Vec::new()).await {
                Ok(body) if body.is_empty() => {}
                Ok(body) => match serde_json::from_slice(&body) {
                    Ok(seed) => break seed,
                    Err(error) => self.world.violated(&self.name, format!("the claim's data cannot be read: {error}")),
                },
                Err(_) => sleep(Duration::from_secs(2)).await,
            }
        };
        if self.has(&MachineFault::Hangs) {
            self.say("the system on standby hangs");
            std::future::pending::<()>().await;
        }
        let taken = self::system(&seed, &system.boot_token);
        self.say(format!("the system on standby takes over claim {}", taken.claim));
        self.check_install(&taken.claim);
        {
            let mut inner = self.world.inner();
            let machine = &mut inner.machines[self.index];
            machine.running = Running::System(taken.claim.clone());
            let waiting = |disk: &&mut crate::machine::Disk| matches!(&disk.content, Content::System(s) if s.waits);
            for disk in machine.disks.iter_mut().filter(waiting) {
                disk.content = Content::System(Box::new(taken.clone()));
            }
        }
        sleep(self.world.chance.between(Duration::from_secs(2), Duration::from_secs(20))).await;
        taken
    }

    /// As the script in the user data does: for ten minutes.
    async fn phone_home(&self, system: &System) {
        let end = Instant::now() + Duration::from_secs(600);
        let path = format!("/agent/v1/phone-home?instance={}", system.claim);
        while Instant::now() < end {
            let told = self.call("POST", &path, &system.boot_token, b"up".to_vec()).await;
            if told.is_ok() {
                self.say("the installed system phoned home");
                break;
            }
            sleep(Duration::from_secs(2)).await;
        }
        self.note(|system| system.phoned_home = true);
    }

    /// Joins, once, and runs; a kubelet with a certificate makes its Node again if that is gone.
    async fn kubelet(&self, system: &System) {
        sleep(self.world.chance.between(Duration::from_secs(5), Duration::from_secs(40))).await;
        let refused = {
            let inner = self.world.inner();
            let known = inner.cluster.knows_token(&system.join_token);
            !system.joined && (!known || self.has(&MachineFault::JoinFails))
        };
        if refused {
            self.say("kubeadm join failed");
            let log = b"error execution phase preflight: couldn't validate the identity of the API Server".to_vec();
            let end = Instant::now() + Duration::from_secs(600);
            while Instant::now() < end {
                if self.call("POST", "/agent/v1/join-failed", &system.boot_token, log.clone()).await.is_ok() {
                    break;
                }
                sleep(Duration::from_secs(2)).await;
            }
            return;
        }
        self.note(|system| system.joined = true);
        let ready = Instant::now() + self.world.chance.between(Duration::from_secs(1), Duration::from_secs(30));
        let pods = self.world.chance.below(4);
        self.world.inner().cluster.register(system, self.index, self.number, ready, pods);
        self.say(format!("Node {} registered", system.node));
    }
}

fn backoff(tries: u32) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << tries.min(10)).min(Duration::from_secs(10))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    // The model's types are plain data with string keys: they always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

fn identity(serial: &str, uuid: &str) -> Identity {
    Identity {
        serial: Some(serial.to_owned()),
        uuid: Some(uuid.to_owned()),
        manufacturer: Some("Simulated".to_owned()),
        product: Some("S1".to_owned()),
    }
}

fn firmware(mode: BootMode) -> Firmware {
    match mode {
        BootMode::Uefi => Firmware::Uefi,
        BootMode::Bios => Firmware::Bios,
    }
}

fn device(n: usize) -> String {
    format!("sd{}", char::from(b'a' + n as u8))
}

fn facts(n: usize, serial: &str, bytes: u64) -> DiskFacts {
    DiskFacts {
        name: device(n),
        size_bytes: bytes,
        bus: "sata".to_owned(),
        rotational: false,
        vendor: None,
        model: Some("simulated".to_owned()),
        serial: Some(serial.to_owned()),
        wwn: None,
        hctl: None,
        sector_bytes: 512,
    }
}

/// The claim in a seed: cloud-init's instance id.
fn instance_of(seed: &Seed) -> String {
    let meta: Value = serde_json::from_str(&seed.meta_data).unwrap_or_default();
    meta["instance-id"].as_str().unwrap_or_default().to_owned()
}

/// Whether a seed is that of a system that waits for a claim.
fn waits(seed: &Seed) -> bool {
    seed.user_data.contains("/agent/v1/claim")
}

/// What cloud-init makes of the seed.
fn system(seed: &Seed, boot_token: &str) -> System {
    let meta: Value = serde_json::from_str(&seed.meta_data).unwrap_or_default();
    let text = &seed.user_data;
    let provider = text.find("vmetal://").map(|at| {
        text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "-:/".contains(*c)).collect::<String>()
    });
    // A bootstrap token: six and sixteen characters (kubeadm's form).
    let token = text.match_indices('.').find_map(|(dot, _)| {
        let part = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let (id, secret) = (text.get(dot.checked_sub(6)?..dot)?, text.get(dot + 1..dot + 17)?);
        (part(id) && part(secret)).then(|| format!("{id}.{secret}"))
    });
    System {
        claim: instance_of(seed),
        waits: waits(seed),
        node: meta["local-hostname"].as_str().unwrap_or_default().to_owned(),
        provider_id: provider.unwrap_or_default(),
        boot_token: boot_token.to_owned(),
        join_token: token.unwrap_or_default(),
        phoned_home: false,
        joined: false,
    }
}
