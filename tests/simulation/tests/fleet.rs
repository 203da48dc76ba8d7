//! A large fleet that is registered at once: nobody waits longer than for the lanes and its own server.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use vmetal_simulation::fault::{BmcFault, Fault, Scope, What};
use vmetal_simulation::scenario::Scenario;
use vmetal_simulation::{Outcome, register};

const FIRMWARE: Duration = Duration::from_secs(20);
/// What one host takes at most when nothing goes wrong: a probe, off, boot device, on, firmware, network boot, inspection,
/// off; every call to a BMC at its slowest.
const ONE: Duration = Duration::from_secs(100);

fn well(outcome: &Outcome) {
    assert!(outcome.violations.is_empty(), "{:#?}\n{}", outcome.violations, outcome.story);
    println!("seed {}: {:?} of virtual time, {} calls and commits", outcome.seed, outcome.virtual_time, outcome.effort);
}

#[test]
fn three_hundred_hosts_take_little_longer_than_one() {
    let outcome = register(Scenario::fleet(1, 300, FIRMWARE));
    well(&outcome);
    assert!(outcome.virtual_time < ONE, "{:?}", outcome.virtual_time);
}

/// A BMC that does not answer costs its own host time, and nobody else's lane.
#[test]
fn one_in_twenty_bmcs_that_hangs_holds_up_nobody_else() {
    let mut scenario = Scenario::fleet(7, 200, FIRMWARE);
    scenario.faults = (0..10)
        .map(|n| Fault {
            at: Duration::ZERO,
            what: What::Bmc { host: n * 20, fault: BmcFault::Timeout, times: 4, changing: Scope::All },
        })
        .collect();
    let outcome = register(scenario);
    well(&outcome);
    // Four calls that time out after 30 s each, and the pauses between them.
    assert!(outcome.virtual_time < ONE + Duration::from_secs(4 * 30 + 60), "{:?}", outcome.virtual_time);
}
