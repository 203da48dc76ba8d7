//! `vmetal-lab`: see the library of the same name.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    // No thread has been started yet, which joining and making user namespaces needs.
    match vmetal_lab::cli::run(vmetal_lab::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vmetal-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
