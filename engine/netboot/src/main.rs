//! `vmetal-netboot`: network boot for one provisioning network, and the tool that builds what machines boot.

use std::io::IsTerminal as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vmetal_netboot::assets::build::{BuildConfig, Built, KernelSource, build};
use vmetal_netboot::{RouterAdvertisements, ServeConfig, serve};

/// Network boot for vmetal.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer DHCP, TFTP and HTTP on one interface, as the engine says.
    Serve(Serve),
    /// Kernel, initramfs and boot loaders.
    Assets {
        #[command(subcommand)]
        command: AssetsCommand,
    },
}

#[derive(Debug, Subcommand)]
enum AssetsCommand {
    /// Build them from Debian's kernel and ipxe packages and the installer.
    Build(Build),
}

#[derive(Debug, Args)]
struct Serve {
    /// The interface of the provisioning network.
    #[arg(long)]
    interface: String,
    /// Our address on it, with the network's prefix length.
    #[arg(long, value_name = "ADDRESS/LEN")]
    address: Cidr,
    /// The engine's socket.
    #[arg(long, value_name = "PATH")]
    engine_socket: PathBuf,
    /// The directory that `assets build` made.
    #[arg(long, value_name = "DIR")]
    assets: PathBuf,
    /// The engine's image store.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// TCP port of scripts, kernel, images and the installer's calls.
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Default router of the provisioning network.
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// A name server; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<Ipv4Addr>,
    /// How long an address is granted for.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(60..))]
    lease_seconds: u32,
    /// Further arguments of the installer's kernel.
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "console=tty0 console=ttyS0,115200n8",
        allow_hyphen_values = true
    )]
    kernel_args: String,
    /// Do not answer IPv6 router solicitations (iPXE then waits some 16 s on every boot).
    #[arg(long)]
    no_router_advertisements: bool,
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    kernel: Kernel,
    /// The installer: a static executable that becomes /init.
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// The directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where Debian's ipxe package put its boot loaders.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/ipxe")]
    ipxe: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Kernel {
    /// A Debian kernel package file.
    #[arg(long, value_name = "FILE")]
    kernel_deb: Option<PathBuf>,
    /// The name of a kernel package, fetched with apt-get: linux-image-cloud-amd64 for virtual machines,
    /// linux-image-amd64 for servers.
    #[arg(long, value_name = "NAME")]
    kernel_package: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Cidr {
    address: Ipv4Addr,
    prefix_len: u8,
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address with a prefix length such as 172.22.0.1/24");
        let (address, prefix_len) = text.split_once('/').ok_or_else(wrong)?;
        let prefix_len = prefix_len.parse().ok().filter(|len| (8..=30).contains(len)).ok_or_else(wrong)?;
        Ok(Cidr { address: address.parse().map_err(|_| wrong())?, prefix_len })
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would be told of on the same full disk, and a failure to do that is a panic.
        .log_internal_errors(false)
        .init();
    let done = match Cli::parse().command {
        Command::Serve(arguments) => run_server(arguments),
        Command::Assets { command: AssetsCommand::Build(arguments) } => run_build(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Our errors tell their causes themselves.
            eprintln!("vmetal-netboot: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_server(arguments: Serve) -> anyhow::Result<()> {
    let config = ServeConfig {
        interface: arguments.interface,
        address: arguments.address.address,
        prefix_len: arguments.address.prefix_len,
        engine_socket: arguments.engine_socket,
        assets: arguments.assets,
        images: arguments.images,
        http_port: arguments.http_port,
        gateway: arguments.gateway,
        dns: arguments.dns,
        lease: Duration::from_secs(arguments.lease_seconds.into()),
        kernel_args: arguments.kernel_args,
        router_advertisements: if arguments.no_router_advertisements {
            RouterAdvertisements::Off
        } else {
            RouterAdvertisements::On
        },
    };
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;
        let shutdown = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        serve(config, shutdown).await.map_err(anyhow::Error::from)
    })?;
    // Installers' held calls and running transfers are not waited for: they ask again.
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(())
}

fn run_build(arguments: Build) -> anyhow::Result<()> {
    let kernel = match arguments.kernel {
        Kernel { kernel_deb: Some(path), .. } => KernelSource::Deb(path),
        Kernel { kernel_package, .. } => KernelSource::Package(kernel_package.context("no kernel was named")?),
    };
    let config = BuildConfig { kernel, agent: arguments.agent, ipxe: arguments.ipxe, out: arguments.out };
    let (manifest, built) = build(&config)?;
    let verb = match built {
        Built::Now => "built",
        Built::Before => "up to date:",
    };
    println!(
        "{verb} {} (kernel {}, {} modules)",
        config.out.display(),
        manifest.kernel_release,
        manifest.modules.len()
    );
    for (name, file) in &manifest.files {
        println!("  {:>8} KiB  {}  {name}", file.size.div_ceil(1024), &file.sha256[..16]);
    }
    if !manifest.absent.is_empty() {
        println!(
            "  this kernel has no {}: servers that need one of these drivers cannot be installed with it",
            manifest.absent.join(", ")
        );
    }
    Ok(())
}
