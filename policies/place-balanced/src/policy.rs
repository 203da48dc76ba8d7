//! The policy itself; the same code is the native twin and the component.

use vmetal_policy_sdk::{
    Claim, Context, Decision, Factor, HostRef, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Sym, Tally, Verdict,
    column, settings,
};

settings! {
    /// Points for each term; see the crate's description.
    struct Settings {
        /// Points for a host that is on already.
        standby: u32 = 300,
        /// Points for each step of the erase level: metadata, discard, overwrite.
        erase: u32 = 50,
        /// Points off for each failure in a row.
        failure: u32 = 200,
        /// Points off for each time the host was provisioned, up to 100 times.
        wear: u32 = 2,
        /// Points for each day since the last release, up to 30.
        rest: u32 = 1,
        /// Points off for each free host beside it in the narrowest domain known, up to 64.
        pack: u32 = 5,
    }
}

/// Beyond so many, more makes no difference.
const MOST_WORN: u32 = 100;
const LONGEST_REST: u64 = 30;
const LARGEST_BLOCK: u32 = 64;
const DAY: u64 = 86_400;

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
    /// Free hosts by their narrowest domain.
    free: Tally,
    power: &'a [u64],
    erase: &'a [u64],
    failures: &'a [u64],
    now: u64,
}

/// What is not known counts as nothing.
fn cell(column: &[u64], row: u32) -> u64 {
    column.get(row as usize).copied().unwrap_or(0)
}

impl<'a> Scale<'a> {
    fn new(ctx: &Context, hosts: &'a Hosts) -> Self {
        let levels = hosts.levels.len();
        let narrowest: Vec<Sym> = hosts.rows().map(|host| narrowest(host, levels)).collect();
        let of = |host: HostRef<'_>| narrowest.get(host.row() as usize).copied().unwrap_or(0);
        let free = Tally::of(hosts, of, |host| host.is_open());
        Scale {
            settings: settings::accepted(&ctx.settings),
            free,
            narrowest,
            power: hosts.column(column::POWER),
            erase: hosts.column(column::ERASE_LEVEL),
            failures: hosts.column(column::FAILURES),
            now: ctx.now,
        }
    }

    fn terms(&self, host: HostRef<'_>) -> [(&'static str, i64); 6] {
        let Settings { standby, erase, failure, wear, rest, pack } = &self.settings;
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
        let beside = self.free.get(domain).saturating_sub(1).min(LARGEST_BLOCK);
        [
            ("on already", points(standby, on)),
            ("erase level", points(erase, cell(self.erase, row))),
            ("failures", -points(failure, cell(self.failures, row).min(u64::from(MOST_WORN)))),
            ("times provisioned", -points(wear, u64::from(host.provisions().min(MOST_WORN)))),
            ("days since release", points(rest, rested)),
            ("free hosts beside it", -points(pack, u64::from(beside))),
        ]
    }

    fn score(&self, host: HostRef<'_>) -> i64 {
        self.terms(host).iter().map(|(_, points)| points).sum()
    }
}

impl PlacementPolicy for PlaceBalanced {
    fn place(ctx: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
        let scale = Scale::new(ctx, hosts);
        Decision::best(claim, hosts, hosts.rows().map(|host| Verdict::ranked(host.gate(), scale.score(host))).collect())
    }

    fn explain(ctx: &Context, _: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
        let scale = Scale::new(ctx, hosts);
        let terms = hosts.row(row).map(|host| scale.terms(host));
        terms.into_iter().flatten().map(|(label, points)| Factor::new(label, points)).collect()
    }
}
