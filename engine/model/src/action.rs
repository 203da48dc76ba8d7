//! What an operator orders beside a declaration, and what is kept of it on the host.
//!
//! A declaration says what a server is; an action says what is to happen to it now, once. Actions go through the API, name
//! who gave them, and leave an event. They never change the declaration, so that a tool that applies declarations does not
//! fight with the person at the console.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::Uid;
use crate::network::Lease;
use crate::wait::Failure;

/// An order of an operator about one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "action", deny_unknown_fields)]
pub enum HostAction {
    /// Begin no effect on the host until `resume`; what is under way is finished.
    Pause {
        /// Why.
        reason: String,
    },
    /// End a pause or a maintenance that was ordered by an action.
    Resume,
    /// Take an unclaimed host out of the pool for work on it.
    Maintenance {
        /// Why.
        reason: String,
        /// When it ends by itself; without it, `resume` ends it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        until: Option<Timestamp>,
    },
    /// Take an unclaimed host out of the pool because it is not trusted. The engine leaves it alone.
    Quarantine {
        /// Why.
        reason: String,
    },
    /// End a quarantine: what a tenant left is erased, then the host is registered and inspected anew.
    Unquarantine {
        /// What was found and mended.
        reason: String,
    },
    /// Register and inspect an unclaimed host anew.
    Inspect {
        /// Why.
        reason: String,
    },
    /// Try again at once what is in error or pausing.
    Retry,
    /// Take the host from its tenant node without waiting for anything, and quarantine it. For a server or BMC that is dead:
    /// the tenant node goes on as if the host had failed, and nothing is known to be off or erased.
    ForceRelease {
        /// Why.
        reason: String,
    },
    /// Switch an unclaimed host that the engine leaves alone: one in maintenance or quarantine.
    Power {
        /// What it is to be.
        power: PowerWish,
        /// Why.
        reason: String,
    },
    /// Forget an unclaimed host and leave its power and disks as they are.
    Detach {
        /// Why.
        reason: String,
    },
    /// Delete the host as soon as nobody holds it. A tenant node that holds it keeps it until that is deleted or goes elsewhere,
    /// and nobody else is given it.
    Retire {
        /// Why.
        reason: String,
    },
}

impl HostAction {
    /// The verb, as on the command line.
    pub fn verb(&self) -> &'static str {
        match self {
            HostAction::Pause { .. } => "pause",
            HostAction::Resume => "resume",
            HostAction::Maintenance { .. } => "maintenance",
            HostAction::Quarantine { .. } => "quarantine",
            HostAction::Unquarantine { .. } => "unquarantine",
            HostAction::Inspect { .. } => "inspect",
            HostAction::Retry => "retry",
            HostAction::ForceRelease { .. } => "release --force",
            HostAction::Power { power, .. } => power.verb(),
            HostAction::Detach { .. } => "detach",
            HostAction::Retire { .. } => "retire",
        }
    }

    /// Whether the host is deleted by it: at once, or once nobody holds it.
    pub fn deletes(&self) -> bool {
        matches!(self, HostAction::Detach { .. } | HostAction::Retire { .. })
    }

    /// Why it is ordered, where an order needs a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            HostAction::Pause { reason }
            | HostAction::Maintenance { reason, .. }
            | HostAction::Quarantine { reason }
            | HostAction::Unquarantine { reason }
            | HostAction::Inspect { reason }
            | HostAction::ForceRelease { reason }
            | HostAction::Power { reason, .. }
            | HostAction::Detach { reason }
            | HostAction::Retire { reason } => Some(reason),
            HostAction::Resume | HostAction::Retry => None,
        }
    }
}

/// What an operator wants of a server's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerWish {
    /// It runs.
    On,
    /// It does not run; switched off at once, without asking the operating system.
    Off,
    /// It was off, and runs.
    Cycle,
}

impl PowerWish {
    /// All of them.
    pub const ALL: [PowerWish; 3] = [PowerWish::On, PowerWish::Off, PowerWish::Cycle];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            PowerWish::On => "on",
            PowerWish::Off => "off",
            PowerWish::Cycle => "cycle",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            PowerWish::On => "power on",
            PowerWish::Off => "power off",
            PowerWish::Cycle => "power cycle",
        }
    }
}

/// An order about a server's power that is not carried out yet. It goes when it is, when it fails for good, and when the host
/// changes its phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerOrder {
    /// What is still wanted: a cycle whose first half is done wants `on`.
    pub power: PowerWish,
    /// Why, by whom, since when.
    pub hold: Hold,
}

/// An order to give a host's BMC a new password. It goes when the BMC takes the password, and not before the engine knows which
/// one holds: between the two, both are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rotation {
    /// Why, by whom, since when.
    pub hold: Hold,
    /// How often it was begun. From the second time on it may have happened already, and is looked at first.
    #[serde(default)]
    pub tries: u32,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub not_before: Option<Timestamp>,
    /// Why it ended, or why the last try did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Whether it is over: the old password holds.
    #[serde(default)]
    pub ended: bool,
}

/// Maintenance as it is declared with the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredMaintenance {
    /// Why.
    pub reason: String,
    /// When it ends by itself; without it, it ends when it is no longer declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub until: Option<Timestamp>,
}

/// Something that was ordered and holds until it is ended: why, by whom, since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Who ordered it: the name of a token, or `vmetald`.
    pub by: String,
    /// Since when.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub until: Option<Timestamp>,
}

/// What becomes of a server when its host is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// It goes off, and goes only when no tenant's data is left on it.
    #[default]
    Clean,
    /// Power and disks stay as they are, whatever is on them.
    Orphan,
}

/// A tenancy that has ended on a host whose disks are not known to be erased. While a host has one, it is not in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndedTenancy {
    /// The tenant node's name.
    pub node: String,
    /// The tenant node's identity. It has no right to the host any more.
    pub uid: Uid,
    /// When the host was claimed.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// When the claim ended.
    #[schemars(with = "String")]
    pub ended: Timestamp,
    /// The address that the host still has of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// How it ended.
    pub end: TenancyEnd,
    /// What the tenant node may show: what failed for good, or who took the host away and why.
    pub failure: Failure,
}

/// How a tenancy ended without an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenancyEnd {
    /// Installing failed for good.
    Failed,
    /// An operator took the host away.
    Forced,
}
