//! Hard isolation: nobody gets a host that another tenant's data may still be on.
//!
//! A host that was another tenant cluster's is taken only when it was erased to `min_erase` or better (`metadata`,
//! `discard` or `overwrite`; default `overwrite`) and was released at least `rest_hours` ago (default 0). With
//! `max_attestation_hours` every host must have been attested within so many hours (label
//! `security.vmetal.dev/attested-at`). Among what is left, a host that was the tenant's own comes first, then the more
//! thoroughly erased, then the first name.

mod policy;

pub use policy::PlaceQuarantine;

vmetal_policy_sdk::export_placement_policy!(PlaceQuarantine);
