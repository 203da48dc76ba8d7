//! Names, identities and the frame that every declared object shares.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds of object that users declare and the API serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One physical server.
    Host,
    /// A class of hosts.
    NodeType,
    /// A claim: one node wanted by a tenant cluster.
    TenantNode,
    /// How to reach and join one Kubernetes cluster.
    TenantCluster,
    /// An operating system image.
    Image,
    /// A network that installed nodes are given addresses of.
    Network,
    /// Who prices node types, or who chooses hosts.
    Policy,
}

impl Kind {
    /// Every kind, in the order in which listings show them.
    pub const ALL: [Kind; 7] =
        [Kind::Host, Kind::NodeType, Kind::TenantNode, Kind::TenantCluster, Kind::Image, Kind::Network, Kind::Policy];

    /// The name used in the API, the store and on the command line, for example `tenant_node`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::NodeType => "node_type",
            Kind::TenantNode => "tenant_node",
            Kind::TenantCluster => "tenant_cluster",
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Policy => "policy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind that vmetal does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {0:?}; expected host, node_type, tenant_node, tenant_cluster, image, network or policy")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;
    /// Accepts the API name; a hyphen, a missing underscore or a plural is forgiven (`hosts`, `node-types`).
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let wanted: String = text.trim().to_ascii_lowercase().replace(['-', '_'], "");
        // `policies` is how the language makes many of one `policy`.
        let of_many = wanted.strip_suffix("ies").map(|stem| format!("{stem}y"));
        Kind::ALL
            .into_iter()
            .find(|kind| {
                let name = kind.as_str().replace('_', "");
                wanted == name || wanted.strip_suffix('s') == Some(&name) || of_many.as_deref() == Some(&name)
            })
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// The identity of one object over its whole life: a random UUID in text form. A deleted and re-created object of the
/// same name has another `Uid`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Uid(pub String);

impl Uid {
    /// Formats 16 random bytes as a version 4 UUID (RFC 9562 section 5.4).
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = hex::encode(bytes);
        Uid(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every object carries besides its spec and status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// Unique among the objects of its kind; see [`crate::validate::name`].
    pub name: String,
    /// Set by the engine at creation.
    pub uid: Uid,
    /// Counts the changes of the spec, labels and annotations, from 1.
    pub generation: u64,
    /// The store revision of the last change of any part; 0 while it has not been read from a store.
    #[serde(default)]
    pub revision: u64,
    /// Operator's labels: what selectors match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Free notes, matched by nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When the object was first accepted.
    #[schemars(with = "String")]
    pub created: Timestamp,
    /// When deletion was asked for. The object stays until its release is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub deleted: Option<Timestamp>,
}

/// One declared object: what is wanted (`spec`) and what is so (`status`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Object<Spec, Status> {
    /// Name, identity and history.
    pub metadata: Metadata,
    /// What the user wants.
    pub spec: Spec,
    /// What the engine has found and done; only the engine writes it.
    pub status: Status,
}

impl<Spec: Clone, Status> Object<Spec, Status> {
    /// The same object in another state.
    pub fn with_status(&self, status: Status) -> Self {
        Object { metadata: self.metadata.clone(), spec: self.spec.clone(), status }
    }
}

impl<Spec, Status> Object<Spec, Status> {
    /// The object's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// True once deletion was asked for.
    pub fn is_deleted(&self) -> bool {
        self.metadata.deleted.is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn kinds_are_forgiving_about_spelling_and_strict_about_meaning() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>().unwrap(), kind);
        }
        assert_eq!("tenant-nodes".parse::<Kind>().unwrap(), Kind::TenantNode);
        assert_eq!("policies".parse::<Kind>().unwrap(), Kind::Policy);
        assert!("machine".parse::<Kind>().unwrap_err().to_string().contains("expected host"));
    }

    #[test]
    fn uid_is_a_version_4_uuid() {
        assert_eq!(Uid::from_random([0xff; 16]).0, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
