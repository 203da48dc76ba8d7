//! One trace of claims over one fleet, replayed for several policies.
//!
//! A claim that cannot have all its hosts at once goes away and is counted; there is no queue, so that every policy is asked
//! for the same at the same time. What differs between policies is then only what they left for those who came later.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vmetal_model::HostPhase;
use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_policy::{HostRow, Workbench};

use crate::error::ToolError;
use crate::fleet::{ClaimRow, Fleet, Trace};
use crate::spec::Spec;

/// What a policy made of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The policy as it was named, with its settings.
    pub policy: String,
    /// Claims that had their hosts.
    pub placed: u32,
    /// Claims that went away.
    pub unplaced: u32,
    /// Host hours given to claims.
    pub host_hours: u64,
    /// What those cost, in thousands of cost units times hours, by the published price list or the operator's own price.
    pub cost: u64,
    /// Domains without any claim, in thousandths of all, on average over time: room for those who want a whole one.
    pub whole_domains: u32,
    /// Racks that a claim for several hosts was spread over, on average, in thousandths.
    pub racks_per_claim: u32,
    /// Claims for several hosts that got them all in one domain, in thousandths of those placed.
    pub in_one_domain: u32,
    /// How often the host that was taken most often was taken: how unevenly hosts wear.
    pub most_used: u32,
    /// Whole domains over time: seconds since the first claim, and how many.
    #[serde(skip)]
    pub whole: Vec<(u64, u32)>,
}

/// Which labels are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// The domain that is to stay whole.
    pub domain: String,
    /// What is called a rack.
    pub rack: String,
}

impl Default for Levels {
    fn default() -> Self {
        let [.., rack, domain] = vmetal_policy::columns::LEVELS.map(str::to_owned);
        Levels { domain, rack }
    }
}

/// Replays the trace for each policy, in the order given. Each is a placement policy (the default cost policy chooses node
/// types then) or a cost policy (the default placement policy chooses hosts then).
///
/// # Errors
/// The first policy that is refused or fails, with the claim at which it did.
pub fn simulate(specs: &[Spec], fleet: &Fleet, trace: &Trace, levels: &Levels) -> Result<Vec<Outcome>, ToolError> {
    if fleet.hosts.is_empty() || trace.claims.is_empty() {
        return Err(ToolError::Usage { message: "a simulation needs hosts and claims; there are none".to_owned() });
    }
    specs.iter().map(|spec| Run::new(spec, fleet, levels)?.replay(trace)).collect()
}

/// What happens next. Departures come before arrivals of the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Leaves(usize),
    Comes(usize),
}

struct Run<'a> {
    policy: String,
    bench: Workbench,
    fleet: &'a Fleet,
    levels: &'a Levels,
    hosts: BTreeMap<&'a str, HostRow>,
    columns: vmetal_policy::Columns,
    /// Price of an hour of each node type, in millionths.
    prices: BTreeMap<String, i64>,
    /// Claimed hosts of each domain.
    taken: BTreeMap<&'a str, u32>,
    held: BTreeMap<usize, Vec<String>>,
    sums: Sums,
}

#[derive(Default)]
struct Sums {
    placed: u32,
    unplaced: u32,
    host_seconds: u64,
    micro_seconds: u128,
    several: u64,
    racks: u64,
    in_one: u64,
    uses: BTreeMap<String, u32>,
}

/// The part of a whole, in thousandths, rounded.
fn thousandths(part: u128, whole: u128) -> u32 {
    (part * 1000 + whole / 2).checked_div(whole).map_or(0, |share| u32::try_from(share).unwrap_or(u32::MAX))
}

impl<'a> Run<'a> {
    fn new(spec: &Spec, fleet: &'a Fleet, levels: &'a Levels) -> Result<Self, ToolError> {
        let bench = spec.open()?;
        let mut columns = fleet.columns();
        let offers = fleet.counted(&columns.view());
        // One price list for all policies, so that what they chose is compared and not how they count.
        let list = Workbench::native("cost-vcluster", "")?;
        let prices = list.engine().prices(&offers, 0);
        let prices =
            prices.map_err(|source| ToolError::Decision { when: "pricing the node types".to_owned(), source })?;
        let domains = fleet.hosts.iter().filter_map(|host| host.labels.get(&levels.domain));
        Ok(Run {
            policy: spec.to_string(),
            bench,
            fleet,
            levels,
            hosts: fleet.hosts.iter().map(|host| (host.name.as_str(), host.clone())).collect(),
            columns,
            prices: offers.into_iter().map(|offer| offer.name).zip(prices.iter().map(|cost| cost.micro())).collect(),
            taken: domains.map(|domain| (domain.as_str(), 0)).collect(),
            held: BTreeMap::new(),
            sums: Sums::default(),
        })
    }

    fn replay(mut self, trace: &Trace) -> Result<Outcome, ToolError> {
        let claims = &trace.claims;
        let mut queue: BTreeSet<(u64, Event)> =
            claims.iter().enumerate().map(|(at, claim)| (claim.at, Event::Comes(at))).collect();
        let (begin, end) = claims.iter().fold((u64::MAX, 0), |(b, e), claim| (b.min(claim.at), e.max(claim.at)));
        for host in self.hosts.values().filter(|host| host.claimed_by.is_some()) {
            if let Some(count) = host.labels.get(&self.levels.domain).and_then(|of| self.taken.get_mut(of.as_str())) {
                *count += 1;
            }
        }
        let mut whole = vec![(0, self.whole())];
        while let Some((now, event)) = queue.pop_first() {
            // The tail, in which claims only leave, says nothing about a policy.
            if now > end {
                break;
            }
            match event {
                Event::Comes(at) => {
                    let claim = &claims[at];
                    if self.arrive(at, claim, now, end)? {
                        queue.extend(claim.lasts.map(|lasts| (now.saturating_add(lasts), Event::Leaves(at))));
                    }
                }
                Event::Leaves(at) => self.leave(at, now),
            }
            whole.push((now - begin, self.whole()));
        }
        Ok(self.outcome(whole))
    }

    /// Domains without any claim.
    fn whole(&self) -> u32 {
        u32::try_from(self.taken.values().filter(|taken| **taken == 0).count()).unwrap_or(u32::MAX)
    }

    fn arrive(&mut self, at: usize, claim: &ClaimRow, now: u64, end: u64) -> Result<bool, ToolError> {
        let view = self.columns.view();
        let offers = self.fleet.counted(&view);
        let wanted = claim.wanted();
        let failed = |source| ToolError::Decision {
            when: format!("{} gave no decision on claim {}", self.policy, claim.name),
            source,
        };
        let chosen = self.bench.engine().choose_type(&wanted, &offers, now).map_err(failed)?.chosen;
        let hosts = match chosen {
            Some(index) => self.bench.engine().place(&wanted, &offers[index], &view, now).map_err(failed)?.chosen,
            None => Vec::new(),
        };
        drop(view);
        let (Some(index), false) = (chosen, hosts.is_empty()) else {
            self.sums.unplaced += 1;
            return Ok(false);
        };
        let seconds = claim.lasts.unwrap_or(u64::MAX).min(end - now) * hosts.len() as u64;
        self.sums.placed += 1;
        self.sums.host_seconds += seconds;
        let price = self.prices.get(&offers[index].name).copied().unwrap_or(0);
        self.sums.micro_seconds += u128::from(price.unsigned_abs()) * u128::from(seconds);
        self.count_places(&hosts);
        for name in &hosts {
            self.change(name, |host| {
                host.claimed_by = Some(claim.name.clone());
                host.phase = HostPhase::Provisioned;
                host.power = PowerState::On;
                host.last_tenant.clone_from(&claim.cluster);
                host.provisions += 1;
            });
        }
        self.held.insert(at, hosts);
        Ok(true)
    }

    fn count_places(&mut self, hosts: &[String]) {
        let rows: Vec<&HostRow> = hosts.iter().filter_map(|name| self.hosts.get(name.as_str())).collect();
        let distinct =
            |label: &str| rows.iter().map(|host| host.labels.get(label)).collect::<BTreeSet<_>>().len() as u64;
        hosts.iter().for_each(|host| *self.sums.uses.entry(host.clone()).or_default() += 1);
        if rows.len() > 1 {
            self.sums.several += 1;
            self.sums.racks += distinct(&self.levels.rack);
            self.sums.in_one += u64::from(distinct(&self.levels.domain) == 1);
        }
    }

    fn leave(&mut self, at: usize, now: u64) {
        for name in self.held.remove(&at).unwrap_or_default() {
            self.change(&name, |host| {
                host.claimed_by = None;
                host.phase = HostPhase::Available;
                host.power = PowerState::Off;
                host.last_release = now;
                host.erased = Some(EraseLevel::Overwrite);
            });
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut HostRow)) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let before = host.claimed_by.is_some();
        change(host);
        self.columns.insert(host);
        let Some(taken) = host.labels.get(&self.levels.domain).and_then(|of| self.taken.get_mut(of.as_str())) else {
            return;
        };
        match (before, host.claimed_by.is_some()) {
            (false, true) => *taken += 1,
            (true, false) => *taken -= 1,
            _ => {}
        }
    }

    fn outcome(self, whole: Vec<(u64, u32)>) -> Outcome {
        let Sums { placed, unplaced, host_seconds, micro_seconds, several, racks, in_one, uses } = self.sums;
        let weighted = whole.windows(2).map(|pair| u128::from(pair[1].0 - pair[0].0) * u128::from(pair[0].1)).sum();
        let span = u128::from(whole.last().map_or(0, |(at, _)| *at)) * self.taken.len() as u128;
        Outcome {
            policy: self.policy,
            placed,
            unplaced,
            host_hours: host_seconds / 3600,
            cost: u64::try_from(micro_seconds / 3600 / 1_000_000_000).unwrap_or(u64::MAX),
            whole_domains: thousandths(weighted, span),
            racks_per_claim: thousandths(racks.into(), several.into()),
            in_one_domain: thousandths(in_one.into(), several.into()),
            most_used: uses.into_values().max().unwrap_or(0),
            whole,
        }
    }
}

/// A number that is compared.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What it is.
    pub name: &'static str,
    /// How it is shown.
    pub show: fn(&Outcome) -> String,
    /// Its value, for ratios.
    pub value: fn(&Outcome) -> u64,
}

fn tenths(thousandths: u32) -> String {
    let tenths = (thousandths + 5) / 10;
    format!("{}.{:02}", tenths / 100, tenths % 100)
}

fn percent(thousandths: u32) -> String {
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// What outcomes are compared by.
pub const MEASURES: [Measure; 8] = [
    Measure { name: "claims placed", show: |one| one.placed.to_string(), value: |one| one.placed.into() },
    Measure { name: "claims unplaced", show: |one| one.unplaced.to_string(), value: |one| one.unplaced.into() },
    Measure { name: "host hours given", show: |one| one.host_hours.to_string(), value: |one| one.host_hours },
    Measure { name: "cost (1000 units x h)", show: |one| one.cost.to_string(), value: |one| one.cost },
    Measure { name: "domains whole", show: |one| percent(one.whole_domains), value: |one| one.whole_domains.into() },
    Measure {
        name: "racks per claim for several",
        show: |one| tenths(one.racks_per_claim),
        value: |one| one.racks_per_claim.into(),
    },
    Measure {
        name: "claims for several in one domain",
        show: |one| percent(one.in_one_domain),
        value: |one| one.in_one_domain.into(),
    },
    Measure {
        name: "times the most used host was taken",
        show: |one| one.most_used.to_string(),
        value: |one| one.most_used.into(),
    },
];

/// A value as a ratio to the same of another policy: `1.25`, or nothing when there is nothing to compare with.
pub fn ratio(value: u64, first: u64) -> String {
    let hundredths = (u128::from(value) * 100 + u128::from(first) / 2).checked_div(u128::from(first));
    hundredths.map_or_else(|| "-".to_owned(), |ratio| format!("{}.{:02}", ratio / 100, ratio % 100))
}

/// Rows of a table: the measure, then for each policy its value and, from the second on, the ratio to the first.
pub fn table(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let row = |measure: &Measure| {
        let first = outcomes.first().map_or(0, measure.value);
        let cells = outcomes.iter().enumerate().map(|(at, one)| match at {
            0 => (measure.show)(one),
            _ => format!("{} ({})", (measure.show)(one), ratio((measure.value)(one), first)),
        });
        std::iter::once(measure.name.to_owned()).chain(cells).collect()
    };
    MEASURES.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fleet(text: &str) -> Fleet {
        serde_yaml_ng::from_str(text).unwrap()
    }

    fn claim(name: &str, count: u32, at: u64, lasts: u64) -> ClaimRow {
        let text = format!("{{ name: {name}, count: {count}, at: {at}, lasts: {lasts} }}");
        serde_yaml_ng::from_str(&text).unwrap()
    }

    /// Two domains of two hosts; names alternate between them.
    fn four() -> Fleet {
        let host = |name: &str, domain: &str| {
            format!(
                "- {{ name: {name}, phase: available, hardware: {{}}, labels: {{ topology.vmetal.dev/rack: {domain}, \
                 topology.vmetal.dev/nvlink-domain: {domain} }} }}\n"
            )
        };
        let hosts = [host("a", "x"), host("b", "y"), host("c", "x"), host("d", "y")].concat();
        fleet(&format!("hosts:\n{hosts}"))
    }

    #[test]
    fn what_is_counted_can_be_counted_by_hand() {
        // One host for 100 s; two from 50 s on; three at 60 s, for which there is no room; the end at 200 s.
        let trace = Trace {
            claims: vec![
                claim("one", 1, 0, 100),
                claim("two", 2, 50, 1000),
                claim("three", 3, 60, 5),
                claim("end", 1, 200, 1),
            ],
        };
        let specs = ["place-first-fit", "place-gang-topology"].map(Spec::read);
        let outcomes = simulate(&specs, &four(), &trace, &Levels::default()).unwrap();
        let [first, gang] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        // First fit: a; then b and c, one in each domain; then a again. None whole from 50 s on, one before.
        assert_eq!((first.placed, first.unplaced, first.racks_per_claim, first.in_one_domain), (3, 1, 2000, 0));
        assert_eq!(first.whole_domains, 125);
        // Together: a; then b and d; then a again. One whole until 50 s, none until 100 s, one until 200 s.
        assert_eq!((gang.placed, gang.unplaced, gang.racks_per_claim, gang.in_one_domain), (3, 1, 1000, 1000));
        assert_eq!(gang.whole_domains, 375);
        // Until the end: 100 + 2 x 150 + 0 seconds.
        assert_eq!((first.host_hours, gang.host_hours), (0, 0));
        assert_eq!((first.most_used, gang.most_used), (2, 2));
        let rows = table(&outcomes);
        assert_eq!(rows[4], ["domains whole", "12.5 %", "37.5 % (3.00)"]);
        assert_eq!((ratio(1, 0).as_str(), ratio(2, 3).as_str()), ("-", "0.67"));
    }

    #[test]
    fn a_refused_policy_and_an_empty_fleet_are_named() {
        let trace = Trace { claims: vec![claim("one", 1, 0, 1)] };
        let empty = simulate(&[Spec::read("place-balanced")], &fleet("hosts: []"), &trace, &Levels::default());
        assert!(empty.unwrap_err().to_string().contains("needs hosts and claims"));
        let unknown = simulate(&[Spec::read("place-nothing")], &four(), &trace, &Levels::default());
        assert!(matches!(unknown, Err(ToolError::NoSuchPolicy { .. })));
    }
}
