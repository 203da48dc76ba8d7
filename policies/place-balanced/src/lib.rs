//! The default: keeps blocks of hosts whole, and within that takes the host that is readiest and cleanest.
//!
//! A score in points, each term with a weight that can be set (0 switches it off):
//!
//! | term | points for each | default |
//! |---|---|---|
//! | `failure` | failure in a row, subtracted | 200,000 |
//! | `pack` | free host that would be left over in the narrowest domain known, or that is missing there, subtracted, up to 64 | 1,000 |
//! | `standby` | host that is on already | 300 |
//! | `erase` | step of the erase level (metadata, discard, overwrite) | 50 |
//! | `wear` | time the host was provisioned, subtracted, up to 100 times | 2 |
//! | `rest` | day since the last release, up to 30 days (a host never used has 30) | 1 |
//!
//! With the defaults the terms rank above each other: a host that fails comes after every one that does not; among the
//! others a claim goes into the domain that has just room for it, so that a claim for many finds a whole one later; and
//! only among hosts of equally good domains it matters whether one is on, clean, little worn and rested, which four
//! together are worth less than one left-over host. A claim for several goes into one domain; where none has room, into the
//! emptiest, and with the rest on in the same way. A host whose place is not known is a domain of its own. Equal scores go to the first name.
//!
//! Whoever would rather have a host at once than keep a rack whole raises `standby`: with 65,000 a host that is on comes
//! before every one that is not.

mod policy;

pub use policy::PlaceBalanced;

vmetal_policy_sdk::export_placement_policy!(PlaceBalanced);
