//! Hot standby with nothing played: real firmware in QEMU, a real Kubernetes API server, a real kubelet. One bare server is
//! installed ahead of any claim and waits; a claim takes its system over and becomes a Ready node without a reset, a boot or
//! an installer. Then the same server serves the same claim cold, in the same lab, and both times are told.
//!
//! Without KVM the processor is emulated, which stretches what a node does itself (cloud-init, kubeadm, kubelet) and spares the
//! minutes that a real server spends in firmware: the ratio here says little about real servers.

#![allow(clippy::disallowed_methods, reason = "measures real processes in real time")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use vmetal_acceptance::journal::Journal;
use vmetal_acceptance::watch::{Narrator, Watch};
use vmetal_acceptance::{Options, Place, Software, Stack, cluster};
use vmetal_api::{Apply, Client, ClientConfig, Secret, TokenSource};
use vmetal_model::{Event, Host, HostPhase, Image, ImagePhase, Kind, NodeType, TenantNode, TenantNodePhase};

const HOST: &str = "uefi-1";
const PASSWORD: &str = "the-bmc-password-of-uefi-1";

const LAB: &str = r#"
[network]
bridge = "172.22.0.1/24"

[[hosts]]
name = "uefi-1"
firmware = "uefi"
cpus = 1
memory_mib = 2048
mac = "52:54:00:78:00:31"
serial_number = "STANDBY-UEFI"
disks = [{ size_gib = 10, bus = "virtio", serial = "UEFI-DISK-0" }]
bmc = { listen = "127.78.0.31:8443", password = "the-bmc-password-of-uefi-1" }

[[forwards]]
listen = "172.22.0.1:6443"
to = "127.0.0.1:{api}"
"#;

#[test]
fn a_claim_takes_over_a_server_on_standby_and_is_ready_long_before_a_cold_one() -> Result<()> {
    // Short, because unix sockets live in it.
    let directory = tempfile::Builder::new().prefix("vmhs").tempdir_in("/tmp")?;
    let narrator = Narrator::default();
    let options = Options {
        directory: directory.path().to_owned(),
        lab: LAB.to_owned(),
        api_port: None,
        cluster_port: None,
        cluster: true,
        software: Software::Real,
        // An emulated server that hangs in its first boot is switched off and on by the engine well within what is waited for.
        engine: "[deadlines]\nfirst_boot = \"10m\"\n".to_owned(),
    };
    let stack = Stack::start(options, &mut |text| narrator.say(text))?;
    let mut run = Run::new(stack, narrator)?;
    let told = run.all();
    if told.is_err() {
        let console = directory.path().join("lab").join(format!("console-{HOST}.log"));
        let console = String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = console.lines().collect();
        println!("the end of its console:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
    }
    if told.is_err() && std::env::var_os("VMETAL_KEEP").is_some() {
        println!("kept: {}", directory.keep().display());
    }
    told
}

struct Run {
    // In the order in which they end.
    watch: Watch,
    stack: Stack,
    place: Place,
    narrator: Narrator,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Run {
    fn new(stack: Stack, narrator: Narrator) -> Result<Self> {
        let place = stack.place.clone();
        let watch = Watch::start(&place, narrator)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let config = ClientConfig::new(place.endpoint(), TokenSource::File(place.token_file()));
        let client = Client::connect_lazy(config)?;
        drop(inside);
        Ok(Run { watch, stack, place, narrator, runtime, client })
    }

    fn all(&mut self) -> Result<()> {
        self.declare()?;
        self.class(1)?;
        self.host(30, HostPhase::Standby)?;
        let class: NodeType = self.watch.get("server")?.context("the node type is gone")?;
        ensure!(class.spec.standby == 1, "{:?}", class.spec);
        let before = self.journal()?;
        ensure!(before.on && before.boots.last().is_some_and(|boot| boot.first == "disk"), "{before:?}");

        let hot = self.ready("hot")?;
        let after = self.journal()?;
        ensure!((&before.boots, &before.resets) == (&after.boots, &after.resets), "{before:?}, then {after:?}");
        let host: Host = self.watch.get(HOST)?.context("the host is gone")?;
        ensure!(host.status.phase == HostPhase::Provisioned, "{:?}", host.status.phase);
        let kube = self.runtime.block_on(cluster::client(&self.place.kubeconfig()))?;
        let nodes = self.runtime.block_on(cluster::nodes(&kube))?;
        ensure!(nodes.len() == 1 && nodes[0].name == "hot" && nodes[0].status == "Ready", "{nodes:?}");
        ensure!(nodes[0].provider_id == format!("vmetal://{}", host.metadata.uid), "{nodes:?}");
        let tokens = self.runtime.block_on(cluster::join_tokens(&kube))?;
        ensure!(tokens.is_empty(), "join tokens outlived the join: {tokens:?}");
        let console = std::fs::read_to_string(self.place.directory.join("lab").join(format!("console-{HOST}.log")))?;
        let (host_name, node_name) = (console.contains("uefi-1 login:"), console.contains("hot login:"));
        self.narrator.say(&format!("seen on the console: host name before {host_name}, after {node_name}"));

        self.class(0)?;
        self.release("hot")?;
        let before = self.journal()?;
        let cold = self.ready("cold")?;
        // What standby saves, whatever a minute is here: an installation.
        let boots = self.journal()?.boots.split_off(before.boots.len());
        ensure!(boots.iter().any(|boot| boot.first == "pxe"), "nothing was installed for the cold claim: {boots:?}");
        let begun = self.events("cold")?;
        ensure!(begun.iter().any(|event| event.message.contains("scheduled -> provisioning")), "{begun:?}");
        let ratio = cold.as_secs_f64() / hot.as_secs_f64();
        println!("\n{:>8.1} s  standby_claim_to_ready", hot.as_secs_f64());
        println!("{:>8.1} s  cold_claim_to_ready", cold.as_secs_f64());
        println!("{ratio:>8.1} x  standby_cold_ratio");
        Ok(())
    }

    fn apply(&self, apply: Apply) -> Result<()> {
        let what = format!("{} {}", apply.kind, apply.name);
        self.runtime.block_on(self.client.apply(apply)).with_context(|| what)?;
        Ok(())
    }

    fn declare(&mut self) -> Result<()> {
        let server = self.place.lab_variables()?["servers"][HOST].clone();
        let bmc = json!({
            "address": server["bmc_address"], "username": server["bmc_username"], "password_version": "1",
            "tls": { "fingerprint": server["bmc_certificate_sha256"] },
        });
        let spec = json!({ "bmc": bmc, "boot_mac": server["boot_mac"], "boot_mode": "uefi" });
        let mut host = Apply::from_json(Kind::Host, HOST, spec);
        host.labels.insert("size".to_owned(), "small".to_owned());
        self.apply(host.secret("bmc.password", Secret::new(PASSWORD)))?;
        let image = std::fs::canonicalize(&self.place.artifacts.node_image)?;
        self.apply(Apply::from_json(Kind::Image, "debian", json!({ "source": image })))?;
        let kubeconfig = std::fs::read_to_string(self.place.kubeconfig())?;
        let tenant = Apply::from_json(Kind::TenantCluster, "demo", json!({ "kubeconfig_version": "1" }));
        self.apply(tenant.secret("kubeconfig", Secret::new(kubeconfig)))?;
        self.until("the image", 15, |run| {
            Ok(run.watch.get::<Image>("debian")?.filter(|image| image.status.phase == ImagePhase::Ready))
        })?;
        self.class(0)?;
        self.host(15, HostPhase::Available)
    }

    fn class(&self, standby: u32) -> Result<()> {
        let spec = json!({
            "selector": { "size": "small" }, "resources": { "cpu": "1", "memory": "1536Mi" }, "image": "debian",
            "standby": standby,
        });
        self.apply(Apply::from_json(Kind::NodeType, "server", spec))
    }

    fn until<T>(&mut self, what: &str, minutes: u64, look: impl Fn(&Self) -> Result<Option<T>>) -> Result<T> {
        let begin = Instant::now();
        loop {
            self.stack.check()?;
            if let Some(seen) = look(self)? {
                return Ok(seen);
            }
            ensure!(begin.elapsed() < Duration::from_secs(60 * minutes), "{what}: not within {minutes} minutes");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn host(&mut self, minutes: u64, phase: HostPhase) -> Result<()> {
        let what = format!("the host {}", phase.as_str());
        self.until(&what, minutes, |run| Ok(run.watch.get::<Host>(HOST)?.filter(|host| host.status.phase == phase)))?;
        Ok(())
    }

    fn journal(&self) -> Result<Journal> {
        Journal::replay(&self.place.bmc_journal(HOST))
    }

    fn events(&self, about: &str) -> Result<Vec<Event>> {
        Ok(self.watch.events()?.into_iter().filter(|event| event.name == about).collect())
    }

    /// Claims a node and waits until it is Ready. The time from the claim to that.
    fn ready(&mut self, name: &str) -> Result<Duration> {
        self.narrator.say(&format!("== claim {name}"));
        let begin = Instant::now();
        let spec = json!({ "cluster": "demo", "node_type": "server" });
        self.apply(Apply::from_json(Kind::TenantNode, name, spec))?;
        self.until(name, 30, |run| {
            let node = run.watch.get::<TenantNode>(name)?.context("the claim is gone")?;
            ensure!(node.status.phase != TenantNodePhase::Failed, "{:?}", node.status.failure);
            Ok((node.status.phase == TenantNodePhase::Ready).then_some(()))
        })?;
        let took = begin.elapsed();
        self.narrator.say(&format!("== {name} is ready after {:.1} s", took.as_secs_f64()));
        let start = self.events(name)?.first().map(|event| event.at).context("nothing was told of the claim")?;
        for event in self.events(name)?.iter().filter(|event| event.reason == "phase_changed") {
            let after = event.at.duration_since(start).as_secs_f64();
            self.narrator.say(&format!("   {after:6.2} s  {}", event.message));
        }
        Ok(took)
    }

    fn release(&mut self, name: &str) -> Result<()> {
        self.runtime.block_on(self.client.delete(Kind::TenantNode, name, None))?;
        self.until("the release", 15, |run| Ok(run.watch.get::<TenantNode>(name)?.is_none().then_some(())))?;
        self.host(15, HostPhase::Available)
    }
}
