//! The policy itself; the same code is the native twin and the component.

use vmetal_policy_sdk::{
    Arg, Claim, Context, Decision, Factor, HostRef, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Reason, Sym,
    Tally, Verdict, gate, settings,
};

settings! {
    /// See the crate's description.
    struct Settings {
        /// The label that says which failure domain a host is in.
        level: String = "topology.vmetal.dev/rack".to_owned(),
        /// By how many the tenant's hosts in two domains may differ; at least 1.
        max_skew: Option<u32> = None,
        /// Leave domains alone in which another tenant has a host.
        exclusive: bool = false,
    }
}

/// The host's domain is not known.
const UNKNOWN: u32 = 1000;
/// Another tenant has a host in the domain.
const SHARED: u32 = 1001;
/// The tenant would have too many hosts in the domain.
const SKEW: u32 = 1002;

/// See the crate's description.
pub struct PlaceSpread;

impl Policy for PlaceSpread {
    fn describe() -> Info {
        let reason = |code, text: &str, arg| Reason { code, text: text.to_owned(), arg };
        Info {
            name: "place-spread".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Placement,
            reasons: vec![
                reason(UNKNOWN, "no {} is known of it", Arg::Sym),
                reason(SHARED, "another tenant has a host in {}", Arg::Sym),
                reason(SKEW, "the tenant would have too many hosts in {}", Arg::Sym),
            ],
        }
    }

    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        let settings: Settings = settings::read(json)?;
        if settings.max_skew == Some(0) {
            return Err(vec!["max_skew is 0, expected at least 1: nothing could be placed".to_owned()]);
        }
        Ok(vec![settings.level])
    }

    fn settings_schema() -> String {
        settings::schema::<Settings>()
    }
}

/// Who is where.
struct Domains {
    settings: Settings,
    level_name: Sym,
    level: Option<usize>,
    own: Tally,
    others: Tally,
    free: Tally,
}

impl Domains {
    fn new(ctx: &Context, claim: &Claim, hosts: &Hosts) -> Self {
        let level_name = ctx.symbols.first().copied().unwrap_or(0);
        let level = hosts.level(level_name);
        let domain = |host: HostRef<'_>| level.map_or(0, |level| host.domain(level));
        let owned = |host: HostRef<'_>| host.last_tenant() == claim.tenant_cluster;
        let own = Tally::of(hosts, domain, |host| host.is_occupied() && owned(host));
        let others = Tally::of(hosts, domain, |host| host.is_occupied() && !owned(host));
        let free = Tally::of(hosts, domain, |host| host.is_open());
        Domains { settings: settings::accepted(&ctx.settings), level_name, level, own, others, free }
    }

    fn of(&self, host: HostRef<'_>) -> Sym {
        self.level.map_or(0, |level| host.domain(level))
    }

    fn verdict(&self, host: HostRef<'_>) -> Verdict {
        let (domain, score) = (self.of(host), self.score(host));
        match domain {
            _ if !host.is_open() => Verdict::ranked(host.gate(), score),
            0 => Verdict { code: UNKNOWN, arg: self.level_name, score },
            _ if self.settings.exclusive && self.others.get(domain) > 0 => Verdict { code: SHARED, arg: domain, score },
            _ => Verdict::ranked(gate::OPEN, score),
        }
    }

    fn score(&self, host: HostRef<'_>) -> i64 {
        -i64::from(self.own.get(self.of(host)))
    }
}

/// Takes hosts one after another; none when that does not give as many as wanted.
fn pick(domains: &Domains, claim: &Claim, hosts: &Hosts, verdicts: &[Verdict]) -> Option<Vec<u32>> {
    // The first of each domain by name, then the second: one list for each domain, in the order of names.
    let mut open: Vec<(Sym, u32, u32)> = hosts
        .rows()
        .zip(verdicts)
        .filter(|(_, verdict)| verdict.code == gate::OPEN)
        .map(|(host, _)| (domains.of(host), host.rank(), host.row()))
        .collect();
    open.sort_unstable();
    let mut queues: Vec<(Sym, std::collections::VecDeque<(u32, u32)>)> = Vec::new();
    for (domain, rank, row) in open {
        match queues.last_mut().filter(|(last, _)| *last == domain) {
            Some((_, queue)) => queue.push_back((rank, row)),
            None => queues.push((domain, [(rank, row)].into())),
        }
    }
    let mut used: Vec<u32> = queues.iter().map(|(domain, _)| domains.own.get(*domain)).collect();
    let mut picks = Vec::new();
    while picks.len() < claim.count as usize {
        let best = (0..queues.len())
            .filter_map(|at| {
                let (domain, queue) = &queues[at];
                let (rank, _) = queue.front()?;
                Some((used[at], std::cmp::Reverse(domains.free.get(*domain)), *rank, at))
            })
            .min()?
            .3;
        let emptiest = used.iter().copied().min().unwrap_or(0);
        if domains.settings.max_skew.is_some_and(|skew| used[best] + 1 - emptiest.min(used[best] + 1) > skew) {
            return None;
        }
        used[best] += 1;
        picks.push(queues[best].1.pop_front()?.1);
    }
    Some(picks)
}

impl PlacementPolicy for PlaceSpread {
    fn place(ctx: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
        let domains = Domains::new(ctx, claim, hosts);
        let mut verdicts: Vec<Verdict> = hosts.rows().map(|host| domains.verdict(host)).collect();
        let open = verdicts.iter().filter(|verdict| verdict.code == gate::OPEN).count();
        match pick(&domains, claim, hosts, &verdicts) {
            Some(picks) => Decision { picks, verdicts },
            None if open < claim.count as usize => Decision { picks: Vec::new(), verdicts },
            // Enough hosts, and no way to take so many within the skew.
            None => {
                for (host, verdict) in hosts.rows().zip(&mut verdicts).filter(|(_, v)| v.code == gate::OPEN) {
                    (verdict.code, verdict.arg) = (SKEW, domains.of(host));
                }
                Decision { picks: Vec::new(), verdicts }
            }
        }
    }

    fn explain(ctx: &Context, claim: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
        let domains = Domains::new(ctx, claim, hosts);
        let factor = |host| Factor::new("the tenant's hosts in its domain", domains.score(host));
        hosts.row(row).map(factor).into_iter().collect()
    }
}
