//! The lab as data: what `lab.toml` may say.
//!
//! Every key is documented on its field here and shown in `examples/lab/quickstart.toml`. Unknown keys are refused, so that a
//! typing error cannot silently change a lab. What can be derived from a host's name (MAC, UUID, serial number) is, and the same
//! name always gives the same value.

mod address;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fault::FaultSpec;

pub use address::{Ipv4Net, Mac};

/// A whole lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabConfig {
    /// The provisioning network; needed as soon as one host is a `qemu` host.
    pub network: Option<NetworkConfig>,
    /// How QEMU is run; every key has a default.
    #[serde(default)]
    pub qemu: QemuConfig,
    /// The hosts.
    pub hosts: Vec<HostConfig>,
    /// TCP ports inside the lab network that lead to this machine's loopback.
    #[serde(default)]
    pub forwards: Vec<ForwardConfig>,
    /// Faults that are armed from the start; more can be added while the lab runs.
    #[serde(default)]
    pub faults: Vec<FaultSpec>,
}

/// The provisioning network: one bridge in a network namespace of the lab's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Address and prefix length of the bridge, for example `172.22.0.1/24`.
    pub bridge: Ipv4Net,
    /// Name of the bridge interface inside the namespace.
    #[serde(default = "default_bridge_name")]
    pub bridge_name: String,
}

/// How QEMU is run, and which firmware files it gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QemuConfig {
    /// The QEMU program.
    pub binary: PathBuf,
    /// OVMF code for `uefi` hosts (read-only, shared).
    pub ovmf_code: PathBuf,
    /// Template of the OVMF variable store; each `uefi` host gets its own copy in the state directory.
    pub ovmf_vars: PathBuf,
    /// PXE option ROM of the network card of `bios` hosts. Default: the iPXE ROM that QEMU finds by itself (package ipxe-qemu). One
    /// named here must be made for PCI id 1af4:1000: QEMU fits the id of its own default, but not of a ROM it is given, and SeaBIOS
    /// silently ignores a ROM with another id.
    pub bios_pxe_rom: Option<PathBuf>,
}

/// One host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Name of the host: lower-case letters, digits and dashes. Used in file names.
    pub name: String,
    /// What stands behind the BMC.
    #[serde(default)]
    pub backend: BackendKind,
    /// The firmware that the host boots with.
    #[serde(default)]
    pub firmware: Firmware,
    /// Number of CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Memory in MiB.
    #[serde(default = "default_memory")]
    pub memory_mib: u64,
    /// Disks, in boot order.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// MAC address of the first network card, the one that boots. Default: derived from the name.
    pub mac: Option<Mac>,
    /// MAC addresses of further network cards; they are on the same network but never boot.
    #[serde(default)]
    pub extra_macs: Vec<Mac>,
    /// System serial number (SMBIOS type 1, Redfish `SerialNumber`). Default: derived from the name.
    pub serial_number: Option<String>,
    /// System UUID (SMBIOS type 1, Redfish `UUID`). Default: derived from the name.
    pub uuid: Option<String>,
    /// Manufacturer (SMBIOS type 1, Redfish `Manufacturer`).
    #[serde(default = "default_manufacturer")]
    pub manufacturer: String,
    /// Product name (SMBIOS type 1, Redfish `Model`).
    #[serde(default = "default_model")]
    pub model: String,
    /// What the firmware tries, in order, when no override is set.
    #[serde(default = "default_boot_order")]
    pub boot_order: Vec<BootDevice>,
    /// Power state when the lab starts.
    #[serde(default)]
    pub power: InitialPower,
    /// `sim` only: what an operating system would do when the power button is pressed. A `qemu` host's own system decides.
    #[serde(default)]
    pub acpi: Acpi,
    /// Free words about the host, for example `size = "small"`. The lab only passes them on, to `lab.json` and `tfvars`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The BMC of the host.
    pub bmc: BmcConfig,
}

/// The BMC of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcConfig {
    /// Where the BMC listens: a loopback address and port. All of `127.0.0.0/8` is loopback, so each BMC can have its own.
    pub listen: SocketAddr,
    /// User name for basic authentication and sessions.
    #[serde(default = "default_username")]
    pub username: String,
    /// Password of that user.
    pub password: String,
    /// `self-signed` (default) or `off` for plain HTTP.
    #[serde(default)]
    pub tls: TlsMode,
    /// Id of the one computer system, the last segment of `/redfish/v1/Systems/{id}`.
    #[serde(default = "default_system_id")]
    pub system_id: String,
    /// Whether PATCH must carry `If-Match` (some vendors answer 428 without it).
    #[serde(default)]
    pub if_match: IfMatch,
}

/// One disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Size in GiB. The file is sparse.
    pub size_gib: u64,
    /// How the disk is attached.
    #[serde(default)]
    pub bus: DiskBus,
    /// Serial number as the guest sees it: at most 20 characters. Default: derived from the host's serial number.
    pub serial: Option<String>,
}

/// A TCP port in the lab network that leads to loopback of this machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// Address inside the lab network: the bridge's own.
    pub listen: SocketAddr,
    /// Address on this machine's loopback.
    pub to: SocketAddr,
}

/// What stands behind a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// A QEMU virtual machine.
    #[default]
    Qemu,
    /// A power state machine and nothing more.
    Sim,
}

/// Firmware of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// OVMF (UEFI).
    #[default]
    Uefi,
    /// SeaBIOS.
    Bios,
}

impl Firmware {
    /// The value of Redfish `BootSourceOverrideMode` that this firmware has.
    #[must_use]
    pub fn redfish_mode(self) -> &'static str {
        match self {
            Self::Uefi => "UEFI",
            Self::Bios => "Legacy",
        }
    }
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// virtio-blk.
    #[default]
    Virtio,
    /// NVMe, one controller per disk.
    Nvme,
    /// A port of the AHCI controller; at most six per host.
    Sata,
}

/// A class of boot device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootDevice {
    /// The disks.
    Disk,
    /// The first network card.
    Pxe,
}

/// Power state of a host when the lab starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitialPower {
    /// Off.
    #[default]
    Off,
    /// Switched on when the lab is ready.
    On,
}

/// What a simulated operating system does when the power button is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acpi {
    /// It shuts down.
    #[default]
    Honoured,
    /// It does nothing, as a hung or missing system would.
    Ignored,
}

/// Transport of a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// HTTPS with a self-signed certificate that is kept in the state directory.
    #[default]
    SelfSigned,
    /// Plain HTTP.
    Off,
}

/// Whether PATCH must carry `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IfMatch {
    /// Checked when sent.
    #[default]
    Optional,
    /// 428 without it.
    Required,
}

fn default_bridge_name() -> String {
    "br0".to_owned()
}
fn default_cpus() -> u32 {
    1
}
fn default_memory() -> u64 {
    1024
}
fn default_manufacturer() -> String {
    "vmetal".to_owned()
}
fn default_model() -> String {
    "lab".to_owned()
}
fn default_boot_order() -> Vec<BootDevice> {
    vec![BootDevice::Disk, BootDevice::Pxe]
}
fn default_username() -> String {
    "admin".to_owned()
}
fn default_system_id() -> String {
    "1".to_owned()
}

impl Default for QemuConfig {
    /// The places where Debian 12 installs qemu-system-x86, ovmf and ipxe-qemu.
    fn default() -> Self {
        Self {
            binary: "qemu-system-x86_64".into(),
            ovmf_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            ovmf_vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
            bios_pxe_rom: None,
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the lab configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what [`LabConfig`] describes.
    #[error("{path} is not a lab configuration: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is well-formed but cannot work.
    #[error("{0}")]
    Invalid(String),
}

impl LabConfig {
    /// Reads and validates a configuration file.
    ///
    /// # Errors
    /// When the file cannot be read, has unknown keys, or describes a lab that cannot work.
    pub fn load(path: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        config.validate()?;
        Ok(config)
    }
}

impl HostConfig {
    /// A simulated host for tests: BMC on a free port of 127.0.0.1 with TLS, user `admin`, password `password`, one disk.
    #[must_use]
    pub fn sim(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            backend: BackendKind::Sim,
            firmware: Firmware::Uefi,
            cpus: 4,
            memory_mib: 8192,
            disks: vec![DiskConfig { size_gib: 64, bus: DiskBus::Nvme, serial: None }],
            mac: None,
            extra_macs: Vec::new(),
            serial_number: None,
            uuid: None,
            manufacturer: default_manufacturer(),
            model: default_model(),
            boot_order: default_boot_order(),
            power: InitialPower::Off,
            acpi: Acpi::Honoured,
            tags: BTreeMap::new(),
            bmc: BmcConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                username: default_username(),
                password: "password".to_owned(),
                tls: TlsMode::SelfSigned,
                system_id: default_system_id(),
                if_match: IfMatch::Optional,
            },
        }
    }

    fn digest(&self, purpose: &str) -> [u8; 32] {
        Sha256::digest(format!("vmetal-lab {purpose} {}", self.name)).into()
    }

    /// MAC address of the boot network card.
    #[must_use]
    pub fn boot_mac(&self) -> Mac {
        self.mac.unwrap_or_else(|| {
            let d = self.digest("mac");
            // 52:54:00 is the prefix QEMU guests use; its second-lowest bit marks it locally administered.
            Mac([0x52, 0x54, 0x00, d[0], d[1], d[2]])
        })
    }

    /// MAC addresses of all network cards, the boot card first.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + '_ {
        std::iter::once(self.boot_mac()).chain(self.extra_macs.iter().copied())
    }

    /// System serial number.
    #[must_use]
    pub fn serial(&self) -> String {
        self.serial_number.clone().unwrap_or_else(|| format!("LAB{}", hex::encode_upper(&self.digest("serial")[..5])))
    }

    /// System UUID, lower case.
    #[must_use]
    pub fn system_uuid(&self) -> String {
        if let Some(uuid) = &self.uuid {
            return uuid.to_ascii_lowercase();
        }
        let mut d = self.digest("uuid");
        // Version 8 (custom) and the RFC 9562 variant.
        d[6] = (d[6] & 0x0f) | 0x80;
        d[8] = (d[8] & 0x3f) | 0x80;
        let h = hex::encode(&d[..16]);
        format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..32])
    }

    /// Serial number of the disk at `index`.
    #[must_use]
    pub fn disk_serial(&self, index: usize) -> String {
        self.disks
            .get(index)
            .and_then(|d| d.serial.clone())
            .unwrap_or_else(|| format!("{}-{index}", hex::encode_upper(&self.digest("disk")[..6])))
    }
}

#[cfg(test)]
mod tests;
