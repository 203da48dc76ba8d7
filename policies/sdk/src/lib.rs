//! What a policy is written against.
//!
//! A policy implements [`Policy`] and either [`CostPolicy`] or [`PlacementPolicy`] in plain Rust, without knowing
//! WebAssembly, and calls [`export_cost_policy!`] or [`export_placement_policy!`] once. The same source then builds
//! twice: for the host, as the **native twin** (the oracle of the equivalence tests and the fallback when a component
//! fails), and for `wasm32-unknown-unknown`, as the component itself. Both see the very same types, the ones in
//! [`types`], which mirror `policies/wit/policy.wit` field by field; only the WebAssembly build knows the generated
//! bindings, and those stay private to this crate.
//!
//! Facts arrive as columns. [`Hosts::rows`] and [`Offers::rows`] give them back as rows that read a column only when
//! asked, so that a policy says `host.gpu_model()` and pays for nothing that it does not look at.
//!
//! ```
//! use vmetal_policy_sdk::{Claim, Context, Decision, Factor, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Verdict};
//!
//! /// Prefers the host that was provisioned least often.
//! struct LeastWorn;
//!
//! impl Policy for LeastWorn {
//!     fn describe() -> Info {
//!         Info { name: "least-worn".into(), version: "1".into(), kind: Kind::Placement, reasons: vec![] }
//!     }
//! }
//!
//! impl PlacementPolicy for LeastWorn {
//!     fn place(_: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
//!         let verdict = |host: vmetal_policy_sdk::HostRef<'_>| Verdict::ranked(host.gate(), -i64::from(host.provisions()));
//!         Decision::best(claim, hosts, hosts.rows().map(verdict).collect())
//!     }
//!     fn explain(_: &Context, _: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
//!         hosts.row(row).map(|host| Factor::new("times provisioned", -i64::from(host.provisions()))).into_iter().collect()
//!     }
//! }
//!
//! vmetal_policy_sdk::export_placement_policy!(LeastWorn);
//! ```

pub mod column;
pub mod gate;
pub mod pricing;
pub mod settings;
mod tally;
pub mod types;
mod view;
// What `settings!` derives with, so that a policy needs no other dependency than this crate.
#[doc(hidden)]
pub use serde;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod wasm;

pub use tally::Tally;
pub use types::{
    Arg, Choice, Claim, Column, Context, Decision, Factor, Hosts, Info, Kind, Level, Offers, Operator, Quantity,
    Reason, Requirement, Sym, Verdict,
};
pub use view::{HostRef, OfferRef};

/// The version of the WIT package that this crate speaks; part of every exported interface name.
pub const WIT_VERSION: &str = "0.1.0";

/// What every policy says about itself.
pub trait Policy {
    /// Name, version, kind and the reasons that it may give.
    fn describe() -> Info;

    /// Checks the operator's settings and names the strings whose symbols the policy wants in [`Context::symbols`].
    ///
    /// The default is for policies without settings that need no symbols.
    ///
    /// # Errors
    /// One message for each thing that is wrong with the settings.
    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        no_settings(json).map(|()| Vec::new())
    }

    /// The JSON Schema of the settings; of those that [`settings!`] declares it is [`settings::schema`].
    ///
    /// The default is for policies without settings.
    fn settings_schema() -> String {
        settings::schema::<settings::None>()
    }
}

/// Prices node types and chooses one.
pub trait CostPolicy: Policy {
    /// Decides over all offers at once. Rows whose gate is not 0 must be priced but not chosen.
    fn choose(ctx: &Context, claim: &Claim, offers: &Offers, log: &mut dyn Log) -> Choice;

    /// The parts of the price of one row; they add up to it.
    fn explain(ctx: &Context, claim: &Claim, offers: &Offers, row: u32) -> Vec<Factor>;
}

/// Chooses hosts.
pub trait PlacementPolicy: Policy {
    /// Decides over all hosts at once. Rows whose gate is not 0 must not be chosen.
    fn place(ctx: &Context, claim: &Claim, hosts: &Hosts, log: &mut dyn Log) -> Decision;

    /// The parts of the score of one row; they add up to it.
    fn explain(ctx: &Context, claim: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor>;
}

/// Where a policy may leave notes. Kept with the decision up to a bound; never part of its outcome.
pub trait Log {
    /// Leaves one note. The meaning of `code` and the two numbers is the policy's own.
    fn emit(&mut self, level: Level, code: u32, first: i64, second: i64);
}

/// Accepts the settings of a policy that has none: no text, or an empty JSON object.
///
/// # Errors
/// One message that says so.
pub fn no_settings(json: &str) -> Result<(), Vec<String>> {
    let inner = json.trim();
    let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner);
    if inner.trim().is_empty() {
        Ok(())
    } else {
        Err(vec![format!("this policy has no settings; expected an empty object, saw {json:?}")])
    }
}

/// Makes the calling crate a component of world `cost-policy` when it is built for WebAssembly; otherwise only checks
/// that the type is a [`CostPolicy`].
#[macro_export]
macro_rules! export_cost_policy {
    ($policy:ty) => {
        const _: () = {
            const fn is_cost_policy<P: $crate::CostPolicy>() {}
            is_cost_policy::<$policy>();
            #[cfg(target_family = "wasm")]
            type VmetalExport = $crate::wasm::Cost<$policy>;
            #[cfg(target_family = "wasm")]
    $crate::wasm::common::export!(VmetalExport with_types_in $crate::wasm::common);
            #[cfg(target_family = "wasm")]
    $crate::wasm::cost::export!(VmetalExport with_types_in $crate::wasm::cost);
        };
    };
}

/// Makes the calling crate a component of world `placement-policy` when it is built for WebAssembly; otherwise only
/// checks that the type is a [`PlacementPolicy`].
#[macro_export]
macro_rules! export_placement_policy {
    ($policy:ty) => {
        const _: () = {
            const fn is_placement_policy<P: $crate::PlacementPolicy>() {}
            is_placement_policy::<$policy>();
            #[cfg(target_family = "wasm")]
            type VmetalExport = $crate::wasm::Placement<$policy>;
            #[cfg(target_family = "wasm")]
    $crate::wasm::common::export!(VmetalExport with_types_in $crate::wasm::common);
            #[cfg(target_family = "wasm")]
    $crate::wasm::placement::export!(VmetalExport with_types_in $crate::wasm::placement);
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_settings_takes_nothing_or_an_empty_object() {
        for fine in ["", "  ", "{}", " { } "] {
            assert_eq!(no_settings(fine), Ok(()), "{fine:?}");
        }
        for wrong in ["{\"a\":1}", "[]", "null", "}{"] {
            assert!(no_settings(wrong).is_err(), "{wrong:?}");
        }
    }
}
