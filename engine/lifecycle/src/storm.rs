//! When too many hosts fail at once, the fault is not the hosts'.
//!
//! A dead switch, a broken image, a wrong firmware or a mistake of the engine looks like a hundred failures of single hosts,
//! and an engine that answers each of them by the book (switch off, boot again, erase) does a hundred times damage. So while
//! a storm lasts, nothing destructive is begun: no host that belongs to somebody is switched, and none is booted to be
//! installed or erased. Looking, registering, inspecting and joining go on.
//!
//! A storm is read from what is stored, so that every engine sees the same one, and a restart does not forget it.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use vmetal_model::{Cause, Host, HostPhase, OperationKind, Timestamp};

/// When failures are a storm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StormLimits {
    /// At least this share of all hosts, in percent.
    pub percent: u8,
    /// At least so many: a few hosts in a small fleet are no storm.
    pub at_least: usize,
    /// Within this time. A storm is over when so long nothing new has failed.
    pub window: SignedDuration,
}

impl Default for StormLimits {
    /// 20 %, ten hosts, ten minutes.
    fn default() -> Self {
        StormLimits { percent: 20, at_least: 10, window: SignedDuration::from_mins(10) }
    }
}

/// Too many hosts fail at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storm {
    /// Hosts that failed within the window and have not got any further since.
    pub failing: usize,
    /// Of so many.
    pub hosts: usize,
    /// When there were enough of them.
    pub since: Timestamp,
    /// What most of them failed of, and how many that are.
    pub mostly: (Cause, usize),
    /// When it ends if nothing else fails and nothing recovers before.
    pub until: Timestamp,
}

impl Storm {
    /// Why nothing destructive is begun, for an operator.
    pub fn reason(&self) -> String {
        let Storm { failing, hosts, mostly: (cause, count), .. } = self;
        format!(
            "too many hosts fail at once ({failing} of {hosts}, {count} of them of {cause:?}): nothing is switched off, erased or installed"
        )
    }

    /// What ends it, for an operator.
    pub fn remedy(&self) -> String {
        format!(
            "enough of the failing hosts recover, or nothing new fails until {}; if it is not one fault that they share, raise \
             storm.percent in the engine's configuration and restart the engine",
            self.until
        )
    }
}

/// Whether the fleet is in a storm. `None`: no.
pub fn judge<'a>(hosts: impl IntoIterator<Item = &'a Host>, limits: &StormLimits, now: Timestamp) -> Option<Storm> {
    let mut total = 0;
    let mut failures: Vec<(Timestamp, Cause)> = Vec::new();
    for host in hosts {
        total += 1;
        let failure = host.status.failure.as_ref().filter(|failure| !is_its_own(failure.cause));
        let recent = failure.filter(|failure| now.duration_since(failure.at) < limits.window);
        failures.extend(recent.map(|failure| (failure.at, failure.cause)));
    }
    let share = (total * usize::from(limits.percent)).div_ceil(100);
    let needed = share.max(limits.at_least).max(1);
    if failures.len() < needed {
        return None;
    }
    failures.sort_unstable();
    let mut causes: BTreeMap<Cause, usize> = BTreeMap::new();
    for (_, cause) in &failures {
        *causes.entry(*cause).or_default() += 1;
    }
    let mostly = causes.into_iter().max_by_key(|(_, count)| *count)?;
    // Over when one too few is left in the window.
    let last = failures.get(failures.len() - needed)?.0;
    Some(Storm {
        failing: failures.len(),
        hosts: total,
        since: failures.get(needed - 1)?.0,
        mostly,
        until: crate::limits::after(last, limits.window),
    })
}

/// Whether a cause is a mistake about one host, which says nothing about the others: what only a corrected declaration helps
/// against.
fn is_its_own(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::BmcCredentials
            | Cause::BmcCertificate
            | Cause::BmcForbidden
            | Cause::BmcSystem
            | Cause::AddressExhausted
            | Cause::RootDevice
            | Cause::MissingReference
    )
}

/// Whether an effect can take something from somebody: power from a host in use, or what is on its disks.
pub fn is_destructive(host: &Host, kind: OperationKind) -> bool {
    let switches = matches!(kind, OperationKind::PowerOff | OperationKind::PowerOn | OperationKind::OpenBoot);
    let in_use = host.status.claim.is_some()
        || matches!(host.status.phase, HostPhase::Provisioning | HostPhase::Provisioned | HostPhase::Deprovisioning);
    switches && in_use
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::host::tests::host;
    use vmetal_model::Failure;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn fleet(size: usize, failing: impl IntoIterator<Item = (Cause, i64)>) -> Vec<Host> {
        let mut hosts: Vec<Host> = (0..size).map(|_| host()).collect();
        for (host, (cause, when)) in hosts.iter_mut().zip(failing) {
            let failure = Failure { cause, message: "m".to_owned(), advice: "a".to_owned(), at: at(when) };
            host.status.failure = Some(failure);
        }
        hosts
    }

    #[test]
    fn a_fifth_of_the_fleet_within_ten_minutes_is_a_storm_and_ends_by_itself() {
        let hosts = fleet(100, (0..20).map(|n| (Cause::BmcUnreachable, n)));
        let limits = StormLimits::default();
        let storm = judge(&hosts, &limits, at(30)).unwrap();
        assert_eq!((storm.failing, storm.hosts, storm.since), (20, 100, at(19)));
        assert_eq!(storm.mostly, (Cause::BmcUnreachable, 20));
        assert_eq!(judge(&hosts[1..], &limits, at(30)).map(|s| s.failing), None, "19 of 99 are not enough");
        assert!(judge(&hosts, &limits, storm.until - SignedDuration::from_secs(1)).is_some());
        assert_eq!(judge(&hosts, &limits, storm.until), None);
        assert!(storm.reason().contains("20 of 100") && storm.remedy().contains(&storm.until.to_string()));
    }

    #[test]
    fn a_few_hosts_and_mistakes_in_declarations_are_none() {
        let limits = StormLimits::default();
        assert_eq!(judge(&fleet(9, (0..9).map(|_| (Cause::Erase, 0))), &limits, at(1)), None);
        assert_eq!(judge(&fleet(100, (0..90).map(|_| (Cause::BmcCredentials, 0))), &limits, at(1)), None);
        assert!(judge(&fleet(10, (0..10).map(|_| (Cause::Erase, 0))), &limits, at(1)).is_some());
    }

    #[test]
    fn looking_and_inspecting_go_on() {
        let mut host = host();
        let kinds =
            [OperationKind::ProbeBmc, OperationKind::ReadPower, OperationKind::PowerOn, OperationKind::PowerOff];
        let judged = |host: &Host| kinds.map(|kind| is_destructive(host, kind));
        host.status.phase = HostPhase::Inspecting;
        assert_eq!(judged(&host), [false, false, false, false]);
        host.status.phase = HostPhase::Deprovisioning;
        assert_eq!(judged(&host), [false, false, true, true]);
    }
}
