//! `vmetal policy` as data.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use vmetal_policy_source::Reference;
use vmetal_policy_tool::Spec;

/// What is done with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Make a crate to begin a policy with
    New {
        /// Where; the last part is the policy's name
        directory: PathBuf,
        /// What it chooses
        #[arg(long, value_enum, default_value_t = PolicyKind::Placement)]
        kind: PolicyKind,
        /// policies/sdk of a checkout; otherwise that of the checkout around, or the published one
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
    /// Make components of policy crates. Needs cargo and the target wasm32-unknown-unknown, nothing else
    Build {
        /// The crates
        #[arg(default_value = ".", value_name = "CRATE")]
        crates: Vec<PathBuf>,
        /// Where the components go; otherwise into each crate's directory
        #[arg(short, long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Put cases into a component that other tools made: an engine tries them before it uses it. `build` does so by itself
    Pack {
        /// The component
        component: PathBuf,
        /// A directory of cases
        #[arg(long, value_name = "DIR")]
        cases: PathBuf,
        /// Where the component with the cases goes
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show what a policy is: kind, digest, imports, settings, reasons, cases
    Inspect {
        /// A component's file or the name of a shipped policy
        #[arg(value_parser = spec)]
        policy: Spec,
        /// As JSON, with the whole JSON Schema of the settings
        #[arg(long)]
        json: bool,
    },
    /// Run cases on components, and on the native twins of shipped ones
    Test {
        /// A component, a crate (which is built first), a directory of components, or the name of a shipped policy
        #[arg(required = true, value_name = "POLICY")]
        policies: Vec<String>,
        /// A file of cases, or a directory of them, besides those that the component brings
        #[arg(long = "cases", value_name = "PATH")]
        files: Vec<PathBuf>,
    },
    /// Take one decision apart: verdicts, what scores are the sum of, and what is nearest to fitting
    Explain {
        /// The policy; settings may stand behind it: 'place-spread{"max_skew":2}'
        #[arg(value_parser = spec)]
        policy: Spec,
        /// What is asked for
        #[command(flatten)]
        fleet: FleetArgs,
        /// Which claim of the trace; the first when none is named
        #[arg(long, value_name = "NAME")]
        claim: Option<String>,
        /// One host or node type only
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Candidates shown
        #[arg(short = 'n', long, default_value_t = 10)]
        limit: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Replay a trace of claims over a fleet for several policies and compare what they make of it
    Simulate {
        /// The policies; settings may stand behind each: 'place-gang-topology{"prefer":true}'
        #[arg(required = true, value_name = "POLICY", value_parser = spec)]
        policies: Vec<Spec>,
        /// Fleet and trace
        #[command(flatten)]
        fleet: FleetArgs,
        /// The label of the domains that should stay whole
        #[arg(long, default_value = "topology.vmetal.dev/nvlink-domain", value_name = "LABEL")]
        domain: String,
        /// The label of a rack
        #[arg(long, default_value = "topology.vmetal.dev/rack", value_name = "LABEL")]
        rack: String,
        /// Draw the comparison into this file, as SVG
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
        /// Write fleet.json and trace.json into this directory, to change them and come back with --fleet and --trace
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Try a policy on random fleets and claims: no trap, no impossible choice, no dependence on the order of hosts
    Fuzz {
        /// The policy; settings may stand behind it
        #[arg(value_parser = spec)]
        policy: Spec,
        /// Where the random numbers begin; another one each time unless given
        #[arg(long)]
        seed: Option<u64>,
        /// Fleets and claims tried
        #[arg(long, default_value_t = 200, value_name = "COUNT")]
        cases: u32,
    },
    /// Hand a component to the engine and have it decide from now on, on all engines of the store, without a restart
    ///
    /// It is tried first, here and by the engine, with its own cases; what is refused changes nothing. The policy is an object:
    /// `vmetal get policies` and `vmetal describe policy NAME` show it, and `vmetal delete policy NAME` gives the decision back to
    /// the engine's configuration. `vmetal_policy` is the same in Terraform.
    Install(InstallArgs),
    /// The engine's log of decisions
    #[command(flatten)]
    Logged(LogCommand),
    /// What goes from hand to hand
    #[command(flatten)]
    Distribution(DistributionCommand),
    /// Measure a policy: decisions a second, the time of a fresh instance
    Bench {
        /// The policy; settings may stand behind it
        #[arg(value_parser = spec)]
        policy: Spec,
        /// Fleets of about so many hosts
        #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_name = "COUNT")]
        hosts: Vec<u32>,
        /// How long each is measured
        #[arg(long, default_value_t = 2, value_name = "SECONDS")]
        seconds: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// A component that is installed, and how.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The component's file
    pub component: PathBuf,
    /// The object's name; `cost` or `placement`, whichever it decides on, when not given
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Its settings, a JSON object
    #[arg(long, value_name = "JSON")]
    pub settings: Option<String>,
    /// When it fails: the native twin (of a policy of your own, the default one) decides, or there is no decision
    #[arg(long, value_enum, default_value_t = Failing::NativeTwin)]
    pub on_failure: Failing,
    /// Where its signature is [default: FILE.sig, if there is one]; needed where the engine is configured with keys
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Have the engine keep and try it, but let it decide nothing
    #[arg(long, requires = "name")]
    pub rest: bool,
}

/// What happens when a policy fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Failing {
    /// There is no decision; claims wait
    Closed,
    /// Its stand-in decides
    #[value(name = "native_twin")]
    NativeTwin,
}

impl From<Failing> for vmetal_model::OnFailure {
    fn from(failing: Failing) -> Self {
        match failing {
            Failing::Closed => vmetal_model::OnFailure::Closed,
            Failing::NativeTwin => vmetal_model::OnFailure::NativeTwin,
        }
    }
}

/// What is asked of the engine's log of decisions.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// List the decisions that the engine has logged with their inputs, oldest first
    Log {
        /// At most this many of the newest
        #[arg(short = 'n', long, default_value_t = 100, value_name = "COUNT")]
        last: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the engine take a logged decision again, with policies, settings and inputs of the time; fails if another comes out
    Replay {
        /// The decision, as `vmetal describe tenant-node` or `vmetal policy log` names it
        decision: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take the last logged decisions again with another policy, here, and show what would differ; nothing is installed
    Diff {
        /// The policy; settings may stand behind it
        #[arg(value_parser = spec)]
        policy: Spec,
        /// At most this many of the newest
        #[arg(short = 'n', long, default_value_t = 1000, value_name = "COUNT")]
        last: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// How a component comes from its author to an engine.
#[derive(Debug, Subcommand)]
pub enum DistributionCommand {
    /// Publish a component as an OCI artifact; the last line is its name with the digest, as an engine wants it
    Push {
        /// Where: REGISTRY/REPOSITORY:TAG
        reference: Reference,
        /// The component. It has to decide its own cases first
        file: PathBuf,
        /// Sign it with this private key (PEM, P-256 or Ed25519), as `cosign sign --key` does
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
        /// How the registry is reached
        #[command(flatten)]
        registry: RegistryArgs,
    },
    /// Say what a component is: digest, world, by whom it is signed, and whether it decides its own cases
    Verify {
        /// A component's file, or REGISTRY/REPOSITORY@sha256:DIGEST, or with :TAG
        #[arg(value_name = "FILE|REFERENCE")]
        policy: String,
        /// A public key (PEM, P-256 or Ed25519) whose signature counts; with several, one of them must have signed
        #[arg(long = "key", value_name = "FILE")]
        keys: Vec<PathBuf>,
        /// Of a file: where its signature is [default: FILE.sig]
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
        /// How the registry is reached
        #[command(flatten)]
        registry: RegistryArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// How registries are reached. Credentials are those of `docker login` or `podman login`: the variable DOCKER_AUTH_CONFIG, or
/// the file that REGISTRY_AUTH_FILE names, or Docker's own.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// A registry that is spoken to without TLS; those on loopback always are
    #[arg(long = "insecure-registry", value_name = "HOST:PORT")]
    pub insecure_registries: Vec<String>,
}

/// A fleet and claims: from files, or made from a seed.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// A fleet: `hosts:` and `node_types:` in YAML, or what `vmetal get host -o json` prints; several files make one
    #[arg(long = "fleet", value_name = "FILE")]
    pub fleet: Vec<PathBuf>,
    /// Claims: `claims:` in YAML, each with name, at, lasts, count
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Instead of the files that are not given: made from this seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub synthetic: u64,
    /// Synthetic: racks of 18 hosts
    #[arg(long, default_value_t = 16, value_name = "COUNT")]
    pub racks: u32,
    /// Synthetic: claims
    #[arg(long, default_value_t = 600, value_name = "COUNT")]
    pub claims: u32,
    /// Synthetic: what is asked for, in percent of what the fleet has
    #[arg(long, default_value_t = 85, value_name = "PERCENT")]
    pub load: u32,
}

/// What a policy chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyKind {
    /// Node types, by price
    Cost,
    /// Hosts
    Placement,
}

fn spec(text: &str) -> Result<Spec, std::convert::Infallible> {
    Ok(Spec::read(text).cached(compiled()))
}

/// Where machine code of large components is kept between commands; none when nothing says where this user's caches are.
pub(crate) fn compiled() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")));
    let cache = of("VMETAL_CACHE").or_else(|| Some(caches()?.join("vmetal")))?;
    Some(cache.join("compiled-policies"))
}
