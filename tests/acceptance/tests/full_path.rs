//! The whole path once, with nothing played: real firmware in QEMU, the real terraform, a real Kubernetes API server and a real
//! kubelet. Two bare servers become the README's quickstart, one of them becomes a Ready node, gives its disk back erased, and
//! everything goes. On the way the engine is killed three times, each time in the middle of something.
//!
//! Every limit is at least four times what the stage takes on two quiet cores without KVM.

#![allow(clippy::disallowed_methods, reason = "measures real processes in real time")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vmetal_acceptance::journal::{Boot, Journal};
use vmetal_acceptance::watch::{Narrator, Watch};
use vmetal_acceptance::{Options, Place, Software, Stack, Terraform, cluster};
use vmetal_model::inventory::{Firmware, Inventory};
use vmetal_model::{Host, HostPhase, TenantNode, TenantNodePhase};

const UEFI: &str = "uefi-1";
const BIOS: &str = "bios-1";
const NODE: &str = "worker-1";

/// The BIOS server is too small for its type, so that the choice between the two types has a reason.
const LAB: &str = r#"
[network]
bridge = "172.22.0.1/24"

[[hosts]]
name = "uefi-1"
firmware = "uefi"
cpus = 1
memory_mib = 2048
mac = "52:54:00:78:00:21"
serial_number = "FULL-PATH-UEFI"
tags = { size = "small" }
disks = [{ size_gib = 10, bus = "virtio", serial = "UEFI-DISK-0" }]
bmc = { listen = "127.78.0.21:8443", password = "the-bmc-password-of-uefi-1" }

[[hosts]]
name = "bios-1"
firmware = "bios"
cpus = 1
memory_mib = 1024
mac = "52:54:00:78:00:22"
serial_number = "FULL-PATH-BIOS"
tags = { size = "large" }
disks = [{ size_gib = 4, bus = "nvme", serial = "BIOS-DISK-0" }]
bmc = { listen = "127.78.0.22:8443", password = "the-bmc-password-of-bios-1" }

[[forwards]]
listen = "172.22.0.1:6443"
to = "127.0.0.1:{api}"
"#;

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

#[test]
fn two_bare_servers_become_a_ready_node_and_go_back() -> Result<()> {
    // Short, because unix sockets live in it.
    let directory = tempfile::Builder::new().prefix("vmfp").tempdir_in("/tmp")?;
    let path = directory.path().to_owned();
    let narrator = Narrator::default();
    let options = Options {
        directory: path.clone(),
        lab: LAB.to_owned(),
        api_port: None,
        cluster_port: None,
        cluster: true,
        software: Software::Real,
        engine: String::new(),
    };
    let stack = Stack::start(options, &mut |text| narrator.say(text))?;
    let mut tails = Tails { directory: path.clone(), told: false };
    let mut run = Run::new(stack, narrator)?;
    run.apply()?;
    run.inspect_result()?;
    run.release()?;
    run.destroy()?;
    run.nothing_secret_is_told()?;
    run.stage("end of the stack", |run| {
        // Whoever watches goes first: the engine gives clients time to leave.
        drop(run.watch.take());
        drop(run.stack.take());
        Ok(())
    })?;
    tails.told = true;

    nothing_runs_of(&path)?;
    let sockets = sockets_in(&path)?;
    ensure!(sockets.is_empty(), "sockets of ended processes were left behind: {sockets:?}");
    directory.close().context("cannot remove the test's directory")?;
    ensure!(!path.exists(), "{} is still there", path.display());
    run.summary();
    Ok(())
}

/// One run, with how long each stage took.
struct Run {
    watch: Option<Watch>,
    stack: Option<Stack>,
    place: Place,
    terraform: Terraform,
    narrator: Narrator,
    runtime: tokio::runtime::Runtime,
    kube: kube::Client,
    stages: Vec<(String, Duration)>,
    /// Values that must be found nowhere but where they were given or kept on purpose.
    secrets: Vec<(String, String)>,
    claim: Option<vmetal_model::Uid>,
}

impl Run {
    fn new(stack: Stack, narrator: Narrator) -> Result<Self> {
        let place = stack.place.clone();
        let watch = Watch::start(&place, narrator)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kube = runtime.block_on(cluster::client(&place.kubeconfig()))?;
        let variables = place.quickstart_variables()?;
        let mut secrets = Vec::new();
        for (host, password) in variables["bmc_passwords"].as_object().context("no BMC passwords")? {
            secrets.push((format!("BMC password of {host}"), password.as_str().unwrap_or_default().to_owned()));
        }
        let token = std::fs::read_to_string(place.token_file()).context("no API token")?;
        secrets.push(("API token".to_owned(), token.trim().to_owned()));
        let kubeconfig = std::fs::read_to_string(place.kubeconfig()).context("no kubeconfig")?;
        let key = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("client-key-data: "));
        secrets.push(("key of the kubeconfig".to_owned(), key.context("no key in the kubeconfig")?.to_owned()));
        let terraform = Terraform::example(&place, "quickstart", "quickstart", &variables)?;
        let mut run = Run {
            stack: Some(stack),
            watch: Some(watch),
            place,
            terraform,
            narrator,
            runtime,
            kube,
            stages: Vec::new(),
            secrets,
            claim: None,
        };
        run.stages.push(("start of the stack, terraform init".to_owned(), narrator.elapsed()));
        Ok(run)
    }

    fn stack(&mut self) -> Result<&mut Stack> {
        self.stack.as_mut().context("the stack has ended")
    }

    fn watch(&self) -> Result<&Watch> {
        self.watch.as_ref().context("nothing is watched any more")
    }

    fn host(&self, name: &str) -> Result<Host> {
        self.watch()?.get(name)?.with_context(|| format!("host {name} is gone"))
    }

    fn node(&self) -> Result<Option<TenantNode>> {
        self.watch()?.get(NODE)
    }

    fn journal(&self, host: &str) -> Result<Journal> {
        Journal::replay(&self.place.bmc_journal(host)).with_context(|| format!("BMC of {host}"))
    }

    /// Does something and notes how long it took.
    fn stage<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.narrator.say(&format!("== {name}"));
        let begin = self.narrator.elapsed();
        let result = work(self).with_context(|| name.to_owned())?;
        self.stages.push((name.to_owned(), self.narrator.elapsed() - begin));
        Ok(result)
    }

    fn summary(&self) {
        println!();
        for (name, took) in &self.stages {
            println!("{:7.1} s  {name}", took.as_secs_f64());
        }
        println!("{:7.1} s  in all", self.narrator.elapsed().as_secs_f64());
    }

    /// Waits until `look` sees something, while terraform goes on.
    fn wait<T>(
        &mut self,
        applying: &mut Applying,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let begin = self.narrator.elapsed();
        loop {
            self.stack()?.check()?;
            if let Some(seen) = look(self)? {
                return Ok(seen);
            }
            if applying.go_on(&self.terraform, self.narrator)? == Applied::Yes {
                bail!("terraform apply came to its end first");
            }
            ensure!(self.narrator.elapsed() - begin < limit, "not seen within {limit:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the engine as a crash would and starts it again.
    fn crash(&mut self, when: &str) -> Result<()> {
        self.narrator.say(&format!("== kill -9 of the engine: {when}"));
        let stack = self.stack()?;
        stack.kill_engine();
        stack.start_engine()
    }

    fn apply(&mut self) -> Result<()> {
        let mut applying = Applying::start(&self.terraform)?;
        self.stage("registration, up to the first power-on", |run| {
            run.wait(&mut applying, minutes(2), |run| Ok((run.journal(UEFI)?.power_ons() > 0).then_some(())))
        })?;
        self.crash("servers are booting for inspection, the image is being imported")?;
        self.stage("inspection of both servers, import of the image", |run| {
            run.wait(&mut applying, minutes(6), |run| Ok(run.node()?.and_then(|node| node.status.host)))
        })?;
        let progress = self.stage("boot of the installer, up to the middle of the imaging", |run| {
            run.wait(&mut applying, minutes(4), |run| {
                let progress = run.host(UEFI)?.status.progress;
                Ok(progress.filter(|p| p.step.contains("image") && p.total > 0 && p.done * 5 > p.total))
            })
        })?;
        ensure!(progress.done < progress.total, "the image was written before anybody could look: {progress:?}");
        let (done, total) = (progress.done >> 20, progress.total >> 20);
        self.crash(&format!("{}, {done} of {total} MiB", progress.step))?;
        let token = self.runtime.block_on(cluster::join_token_secrets(&self.kube))?;
        ensure!(token.len() == 1, "one join token was expected, {} are there", token.len());
        self.secrets.extend(token.into_iter().map(|secret| ("join token".to_owned(), secret)));
        self.stage("rest of the imaging, boot from disk", |run| {
            run.wait(&mut applying, minutes(8), |run| {
                Ok(run.node()?.filter(|node| node.status.phase == TenantNodePhase::Joining))
            })
        })?;
        self.crash("the node is joining")?;
        self.stage("join, up to the end of terraform apply", |run| applying.finish(run, minutes(12)))?;
        self.narrator.say(&format!("terraform apply ended well, {} run(s)", applying.runs));
        Ok(())
    }

    fn inspect_result(&mut self) -> Result<()> {
        ensure!(self.terraform.plan_is_empty()?, "a second plan is not empty");

        let host = self.host(UEFI)?;
        ensure!(host.status.phase == HostPhase::Provisioned, "{UEFI} is {:?}", host.status.phase);
        let claim = host.status.claim.as_ref().context("the node's host has no claim")?;
        ensure!(claim.node == NODE, "claimed by {}", claim.node);
        self.claim = Some(claim.uid.clone());
        let node = self.node()?.context("the tenant node is gone")?;
        ensure!(node.status.phase == TenantNodePhase::Ready, "the tenant node is {:?}", node.status.phase);
        let decision = node.status.decision.context("no decision was recorded")?;
        ensure!(decision.node_type.as_deref() == Some("small"), "chosen: {decision:?}");
        let large = decision.node_types.iter().find(|c| c.name == "large").context("large was not considered")?;
        ensure!(!large.feasible, "the BIOS server is too small for its type, but it counts: {}", large.reason);

        let nodes = self.runtime.block_on(cluster::nodes(&self.kube))?;
        let [row] = nodes.as_slice() else { bail!("one Node was expected: {nodes:?}") };
        ensure!(row.name == NODE && row.status == "Ready", "{row:?}");
        ensure!(row.provider_id == format!("vmetal://{}", host.metadata.uid), "{row:?}");
        ensure!(row.labels.get("vmetal.dev/pool").map(String::as_str) == Some("quickstart"), "{row:?}");
        let address = host.status.address.context("the host has no address")?;
        ensure!(row.address == address.to_string(), "{row:?}, but the host has {address}");
        let tokens = self.runtime.block_on(cluster::join_tokens(&self.kube))?;
        ensure!(tokens.is_empty(), "join tokens outlived the join: {tokens:?}");

        let inventory = host.status.inventory.as_ref().context("no inventory")?;
        check_inventory(inventory, Firmware::Uefi, 2048, (10, "virtio", "UEFI-DISK-0"), "52:54:00:78:00:21")?;
        ensure!(inventory.identity.serial.as_deref() == Some("FULL-PATH-UEFI"), "{:?}", inventory.identity);
        let idle = self.host(BIOS)?;
        ensure!(idle.status.phase == HostPhase::Available, "{BIOS} is {:?}", idle.status.phase);
        let inventory = idle.status.inventory.as_ref().context("no inventory")?;
        check_inventory(inventory, Firmware::Bios, 1024, (4, "nvme", "BIOS-DISK-0"), "52:54:00:78:00:22")?;
        ensure!(inventory.identity.serial.as_deref() == Some("FULL-PATH-BIOS"), "{:?}", inventory.identity);

        // Inspection, installation, and the installer's own restart into the new system.
        let journal = self.journal(UEFI)?;
        let boot = |first: &str, cause: &str| Boot { first: first.to_owned(), cause: cause.to_owned() };
        let (network, disk) = (boot("pxe", "Reset On"), boot("disk", "guest reset"));
        ensure!(journal.boots == [network.clone(), network.clone(), disk], "{UEFI} booted {:?}", journal.boots);
        ensure!(journal.resets == ["On", "ForceOff", "On"] && journal.on, "{UEFI}: {journal:?}");
        let journal = self.journal(BIOS)?;
        ensure!(journal.boots == [network], "{BIOS} booted {:?}", journal.boots);
        ensure!(journal.resets == ["On", "ForceOff"] && !journal.on, "{BIOS}: {journal:?}");
        for (what, expected) in [
            ("claimed by tenant node", 1),
            ("installed on ", 1),
            ("available -> provisioning", 1),
            ("the join token was revoked", 1),
            ("inspecting -> available", 2),
        ] {
            let seen = self.events_beginning(what)?;
            ensure!(seen.len() == expected, "{expected} event(s) {what:?} expected: {seen:?}");
        }
        let written = Partitions::read(&self.disk(UEFI))?;
        ensure!(written == Partitions { mbr: true, gpt: true, backup: true }, "after the installation: {written:?}");
        Ok(())
    }

    fn events_beginning(&self, text: &str) -> Result<Vec<String>> {
        let events = self.watch()?.events()?;
        Ok(events.into_iter().map(|event| event.message).filter(|message| message.starts_with(text)).collect())
    }

    fn disk(&self, host: &str) -> PathBuf {
        self.place.directory.join("lab").join(format!("disk-{host}-0.raw"))
    }

    fn release(&mut self) -> Result<()> {
        self.stage("release: drain, power off, Node deleted, disk erased", |run| {
            let target = "-target=vmetal_tenant_node.worker";
            run.terraform.must(&["destroy", target, "-auto-approve", "-input=false", "-no-color"])
        })?;
        ensure!(self.node()?.is_none(), "the tenant node outlived its destruction");
        let nodes = self.runtime.block_on(cluster::nodes(&self.kube))?;
        ensure!(nodes.is_empty(), "the Node outlived its server: {nodes:?}");
        let host = self.host(UEFI)?;
        ensure!(host.status.phase == HostPhase::Available, "{UEFI} is {:?}", host.status.phase);
        ensure!(host.status.claim.is_none(), "{UEFI} is still claimed: {:?}", host.status.claim);
        let erase = host.status.erase.context("the host went back to the pool without a record of its erasure")?;
        ensure!(Some(&erase.claim_uid) == self.claim.as_ref(), "the record is of another tenancy: {erase:?}");
        let [disk] = erase.disks.as_slice() else { bail!("one disk was expected: {erase:?}") };
        ensure!(disk.serial.as_deref() == Some("UEFI-DISK-0"), "{disk:?}");
        ensure!(disk.method.contains("BLKDISCARD") || disk.method.contains("overwrit"), "{disk:?}");
        let events = self.events_beginning("erased after tenant node")?;
        ensure!(matches!(events.as_slice(), [event] if event.contains(&disk.method)), "{events:?}");
        let left = Partitions::read(&self.disk(UEFI))?;
        ensure!(left == Partitions { mbr: false, gpt: false, backup: false }, "after the erasure: {left:?}");
        let journal = self.journal(UEFI)?;
        ensure!(journal.power_ons() == 3 && journal.boots.len() == 4 && !journal.on, "{UEFI}: {journal:?}");
        ensure!(journal.boots.last().is_some_and(|boot| boot.first == "pxe"), "{UEFI} booted {:?}", journal.boots);
        Ok(())
    }

    fn destroy(&mut self) -> Result<()> {
        self.stage("destruction of everything", |run| run.terraform.destroy())?;
        let left = self.watch()?.names()?;
        ensure!(left.is_empty(), "the engine still has {left:?}");
        let state = self.terraform.must(&["state", "list"])?;
        ensure!(state.trim().is_empty(), "terraform still has {state}");
        for host in [UEFI, BIOS] {
            ensure!(!self.journal(host)?.on, "{host} was left on");
        }
        let power_ons = (self.journal(UEFI)?.power_ons(), self.journal(BIOS)?.power_ons());
        ensure!(power_ons == (3, 1), "power-ons: {power_ons:?}");
        Ok(())
    }

    /// Looks for every secret in terraform's state and backup, in what it printed, in all logs, journals and consoles.
    fn nothing_secret_is_told(&self) -> Result<()> {
        let mut files = Vec::new();
        for (directory, wanted) in [
            (self.place.directory.clone(), ".log"),
            (self.place.directory.join("lab"), ".log"),
            (self.place.directory.join("lab"), ".jsonl"),
            (self.terraform.directory().to_owned(), ".tfstate"),
            (self.terraform.directory().to_owned(), ".backup"),
            (self.terraform.directory().to_owned(), ".log"),
        ] {
            for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
                let path = entry?.path();
                files.extend(path.to_string_lossy().ends_with(wanted).then_some(path));
            }
        }
        for name in ["vmetald.log", "netboot.log", "lab.log", "console-uefi-1.log", "terraform.tfstate.backup"] {
            ensure!(files.iter().any(|file| file.ends_with(name)), "{name} was to be searched: {files:?}");
        }
        for file in &files {
            let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
            for (what, secret) in &self.secrets {
                ensure!(!text.contains(secret), "{} tells the {what}", file.display());
            }
        }
        for message in self.watch()?.events()?.into_iter().map(|event| event.message) {
            for (what, secret) in &self.secrets {
                ensure!(!message.contains(secret), "an event tells the {what}");
            }
        }
        Ok(())
    }
}

fn check_inventory(
    seen: &Inventory,
    firmware: Firmware,
    memory_mib: u64,
    disk: (u64, &str, &str),
    mac: &str,
) -> Result<()> {
    ensure!(seen.firmware == firmware, "firmware: {:?}", seen.firmware);
    ensure!((seen.cpu.architecture.as_str(), seen.cpu.threads) == ("x86_64", 1), "{:?}", seen.cpu);
    let memory = seen.memory_bytes >> 20;
    ensure!((memory_mib * 9 / 10..=memory_mib).contains(&memory), "{memory} of {memory_mib} MiB memory");
    let [found] = seen.disks.as_slice() else { bail!("one disk was expected: {:?}", seen.disks) };
    let found = (found.size_bytes, found.bus.as_str(), found.serial.as_deref().unwrap_or_default());
    ensure!(found == (disk.0 << 30, disk.1, disk.2), "{found:?}");
    let [nic] = seen.nics.as_slice() else { bail!("one network interface was expected: {:?}", seen.nics) };
    ensure!(nic.mac.to_string() == mac && nic.boot && nic.link_up, "{nic:?}");
    Ok(())
}

/// A terraform apply under way, begun again when it fails: an apply must either survive or be resumable.
struct Applying {
    child: Child,
    log: PathBuf,
    runs: usize,
}

#[derive(PartialEq, Eq)]
enum Applied {
    Yes,
    NotYet,
}

impl Applying {
    /// More than the engine is killed is too often.
    const RUNS: usize = 4;

    fn start(terraform: &Terraform) -> Result<Self> {
        let log = terraform.directory().join("apply.log");
        Ok(Applying { child: Self::spawn(terraform, &log)?, log, runs: 1 })
    }

    fn spawn(terraform: &Terraform, log: &Path) -> Result<Child> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = terraform.command(&["apply", "-auto-approve", "-input=false", "-no-color"]);
        command.stdout(output.try_clone()?).stderr(output).spawn().context("cannot run terraform")
    }

    fn go_on(&mut self, terraform: &Terraform, narrator: Narrator) -> Result<Applied> {
        let Some(status) = self.child.try_wait()? else { return Ok(Applied::NotYet) };
        if status.success() {
            return Ok(Applied::Yes);
        }
        self.again(status, terraform, narrator)?;
        Ok(Applied::NotYet)
    }

    fn again(&mut self, status: ExitStatus, terraform: &Terraform, narrator: Narrator) -> Result<()> {
        let said = tail(&self.log, 30);
        ensure!(self.runs < Self::RUNS, "terraform apply failed {} times; last ({status}):\n{said}", self.runs);
        narrator.say(&format!("terraform apply failed ({status}), applying again:\n{said}"));
        self.child = Self::spawn(terraform, &self.log)?;
        self.runs += 1;
        Ok(())
    }

    fn finish(&mut self, run: &mut Run, limit: Duration) -> Result<()> {
        let begin = run.narrator.elapsed();
        while self.go_on(&run.terraform, run.narrator)? == Applied::NotYet {
            run.stack()?.check()?;
            ensure!(run.narrator.elapsed() - begin < limit, "terraform apply did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Applying {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What partition tables a disk has.
#[derive(Debug, PartialEq, Eq)]
struct Partitions {
    /// The boot signature at the end of the first sector.
    mbr: bool,
    /// The header of a GPT anywhere in the first MiB.
    gpt: bool,
    /// The header of its copy in the last MiB.
    backup: bool,
}

impl Partitions {
    fn read(disk: &Path) -> Result<Self> {
        const MIB: usize = 1 << 20;
        let mut file = File::open(disk).with_context(|| format!("cannot open {}", disk.display()))?;
        let (mut first, mut last) = (vec![0; MIB], vec![0; MIB]);
        file.read_exact(&mut first)?;
        file.seek(SeekFrom::End(-(1 << 20)))?;
        file.read_exact(&mut last)?;
        let has = |part: &[u8]| part.chunks(512).any(|sector| sector.starts_with(b"EFI PART"));
        Ok(Partitions { mbr: first[510..512] == [0x55, 0xaa], gpt: has(&first), backup: has(&last) })
    }
}

/// Prints the ends of all logs unless the run came to a good end.
struct Tails {
    directory: PathBuf,
    told: bool,
}

impl Drop for Tails {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let logs = ["vmetald", "netboot", "lab", "cluster", "quickstart/apply"]
            .iter()
            .map(|name| format!("{name}.log"))
            .chain([UEFI, BIOS].iter().flat_map(|host| {
                [format!("lab/console-{host}.log"), format!("lab/qemu-{host}.log"), format!("lab/bmc-{host}.jsonl")]
            }));
        for log in logs {
            println!("\n==== the end of {log}\n{}", tail(&self.directory.join(&log), 40));
        }
    }
}

fn tail(path: &Path, count: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Waits until nothing runs that was started here: what the kernel ends with its parent needs a moment.
fn nothing_runs_of(directory: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        let left = processes_of(directory);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(begin.elapsed() < minutes(1), "still running: {left:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every process that was started with the directory in its command line or works in it.
fn processes_of(directory: &Path) -> Vec<String> {
    let needle = directory.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let command = String::from_utf8_lossy(&std::fs::read(path.join("cmdline")).unwrap_or_default()).into_owned();
        let inside = std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if command.contains(&needle) || inside {
            found.push(format!("{} {}", entry.file_name().to_string_lossy(), command.replace('\0', " ")));
        }
    }
    found
}

fn sockets_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        found.extend(path.extension().is_some_and(|extension| extension == "sock").then_some(path));
    }
    Ok(found)
}
