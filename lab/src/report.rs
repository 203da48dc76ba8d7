//! What a running lab tells others: `lab.json`, and variables for Terraform.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::LabError;
use crate::config::{BackendKind, Firmware};
use crate::journal::redact;
use crate::qemu::Accel;

/// Name of the report inside the state directory.
pub const REPORT_FILE: &str = "lab.json";

/// Content of `lab.json`. The file appears when the lab is ready and is gone when it has ended in order. It holds passwords and is
/// readable by its owner only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Process id of the lab.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (`/proc/<pid>/stat`, field 22): tells it from a later process with
    /// the same id.
    pub pid_start: u64,
    /// Thread that holds the network namespace; `nsenter -t <holder> -n` enters it. Null for a lab without a network.
    pub holder: Option<i32>,
    /// How QEMU executes guest code.
    pub accel: Accel,
    /// The network, as configured.
    pub network: Option<NetworkReport>,
    /// Unix socket for `vmetal-lab status`, `power`, `fault` and `down`.
    pub control_socket: PathBuf,
    /// The hosts, in the order of the configuration.
    pub hosts: Vec<HostReport>,
}

/// The lab network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Bridge address with prefix length.
    pub bridge: String,
    /// Interface name of the bridge inside the namespace: what a boot server binds to.
    pub interface: String,
    /// Link-local IPv6 address of the bridge.
    pub link_local: String,
}

/// One host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostReport {
    /// Name.
    pub name: String,
    /// Back end.
    pub backend: BackendKind,
    /// Firmware.
    pub firmware: Firmware,
    /// `https://address:port` of the BMC.
    pub bmc_url: String,
    /// Redfish path of the computer system.
    pub system_path: String,
    /// BMC user.
    pub username: String,
    /// BMC password.
    pub password: String,
    /// SHA-256 over the DER certificate of the BMC, lower-case hex; null over plain HTTP.
    pub certificate_sha256: Option<String>,
    /// MAC address of the boot network card.
    pub mac: String,
    /// MAC addresses of all network cards.
    pub macs: Vec<String>,
    /// System serial number.
    pub serial_number: String,
    /// System UUID.
    pub uuid: String,
    /// Serial numbers of the disks, in order.
    pub disk_serials: Vec<String>,
    /// Tags, as configured.
    pub tags: BTreeMap<String, String>,
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Console log; null for `sim` hosts.
    pub console_log: Option<PathBuf>,
    /// Request journal of the BMC.
    pub journal: PathBuf,
}

impl Report {
    /// Path of the report in a state directory.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(REPORT_FILE)
    }

    /// Reads the report of a lab and checks that the lab still runs.
    ///
    /// # Errors
    /// [`LabError::NotRunning`] when there is no report or its process is gone.
    pub fn read(state_dir: &Path) -> Result<Self, LabError> {
        let not_running = |detail: String| LabError::NotRunning { state_dir: state_dir.to_owned(), detail };
        let path = Self::path(state_dir);
        let text = std::fs::read(&path).map_err(|e| not_running(format!("{}: {e}", path.display())))?;
        let report: Self =
            serde_json::from_slice(&text).map_err(|e| not_running(format!("{} is damaged: {e}", path.display())))?;
        if process_start(report.pid) == Some(report.pid_start) {
            Ok(report)
        } else {
            Err(not_running(format!("its process {} is gone", report.pid)))
        }
    }

    /// For terminals and logs: without the passwords.
    ///
    /// # Errors
    /// Never in practice: every field has a form in JSON.
    pub fn told(&self) -> Result<Value, serde_json::Error> {
        let mut told = serde_json::to_value(self)?;
        redact(&mut told);
        Ok(told)
    }

    /// Variables for `examples/terraform/quickstart`: `servers`, an object per host, and `bmc_passwords` apart from it, so that the
    /// passwords can be an ephemeral variable while `for_each` goes over the servers. A host's tags are added to its object.
    #[must_use]
    pub fn tfvars(&self) -> Value {
        let server = |host: &HostReport| {
            let address = host.bmc_url.replacen("https://", "redfish://", 1).replacen("http://", "redfish+http://", 1);
            let mut value: Map<String, Value> =
                host.tags.iter().map(|(key, tag)| (key.clone(), Value::from(tag.clone()))).collect();
            value.extend([
                ("bmc_address".to_owned(), json!(format!("{address}{}", host.system_path))),
                ("bmc_username".to_owned(), json!(host.username)),
                ("bmc_certificate_sha256".to_owned(), json!(host.certificate_sha256)),
                ("boot_mac".to_owned(), json!(host.mac)),
                ("firmware".to_owned(), json!(host.firmware)),
            ]);
            (host.name.clone(), Value::Object(value))
        };
        let password = |host: &HostReport| (host.name.clone(), Value::from(host.password.clone()));
        json!({
            "servers": self.hosts.iter().map(server).collect::<Map<_, _>>(),
            "bmc_passwords": self.hosts.iter().map(password).collect::<Map<_, _>>(),
        })
    }
}

/// Start time of a process in clock ticks since boot; `None` when there is none, or only its corpse.
#[must_use]
pub fn process_start(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, field 2, is in parentheses and may contain anything; what follows is plain.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn own_start_time_is_stable_and_no_process_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(process_start(own).is_some());
        assert_eq!(process_start(own), process_start(own));
        assert_eq!(process_start(i32::MAX), None);
    }
}
