//! What the in-memory installer (`vmetal-agent`) and the engine say to each other.
//!
//! The installer only dials out: JSON over HTTP to the provisioning address, each request with
//! `Authorization: Bearer <boot token>`. It learns address and token from the kernel command line
//! (`vmetal.url=…`, `vmetal.token=…`, `vmetal.mac=…`, `vmetal.attempt=…`).
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/hello` | [`Hello`] | 200 [`Order`] |
//! | `GET /agent/v1/order?after=ID&wait=SECONDS` | | 200 [`Order`]; the call is held until there is another order than ID |
//! | `POST /agent/v1/report` | [`Report`] | 204 |
//! | `POST /agent/v1/phone-home?instance=ID` | anything | 204; from the installed system, with its instance id |
//! | `GET /agent/v1/claim?wait=SECONDS` | | 200 [`Seed`] for a system on standby once a claim has its host, else 204; the call is held until there is one |
//! | `POST /agent/v1/join-failed` | plain text: what went wrong | 204; from the installed system |
//! | `GET /images/DIGEST/manifest.json`, `GET /images/DIGEST/chunks/CHUNK` | | 200 bytes |
//!
//! Errors are `{"error": "text"}` with 401 (no or unknown token), 403 (token of another host or attempt), 404, 409
//! (not the machine that was declared), 503 (engine away: try again).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::RootDeviceHints;
use crate::inventory::{Firmware, Identity, Inventory};
use crate::net::MacAddr;

/// What the installer is booted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootPurpose {
    /// Find out what the server is made of.
    Inspect,
    /// Write an image and its seed.
    Install,
    /// Erase every disk.
    Erase,
}

/// The installer's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the installer.
    pub version: String,
    /// The boot attempt named on the kernel command line.
    pub attempt: String,
    /// The interface it was booted over.
    pub boot_mac: MacAddr,
    /// Who the machine says it is.
    pub identity: Identity,
    /// How it was booted.
    pub firmware: Firmware,
}

/// What the installer is to do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Identifies the order; reports carry it. An order with a known id is the same order and is not begun twice.
    pub id: String,
    /// The work.
    pub action: Action,
}

/// The kinds of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Action {
    /// Nothing yet: ask again.
    Wait,
    /// Report an [`Inventory`].
    Inspect,
    /// Install an operating system.
    Install(Box<InstallOrder>),
    /// Erase every disk.
    Erase(EraseOrder),
    /// Restart from disk.
    Reboot,
    /// Sync and power off.
    PowerOff,
}

/// How to install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallOrder {
    /// Digest of the image's manifest, hexadecimal; the image is at `/images/<digest>/…`.
    pub image_digest: String,
    /// Which disk.
    pub root_device: RootDeviceHints,
    /// Refuse when the machine's serial number is another one.
    pub expected_serial: Option<String>,
    /// First-boot data for cloud-init.
    pub seed: Seed,
    /// Label of the firmware's boot entry.
    pub boot_label: String,
}

/// A NoCloud seed: the files of a small FAT file system labelled `CIDATA`, written as the disk's last partition.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seed {
    /// `user-data`. Holds join credentials: never logged.
    pub user_data: String,
    /// `meta-data`.
    pub meta_data: String,
    /// `network-config` (version 2), or empty to leave it out.
    pub network_config: String,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(redacted)")
    }
}

/// How to erase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseOrder {
    /// What every disk must reach.
    pub level: EraseLevel,
    /// Refuse when the machine's serial number is another one.
    pub expected_serial: Option<String>,
}

/// How thoroughly a disk is erased. Never silently less than what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EraseLevel {
    /// Partition tables, file system and RAID signatures, at both ends of the disk.
    Metadata,
    /// All blocks discarded, sampled blocks read back, and `metadata` written explicitly.
    #[default]
    Discard,
    /// Every block overwritten with zeros, and sampled blocks read back.
    Overwrite,
}

/// What was done to one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErasedDisk {
    /// Kernel name at the time.
    pub name: String,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Capacity in bytes.
    pub size_bytes: u64,
    /// The method that succeeded, for example `BLKDISCARD, 64 blocks sampled`.
    pub method: String,
}

/// Something the installer has to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The order it is about.
    pub order: String,
    /// Counts the reports of one boot, from 1; a report that was already taken is not taken again.
    pub sequence: u64,
    /// The contents.
    pub body: ReportBody,
}

/// The kinds of report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ReportBody {
    /// Still alive.
    Heartbeat,
    /// How far it is.
    Progress(Progress),
    /// The answer to `Inspect`.
    Inspected {
        /// What was found.
        inventory: Box<Inventory>,
    },
    /// The answer to `Install`: disk written, seed in place, firmware entry set, everything synced.
    Installed(Installed),
    /// The answer to `Erase`.
    Erased {
        /// Every disk.
        disks: Vec<ErasedDisk>,
    },
    /// The order failed and will not be retried without a new order.
    Failed(AgentFailure),
}

/// How far a long piece of work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The step, in an operator's words: `writing image`.
    pub step: String,
    /// Bytes done.
    #[serde(default)]
    pub done: u64,
    /// Bytes in all; 0 when unknown.
    #[serde(default)]
    pub total: u64,
}

/// What an installation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The disk that was chosen (kernel name).
    pub disk: String,
    /// Its serial number.
    pub disk_serial: Option<String>,
    /// Bytes of data written (holes not counted).
    pub bytes_written: u64,
    /// Bytes fetched.
    pub bytes_fetched: u64,
    /// Time from order to sync, milliseconds.
    pub elapsed_ms: u64,
}

/// Why an order failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFailure {
    /// What kind of failure: one of [`crate::Cause`]'s agent causes.
    pub cause: crate::wait::Cause,
    /// What failed, with what was expected and seen (for the root device: every disk that was seen).
    pub message: String,
    /// What to do about it.
    pub advice: String,
}
