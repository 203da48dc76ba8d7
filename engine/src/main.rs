//! The engine as a process: `vmetald --config FILE`.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vmetal_policy::Compiler;
use vmetald::Config;

/// Thousands of tasks allocate at the same time: with the allocator of glibc a fifth of all time went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The vmetal engine: registers, inspects, installs and erases servers, and joins them to clusters.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, env = "VMETAL_CONFIG", default_value = "/etc/vmetal/vmetald.toml")]
    config: PathBuf,

    /// Compile the policy on standard input into this directory, and nothing else: what the engine starts itself for.
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    compile_policy: Option<PathBuf>,
}

fn main() -> ExitCode {
    without_huge_pages();
    let arguments = Arguments::parse();
    let done = match &arguments.compile_policy {
        Some(directory) => compile_policy(directory),
        None => start(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmetald: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// With huge pages what is left of a burst keeps 2 MiB resident for every few KiB in use: an idle engine took 115 MiB with
/// them and takes 50 without.
fn without_huge_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        eprintln!("vmetald: huge pages stay enabled for it, it will take more memory: {error}");
    }
}

/// In a process of its own: what the compiler takes, the engine is not left with.
fn compile_policy(directory: &Path) -> anyhow::Result<()> {
    let mut component = Vec::new();
    std::io::stdin().read_to_end(&mut component)?;
    vmetal_policy::compile_into(directory, &component).map_err(|error| anyhow::anyhow!(error))
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::read(&arguments.config)?;
    let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&config.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would be told of on the same full disk, and a failure to do that is a panic.
        .log_internal_errors(false)
        .init();
    // One TLS library for everything; an error means that another part of the process chose it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        // Should the program's own file be gone, policies are compiled here.
        let compiler = match std::env::current_exe() {
            Ok(program) => Compiler::Program { command: vec![program.into(), "--compile-policy".into()] },
            Err(_) => Compiler::Here,
        };
        vmetald::run::run(config, compiler, stop).await
    })
}
