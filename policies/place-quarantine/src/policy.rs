//! The policy itself; the same code is the native twin and the component.

use serde::{Deserialize, Serialize};
use vmetal_policy_sdk::{
    Arg, Claim, Context, Decision, Factor, HostRef, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Reason, Verdict,
    column, settings,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Erase {
    Metadata,
    Discard,
    #[default]
    Overwrite,
}

impl Erase {
    fn level(self) -> u64 {
        match self {
            Erase::Metadata => column::erase::METADATA,
            Erase::Discard => column::erase::DISCARD,
            Erase::Overwrite => column::erase::OVERWRITE,
        }
    }
}

impl settings::Setting for Erase {
    fn schema() -> String {
        r#""enum":["metadata","discard","overwrite"]"#.to_owned()
    }
}

settings! {
    /// See the crate's description.
    struct Settings {
        /// How thoroughly a host that was another tenant's must have been erased.
        min_erase: Erase = Erase::default(),
        /// Hours for which a host that was another tenant's is left alone after its release.
        rest_hours: u32 = 0,
        /// Hours after which an attestation is too old; without it none is asked for.
        max_attestation_hours: Option<u32> = None,
    }
}

/// The last tenant was another one, and the disks were not erased well enough since.
const ERASE: u32 = 1000;
/// Released too short a time ago.
const REST: u32 = 1001;
/// Never attested.
const UNATTESTED: u32 = 1002;
/// Attested too long ago.
const STALE: u32 = 1003;

const HOUR: u64 = 3600;
/// Points of a host that was the tenant's own; more than every erase level.
const OWN: i64 = 10;

/// See the crate's description.
pub struct PlaceQuarantine;

impl Policy for PlaceQuarantine {
    fn describe() -> Info {
        let reason = |code, text: &str, arg| Reason { code, text: text.to_owned(), arg };
        Info {
            name: "place-quarantine".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Placement,
            reasons: vec![
                reason(ERASE, "not erased well enough after tenant {}", Arg::Sym),
                reason(REST, "has to rest for {} more hours after another tenant", Arg::Number),
                reason(UNATTESTED, "never attested", Arg::None),
                reason(STALE, "attested {} hours ago", Arg::Number),
            ],
        }
    }

    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        settings::read::<Settings>(json).map(|_| Vec::new())
    }

    fn settings_schema() -> String {
        settings::schema::<Settings>()
    }
}

fn hours(seconds: u64) -> u32 {
    u32::try_from(seconds.div_ceil(HOUR)).unwrap_or(u32::MAX)
}

/// Why the host is not for this claim, beyond the engine's rules.
fn refusal(settings: &Settings, now: u64, claim: &Claim, host: HostRef<'_>) -> Option<(u32, u32)> {
    let foreign = host.last_tenant() != 0 && host.last_tenant() != claim.tenant_cluster;
    if foreign && host.erase_level() < settings.min_erase.level() {
        return Some((ERASE, host.last_tenant()));
    }
    let free_at = host.last_release().saturating_add(u64::from(settings.rest_hours) * HOUR);
    if foreign && now < free_at {
        return Some((REST, hours(free_at - now)));
    }
    let oldest = settings.max_attestation_hours?;
    let age = now.saturating_sub(host.attested());
    match host.attested() {
        0 => Some((UNATTESTED, 0)),
        _ if age > u64::from(oldest) * HOUR => Some((STALE, hours(age))),
        _ => None,
    }
}

fn terms(claim: &Claim, host: HostRef<'_>) -> [(&'static str, i64); 2] {
    let own = host.last_tenant() != 0 && host.last_tenant() == claim.tenant_cluster;
    // Four levels, which fit into any number.
    let level = i64::try_from(host.erase_level()).unwrap_or(0);
    [("the tenant's own before", if own { OWN } else { 0 }), ("erase level", level)]
}

impl PlacementPolicy for PlaceQuarantine {
    fn place(ctx: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
        let settings: Settings = settings::accepted(&ctx.settings);
        let verdict = |host: HostRef<'_>| {
            let score = terms(claim, host).iter().map(|(_, points)| points).sum();
            match refusal(&settings, ctx.now, claim, host).filter(|_| host.is_open()) {
                Some((code, arg)) => Verdict { code, arg, score },
                None => Verdict::ranked(host.gate(), score),
            }
        };
        Decision::best(claim, hosts, hosts.rows().map(verdict).collect())
    }

    fn explain(_: &Context, claim: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
        let terms = hosts.row(row).map(|host| terms(claim, host));
        terms.into_iter().flatten().map(|(label, points)| Factor::new(label, points)).collect()
    }
}
