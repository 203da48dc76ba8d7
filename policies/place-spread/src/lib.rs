//! Spreads a tenant's hosts over failure domains.
//!
//! Settings: `level`, the label of the failure domain (default `topology.vmetal.dev/rack`); `max_skew`, by how many hosts
//! the tenant's fullest domain may exceed its emptiest one (default: no limit); `exclusive`, true to leave out domains in
//! which another tenant has a host (default false).
//!
//! Hosts are taken one after another, each from the domain in which the tenant has fewest, then from the one with the most
//! free hosts, then by name. A host whose domain is not known is not taken.

mod policy;

pub use policy::PlaceSpread;

vmetal_policy_sdk::export_placement_policy!(PlaceSpread);
