//! Networks of installed nodes: which addresses there are, and who has which of them.
//!
//! Plain computation, without I/O, clock or chance. What it chooses is a proposal: that no two hosts have the same address is
//! the store's promise, because each host's record holds the entry of its address in a unique index, in the commit that gives
//! it to the host. So what is here may know too little (another engine's reservation that is not heard of yet) and never
//! does harm by it: the commit fails, and another address is chosen.
//!
//! * [`Pool`]: the addresses that a network has for nodes.
//! * [`Addresses`]: those that are held, and those that are promised; finds a free one without looking at all of them.
//!
//! What moves a host's port into its tenant's network belongs here too, and is not here yet: a driver with two effects,
//! *attach* before the tenant's system boots and *detach* before the disks are erased, each an operation of the host like
//! switching its power. The [`Lease`](vmetal_model::Lease) in the claim says which network that is.

mod addresses;
mod pool;

pub use addresses::Addresses;
pub use pool::Pool;
