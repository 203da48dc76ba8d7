//! The objects of vmetal and the words they are made of.
//!
//! Everything here is plain data: no I/O, no clock, no randomness. The engine, the provider, the command line and the
//! in-memory installer all speak these types, and their JSON form (serde) is what the API carries and the store keeps.
//! There is one schema; documentation and the provider's attributes follow from it.
//!
//! * What users declare: [`Host`], [`NodeType`], [`TenantNode`], [`TenantCluster`], [`Image`], [`Network`], [`Policy`].
//! * What the engine records: [`Operation`] (one intent to act on hardware), [`Event`], [`Wait`], [`Failure`].
//! * What crosses the provisioning network: [`agent`] (installer protocol) and [`boot`] (what each MAC should boot).

pub mod action;
pub mod agent;
pub mod bmc;
pub mod boot;
pub mod event;
pub mod explanation;
pub mod host;
pub mod image;
pub mod inventory;
pub mod meta;
pub mod net;
pub mod network;
pub mod node_type;
pub mod operation;
pub mod pci;
pub mod policy;
pub mod quantity;
pub mod requirement;
pub mod tenant_cluster;
pub mod tenant_node;
pub mod validate;
pub mod wait;

pub use action::{
    DeclaredMaintenance, EndedTenancy, Hold, HostAction, OnDelete, PowerOrder, PowerWish, Rotation, TenancyEnd,
};
pub use bmc::{BmcAddress, BmcAddressError, BmcFacts, BmcSpec, PowerState, TlsTrust};
pub use event::{Event, Severity};
pub use explanation::{Basis, Explained, Explanation, Remedy, Replay, Term};
pub use host::{
    BootMode, Breach, Claim, ClaimState, EraseRecord, Host, HostPhase, HostSpec, HostStatus, RootDeviceHints, Stage,
    Standby, StandbyWish,
};
pub use image::{Image, ImagePhase, ImageSpec, ImageStatus};
pub use inventory::Inventory;
pub use jiff::Timestamp;
pub use meta::{Kind, Metadata, Object, Uid};
pub use net::MacAddr;
pub use network::{AddressRange, Cidr, Lease, Network, NetworkSpec, NetworkStatus};
pub use node_type::{Capacity, NodeType, NodeTypeSpec, NodeTypeStatus, StandbyTrouble};
pub use operation::{Operation, OperationKind, OperationState};
pub use pci::{PciClass, PciId};
pub use policy::{
    Duty, InForce, OnFailure, Policy, PolicyCheck, PolicyFacts, PolicyKind, PolicyPhase, PolicySpec, PolicyStatus,
};
pub use quantity::{Quantity, Resources};
pub use requirement::{Operator, Requirement};
pub use tenant_cluster::{Quota, TenantCluster, TenantClusterSpec, TenantClusterStatus};
pub use tenant_node::{
    Candidate, Decision, GroupSpec, Lack, Recourse, Taint, TaintEffect, TenantNode, TenantNodePhase, TenantNodeSpec,
    TenantNodeStatus, TriedHost,
};
pub use validate::{FieldError, Validate};
pub use wait::{Cause, Failure, Wait};
