//! What the tenant's cluster may hold, and when that changes.

use std::time::Duration;

use vmetal_model::{Quantity, Quota};

use super::{Wish, s};
use crate::chance::Chance;

/// The processors of a host of the class, as it is declared.
pub(crate) const CPUS: u64 = 8;

/// A quota of so many hosts, in one of the ways to say that; without a number, none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaPlan {
    /// How many.
    pub hosts: Option<u32>,
    /// How it is said.
    pub form: Form,
}

/// What a quota limits. As all hosts are of one class, all of it comes to the same number of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Hosts.
    Hosts,
    /// Hosts of the class.
    Class,
    /// Processors.
    Cpus,
}

impl QuotaPlan {
    /// As it is declared, for a class of this name.
    pub fn quota(self, class: &str) -> Quota {
        let Some(hosts) = self.hosts else { return Quota::default() };
        match self.form {
            Form::Hosts => Quota { hosts: Some(hosts), ..Quota::default() },
            Form::Class => Quota { node_types: [(class.to_owned(), hosts)].into(), ..Quota::default() },
            Form::Cpus => {
                let cpus = Quantity::units(u64::from(hosts) * CPUS);
                Quota { resources: [("cpu".to_owned(), cpus)].into(), ..Quota::default() }
            }
        }
    }
}

/// In one simulation of three; mostly changed later, mostly just when somebody claims: a quota that falls between a decision
/// and its commit is what goes wrong if anything does. By a chance of its own: what else a seed means does not depend on it.
pub(super) fn draw(seed: u64, hosts: usize, wishes: &[(Duration, Wish)]) -> Vec<(Duration, QuotaPlan)> {
    let chance = Chance::new(seed, "quota");
    if !chance.one_in(3) {
        return Vec::new();
    }
    let plan = |none: bool| QuotaPlan {
        hosts: (!none).then(|| chance.below(hosts as u64 + 1) as u32),
        form: *chance.pick(&[Form::Hosts, Form::Class, Form::Cpus]),
    };
    let mut all = vec![(Duration::ZERO, plan(chance.one_in(4)))];
    let claims: Vec<Duration> = wishes
        .iter()
        .filter(|(_, wish)| matches!(wish, Wish::Claim { .. } | Wish::Group { .. } | Wish::Release { .. }))
        .map(|(at, _)| *at)
        .collect();
    for _ in 0..chance.below(4) {
        let at = match claims.is_empty() || chance.one_in(4) {
            true => chance.between(s(60), s(70 * 60)),
            false => *chance.pick(&claims) + chance.between(Duration::ZERO, Duration::from_millis(60)),
        };
        all.push((at, plan(chance.one_in(6))));
    }
    all.sort_by_key(|(at, _)| *at);
    all
}
