//! What can go wrong with a BMC, and what an operator can do about it.

use std::time::Duration;

use vmetal_model::{Cause, Failure, Timestamp};

/// Why a call to a BMC failed. Each variant's text says what failed, where, and what was expected and seen;
/// [`BmcError::advice`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BmcError {
    /// The address may not be reached. Nothing was sent.
    #[error("BMC {origin} is not reached: {why}")]
    Forbidden {
        /// The BMC.
        origin: String,
        /// The guard's reason.
        why: String,
    },
    /// The engine may not act on this host any more. Nothing was sent.
    #[error("nothing was sent to BMC {origin}: {why}")]
    Fenced {
        /// The BMC.
        origin: String,
        /// The fence's reason.
        why: String,
    },
    /// No connection, no answer in time, or the connection broke.
    #[error("BMC {origin} did not answer {request}: {reason}")]
    Unreachable {
        /// The BMC.
        origin: String,
        /// Method and path.
        request: String,
        /// What the network said.
        reason: String,
    },
    /// Too many failures in a row: the BMC is left alone for a while. Nothing was sent.
    #[error(
        "BMC {origin} failed {failures} times in a row and is left alone for another {} s; the last failure was: {last}",
        .retry_in.as_secs()
    )]
    CircuitOpen {
        /// The BMC.
        origin: String,
        /// Failures in a row.
        failures: u32,
        /// The last failure.
        last: String,
        /// When it will be tried again.
        retry_in: Duration,
    },
    /// Another machine than the known one is behind the BMC.
    #[error(
        "BMC {origin} answers for another machine than before: expected {expected}, saw {seen}; nothing was done to it"
    )]
    WrongMachine {
        /// The BMC.
        origin: String,
        /// Who was known.
        expected: String,
        /// Who answers.
        seen: String,
    },
    /// The certificate is not trusted.
    #[error(
        "BMC {origin} presented a certificate that is not trusted: {problem}; its SHA-256 fingerprint is {fingerprint}"
    )]
    Certificate {
        /// The BMC.
        origin: String,
        /// What is wrong with it.
        problem: CertificateProblem,
        /// The presented certificate's fingerprint, 64 hexadecimal digits.
        fingerprint: String,
    },
    /// User name or password refused.
    #[error("BMC {origin} refused user {username:?} and its password{}", if *.asked == Asked::No { " twice; it was not asked again, because BMCs lock accounts" } else { "" })]
    Credentials {
        /// The BMC.
        origin: String,
        /// The account.
        username: String,
        /// Whether the BMC was asked this time.
        asked: Asked,
    },
    /// The account may not do this.
    #[error("BMC {origin} does not let user {username:?} do {request} (HTTP 403{})", detail(.said))]
    Privilege {
        /// The BMC.
        origin: String,
        /// The account.
        username: String,
        /// Method and path.
        request: String,
        /// The BMC's own words.
        said: String,
    },
    /// The BMC is busy or limits requests.
    #[error("BMC {origin} is busy (HTTP {status}{}); it is asked again in {} s", detail(.said), .retry_in.as_secs())]
    Busy {
        /// The BMC.
        origin: String,
        /// 429 or 503.
        status: u16,
        /// The BMC's own words.
        said: String,
        /// When it may be asked again: its `Retry-After`, or the engine's choice.
        retry_in: Duration,
    },
    /// The answer is not what the standard says.
    #[error("BMC {origin} answered {request} with {seen}; expected {expected}")]
    Protocol {
        /// The BMC.
        origin: String,
        /// Method and path.
        request: String,
        /// What the standard says.
        expected: String,
        /// What came.
        seen: String,
    },
    /// The system that the address names does not exist.
    #[error("BMC {origin} has no system {path}; it has {}", listing(.available))]
    NoSuchSystem {
        /// The BMC.
        origin: String,
        /// What was asked for.
        path: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The address names no system and there is not exactly one.
    #[error("BMC {origin} has {}, and the address does not say which one is meant", listing(.available))]
    AmbiguousSystem {
        /// The BMC.
        origin: String,
        /// What there is.
        available: Vec<String>,
    },
    /// A setting was accepted and reads back different.
    #[error("BMC {origin} accepted {setting} = {wanted}, but it reads back as {seen}")]
    NotApplied {
        /// The BMC.
        origin: String,
        /// What was set.
        setting: String,
        /// To what.
        wanted: String,
        /// What it is.
        seen: String,
    },
    /// The gateway cannot be set up.
    #[error("the gateway for BMC {origin} cannot be set up: {reason}")]
    Setup {
        /// The BMC.
        origin: String,
        /// Why.
        reason: String,
    },
}

/// Whether a refused password was sent this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The BMC was asked and refused.
    Yes,
    /// It was refused before; the BMC was not asked.
    No,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// No root that is trusted vouches for it. BMCs ship with self-signed ones.
    #[error("it is self-signed or its issuer is not known here")]
    UnknownIssuer,
    /// It is another one than the pinned.
    #[error("another one is pinned ({pinned})")]
    NotThePinned {
        /// The pinned fingerprint.
        pinned: String,
    },
    /// Expired, for another name, broken.
    #[error("{0}")]
    Invalid(String),
}

fn detail(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(", it says: {said}") }
}

fn listing(names: &[String]) -> String {
    match names {
        [] => "no system".into(),
        [one] => format!("one system ({one})"),
        many => format!("{} systems ({})", many.len(), many.join(", ")),
    }
}

impl BmcError {
    /// The kind of failure, for backoff and conditions.
    pub fn cause(&self) -> Cause {
        match self {
            BmcError::Forbidden { .. } => Cause::BmcForbidden,
            BmcError::Unreachable { .. } | BmcError::CircuitOpen { .. } => Cause::BmcUnreachable,
            BmcError::Certificate { .. } => Cause::BmcCertificate,
            BmcError::Credentials { .. } | BmcError::Privilege { .. } => Cause::BmcCredentials,
            BmcError::Busy { .. } => Cause::BmcBusy,
            BmcError::Protocol { .. } => Cause::BmcProtocol,
            BmcError::NoSuchSystem { .. } | BmcError::AmbiguousSystem { .. } => Cause::BmcSystem,
            BmcError::NotApplied { .. } => Cause::BmcNotApplied,
            BmcError::WrongMachine { .. } => Cause::WrongMachine,
            BmcError::Setup { .. } | BmcError::Fenced { .. } => Cause::Internal,
        }
    }

    /// What an operator can do. Never empty.
    pub fn advice(&self) -> String {
        match self {
            BmcError::Forbidden { .. } => {
                "correct the address, or add its network to the BMC networks that the engine may reach".into()
            }
            BmcError::Unreachable { .. } | BmcError::CircuitOpen { .. } => {
                "check address and port, the management network and the BMC's own power; it is tried again by itself".into()
            }
            BmcError::Certificate { problem: CertificateProblem::NotThePinned { .. }, fingerprint, .. } => {
                format!("if the BMC's certificate was replaced, pin the new one with bmc.tls.fingerprint (Terraform: tls_fingerprint = \"{fingerprint}\"); if not, somebody may be in between")
            }
            BmcError::Certificate { fingerprint, .. } => format!(
                "compare the fingerprint with the one the BMC shows and pin it with bmc.tls.fingerprint (Terraform: tls_fingerprint = \"{fingerprint}\"), or add the issuer to the engine's roots, or accept any certificate with bmc.tls: insecure (Terraform: insecure = true)"
            ),
            BmcError::Credentials { .. } => {
                "correct user name or password and change bmc.password_version with it (Terraform: password_wo and password_wo_version); nothing is tried until then".into()
            }
            BmcError::Privilege { .. } => {
                "give the account the right to control power and boot settings (on most BMCs: role Operator or Administrator)".into()
            }
            BmcError::Busy { .. } => "nothing; it is tried again by itself".into(),
            BmcError::Protocol { .. } => {
                "update the BMC's firmware or reset the BMC; if it stays, report the BMC's model and firmware".into()
            }
            BmcError::NoSuchSystem { available, .. } | BmcError::AmbiguousSystem { available, .. } => match available.first() {
                Some(example) => format!("end the address with the path of the right system, for example …{example}"),
                None => "check that the server is inserted and known to its BMC".into(),
            },
            BmcError::NotApplied { .. } => {
                "look for a lock-down or a pending settings job on the BMC; reset the BMC if it stays".into()
            }
            BmcError::WrongMachine { .. } => {
                "correct the host's BMC address; if the server or its board was replaced on purpose, accept the new one with `vmetal host unquarantine`".into()
            }
            BmcError::Setup { .. } => "correct the host's BMC settings".into(),
            BmcError::Fenced { .. } => "nothing; the engine that owns the host goes on with it".into(),
        }
    }

    /// How long to wait at least before the next try, where the BMC or the breaker said so.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            BmcError::CircuitOpen { retry_in, .. } | BmcError::Busy { retry_in, .. } => Some(*retry_in),
            _ => None,
        }
    }

    /// The failure as the engine records it.
    pub fn to_failure(&self, at: Timestamp) -> Failure {
        Failure { cause: self.cause(), message: self.to_string(), advice: self.advice(), at }
    }
}
