//! One physical server.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::action::{DeclaredMaintenance, EndedTenancy, Hold, OnDelete, PowerOrder, Rotation};
use crate::agent::{BootPurpose, EraseLevel, ErasedDisk, Progress};
use crate::bmc::{BmcFacts, BmcSpec, PowerState};
use crate::inventory::Inventory;
use crate::meta::{Object, Uid};
use crate::net::MacAddr;
use crate::network::Lease;
use crate::operation::Operation;
use crate::wait::{Cause, Failure, Wait};

/// A physical server: how to reach it, and what has become of it.
pub type Host = Object<HostSpec, HostStatus>;

/// What the operator declares about a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// The management controller.
    pub bmc: BmcSpec,
    /// The interface the server boots from the network with. Unique over all hosts.
    pub boot_mac: MacAddr,
    /// The firmware's boot mode.
    #[serde(default)]
    pub boot_mode: BootMode,
    /// Which disk an operating system goes to.
    #[serde(default, skip_serializing_if = "RootDeviceHints::is_empty")]
    pub root_device: RootDeviceHints,
    /// A fixed address on the provisioning network; otherwise the engine reserves one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<Ipv4Addr>,
    /// How thoroughly disks are erased between tenants.
    #[serde(default)]
    pub erase: EraseLevel,
    /// Out of the pool for work on it, as soon as no claim holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<DeclaredMaintenance>,
    /// What becomes of the server when the host is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
}

/// Boot mode of the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    /// UEFI.
    #[default]
    Uefi,
    /// Legacy BIOS.
    Bios,
}

/// Which disk to install on. Every given hint must hold; exactly one disk must be left, or the smallest when none is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RootDeviceHints {
    /// Kernel name, with or without `/dev/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// Exact serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Exact world wide name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Part of the model name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Part of the vendor name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// SCSI host:channel:target:lun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hctl: Option<String>,
    /// At least this many GiB (2^30 bytes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size_gib: Option<u64>,
    /// Spinning (true) or solid state (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
}

impl RootDeviceHints {
    /// True when nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == RootDeviceHints::default()
    }
}

/// Where a host is in its life. The names of the main line are vMetal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostPhase {
    /// Known, but not how to sign in to its BMC: nothing is done until a password is applied.
    Discovered,
    /// The BMC is being reached and identified.
    #[default]
    Registering,
    /// The installer runs in memory and reports what the server is made of.
    Inspecting,
    /// In the pool: off, erased, unclaimed.
    Available,
    /// Unclaimed, and kept out of the pool while somebody works on it. Nothing is done to it.
    Maintenance,
    /// An image is being written, for a claim or ahead of one, up to the first boot of the installed system; or the system
    /// on standby takes over a claim.
    Provisioning,
    /// Installed ahead of any claim: a system of its class's image runs and waits for one.
    Standby,
    /// The installed system booted and phoned home.
    Provisioned,
    /// Taken back from a tenant: power off, erase.
    Deprovisioning,
    /// Not trusted, by a person or by the engine: kept out of the pool until a person says otherwise.
    Quarantined,
    /// Stopped; a person or a changed declaration has to help. The failure says how.
    Error,
}

impl HostPhase {
    /// All phases, in the order of a host's life.
    pub const ALL: [HostPhase; 11] = [
        HostPhase::Discovered,
        HostPhase::Registering,
        HostPhase::Inspecting,
        HostPhase::Available,
        HostPhase::Maintenance,
        HostPhase::Provisioning,
        HostPhase::Standby,
        HostPhase::Provisioned,
        HostPhase::Deprovisioning,
        HostPhase::Quarantined,
        HostPhase::Error,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            HostPhase::Discovered => "discovered",
            HostPhase::Registering => "registering",
            HostPhase::Inspecting => "inspecting",
            HostPhase::Available => "available",
            HostPhase::Maintenance => "maintenance",
            HostPhase::Provisioning => "provisioning",
            HostPhase::Standby => "standby",
            HostPhase::Provisioned => "provisioned",
            HostPhase::Deprovisioning => "deprovisioning",
            HostPhase::Quarantined => "quarantined",
            HostPhase::Error => "error",
        }
    }

    /// True where a claim may take a host that nobody holds.
    pub fn is_claimable(self) -> bool {
        matches!(self, HostPhase::Available | HostPhase::Standby)
    }
}

/// The step inside a phase. Inspecting, provisioning and deprovisioning all run the installer, by the same steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing to do: in the pool, on standby, provisioned, held by a person, or in error.
    #[default]
    Idle,
    /// Reserve an address on the provisioning network.
    Address,
    /// Reach and identify the BMC.
    Probe,
    /// Wait for the claim's join token and user data.
    Seed,
    /// Power off before a network boot.
    Off,
    /// Make the boot attempt's token.
    Open,
    /// Set network boot for the next start.
    BootDevice,
    /// Power on.
    On,
    /// Wait for the installer to call in.
    Agent,
    /// The installer works on its order.
    Work,
    /// Wait for the installed system to phone home.
    FirstBoot,
    /// Wait for the system on standby to take over the claim's first-boot data and phone home for it.
    HandOver,
    /// Wait for the Node object to be gone from the tenant's cluster.
    NodeRemoval,
    /// Power off after the installer's work.
    OffAgain,
    /// A rung of the ladder: restart a BMC that answers and does not do what it is told.
    ResetBmc,
    /// A rung of the ladder: off, and off for a while, so that what hangs in the server loses its power.
    Drain,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 16] = [
        Stage::Idle,
        Stage::Address,
        Stage::Probe,
        Stage::Seed,
        Stage::Off,
        Stage::Open,
        Stage::BootDevice,
        Stage::On,
        Stage::Agent,
        Stage::Work,
        Stage::FirstBoot,
        Stage::HandOver,
        Stage::NodeRemoval,
        Stage::OffAgain,
        Stage::ResetBmc,
        Stage::Drain,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Idle => "idle",
            Stage::Address => "address",
            Stage::Probe => "probe",
            Stage::Seed => "seed",
            Stage::Off => "off",
            Stage::Open => "open",
            Stage::BootDevice => "boot_device",
            Stage::On => "on",
            Stage::Agent => "agent",
            Stage::Work => "work",
            Stage::FirstBoot => "first_boot",
            Stage::HandOver => "hand_over",
            Stage::NodeRemoval => "node_removal",
            Stage::OffAgain => "off_again",
            Stage::ResetBmc => "reset_bmc",
            Stage::Drain => "drain",
        }
    }
}

/// What the engine knows about a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// Where the host is in its life.
    pub phase: HostPhase,
    /// Since when.
    #[schemars(with = "String")]
    pub phase_since: Timestamp,
    /// The step inside the phase.
    pub stage: Stage,
    /// Since when.
    #[schemars(with = "String")]
    pub stage_since: Timestamp,
    /// What is being waited for, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Power as last read.
    #[serde(default)]
    pub power: PowerState,
    /// What the BMC told at registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcFacts>,
    /// What inspection found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// The address reserved on the provisioning network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<Ipv4Addr>,
    /// Who holds the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Who had the host, and how often.
    #[serde(default, skip_serializing_if = "Tenancies::is_none")]
    pub tenancies: Tenancies,
    /// The installation ahead of any claim: wanted, under way, waiting, or taken over by the claim that holds the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Standby>,
    /// The network boot attempt under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootAttempt>,
    /// How far the installer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The last erasure. A host that has been claimed before is only available with one that is newer than the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erase: Option<EraseRecord>,
    /// The last operation; while it is `Intended` no other is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// The operation before that, with its outcome: the outcome of one and the intent of the next may be one commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_operation: Option<Operation>,
    /// Retries of the current stage.
    #[serde(default)]
    pub retry: Retry,
    /// The failure that matters now; cleared when the host moves on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// A stage that was not done by its deadline; gone when the host gets further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breach: Option<Breach>,
    /// Ordered: no effect is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Hold>,
    /// Ordered or declared: out of the pool as soon as no claim holds the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Hold>,
    /// In `quarantined`: why, by whom, since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Hold>,
    /// Ordered, in `maintenance` or `quarantined`: what the power is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_order: Option<Box<PowerOrder>>,
    /// Ordered: the BMC is to have the password that was given with the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Box<Rotation>>,
    /// A tenancy that has ended without an erasure. The host goes nowhere but to an erasure while it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unerased: Option<EndedTenancy>,
    /// Ordered: when the host is deleted, the server stays as it is, whatever the declaration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detach: Option<Hold>,
    /// In `error`: the phase that failed, so that recovery knows where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_phase: Option<HostPhase>,
    /// BMC and boot interface as they were at registration; a host whose declaration differs is registered again once it is
    /// free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_as: Option<String>,
    /// The generation of the spec that the status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
}

/// The claims that a host has had, the present one included. What placement needs to know of the past.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tenancies {
    /// How many.
    #[serde(default)]
    pub count: u32,
    /// The tenant cluster of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_cluster: Option<String>,
}

impl Tenancies {
    /// True before the first claim.
    pub fn is_none(&self) -> bool {
        *self == Tenancies::default()
    }

    /// One more.
    pub fn begin(&mut self, cluster: &str) {
        self.count = self.count.saturating_add(1);
        self.last_cluster = Some(cluster.to_owned());
    }
}

/// How often the present stage was tried, counted per cause.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// The cause of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Failures in a row for that cause.
    #[serde(default)]
    pub failures: u32,
    /// Whole attempts at the phase (each a network boot), from 0.
    #[serde(default)]
    pub attempts: u32,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub not_before: Option<Timestamp>,
    /// How many rungs of the stage's ladder have been used up.
    #[serde(default)]
    pub rung: u32,
    /// Since when the host has not got any further for the same trouble, over all retries and times in `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub since: Option<Timestamp>,
}

/// A deadline that has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Breach {
    /// The phase that was too slow.
    pub phase: HostPhase,
    /// The stage that was too slow.
    pub stage: Stage,
    /// By when it should have been done.
    #[schemars(with = "String")]
    pub deadline: Timestamp,
}

/// A tenant node's hold on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// The tenant node's name.
    pub node: String,
    /// The tenant node's identity: another tenant node of the same name has no right to the host.
    pub uid: Uid,
    /// What the tenant node wants of the host now.
    pub state: ClaimState,
    /// When the host was claimed.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// The address that the host has for the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Digest of the image that the claim is to run, known once join token and user data are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// An installation ahead of any claim. It belongs to no tenant, and still keeps the host out of the pool until it is erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Standby {
    /// The installation's identity: its erase record carries it, and it is the waiting system's instance id.
    pub uid: Uid,
    /// The class that keeps the host on standby.
    pub node_type: String,
    /// Digest of the image.
    pub image: String,
    /// Whether it is still wanted.
    pub wish: StandbyWish,
    /// When it was ordered.
    #[schemars(with = "String")]
    pub since: Timestamp,
}

/// What becomes of an installation ahead of any claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StandbyWish {
    /// It is made, and waits.
    Keep,
    /// It is erased, and the host goes back to the pool.
    GiveBack,
}

/// What a claim wants of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// Claimed; join token and user data are not ready yet.
    Reserved,
    /// Install and boot.
    Install,
    /// Drained: power off, but do not erase before the Node object is gone.
    Release,
    /// The Node object is gone: erase and return to the pool.
    Erase,
}

/// One network boot of the installer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootAttempt {
    /// Identifies the attempt; orders carry it.
    pub id: String,
    /// What the installer is booted for.
    pub purpose: BootPurpose,
    /// SHA-256 of the token, hexadecimal. The token itself is kept apart and never shown.
    pub token_sha256: String,
    /// When the attempt was opened.
    #[schemars(with = "String")]
    pub opened: Timestamp,
    /// When the installer called in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub called_in: Option<Timestamp>,
    /// When the installer was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_seen: Option<Timestamp>,
    /// When the installer said that its order was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub work_done: Option<Timestamp>,
    /// When the installed system phoned home; told anew once it runs for the claim that took it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phoned_home: Option<Timestamp>,
}

/// Proof that a tenancy's data is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EraseRecord {
    /// The tenancy that ended.
    pub claim_uid: Uid,
    /// The level that was asked for and reached on every disk.
    pub level: EraseLevel,
    /// What was done to each disk.
    pub disks: Vec<ErasedDisk>,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

impl HostStatus {
    /// How a claim's hold on this host ended without its doing, if it did: the claim may look for another host.
    pub fn lost_by(&self, claim: &Uid) -> Option<&EndedTenancy> {
        self.unerased.as_ref().filter(|ended| ended.uid == *claim)
    }

    /// The addresses of networks that the host has: a claim's, and those of a claim that ended with its data still there, whose
    /// system may run with it.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        let of_claim = self.claim.as_ref().and_then(|claim| claim.lease.as_ref());
        let left = self.unerased.as_ref().and_then(|ended| ended.lease.as_ref());
        of_claim.into_iter().chain(left)
    }

    /// The installation ahead of any claim, while no claim has the host.
    pub fn on_standby(&self) -> Option<&Standby> {
        self.standby.as_ref().filter(|_| self.claim.is_none())
    }

    /// The status of a host that was just declared.
    pub fn new(now: Timestamp) -> Self {
        HostStatus {
            phase: HostPhase::Registering,
            phase_since: now,
            stage: Stage::Address,
            stage_since: now,
            wait: None,
            power: PowerState::Unknown,
            bmc: None,
            inventory: None,
            address: None,
            claim: None,
            tenancies: Tenancies::default(),
            standby: None,
            boot: None,
            progress: None,
            erase: None,
            operation: None,
            previous_operation: None,
            retry: Retry::default(),
            failure: None,
            breach: None,
            pause: None,
            maintenance: None,
            quarantine: None,
            power_order: None,
            rotation: None,
            unerased: None,
            detach: None,
            failed_phase: None,
            registered_as: None,
            observed_generation: 0,
        }
    }
}
