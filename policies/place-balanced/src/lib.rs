//! The default: takes the host that is readiest and cleanest and leaves the fleet in good shape.
//!
//! A score in points, each term with a weight that can be set (0 switches it off):
//!
//! | term | points for each | default |
//! |---|---|---|
//! | `standby` | host that is on already | 300 |
//! | `erase` | step of the erase level (metadata, discard, overwrite) | 50 |
//! | `failure` | failure in a row, subtracted | 200 |
//! | `wear` | time the host was provisioned, subtracted, up to 100 times | 2 |
//! | `rest` | day since the last release, up to 30 days (a host never used has 30) | 1 |
//! | `pack` | free host beside it in the narrowest domain known, subtracted, up to 64 | 5 |
//!
//! `pack` keeps blocks whole: a claim goes where few are free, so that a claim for many finds them together. Equal scores
//! go to the first name.

mod policy;

pub use policy::PlaceBalanced;

vmetal_policy_sdk::export_placement_policy!(PlaceBalanced);
