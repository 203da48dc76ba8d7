//! The policy itself; the same code is the native twin and the component.

use vmetal_policy_sdk::{
    Claim, Context, Decision, Factor, HostRef, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Sym, Tally, Verdict,
    column, settings,
};

settings! {
    /// Points for each term; see the crate's description.
    struct Settings {
        /// Points off for each failure in a row.
        failure: u32 = 200_000,
        /// Points off for each free host left over, or missing, in the narrowest domain known, up to 64.
        pack: u32 = 1000,
        /// Points for a host that is on already.
        standby: u32 = 300,
        /// Points for each step of the erase level: metadata, discard, overwrite.
        erase: u32 = 50,
        /// Points off for each time the host was provisioned, up to 100 times.
        wear: u32 = 2,
        /// Points for each day since the last release, up to 30.
        rest: u32 = 1,
    }
}

/// Beyond so many, more makes no difference.
const MOST_WORN: u32 = 100;
const LONGEST_REST: u64 = 30;
const LARGEST_BLOCK: u32 = 64;
const DAY: u64 = 86_400;

/// What scores are made of.
const TERMS: [&str; 6] = [
    "failures",
    "hosts left over or missing there",
    "on already",
    "erase level",
    "times provisioned",
    "days since release",
];

/// See the crate's description.
pub struct PlaceBalanced;

impl Policy for PlaceBalanced {
    fn describe() -> Info {
        Info {
            name: "place-balanced".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Placement,
            reasons: Vec::new(),
        }
    }

    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        settings::read::<Settings>(json).map(|_| Vec::new())
    }

    fn settings_schema() -> String {
        settings::schema::<Settings>()
    }
}

/// The narrowest domain that is known of a host: its rack, say, when its NVLink domain is not.
fn narrowest(host: HostRef<'_>, levels: usize) -> Sym {
    (0..levels).rev().map(|level| host.domain(level)).find(|domain| *domain != 0).unwrap_or(0)
}

/// What scores are made from.
struct Scale<'a> {
    settings: Settings,
    /// Each host's narrowest domain.
    narrowest: Vec<Sym>,
    /// Hosts that are free and well, by their narrowest domain.
    free: Tally,
    /// How many hosts are wanted.
    wanted: u32,
    /// The domains that a claim for several takes from, in turn.
    turns: Vec<Sym>,
    power: &'a [u64],
    erase: &'a [u64],
    failures: &'a [u64],
    now: u64,
}

/// Where a claim for several goes: into the domain that has just room for it; where none has, into the emptiest, and with
/// what is left of it on in the same way. Equal domains go by their first host's name. A claim for one needs no turns: among
/// equal domains the better host decides.
fn turns(hosts: &Hosts, narrowest: &[Sym], free: &Tally, wanted: u32) -> Vec<Sym> {
    let (mut turns, mut left) = (Vec::new(), wanted);
    if wanted < 2 {
        return turns;
    }
    let known = hosts.rows().zip(narrowest).filter(|(_, domain)| free.get(**domain) > 0);
    let mut domains: Vec<(u32, Sym)> = known.map(|(host, domain)| (host.rank(), *domain)).collect();
    domains.sort_unstable();
    let mut seen = Tally::default();
    domains.retain(|(_, domain)| {
        seen.add(*domain, 1);
        seen.get(*domain) == 1
    });
    while left > 0 {
        let fit = |(_, domain): &(u32, Sym)| {
            let free = free.get(*domain);
            free.checked_sub(left).map_or((1, u32::MAX - free), |over| (0, over))
        };
        // The first of equal ones, by name.
        let Some(best) = (0..domains.len()).min_by_key(|at| fit(&domains[*at])) else { break };
        let (_, domain) = domains.remove(best);
        left = left.saturating_sub(free.get(domain));
        turns.push(domain);
    }
    turns
}

/// What is not known counts as nothing.
fn cell(column: &[u64], row: u32) -> u64 {
    column.get(row as usize).copied().unwrap_or(0)
}

impl<'a> Scale<'a> {
    fn new(ctx: &Context, claim: &Claim, hosts: &'a Hosts) -> Self {
        let levels = hosts.levels.len();
        let narrowest: Vec<Sym> = hosts.rows().map(|host| narrowest(host, levels)).collect();
        let of = |host: HostRef<'_>| narrowest.get(host.row() as usize).copied().unwrap_or(0);
        let failures = hosts.column(column::FAILURES);
        // One that fails is taken last, so no claim counts on finding room there.
        let free = Tally::of(hosts, of, |host| host.is_open() && cell(failures, host.row()) == 0);
        Scale {
            settings: settings::accepted(&ctx.settings),
            turns: turns(hosts, &narrowest, &free, claim.count),
            free,
            wanted: claim.count,
            narrowest,
            power: hosts.column(column::POWER),
            erase: hosts.column(column::ERASE_LEVEL),
            failures,
            now: ctx.now,
        }
    }

    /// How badly a claim fits into a domain: not at all badly where it is to go, otherwise by the hosts that it would leave over
    /// there, and where it has no room, worse than in any that has, by those that are missing.
    fn misfit(&self, domain: Sym) -> u32 {
        let before = (0u32..).zip(&self.turns).find(|(_, turn)| **turn == domain);
        let (free, turns) = (self.free.get(domain), u32::try_from(self.turns.len()).unwrap_or(LARGEST_BLOCK));
        match (before, free.checked_sub(self.wanted)) {
            (Some((turn, _)), _) => turn,
            _ if domain == 0 => turns,
            (None, Some(left)) => turns + left.min(LARGEST_BLOCK),
            (None, None) => turns + LARGEST_BLOCK + (self.wanted - free).min(LARGEST_BLOCK),
        }
    }

    /// The points of a host for each of [`TERMS`].
    #[inline(always)]
    fn points(&self, host: HostRef<'_>) -> [i64; TERMS.len()] {
        let Settings { failure, pack, standby, erase, wear, rest } = &self.settings;
        let points =
            |weight: &u32, count: u64| i64::from(*weight) * i64::try_from(count).unwrap_or(i64::from(u32::MAX));
        let row = host.row();
        let on = u64::from(cell(self.power, row) == column::power::ON);
        let rested = match host.last_release() {
            0 if host.provisions() == 0 => LONGEST_REST,
            0 => 0,
            at => (self.now.saturating_sub(at) / DAY).min(LONGEST_REST),
        };
        let domain = self.narrowest.get(row as usize).copied().unwrap_or(0);
        [
            -points(failure, cell(self.failures, row).min(u64::from(MOST_WORN))),
            -points(pack, u64::from(self.misfit(domain))),
            points(standby, on),
            points(erase, cell(self.erase, row)),
            -points(wear, u64::from(host.provisions().min(MOST_WORN))),
            points(rest, rested),
        ]
    }
}

impl PlacementPolicy for PlaceBalanced {
    fn place(ctx: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
        let scale = Scale::new(ctx, claim, hosts);
        let score = |host| scale.points(host).iter().sum();
        Decision::best(claim, hosts, hosts.rows().map(|host| Verdict::ranked(host.gate(), score(host))).collect())
    }

    fn explain(ctx: &Context, claim: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
        let scale = Scale::new(ctx, claim, hosts);
        let points = hosts.row(row).map(|host| scale.points(host));
        TERMS.iter().zip(points.into_iter().flatten()).map(|(label, points)| Factor::new(*label, points)).collect()
    }
}
