//! The policy itself; the same code is the native twin and the component.

use vmetal_policy_sdk::{
    Claim, Context, Decision, Factor, HostRef, Hosts, Info, Kind, Log, PlacementPolicy, Policy, Verdict,
};

/// See the crate's description.
pub struct PlaceFirstFit;

impl Policy for PlaceFirstFit {
    fn describe() -> Info {
        Info {
            name: "place-first-fit".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: Kind::Placement,
            reasons: Vec::new(),
        }
    }
}

/// The earlier the name, the better.
fn score(host: HostRef<'_>) -> i64 {
    -i64::from(host.rank())
}

impl PlacementPolicy for PlaceFirstFit {
    fn place(_: &Context, claim: &Claim, hosts: &Hosts, _: &mut dyn Log) -> Decision {
        Decision::best(claim, hosts, hosts.rows().map(|host| Verdict::ranked(host.gate(), score(host))).collect())
    }

    fn explain(_: &Context, _: &Claim, hosts: &Hosts, row: u32) -> Vec<Factor> {
        hosts.row(row).map(|host| Factor::new("position of the name", score(host))).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vmetal_policy_sdk::{Level, gate};

    struct NoLog;
    impl Log for NoLog {
        fn emit(&mut self, _: Level, _: u32, _: i64, _: i64) {}
    }

    /// Hosts as (rank, gate); the name is the rank plus 100.
    fn hosts(rows: &[(u32, u32)]) -> Hosts<'static> {
        Hosts {
            n: rows.len() as u32,
            name: rows.iter().map(|(rank, _)| rank + 100).collect::<Vec<_>>().into(),
            rank: rows.iter().map(|(rank, _)| *rank).collect::<Vec<_>>().into(),
            gate: rows.iter().map(|(_, gate)| *gate).collect::<Vec<_>>().into(),
            ..Hosts::default()
        }
    }

    fn place(count: u32, table: &Hosts) -> Decision {
        PlaceFirstFit::place(&Context::default(), &Claim { count, ..Claim::default() }, table, &mut NoLog)
    }

    #[test]
    fn the_first_open_names_win() {
        let table = hosts(&[(3, 0), (0, gate::NOT_AVAILABLE), (1, 0), (2, 0)]);
        assert_eq!(place(1, &table).picks, [2]);
        assert_eq!(place(2, &table).picks, [2, 3]);
        assert_eq!(place(1, &table).verdicts[1].code, gate::NOT_AVAILABLE);
    }

    #[test]
    fn all_or_none() {
        let table = hosts(&[(0, 0), (1, 0), (2, gate::SELECTOR)]);
        assert_eq!(place(3, &table).picks, [] as [u32; 0]);
        assert_eq!(place(3, &table).verdicts.len(), 3);
    }

    proptest! {
        #[test]
        fn the_order_of_rows_changes_nothing(gates in prop::collection::vec(0u32..3, 0..40), count in 1u32..4,
                                             seed in any::<u64>()) {
            let rows: Vec<(u32, u32)> = (0..).zip(gates).collect();
            let mut shuffled = rows.clone();
            shuffled.sort_by_key(|(rank, _)| (u64::from(*rank) + 1).wrapping_mul(seed | 1));
            let names = |rows: &[(u32, u32)]| {
                let table = hosts(rows);
                place(count, &table).picks.iter().map(|row| table.name[*row as usize]).collect::<Vec<_>>()
            };
            prop_assert_eq!(names(&rows), names(&shuffled));
        }
    }
}
