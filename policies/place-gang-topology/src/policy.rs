//! The policy itself; the same code is the native twin and the component.

use vmetal_policy_sdk::{
    Arg, Claim, Context, Decision, Factor, HostRef, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Reason, Sym,
    Tally, Verdict, gate, settings,
};

use crate::search;

settings! {
    /// See the crate's description.
    struct Settings {
        /// The label that says which domain a host is in.
        level: String = "topology.vmetal.dev/nvlink-domain".to_owned(),
        /// Hosts of one piece that must be in one domain; 0 asks for all of them in one.
        segment: u32 = 0,
        /// Take a wider domain when the narrow ones have no room.
        prefer: bool = false,
    }
}

/// The host's domain is not known.
const UNKNOWN: u32 = 1000;
/// No domain can take the claim.
const NO_ROOM: u32 = 1001;

/// See the crate's description.
pub struct PlaceGangTopology;

impl Policy for PlaceGangTopology {
    fn describe() -> Info {
        let reason = |code, text: &str, arg| Reason { code, text: text.to_owned(), arg };
        Info {
            name: "place-gang-topology".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Placement,
            reasons: vec![
                reason(UNKNOWN, "no {} is known of it", Arg::Sym),
                reason(NO_ROOM, "{} hosts are free in its domain, too few for the claim", Arg::Number),
            ],
        }
    }

    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        Ok(vec![settings::read::<Settings>(json)?.level])
    }

    fn settings_schema() -> String {
        settings::schema::<Settings>()
    }
}

/// The topology as this claim sees it.
struct Topology {
    settings: Settings,
    level_name: Sym,
    level: Option<usize>,
    free: Tally,
}

impl Topology {
    fn new(ctx: &Context, hosts: &Hosts) -> Self {
        let level_name = ctx.symbols.first().copied().unwrap_or(0);
        let level = hosts.level(level_name);
        let free = Tally::of(hosts, |host| level.map_or(0, |level| host.domain(level)), |host| host.is_open());
        Topology { settings: settings::accepted(&ctx.settings), level_name, level, free }
    }

    fn of(&self, host: HostRef<'_>) -> Sym {
        self.level.map_or(0, |level| host.domain(level))
    }

    /// The fewer are free in the domain, the better: a claim leaves large holes whole.
    fn score(&self, host: HostRef<'_>) -> i64 {
        -i64::from(self.free.get(self.of(host)))
    }

    /// The rows at a level, where those may be taken whose place at it is known.
    fn at(&self, level: usize, hosts: &Hosts, claim: &Claim) -> Option<Vec<u32>> {
        let wanted = claim.count as usize;
        let segment = match self.settings.segment {
            0 => wanted,
            segment => segment as usize,
        };
        let open = hosts.rows().filter(|host| host.is_open() && host.domain(level) != 0);
        // Without segments all hosts are in one domain, whatever is above it.
        let parent = |host: HostRef<'_>| match level.checked_sub(1) {
            Some(wider) if segment < wanted => host.domain(wider),
            _ => 0,
        };
        let open = open.map(|host| (parent(host), host.domain(level), host.rank(), host.row()));
        search::best(&search::group(open.collect()), wanted, segment.max(1))
    }

    fn picks(&self, hosts: &Hosts, claim: &Claim) -> Option<Vec<u32>> {
        let narrowest = self.level?;
        let widest = if self.settings.prefer { 0 } else { narrowest };
        (widest..=narrowest).rev().find_map(|level| self.at(level, hosts, claim))
    }
}

impl PlacementPolicy for PlaceGangTopology {
    fn place(ctx: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
        let topology = Topology::new(ctx, hosts);
        let picks = topology.picks(hosts, claim);
        let verdict = |host: HostRef<'_>| {
            let (domain, score) = (topology.of(host), topology.score(host));
            let verdict = |code, arg| Verdict { code, arg, score };
            match &picks {
                _ if !host.is_open() => verdict(host.gate(), 0),
                Some(picks) if picks.contains(&host.row()) => verdict(gate::OPEN, 0),
                _ if domain == 0 => verdict(UNKNOWN, topology.level_name),
                None => verdict(NO_ROOM, topology.free.get(domain)),
                Some(_) if topology.settings.segment == 0 && topology.free.get(domain) < claim.count => {
                    verdict(NO_ROOM, topology.free.get(domain))
                }
                Some(_) => verdict(gate::OPEN, 0),
            }
        };
        let verdicts = hosts.rows().map(verdict).collect();
        Decision { picks: picks.unwrap_or_default(), verdicts }
    }

    fn explain(ctx: &Context, _: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
        let topology = Topology::new(ctx, hosts);
        let factor = |host| Factor::new("free hosts in its domain", topology.score(host));
        hosts.row(row).map(factor).into_iter().collect()
    }
}
