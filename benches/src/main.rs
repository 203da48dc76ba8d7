//! `vmetal-bench`: side-by-side runs, with figures in JSON. `make bench` builds and runs it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use vmetal_bench::fleet::Fleet;
use vmetal_bench::ironic::Ironic;
use vmetal_bench::policy::Policy;
use vmetal_bench::provider::Provider;
use vmetal_bench::row;

/// Half of what is measured runs in this process: it is not to wait for its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures vmetal, and peers beside it.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything when none is named.
    benches: Vec<Bench>,
    /// Where the results go.
    #[arg(long)]
    out: PathBuf,
    /// The engine's program.
    #[arg(long)]
    vmetald: PathBuf,
    /// Directory of the policy components; the native twins decide when there is none.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// A small version of everything, to see that it works: its figures say little.
    #[arg(long)]
    quick: bool,
    /// Hosts of the large fleet.
    #[arg(long)]
    hosts: Option<u32>,
    /// Only the first run of the large fleet: for profiling.
    #[arg(long)]
    register_only: bool,
    /// Where peers are installed and kept.
    #[arg(long, env = "VMETAL_CACHE")]
    cache: Option<PathBuf>,
    /// Ours alone: no peer is installed or run.
    #[arg(long)]
    without_peers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Registration, memory, claims and releases, sick BMCs.
    Fleet,
    /// Two hundred servers from nothing to the pool, beside OpenStack Ironic.
    Ironic,
    /// The Terraform provider, beside what the client does by itself.
    Provider,
    /// Decisions: as WebAssembly, as native code, behind other boundaries, and in a whole engine.
    Policy,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One TLS library for everything; an error means that another part of the process chose it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = run(&arguments) => result,
            // Everything is ended and removed by being dropped.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

/// Each BMC has a connection, and the default soft limit is 1,024 open files.
fn raise_file_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")
}

async fn run(arguments: &Arguments) -> Result<()> {
    let benches = match arguments.benches.as_slice() {
        [] => Bench::value_variants(),
        some => some,
    };
    let scratch = tempfile::Builder::new().prefix("vmetal-bench-").tempdir_in(&arguments.out)?;
    for bench in benches {
        match bench {
            Bench::Fleet => {
                let fleet = fleet(arguments, scratch.path());
                let rows = if arguments.register_only { fleet.register_only().await? } else { fleet.run().await? };
                row::publish("fleet", &arguments.out, &rows)?;
            }
            Bench::Ironic => {
                row::publish("ironic", &arguments.out, &ironic(arguments, scratch.path())?.run().await?)?;
            }
            Bench::Provider => {
                row::publish("provider", &arguments.out, &provider(arguments, scratch.path()).run().await?)?;
            }
            Bench::Policy => {
                row::publish("policy", &arguments.out, &policy(arguments, scratch.path()).run().await?)?;
            }
        }
    }
    Ok(())
}

fn fleet(arguments: &Arguments, scratch: &std::path::Path) -> Fleet {
    let quick = arguments.quick;
    let large = arguments.hosts.unwrap_or(if quick { 60 } else { 13_500 });
    Fleet {
        vmetald: arguments.vmetald.clone(),
        policies: arguments.policies.clone(),
        scratch: scratch.to_owned(),
        large,
        small: large.min(if quick { 30 } else { 1_000 }),
        runs: if quick { 1 } else { 3 },
        claims: large / 3,
        delay: Duration::from_secs(if quick { 1 } else { 20 }),
        settle: Duration::from_secs(if quick { 2 } else { 30 }),
        sick: if quick { (60, 20.0) } else { (1_000, 20.0) },
    }
}

fn provider(arguments: &Arguments, scratch: &std::path::Path) -> Provider {
    let (resources, runs, starts) = if arguments.quick { (20, 1, 3) } else { (1_000, 2, 51) };
    Provider {
        vmetald: arguments.vmetald.clone(),
        policies: arguments.policies.clone(),
        // Built beside the engine.
        provider: arguments.vmetald.with_file_name("terraform-provider-vmetal"),
        echo: arguments.vmetald.with_file_name("examples").join("echo"),
        scratch: scratch.to_owned(),
        resources,
        runs,
        starts,
    }
}

fn policy(arguments: &Arguments, scratch: &std::path::Path) -> Policy {
    let (runs, decisions, fleet) = if arguments.quick { (1, 3, 300) } else { (11, 100, 10_000) };
    let (hosts, claims) = if arguments.quick { (40, 20) } else { (4_000, 2_000) };
    Policy {
        vmetald: arguments.vmetald.clone(),
        policies: arguments.policies.clone(),
        scratch: scratch.to_owned(),
        peers: !arguments.without_peers,
        runs,
        decisions,
        fleet,
        hosts: arguments.hosts.unwrap_or(hosts),
        claims,
    }
}

fn ironic(arguments: &Arguments, scratch: &std::path::Path) -> Result<Ironic> {
    let cache = match (arguments.without_peers, &arguments.cache) {
        (true, _) => None,
        (false, Some(cache)) => Some(cache.clone()),
        (false, None) => {
            bail!("a peer needs a place to be installed in: give --cache or VMETAL_CACHE, or --without-peers")
        }
    };
    let (nodes, runs) = if arguments.quick { (10, 1) } else { (200, 3) };
    Ok(Ironic {
        vmetald: arguments.vmetald.clone(),
        policies: arguments.policies.clone(),
        scratch: scratch.to_owned(),
        cache,
        nodes,
        runs,
    })
}
