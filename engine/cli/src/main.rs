//! The `vmetal` binary: reads the command line, runs one command, tells what went wrong.

use std::process::ExitCode;

use clap::Parser as _;
use vmetal_cli::args::Cli;

#[allow(clippy::disallowed_methods, reason = "the edge to the real clock: ages are shown, nothing is decided")]
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::stdout().lock();
    match vmetal_cli::run(cli, jiff::Timestamp::now, &mut out).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.lines() {
                eprintln!("{line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
