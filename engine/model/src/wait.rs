//! Why something is not done yet, and why something failed: always in words an operator can act on.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A reason to wait. Every wait has a deadline, so that nothing hangs for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wait {
    /// What is being waited for, for example `the installer to call in`.
    pub reason: String,
    /// What would end the wait, for example `a request from 52:54:00:12:34:56 on the provisioning network`.
    pub unblocks: String,
    /// Since when.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// When the engine looks again on its own, if nothing happens before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next_check: Option<Timestamp>,
    /// When the engine gives up waiting and goes to the next rung; `None` where waiting costs nothing (an unclaimed host).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub deadline: Option<Timestamp>,
}

/// What kind of thing went wrong. Backoff is counted per cause and starts again when the cause changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No connection to the BMC, or it did not answer in time.
    BmcUnreachable,
    /// The BMC refused user name and password.
    BmcCredentials,
    /// The BMC's certificate is not trusted, or has changed.
    BmcCertificate,
    /// The address is outside the networks the engine may talk to.
    BmcForbidden,
    /// The BMC answered something that is not what the standard says.
    BmcProtocol,
    /// The BMC has several systems and the address names none, or the one it names does not exist.
    BmcSystem,
    /// The BMC is busy or limits requests; it said when to come back or the engine chose.
    BmcBusy,
    /// A setting was written and read back different.
    BmcNotApplied,
    /// No free address on the provisioning network.
    AddressExhausted,
    /// The installer did not call in before the deadline.
    AgentSilent,
    /// The machine that called in is not the machine that was declared or inspected.
    WrongMachine,
    /// Inspection found less than was declared, or failed.
    Inspection,
    /// No disk, or more than one, matches the root device hints.
    RootDevice,
    /// The image is missing, not imported, or does not fit.
    Image,
    /// A chunk's content does not have the digest that the manifest promises.
    ImageDigest,
    /// Writing to the disk failed.
    Disk,
    /// The installed system did not call in before the deadline.
    BootSilent,
    /// Erasing failed; the host stays out of the pool.
    Erase,
    /// No node type or host fits the claim.
    NoCandidate,
    /// The policy failed or answered nonsense.
    Policy,
    /// The tenant's API server cannot be reached or refuses the engine.
    TenantUnreachable,
    /// The tenant cluster lacks something joining needs (for example the bootstrap signer).
    TenantSetup,
    /// The node did not become Ready before the deadline, or reported that joining failed.
    Join,
    /// A Node of that name exists and is not ours.
    ForeignNode,
    /// Draining did not finish before its deadline.
    Drain,
    /// The image is still being imported.
    ImagePending,
    /// The object refers to something that does not exist.
    MissingReference,
    /// An operator took the host away.
    Forced,
    /// A fault inside the engine.
    Internal,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The serde name is the public one; serialising a unit variant cannot fail.
        let text = serde_json::to_string(self).unwrap_or_default();
        f.write_str(text.trim_matches('"'))
    }
}

/// Something went wrong. The four texts answer: what failed, what was expected, what was seen, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What kind of thing it was.
    pub cause: Cause,
    /// What failed, where, what was expected and what was seen: one or two sentences, never empty.
    pub message: String,
    /// What the operator can do, or what the engine does next.
    pub advice: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if !self.advice.is_empty() {
            write!(f, " ({})", self.advice)?;
        }
        Ok(())
    }
}
