//! Defects that seeds have found in the engine, each in the smallest scenario that shows it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use vmetal_simulation::play;
use vmetal_simulation::scenario::Scenario;

fn well(scenario: Scenario) {
    let outcome = play(scenario);
    assert!(outcome.violations.is_empty(), "{:#?}\n{}", outcome.violations, outcome.story);
}

/// The change of phase was committed without its event: the declaration that brings the password dropped it.
#[test]
fn a_discovered_host_tells_that_it_is_registered() {
    let mut scenario = Scenario::fleet(1, 1, Duration::from_secs(20));
    scenario.hosts[0].introduced = Some(Duration::from_secs(60));
    well(scenario);
}
