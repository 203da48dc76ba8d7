//! Thousands of seeds, on all cores.
//!
//! `SEED=17 cargo test -p vmetal-simulation --test seeds` repeats one, with the engine's log on the standard error
//! (`RUST_LOG` chooses how much); `SEEDS=20000` runs more; `FROM=5000` begins elsewhere.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vmetal_simulation::{Options, Outcome, simulate};

/// How many seeds CI runs.
const SEEDS: u64 = 2_000;
/// How many failures are told of before the rest is left alone.
const ENOUGH: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("vmetald=info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).try_init();
}

fn tell(outcome: &Outcome) -> String {
    format!(
        "\n=== seed {} ===\n{}\n{}\nrepeat it: SEED={} cargo test -p vmetal-simulation --test seeds\n",
        outcome.seed,
        outcome.violations.join("\n"),
        outcome.story,
        outcome.seed
    )
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = number("SEED") {
        log();
        let outcome = simulate(seed, Options::default());
        println!(
            "seed {seed}: {} h of virtual time, {} calls and commits, digest {:016x}",
            outcome.virtual_time.as_secs() / 3600,
            outcome.effort,
            outcome.digest
        );
        assert!(outcome.violations.is_empty(), "{}", tell(&outcome));
        return;
    }
    let (count, from) = (number("SEEDS").unwrap_or(SEEDS), number("FROM").unwrap_or(0));
    let (next, done, effort, hours) = (AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || failures.lock().unwrap().len() >= ENOUGH {
                        return;
                    }
                    let outcome = simulate(seed, Options::default());
                    done.fetch_add(1, Ordering::Relaxed);
                    effort.fetch_add(outcome.effort, Ordering::Relaxed);
                    hours.fetch_add(outcome.virtual_time.as_secs() / 3600, Ordering::Relaxed);
                    if !outcome.violations.is_empty() {
                        failures.lock().unwrap().push((seed, tell(&outcome)));
                    }
                }
            });
        }
    });
    let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() - began;
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    println!(
        "{} seeds from {from}, {} days of virtual time, {} calls and commits, in {:.0} s",
        done.load(Ordering::Relaxed),
        hours.load(Ordering::Relaxed) / 24,
        effort.load(Ordering::Relaxed),
        took.as_secs_f64()
    );
    let seeds: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    let told: String = failures.into_iter().map(|(_, told)| told).collect();
    assert!(seeds.is_empty(), "{told}\nfailing seeds: {seeds:?}");
}
