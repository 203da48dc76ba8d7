//! Random fleets and claims, and what must hold of every answer.
//!
//! Of each pair of a fleet and a claim: the policy answers (no trap, fuel and memory suffice); the answer is believed (no
//! row that does not exist, that the rules exclude, or twice; all that are wanted or none); it is the same when asked again;
//! it is the same when the rows come in another order; the terms add up to the score; and a shipped policy's component
//! answers as its native twin. What fails is made as small as it can be made and still fails, and can be looked at with
//! `vmetal policy explain`.

use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_model::{HostPhase, Quantity};
use vmetal_policy::{Hardware, HostRow, Record, Workbench};
use vmetal_policy_sdk::Kind;

use crate::chance::Chance;
use crate::error::ToolError;
use crate::fleet::{ClaimRow, Fleet, Trace, TypeRow};
use crate::spec::Spec;
use crate::trial::chain;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Fuzzed {
    /// The policy, as `name@version sha256:…`.
    pub policy: String,
    /// Pairs tried.
    pub tried: u32,
    /// Those in which something was chosen: where that is rare, little was shown.
    pub chosen: u32,
    /// The most fuel that a decision used for each candidate.
    pub fuel_per_row: u64,
    /// What failed first.
    pub failure: Option<Failure>,
}

/// One failure, as small as it could be made.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What does not hold.
    pub what: String,
    /// The fleet.
    pub fleet: Fleet,
    /// The claim.
    pub trace: Trace,
}

/// Tries so many pairs.
///
/// # Errors
/// When the policy is refused. A property that does not hold is no error but a [`Failure`].
pub fn fuzz(spec: &Spec, seed: u64, cases: u32) -> Result<Fuzzed, ToolError> {
    let bench = spec.open()?;
    let twin = match bench.outside() {
        Some(_) => spec.twin(&bench.identity().name)?,
        None => None,
    };
    let subject = Subject { bench, twin };
    let mut fuzzed =
        Fuzzed { policy: subject.bench.identity().to_string(), tried: 0, chosen: 0, fuel_per_row: 0, failure: None };
    for case in 0..u64::from(cases) {
        // A sequence for each case, so that one can be repeated without those before it.
        let mut chance = Chance::new(seed.wrapping_add(case.wrapping_mul(0x1_0000_0001)));
        let (fleet, claim) = (fleet(&mut chance), claim(&mut chance));
        fuzzed.tried += 1;
        match subject.check(&fleet, &claim, &mut chance) {
            Ok(seen) => {
                fuzzed.chosen += u32::from(!seen.chosen.is_empty());
                let rows = seen.candidates.len().max(1) as u64;
                fuzzed.fuel_per_row = fuzzed.fuel_per_row.max(seen.fuel.unwrap_or(0) / rows);
            }
            Err(_) => {
                fuzzed.failure = Some(subject.shrink(fleet, claim, &chance));
                break;
            }
        }
    }
    Ok(fuzzed)
}

struct Subject {
    bench: Workbench,
    twin: Option<Workbench>,
}

impl Subject {
    fn decide(bench: &Workbench, fleet: &Fleet, claim: &ClaimRow) -> Result<Record, String> {
        let (view, wanted) = (fleet.columns().view(), claim.wanted());
        let offers = fleet.counted(&view);
        let record = match bench.kind() {
            Kind::Cost => bench.engine().choose_type(&wanted, &offers, claim.at).map(|decided| decided.record),
            Kind::Placement => {
                let offer = offers.into_iter().next().unwrap_or_else(|| vmetal_policy::Offer::empty("any"));
                bench.engine().place(&wanted, &offer, &view, claim.at).map(|decided| decided.record)
            }
        };
        record.map_err(|error| chain(&error))
    }

    /// The parts of the first candidate's score or price, added up, and what they should be.
    fn sum(&self, fleet: &Fleet, claim: &ClaimRow, record: &Record) -> Result<Option<(i64, i64)>, String> {
        let Some(first) = record.candidates.first() else { return Ok(None) };
        let (view, wanted) = (fleet.columns().view(), claim.wanted());
        let offers = fleet.counted(&view);
        let engine = self.bench.engine();
        let (parts, whole) = match self.bench.kind() {
            Kind::Cost => {
                let index = offers.iter().position(|offer| offer.name == first.name).unwrap_or(0);
                let price = first.cost.map_or(0, vmetal_policy::Cost::micro);
                (engine.explain_price(&wanted, &offers, index, claim.at), price)
            }
            Kind::Placement => {
                let offer = offers.into_iter().next().unwrap_or_else(|| vmetal_policy::Offer::empty("any"));
                (engine.explain_score(&wanted, &offer, &view, &first.name, claim.at), first.score)
            }
        };
        let parts = parts.map_err(|error| format!("explain: {}", chain(&error)))?;
        // A policy that explains nothing says nothing wrong.
        let sum = parts.iter().fold(0i64, |sum, (_, part)| sum.saturating_add(*part));
        Ok((!parts.is_empty()).then_some((sum, whole)))
    }

    /// The decision, if everything holds that must.
    fn check(&self, fleet: &Fleet, claim: &ClaimRow, chance: &mut Chance) -> Result<Record, String> {
        let decide = |fleet: &Fleet| Self::decide(&self.bench, fleet, claim);
        let record = decide(fleet)?;
        let again = decide(fleet)?;
        if (&again.chosen, &again.candidates) != (&record.chosen, &record.candidates) {
            return Err(format!("asked again it chose {:?} instead of {:?}", again.chosen, record.chosen));
        }
        // First an order that is another one for however few rows, so that a failure can be made small.
        let mut reversed = fleet.clone();
        reversed.hosts.reverse();
        let mut shuffled = fleet.clone();
        chance.shuffle(&mut shuffled.hosts);
        // For a placement policy the first node type is the one that hosts are wanted of.
        if self.bench.kind() == Kind::Cost {
            reversed.node_types.reverse();
            chance.shuffle(&mut shuffled.node_types);
        }
        for other in [reversed, shuffled] {
            let (now, before) = (decide(&other)?.chosen, &record.chosen);
            if now != *before {
                return Err(format!("with rows in another order it chose {now:?} instead of {before:?}"));
            }
        }
        if let Some((sum, whole)) = self.sum(fleet, claim, &record)?.filter(|(sum, whole)| sum != whole) {
            let name = &record.candidates[0].name;
            return Err(format!("the terms of {name} add up to {sum}, but its score or price is {whole}"));
        }
        if let Some(twin) = &self.twin {
            let theirs = Self::decide(twin, fleet, claim).map_err(|error| format!("native twin: {error}"))?;
            if (&theirs.chosen, &theirs.candidates) != (&record.chosen, &record.candidates) {
                return Err(format!("chose {:?}, its native twin {:?}", record.chosen, theirs.chosen));
            }
        }
        Ok(record)
    }

    /// Leaves out whatever can be left out without the failure going away.
    fn shrink(&self, mut fleet: Fleet, mut claim: ClaimRow, chance: &Chance) -> Failure {
        let fails = |fleet: &Fleet, claim: &ClaimRow| self.check(fleet, claim, &mut chance.clone()).err();
        let mut at = 0;
        while at < fleet.hosts.len() {
            let mut smaller = fleet.clone();
            smaller.hosts.remove(at);
            if fails(&smaller, &claim).is_some() { fleet = smaller } else { at += 1 }
        }
        for kept in (1..fleet.node_types.len()).rev() {
            let mut smaller = fleet.clone();
            smaller.node_types.truncate(kept);
            if fails(&smaller, &claim).is_none() {
                break;
            }
            fleet = smaller;
        }
        let plain = ClaimRow { count: 1, resources: Default::default(), ..claim.clone() };
        if fails(&fleet, &plain).is_some() {
            claim = plain;
        }
        let what = fails(&fleet, &claim).unwrap_or_else(|| "failed, and then did not again".to_owned());
        Failure { what, fleet, trace: Trace { claims: vec![claim] } }
    }
}

fn fleet(chance: &mut Chance) -> Fleet {
    let racks = chance.between(1, 6);
    let hosts = chance.between(1, 60);
    let mut numbers: Vec<u64> = (0..hosts).collect();
    chance.shuffle(&mut numbers);
    let types = chance.between(1, 4);
    Fleet {
        node_types: (0..types).map(|number| node_type(chance, number)).collect(),
        hosts: numbers.into_iter().map(|number| host(chance, number, racks)).collect(),
        ..Fleet::empty()
    }
}

/// Amounts at both ends of what there is, and few distinct ones between, so that equal scores are common.
const AMOUNTS: [u64; 8] = [0, 1, 2, 4, 8, 64, 1 << 40, u64::MAX / 1000];

fn node_type(chance: &mut Chance, number: u64) -> TypeRow {
    let mut resources = vmetal_model::Resources::new();
    for name in ["cpu", "memory", "nvidia.com/gpu"] {
        if chance.percent(40) {
            let amount = chance.pick(&AMOUNTS).copied().unwrap_or(0);
            resources.insert(name.to_owned(), Quantity::units(amount));
        }
    }
    let selector = if chance.percent(30) { [("gpu".to_owned(), "h100".to_owned())].into() } else { Default::default() };
    let watts = chance.below(2000).to_string();
    TypeRow {
        name: format!("type-{number}"),
        selector,
        properties: if chance.percent(50) {
            [("cost.vmetal.dev/watts".to_owned(), watts)].into()
        } else {
            Default::default()
        },
        resources,
        cost: chance.percent(20).then(|| chance.below(3)),
    }
}

fn host(chance: &mut Chance, number: u64, racks: u64) -> HostRow {
    let mut labels = std::collections::BTreeMap::new();
    for (level, width) in vmetal_policy::columns::LEVELS.iter().zip([1, 1, 2, racks, racks]) {
        // Now and then nobody knows where a host is.
        if !chance.percent(8) {
            labels.insert((*level).to_owned(), format!("d{}", chance.below(width)));
        }
    }
    if chance.percent(70) {
        labels.insert("gpu".to_owned(), ["h100", "a100"][usize::from(chance.percent(30))].to_owned());
    }
    let claimed = chance.percent(25);
    let phase = match (claimed, chance.percent(80)) {
        (true, _) => HostPhase::Provisioned,
        (false, true) => HostPhase::Available,
        (false, false) => chance.pick(&HostPhase::ALL).copied().unwrap_or_default(),
    };
    HostRow {
        name: format!("h{number:03}"),
        deleted: chance.percent(2),
        held: chance.percent(4),
        phase,
        claimed_by: claimed.then(|| format!("node-{number}")),
        labels,
        hardware: (!chance.percent(3)).then(|| Hardware {
            threads: u32::try_from(chance.below(256)).unwrap_or(0),
            memory_bytes: chance.below(2048) << 30,
            accelerators: [("nvidia.com/gpu".to_owned(), u32::try_from(chance.below(9)).unwrap_or(0))].into(),
            gpu_model: chance.percent(50).then(|| "10de:2941".to_owned()),
        }),
        last_release: if chance.percent(50) { chance.below(NOW + 1000) } else { 0 },
        last_tenant: ["", "blue", "green"][usize::try_from(chance.below(3)).unwrap_or(0)].to_owned(),
        provisions: if chance.percent(3) { u32::MAX } else { u32::try_from(chance.below(20)).unwrap_or(0) },
        power: [PowerState::Unknown, PowerState::On, PowerState::Off][usize::try_from(chance.below(3)).unwrap_or(0)],
        erased: [None, Some(EraseLevel::Metadata), Some(EraseLevel::Discard), Some(EraseLevel::Overwrite)]
            [usize::try_from(chance.below(4)).unwrap_or(0)],
        failures: if chance.percent(10) { u32::try_from(chance.below(9)).unwrap_or(0) } else { 0 },
    }
}

/// The time of every random decision.
const NOW: u64 = 1_767_225_600;

fn claim(chance: &mut Chance) -> ClaimRow {
    let mut resources = vmetal_model::Resources::new();
    for name in ["cpu", "nvidia.com/gpu"] {
        if chance.percent(40) {
            resources.insert(name.to_owned(), Quantity::units(chance.below(9)));
        }
    }
    ClaimRow {
        name: format!("claim-{}", chance.below(100)),
        cluster: ["blue", "green"][usize::from(chance.percent(50))].to_owned(),
        count: if chance.percent(60) { 1 } else { u32::try_from(chance.between(2, 12)).unwrap_or(1) },
        at: NOW,
        lasts: None,
        node_type: None,
        resources,
        requirements: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_failure_is_found_and_made_small() {
        // Two policies that are not each other's twins.
        let native = |name| Workbench::native(name, "").unwrap();
        let subject = Subject { bench: native("place-first-fit"), twin: Some(native("place-balanced")) };
        let mut chance = Chance::new(5);
        let mut pairs = (0..20).map(|_| (fleet(&mut chance), claim(&mut chance)));
        let fails = |fleet: &Fleet, claim: &ClaimRow| subject.check(fleet, claim, &mut Chance::new(1)).is_err();
        let (fleet, claim) = pairs.find(|(fleet, claim)| fleet.hosts.len() > 10 && fails(fleet, claim)).unwrap();
        let small = subject.shrink(fleet, claim, &Chance::new(1));
        assert!(small.what.contains("its native twin"), "{}", small.what);
        // Which of two hosts is taken, or how good one is.
        assert!((1..=2).contains(&small.fleet.hosts.len()), "{:#?}", small.fleet.hosts);
        assert_eq!(small.trace.claims[0].count, 1);
    }

    #[test]
    fn shipped_policies_hold_what_must_hold_and_most_cases_have_a_choice() {
        for name in [vmetal_policy::shipped(Kind::Cost), vmetal_policy::shipped(Kind::Placement)].concat() {
            let fuzzed = fuzz(&Spec::read(name), 1, 150).unwrap();
            assert!(fuzzed.failure.is_none(), "{name}: {:#?}", fuzzed.failure);
            assert_eq!(fuzzed.tried, 150);
            assert!(fuzzed.chosen > 20, "{name}: something was chosen in {} of 150 cases only", fuzzed.chosen);
        }
    }
}
