//! A whole running lab: network, machines, BMCs, forwards, control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::LabError;
use crate::config::{BackendKind, HostConfig, InitialPower, LabConfig};
use crate::fault::FaultSet;
use crate::journal::Journal;
use crate::machine::{Backend, Machine, ResetType};
use crate::netns::{BRIDGE_LINK_LOCAL, Namespace};
use crate::qemu::{Accel, QemuHost, console_path};
use crate::redfish::{self, Bmc, Running};
use crate::report::{HostReport, NetworkReport, Report, process_start};
use crate::tls::{Identity, write_private};
use crate::{control, forward};

/// A running lab. [`Lab::stop`] ends it in order; dropping it (or killing the process) ends it too, only without the farewell.
#[derive(Debug)]
pub struct Lab {
    state_dir: PathBuf,
    report: Report,
    bmcs: Arc<Bmcs>,
    stop_asked: Arc<Notify>,
    tasks: JoinSet<()>,
    /// Last: when it goes, everything inside the namespace is killed.
    namespace: Option<Arc<Namespace>>,
}

/// The BMCs of a lab by host, and the faults they share.
#[derive(Debug)]
pub(crate) struct Bmcs {
    pub(crate) running: Vec<Running>,
    pub(crate) faults: Arc<FaultSet>,
}

impl Bmcs {
    pub(crate) fn machine(&self, host: &str) -> Option<&Arc<Machine>> {
        self.running.iter().map(|r| &r.bmc.machine).find(|m| m.config().name == host)
    }
}

impl Lab {
    /// Starts a lab; returns when every BMC answers and `lab.json` is written.
    ///
    /// # Errors
    /// When another lab uses the state directory, the network cannot be made, or an address is taken.
    pub async fn start(config: LabConfig, state_dir: &Path) -> Result<Self, LabError> {
        config.validate()?;
        std::fs::create_dir_all(state_dir).map_err(LabError::file("create", state_dir))?;
        let state_dir = state_dir.canonicalize().map_err(LabError::file("find", state_dir))?;
        if Report::read(&state_dir).is_ok() {
            return Err(LabError::Refused(format!("another lab runs at {}", state_dir.display())));
        }
        let faults = Arc::new(FaultSet::default());
        for fault in &config.faults {
            faults.add(fault.clone()).map_err(LabError::Refused)?;
        }
        let taps: Vec<Vec<String>> = config.hosts.iter().enumerate().map(|(i, h)| tap_names(i, h)).collect();
        let namespace = match &config.network {
            Some(network) => {
                Some(Arc::new(Namespace::create(network, taps.iter().flatten().cloned().collect()).await?))
            }
            None => None,
        };
        let (accel, why) = Accel::detect();
        tracing::info!(accel = accel.as_str(), why, "accelerator");
        let mut running = Vec::new();
        for (host, taps) in config.hosts.iter().zip(taps) {
            let backend = backend(&config, host, taps, accel, &state_dir, namespace.as_ref())?;
            let journal = Arc::new(Journal::at(&journal_path(&state_dir, &host.name))?);
            let machine = Machine::new(host.clone(), backend, journal.clone(), faults.clone());
            let bmc = Bmc::new(machine, journal, faults.clone());
            let identity = || Identity::load_or_generate(&state_dir, &host.name, host.bmc.listen.ip());
            running.push(redfish::start(bmc, identity).await?);
        }
        let mut tasks = JoinSet::new();
        if let Some(namespace) = &namespace {
            for forward in &config.forwards {
                forward::start(forward, namespace, &mut tasks).await?;
            }
        }
        let report = report(&config, &state_dir, namespace.as_deref(), accel, &running);
        let bmcs = Arc::new(Bmcs { running, faults });
        let stop_asked = Arc::new(Notify::new());
        control::serve(&report.control_socket, bmcs.clone(), stop_asked.clone(), &mut tasks)?;
        let lab = Self { state_dir, report, bmcs, stop_asked, tasks, namespace };
        lab.switch_on_as_configured().await?;
        let text = serde_json::to_vec_pretty(&lab.report).map_err(|e| LabError::Refused(e.to_string()))?;
        let path = Report::path(&lab.state_dir);
        // Written beside and renamed, so that a reader never sees half of it.
        let new = path.with_extension("json.new");
        write_private(&new, &text)?;
        std::fs::rename(&new, &path).map_err(LabError::file("write", &path))?;
        Ok(lab)
    }

    async fn switch_on_as_configured(&self) -> Result<(), LabError> {
        for running in &self.bmcs.running {
            let machine = &running.bmc.machine;
            if machine.config().power == InitialPower::On
                && let Err(error) = machine.reset(ResetType::On).await
            {
                return Err(LabError::Refused(format!("cannot switch on {}: {error}", machine.config().name)));
            }
        }
        Ok(())
    }

    /// What the lab offers.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Waits until `vmetal-lab down` asks the lab to end.
    pub async fn stop_asked(&self) {
        self.stop_asked.notified().await;
    }

    /// Ends every machine and everything that `exec` started inside the network, closes every listener, removes `lab.json` and the control socket. Disks, variable stores, certificates,
    /// logs and journals stay, for the next start or for reading.
    pub async fn stop(mut self) {
        for running in &self.bmcs.running {
            running.bmc.machine.stop().await;
        }
        self.tasks.shutdown().await;
        if let Some(namespace) = &self.namespace {
            namespace.evict().await;
        }
        for path in [Report::path(&self.state_dir), self.report.control_socket.clone()] {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove");
            }
        }
    }
}

fn tap_names(index: usize, host: &HostConfig) -> Vec<String> {
    match host.backend {
        BackendKind::Sim => Vec::new(),
        BackendKind::Qemu => (0..host.macs().count()).map(|nic| format!("t{index}n{nic}")).collect(),
    }
}

fn journal_path(state_dir: &Path, host: &str) -> PathBuf {
    state_dir.join(format!("bmc-{host}.jsonl"))
}

fn backend(
    config: &LabConfig,
    host: &HostConfig,
    taps: Vec<String>,
    accel: Accel,
    state_dir: &Path,
    namespace: Option<&Arc<Namespace>>,
) -> Result<Backend, LabError> {
    match (host.backend, namespace) {
        (BackendKind::Sim, _) => Ok(Backend::Sim),
        (BackendKind::Qemu, Some(namespace)) => {
            let qemu = QemuHost {
                config: host.clone(),
                qemu: config.qemu.clone(),
                accel,
                taps,
                state_dir: state_dir.to_owned(),
                namespace: namespace.clone(),
            };
            qemu.prepare()?;
            Ok(Backend::Qemu(Box::new(qemu)))
        }
        (BackendKind::Qemu, None) => Err(LabError::Refused(format!("host {} needs a [network] section", host.name))),
    }
}

fn report(
    config: &LabConfig,
    state_dir: &Path,
    namespace: Option<&Namespace>,
    accel: Accel,
    running: &[Running],
) -> Report {
    let pid = nix::unistd::getpid().as_raw();
    let hosts = config.hosts.iter().zip(running).map(|(host, running)| HostReport {
        name: host.name.clone(),
        backend: host.backend,
        firmware: host.firmware,
        bmc_url: running.base_url(),
        system_path: format!("/redfish/v1/Systems/{}", host.bmc.system_id),
        username: host.bmc.username.clone(),
        password: host.bmc.password.clone(),
        certificate_sha256: running.fingerprint.clone(),
        mac: host.boot_mac().to_string(),
        macs: host.macs().map(|m| m.to_string()).collect(),
        serial_number: host.serial(),
        uuid: host.system_uuid(),
        disk_serials: (0..host.disks.len()).map(|i| host.disk_serial(i)).collect(),
        tags: host.tags.clone(),
        cpus: host.cpus,
        memory_mib: host.memory_mib,
        console_log: (host.backend == BackendKind::Qemu).then(|| console_path(state_dir, &host.name)),
        journal: journal_path(state_dir, &host.name),
    });
    Report {
        pid,
        pid_start: process_start(pid).unwrap_or_default(),
        holder: namespace.map(Namespace::holder),
        accel,
        network: config.network.as_ref().map(|n| NetworkReport {
            bridge: n.bridge.to_string(),
            interface: n.bridge_name.clone(),
            link_local: BRIDGE_LINK_LOCAL.to_owned(),
        }),
        control_socket: state_dir.join("control.sock"),
        hosts: hosts.collect(),
    }
}
