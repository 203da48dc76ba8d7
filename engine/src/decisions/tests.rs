#![allow(clippy::unwrap_used, reason = "tests")]

use vmetal_model::{NodeType, NodeTypeSpec, TenantNode, TenantNodeSpec, TenantNodeStatus};
use vmetal_policy::journal::Replica;
use vmetal_policy::{Bars, Columns, Config, PolicyEngine, Round};
use vmetal_store::StoreClock;

use super::*;
use crate::ledger::{new_metadata, new_object};

const EPOCH: Timestamp = Timestamp::UNIX_EPOCH;

/// A round with one decision, on a claim that finds nothing; `at` in seconds.
fn round(name: String, at: i64, policies: &PolicyEngine) -> Recorded {
    let node_type: NodeType =
        new_object(new_metadata("t", [1; 16], EPOCH), NodeTypeSpec::default(), Default::default());
    let spec = TenantNodeSpec { cluster: "c".into(), ..Default::default() };
    let node: TenantNode = new_object(new_metadata("n", [2; 16], EPOCH), spec, TenantNodeStatus::new(EPOCH));
    let at = Timestamp::from_second(at).unwrap();
    let mut round = Round::new(&[node_type], Columns::default().view(), at).recorded_as(name);
    round.decide(policies, &node, &Bars::none()).unwrap();
    round.end(policies).unwrap()
}

async fn write(log: &Decisions, store: &AnyStore, at: i64, policies: &PolicyEngine) {
    let recorded = round(log.next_round().unwrap(), at, policies);
    store.commit(log.write(recorded)).await.unwrap();
}

/// Every decision in the store can be taken again; how many there are.
async fn all_replay(store: &AnyStore, policies: &PolicyEngine) -> usize {
    let (mut replica, mut count) = (Replica::default(), 0);
    for journal in journals(store).await.unwrap() {
        let fleet = replica.follow(&journal).unwrap();
        for decided in journal.decisions() {
            let again = policies.replay(&journal, fleet.clone(), decided.number).unwrap().unwrap();
            assert_eq!(again.answer, decided.answer);
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn the_log_has_the_last_so_many_and_never_much_more_over_restarts_too() {
    let store = AnyStore::memory(StoreClock::system());
    let policies = PolicyEngine::new(Config::native()).unwrap();
    let mut at = 0;
    for run in 0..3 {
        let log = Decisions::new(20, format!("run{run}"));
        log.open(&store).await.unwrap();
        for _ in 0..50 {
            at += 1;
            write(&log, &store, at, &policies).await;
            let kept = all_replay(&store, &policies).await;
            let least = 20.min(usize::try_from(at).unwrap());
            assert!((least..=30).contains(&kept), "{kept} decisions are kept after {at}");
            let newest = journals(&store).await.unwrap().iter().map(|journal| journal.at.as_second()).max();
            assert_eq!(newest, Some(at));
        }
    }
}

#[tokio::test]
async fn after_a_round_that_could_not_be_written_the_next_stands_on_its_own() {
    let store = AnyStore::memory(StoreClock::system());
    let policies = PolicyEngine::new(Config::native()).unwrap();
    let log = Decisions::new(100, "run".to_owned());
    write(&log, &store, 1, &policies).await;
    let _not_written = log.write(round(log.next_round().unwrap(), 2, &policies));
    log.lost();
    write(&log, &store, 3, &policies).await;
    assert_eq!(all_replay(&store, &policies).await, 2);
}

#[test]
fn a_log_of_nothing_names_no_round() {
    assert_eq!(Decisions::new(0, "run".to_owned()).next_round(), None);
}
