//! The published price list, corrected by what a server really costs to run and to give away.
//!
//! On top of the price of `cost-vcluster` (or the operator's own), in percent of it or in cost units:
//!
//! | setting | what it adds | default |
//! |---|---|---|
//! | `energy` | cost units for each kilowatt, from the node type's property `cost.vmetal.dev/watts` | 100 |
//! | `scarcity` | percent of the price, in full when no host of the type is left, none when all are free | 50 |
//! | `waste` | percent of the price for each whole resource that the claim leaves unused | 10 |
//! | `standby` | percent of the price taken off when a free host of the type is on already | 10 |
//! | `ceiling` | types that cost more than so many cost units in the end are not taken | none |
//!
//! The cheapest wins; equal prices go to the least unused, then to the first name.

mod policy;

pub use policy::CostEffective;

vmetal_policy_sdk::export_cost_policy!(CostEffective);
