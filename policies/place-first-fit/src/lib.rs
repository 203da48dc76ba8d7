//! Takes the free hosts whose names come first.
//!
//! The baseline that vMetal users know ("picks one from the eligible set"), with the order made definite: by name, in
//! byte order. It depends neither on the order in which hosts were registered nor on the order of rows, so the same
//! fleet gives the same answer after a restart.

mod policy;

pub use policy::PlaceFirstFit;

vmetal_policy_sdk::export_placement_policy!(PlaceFirstFit);
