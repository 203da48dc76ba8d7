//! A physical server: power, firmware's boot override, disks with what is really on them, and what its BMC keeps count of.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use vmetal_model::{BootMode, MacAddr};

use crate::fault::{BmcFault, MachineFault, Scope};
use crate::incarnation::Who;
use crate::link::Link;

/// An installed system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// The claim that it was installed for.
    pub claim: String,
    /// The Node that it registers as.
    pub node: String,
    /// The provider id that its kubelet tells.
    pub provider_id: String,
    /// What it phones home with.
    pub boot_token: String,
    /// What it joins with.
    pub join_token: String,
    /// Whether it was installed ahead of any claim and waits for one. `claim` is then its own instance id.
    pub waits: bool,
    /// Whether it has said so.
    pub phoned_home: bool,
    /// Whether it has the cluster's certificate.
    pub joined: bool,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing that anybody wrote.
    Blank,
    /// Something from before the fleet.
    Foreign,
    /// The data of the tenant of this claim: an installation that was not finished, or leftovers.
    Data(String),
    /// A system that starts.
    System(Box<System>),
}

impl Content {
    /// Whose data it is.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Content::Blank | Content::Foreign => None,
            Content::Data(claim) => Some(claim),
            Content::System(system) => (!system.waits).then_some(&system.claim),
        }
    }
}

/// One disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its serial number.
    pub serial: String,
    /// Its size.
    pub bytes: u64,
    /// What is on it.
    pub content: Content,
}

/// What a machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Running {
    /// It is off.
    Nothing,
    /// Firmware, or a boot loader that found nothing.
    Firmware,
    /// The installer.
    Installer,
    /// The installed system of this claim.
    System(String),
}

/// A call to the BMC that changes something and is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Who made it.
    pub who: Who,
    /// Which, of all.
    pub number: u64,
}

/// One server.
#[derive(Debug)]
pub struct Machine {
    /// The host's name.
    pub name: String,
    /// Its boot interface.
    pub mac: MacAddr,
    /// Serial number, the same for BMC and DMI.
    pub serial: String,
    /// UUID, the same for BMC and DMI.
    pub uuid: String,
    /// How it boots.
    pub mode: BootMode,
    /// How long its firmware takes.
    pub firmware: Duration,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Whether it has power.
    pub on: bool,
    /// How often it was started.
    pub starts: u64,
    /// What it runs.
    pub running: Running,
    /// Its life since it was started.
    pub flow: Option<AbortHandle>,
    /// Whether the next start is from the network.
    pub network_next: bool,
    /// Counts changes of the system resource.
    pub etag: u64,
    /// What its BMC's account is opened with.
    pub password: String,
    /// The link of its boot interface.
    pub link: Link,
    /// The link of its BMC.
    pub bmc_link: Link,
    /// Until when its BMC is away.
    pub bmc_away: Option<Instant>,
    /// How long the next reset hangs.
    pub next_reset_hangs: Option<Duration>,
    /// The last reset that the BMC accepted, and until when it takes no other.
    pub reset: Option<(AbortHandle, Instant)>,
    /// Faults of the BMC, the next first.
    pub bmc_faults: Vec<(BmcFault, u32, Scope)>,
    /// Faults of the machine, the next first.
    pub faults: Vec<(MachineFault, u32)>,
    /// Whether its BMC ever lied about power: what follows from that is not the engine's doing.
    pub lied: bool,
    /// Whether its host was removed and it was left as it was: nobody's to touch until it is declared again.
    pub left: bool,
    /// Changing calls that are not answered yet.
    pub open: Vec<Open>,
    /// Who made the last changing call, and when it arrived.
    pub last: Option<(Who, Instant)>,
    /// How often each reset was performed, by host uid, operation and reset type.
    pub resets: BTreeMap<(String, u64, String), u32>,
    /// How often each process was refused with each credentials, by the version of the password that was declared.
    pub refused: BTreeMap<(Who, String, String), u32>,
}

impl Machine {
    /// The BMC's next fault for a request.
    pub fn take_bmc_fault(&mut self, changing: bool) -> Option<BmcFault> {
        let hit = |(_, _, scope): &(BmcFault, u32, Scope)| changing || *scope == Scope::All;
        let at = self.bmc_faults.iter().position(hit)?;
        let (fault, times, _) = &mut self.bmc_faults[at];
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            self.bmc_faults.remove(at);
        }
        Some(fault)
    }

    /// Its BMC drops whatever reset it is busy with.
    pub fn drop_reset(&mut self) {
        if let Some((reset, _)) = self.reset.take() {
            reset.abort();
        }
    }

    /// The faults of this start.
    pub fn take_faults(&mut self) -> Vec<MachineFault> {
        let now = self.faults.iter().map(|(fault, _)| fault.clone()).collect();
        for (_, times) in &mut self.faults {
            *times -= 1;
        }
        self.faults.retain(|(_, times)| *times > 0);
        now
    }

    /// The claims whose data is on its disks.
    pub fn claims(&self) -> Vec<&str> {
        self.disks.iter().filter_map(|disk| disk.content.claim()).collect()
    }
}
