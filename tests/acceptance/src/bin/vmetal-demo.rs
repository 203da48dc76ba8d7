//! `make demo` and `make demo-down`.
//!
//! The stack is owned by a supervisor that stays when the demo has ended; whatever ends the supervisor ends everything.

#![allow(clippy::disallowed_methods, reason = "shows real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vmetal_acceptance::{Artifacts, Cli, Options, Place, Software, Stack, Terraform, cluster};

const API_PORT: u16 = 7600;
const CLUSTER_PORT: u16 = 6443;

/// From bare metal to a Ready node, on virtual servers.
#[derive(Parser)]
struct Arguments {
    /// Where everything is kept while the demo is up. Must be short: unix sockets live in it.
    #[arg(long, global = true, env = "VMETAL_DEMO_DIR", default_value = "/tmp/vmetal-demo")]
    directory: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Starts everything and applies the quickstart.
    Up,
    /// Ends everything and removes every file.
    Down,
    /// Owns the processes; started by `up`.
    #[command(hide = true)]
    Supervise,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let directory = &arguments.directory;
    let result = match arguments.verb {
        Verb::Up => up(directory),
        Verb::Down => down(directory, &mut |text| println!("{text}")),
        Verb::Supervise => supervise(directory),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(directory: &Path) -> Result<Options> {
    Ok(Options {
        directory: directory.to_owned(),
        lab: Stack::quickstart_lab()?,
        api_port: Some(API_PORT),
        cluster_port: Some(CLUSTER_PORT),
        cluster: true,
        software: Software::Real,
        engine: String::new(),
    })
}

/// Runs the stack until it is asked to stop.
fn supervise(directory: &Path) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate =
        runtime.block_on(async { tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) })?;
    std::fs::write(directory.join("supervisor.pid"), std::process::id().to_string())?;
    let mut stack = Stack::start(options(directory)?, &mut |text| println!("{text}"))?;
    println!("ready");
    std::io::stdout().flush()?;
    while !stop.load(Ordering::Relaxed) {
        let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), terminate.recv()).await });
        if ended.is_ok() {
            break;
        }
        stack.check()?;
    }
    drop(stack);
    Ok(())
}

/// The supervisor's pid, if it runs.
fn supervisor(directory: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(directory.join("supervisor.pid")).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // A pid that was given to somebody else since is not ours to touch.
    let ours =
        command.windows(11).any(|part| part == b"vmetal-demo") && command.windows(9).any(|part| part == b"supervise");
    ours.then(|| Pid::from_raw(pid))
}

fn down(directory: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    if let Some(pid) = supervisor(directory) {
        kill(pid, Signal::SIGTERM).context("cannot stop the demo")?;
        let start = Instant::now();
        while supervisor(directory).is_some() {
            if start.elapsed() > Duration::from_secs(60) {
                say("the demo does not stop by itself; ending it");
                kill(pid, Signal::SIGKILL).context("cannot end the demo")?;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        say("stopped: engine, network boot, cluster, lab with its servers and its network");
    } else {
        say("nothing is running");
    }
    if directory.join("vmetald.toml").exists() || directory.join("supervisor.log").exists() {
        std::fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        say(&format!("removed {}", directory.display()));
    }
    Ok(())
}

/// Prints with the time since the start.
#[derive(Clone, Copy)]
struct Narrator {
    start: Instant,
}

impl Narrator {
    fn say(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        println!("[{:2}:{:02}] {text}", seconds / 60, seconds % 60);
    }
}

fn up(directory: &Path) -> Result<()> {
    let narrator = Narrator { start: Instant::now() };
    let artifacts = Artifacts::find()?;
    let cli = Cli::find()?;
    down(directory, &mut |text| {
        if text != "nothing is running" {
            narrator.say(&format!("a demo was up: {text}"));
        }
    })?;
    std::fs::create_dir_all(directory)?;
    start_supervisor(directory, narrator)?;
    narrator.say(&format!("configurations are applied by {cli}"));

    let view = View(Place { artifacts: artifacts.clone(), directory: directory.to_owned(), api_port: API_PORT });
    let events = view.follow_events(narrator)?;
    let applied = view.apply(narrator);
    events.end();
    applied?;
    view.show()?;
    let seconds = narrator.start.elapsed().as_secs();
    println!("Done in {} min {:02} s. Everything is still up:", seconds / 60, seconds % 60);
    println!();
    let bin = artifacts.bin.display();
    println!("  export VMETAL_TOKEN_FILE={}", view.0.token_file().display());
    println!("  {bin}/vmetal get hosts");
    println!("  {bin}/vmetal describe tenant_node worker-1");
    println!("  {bin}/vmetal events host node-small");
    println!("  {bin}/vmetal-lab console --state-dir {0}/lab node-small", directory.display());
    println!(
        "  cd {} && TF_CLI_CONFIG_FILE={}/terraform.rc {} plan",
        directory.join("quickstart").display(),
        directory.display(),
        cli.program.display()
    );
    println!();
    println!(
        "`terraform destroy` there gives the server back, erased. `make demo-down` ends everything and removes every file."
    );
    Ok(())
}

fn start_supervisor(directory: &Path, narrator: Narrator) -> Result<()> {
    let log = directory.join("supervisor.log");
    let output = std::fs::File::create(&log)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["supervise", "--directory"])
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Its own group: a Ctrl-C here is for the demo, not for the stack.
        .process_group(0)
        .spawn()?;
    let mut told = 0;
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[told..] {
            if *line != "ready" {
                narrator.say(line);
            }
        }
        told = lines.len();
        if lines.last() == Some(&"ready") {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the stack did not start ({status}); the whole log is in {}", log.display());
        }
        if start.elapsed() > Duration::from_secs(300) {
            bail!("the stack did not get ready within 5 minutes; the log is in {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A view of the running stack: what to ask, not what to own.
struct View(Place);

struct Follower {
    child: std::process::Child,
}

impl Follower {
    fn end(mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl View {
    fn vmetal(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.artifacts.program("vmetal"));
        command.env("VMETAL_ENDPOINT", self.0.endpoint()).env("VMETAL_TOKEN_FILE", self.0.token_file()).args(arguments);
        command
    }

    /// Prints what the engine records, as it happens.
    fn follow_events(&self, narrator: Narrator) -> Result<Follower> {
        let mut child = self.vmetal(&["events", "--follow"]).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no pipe")?;
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                // Date, time, then what we print with our own clock.
                narrator.say(line.splitn(3, "  ").skip(1).collect::<Vec<_>>().join("  ").trim());
            }
        });
        Ok(Follower { child })
    }

    fn apply(&self, narrator: Narrator) -> Result<()> {
        let place = &self.0;
        let terraform = Terraform::example(place, "quickstart", "quickstart", &place.quickstart_variables()?)?;
        narrator.say("terraform init: done");
        narrator.say("terraform apply: two servers, two node types, one tenant node that does not say where it runs");
        let mut child = terraform.start_apply()?;
        let mut output = String::new();
        child.stdout.take().context("no pipe")?.read_to_string(&mut output)?;
        let mut errors = String::new();
        child.stderr.take().context("no pipe")?.read_to_string(&mut errors)?;
        let status = child.wait()?;
        std::fs::write(self.0.directory.join("terraform-apply.log"), format!("{output}{errors}"))?;
        if !status.success() {
            bail!("terraform apply failed:\n{errors}\nthe stack is still up; `make demo-down` ends it");
        }
        println!();
        for line in
            output.lines().filter(|line| line.contains("Creation complete") || line.starts_with("Apply complete"))
        {
            println!("terraform | {line}");
        }
        match terraform.plan_is_empty()? {
            true => println!("terraform | second plan: No changes."),
            false => bail!("a second terraform plan is not empty: run it in {}", terraform.directory().display()),
        }
        Ok(())
    }

    /// The tables at the end.
    fn show(&self) -> Result<()> {
        println!();
        for arguments in [&["get", "hosts"][..], &["get", "node_types"], &["describe", "tenant_node", "worker-1"]] {
            println!("$ vmetal {}", arguments.join(" "));
            let status = self.vmetal(arguments).status()?;
            if !status.success() {
                bail!("vmetal {} failed", arguments.join(" "));
            }
            println!();
        }
        println!("Nodes of the tenant's cluster, from its own API server:");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let nodes = runtime.block_on(async {
            let client = cluster::client(&self.0.kubeconfig()).await?;
            cluster::nodes(&client).await
        })?;
        println!(
            "{:<12} {:<10} {:<10} {:<14} {:<32} PROVIDER-ID",
            "NAME", "STATUS", "VERSION", "INTERNAL-IP", "OS-IMAGE"
        );
        for node in &nodes {
            let vmetal_acceptance::cluster::NodeRow { name, status, version, address, os, provider_id, .. } = node;
            println!("{name:<12} {status:<10} {version:<10} {address:<14} {os:<32} {provider_id}");
        }
        println!();
        match nodes.iter().any(|node| node.name == "worker-1" && node.status == "Ready") {
            true => Ok(()),
            false => bail!("worker-1 is not Ready in the tenant's cluster"),
        }
    }
}
