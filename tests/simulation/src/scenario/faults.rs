//! What goes wrong.

use std::time::Duration;

use super::{FAULTS_UNTIL, s};
use crate::chance::Chance;
use crate::fault::{BmcFault, ClusterFault, EngineFault, Fault, MachineFault, Scope, Side, Step, What};
use crate::link::Flapping;

/// Draws one fault.
pub(super) fn draw(chance: &Chance, hosts: usize, engines: usize) -> Fault {
    let at = chance.between(s(5), FAULTS_UNTIL);
    let host = chance.below(hosts as u64) as usize;
    let engine = chance.below(engines as u64) as usize;
    let what = match chance.below(11) {
        0..4 => {
            let scope = if chance.one_in(2) { Scope::Changing } else { Scope::All };
            let fault = bmc_fault(chance);
            let times = if fault == BmcFault::LyingPower { 1 + chance.below(3) } else { 1 + chance.below(8) };
            What::Bmc { host, fault, times: times as u32, changing: scope }
        }
        4..6 => What::Machine { host, fault: machine_fault(chance), times: 1 + chance.below(3) as u32 },
        6..9 => What::Engine { engine, fault: engine_fault(chance) },
        9 => What::Link {
            host,
            side: *chance.pick(&[Side::Bmc, Side::Boot]),
            how: Flapping {
                down: chance.between(s(1), s(60)),
                up: chance.between(s(1), s(40)),
                lasts: chance.between(s(10), s(20 * 60)),
            },
        },
        _ => What::Cluster(match chance.below(3) {
            0 => ClusterFault::Away(chance.between(s(10), s(15 * 60))),
            1 => ClusterFault::Status(*chance.pick(&[500, 503, 429, 403]), 1 + chance.below(12) as u32),
            _ => ClusterFault::Budgets(chance.between(s(10), s(15 * 60))),
        }),
    };
    Fault { at, what }
}

fn bmc_fault(chance: &Chance) -> BmcFault {
    match chance.below(17) {
        0 => BmcFault::Timeout,
        1 => BmcFault::Refused,
        2 | 3 => BmcFault::AnswerLost,
        4 => BmcFault::Late(chance.between(s(0), s(20))),
        5 => BmcFault::Status(*chance.pick(&[400, 401, 403, 404, 409, 412, 429, 500, 502, 503])),
        6 => BmcFault::RetryAfter(*chance.pick(&[429, 503]), chance.below(120) as u32),
        7 => BmcFault::NoSessions,
        8 => BmcFault::Truncated,
        9 => BmcFault::Hostile,
        10 => BmcFault::LyingPower,
        11 => BmcFault::ResetIgnored,
        12 => BmcFault::OverrideLost,
        13 => BmcFault::RestartMidReset(chance.between(s(5), s(300))),
        14 | 15 => BmcFault::StuckReset(chance.between(s(20), s(20 * 60))),
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
