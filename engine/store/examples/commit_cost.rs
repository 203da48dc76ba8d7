//! What a commit costs: commits per second and processor time per commit, for values of the size of a host.
//!
//! `cargo run --release -p vmetal-store --example commit_cost [COMMITS] [CONCURRENT]`, in a directory on the disk that
//! counts (TMPDIR).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement of real time")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use vmetal_store::{AnyStore, Guard, Key, Revision, Selector, SqliteOptions, Store, Txn};

/// A host with its status, as the engine stores it.
const VALUE: usize = 6 << 10;
const HOSTS: usize = 1_000;

/// Processor time of this process so far.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let commits = arguments.next().unwrap_or(20_000);
    let concurrent = arguments.next().unwrap_or(64);
    let dir = tempfile::tempdir().unwrap();
    let store = AnyStore::open(dir.path().join("store.db"), SqliteOptions::default()).unwrap();
    let mut watch = store.watch(Selector::All, Revision::ZERO);
    let watcher = tokio::spawn(async move {
        let mut seen = 0;
        while watch.next().await.unwrap().unwrap().revision() < Revision((HOSTS + commits) as u64) {
            seen += 1;
        }
        seen
    });
    let value: Vec<u8> = (0..VALUE).map(|at| b' ' + (at * 7 % 90) as u8).collect();
    let commit = |number: usize| {
        let (store, value) = (&store, &value);
        async move {
            let host = Key::new("host", format!("host-{:05}", number % HOSTS));
            let txn = match number < HOSTS {
                true => Txn::new().guard(Guard::Absent(host.clone())),
                false => Txn::new(),
            };
            let txn =
                txn.put(host.clone(), value.clone()).event(host, &b"{\"reason\":\"Measured\",\"message\":\"x\"}"[..]);
            store.commit(txn).await.unwrap();
        }
    };
    stream::iter(0..HOSTS).map(commit).buffered(concurrent).collect::<Vec<()>>().await;
    let (begin, used) = (Instant::now(), processor());
    let mut done = 0;
    while done < commits {
        let portion = 2_000.min(commits - done);
        let from = HOSTS + done;
        stream::iter(from..from + portion).map(commit).buffered(concurrent).collect::<Vec<()>>().await;
        done += portion;
        // As the engine's housekeeping does, only more often.
        store.compact(Revision((from + portion - 1_000) as u64)).await.unwrap();
    }
    let (took, used) = (begin.elapsed(), processor() - used);
    watcher.await.unwrap();
    let AnyStore::Sqlite(sqlite) = &store else { return };
    let stats = sqlite.stats();
    println!(
        "{commits} commits of {VALUE} bytes, {concurrent} at a time: {:.0} commits/s, {:.0} us of processor each; \
         {:.1} transactions per sync, {} collections, {} bytes in the file",
        commits as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / commits as f64,
        stats.transactions as f64 / stats.batches as f64,
        stats.collections,
        std::fs::metadata(dir.path().join("store.db")).unwrap().len(),
    );
}
