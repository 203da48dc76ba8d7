//! The policy `place-balanced` behind two boundaries that vmetal does not have, for `make bench NAME=policy` to hold its own
//! against.
//!
//! * **JSON into a core module**, as admission policies of Kubernetes are often built: everything crosses as one text, the
//!   answer comes back as another.
//! * **One call for each host**, as schedulers with plug-ins are often built: a component that is asked for the score of one
//!   host at a time; its host picks the best.
//!
//! Both are given an advantage: how well each fits into its domain is counted natively and handed in, and of the labels only
//! the domains cross. The bench checks that both choose as `place-balanced` does, with the same scores.

pub mod json;
pub mod score;

#[cfg(target_family = "wasm")]
mod wasm;
