//! Defects that seeds have found in the engine, each in the smallest scenario that shows it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use vmetal_simulation::play;
use vmetal_simulation::scenario::{First, Order, Scenario, Wish};

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

/// It could be declared no more, which was the only way to tell the engine another password.
#[test]
fn a_retired_host_whose_password_was_changed_at_its_bmc_is_not_lost() {
    let mut scenario = Scenario::fleet(1, 1, Duration::from_secs(20));
    let at = Duration::from_secs;
    scenario.wishes = vec![
        (at(600), Wish::Claim { name: "node-0".to_owned(), drain: 60 }),
        (at(1500), Wish::Order { host: 0, order: Order::Retire }),
        (at(1600), Wish::Rotate { host: 0, first: First::Bmc, then: at(60) }),
        (at(1900), Wish::Release { name: "node-0".to_owned() }),
    ];
    well(scenario);
}
