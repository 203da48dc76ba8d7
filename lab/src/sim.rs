//! One simulated BMC for a test: the real front end, a power state machine behind it, nothing to clean up.

use std::sync::Arc;

use crate::LabError;
use crate::config::{BackendKind, HostConfig};
use crate::fault::FaultSet;
use crate::journal::{Entry, Journal, Record};
use crate::machine::{Backend, Machine};
use crate::redfish::{self, Bmc, Running};
use crate::tls::Identity;

/// A simulated host with its BMC. Dropping it closes the BMC.
#[derive(Debug)]
pub struct SimBmc {
    running: Running,
}

/// Starts the BMC of a simulated host. [`HostConfig::sim`] gives a good start; port 0 takes a free port.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// When the configuration is wrong or is not for a `sim` host, or the address is taken.
pub async fn start(config: HostConfig) -> Result<SimBmc, LabError> {
    let lab = crate::config::LabConfig {
        network: None,
        qemu: crate::config::QemuConfig::default(),
        hosts: vec![HostConfig { backend: BackendKind::Sim, ..config.clone() }],
        forwards: Vec::new(),
        faults: Vec::new(),
    };
    lab.validate()?;
    let journal = Arc::new(Journal::in_memory());
    let faults = Arc::new(FaultSet::default());
    let (name, address) = (config.name.clone(), config.bmc.listen.ip());
    let machine = Machine::new(config, Backend::Sim, journal.clone(), faults.clone());
    let bmc = Bmc::new(machine, journal, faults);
    let running = redfish::start(bmc, || Identity::generate(&name, address)).await?;
    Ok(SimBmc { running })
}

impl SimBmc {
    /// `https://127.0.0.1:PORT` or `http://...`, without a trailing slash.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.running.base_url()
    }

    /// Host and port, for addresses with another scheme such as `redfish://`.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.running.address
    }

    /// SHA-256 over the DER certificate in lower-case hex; `None` over plain HTTP.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&str> {
        self.running.fingerprint.as_deref()
    }

    /// The machine: its state, and what its guest can be made to do.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.running.bmc.machine
    }

    /// The faults of this BMC.
    #[must_use]
    pub fn faults(&self) -> &FaultSet {
        &self.running.bmc.faults
    }

    /// The whole journal: changing requests, boots, power losses.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.running.bmc.journal.entries()
    }

    /// The `ResetType` of every `ComputerSystem.Reset` that was answered with success, in order.
    #[must_use]
    pub fn resets(&self) -> Vec<String> {
        let entries = self.journal().into_iter();
        let resets = entries.filter_map(|entry| match entry.what {
            Record::Request { path, body, status: Some(200..=299), .. } if path.ends_with("ComputerSystem.Reset") => {
                body.get("ResetType").and_then(|r| r.as_str()).map(str::to_owned)
            }
            _ => None,
        });
        resets.collect()
    }
}
