//! Engines that share a store in memory, in virtual time.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use vmetal_model::Kind;
use vmetal_runtime::VirtualClock;
use vmetal_store::{StoreClock, StoreTime};

use super::*;

const LEASE: Duration = Duration::from_secs(15);
const QUARANTINE: Duration = Duration::from_secs(33);
const SECOND: Duration = Duration::from_secs(1);

fn store() -> AnyStore {
    let start = Instant::now();
    let clock = move || StoreTime(1_000_000 + u64::try_from(start.elapsed().as_millis()).unwrap());
    AnyStore::memory(StoreClock::from_fn(clock))
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(VirtualClock::starting_at(Timestamp::UNIX_EPOCH))
}

fn terms(id: &str) -> Terms {
    Terms::Shared(Shared {
        id: id.to_owned(),
        lease: LEASE,
        longest_call: Duration::from_secs(30),
        margin: Duration::from_secs(3),
    })
}

/// One engine's part, with what it was told to begin, and when.
struct Engine {
    ownership: Ownership,
    membership: Arc<Membership>,
    begun: Arc<Mutex<Vec<(Instant, usize)>>>,
    task: JoinHandle<()>,
}

impl Engine {
    async fn start(store: &AnyStore, id: &str) -> Self {
        let ownership = Ownership::open(store, terms(id), clock()).await.unwrap();
        let membership = Arc::new(Membership::new(&ownership, store).unwrap());
        let begun = Arc::new(Mutex::new(Vec::new()));
        let task = Self::run(&membership, &begun);
        Engine { ownership, membership, begun, task }
    }

    fn run(membership: &Arc<Membership>, begun: &Arc<Mutex<Vec<(Instant, usize)>>>) -> JoinHandle<()> {
        let (membership, begun) = (Arc::clone(membership), Arc::clone(begun));
        tokio::spawn(async move {
            membership.take_part(|shards| begun.lock().unwrap().push((Instant::now(), shards.len()))).await;
        })
    }

    /// What SIGSTOP does to it: it holds what it holds and does nothing.
    fn pause(&self) {
        self.task.abort();
    }

    fn resume(&mut self) {
        self.task = Self::run(&self.membership, &self.begun);
    }

    fn owned(&self) -> usize {
        self.ownership.owned()
    }

    /// Objects that this engine may decide about.
    fn held(&self) -> Vec<(ObjectKey, Hold)> {
        let keys = (0..1000).map(|n| ObjectKey::new(Kind::Host, format!("h{n}")));
        keys.filter_map(|key| self.ownership.hold(&key).map(|hold| (key, hold))).collect()
    }
}

async fn commit(store: &AnyStore, hold: Hold) -> Result<(), CommitError> {
    let mut txn = Txn::default();
    txn.guards.push(hold.guard());
    txn.writes.push(Write::put(Key::new("host", "h"), "decided"));
    store.commit(txn).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_owns_everything_at_once_and_fences_what_it_was() {
    let store = store();
    let before = Ownership::open(&store, Terms::Alone, clock()).await.unwrap();
    let key = ObjectKey::new(Kind::Host, "h");
    let old = before.hold(&key).unwrap();
    let _under_way = before.grip(old).unwrap();
    // kill -9 and a start right after it.
    let start = Instant::now();
    let after = Ownership::open(&store, Terms::Alone, clock()).await.unwrap();
    assert_eq!((after.owned(), start.elapsed()), (usize::from(SHARDS), Duration::ZERO));
    assert!(matches!(commit(&store, old).await, Err(CommitError::Fenced { .. })));
    let new = after.hold(&key).unwrap();
    commit(&store, new).await.unwrap();
    sleep(100 * LEASE).await;
    after.grip(new).unwrap().check().unwrap();
    assert!(Membership::new(&after, &store).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_number_of_shards_is_the_stores_and_not_the_engines() {
    let store = store();
    let mut txn = Txn::default();
    txn.writes.push(Write::put(Key::new("setting", "shards"), "8"));
    store.commit(txn).await.unwrap();
    let ownership = Ownership::open(&store, Terms::Alone, clock()).await.unwrap();
    assert_eq!((ownership.shards(), ownership.owned()), (8, 8));
    let mut txn = Txn::default();
    txn.writes.push(Write::put(Key::new("setting", "shards"), "many"));
    store.commit(txn).await.unwrap();
    let Err(error) = Ownership::open(&store, Terms::Alone, clock()).await else { panic!("it is nonsense") };
    assert!(error.to_string().contains("\"many\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_joins_gets_its_share_and_who_leaves_hands_over_at_once() {
    let store = store();
    let one = Engine::start(&store, "one").await;
    sleep(SECOND).await;
    assert_eq!(one.owned(), 64, "a first engine waits for nobody");
    let two = Engine::start(&store, "two").await;
    let three = Engine::start(&store, "three").await;
    sleep(2 * LEASE).await;
    let mut counts = [one.owned(), two.owned(), three.owned()];
    counts.sort_unstable();
    assert_eq!(counts, [21, 21, 22]);

    // An effect that is under way holds up its own shard only; the leaver waits for no successor.
    let (_, hold) = one.held()[0].clone();
    let grip = one.ownership.grip(hold).unwrap();
    one.task.abort();
    let leaving = {
        let membership = Arc::clone(&one.membership);
        tokio::spawn(async move { membership.leave(100 * SECOND).await })
    };
    sleep(SECOND).await;
    assert_eq!(one.owned(), 0);
    assert!(one.ownership.grip(hold).is_err(), "nothing new begins");
    grip.check().unwrap();
    sleep(2 * LEASE).await;
    assert_eq!(two.owned() + three.owned(), 63);
    grip.check().unwrap();
    drop(grip);
    assert_eq!(leaving.await.unwrap(), 0);
    let released = Instant::now();
    sleep(LEASE / 3 + SECOND).await;
    assert_eq!(two.owned() + three.owned(), 64);
    let begun = [&two, &three].map(|engine| engine.begun.lock().unwrap().last().unwrap().0);
    assert!(begun.into_iter().max().unwrap() - released <= LEASE / 3 + SECOND, "no quarantine after a clean hand-over");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_engine_held_is_taken_over_after_lease_and_longest_call_and_not_before() {
    let store = store();
    let one = Engine::start(&store, "one").await;
    let two = Engine::start(&store, "two").await;
    sleep(2 * LEASE).await;
    assert_eq!((one.owned(), two.owned()), (32, 32));
    one.pause();
    let died = Instant::now();
    sleep(2 * LEASE).await;
    assert_eq!(two.owned(), 32, "acquired perhaps, but nothing is decided yet");
    sleep(2 * LEASE).await;
    assert_eq!(two.owned(), 64);
    let took = two.begun.lock().unwrap().last().unwrap().0 - died;
    // The last renewal was up to a third of a lease before the death.
    assert!(took >= LEASE * 2 / 3 + QUARANTINE && took <= LEASE + QUARANTINE + SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_wakes_up_past_its_lease_is_refused_and_comes_back_as_somebody_new() {
    let store = store();
    let mut one = Engine::start(&store, "one").await;
    let two = Engine::start(&store, "two").await;
    sleep(2 * LEASE).await;
    let (key, hold) = one.held()[0].clone();
    let grip = one.ownership.grip(hold).unwrap();
    one.pause();
    sleep(LEASE - Duration::from_secs(3)).await;
    assert!(matches!(one.ownership.grip(hold), Err(Refusal::RunOut { .. })), "no effect begins in the last 3 s");
    assert!(grip.check().is_err(), "and none goes on");
    sleep(QUARANTINE + LEASE).await;
    assert_eq!(two.owned(), 64);
    let new = two.ownership.hold(&key).unwrap();
    // It resumes, right where it was: at a commit, and at an effect.
    let refused = commit(&store, hold).await.unwrap_err();
    assert!(matches!(refused, CommitError::Fenced { .. }), "{refused}");
    assert!(grip.check().is_err() && one.ownership.grip(hold).is_err());
    commit(&store, new).await.unwrap();
    one.ownership.heed(&refused);
    assert_eq!(one.ownership.hold(&key), None);
    one.resume();
    sleep(2 * LEASE).await;
    assert_eq!((one.owned(), two.owned()), (32, 32));
    assert!(grip.check().is_err(), "what was begun before the pause is over for good");
    assert!(matches!(commit(&store, hold).await, Err(CommitError::Fenced { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_that_nobody_took_is_renewed_and_work_goes_on() {
    let store = store();
    let mut one = Engine::start(&store, "one").await;
    sleep(SECOND).await;
    let (_, hold) = one.held()[0].clone();
    one.pause();
    sleep(10 * LEASE).await;
    assert!(one.ownership.grip(hold).is_err());
    one.resume();
    sleep(SECOND).await;
    one.ownership.grip(hold).unwrap();
    commit(&store, hold).await.unwrap();
}
