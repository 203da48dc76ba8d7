//! Which hosts are kept installed ahead of claims: a pure plan for one class of hosts.
//!
//! A class wants so many hosts on standby with its image. The plan compares that with the hosts that are kept for it and says
//! which free ones to install and which kept ones to give back; it remembers nothing, so that a restart changes nothing.
//!
//! A broken image must not cost the fleet. As long as no host runs the image on standby, only [`Limits::standby_hosts`] are
//! installed at a time; after a failure only one, after a pause that doubles; and when it has failed on that many, none until
//! the image or the class changes, or one of the failed hosts goes on. Failures that are plainly a server's or its BMC's do
//! not count.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use vmetal_model::{Cause, Failure, Host, HostPhase, HostStatus, Standby, StandbyTrouble, StandbyWish, Timestamp};

use crate::limits::{Limits, after};
use crate::note::Note;

/// What a class wants.
#[derive(Debug, Clone, Copy)]
pub struct Class<'a> {
    /// Its name.
    pub name: &'a str,
    /// Labels that its hosts have.
    pub selector: &'a BTreeMap<String, String>,
    /// How many hosts it wants on standby.
    pub wanted: u32,
    /// Digest of its image; `None` while the image cannot be installed: nothing is begun then, and nothing given back for it.
    pub image: Option<&'a str>,
}

/// One thing to be ordered of a host.
#[derive(Debug, Clone, Copy)]
pub enum Order<'a> {
    /// Install the class's image and wait for a claim.
    Install(&'a Host),
    /// Erase what was installed and go back to the pool.
    GiveBack(&'a Host),
}

/// What is to be done for one class.
#[derive(Debug, Clone, Default)]
pub struct Plan<'a> {
    /// What to order, each to be committed under the host's revision.
    pub orders: Vec<Order<'a>>,
    /// Why not all that is missing is ordered, where failures are the reason.
    pub trouble: Option<StandbyTrouble>,
}

/// The hosts that are kept for a class, by what has become of them.
#[derive(Default)]
struct Kept<'a> {
    waiting: Vec<&'a Host>,
    under_way: Vec<&'a Host>,
    failed: Vec<&'a Failure>,
    unwanted: Vec<&'a Host>,
}

/// Plans for one class. `kept` are the hosts that are on standby for it, in whatever phase; `free` those that the rules for
/// claims would let a claim of this class have. Both may be all hosts: what does not belong is passed over.
pub fn plan<'a>(
    class: Class<'_>,
    kept: impl IntoIterator<Item = &'a Host>,
    free: impl IntoIterator<Item = &'a Host>,
    limits: &Limits,
    now: Timestamp,
) -> Plan<'a> {
    let Kept { mut waiting, mut under_way, failed, unwanted } = sort(class, kept);
    let mut orders: Vec<Order<'a>> = unwanted.into_iter().map(Order::GiveBack).collect();
    let wanted = usize::try_from(class.wanted).unwrap_or(usize::MAX);
    let there = waiting.len() + under_way.len();
    // What was begun last has cost least.
    let latest_last =
        |host: &&Host| (host.status.standby.as_ref().map(|standby| standby.since), host.name().to_owned());
    waiting.sort_by_key(latest_last);
    under_way.sort_by_key(latest_last);
    let surplus = there.saturating_sub(wanted);
    orders.extend(under_way.iter().rev().chain(waiting.iter().rev()).take(surplus).map(|host| Order::GiveBack(host)));
    let missing = wanted.saturating_sub(there);
    if missing == 0 || class.image.is_none() {
        return Plan { orders, trouble: None };
    }
    let (room, trouble) = room(waiting.len(), under_way.len(), &failed, limits, now);
    let mut free: Vec<&Host> = free.into_iter().filter(|host| unfit(host).is_none()).collect();
    free.sort_by(|a, b| (a.status.tenancies.count, a.name()).cmp(&(b.status.tenancies.count, b.name())));
    orders.extend(free.into_iter().take(missing.min(room)).map(Order::Install));
    Plan { orders, trouble }
}

fn sort<'a>(class: Class<'_>, hosts: impl IntoIterator<Item = &'a Host>) -> Kept<'a> {
    let mut kept = Kept::default();
    for host in hosts {
        let Some(standby) = host.status.on_standby().filter(|standby| standby.node_type == class.name) else {
            continue;
        };
        if standby.wish == StandbyWish::GiveBack || host.is_deleted() {
            continue;
        }
        let labels = &host.metadata.labels;
        let belongs = class.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        let current = class.image.is_none_or(|image| image == standby.image);
        if class.wanted == 0 || !belongs || !current {
            kept.unwanted.push(host);
            continue;
        }
        match host.status.phase {
            HostPhase::Standby => kept.waiting.push(host),
            HostPhase::Available | HostPhase::Provisioning => kept.under_way.push(host),
            HostPhase::Error | HostPhase::Quarantined => {
                kept.failed.extend(host.status.failure.as_ref().filter(|failure| may_be_the_images(failure.cause)));
            }
            // On its way to the pool.
            _ => {}
        }
    }
    kept
}

/// How many more hosts may be begun with, and what stands in the way of more.
fn room(
    waiting: usize,
    under_way: usize,
    failed: &[&Failure],
    limits: &Limits,
    now: Timestamp,
) -> (usize, Option<StandbyTrouble>) {
    if waiting > 0 {
        return (usize::MAX, None);
    }
    let Some(last) = failed.iter().max_by_key(|failure| failure.at) else {
        return (limits.standby_hosts.saturating_sub(under_way), None);
    };
    let doubled = 1i32 << failed.len().saturating_sub(1).min(10);
    let next = after(last.at, limits.error_retry.checked_mul(doubled).unwrap_or(SignedDuration::MAX));
    let hopeless = failed.len() >= limits.standby_hosts;
    let room = usize::from(!hopeless && under_way == 0 && now >= next);
    let trouble = StandbyTrouble {
        failed: u32::try_from(failed.len()).unwrap_or(u32::MAX),
        failure: (*last).clone(),
        next: (!hopeless).then_some(next),
    };
    (room, Some(trouble))
}

/// Whether another host with the same image may fail of the same.
fn may_be_the_images(cause: Cause) -> bool {
    use Cause::{
        BmcBusy, BmcCertificate, BmcCredentials, BmcForbidden, BmcNotApplied, BmcProtocol, BmcSystem, BmcUnreachable,
        Forced, WrongMachine,
    };
    !matches!(
        cause,
        BmcUnreachable
            | BmcCredentials
            | BmcCertificate
            | BmcForbidden
            | BmcProtocol
            | BmcSystem
            | BmcBusy
            | BmcNotApplied
            | WrongMachine
            | Forced
    )
}

/// Why a host must not be put on standby, whatever a plan says.
fn unfit(host: &Host) -> Option<&'static str> {
    let status = &host.status;
    let held =
        [&status.pause, &status.maintenance, &status.quarantine, &status.detach].iter().any(|hold| hold.is_some());
    let rules = [
        (host.is_deleted(), "the host is being deleted"),
        (status.claim.is_some(), "the host is claimed"),
        (status.unerased.is_some(), "the host is not erased"),
        (status.standby.is_some(), "the host is on standby already"),
        (status.phase != HostPhase::Available, "the host is not available"),
        (held || host.spec.maintenance.is_some(), "the host is held back"),
    ];
    rules.into_iter().find_map(|(so, why)| so.then_some(why))
}

/// A host that must not be put on standby.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host {host} must not be put on standby: {why}")]
pub struct Unfit {
    /// The host.
    pub host: String,
    /// What stands in the way.
    pub why: &'static str,
}

/// What ordering a host to be installed ahead of claims writes, under the host's revision.
///
/// # Errors
/// [`Unfit`] when the host is not free: nothing must be ordered of it then.
pub fn install(host: &Host, standby: Standby) -> Result<(HostStatus, Note), Unfit> {
    if let Some(why) = unfit(host) {
        return Err(Unfit { host: host.name().to_owned(), why });
    }
    let note = Note::info("standby", format!("wanted on standby for node type {}", standby.node_type));
    Ok((HostStatus { standby: Some(standby), ..host.status.clone() }, note))
}

/// What ordering a host back to the pool writes, under the host's revision. `None` when a claim has it, or it is ordered
/// already.
pub fn give_back(host: &Host) -> Option<(HostStatus, Note)> {
    let standby = host.status.on_standby().filter(|standby| standby.wish == StandbyWish::Keep)?;
    let note = Note::info("standby", format!("not wanted on standby for node type {} any more", standby.node_type));
    let standby = Standby { wish: StandbyWish::GiveBack, ..standby.clone() };
    Some((HostStatus { standby: Some(standby), ..host.status.clone() }, note))
}

#[cfg(test)]
mod tests;
