//! The simulator must be able to fail. Each test breaks one thing on purpose and asks that some of a few seeds see it, by the
//! invariant that is there for it; without the defect the same seeds are well.

#![allow(clippy::unwrap_used, reason = "tests")]

use vmetal_simulation::scenario::Defect;
use vmetal_simulation::{Options, simulate};

/// How many seeds a defect has to show itself.
const SEEDS: u64 = 200;

/// Asks that a defect is found, with these words.
fn is_found(defect: Defect, words: &[&str]) {
    let mut found = None;
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let outcome = simulate(seed, Options { defect: Some(defect) });
        if outcome.violations.iter().any(|text| words.iter().any(|words| text.contains(words))) {
            found = Some(seed);
            break;
        }
        others.extend(outcome.violations);
    }
    let seed =
        found.unwrap_or_else(|| panic!("{defect:?} was not found in {SEEDS} seeds by {words:?}; seen: {others:#?}"));
    let healthy = simulate(seed, Options::default());
    assert!(healthy.violations.is_empty(), "seed {seed} without the defect: {:#?}", healthy.violations);
    println!("{defect:?}: found by seed {seed}");
}

#[test]
fn a_store_that_ignores_guards_is_found() {
    is_found(
        Defect::GuardsDropped,
        &[
            "follows operation",
            "was open",
            "was written over",
            "the events tell of",
            "it does not hold",
            "an event tells of",
        ],
    );
}

#[test]
fn a_store_that_lets_quotas_be_overtaken_is_found() {
    is_found(Defect::QuotasUnguarded, &["and its quota allows"]);
}

#[test]
fn a_store_that_forgets_commits_is_found() {
    is_found(
        Defect::CommitsForgotten,
        &["without an intent", "is Succeeded", "is Failed", "is Observed", "but the intent is"],
    );
}

#[test]
fn a_proxy_that_repeats_requests_is_found() {
    is_found(Defect::CallsDoubled, &["for the 2th time for operation"]);
}

#[test]
fn an_installer_that_erases_nothing_is_found() {
    is_found(Defect::ErasesNothing, &["its data is still on the disks"]);
}
