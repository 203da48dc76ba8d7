//! The record of what happened, in order, per object.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::{Kind, Uid};

/// One thing that happened to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The kind of the object.
    pub kind: Kind,
    /// The object's name.
    pub name: String,
    /// The object's identity.
    pub uid: Uid,
    /// How much it matters.
    pub severity: Severity,
    /// A stable word for programs: `phase_changed`, `operation`, `boot`, `erased`, `claimed`, `failed`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The normal course.
    Info,
    /// Not as planned; the engine goes on by itself.
    Warning,
    /// Somebody should look.
    Error,
}
