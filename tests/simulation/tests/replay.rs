//! A seed repeats itself, to the millisecond and the last word, whatever ran before it on the thread.

use vmetal_simulation::{Options, simulate};

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..6 {
        let first = simulate(seed, Options::default());
        let again = simulate(seed, Options::default());
        let elsewhere = std::thread::spawn(move || simulate(seed, Options::default()).digest).join();
        assert_eq!((first.digest, first.effort), (again.digest, again.effort), "seed {seed}");
        assert_eq!(elsewhere.ok(), Some(first.digest), "seed {seed} on another thread");
    }
}

#[test]
fn seeds_differ() {
    let digests: std::collections::BTreeSet<u64> =
        (0..12).map(|seed| simulate(seed, Options::default()).digest).collect();
    assert_eq!(digests.len(), 12);
}
