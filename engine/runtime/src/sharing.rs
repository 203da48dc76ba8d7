//! Who should own which shard.
//!
//! Every engine computes the same answer from the same news: who lives, and what each holds. Nothing moves that need not:
//! whoever holds a shard keeps it unless it has more than its share, and shares differ by at most one. News may be old and
//! two engines may for a moment compute different answers; the leases in the store, not this, keep a shard with one owner.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A shard by its number.
pub type ShardNumber = u16;

/// The shard of a key: FNV-1a, so that it is the same in every engine, on every machine and in every release.
///
/// `shards` is at least one in any store; zero is taken as one.
pub fn shard_of(key: &[u8], shards: ShardNumber) -> ShardNumber {
    let hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    // The low bits of FNV-1a are its weakest.
    let mixed = hash ^ (hash >> 32);
    ShardNumber::try_from(mixed % u64::from(shards.max(1))).unwrap_or(0)
}

/// What one member is to do about its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Held, and the share of another member: to be handed over.
    pub give_up: BTreeSet<ShardNumber>,
    /// Not held by any living member, and ours: to be acquired.
    pub take: BTreeSet<ShardNumber>,
    /// Ours, and still held by a living member that will give it up.
    pub wait_for: BTreeSet<ShardNumber>,
}

/// What `me` is to do, where `members` are the living members (with `me` among them) and what each holds.
pub fn plan(me: &str, shards: ShardNumber, members: &BTreeMap<String, BTreeSet<ShardNumber>>) -> Plan {
    let none = BTreeSet::new();
    let held = members.get(me).unwrap_or(&none);
    let all = shares(shards, members);
    let share = all.get(me).unwrap_or(&none);
    let elsewhere = |shard: &ShardNumber| members.iter().any(|(id, holds)| id != me && holds.contains(shard));
    let (wait_for, take) = share.difference(held).partition(|shard| elsewhere(shard));
    Plan { give_up: held.difference(share).copied().collect(), take, wait_for }
}

/// Each member's share: as many as any other's or one more, and as much as possible of what it holds.
pub fn shares(
    shards: ShardNumber,
    members: &BTreeMap<String, BTreeSet<ShardNumber>>,
) -> BTreeMap<String, BTreeSet<ShardNumber>> {
    let Some(count) = ShardNumber::try_from(members.len()).ok().filter(|count| *count > 0) else {
        return BTreeMap::new();
    };
    // Those who hold most get the odd ones: then nothing moves once shares are even.
    let mut order: Vec<(&String, &BTreeSet<ShardNumber>)> = members.iter().collect();
    order.sort_by_key(|(id, holds)| (Reverse(holds.len()), *id));
    let quota = |place: usize| usize::from(shards / count) + usize::from(place < usize::from(shards % count));

    let mut free: BTreeSet<ShardNumber> = (0..shards).collect();
    let mut shares: BTreeMap<String, BTreeSet<ShardNumber>> = BTreeMap::new();
    for (place, (id, holds)) in order.iter().enumerate() {
        let kept: BTreeSet<_> = holds.iter().copied().filter(|shard| free.contains(shard)).take(quota(place)).collect();
        free.retain(|shard| !kept.contains(shard));
        shares.insert((*id).clone(), kept);
    }
    for (place, (id, _)) in order.iter().enumerate() {
        let share = shares.entry((*id).clone()).or_default();
        while share.len() < quota(place)
            && let Some(shard) = free.pop_first()
        {
            share.insert(shard);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    const SHARDS: ShardNumber = 64;

    type Members = BTreeMap<String, BTreeSet<ShardNumber>>;

    fn members(holds: &[&[ShardNumber]]) -> Members {
        (0..).zip(holds).map(|(n, shards)| (format!("engine-{n}"), shards.iter().copied().collect())).collect()
    }

    #[test]
    fn one_engine_takes_everything() {
        let plan = plan("engine-0", SHARDS, &members(&[&[]]));
        assert_eq!(plan.take, (0..SHARDS).collect());
        assert!(plan.give_up.is_empty() && plan.wait_for.is_empty());
    }

    #[test]
    fn who_joins_waits_for_what_the_others_give_up() {
        let all: Vec<_> = (0..SHARDS).collect();
        let members = members(&[&all, &[]]);
        let (old, new) = (plan("engine-0", SHARDS, &members), plan("engine-1", SHARDS, &members));
        assert_eq!(old.give_up.len(), 32);
        assert_eq!(old.give_up, new.wait_for);
        assert!(old.take.is_empty() && new.take.is_empty());
    }

    #[test]
    fn what_a_dead_engine_held_is_divided_and_nothing_else_moves() {
        let members = members(&[&(0..21).collect::<Vec<_>>(), &(21..42).collect::<Vec<_>>()]);
        for id in members.keys() {
            let plan = plan(id, SHARDS, &members);
            assert!(plan.give_up.is_empty());
            assert_eq!(plan.take.len(), 11);
        }
    }

    #[test]
    fn who_is_not_a_member_gives_everything_up() {
        let mut members = members(&[&[], &[]]);
        members.remove("engine-0");
        assert_eq!(plan("engine-0", SHARDS, &members), Plan::default());
    }

    #[test]
    fn the_shard_of_a_key_never_changes() {
        // Two releases that run side by side during an upgrade must agree.
        let shards =
            ["host/rack1-07", "host/rack1-08", "tenant_node/a", ""].map(|key| shard_of(key.as_bytes(), SHARDS));
        assert_eq!(shards, [30, 3, 3, 1]);
        let mut counts = [0_u32; 64];
        for n in 0..6_400 {
            counts[usize::from(shard_of(format!("host/rack{}-{:02}", n / 40, n % 40).as_bytes(), SHARDS))] += 1;
        }
        assert!(counts.iter().all(|count| (60..150).contains(count)), "{counts:?}");
        assert_eq!(shard_of(b"x", 0), 0);
    }

    /// What really is, as the leases have it.
    fn apply(owners: &mut BTreeMap<ShardNumber, String>, me: &str, plan: &Plan) {
        owners.retain(|shard, owner| !(owner == me && plan.give_up.contains(shard)));
        for shard in &plan.take {
            owners.entry(*shard).or_insert_with(|| me.to_owned());
        }
    }

    proptest! {
        /// Engines come, die and act in any order, each on news of its own time: in the end every shard has one owner, shares
        /// are even, and nobody moves any more.
        #[test]
        fn all_orders_end_even(
            shards in 1..70_u16,
            steps in proptest::collection::vec((0..5_usize, 0..4_u8), 0..60),
        ) {
            let mut living: BTreeSet<String> = BTreeSet::from(["engine-0".to_owned()]);
            let mut owners: BTreeMap<ShardNumber, String> = BTreeMap::new();
            let news = |living: &BTreeSet<String>, owners: &BTreeMap<ShardNumber, String>| -> Members {
                living.iter().map(|id| {
                    (id.clone(), owners.iter().filter(|(_, owner)| *owner == id).map(|(shard, _)| *shard).collect())
                }).collect()
            };
            let mut old = news(&living, &owners);
            for (who, what) in steps {
                let id = format!("engine-{who}");
                match what {
                    0 => { living.insert(id); }
                    1 if living.len() > 1 && living.remove(&id) => owners.retain(|_, owner| *owner != id),
                    2 if living.contains(&id) => {
                        // Old news: others may have moved since. Its own holdings an engine always knows.
                        let mut seen = old.clone();
                        seen.insert(id.clone(), news(&living, &owners)[&id].clone());
                        apply(&mut owners, &id, &plan(&id, shards, &seen));
                    }
                    _ => old = news(&living, &owners),
                }
            }
            for _ in 0..4 {
                for id in &living {
                    let plan = plan(id, shards, &news(&living, &owners));
                    apply(&mut owners, id, &plan);
                }
            }
            let end = news(&living, &owners);
            prop_assert_eq!(owners.len(), usize::from(shards));
            let counts: Vec<usize> = end.values().map(BTreeSet::len).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
            for id in &living {
                prop_assert_eq!(plan(id, shards, &end), Plan::default());
            }
        }
    }
}
