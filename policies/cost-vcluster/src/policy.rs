//! The policy itself; the same code is the native twin and the component.

use vmetal_policy_sdk::pricing::{FREE_OF_CHARGE, capped, parts, price, unused};
use vmetal_policy_sdk::{
    Choice, Claim, Context, CostPolicy, Factor, Info, Kind, Log, OfferRef, Offers, Policy, Verdict, no_settings,
};

/// See the crate's description.
pub struct CostVcluster;

impl Policy for CostVcluster {
    fn describe() -> Info {
        Info {
            name: "cost-vcluster".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Cost,
            reasons: Vec::new(),
        }
    }

    fn validate_settings(json: &str) -> Result<Vec<String>, Vec<String>> {
        no_settings(json)?;
        Ok(FREE_OF_CHARGE.map(str::to_owned).to_vec())
    }
}

impl CostPolicy for CostVcluster {
    fn choose(ctx: &Context, claim: &Claim, offers: &Offers, _: &mut dyn Log) -> Choice {
        let prices: Vec<i64> = offers.rows().map(|offer| price(offer, &ctx.symbols)).collect();
        let pick = offers
            .rows()
            .zip(&prices)
            .filter(|(offer, _)| offer.is_open())
            .min_by_key(|(offer, price)| (**price, unused(*offer, claim), offer.rank()))
            .map(|(offer, _)| offer.row());
        let verdict = |(offer, price): (OfferRef<'_>, &i64)| Verdict::ranked(offer.gate(), price.saturating_neg());
        let verdicts = offers.rows().zip(&prices).map(verdict).collect();
        Choice { pick, prices, verdicts }
    }

    fn explain(ctx: &Context, _: &Claim, offers: &Offers, row: u32) -> Vec<Factor> {
        let Some(offer) = offers.row(row) else { return Vec::new() };
        if offer.explicit_cost() > 0 {
            return vec![Factor::new("cost set by the operator", offer.explicit_cost())];
        }
        // Each part is what it adds to the running total, so that parts add up even where the price is capped.
        let mut total = 0;
        let mut factors = Vec::new();
        for (label, part) in parts(offer, &ctx.symbols) {
            let before = capped(total);
            total += part;
            factors.push(Factor::new(label, capped(total) - before));
        }
        factors
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;
    use vmetal_policy_sdk::{Level, Quantity, Sym, gate};

    const PODS: Sym = 1;
    const EPHEMERAL: Sym = 2;
    const GPU: Sym = 3;

    struct NoLog;
    impl Log for NoLog {
        fn emit(&mut self, _: Level, _: u32, _: i64, _: i64) {}
    }

    fn context() -> Context {
        Context { symbols: vec![PODS, EPHEMERAL], ..Context::default() }
    }

    /// (cpu in thousandths, memory in bytes, explicit cost, gate, other resources)
    type Row<'a> = (u64, u64, i64, u32, &'a [(Sym, u64)]);

    fn offers(rows: &[Row<'_>]) -> Offers {
        let mut table = Offers { n: rows.len() as u32, resource_at: vec![0], ..Offers::default() };
        for (rank, (cpu, memory, explicit, gate, others)) in (0..).zip(rows) {
            table.name.push(100 + rank);
            table.rank.push(rank);
            table.gate.push(*gate);
            table.cpu_milli.push(*cpu);
            table.memory_bytes.push(*memory);
            table.explicit_cost.push(*explicit);
            table.total.push(1);
            table.free.push(1);
            for (name, milli) in *others {
                table.resource_name.push(*name);
                table.resource_milli.push(*milli);
            }
            table.resource_at.push(table.resource_name.len() as u32);
        }
        table
    }

    fn choose(claim: &Claim, table: &Offers) -> Choice {
        CostVcluster::choose(&context(), claim, table, &mut NoLog)
    }

    fn gib(n: u64) -> u64 {
        n << 30
    }

    #[test]
    fn published_vectors() {
        let table = offers(&[
            (2_000, gib(4), 0, 0, &[]),
            (32_000, gib(128), 0, 0, &[]),
            (64_000, gib(256), 0, 0, &[(GPU, 4_000)]),
            (96_000, gib(768), 0, 0, &[(GPU, 8_000), (PODS, 110_000), (EPHEMERAL, 1 << 40)]),
        ]);
        let prices = choose(&Claim::default(), &table).prices;
        assert_eq!(prices, [28_000_000, 576_000_000, 41_152_000_000, 82_496_000_000]);
    }

    #[test]
    fn fractions_count_and_only_memory_rounds() {
        let table = offers(&[(250, gib(1) / 2, 0, 0, &[(GPU, 1)]), (0, 1, 0, 0, &[])]);
        assert_eq!(choose(&Claim::default(), &table).prices, [2_500_000 + 1_000_000 + 10_000_000, 1]);
    }

    #[test]
    fn an_explicit_cost_wins_and_a_huge_offer_is_capped() {
        let table = offers(&[
            (96_000, gib(768), 7_000_000, 0, &[(GPU, 8_000)]),
            (u64::MAX, u64::MAX, 0, 0, &[(GPU, u64::MAX)]),
        ]);
        let choice = choose(&Claim::default(), &table);
        assert_eq!((choice.prices.clone(), choice.pick), (vec![7_000_000, i64::MAX], Some(0)));
        for (row, price) in (0..).zip(choice.prices) {
            let parts = CostVcluster::explain(&context(), &Claim::default(), &table, row);
            assert_eq!(parts.iter().map(|part| part.amount).sum::<i64>(), price);
        }
    }

    #[test]
    fn the_cheapest_open_row_wins_and_closed_rows_keep_their_price() {
        let table = offers(&[(1_000, 0, 0, gate::NO_CAPACITY, &[]), (3_000, 0, 0, 0, &[]), (2_000, 0, 0, 0, &[])]);
        let choice = choose(&Claim::default(), &table);
        assert_eq!(choice.pick, Some(2));
        assert_eq!(choice.verdicts[0], Verdict { code: gate::NO_CAPACITY, arg: 0, score: -10_000_000 });
        let none = offers(&[(1_000, 0, 0, gate::CPU, &[])]);
        assert_eq!(choose(&Claim::default(), &none).pick, None);
    }

    #[test]
    fn ties_go_to_the_least_unused_then_to_the_first_name() {
        // 12 cpu + 4 GiB and 10 cpu + 14 GiB both cost 128.
        let table = offers(&[(10_000, gib(14), 0, 0, &[]), (12_000, gib(4), 0, 0, &[]), (12_000, gib(4), 0, 0, &[])]);
        let claim = Claim { cpu_milli: 10_000, memory_bytes: gib(4), ..Claim::default() };
        assert_eq!(choose(&claim, &table).prices, [128_000_000; 3]);
        assert_eq!(choose(&claim, &table).pick, Some(1));
        let claim = Claim { cpu_milli: 10_000, memory_bytes: gib(14), ..Claim::default() };
        assert_eq!(choose(&claim, &table).pick, Some(0));
    }

    #[test]
    fn unused_counts_every_resource_as_a_share() {
        let table = offers(&[(4_000, gib(8), 0, 0, &[(GPU, 4_000)])]);
        let claim = Claim {
            cpu_milli: 1_000,
            memory_bytes: gib(8),
            resources: vec![Quantity { resource: GPU, milli: 2_000 }],
            ..Claim::default()
        };
        assert_eq!(unused(table.row(0).unwrap(), &claim), 750_000 + 500_000);
    }

    proptest! {
        #[test]
        fn more_of_anything_never_costs_less(cpu in 0u64..1 << 20, memory in 0u64..1 << 42, gpus in 0u64..64_000,
                                             more in 0u64..1 << 30) {
            let small = offers(&[(cpu, memory, 0, 0, &[(GPU, gpus)])]);
            for bigger in [(cpu + more, memory, gpus), (cpu, memory + more, gpus), (cpu, memory, gpus + more)] {
                let others = [(GPU, bigger.2)];
                let big = offers(&[(bigger.0, bigger.1, 0, 0, &others)]);
                prop_assert!(price(big.row(0).unwrap(), &[]) >= price(small.row(0).unwrap(), &[]));
            }
        }
    }
}
