//! The rules that no policy can bend, each failure with its reason.
//!
//! They decide which node types and hosts *may* be chosen; a policy only decides which of those *is*. They are applied
//! before the policy is asked (it sees the outcome in its `gate` column) and again to its answer.
//!
//! All failing rules of a candidate are kept, in a fixed order; the first is the one that is counted and shown.

pub(crate) mod gates;

use std::collections::BTreeMap;
use std::fmt;

use vmetal_model::quantity::{CPU, MEMORY, ORDINARY};
use vmetal_model::{HostPhase, Lack, Quantity, Requirement, Resources};
use vmetal_policy_sdk::gate;

use crate::input::{ACCELERATORS, Hardware, HostRow, Offer, Wanted};
use crate::network::UsedUp;
use crate::quota::Limit;

/// Why a candidate must not be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Its deletion was asked for.
    Deleted,
    /// The claim names another node type.
    NotNamed {
        /// The one that the claim names.
        wanted: String,
    },
    /// The host is neither available nor on standby.
    Phase {
        /// Where it is instead.
        seen: HostPhase,
    },
    /// Another claim holds the host.
    Claimed {
        /// The tenant node.
        by: String,
    },
    /// A label of the node type's selector is missing or different.
    Label {
        /// The label.
        key: String,
        /// What the selector wants.
        wanted: String,
        /// What the host has.
        seen: Option<String>,
    },
    /// A requirement of the claim does not hold.
    Requirement {
        /// The requirement.
        requirement: Requirement,
        /// The label's value on the node type.
        seen: Option<String>,
    },
    /// Too little of a resource.
    Resource {
        /// The resource.
        name: String,
        /// What is needed.
        wanted: Quantity,
        /// What there is.
        seen: Quantity,
    },
    /// The node type has a special resource that the claim does not ask for.
    Special {
        /// The resource.
        name: String,
    },
    /// An operator holds the host back, or it is not known to be erased.
    Held,
    /// Inspection has not reported yet.
    NotInspected,
    /// The host was given up for this claim.
    Tried {
        /// What failed there.
        failure: String,
    },
    /// It is on standby with another image than the claim's, and others are free.
    Spare,
    /// The others of the claim's group are elsewhere.
    Elsewhere {
        /// The label that must be the same.
        key: String,
        /// Its value at the others.
        wanted: String,
        /// Its value at the host.
        seen: Option<String>,
    },
    /// The claim's tenant cluster would hold more than its quota allows.
    Quota {
        /// The tenant cluster.
        cluster: String,
        /// What is limited, how far, and what the cluster holds.
        limit: Limit,
        /// How much more it would hold.
        more: Quantity,
    },
    /// The network that the claim would be on has too few addresses left.
    NoAddress {
        /// The network.
        used_up: UsedUp,
    },
    /// Too few hosts of the node type can be taken now.
    NoCapacity {
        /// How many hosts its selector matches.
        total: u32,
        /// How many of them can be taken.
        free: u32,
        /// How many are wanted.
        wanted: u32,
        /// Why the others cannot be taken.
        taken: String,
    },
}

impl Rejection {
    /// The number under which policies see the reason.
    pub fn code(&self) -> u32 {
        match self {
            Rejection::Deleted => gate::DELETED,
            Rejection::NotNamed { .. } => gate::NOT_NAMED,
            Rejection::Phase { .. } => gate::NOT_AVAILABLE,
            Rejection::Claimed { .. } => gate::CLAIMED,
            Rejection::Label { .. } => gate::SELECTOR,
            Rejection::Requirement { .. } => gate::REQUIREMENT,
            Rejection::Resource { name, .. } if name == CPU => gate::CPU,
            Rejection::Resource { name, .. } if name == MEMORY => gate::MEMORY,
            Rejection::Resource { .. } => gate::RESOURCE,
            Rejection::Special { .. } => gate::SPECIAL,
            Rejection::Held => gate::HELD,
            Rejection::NotInspected => gate::NOT_INSPECTED,
            Rejection::Tried { .. } => gate::TRIED,
            Rejection::Spare => gate::SPARE,
            Rejection::Elsewhere { .. } => gate::ELSEWHERE,
            Rejection::Quota { .. } => gate::QUOTA,
            Rejection::NoAddress { .. } => gate::ADDRESS,
            Rejection::NoCapacity { .. } => gate::NO_CAPACITY,
        }
    }

    /// The reason in a word or two, for counting.
    pub fn topic(&self) -> String {
        match self {
            Rejection::Deleted => "being deleted".to_owned(),
            Rejection::NotNamed { .. } => "not the type asked for".to_owned(),
            Rejection::Phase { .. } => "not available".to_owned(),
            Rejection::Claimed { .. } => "claimed".to_owned(),
            Rejection::Label { key, .. } => format!("label {key}"),
            Rejection::Requirement { requirement, .. } => format!("requirement on {}", requirement.key),
            Rejection::Resource { name, .. } => format!("too little {name}"),
            Rejection::Special { name } => format!("{name} not asked for"),
            Rejection::Held => "held back".to_owned(),
            Rejection::NotInspected => "not inspected".to_owned(),
            Rejection::Tried { .. } => "tried before".to_owned(),
            Rejection::Spare => "on standby with another image".to_owned(),
            Rejection::Elsewhere { key, .. } => format!("another {key}"),
            Rejection::Quota { .. } => "over quota".to_owned(),
            Rejection::NoAddress { .. } => "too few addresses".to_owned(),
            Rejection::NoCapacity { .. } => "no free host".to_owned(),
        }
    }
}

impl Rejection {
    /// What would have to change for the rule to hold.
    pub fn remedy(&self) -> String {
        match self {
            Rejection::Deleted => "nothing: it is being deleted".to_owned(),
            Rejection::NotNamed { wanted } => format!("the claim would have to name it instead of {wanted}, or none"),
            Rejection::Phase { seen } => format!("it has to become available; it is {}", seen.as_str()),
            Rejection::Claimed { by } => format!("tenant node {by} has to be deleted"),
            Rejection::Label { key, wanted, .. } => format!("the host needs the label {key}={wanted}"),
            Rejection::Requirement { requirement, .. } => format!("the claim would have to do without {requirement}"),
            Rejection::Resource { name, wanted, seen } => {
                let missing = wanted.milli().saturating_sub(seen.milli());
                let missing = Quantity::from_milli(u64::try_from(missing).unwrap_or(u64::MAX));
                format!("{} more of {name}", amount(name, missing))
            }
            Rejection::Special { name } => format!("the claim would have to ask for {name}"),
            Rejection::Held => "whoever holds it back has to let it go, or it has to be erased".to_owned(),
            Rejection::NotInspected => "its inspection has to report".to_owned(),
            Rejection::Tried { .. } => "what failed there has to be mended; a new claim may have it".to_owned(),
            Rejection::Spare => "nothing else may be free: it waits with another image".to_owned(),
            Rejection::Elsewhere { key, wanted, .. } => format!("the host has to be at {key}={wanted}"),
            Rejection::Quota { cluster, limit, more } => {
                let enough = limit.limited.say(limit.held.plus(*more));
                format!("tenant cluster {cluster} has to give back as much, or be allowed {enough}")
            }
            Rejection::NoAddress { used_up } => {
                format!(
                    "a host with an address of network {} has to be given back, or the network be given more",
                    used_up.network
                )
            }
            Rejection::NoCapacity { free, wanted, .. } => {
                format!("{} more of its hosts have to be free", wanted.saturating_sub(*free))
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::Deleted => f.write_str("is being deleted"),
            Rejection::NotNamed { wanted } => write!(f, "the claim names node type {wanted}"),
            Rejection::Phase { seen } => write!(f, "phase is {}, wanted available", seen.as_str()),
            Rejection::Claimed { by } => write!(f, "claimed by tenant node {by}"),
            Rejection::Label { key, wanted, seen: Some(seen) } => {
                write!(f, "label {key}={wanted} wanted, host has {key}={seen}")
            }
            Rejection::Label { key, wanted, seen: None } => {
                write!(f, "label {key}={wanted} wanted, host has no label {key}")
            }
            Rejection::Requirement { requirement, seen: Some(seen) } => {
                write!(f, "{requirement} wanted, node type has {}={seen}", requirement.key)
            }
            Rejection::Requirement { requirement, seen: None } => {
                write!(f, "{requirement} wanted, node type has no label {}", requirement.key)
            }
            Rejection::Resource { name, wanted, seen } => {
                write!(f, "{name} {} wanted, {} there", amount(name, *wanted), amount(name, *seen))
            }
            Rejection::Special { name } => {
                write!(f, "has the special resource {name}, which the claim does not ask for")
            }
            Rejection::Held => f.write_str("is held back (`vmetal describe host` says by whom and why)"),
            Rejection::NotInspected => f.write_str("inspection has not reported its hardware yet"),
            Rejection::Tried { failure } => write!(f, "was tried for this claim and given up: {failure}"),
            Rejection::Spare => f.write_str("is on standby with another image; it is taken when nothing else is free"),
            Rejection::Elsewhere { key, wanted, seen: Some(seen) } => {
                write!(f, "the group is at {key}={wanted}, the host at {key}={seen}")
            }
            Rejection::Elsewhere { key, wanted, seen: None } => {
                write!(f, "the group is at {key}={wanted}, the host has no label {key}")
            }
            Rejection::Quota { cluster, limit, more } => f.write_str(&limit.say(cluster, *more)),
            Rejection::NoAddress { used_up } => f.write_str(&used_up.say()),
            Rejection::NoCapacity { total: 0, .. } => f.write_str("its selector matches no host"),
            Rejection::NoCapacity { total, free, wanted, taken } => {
                write!(f, "{free} of {total} hosts free")?;
                if *wanted > 1 {
                    write!(f, ", {wanted} wanted")?;
                }
                if taken.is_empty() { Ok(()) } else { write!(f, ": {taken}") }
            }
        }
    }
}

/// An amount for people: memory that is no round number of anything is shown in GiB.
pub(crate) fn amount(name: &str, quantity: Quantity) -> String {
    let exact = quantity.to_string();
    if name == MEMORY && exact.len() > 6 {
        let tenths = (quantity.milli() / 1000 * 10) >> 30;
        return format!("{}.{}Gi", tenths / 10, tenths % 10);
    }
    exact
}

/// Why a node type must not be chosen for a claim; empty when it may.
pub fn node_type(wanted: &Wanted, offer: &Offer) -> Vec<Rejection> {
    let mut found = Vec::new();
    if offer.deleted {
        found.push(Rejection::Deleted);
    }
    if let Some(name) = wanted.node_type.as_ref().filter(|name| **name != offer.name) {
        found.push(Rejection::NotNamed { wanted: name.clone() });
    }
    for requirement in wanted.requirements.iter().filter(|requirement| !requirement.matches(&offer.labels)) {
        let seen = offer.labels.get(&requirement.key).cloned();
        found.push(Rejection::Requirement { requirement: requirement.clone(), seen });
    }
    for (name, amount) in &wanted.resources {
        let seen = offer.resources.get(name).copied().unwrap_or_default();
        // What every node has may be asked for without the type declaring it.
        let undeclared = !offer.resources.contains_key(name) && ORDINARY[2..].contains(&name.as_str());
        if *amount > seen && !undeclared {
            found.push(Rejection::Resource { name: name.clone(), wanted: *amount, seen });
        }
    }
    for name in special(&offer.resources).filter(|name| wanted.resources.get(*name).is_none_or(|asked| asked.is_zero()))
    {
        found.push(Rejection::Special { name: name.to_owned() });
    }
    found.extend(wanted.quota.iter().filter_map(|limit| {
        let more = limit.more(offer, wanted.count);
        limit.exceeded_by(more).then(|| Rejection::Quota {
            cluster: wanted.cluster.clone(),
            limit: limit.clone(),
            more,
        })
    }));
    let used_up = wanted.used_up.iter().filter(|one| one.bars(&offer.name));
    found.extend(used_up.map(|used_up| Rejection::NoAddress { used_up: used_up.clone() }));
    if offer.free < wanted.count {
        let taken = offer.taken.clone();
        found.push(Rejection::NoCapacity { total: offer.total, free: offer.free, wanted: wanted.count, taken });
    }
    found
}

/// What a node type that was not chosen would take, where these are the rules that it fails (none, where the policy left it
/// out by itself).
pub(crate) fn lack(found: &[Rejection]) -> Lack {
    let host = |one: &Rejection| matches!(one, Rejection::NoCapacity { total: 1.., .. });
    let quota = |one: &Rejection| matches!(one, Rejection::Quota { .. });
    let address = |one: &Rejection| matches!(one, Rejection::NoAddress { .. });
    match found {
        [] => Lack::Fit,
        _ if found.iter().all(host) => Lack::FreeHost,
        _ if !found.iter().all(|one| host(one) || quota(one) || address(one)) => Lack::Fit,
        // What has to be given back, or allowed, before anything else helps.
        _ if found.iter().any(quota) => Lack::Quota,
        _ => Lack::Address,
    }
}

/// The resources of which a type has any and that not every node has.
fn special(resources: &Resources) -> impl Iterator<Item = &str> {
    let special = |(name, amount): &(&String, &Quantity)| !ORDINARY.contains(&name.as_str()) && !amount.is_zero();
    resources.iter().filter(special).map(|(name, _)| name.as_str())
}

/// Why a host must not be chosen as one of a node type; empty when it may.
pub fn host(offer: &Offer, host: &HostRow) -> Vec<Rejection> {
    let mut found: Vec<Rejection> = offer
        .selector
        .iter()
        .filter(|(key, wanted)| host.labels.get(*key) != Some(*wanted))
        .map(|(key, wanted)| Rejection::Label {
            key: key.clone(),
            wanted: wanted.clone(),
            seen: host.labels.get(key).cloned(),
        })
        .collect();
    if host.deleted {
        found.push(Rejection::Deleted);
    }
    // How far a claimed host is, is its claim's affair; the reason of those who wait must not change with it.
    match &host.claimed_by {
        Some(by) => found.push(Rejection::Claimed { by: by.clone() }),
        None if !host.phase.is_claimable() => found.push(Rejection::Phase { seen: host.phase }),
        None => {}
    }
    if host.held {
        found.push(Rejection::Held);
    }
    match &host.hardware {
        Some(hardware) => found.extend(shortages(&offer.resources, hardware)),
        None => found.push(Rejection::NotInspected),
    }
    found
}

/// By how much a host may fall short of a declared amount.
fn tolerance(name: &str, wanted: Quantity) -> Quantity {
    match name {
        MEMORY => Quantity::units(wanted.units_ceil() / 16 + (128 << 20)),
        _ => Quantity::default(),
    }
}

/// What a node type declares and the host does not have.
///
/// Memory may fall short by a sixteenth and 128 MiB: the kernel does not count what the firmware and it itself keep, so
/// a server with 4 GiB installed reports some 3.8. Resources other than processors, memory and the accelerators that
/// inspection can tell are believed as declared.
fn shortages(declared: &Resources, hardware: &Hardware) -> Vec<Rejection> {
    let measured = |name: &str| match name {
        CPU => Some(Quantity::units(u64::from(hardware.threads))),
        MEMORY => Some(Quantity::units(hardware.memory_bytes)),
        _ if ACCELERATORS.iter().any(|(_, resource)| *resource == name) => {
            Some(Quantity::units(u64::from(hardware.accelerators.get(name).copied().unwrap_or(0))))
        }
        _ => None,
    };
    declared
        .iter()
        .filter_map(|(name, wanted)| Some((name, *wanted, measured(name)?, tolerance(name, *wanted))))
        .filter(|(_, wanted, seen, tolerance)| wanted.milli() > seen.milli() + tolerance.milli())
        .map(|(name, wanted, seen, _)| Rejection::Resource { name: name.clone(), wanted, seen })
        .collect()
}

/// Counts topics, the most frequent first: `2 label gpu, 1 not available`.
pub(crate) fn count_topics(topics: impl IntoIterator<Item = (String, usize)>) -> String {
    let mut by_topic: BTreeMap<String, usize> = BTreeMap::new();
    for (topic, count) in topics {
        *by_topic.entry(topic).or_default() += count;
    }
    let mut sorted: Vec<_> = by_topic.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sorted.into_iter().map(|(topic, count)| format!("{count} {topic}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "feasibility/tests.rs"]
mod tests;
