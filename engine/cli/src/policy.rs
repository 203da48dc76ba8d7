//! `vmetal policy`: what a policy's author does, mostly without an engine.

pub(crate) mod distribution;
pub(crate) mod install;
pub(crate) mod log;
mod show;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use vmetal_policy_tool::explain::explain;
use vmetal_policy_tool::fleet::{Fleet, Trace};
use vmetal_policy_tool::project::{Sdk, new};
use vmetal_policy_tool::simulate::{Levels, simulate};
use vmetal_policy_tool::{Spec, ToolError, bench, build, fuzz, inspect, kinds, pack, plot, synthetic, trial};

use crate::args::{FleetArgs, PolicyCommand, PolicyKind, compiled};
use crate::error::CliError;

/// Runs one command. `now` tells the time, for measuring and for a seed.
pub(crate) fn run(command: PolicyCommand, now: impl Fn() -> Timestamp, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        PolicyCommand::New { directory, kind, sdk } => make(&directory, kind, sdk.as_deref(), out)?,
        PolicyCommand::Build { crates, out: directory } => {
            for one in &crates {
                let built = build(one, directory.as_deref().unwrap_or(one))?;
                writeln!(out, "{}  {:>9}  {}", built.sha256, built.size, built.path.display())?;
            }
        }
        PolicyCommand::Pack { component, cases, out: file } => {
            let packed = pack(&component, &cases, &file)?;
            writeln!(out, "{}  {:>9}  {}", packed.sha256, packed.size, packed.path.display())?;
        }
        PolicyCommand::Inspect { policy, json } => {
            let seen = inspect::inspect(&policy)?;
            if json { print_json(&seen, out)? } else { out.write_all(show::inspection(&seen).as_bytes())? }
        }
        PolicyCommand::Test { policies, files } => test(&policies, &files, out)?,
        PolicyCommand::Explain { policy, fleet, claim, only, limit, json } => {
            let (hosts, trace) = read(&fleet)?;
            let told = explain(&policy, &hosts, trace.claim(claim.as_deref())?, only.as_deref(), limit)?;
            if json { print_json(&told, out)? } else { out.write_all(show::explanation(&told, limit).as_bytes())? }
        }
        PolicyCommand::Simulate { policies, fleet, domain, rack, plot, save, json } => {
            let (hosts, trace) = read(&fleet)?;
            if let Some(directory) = save {
                keep(&directory, &hosts, &trace)?;
            }
            let outcomes = simulate(&policies, &hosts, &trace, &Levels { domain, rack })?;
            if let Some(path) = plot {
                let title = format!("{} claims over {} hosts", trace.claims.len(), hosts.hosts.len());
                write(&path, &plot::svg(&outcomes, &title))?;
            }
            if json { print_json(&outcomes, out)? } else { out.write_all(show::outcomes(&outcomes).as_bytes())? }
        }
        PolicyCommand::Fuzz { policy, seed, cases } => {
            let seed = seed.unwrap_or_else(|| now().as_nanosecond().unsigned_abs() as u64 % 1_000_000);
            run_fuzz(&policy, seed, cases, out)?;
        }
        // Ask the engine or a registry; see the commands.
        PolicyCommand::Logged(_) | PolicyCommand::Distribution(_) | PolicyCommand::Install(_) => {}
        PolicyCommand::Bench { policy, hosts, seconds, json } => {
            let clock = || Duration::from_nanos(u64::try_from(now().as_nanosecond()).unwrap_or(0));
            let timing = bench::bench(&policy, &hosts, Duration::from_secs(seconds), &clock)?;
            if json { print_json(&timing, out)? } else { out.write_all(show::timing(&timing).as_bytes())? }
        }
    }
    Ok(out.flush()?)
}

fn make(directory: &Path, kind: PolicyKind, sdk: Option<&Path>, out: &mut impl Write) -> Result<(), CliError> {
    let kind = match kind {
        PolicyKind::Cost => kinds::COST,
        PolicyKind::Placement => kinds::PLACEMENT,
    };
    let sdk = match sdk {
        Some(path) => Sdk::at(path)?,
        // Of a directory that does not exist yet: where it will be.
        None => Sdk::around(&std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned())),
    };
    for file in new(directory, kind, &sdk)? {
        writeln!(out, "{}", directory.join(file).display())?;
    }
    match sdk {
        Sdk::Path(path) => writeln!(out, "the SDK is the one in {}", path.display())?,
        Sdk::Published => writeln!(out, "the SDK comes from the published repository; --sdk takes it from a checkout")?,
    }
    writeln!(out, "next: vmetal policy test {}", directory.display())?;
    Ok(())
}

fn test(policies: &[String], files: &[PathBuf], out: &mut impl Write) -> Result<(), CliError> {
    let (mut failed, mut runs) = (0, 0);
    for policy in policies {
        for spec in trial::components(policy)? {
            let done = trial::trial(&spec.cached(compiled()), files)?;
            (failed, runs) = (failed + done.failed(), runs + done.runs.len());
            out.write_all(show::trial(&done).as_bytes())?;
        }
    }
    writeln!(out, "{runs} runs, {failed} failed")?;
    out.flush()?;
    if failed > 0 {
        return Err(CliError::PolicyFails { what: format!("{failed} of {runs} cases are not decided as they expect") });
    }
    Ok(())
}

fn run_fuzz(policy: &Spec, seed: u64, cases: u32, out: &mut impl Write) -> Result<(), CliError> {
    let done = fuzz::fuzz(policy, seed, cases)?;
    out.write_all(show::fuzzed(&done, seed).as_bytes())?;
    let Some(failure) = &done.failure else { return Ok(()) };
    // Beside the caller, so that it can be looked at and kept as a case.
    let directory = PathBuf::from(format!("fuzz-{seed}"));
    keep(&directory, &failure.fleet, &failure.trace)?;
    writeln!(
        out,
        "the smallest input that still fails is kept; look at it with\n  vmetal policy explain '{policy}' --fleet {0}/fleet.json \
         --trace {0}/trace.json",
        directory.display()
    )?;
    out.flush()?;
    Err(CliError::PolicyFails { what: format!("{}: {}", done.policy, failure.what) })
}

/// Fleet and claims from files, or, where none are given, made from the seed.
fn read(args: &FleetArgs) -> Result<(Fleet, Trace), CliError> {
    let fleet = match args.fleet.as_slice() {
        [] => synthetic::fleet(args.synthetic, args.racks),
        paths => Fleet::read(paths)?,
    };
    let size = synthetic::Size { racks: args.racks, claims: args.claims, load: args.load };
    let trace = match &args.trace {
        Some(path) => Trace::read(path)?,
        None => synthetic::trace(args.synthetic, size),
    };
    Ok((fleet, trace))
}

fn keep(directory: &Path, fleet: &Fleet, trace: &Trace) -> Result<(), CliError> {
    let source = |source| ToolError::File { path: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(source)?;
    let fleet = serde_json::to_string_pretty(fleet).map_err(std::io::Error::from)?;
    let trace = serde_json::to_string_pretty(trace).map_err(std::io::Error::from)?;
    write(&directory.join("fleet.json"), &fleet)?;
    write(&directory.join("trace.json"), &trace)
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|source| ToolError::File { path: path.to_owned(), source })?;
    Ok(())
}

fn print_json(what: &impl serde::Serialize, out: &mut impl Write) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(what).map_err(std::io::Error::from)?;
    Ok(writeln!(out, "{text}")?)
}
