//! Takes the host from the rack with the fewest free hosts, so that the other racks stay whole.
//!
//! The same policy is written in JavaScript and in Python beside this one; a test holds all three to the same answers.

use vmetal_policy_sdk::{
    Claim, Context, Decision, Factor, HostRef, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Sym, Tally, Verdict,
    settings,
};

settings! {
    /// What an operator can set.
    pub struct Settings {
        /// The label of the domains that are to be filled one after another.
        pub level: String = "topology.vmetal.dev/rack".to_owned(),
    }
}

/// The policy.
pub struct FillRacks;

impl Policy for FillRacks {
    fn describe() -> Info {
        Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Placement,
            reasons: Vec::new(),
        }
    }

    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        // The level's name comes back as the first of `Context::symbols`.
        settings::read::<Settings>(json).map(|settings| vec![settings.level])
    }

    fn settings_schema() -> String {
        settings::schema::<Settings>()
    }
}

/// What scores are made from.
struct Racks<'a> {
    hosts: &'a Hosts<'a>,
    level: Option<usize>,
    /// Hosts that may be chosen, by domain.
    free: Tally,
}

impl<'a> Racks<'a> {
    fn new(ctx: &Context, hosts: &'a Hosts<'a>) -> Self {
        let level = ctx.symbols.first().and_then(|name| hosts.level(*name));
        let free = Tally::of(hosts, |host| domain(host, level), |host| host.is_open());
        Racks { hosts, level, free }
    }

    /// The score's only part. Hosts of which nobody knows where they are come last.
    fn factor(&self, host: HostRef<'_>) -> Factor {
        match domain(host, self.level) {
            0 => Factor::new("its place is not known", -i64::from(self.hosts.n) - 1),
            rack => Factor::new("free hosts in its domain", -i64::from(self.free.get(rack))),
        }
    }
}

/// Where the host is, or zero.
fn domain(host: HostRef<'_>, level: Option<usize>) -> Sym {
    level.map_or(0, |level| host.domain(level))
}

impl PlacementPolicy for FillRacks {
    fn place(ctx: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
        let racks = Racks::new(ctx, hosts);
        let verdict = |host: HostRef<'_>| Verdict::ranked(host.gate(), racks.factor(host).amount);
        Decision::best(claim, hosts, hosts.rows().map(verdict).collect())
    }

    fn explain(ctx: &Context, _: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
        let racks = Racks::new(ctx, hosts);
        hosts.row(row).map(|host| racks.factor(host)).into_iter().collect()
    }
}

vmetal_policy_sdk::export_placement_policy!(FillRacks);
