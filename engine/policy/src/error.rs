//! What can go wrong with a policy, each with a name of its own.
//!
//! Three moments: loading it ([`LoadError`]), running it ([`RunError`]) and believing it ([`OutputError`]).

use std::path::PathBuf;
use std::time::Duration;

use vmetal_model::FieldError;
use vmetal_policy_sdk::Kind;

use crate::settings::Complaint;

/// The cause kept by errors of the WebAssembly engine.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a policy could not be loaded. The policy that was in place stays in place.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No shipped policy has the name.
    #[error("no shipped policy is called {name:?}; shipped for this seat: {known}")]
    UnknownName {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read policy {}; build the shipped ones with `make policies` or correct the path", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// More bytes than a policy may have.
    #[error("policy {policy} is {size} bytes large, at most {limit} are allowed")]
    TooLarge {
        /// The policy.
        policy: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not the pinned ones.
    #[error("policy {policy} has sha256 {seen}, but {expected} is pinned; install the pinned file or change the pin")]
    DigestMismatch {
        /// The policy.
        policy: String,
        /// The pin.
        expected: String,
        /// The digest of the bytes.
        seen: String,
    },
    /// Not WebAssembly, or only a part of it.
    #[error("policy {policy} is not a whole WebAssembly file: {detail}")]
    Malformed {
        /// The policy.
        policy: String,
        /// What the parser found, and where.
        detail: String,
    },
    /// A module where a component is wanted.
    #[error("policy {policy} is a core WebAssembly module, a component is wanted; `vmetal policy build` makes one")]
    NotAComponent {
        /// The policy.
        policy: String,
    },
    /// It uses something of WebAssembly that is off because it is not deterministic or not needed.
    #[error("policy {policy} uses a WebAssembly feature that policies may not use: {detail}")]
    ForbiddenFeature {
        /// The policy.
        policy: String,
        /// Which.
        detail: String,
    },
    /// It wants something from outside the boundary.
    #[error("policy {policy} imports {import:?}; a policy may import nothing outside vmetal:policy")]
    ForbiddenImport {
        /// The policy.
        policy: String,
        /// The first such import.
        import: String,
    },
    /// It was built for another version of the boundary.
    #[error("policy {policy} exports {export:?}; this engine knows version {known}")]
    UnknownVersion {
        /// The policy.
        policy: String,
        /// The export.
        export: String,
        /// The versions that this engine knows.
        known: String,
    },
    /// It does not export what its place needs.
    #[error("policy {policy} does not export {wanted:?}")]
    MissingExport {
        /// The policy.
        policy: String,
        /// The export.
        wanted: String,
    },
    /// The sandbox could not be made.
    #[error("cannot set up the WebAssembly sandbox")]
    Sandbox(#[source] Cause),
    /// The compiler refused it, or its exports have other types than the boundary.
    #[error("policy {policy} cannot be compiled and linked")]
    Compile {
        /// The policy.
        policy: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// It failed while it was asked about itself.
    #[error("policy {policy} failed in {call}")]
    Probe {
        /// The policy.
        policy: String,
        /// The call.
        call: &'static str,
        /// How.
        #[source]
        source: RunError,
    },
    /// It takes another kind of decision than its place needs.
    #[error("policy {policy} is a {seen:?} policy, its place needs a {wanted:?} policy")]
    WrongKind {
        /// The policy.
        policy: String,
        /// What is needed.
        wanted: Kind,
        /// What it says it is.
        seen: Kind,
    },
    /// Its reason table takes numbers that belong to the engine, or one twice.
    #[error("policy {policy} declares reason {code}, which is reserved (below 1000) or declared twice")]
    BadReason {
        /// The policy.
        policy: String,
        /// The number.
        code: u32,
    },
    /// It fails a case that it brings itself.
    #[error("policy {policy} fails its own case {case:?}: {detail}")]
    Smoke {
        /// The policy.
        policy: String,
        /// The case.
        case: String,
        /// How.
        detail: String,
    },
    /// It refuses its settings.
    #[error("policy {policy} refuses its settings: {}", messages.join("; "))]
    Settings {
        /// The policy.
        policy: String,
        /// One message for each thing that is wrong.
        messages: Vec<String>,
        /// Where that is, as far as the policy's own schema shows it.
        places: Vec<Complaint>,
    },
}

impl LoadError {
    /// The same by the fields of a policy that is declared: `spec.settings.max_skew`, `spec.kind`, `spec.sha256`.
    pub fn field_errors(&self) -> Vec<FieldError> {
        match self {
            LoadError::Settings { places, .. } if !places.is_empty() => {
                let path = |at: &str| match at {
                    "" => "spec.settings".to_owned(),
                    at => format!("spec.settings.{at}"),
                };
                places.iter().map(|place| FieldError::new(path(&place.at), place.message.clone())).collect()
            }
            LoadError::Settings { messages, .. } => {
                vec![FieldError::new("spec.settings", format!("the policy refuses them: {}", messages.join("; ")))]
            }
            LoadError::WrongKind { .. } => vec![FieldError::new("spec.kind", self.to_string())],
            _ => vec![FieldError::new("spec.sha256", self.whole())],
        }
    }

    /// With its causes, in one sentence.
    pub fn whole(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }
}

/// Why a call into a policy did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did more work than a decision of this size may take. The limit is deterministic: the same call fails everywhere.
    #[error("used up its {fuel} units of fuel (a loop without end, or too much work for the number of candidates)")]
    OutOfFuel {
        /// The allowance, about one unit per instruction.
        fuel: u64,
    },
    /// It wanted more memory than it may have.
    #[error("wanted {wanted} bytes of memory, at most {limit} are allowed")]
    OutOfMemory {
        /// What it wanted in all.
        wanted: usize,
        /// The limit.
        limit: usize,
    },
    /// The clock ran out before the fuel did: this machine is busy. Says nothing about the policy.
    #[error("took longer than {deadline:?} although it had fuel left: this machine is overloaded")]
    Overloaded {
        /// The limit.
        deadline: Duration,
    },
    /// It stopped by itself: a panic, a division by zero, an access out of bounds.
    #[error("stopped by a trap: {trap}")]
    Trapped {
        /// Which trap.
        trap: String,
    },
    /// It could not be started, or its answer could not be read.
    #[error("could not be called")]
    Call(#[source] Cause),
}

/// Why an answer is not believed. Rows are given with their names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// Not one verdict for each row.
    #[error("answered with {seen} verdicts for {rows} candidates")]
    VerdictCount {
        /// How many there are.
        seen: usize,
        /// How many are needed.
        rows: usize,
    },
    /// Not one price for each row.
    #[error("answered with {seen} prices for {rows} candidates")]
    PriceCount {
        /// How many there are.
        seen: usize,
        /// How many are needed.
        rows: usize,
    },
    /// A price below zero.
    #[error("prices {name} at {micro} millionths; prices are not negative")]
    NegativePrice {
        /// The candidate.
        name: String,
        /// The price.
        micro: i64,
    },
    /// A row that does not exist.
    #[error("chose row {row} of {rows}")]
    RowOutOfRange {
        /// The row.
        row: u32,
        /// How many there are.
        rows: usize,
    },
    /// The same row twice.
    #[error("chose {name} twice")]
    Duplicate {
        /// The candidate.
        name: String,
    },
    /// A row that the engine's rules exclude.
    #[error("chose {name}, which is excluded: {reason}")]
    InfeasiblePick {
        /// The candidate.
        name: String,
        /// The rule.
        reason: String,
    },
    /// A row that the policy itself rejects.
    #[error("chose {name} and rejects it with code {code}")]
    ContradictoryPick {
        /// The candidate.
        name: String,
        /// Its verdict.
        code: u32,
    },
    /// Neither all nor none.
    #[error("chose {seen} candidates where {wanted} are wanted, all or none")]
    PickCount {
        /// How many were chosen.
        seen: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// None chosen although its own verdicts leave enough.
    #[error("chose none although its verdicts leave {feasible} candidates and {wanted} are wanted")]
    NothingChosen {
        /// How many could have been chosen.
        feasible: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// A verdict of 0 for a row that the engine's rules exclude.
    #[error("calls {name} feasible, which is excluded: {reason}")]
    GateIgnored {
        /// The candidate.
        name: String,
        /// The rule.
        reason: String,
    },
    /// A reason that is not in its table.
    #[error("rejects {name} with code {code}, which is not in its reason table")]
    UnknownCode {
        /// The candidate.
        name: String,
        /// The number.
        code: u32,
    },
}

/// Why a policy gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The call failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The answer is not believed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// It failed so often in a row that it is not asked for a while.
    #[error("failed {failures} times in a row and is not asked again before {until} (seconds since 1970-01-01 UTC)")]
    Resting {
        /// How often.
        failures: u32,
        /// When it is asked again.
        until: u64,
    },
}

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A policy could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The policy failed and its binding says `closed`.
    #[error("{kind:?} policy {policy} failed, and its failure mode is closed: {fault}")]
    Failed {
        /// The decision that was wanted.
        kind: Kind,
        /// The policy, as `name@version sha256:…`.
        policy: String,
        /// What happened.
        #[source]
        fault: Fault,
    },
    /// More candidates than rows can be counted.
    #[error("{candidates} candidates are more than one decision can take")]
    TooMany {
        /// How many.
        candidates: usize,
    },
}
