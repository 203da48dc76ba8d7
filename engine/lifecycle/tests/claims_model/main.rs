//! An exhaustive search over the claim protocol.
//!
//! The functions are the real ones: `claim::units`, `claim::reserve`, `node::step`, `node::outcome`, `host::step`,
//! `host::outcome`. Around them is a model of what they run in: a store whose transactions are guarded by revisions, and
//! engines that decide on what they see of it. Whatever may happen next, the search tries, in every order, until no new state
//! comes up.
//!
//! Engines keep nothing but what they last saw, so there is no telling them apart, and a crash, a restart, a lost answer, an
//! engine that is behind and a transaction that is late or comes twice are all the same: a transaction that was decided on
//! an older state and is still under way. Two are under way at a time, each decided at another moment; each may be
//! committed, refused or lost, at any later one.
//!
//! What is left out: hosts that fail while several claims want them (the space is too large), time (deadlines do not pass); hosts that fail otherwise than for good while they are installed; what happens inside one phase of a host, which is one step here; an
//! engine that has newer news of one object than of another. The seeded simulation covers these.
#![allow(clippy::unwrap_used, reason = "tests")]

mod explore;
mod model;

use explore::explore;
use model::{Mutation, Setting};

/// A claim against a group of two on two hosts: who gets them, and what of it is given back.
const GROUP: Setting = Setting {
    singles: 1,
    group: 2,
    hosts: 2,
    failures: 0,
    host_deletions: 0,
    standby_orders: 0,
    mends: false,
    under_way: 2,
    hosts_move: false,
    quota: None,
    mutation: Mutation::None,
};
/// Three claims on three hosts, of which their cluster may hold two.
const QUOTA: Setting = Setting { singles: 3, group: 0, hosts: 3, quota: Some(2), ..GROUP };
/// Two claims on one host, which is deleted some time.
const DELETION: Setting = Setting { singles: 2, group: 0, hosts: 1, host_deletions: 1, hosts_move: true, ..GROUP };

/// One claim that could have either of two hosts.
const TWO_HOSTS: Setting = Setting { host_deletions: 0, singles: 1, hosts: 2, ..DELETION };

/// Two claims on one host, which is put on standby and ordered back at any time.
const STANDBY: Setting = Setting { host_deletions: 0, standby_orders: 2, ..DELETION };
/// One claim on two hosts, each of which may fail for good while it is installed: the claim goes to the other one, and to
/// none twice, also when the first is in order again.
const FAILURES: Setting = Setting { failures: 2, mends: true, ..TWO_HOSTS };

fn holds(name: &str, setting: Setting) {
    let found = explore(setting);
    println!("{name}: {} states, {} moves", found.states, found.moves);
    if let Some(counterexample) = found.counterexample {
        panic!("{name}: {counterexample}");
    }
    assert!(found.states > 100, "{name}: the search explored {} states: it is not looking", found.states);
}

#[test]
fn a_group_and_a_claim_on_two_hosts() {
    holds("group", GROUP);
}

#[test]
fn hosts_are_deleted_while_claims_come() {
    holds("deletion", DELETION);
}

#[test]
fn a_host_goes_on_and_off_standby_while_claims_come() {
    holds("standby", STANDBY);
}

#[test]
fn hosts_fail_while_a_claim_is_installed_on_them() {
    holds("failures", FAILURES);
}

#[test]
fn claims_come_at_once_and_their_cluster_has_a_quota() {
    holds("quota", QUOTA);
}

/// A checker that finds nothing proves nothing: each guard that is taken away must show.
#[test]
fn each_guard_that_is_taken_away_shows() {
    for (mutation, setting, expected) in [
        (Mutation::HostUnguarded, DELETION, "does not hold it"),
        (Mutation::ClaimUnguarded, TWO_HOSTS, "which names"),
        (Mutation::DeletionUnguarded, DELETION, "does not hold it"),
        (Mutation::GroupPiecemeal, GROUP, "group"),
        (Mutation::StandbyUnguarded, STANDBY, "does not hold it"),
        (Mutation::TriedForgotten, FAILURES, "was given up on"),
        (Mutation::TurnstileLeftOut, QUOTA, "3 hosts are held, and the quota is 2"),
    ] {
        let found = explore(Setting { mutation, ..setting });
        let counterexample = found.counterexample.unwrap_or_else(|| panic!("{mutation:?} was not found"));
        println!("{mutation:?}, after {} states: {counterexample}\n", found.states);
        assert!(counterexample.contains(expected), "{mutation:?}: {counterexample}");
    }
}
