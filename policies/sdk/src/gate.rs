//! The engine's reasons for keeping a row from being chosen, as a policy sees them in the `gate` columns.
//!
//! The engine applies these rules itself, before and after every policy; a policy only reads them, for example to
//! leave a rack alone in which a host is being erased. Numbers are never reused.

/// The row may be chosen.
pub const OPEN: u32 = 0;
/// The host is neither in phase `available` nor in `standby`.
pub const NOT_AVAILABLE: u32 = 1;
/// Another claim holds the host.
pub const CLAIMED: u32 = 2;
/// The node type's label selector does not match the host.
pub const SELECTOR: u32 = 3;
/// A requirement of the claim does not hold.
pub const REQUIREMENT: u32 = 4;
/// Too few processors.
pub const CPU: u32 = 5;
/// Too little memory.
pub const MEMORY: u32 = 6;
/// Too little of another resource.
pub const RESOURCE: u32 = 7;
/// The type has a special resource that the claim does not ask for.
pub const SPECIAL: u32 = 8;
/// Every host of the type is taken, or it has none.
pub const NO_CAPACITY: u32 = 9;
/// The claim names another node type or host.
pub const NOT_NAMED: u32 = 10;
/// The host is being deleted.
pub const DELETED: u32 = 11;
/// The host has not reported its hardware yet.
pub const NOT_INSPECTED: u32 = 12;
/// The host was given up for this claim.
pub const TRIED: u32 = 13;
/// The hosts of the claim's group are elsewhere: another rack, another NVLink domain.
pub const ELSEWHERE: u32 = 14;
/// An operator holds the host back, or it is not known to be erased after its last tenancy.
pub const HELD: u32 = 15;
/// The host is on standby with another image than the claim's; it is taken when nothing else is free.
pub const SPARE: u32 = 16;
/// The claim's tenant cluster would hold more than its quota allows.
pub const QUOTA: u32 = 17;
/// The network that the claim would be on has too few addresses left.
pub const ADDRESS: u32 = 18;

/// The largest number that the engine will ever use.
pub const LAST: u32 = 999;
/// The smallest number that a policy may use for a reason of its own.
pub const FIRST_OWN: u32 = 1000;
