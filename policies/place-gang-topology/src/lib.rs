//! Places all hosts of a claim together in one domain of the topology, and breaks no larger hole than it must.
//!
//! Settings: `level`, the label of the domain (default `topology.vmetal.dev/nvlink-domain`); `segment`, into how many hosts
//! each the claim may be cut (default 0: not at all), every segment then being in one domain and all of them in one domain
//! of the next wider level, where there is one; `prefer`, true to go to the next wider level when no domain can take the
//! claim (default false: the claim waits).
//!
//! Among the domains that can take the claim, the one with the least left over wins, then the first name. With segments:
//! the group that needs the fewest domains, then the least left over, then the first name. A host whose domain is not
//! known is not taken.

mod policy;
mod search;

pub use policy::PlaceGangTopology;

vmetal_policy_sdk::export_placement_policy!(PlaceGangTopology);
