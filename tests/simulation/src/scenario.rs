//! What a seed means: the fleet, what is asked for, and what goes wrong.

use std::time::Duration;

use vmetal_model::{BootMode, MacAddr};

use crate::chance::Chance;
use crate::fault::{BmcFault, ClusterFault, EngineFault, Fault, MachineFault, Scope, Step, What};
use crate::machine::{Content, Disk, Machine, Running};

/// The account of every BMC.
pub const USER: &str = "admin";
/// Its password.
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
    /// How long its firmware takes.
    pub firmware: Duration,
    /// How many disks it has.
    pub disks: usize,
    /// How it boots.
    pub mode: BootMode,
    /// Whether it was running something when it was declared.
    pub running: bool,
    number: u8,
}

impl HostPlan {
    /// Its boot interface.
    pub fn mac(&self) -> MacAddr {
        #[allow(clippy::expect_used, reason = "six numbers in hexadecimal")]
        format!("52:54:00:00:00:{:02x}", self.number).parse().expect("this is a MAC address")
    }

    /// Its BMC.
    pub fn bmc(&self) -> String {
        format!("redfish+http://10.0.0.{}", self.number)
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
            bmc_away: None,
            bmc_faults: Vec::new(),
            faults: Vec::new(),
            lied: false,
            open: Vec::new(),
            last: None,
            resets: Default::default(),
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
    /// The node is given back.
    Release {
        /// Its name.
        name: String,
    },
    /// A label of a host changes.
    Touch {
        /// Which host.
        host: usize,
    },
}

/// A defect that a simulation is given on purpose: if the invariants do not find it, they are worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The store ignores what a commit depends on.
    GuardsDropped,
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
                firmware: chance.between(s(5), s(90)),
                disks: 1 + chance.below(3) as usize,
                mode: if chance.one_in(4) { BootMode::Bios } else { BootMode::Uefi },
                running: chance.one_in(3),
                number: n as u8 + 1,
            })
            .collect();
        let wishes = wishes(&chance, count);
        // One simulation in eight is without faults: what fails there is no matter of recovery.
        let faults = if chance.one_in(8) { 0 } else { 1 + chance.below(9) };
        let mut faults: Vec<Fault> = (0..faults).map(|_| fault(&chance, count, engines)).collect();
        faults.sort_by_key(|fault| fault.at);
        Scenario { seed, engines, hosts, wishes, faults, defect }
    }
}

fn wishes(chance: &Chance, hosts: usize) -> Vec<(Duration, Wish)> {
    let mut wishes = Vec::new();
    for n in 0..1 + chance.below(hosts as u64 + 1) {
        let (name, at) = (format!("node-{n}"), chance.between(s(30), s(50 * 60)));
        let drain = if chance.one_in(3) { 60 } else { 900 };
        wishes.push((at, Wish::Claim { name: name.clone(), drain }));
        if chance.one_in(2) {
            let at = at + chance.between(s(10), s(45 * 60));
            wishes.push((at, Wish::Release { name: name.clone() }));
            // The same name again: another claim, which has no right to what the first one had.
            if chance.one_in(2) {
                wishes.push((at + chance.between(s(60), s(20 * 60)), Wish::Claim { name, drain }));
            }
        }
    }
    if chance.one_in(4) {
        let host = chance.below(hosts as u64) as usize;
        wishes.push((chance.between(s(60), s(60 * 60)), Wish::Touch { host }));
    }
    wishes.sort_by_key(|(at, _)| *at);
    wishes
}

fn fault(chance: &Chance, hosts: usize, engines: usize) -> Fault {
    let at = chance.between(s(5), FAULTS_UNTIL);
    let host = chance.below(hosts as u64) as usize;
    let engine = chance.below(engines as u64) as usize;
    let what = match chance.below(10) {
        0..4 => {
            let scope = if chance.one_in(2) { Scope::Changing } else { Scope::All };
            let fault = bmc_fault(chance);
            let times = if fault == BmcFault::LyingPower { 1 + chance.below(3) } else { 1 + chance.below(8) };
            What::Bmc { host, fault, times: times as u32, changing: scope }
        }
        4..6 => What::Machine { host, fault: machine_fault(chance), times: 1 + chance.below(3) as u32 },
        6..9 => What::Engine { engine, fault: engine_fault(chance) },
        _ => What::Cluster(match chance.below(3) {
            0 => ClusterFault::Away(chance.between(s(10), s(15 * 60))),
            1 => ClusterFault::Status(*chance.pick(&[500, 503, 429, 403]), 1 + chance.below(12) as u32),
            _ => ClusterFault::Budgets(chance.between(s(10), s(15 * 60))),
        }),
    };
    Fault { at, what }
}

fn bmc_fault(chance: &Chance) -> BmcFault {
    match chance.below(14) {
        0 => BmcFault::Timeout,
        1 => BmcFault::Refused,
        2 | 3 => BmcFault::AnswerLost,
        4 => BmcFault::Late(chance.between(s(0), s(20))),
        5 => BmcFault::Status(*chance.pick(&[400, 401, 403, 404, 409, 412, 500, 502])),
        6 => BmcFault::RetryAfter(chance.below(120) as u32),
        7 => BmcFault::NoSessions,
        8 => BmcFault::Truncated,
        9 => BmcFault::Hostile,
        10 => BmcFault::LyingPower,
        11 => BmcFault::ResetIgnored,
        12 => BmcFault::OverrideLost,
        _ => BmcFault::Restart(chance.between(s(5), s(300))),
    }
}

fn machine_fault(chance: &Chance) -> MachineFault {
    match chance.below(9) {
        0 => MachineFault::SlowFirmware(chance.between(s(30), s(900))),
        1 => MachineFault::NoNetworkBoot,
        2 => MachineFault::NeverCalls,
        3 => MachineFault::Hangs,
        4 => MachineFault::Slow(2 + chance.below(30) as u32),
        5 => MachineFault::WorkFails,
        6 => MachineFault::NoFirstBoot,
        7 => MachineFault::JoinFails,
        _ => MachineFault::PowerLoss,
    }
}

fn engine_fault(chance: &Chance) -> EngineFault {
    let down = chance.between(s(1), if chance.one_in(4) { s(20 * 60) } else { s(30) });
    let step = *chance.pick(&[Step::BeforeCommit, Step::AfterCommit, Step::BeforeCall, Step::AfterCall]);
    match chance.below(10) {
        0..2 => EngineFault::Crash(down),
        2..5 => EngineFault::CrashAt(step, down),
        5 => EngineFault::StoreAway(chance.between(s(1), s(180))),
        6 => EngineFault::UnknownCommits(1 + chance.below(4) as u32),
        7 => EngineFault::SlowStore(chance.between(Duration::from_millis(50), s(5)), chance.between(s(10), s(300))),
        8 if chance.one_in(2) => EngineFault::NoInstallers(chance.between(s(10), s(600))),
        8 => EngineFault::NoBmcs(chance.between(s(10), s(600))),
        _ => {
            let seconds = chance.between(s(1), s(2 * 60 * 60)).as_secs() as i64;
            EngineFault::ClockJump(if chance.one_in(2) { -seconds } else { seconds })
        }
    }
}
