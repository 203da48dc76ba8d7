//! The price list of the vCluster Platform, made exact.
//!
//! Its documentation says: "Each `cpu` costs 10; each GB of memory costs 2; each other resource costs 10000", an
//! explicit cost wins, and the cheapest type is used. That leaves open whether "each other resource" is a unit or a
//! kind, what a GB is, how fractions count and how ties end. Here:
//!
//! * the price is per **unit** of every other resource, save `pods` and `ephemeral-storage`, which every server has;
//! * a GB is a GiB (2^30 bytes);
//! * prices are integers in millionths of a cost unit, so a tenth of a processor or a MiB of memory counts; only memory
//!   can have a smaller fraction, and that is rounded up;
//! * among equal prices the offer that leaves the least unused wins, then the first name in byte order.
//!
//! What is *left unused* is the sum, over the resources that the offer has, of the share that the claim does not ask
//! for, in millionths. Shares and not prices, because prices have just been found equal.
//!
//! Whether an offer may be chosen at all (requirements, size, capacity, special resources only when asked for) is the
//! engine's business; it arrives in the `gate` column.

mod policy;

pub use policy::CostVcluster;

vmetal_policy_sdk::export_cost_policy!(CostVcluster);
