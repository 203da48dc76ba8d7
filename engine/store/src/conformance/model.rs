//! Random histories: whatever happens, a store answers like the model.

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::StreamExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::Bench;
use crate::{
    AnyStore, Change, Committed, Epoch, EventRecord, Guard, Key, List, Page, RequestId, Revision, Selector, Shard,
    Store, Txn, UniqueKey, Write,
};

#[derive(Clone, Debug)]
enum Step {
    Commit(Txn),
    /// Retries some guards with the revision that the object has now, so that guards also hold.
    Claim(Key, Txn),
    Acquire(Shard, &'static str),
    Renew(Shard, Epoch),
    Release(Shard, Epoch),
    Advance(Duration),
    Compact(Revision),
    ForgetEvents(Revision),
    /// Starts a paged list, or goes on with the one under way.
    NextPage(Selector, NonZeroUsize),
    /// Closes the store and opens it again.
    Reopen,
}

const KEYS: [(&str, &str); 6] =
    [("host", "a"), ("host", "b"), ("host", "b1"), ("host", "c"), ("node", "a"), ("node", "b")];

fn key() -> impl Strategy<Value = Key> {
    select(&KEYS[..]).prop_map(|(kind, name)| Key::new(kind, name))
}

fn revision() -> impl Strategy<Value = Revision> {
    (0..40_u64).prop_map(Revision)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (1..4_u64).prop_map(Epoch)
}

fn shard() -> impl Strategy<Value = Shard> {
    (0..2_u16).prop_map(Shard)
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::All),
        Just(Selector::Kind("host".into())),
        Just(Selector::Prefix("host".into(), "b".into())),
        key().prop_map(Selector::Key),
    ]
}

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        (key(), revision()).prop_map(|(key, revision)| Guard::Revision(key, revision)),
        key().prop_map(Guard::Absent),
        (shard(), epoch()).prop_map(|(shard, epoch)| Guard::Epoch(shard, epoch)),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let unique = vec((select(&["mac", "bmc"][..]), select(&["1", "2", "3"][..])), 0..3)
        .prop_map(|entries| entries.into_iter().map(|(index, key)| UniqueKey::new(index, key)).collect());
    prop_oneof![
        3 => (key(), vec(any::<u8>(), 0..4), unique).prop_map(|(key, value, unique)| Write::Put { key, value, unique }),
        1 => key().prop_map(Write::Delete),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let guards = prop_oneof![3 => Just(Vec::new()), 1 => vec(guard(), 1..3)];
    let events = vec((key(), vec(any::<u8>(), 0..4)), 0..3)
        .prop_map(|events| events.into_iter().map(|(subject, value)| EventRecord::new(subject, value)).collect());
    let request_id = proptest::option::weighted(0.3, (0..4).prop_map(|id| RequestId(format!("r{id}"))));
    (guards, vec(write(), 0..4), events, request_id).prop_map(|(guards, writes, events, request_id)| Txn {
        guards,
        writes,
        events,
        request_id,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => txn().prop_map(Step::Commit),
        4 => (key(), txn()).prop_map(|(key, txn)| Step::Claim(key, txn)),
        2 => (shard(), select(&["one", "two"][..])).prop_map(|(shard, holder)| Step::Acquire(shard, holder)),
        1 => (shard(), epoch()).prop_map(|(shard, epoch)| Step::Renew(shard, epoch)),
        1 => (shard(), epoch()).prop_map(|(shard, epoch)| Step::Release(shard, epoch)),
        1 => select(vec![Duration::from_secs(10), Duration::from_secs(13 * 60 * 60)]).prop_map(Step::Advance),
        1 => revision().prop_map(Step::Compact),
        1 => revision().prop_map(Step::ForgetEvents),
        3 => (selector(), 1..4_usize).prop_map(|(selector, limit)| Step::NextPage(selector, NonZeroUsize::new(limit).unwrap())),
        1 => Just(Step::Reopen),
    ]
}

/// A store with the list that is under way on it.
struct Side {
    store: AnyStore,
    list: Option<(Selector, List)>,
}

impl Side {
    fn new(store: AnyStore) -> Self {
        Self { store, list: None }
    }

    /// Takes a step and returns everything that can be seen of it.
    async fn take(&mut self, step: &Step) -> String {
        const TTL: Duration = Duration::from_secs(15);
        let store = &self.store;
        match step {
            Step::Commit(txn) => seen(store.commit(txn.clone()).await),
            Step::Claim(key, txn) => {
                let mut txn = txn.clone();
                let guard = match store.get(key).await.unwrap() {
                    Some(stored) => Guard::Revision(key.clone(), stored.revision),
                    None => Guard::Absent(key.clone()),
                };
                txn.guards = vec![guard];
                seen(store.commit(txn).await)
            }
            Step::Acquire(shard, holder) => seen(store.acquire(*shard, holder, TTL).await),
            Step::Renew(shard, epoch) => seen(store.renew(*shard, *epoch, TTL).await),
            Step::Release(shard, epoch) => seen(store.release(*shard, *epoch).await),
            Step::Compact(before) => seen(store.compact(*before).await),
            Step::ForgetEvents(before) => seen(store.forget_events(*before).await),
            Step::NextPage(selector, limit) => {
                let (selector, page) = match self.list.take().map(|(selector, list)| (selector, list.next)) {
                    Some((selector, Some(token))) => (selector, Page::after(*limit, token)),
                    _ => (selector.clone(), Page::first(*limit)),
                };
                let list = store.list(&selector, page).await;
                self.list = list.as_ref().ok().map(|list| (selector, list.clone()));
                seen(list)
            }
            Step::Advance(_) | Step::Reopen => String::new(),
        }
    }

    /// Everything that can be read.
    async fn state(&self) -> String {
        let store = &self.store;
        let mut state = seen(store.revision().await) + &seen(store.list(&Selector::All, Page::default()).await);
        for id in 0..4 {
            state += &seen(store.outcome(&RequestId(format!("r{id}"))).await);
        }
        let events = store.latest_events(&Selector::All, usize::MAX).await.unwrap();
        // Forgotten events go when the store gets round to it.
        let kept: Vec<_> = events.events.iter().filter(|event| event.revision > events.forgotten).collect();
        state + &format!("{:?} {kept:?}", events.forgotten)
    }

    /// What a watch has to tell up to the newest commit (which every selector sees), or how it failed.
    async fn watch(&self, selector: &Selector, after: Revision) -> (Vec<Committed>, Option<String>) {
        let head = self.store.revision().await.unwrap();
        let mut stream = self.store.watch(selector.clone(), after);
        let mut commits = Vec::new();
        loop {
            let reached = match stream.next().await.expect("a watch ends with an error") {
                Ok(change) => {
                    let reached = change.revision();
                    commits.extend(match change {
                        Change::Committed(commit) => Some(commit),
                        Change::Progress(_) => None,
                    });
                    reached
                }
                Err(error) => return (commits, Some(seen(error))),
            };
            if reached >= head {
                return (commits, None);
            }
        }
    }
}

fn seen(result: impl Debug) -> String {
    format!("{result:?}\n")
}

async fn compare(mut bench: Bench, steps: Vec<Step>, selector: Selector, after: Revision) {
    let mut model = Side::new(AnyStore::memory(bench.time.clock()));
    let mut real = Side::new(bench.store.clone());
    for step in &steps {
        assert_eq!(real.take(step).await, model.take(step).await, "{step:?}");
        match step {
            Step::Advance(by) => bench.time.advance(*by),
            Step::Reopen => {
                real.store = AnyStore::memory(bench.time.clock());
                bench.reopen().await;
                real.store = bench.store.clone();
            }
            _ => {}
        }
    }
    assert_eq!(real.state().await, model.state().await);
    let everywhere =
        Txn { events: KEYS.map(|(kind, name)| EventRecord::new(Key::new(kind, name), "end")).into(), ..Txn::new() };
    for side in [&real, &model] {
        side.store.commit(everywhere.clone()).await.unwrap();
    }
    assert_eq!(real.watch(&selector, after).await, model.watch(&selector, after).await);
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_is_the_model(steps in vec(step(), 1..40), selector in selector(), after in revision()) {
        block_on(async { compare(Bench::sqlite().await, steps, selector, after).await });
    }

    #[test]
    fn postgres_is_the_model(steps in vec(step(), 1..40), selector in selector(), after in revision()) {
        block_on(async { compare(Bench::postgres().await, steps, selector, after).await });
    }
}
