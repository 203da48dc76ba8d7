#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, VirtualClock};

fn scheduler<K: Clone + Eq + Hash + Debug>() -> Scheduler<K> {
    Scheduler::new(Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)))
}

/// The next key, if one is due.
async fn ready<K: Clone + Eq + Hash + Debug>(scheduler: &Scheduler<K>) -> Option<Lease<K>> {
    tokio::select! {
        biased;
        lease = scheduler.next() => Some(lease),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn keys_come_out_when_they_are_due_and_in_that_order() {
    let scheduler = Scheduler::new(Arc::new(VirtualClock::starting_at(Timestamp::UNIX_EPOCH)));
    let start = Instant::now();
    scheduler.wake_after("c", Duration::from_secs(3));
    scheduler.wake_at("b", Timestamp::from_second(2).unwrap());
    scheduler.wake_at("past", Timestamp::from_second(-9).unwrap());
    scheduler.wake("a");
    scheduler.wake_at("a", Timestamp::from_second(1).unwrap());
    let mut seen = Vec::new();
    for _ in 0..4 {
        let lease = scheduler.next().await;
        seen.push((*lease.key(), start.elapsed().as_secs()));
    }
    assert_eq!(seen, [("past", 0), ("a", 0), ("b", 2), ("c", 3)]);
    assert_eq!(scheduler.stats(), SchedulerStats { waiting: 0, ready: 0, running: 0, lag: Duration::ZERO });
}

#[tokio::test(start_paused = true)]
async fn an_earlier_wake_moves_a_waiting_key_and_the_one_who_waits() {
    let scheduler = scheduler();
    scheduler.wake_after("a", Duration::from_secs(60));
    let (start, waiter) = (Instant::now(), scheduler.clone());
    let waiting = tokio::spawn(async move { waiter.next().await.key().to_string() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    scheduler.wake_after("a", Duration::from_secs(4));
    assert_eq!(waiting.await.unwrap(), "a");
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert!(ready(&scheduler).await.is_none(), "the later wake was part of it");
}

#[tokio::test(start_paused = true)]
async fn a_key_woken_while_it_runs_runs_again_afterwards() {
    let scheduler = scheduler();
    scheduler.wake("a");
    let lease = scheduler.next().await;
    scheduler.wake_after("a", Duration::from_secs(9));
    scheduler.wake("a");
    scheduler.wake("b");
    assert_eq!(*scheduler.next().await.key(), "b");
    assert!(ready(&scheduler).await.is_none());
    assert_eq!(scheduler.stats().running, 1);
    lease.done();
    let again = scheduler.next().await;
    assert_eq!(*again.key(), "a");
    drop(again);
    assert!(ready(&scheduler).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_key_does_not_run() {
    let scheduler = scheduler();
    scheduler.wake("a");
    scheduler.wake("b");
    scheduler.forget(&"a");
    scheduler.forget(&"nobody");
    let lease = scheduler.next().await;
    scheduler.wake("b");
    scheduler.forget(&"b");
    drop(lease);
    assert!(ready(&scheduler).await.is_none());
    scheduler.wake("a");
    assert!(ready(&scheduler).await.is_some(), "it can be woken again");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_run_does_not_keep_the_key() {
    let scheduler = scheduler();
    scheduler.wake("a");
    let lease = scheduler.next().await;
    let run = tokio::spawn(async move {
        let _lease = lease;
        panic!("on purpose");
    });
    assert!(run.await.is_err());
    scheduler.wake("a");
    assert!(ready(&scheduler).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_takes_no_wake_with_it() {
    let scheduler = scheduler::<&str>();
    let (first, second) = (scheduler.clone(), scheduler.clone());
    let first = tokio::spawn(async move { first.next().await.key().to_string() });
    let second = tokio::spawn(async move { second.next().await.key().to_string() });
    tokio::task::yield_now().await;
    scheduler.wake_after("a", Duration::from_secs(5));
    tokio::task::yield_now().await;
    first.abort();
    assert_eq!(second.await.unwrap(), "a");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wake(u8),
    WakeAfter(u8, u64),
    Take,
    Finish(usize),
    Forget(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_u8).prop_map(Step::Wake),
        3 => (0..5_u8, 0..20_u64).prop_map(|(key, delay)| Step::WakeAfter(key, delay)),
        5 => Just(Step::Take),
        4 => (0..5_usize).prop_map(Step::Finish),
        1 => (0..5_u8).prop_map(Step::Forget),
        2 => (0..10_u64).prop_map(Step::Pass),
    ]
}

/// What has been asked for and not yet been answered: per key the earliest time, and the first wake that named it.
async fn follow(steps: Vec<Step>) {
    let scheduler = scheduler();
    let (start, mut order) = (Instant::now(), 0_u64);
    let mut wanted: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
    let mut leases: Vec<Lease<u8>> = Vec::new();
    let now = || start.elapsed().as_secs();
    for step in steps {
        order += 1;
        let mut want = |key, due: (u64, u64)| {
            let earliest = wanted.entry(key).or_insert(due);
            *earliest = due.min(*earliest);
        };
        match step {
            Step::Wake(key) => {
                want(key, (now(), order));
                scheduler.wake(key);
            }
            Step::WakeAfter(key, delay) => {
                want(key, (now() + delay, order));
                scheduler.wake_after(key, Duration::from_secs(delay));
            }
            Step::Take => {
                let running = |key: &u8| leases.iter().any(|lease| lease.key() == key);
                let expected =
                    wanted.iter().filter(|(key, (due, _))| *due <= now() && !running(key)).min_by_key(|(_, due)| **due);
                let expected = expected.map(|(key, _)| *key);
                let taken = ready(&scheduler).await;
                assert_eq!(taken.as_ref().map(|lease| *lease.key()), expected);
                wanted.retain(|key, _| Some(*key) != expected);
                leases.extend(taken);
            }
            Step::Finish(which) if which < leases.len() => leases.remove(which).done(),
            Step::Finish(_) => {}
            Step::Forget(key) => {
                wanted.remove(&key);
                scheduler.forget(&key);
            }
            Step::Pass(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
        }
        let stats = scheduler.stats();
        assert_eq!(stats.running, leases.len());
    }
    // In the end everything asked for is run, once, and nothing else.
    leases.clear();
    while !wanted.is_empty() {
        let key = *scheduler.next().await.key();
        assert!(wanted.remove(&key).is_some_and(|(due, _)| due <= now()), "{key} was not wanted now");
    }
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(ready(&scheduler).await.is_none());
}

proptest! {
    #[test]
    fn no_key_runs_twice_at_once_no_wake_is_lost_and_the_order_is_that_of_due_times(steps in proptest::collection::vec(step(), 0..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(follow(steps));
    }
}

/// With real threads: the run that follows the last wake of a key sees what was written before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_change_is_always_seen() {
    const KEYS: usize = 8;
    const CHANGES: u64 = 2_000;
    #[derive(Default)]
    struct Object {
        written: AtomicU64,
        seen: AtomicU64,
        busy: AtomicBool,
    }
    let scheduler = scheduler();
    let objects: Arc<Vec<Object>> = Arc::new((0..KEYS).map(|_| Object::default()).collect());
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (scheduler, objects) = (scheduler.clone(), Arc::clone(&objects));
            tokio::spawn(async move {
                loop {
                    let lease: Lease<usize> = scheduler.next().await;
                    let object = &objects[*lease.key()];
                    assert!(!object.busy.swap(true, Ordering::SeqCst), "two runs at once");
                    object.seen.store(object.written.load(Ordering::SeqCst), Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    object.busy.store(false, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..KEYS)
        .map(|key| {
            let (scheduler, objects) = (scheduler.clone(), Arc::clone(&objects));
            tokio::spawn(async move {
                for change in 1..=CHANGES {
                    objects[key].written.store(change, Ordering::SeqCst);
                    scheduler.wake(key);
                    if change % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let settled = async {
        while objects.iter().any(|object| object.seen.load(Ordering::SeqCst) != CHANGES) {
            assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.expect("a wake was lost");
    for worker in &workers {
        worker.abort();
    }
}
