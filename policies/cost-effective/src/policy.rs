//! The policy itself; the same code is the native twin and the component.

use vmetal_policy_sdk::pricing::{self, FREE_OF_CHARGE, MICRO, capped};
use vmetal_policy_sdk::{
    Arg, Choice, Claim, Context, CostPolicy, Factor, Info, Kind, Log, OfferRef, Offers, Policy, Reason, Verdict, gate,
    settings,
};

settings! {
    /// See the crate's description.
    struct Settings {
        /// Cost units for each kilowatt, from the node type's property cost.vmetal.dev/watts.
        energy: u32 = 100,
        /// Percent of the price, in full when no host of the type is left, none when all are free.
        scarcity: u32 = 50,
        /// Percent of the price for each whole resource that the claim leaves unused.
        waste: u32 = 10,
        /// Percent of the price taken off when a free host of the type is on already; at most 100.
        standby: u32 = 10,
        /// Types that cost more than so many cost units in the end are not taken.
        ceiling: Option<u32> = None,
    }
}

/// More than the ceiling.
const CEILING: u32 = 1000;

/// See the crate's description.
pub struct CostEffective;

impl Policy for CostEffective {
    fn describe() -> Info {
        let text = "costs more than the ceiling of {}".to_owned();
        Info {
            name: "cost-effective".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Cost,
            reasons: vec![Reason { code: CEILING, text, arg: Arg::Number }],
        }
    }

    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        let settings: Settings = settings::read(json)?;
        if settings.standby > 100 {
            return Err(vec![format!("standby is {}, expected at most 100 percent", settings.standby)]);
        }
        Ok(FREE_OF_CHARGE.map(str::to_owned).to_vec())
    }

    fn settings_schema() -> String {
        settings::schema::<Settings>()
    }
}

/// The parts of a price, in millionths of a cost unit.
fn terms(settings: &Settings, ctx: &Context, claim: &Claim, offer: OfferRef<'_>) -> [(&'static str, i128); 5] {
    let base = i128::from(pricing::price(offer, &ctx.symbols));
    let percent = |percent: u32| base * i128::from(percent) / 100;
    let energy = i128::from(offer.watts()) * i128::from(settings.energy) * MICRO / 1000;
    let taken = i128::from(offer.total().saturating_sub(offer.free()));
    let scarcity = percent(settings.scarcity) * taken / i128::from(offer.total().max(1));
    let waste = percent(settings.waste) * i128::from(pricing::unused(offer, claim)) / 1_000_000;
    let standby = if offer.standby() > 0 { -percent(settings.standby) } else { 0 };
    [("price list", base), ("energy", energy), ("scarcity", scarcity), ("left unused", waste), ("standby", standby)]
}

/// The parts one after another, each as what it adds to a total that is never below zero nor beyond what can be shown.
fn steps(terms: [(&'static str, i128); 5]) -> impl Iterator<Item = (&'static str, i64)> {
    let mut total = 0i128;
    terms.into_iter().map(move |(label, part)| {
        let before = capped(total.max(0));
        total += part;
        (label, capped(total.max(0)) - before)
    })
}

fn price(settings: &Settings, ctx: &Context, claim: &Claim, offer: OfferRef<'_>) -> i64 {
    steps(terms(settings, ctx, claim, offer)).map(|(_, part)| part).sum()
}

impl CostPolicy for CostEffective {
    fn choose(ctx: &Context, claim: &Claim, offers: &Offers, _: &mut dyn Log) -> Choice {
        let settings: Settings = settings::accepted(&ctx.settings);
        let prices: Vec<i64> = offers.rows().map(|offer| price(&settings, ctx, claim, offer)).collect();
        let verdict = |(offer, price): (OfferRef<'_>, &i64)| {
            let score = price.saturating_neg();
            match settings.ceiling {
                Some(ceiling) if offer.is_open() && i128::from(*price) > i128::from(ceiling) * MICRO => {
                    Verdict { code: CEILING, arg: ceiling, score }
                }
                _ => Verdict::ranked(offer.gate(), score),
            }
        };
        let verdicts: Vec<Verdict> = offers.rows().zip(&prices).map(verdict).collect();
        let open = offers.rows().zip(&verdicts).filter(|(_, verdict)| verdict.code == gate::OPEN);
        let key = |(offer, verdict): &(OfferRef<'_>, &Verdict)| {
            (verdict.score.saturating_neg(), pricing::unused(*offer, claim), offer.rank())
        };
        let pick = open.min_by_key(key).map(|(offer, _)| offer.row());
        Choice { pick, prices, verdicts }
    }

    fn explain(ctx: &Context, claim: &Claim, offers: &Offers, row: u32) -> Vec<Factor> {
        let settings: Settings = settings::accepted(&ctx.settings);
        let Some(offer) = offers.row(row) else { return Vec::new() };
        steps(terms(&settings, ctx, claim, offer)).map(|(label, part)| Factor::new(label, part)).collect()
    }
}
