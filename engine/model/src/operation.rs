//! Intents to act on hardware. An operation is committed before its effect and closed after it, so that a restarted
//! engine knows what may have happened and looks before it acts again.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wait::Failure;

/// One intent and, once it is known, what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// Counts the operations of one host, from 1.
    pub id: u64,
    /// What is to be done.
    pub kind: OperationKind,
    /// Whether it is still under way.
    pub state: OperationState,
    /// When the intent was committed.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// When the outcome was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub finished: Option<Timestamp>,
}

/// The things the engine does to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Sign in, find the system, read identity and power. Changes nothing.
    ProbeBmc,
    /// Read the power state. Changes nothing.
    ReadPower,
    /// Reserve an address on the provisioning network.
    AllocateAddress,
    /// Make the token of one network boot attempt.
    OpenBoot,
    /// Boot from the network at the next start only.
    SetNetworkBoot,
    /// Power on, if the host is off.
    PowerOn,
    /// Power off at once, if the host is on.
    PowerOff,
    /// Restart the BMC. The server itself is not touched.
    ResetBmc,
    /// Give the BMC's account the new password, and sign in with it. The server itself is not touched.
    ChangePassword,
}

impl OperationKind {
    /// True when doing it twice is the same as doing it once, whatever happened in between. The engine may then repeat it
    /// after an unknown outcome; for the others it observes first.
    pub fn changes_nothing(self) -> bool {
        matches!(self, OperationKind::ProbeBmc | OperationKind::ReadPower)
    }

    /// What an operator reads in a timeline.
    pub fn describe(self) -> &'static str {
        match self {
            OperationKind::ProbeBmc => "read identity and power from the BMC",
            OperationKind::ReadPower => "read power from the BMC",
            OperationKind::AllocateAddress => "reserve an address",
            OperationKind::OpenBoot => "open a network boot attempt",
            OperationKind::SetNetworkBoot => "set network boot for the next start",
            OperationKind::PowerOn => "power on",
            OperationKind::PowerOff => "power off",
            OperationKind::ResetBmc => "restart the BMC",
            OperationKind::ChangePassword => "change the password of the BMC",
        }
    }
}

/// How far an operation has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum OperationState {
    /// Committed; the effect may or may not have happened.
    Intended,
    /// The effect happened.
    Succeeded,
    /// The effect failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// The engine stopped between intent and outcome; what happened was found out by looking.
    Observed,
}
