//! Where a gang fits best.

use std::cmp::Reverse;

use vmetal_policy_sdk::Sym;

/// The open hosts of one domain, as (rank, row) in the order of names.
#[derive(Debug, Clone)]
pub(crate) struct Domain {
    pub(crate) parent: Sym,
    pub(crate) hosts: Vec<(u32, u32)>,
}

/// Groups open hosts, given as (parent, domain, rank, row).
pub(crate) fn group(mut hosts: Vec<(Sym, Sym, u32, u32)>) -> Vec<Domain> {
    hosts.sort_unstable();
    let mut domains: Vec<Domain> = Vec::new();
    let mut last = None;
    for (parent, domain, rank, row) in hosts {
        if last == Some((parent, domain)) {
            if let Some(open) = domains.last_mut() {
                open.hosts.push((rank, row));
            }
        } else {
            domains.push(Domain { parent, hosts: vec![(rank, row)] });
            last = Some((parent, domain));
        }
    }
    domains
}

/// One way to place a gang: the better, the smaller.
type Way = (usize, usize, u32, Vec<u32>);

/// The rows for `wanted` hosts in pieces of `segment` (the last may be smaller); none when they do not fit.
pub(crate) fn best(domains: &[Domain], wanted: usize, segment: usize) -> Option<Vec<u32>> {
    let mut from = 0;
    let mut best: Option<Way> = None;
    while from < domains.len() {
        let parent = domains[from].parent;
        let to = domains[from..].iter().position(|domain| domain.parent != parent).map_or(domains.len(), |n| from + n);
        if let Some(way) = within(&domains[from..to], wanted, segment) {
            best = Some(match best {
                Some(other) if other <= way => other,
                _ => way,
            });
        }
        from = to;
    }
    best.map(|(_, _, _, rows)| rows)
}

/// The same among domains of one parent: the largest first until the rest fits into one, which is then the tightest.
fn within(domains: &[Domain], wanted: usize, segment: usize) -> Option<Way> {
    let mut left: Vec<&Domain> = domains.iter().collect();
    let (mut missing, mut used, mut over) = (wanted, 0, 0);
    let (mut rows, mut first) = (Vec::new(), u32::MAX);
    while missing > 0 {
        let takes = |domain: &Domain| {
            if domain.hosts.len() >= missing { missing } else { domain.hosts.len() / segment * segment }
        };
        let name = |domain: &Domain| domain.hosts.first().map_or(u32::MAX, |(rank, _)| *rank);
        let tightest = left.iter().filter(|domain| domain.hosts.len() >= missing);
        let tightest = tightest.min_by_key(|domain| (domain.hosts.len(), name(domain)));
        let largest = || left.iter().max_by_key(|domain| (takes(domain), Reverse(name(domain))));
        let chosen: &Domain = tightest.or_else(largest).filter(|domain| takes(domain) > 0)?;
        let taken = takes(chosen);
        rows.extend(chosen.hosts.iter().take(taken).map(|(_, row)| *row));
        first = first.min(name(chosen));
        over += chosen.hosts.len() - taken;
        missing -= taken;
        used += 1;
        left.retain(|domain| !std::ptr::eq(*domain, chosen));
    }
    Some((used, over, first, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Domains by (parent, free hosts); rows count up.
    fn domains(sizes: &[(Sym, usize)]) -> Vec<Domain> {
        let mut next = 0u32;
        let mut hosts = |count: usize| {
            (0..count)
                .map(|_| {
                    next += 1;
                    (next - 1, next - 1)
                })
                .collect()
        };
        sizes.iter().map(|(parent, count)| Domain { parent: *parent, hosts: hosts(*count) }).collect()
    }

    #[test]
    fn the_tightest_domain_wins_then_the_first_name() {
        assert_eq!(best(&domains(&[(1, 8), (1, 4), (1, 3), (1, 4)]), 4, 4), Some(vec![8, 9, 10, 11]));
        assert_eq!(best(&domains(&[(1, 3), (1, 3)]), 4, 4), None);
    }

    #[test]
    fn segments_stay_whole_and_under_one_parent() {
        // Parent 1 has room for 4 + 2, parent 2 for 2 + 2 only, and a third domain in parent 2 with one host is no use.
        let all = domains(&[(1, 5), (1, 3), (2, 2), (2, 2), (2, 1)]);
        assert_eq!(best(&all, 6, 2), Some(vec![0, 1, 2, 3, 5, 6]));
        assert_eq!(best(&all, 4, 2), Some(vec![0, 1, 2, 3]), "one domain rather than two without a rest");
        assert_eq!(best(&all, 8, 2), None, "no parent has room for 8 in whole segments");
    }
}
