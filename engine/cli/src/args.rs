//! The command line as data.

mod policy;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vmetal_model::Kind;

pub(crate) use policy::compiled;
pub use policy::{DistributionCommand, FleetArgs, InstallArgs, LogCommand, PolicyCommand, PolicyKind, RegistryArgs};

/// Bare metal as declared objects: look at them, follow them, change them.
#[derive(Debug, Parser)]
#[command(name = "vmetal", version, propagate_version = true)]
pub struct Cli {
    /// How to reach the engine.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the engine.
#[derive(Debug, Args)]
pub struct Connection {
    /// Where the engine is
    #[arg(long, global = true, env = "VMETAL_ENDPOINT", default_value = "http://127.0.0.1:7600", value_name = "URL")]
    pub endpoint: String,
    /// The bearer token; prefer a file, other users of this machine can see command lines
    #[arg(long, global = true, env = "VMETAL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// A file with the bearer token, as the engine wrote it at its first start
    #[arg(long, global = true, env = "VMETAL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// For https: the certificates of the authorities to trust, in PEM
    #[arg(long, global = true, env = "VMETAL_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the objects of a kind, or show one
    Get {
        /// host, node-type, tenant-node, tenant-cluster, image, network or policy
        kind: Kind,
        /// One object instead of all
        name: Option<String>,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Only objects with this label; may be given several times
        #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Go on and show every change
        #[arg(short, long)]
        watch: bool,
    },
    /// Show everything about one object: what it waits for, what failed, what to do, what happened
    Describe {
        /// host, node-type, tenant-node, tenant-cluster, image, network or policy
        kind: Kind,
        /// The object
        name: String,
        /// For a host: the timeline of its network boots instead of the last events
        #[arg(long)]
        boot: bool,
    },
    /// Explain the decision on a tenant node: verdicts, what scores are the sum of, what it would take to have others
    Explain {
        /// The tenant node, as tenant-node/NAME
        #[arg(value_name = "tenant-node/NAME", value_parser = crate::render::explain::subject)]
        node: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what happened, oldest first
    Events {
        /// Only events of this kind
        kind: Option<Kind>,
        /// Only events of this object
        name: Option<String>,
        /// Go on with new events as they happen
        #[arg(short, long)]
        follow: bool,
        /// At most this many of the newest; 0 for all
        #[arg(short = 'n', long, default_value_t = 100)]
        limit: u32,
    },
    /// Create or replace the objects in a YAML or JSON file
    Apply {
        /// The file; `-` for standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Delete one object. A tenant node is drained and its host erased before it is gone
    Delete {
        /// host, node-type, tenant-node, tenant-cluster, image, network or policy
        kind: Kind,
        /// The object
        name: String,
        /// Wait until it is gone, at most this many seconds
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Order something about one host, beside its declaration. Each order leaves an event with who gave it and why
    #[command(subcommand)]
    Host(HostCommand),
    /// Tokens for a while: for a script, or somebody who helps out
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check, back up or restore the store, on the engine's own machine
    Store {
        /// What to do
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Write, build, try, compare and install policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show the versions of this program and of the engine
    Version,
}

/// Why, for the next person who looks at the host.
#[derive(Debug, Args)]
pub struct Because {
    /// The host
    pub name: String,
    /// Why; the next person who looks at the host reads it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Orders about one host.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Begin nothing on the host until `resume`; what is under way is finished
    Pause(Because),
    /// End a pause or a maintenance that was ordered here
    Resume {
        /// The host
        name: String,
    },
    /// Take a host that nobody holds out of the pool to work on it; the engine leaves it alone
    ///
    /// It ends with `resume`, or by itself with --until. The host is then registered and inspected anew.
    Maintenance {
        /// Which, and why
        #[command(flatten)]
        because: Because,
        /// When it ends by itself: a time (2026-11-22T06:00:00Z) or a span from now (4h, 2d)
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Take a host that nobody holds out of the pool because it is not trusted
    ///
    /// Nothing is done to it until `unquarantine`, whatever is declared. The engine quarantines by itself: a server on which
    /// a claim failed for good, and one behind whose BMC another machine answers.
    Quarantine(Because),
    /// End a quarantine: erase what a tenant left, if anything, then register and inspect the host anew
    ///
    /// Who ends it vouches for the server: a replaced board with another serial number is accepted.
    Unquarantine(Because),
    /// Register and inspect a host that nobody holds anew, for example after its disks or memory changed
    Inspect(Because),
    /// Try again now what is in error or pausing after a failure
    Retry {
        /// The host
        name: String,
    },
    /// Take a host from its tenant node although server or BMC are dead
    ///
    /// The usual way is to delete the tenant node: it is drained, switched off, and its host erased. Where the server or its BMC
    /// will not come back, this ends the tenancy at once, on the record: the tenant node goes on as if the host had failed, and
    /// the host is quarantined, not known to be off and not erased. See that the server is off, or its Node may still run.
    Release {
        /// Which, and why
        #[command(flatten)]
        because: Because,
        /// Yes: without waiting for the server, the BMC or the tenant
        #[arg(long, required = true)]
        force: bool,
    },
    /// Switch a host in maintenance or quarantine on, off, or off and on
    ///
    /// Everywhere else the engine switches the server as its work wants. The order is carried out by the engine and read back
    /// from the BMC; `vmetal describe host` shows how far it is.
    Power {
        /// Which, and why
        #[command(flatten)]
        because: Because,
        /// What it is to be
        #[arg(value_enum)]
        power: Power,
    },
    /// Give the BMC another password, and keep that once the BMC takes it
    ///
    /// The account is the declared one. A tenant on the server notices nothing. Where the password is declared as well (a
    /// manifest, Terraform's password_wo), change it there too, and leave its version as it is.
    RotatePassword {
        /// Which, and why
        #[command(flatten)]
        because: Because,
        /// A file with the new password; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Forget a host that nobody holds and leave its power and disks as they are
    Detach(Because),
    /// Delete a host as soon as nobody holds it
    ///
    /// A tenant node that holds it keeps it until that is deleted or goes elsewhere; nobody else is given the host. It cannot be
    /// taken back: once the host is gone, apply it anew.
    Retire(Because),
}

/// What a server's power is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Power {
    /// It runs
    On,
    /// It does not run; the operating system is not asked
    Off,
    /// Off, then on
    Cycle,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Look
    Reader,
    /// Everything
    Operator,
}

/// Tokens that a token makes. The engine keeps them in memory: a restart ends them.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List those that are good now, without their secrets
    List,
    /// Make one and print it; it may do no more than the token that is used for it, and makes no others
    Create {
        /// What it may do
        #[arg(long, value_enum, default_value_t = TokenRole::Reader)]
        role: TokenRole,
        /// How long it works, at most a day
        #[arg(long, value_name = "MINUTES", default_value_t = 15)]
        minutes: u32,
        /// Why; it goes into the token's name on the engine's record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// End one at once
    Revoke {
        /// Which, as `list` shows it
        id: String,
    },
}

/// What is done to the store without the engine.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Verify every record, the indexes and the chain of revisions; the engine may be running
    Check {
        /// Which store
        #[command(flatten)]
        place: StorePlace,
    },
    /// Copy the store to a new file and verify the copy; the engine may be running
    Backup {
        /// Which store
        #[command(flatten)]
        place: StorePlace,
        /// The file to make
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Put a backup in the place of the store; the engine must not be running
    Restore {
        /// Which store
        #[command(flatten)]
        place: StorePlace,
        /// The backup
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Keep the store that is there under another name instead of refusing
        #[arg(long)]
        replace: bool,
    },
}

/// Where a store is.
#[derive(Debug, Args)]
pub struct StorePlace {
    /// The engine's state directory, with the SQLite store in it
    #[arg(long, default_value = "/var/lib/vmetal", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The PostgreSQL database instead, as in the engine's configuration
    #[arg(long, env = "VMETAL_STORE_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<String>,
    /// A file with the password for the database
    #[arg(long, requires = "url", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One line each
    Table,
    /// One longer line each
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kinds_are_read_forgivingly_and_labels_strictly() {
        let cli = Cli::try_parse_from(["vmetal", "get", "tenant-nodes", "-l", "rack=1", "-o", "wide"]).unwrap();
        let Command::Get { kind, labels, output, .. } = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!((kind, output), (Kind::TenantNode, Output::Wide));
        assert_eq!(labels, [("rack".to_owned(), "1".to_owned())]);
        assert!(Cli::try_parse_from(["vmetal", "get", "hosts", "-l", "rack"]).is_err());
        let error = Cli::try_parse_from(["vmetal", "get", "machines"]).unwrap_err().to_string();
        assert!(error.contains("expected host, node_type"), "{error}");
    }
}
