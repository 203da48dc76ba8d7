//! How long a policy takes.
//!
//! What is timed is what the engine does for a decision: the rules, the call in a fresh instance, the check of the answer
//! and its record; not the engine's own work around it. One thread.

use std::time::Duration;

use serde::Serialize;
use vmetal_policy::Workbench;
use vmetal_policy_sdk::Kind;

use crate::error::ToolError;
use crate::fleet::Fleet;
use crate::spec::Spec;
use crate::synthetic;

/// Hosts that a record keeps, as an engine's does.
const KEPT: usize = 32;

/// How a policy fared.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    /// The policy, as `name@version sha256:…`.
    pub policy: String,
    /// Loading it: reading, checking, compiling, asking it about itself. Microseconds.
    pub load_us: u64,
    /// A fresh instance and an almost empty call (`describe`), the median, in microseconds; none for a native twin.
    pub instantiate_us: Option<u64>,
    /// By number of hosts.
    pub decisions: Vec<Decisions>,
}

/// Decisions over one fleet.
#[derive(Debug, Clone, Serialize)]
pub struct Decisions {
    /// Hosts in it.
    pub hosts: usize,
    /// Decisions timed.
    pub runs: usize,
    /// The median, in microseconds.
    pub median_us: u64,
    /// 99 of a hundred took no longer, in microseconds.
    pub p99_us: u64,
    /// How many a second at the median's pace.
    pub per_second: u64,
    /// Fuel for each host; none for a native twin.
    pub fuel_per_host: Option<u64>,
    /// The same by the native twin, where there is one: its median, in microseconds.
    pub twin_us: Option<u64>,
}

/// Times a policy over synthetic fleets of about so many hosts, each for about `budget`. The clock tells the time since
/// whenever it likes.
///
/// # Errors
/// When the policy is refused or fails.
pub fn bench(spec: &Spec, sizes: &[u32], budget: Duration, clock: &dyn Fn() -> Duration) -> Result<Timing, ToolError> {
    let begin = clock();
    let bench = spec.open()?.keeping(KEPT);
    let load = clock().saturating_sub(begin);
    let policy = bench.identity();
    let instantiate = match bench.outside() {
        Some(_) => Some(median(&repeat(clock, Duration::from_millis(200), || {
            let described = bench.describe();
            described.map(|_| ()).map_err(|source| ToolError::Call {
                policy: policy.to_string(),
                call: "describe",
                source,
            })
        })?)),
        None => None,
    };
    let twin = match bench.outside() {
        Some(_) => spec.twin(&policy.name)?.map(|twin| twin.keeping(KEPT)),
        None => None,
    };
    let fleets = sizes.iter().map(|hosts| synthetic::fleet(1, hosts.div_ceil(18)));
    let decisions =
        fleets.map(|fleet| decisions(&bench, twin.as_ref(), &fleet, budget, clock)).collect::<Result<_, _>>()?;
    Ok(Timing { policy: policy.to_string(), load_us: micros(load), instantiate_us: instantiate, decisions })
}

fn decisions(
    bench: &Workbench,
    twin: Option<&Workbench>,
    fleet: &Fleet,
    budget: Duration,
    clock: &dyn Fn() -> Duration,
) -> Result<Decisions, ToolError> {
    let one = decision(bench, fleet);
    let fuel = one()?;
    let mut times = repeat(clock, budget, || one().map(|_| ()))?;
    let twin_us = match twin {
        Some(twin) => {
            let one = decision(twin, fleet);
            Some(median(&repeat(clock, budget, || one().map(|_| ()))?))
        }
        None => None,
    };
    times.sort_unstable();
    let median_us = median(&times);
    Ok(Decisions {
        hosts: fleet.hosts.len(),
        runs: times.len(),
        median_us,
        p99_us: times.get(times.len() * 99 / 100).copied().unwrap_or(median_us),
        per_second: 1_000_000 / median_us.max(1),
        fuel_per_host: fuel.map(|fuel| fuel / fleet.hosts.len().max(1) as u64),
        twin_us,
    })
}

/// One decision over a fleet for a claim that every free host fits. Gives the fuel that it used.
fn decision<'a>(bench: &'a Workbench, fleet: &Fleet) -> impl Fn() -> Result<Option<u64>, ToolError> + 'a {
    let view = fleet.columns().view();
    let offers = fleet.counted(&view);
    let size = synthetic::Size { racks: 1, claims: 1, load: 100 };
    let wanted = synthetic::trace(1, size).claims.into_iter().next().map(|claim| (claim.wanted(), claim.at));
    let failed = |source| ToolError::Decision { when: "the policy gave no decision".to_owned(), source };
    move || {
        let Some((wanted, now)) = &wanted else { return Ok(None) };
        match bench.kind() {
            Kind::Cost => Ok(bench.engine().choose_type(wanted, &offers, *now).map_err(failed)?.record.fuel),
            Kind::Placement => Ok(bench.engine().place(wanted, &offers[0], &view, *now).map_err(failed)?.record.fuel),
        }
    }
}

/// Times calls until the budget is used up, at least five and at most ten thousand. Microseconds.
fn repeat(
    clock: &dyn Fn() -> Duration,
    budget: Duration,
    mut call: impl FnMut() -> Result<(), ToolError>,
) -> Result<Vec<u64>, ToolError> {
    let (mut times, begin) = (Vec::new(), clock());
    while times.len() < 5 || (times.len() < 10_000 && clock().saturating_sub(begin) < budget) {
        let before = clock();
        call()?;
        times.push(micros(clock().saturating_sub(before)));
    }
    Ok(times)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn median(times: &[u64]) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::cell::Cell;

    #[test]
    fn times_are_counted_by_the_clock_that_is_given() {
        // Every look at the clock is 10 microseconds after the one before.
        let time = Cell::new(0);
        let clock = || {
            time.set(time.get() + 10);
            Duration::from_micros(time.get())
        };
        let timing = bench(&Spec::read("place-first-fit"), &[20], Duration::from_micros(1), &clock).unwrap();
        let [one] = timing.decisions.as_slice() else { panic!("{timing:?}") };
        assert_eq!((one.hosts, one.runs, one.median_us, one.per_second), (36, 5, 10, 100_000));
        assert_eq!((timing.instantiate_us, one.fuel_per_host, one.twin_us), (None, None, None));
    }
}
