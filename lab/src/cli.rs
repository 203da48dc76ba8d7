//! The command line of `vmetal-lab`.

use std::ffi::OsString;
use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{LabConfig, QemuConfig};
use crate::control::{self, Command};
use crate::doctor::{self, Verdict};
use crate::fault::FaultSpec;
use crate::lab::Lab;
use crate::machine::ResetType;
use crate::netns::enter;
use crate::report::{Report, process_start};

/// Virtual bare metal: QEMU machines with real firmware behind Redfish BMCs
#[derive(Debug, Parser)]
#[command(name = "vmetal-lab", version)]
pub struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a lab and stay in the foreground until `down`, SIGINT or SIGTERM. Prints what it consists of; the BMC passwords are
    /// told by `tfvars` and are in lab.json of the state directory
    Up {
        /// The lab's configuration
        #[arg(long)]
        config: PathBuf,
        #[command(flatten)]
        state: State,
    },
    /// Run a command inside the lab network
    Exec {
        #[command(flatten)]
        state: State,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// End the lab
    Down {
        #[command(flatten)]
        state: State,
        /// Also remove the state directory with disks, certificates and logs
        #[arg(long)]
        purge: bool,
    },
    /// Show the state of every host as JSON
    Status {
        #[command(flatten)]
        state: State,
    },
    /// Show the console of a host
    Console {
        #[command(flatten)]
        state: State,
        /// The host
        host: String,
        /// Go on as more arrives
        #[arg(long, short)]
        follow: bool,
    },
    /// Switch a host
    Power {
        #[command(flatten)]
        state: State,
        /// The host
        host: String,
        /// What to do
        action: PowerAction,
    },
    /// Arm, list and clear faults
    Fault {
        #[command(flatten)]
        state: State,
        #[command(subcommand)]
        action: FaultCommand,
    },
    /// Print variables for Terraform (the content of terraform.tfvars.json)
    Tfvars {
        #[command(flatten)]
        state: State,
    },
    /// Say what this machine lacks for a lab
    Doctor,
}

#[derive(Debug, clap::Args)]
struct State {
    /// Directory of the lab's files
    #[arg(long, env = "VMETAL_LAB_STATE_DIR")]
    state_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PowerAction {
    On,
    Off,
    Shutdown,
    Restart,
}

impl From<PowerAction> for ResetType {
    fn from(action: PowerAction) -> Self {
        match action {
            PowerAction::On => Self::On,
            PowerAction::Off => Self::ForceOff,
            PowerAction::Shutdown => Self::GracefulShutdown,
            PowerAction::Restart => Self::ForceRestart,
        }
    }
}

#[derive(Debug, Subcommand)]
enum FaultCommand {
    /// Arm a fault; prints its id
    Add(FaultSpec),
    /// List the faults with what is left of them
    List,
    /// Remove one fault, or all
    Clear {
        /// The fault's id
        id: Option<u64>,
    },
}

/// How long `down` waits for the lab to end.
const DOWN_PATIENCE: Duration = Duration::from_secs(30);
const DOWN_STEP: Duration = Duration::from_millis(50);

/// Runs the command line. Must be called before any thread is started.
///
/// # Errors
/// Whatever went wrong, for the operator to read.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.action {
        Action::Up { config, state } => up(&config, &state.state_dir),
        Action::Exec { state, command } => exec(&state.state_dir, &command),
        Action::Down { state, purge } => down(&state.state_dir, purge),
        Action::Status { state } => tell(&state.state_dir, &Command::Status),
        Action::Console { state, host, follow } => console(&state.state_dir, &host, follow),
        Action::Power { state, host, action } => tell(&state.state_dir, &Command::Power { host, reset: action.into() }),
        Action::Fault { state, action } => {
            let command = match action {
                FaultCommand::Add(fault) => Command::FaultAdd { fault: Box::new(fault) },
                FaultCommand::List => Command::FaultList,
                FaultCommand::Clear { id } => Command::FaultClear { id },
            };
            tell(&state.state_dir, &command)
        }
        Action::Tfvars { state } => {
            let report = Report::read(&state.state_dir)?;
            print(&serde_json::to_string_pretty(&report.tfvars())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Doctor => doctor(),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

fn up(config: &Path, state_dir: &Path) -> anyhow::Result<ExitCode> {
    let config = LabConfig::load(config)?;
    if config.network.is_some() {
        enter::become_root_of_a_user_namespace()?;
    }
    runtime()?.block_on(async {
        // Asked for first: a signal during the start must not be lost.
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let lab = Lab::start(config, state_dir).await?;
        print(&serde_json::to_string_pretty(&lab.report().told()?)?)?;
        tokio::select! {
            () = lab.stop_asked() => {}
            _ = terminate.recv() => {}
            result = tokio::signal::ctrl_c() => result.context("cannot wait for SIGINT")?,
        }
        lab.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn exec(state_dir: &Path, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let report = Report::read(state_dir)?;
    let Some(holder) = report.holder else {
        bail!("the lab at {} has no network", state_dir.display());
    };
    let [program, args @ ..] = command else {
        bail!("no command given");
    };
    enter::join(holder)?;
    // Only returns when it fails.
    let error = std::process::Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

fn down(state_dir: &Path, purge: bool) -> anyhow::Result<ExitCode> {
    match Report::read(state_dir) {
        Ok(report) => {
            runtime()?.block_on(control::send(&report.control_socket, &Command::Stop))?;
            let mut waited = Duration::ZERO;
            while process_start(report.pid) == Some(report.pid_start) {
                if waited > DOWN_PATIENCE {
                    bail!("process {} did not end within {} s", report.pid, DOWN_PATIENCE.as_secs());
                }
                std::thread::sleep(DOWN_STEP);
                waited += DOWN_STEP;
            }
        }
        // Nothing runs: what a killed lab left is removed below, and asking twice is no mistake.
        Err(error) => print(&error.to_string())?,
    }
    for stale in [Report::path(state_dir), state_dir.join("control.sock")] {
        if stale.exists() {
            std::fs::remove_file(&stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    if purge && state_dir.exists() {
        std::fs::remove_dir_all(state_dir).with_context(|| format!("cannot remove {}", state_dir.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(state_dir: &Path, command: &Command) -> anyhow::Result<ExitCode> {
    let report = Report::read(state_dir)?;
    let answer = runtime()?.block_on(control::send(&report.control_socket, command))?;
    print(&serde_json::to_string_pretty(&answer)?)?;
    Ok(ExitCode::SUCCESS)
}

fn console(state_dir: &Path, host: &str, follow: bool) -> anyhow::Result<ExitCode> {
    let path = crate::qemu::console_path(state_dir, host);
    let mut file = std::fs::File::open(&path).with_context(|| format!("no console log at {}", path.display()))?;
    let mut out = std::io::stdout();
    loop {
        std::io::copy(&mut file, &mut out).context("cannot copy the console log")?;
        out.flush()?;
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(200));
        let position = file.stream_position()?;
        // Truncated from outside: begin again.
        if file.metadata()?.len() < position {
            file.rewind()?;
        }
    }
}

fn doctor() -> anyhow::Result<ExitCode> {
    let checks = doctor::examine(&QemuConfig::default());
    for check in &checks {
        print(&check.to_string())?;
    }
    let missing = checks.iter().filter(|c| c.verdict == Verdict::Missing).count();
    if missing == 0 {
        print("This machine can run a lab.")?;
        Ok(ExitCode::SUCCESS)
    } else {
        print(&format!("{missing} of {} checks say that qemu hosts cannot run here; sim hosts can.", checks.len()))?;
        Ok(ExitCode::FAILURE)
    }
}
