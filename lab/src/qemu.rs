//! The QEMU back end: one process per boot.
//!
//! Off is "no process"; on is "a process"; see [`crate::machine`] for why every boot is a new one. The guest cannot restart the
//! process: QEMU runs with `-action reboot=shutdown,shutdown=pause`, so that a guest's reset or power-off stops the virtual machine,
//! keeps the process, and tells us over QMP which of the two it was. We then end the process and, for a reset, begin the next boot
//! with the boot order of that moment.

mod args;
mod process;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::{BootDevice, DiskConfig, Firmware, HostConfig, QemuConfig};
use crate::machine::GuestEvent;
use crate::netns::Namespace;
use crate::{LabError, clock};

pub(crate) use process::Process;

/// How QEMU executes guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's own translator: slower, works everywhere.
    Tcg,
}

impl Accel {
    /// The word QEMU takes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Decides from the `LAB_ACCEL` variable and the text of `/proc/cpuinfo`; the second value says why.
    ///
    /// That `/dev/kvm` exists proves nothing: nested software virtualisation offers it too, and stock kernels and firmware crawl or
    /// crash there. Only the CPU flags `vmx` and `svm` tell.
    #[must_use]
    pub fn decide(asked: Option<&str>, cpuinfo: &str) -> (Self, &'static str) {
        let hardware = || {
            cpuinfo
                .lines()
                .filter(|line| line.starts_with("flags"))
                .any(|line| line.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
        };
        match asked {
            Some("kvm") => (Self::Kvm, "LAB_ACCEL=kvm"),
            Some("tcg") => (Self::Tcg, "LAB_ACCEL=tcg"),
            _ if hardware() => (Self::Kvm, "/proc/cpuinfo shows vmx or svm"),
            _ => (Self::Tcg, "/proc/cpuinfo shows neither vmx nor svm"),
        }
    }

    /// Decides for this machine.
    #[must_use]
    pub fn detect() -> (Self, &'static str) {
        let asked = std::env::var("LAB_ACCEL").ok();
        Self::decide(asked.as_deref(), &std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }
}

/// What is needed to start a host's machine.
#[derive(Debug)]
pub(crate) struct QemuHost {
    pub(crate) config: HostConfig,
    pub(crate) qemu: QemuConfig,
    pub(crate) accel: Accel,
    /// Tap interfaces in the namespace, one per network card.
    pub(crate) taps: Vec<String>,
    pub(crate) state_dir: PathBuf,
    pub(crate) namespace: Arc<Namespace>,
}

/// The console log of a host.
pub(crate) fn console_path(state_dir: &Path, host: &str) -> PathBuf {
    state_dir.join(format!("console-{host}.log"))
}

impl QemuHost {
    fn disk_path(&self, index: usize) -> PathBuf {
        self.state_dir.join(format!("disk-{}-{index}.raw", self.config.name))
    }

    fn vars_path(&self) -> PathBuf {
        self.state_dir.join(format!("vars-{}.fd", self.config.name))
    }

    fn stderr_path(&self) -> PathBuf {
        self.state_dir.join(format!("qemu-{}.log", self.config.name))
    }

    /// Makes the disks and the firmware variable store that do not exist yet. Existing ones keep their content.
    pub(crate) fn prepare(&self) -> Result<(), LabError> {
        for (index, disk) in self.config.disks.iter().enumerate() {
            let path = self.disk_path(index);
            let file = std::fs::File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(LabError::file("create disk", &path))?;
            let size = disk.size_gib << 30;
            let existing = file.metadata().map_err(LabError::file("read disk", &path))?.len();
            if existing > size {
                return Err(LabError::Qemu {
                    host: self.config.name.clone(),
                    detail: format!(
                        "{} has {existing} bytes, the configuration says {size}; remove the file to have a smaller disk",
                        path.display()
                    ),
                });
            }
            file.set_len(size).map_err(LabError::file("grow disk", &path))?;
        }
        let vars = self.vars_path();
        if self.config.firmware == Firmware::Uefi && !vars.exists() {
            std::fs::copy(&self.qemu.ovmf_vars, &vars)
                .map_err(LabError::file("copy the OVMF variable store from", &self.qemu.ovmf_vars))?;
        }
        Ok(())
    }

    fn disks(&self) -> impl Iterator<Item = (PathBuf, &DiskConfig, String)> {
        let disks = self.config.disks.iter().enumerate();
        disks.map(|(index, disk)| (self.disk_path(index), disk, self.config.disk_serial(index)))
    }

    /// Starts the process and lets the guest run.
    pub(crate) async fn start(
        &self,
        boot: u64,
        order: &[BootDevice],
        events: mpsc::UnboundedSender<GuestEvent>,
    ) -> Result<Process, LabError> {
        self.mark_console(boot, order)?;
        Process::start(self, boot, order, events).await
    }

    fn mark_console(&self, boot: u64, order: &[BootDevice]) -> Result<(), LabError> {
        let path = console_path(&self.state_dir, &self.config.name);
        let words: Vec<&str> = order
            .iter()
            .map(|d| match d {
                BootDevice::Disk => "disk",
                BootDevice::Pxe => "pxe",
            })
            .collect();
        let now = clock::now();
        let line = format!("\r\n--- vmetal-lab: boot {boot} at {now:.0}, order {} ---\r\n", words.join(","));
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(LabError::file("write the console log", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_cpu_flags_or_an_order() {
        let without = "flags\t\t: fpu vme hypervisor\nmodel name: vmx in a name does not count";
        assert_eq!(Accel::decide(None, without).0, Accel::Tcg);
        assert_eq!(Accel::decide(None, "flags\t\t: fpu svm").0, Accel::Kvm);
        assert_eq!(Accel::decide(Some("tcg"), "flags\t\t: vmx").0, Accel::Tcg);
        assert_eq!(Accel::decide(Some("kvm"), without).0, Accel::Kvm);
    }
}
