//! Claims in a whole engine: from the request at the API to the reservation that is durable and told to whoever watches.
//!
//! Clients that each wait for their claim's host before they claim the next: what is measured is the engine and not the length
//! of a queue. The engine goes on with every claim meanwhile (token, order, power); servers take longer to boot than the
//! measurement takes, so that what comes after is not in it.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use tokio::sync::oneshot;
use vmetal_api::{Client, WatchItem, WatchQuery};
use vmetal_model::Kind;

use super::Policy;
use crate::fleet::claims::{claim, node, prepare};
use crate::fleet::rig::{Options, PARALLEL, Rig};
use crate::fleet::say;
use crate::machine::Sickness;
use crate::row::{Row, percentile};

/// From power-on to a server's first request once claims are measured: longer than that takes.
const BOOT: Duration = Duration::from_secs(600);
/// A reservation that takes longer is a fault.
const PATIENCE: Duration = Duration::from_secs(60);

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Instant>>>>;

/// Registers a fleet and claims from it.
///
/// # Errors
/// When the engine cannot be run, or a claim gets no host.
pub(super) async fn run(bench: &Policy) -> Result<Vec<Row>> {
    say(&format!("register {} hosts", bench.hosts));
    let options = Options { vmetald: &bench.vmetald, policies: bench.policies.as_deref(), scratch: &bench.scratch };
    let mut rig = Rig::start(options, bench.hosts, Duration::ZERO, |_| Sickness::Healthy).await?;
    rig.register(Duration::from_secs(120) + Duration::from_millis(100) * bench.hosts).await?;
    prepare(&rig).await?;
    rig.world.boot_after(BOOT);

    say(&format!("claim {} of {} hosts, {PARALLEL} at a time", bench.claims, bench.hosts));
    let waiting = Waiting::default();
    let (ready, begun) = oneshot::channel();
    let watcher = tokio::spawn(watch(rig.client.clone(), Arc::clone(&waiting), ready));
    begun.await.context("the watch did not begin")?;
    let (cpu, begin) = (rig.engine.cost().cpu, Instant::now());
    let one = |index: u32| {
        let (client, waiting) = (rig.client.clone(), Arc::clone(&waiting));
        async move {
            let (tell, told) = oneshot::channel();
            waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(node(index), tell);
            let asked = Instant::now();
            claim(&client, index).await?;
            let reserved = tokio::time::timeout(PATIENCE, told).await.context("a claim got no host in time")??;
            anyhow::Ok(reserved.saturating_duration_since(asked).as_secs_f64() * 1000.0)
        }
    };
    let done: Vec<Result<f64>> =
        futures::stream::iter(0..bench.claims).map(one).buffer_unordered(PARALLEL).collect().await;
    let wall = begin.elapsed().as_secs_f64();
    watcher.abort();
    let cpu = rig.engine.cost().cpu - cpu;
    rig.engine.check()?;
    let mut milliseconds = done.into_iter().collect::<Result<Vec<f64>>>()?;
    let n = milliseconds.len();
    let rate = n as f64 / wall;
    let p50 = percentile(&mut milliseconds, 0.5);
    let notes = format!(
        "{n} claims by {PARALLEL} clients that wait for their hosts, {} hosts in the pool, SQLite on disk, API over loopback; \
         {:.2} ms CPU of the engine per claim, everything after the reservation up to the server's boot included; p50 {p50:.1} ms",
        bench.hosts,
        cpu * 1000.0 / n as f64,
    );
    let p99 = percentile(&mut milliseconds, 0.99);
    Ok(vec![
        Row::new("claims_per_s_daemon", "1/s", rate, n, notes),
        Row::new(
            "claim_decision_p99_ms",
            "ms",
            p99,
            n,
            "from the request to the durable reservation, as a watch tells it",
        ),
    ])
}

/// Tells whoever waits for a claim that it has its host.
async fn watch(client: Client, waiting: Waiting, ready: oneshot::Sender<()>) -> Result<()> {
    let mut items = client.watch(WatchQuery { kind: Some(Kind::TenantNode), name: None }).await?;
    let mut ready = Some(ready);
    while let Some(item) = items.next().await {
        let item = item?;
        if matches!(item, WatchItem::Bookmark { .. }) {
            // Nobody waits for it any more: the bench has ended.
            let _ = ready.take().map(|ready| ready.send(()));
        }
        let Some(object) = item.object().filter(|object| object.status["host"].is_string()) else { continue };
        let told = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(object.name());
        // A client that has given up has said so.
        let _ = told.map(|told| told.send(Instant::now()));
    }
    bail!("the watch ended")
}
