//! What a seed means: the fleet, what is asked for, and what goes wrong.

mod faults;
pub(crate) mod quotas;
pub(crate) mod wishes;

use std::time::Duration;

use vmetal_model::{BootMode, MacAddr, OnDelete};

use crate::chance::Chance;
use crate::fault::Fault;
use crate::link::Link;
use crate::machine::{Content, Disk, Machine, Running};

pub use quotas::{Form, QuotaPlan};

/// The account of every BMC.
pub const USER: &str = "admin";
/// Its password, as long as nobody changes it.
pub const PASSWORD: &str = "simulated";
/// Faults begin before this, and are over soon after.
pub const FAULTS_UNTIL: Duration = Duration::from_secs(75 * 60);
/// From here on nothing goes wrong.
pub const QUIET: Duration = Duration::from_secs(95 * 60);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One planned host.
#[derive(Debug, Clone)]
pub struct HostPlan {
    /// Its name.
    pub name: String,
    /// When it is declared.
    pub at: Duration,
    /// How much later its BMC's password is given; at once, mostly.
    pub introduced: Option<Duration>,
    /// What is declared to become of it when it is deleted.
    pub on_delete: OnDelete,
    /// How long its firmware takes.
    pub firmware: Duration,
    /// How many disks it has.
    pub disks: usize,
    /// How it boots.
    pub mode: BootMode,
    /// Whether it was running something when it was declared.
    pub running: bool,
    number: u16,
}

impl HostPlan {
    /// Its boot interface.
    pub fn mac(&self) -> MacAddr {
        #[allow(clippy::expect_used, reason = "six numbers in hexadecimal")]
        format!("52:54:00:00:{:02x}:{:02x}", self.number >> 8, self.number & 0xff)
            .parse()
            .expect("this is a MAC address")
    }

    /// Its BMC.
    pub fn bmc(&self) -> String {
        format!("redfish+http://10.0.{}.{}", self.number >> 8, self.number & 0xff)
    }

    /// Which host has the BMC of this address, counted from 0.
    pub fn index_of(address: &str) -> Option<usize> {
        let mut octets = address.rsplit('.').map(str::parse::<usize>);
        let (low, high) = (octets.next()?.ok()?, octets.next()?.ok()?);
        (high << 8 | low).checked_sub(1)
    }

    /// The server.
    pub fn machine(&self) -> Machine {
        let disk = |n| Disk {
            serial: format!("DISK-{}-{n}", self.number),
            bytes: (64 + 64 * n as u64) << 30,
            content: Content::Foreign,
        };
        Machine {
            name: self.name.clone(),
            mac: self.mac(),
            serial: format!("SN-{}", self.number),
            uuid: format!("4c4c4544-0000-4000-8000-{:012}", self.number),
            mode: self.mode,
            firmware: self.firmware,
            disks: (0..self.disks).map(disk).collect(),
            on: self.running,
            starts: u64::from(self.running),
            running: if self.running { Running::Firmware } else { Running::Nothing },
            flow: None,
            network_next: false,
            etag: 1,
            password: PASSWORD.to_owned(),
            link: Link::default(),
            bmc_link: Link::default(),
            bmc_away: None,
            next_reset_hangs: None,
            reset: None,
            bmc_faults: Vec::new(),
            faults: Vec::new(),
            lied: false,
            left: false,
            open: Vec::new(),
            last: None,
            resets: Default::default(),
            refused: Default::default(),
        }
    }
}

/// What an operator asks for.
#[derive(Debug, Clone)]
pub enum Wish {
    /// A node for the tenant.
    Claim {
        /// Its name.
        name: String,
        /// How long its pods may take to leave, seconds.
        drain: u32,
    },
    /// Nodes for the tenant, all of them or none.
    Group {
        /// The name of the group; its members are numbered.
        name: String,
        /// How many.
        size: u32,
        /// How long their pods may take to leave, seconds.
        drain: u32,
    },
    /// The node is given back.
    Release {
        /// Its name.
        name: String,
    },
    /// A label of a host changes; a host that is not declared any more is declared again.
    Touch {
        /// Which host.
        host: usize,
    },
    /// A host is deleted.
    Delete {
        /// Which host.
        host: usize,
    },
    /// The password of a host's BMC is changed, there and in the declaration.
    Rotate {
        /// Which host.
        host: usize,
        /// What comes first.
        first: First,
        /// How much later the other comes.
        then: Duration,
    },
    /// An order is given about a host.
    Order {
        /// Which host.
        host: usize,
        /// What.
        order: Order,
    },
}

/// Where a new password is entered first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// At the BMC.
    Bmc,
    /// In the declaration.
    Declaration,
}

/// An operator's order about a host ([`vmetal_model::HostAction`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Begin nothing.
    Pause,
    /// End pause and maintenance.
    Resume,
    /// Out of the pool, for this long or until resumed.
    Maintenance(Option<Duration>),
    /// Out of the pool: not trusted.
    Quarantine,
    /// Trusted again.
    Unquarantine,
    /// Inspected anew.
    Inspect,
    /// Tried again at once.
    Retry,
    /// Taken from its claim.
    ForceRelease,
    /// Off, then on.
    PowerCycle,
    /// Forgotten and left as it is.
    Detach,
    /// Deleted once nobody holds it.
    Retire,
}

/// A defect that a simulation is given on purpose: if the invariants do not find it, they are worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The store ignores what a commit depends on.
    GuardsDropped,
    /// The store ignores that a reservation depends on its cluster's quota, and on what that cluster was given before.
    QuotasUnguarded,
    /// The store says yes to commits that it forgets.
    CommitsForgotten,
    /// Something between engine and BMC repeats requests.
    CallsDoubled,
    /// The installer says that it has erased the disks.
    ErasesNothing,
}

/// All that a seed decides before the beginning.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// How many engines share the store.
    pub engines: usize,
    /// The fleet.
    pub hosts: Vec<HostPlan>,
    /// How many hosts are wanted on standby, and from when on; empty where there is no standby.
    pub standby: Vec<(Duration, u32)>,
    /// What the tenant's cluster may hold, and from when on; empty where there is no quota.
    pub quotas: Vec<(Duration, QuotaPlan)>,
    /// What is asked for, and when.
    pub wishes: Vec<(Duration, Wish)>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What is broken on purpose.
    pub defect: Option<Defect>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64, defect: Option<Defect>) -> Self {
        let chance = Chance::new(seed, "plan");
        let engines = *chance.pick(&[1, 1, 1, 1, 1, 2, 2, 3]);
        let count = 1 + chance.below(3) as usize;
        let hosts: Vec<HostPlan> = (0..count)
            .map(|n| HostPlan {
                name: format!("host-{n}"),
                at: chance.between(s(1), s(240)),
                introduced: chance.one_in(8).then(|| chance.between(s(5), s(20 * 60))),
                on_delete: if chance.one_in(5) { OnDelete::Orphan } else { OnDelete::Clean },
                firmware: chance.between(s(5), s(90)),
                disks: 1 + chance.below(3) as usize,
                mode: if chance.one_in(4) { BootMode::Bios } else { BootMode::Uefi },
                running: chance.one_in(3),
                number: n as u16 + 1,
            })
            .collect();
        let wishes = wishes::draw(&chance, count);
        // One simulation in eight is without faults: what fails there is no matter of recovery.
        let faults = if chance.one_in(8) { 0 } else { 1 + chance.below(9) };
        let mut faults: Vec<Fault> = (0..faults).map(|_| faults::draw(&chance, count, engines)).collect();
        faults.sort_by_key(|fault| fault.at);
        let quotas = quotas::draw(seed, count, &wishes);
        Scenario { seed, engines, hosts, standby: standby(seed), quotas, wishes, faults, defect }
    }

    /// So many hosts with firmware that takes so long, one engine, nothing that is asked for but the hosts.
    pub fn fleet(seed: u64, hosts: u16, firmware: Duration) -> Self {
        let plan = |number: u16| HostPlan {
            name: format!("host-{number}"),
            at: Duration::ZERO,
            introduced: None,
            on_delete: OnDelete::Clean,
            firmware,
            disks: 1,
            mode: BootMode::Uefi,
            running: false,
            number,
        };
        let hosts = (1..=hosts).map(plan).collect();
        Scenario {
            seed,
            engines: 1,
            hosts,
            standby: Vec::new(),
            quotas: Vec::new(),
            wishes: Vec::new(),
            faults: Vec::new(),
            defect: None,
        }
    }
}

/// In one simulation of three where it is asked for (`STANDBY=1`): too few seeds have been played with it for it to be among
/// those that must always pass. By a chance of its own: what else a seed means does not depend on it.
fn standby(seed: u64) -> Vec<(Duration, u32)> {
    let chance = Chance::new(seed, "standby");
    if std::env::var_os("STANDBY").is_none() || !chance.one_in(3) {
        return Vec::new();
    }
    let mut wanted = vec![(Duration::ZERO, 1 + chance.below(2) as u32)];
    if chance.one_in(2) {
        wanted.push((chance.between(s(5 * 60), s(70 * 60)), chance.below(3) as u32));
    }
    wanted
}
