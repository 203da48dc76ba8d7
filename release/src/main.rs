//! Packs a release of the provider, checks one, and installs one into a mirror. `scripts/release` calls it.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use vmetal_release::{
    Platform, ReleaseError, Version,
    bundle::{Bundle, Libraries},
    mirror,
};

/// The files of a release of terraform-provider-vmetal.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pack a program for a platform; its zip is reproducible.
    Pack {
        /// The release.
        #[command(flatten)]
        release: Release,
        /// The program.
        #[arg(long)]
        program: PathBuf,
        /// `linux_amd64` or `linux_arm64`.
        #[arg(long)]
        platform: Platform,
        /// The licence that is packed beside it.
        #[arg(long, default_value = "LICENSE")]
        licence: PathBuf,
        /// Take a program that needs libraries: for trying only.
        #[arg(long)]
        allow_libraries: bool,
    },
    /// Write the manifest and the check sums.
    Seal {
        /// The release.
        #[command(flatten)]
        release: Release,
    },
    /// Check a release against its check sums.
    Check {
        /// The release.
        #[command(flatten)]
        release: Release,
    },
    /// Check a release and install it into a directory that Terraform and OpenTofu install from.
    Mirror {
        /// The release.
        #[command(flatten)]
        release: Release,
        /// The mirror.
        #[arg(long)]
        to: PathBuf,
    },
}

#[derive(clap::Args)]
struct Release {
    /// Its version.
    #[arg(long = "release", value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    version: Version,
    /// Where its files are.
    #[arg(long)]
    dir: PathBuf,
}

impl Release {
    fn bundle(self) -> Bundle {
        Bundle::new(self.version, self.dir)
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmetal-release: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), ReleaseError> {
    match command {
        Command::Pack { release, program, platform, licence, allow_libraries } => {
            let libraries = if allow_libraries { Libraries::Allowed } else { Libraries::None };
            let zip = release.bundle().pack(&program, platform, libraries, &licence)?;
            println!("{}", zip.display());
        }
        Command::Seal { release } => println!("{}", release.bundle().seal()?.display()),
        Command::Check { release } => {
            for zip in release.bundle().check()? {
                println!("{}: as released", zip.display());
            }
        }
        Command::Mirror { release, to } => {
            for file in mirror::install(&release.bundle(), &to)? {
                println!("{}", file.display());
            }
            // A relative path in a user's configuration would be relative to wherever they stand.
            let absolute = std::path::absolute(&to).unwrap_or(to);
            println!(
                "\nIn the CLI configuration (~/.terraformrc or ~/.tofurc):\n\n{}",
                mirror::configuration(&absolute)
            );
        }
    }
    Ok(())
}
