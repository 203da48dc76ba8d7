//! Claim and release of many hosts at once.
//!
//! All claims are declared as fast as the API takes them, and then all are deleted. A claim takes from its declaration to
//! `ready`: decision, join token, image order, first boot, phone-home, Node. A release takes from the deletion to the moment
//! when the host is back in the pool: cordon, drain, power off, deletion of the Node, erasure. Servers do in no time what they
//! are told, so that what is left is the engine's share; with this many at once, most of it is waiting for one's turn.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use vmetal_api::{AnyObject, Apply, Client, Secret, WatchItem, WatchQuery};
use vmetal_model::image::ImageSpec;
use vmetal_model::tenant_cluster::TenantClusterSpec;
use vmetal_model::tenant_node::TenantNodeSpec;
use vmetal_model::{Host, HostPhase, Image, ImagePhase, Kind, TenantCluster, TenantNode};

use super::rig::{CLASS, CLUSTERS, PARALLEL, Rig};
use super::{Pulse, say, text};
use crate::process::cost;
use crate::row::{Row, percentile};

const IMAGE: &str = "bench";

/// What was seen of the claims.
#[derive(Default)]
struct Seen {
    /// When each claim became ready, and on which host.
    ready: HashMap<String, (Instant, String)>,
    /// When each claim was gone.
    gone: HashMap<String, Instant>,
    /// When each host was last seen to come to the pool.
    free: HashMap<String, Instant>,
    /// Hosts that are not in the pool.
    out: HashMap<String, HostPhase>,
}

impl Seen {
    fn take(&mut self, kind: Kind, item: &WatchItem, object: &AnyObject, name: String, now: Instant) -> Result<()> {
        match (kind, item) {
            (Kind::TenantNode, WatchItem::Deleted(_)) => {
                self.gone.insert(name, now);
            }
            (Kind::TenantNode, _) if object.status["phase"] == "ready" => {
                let host = object.status["host"].as_str().unwrap_or_default().to_owned();
                self.ready.entry(name).or_insert((now, host));
            }
            (Kind::Host, WatchItem::Changed(_)) => match serde_json::from_value(object.status["phase"].clone())? {
                // A host in the pool that was not out of it before is only being claimed.
                HostPhase::Available if self.out.remove(&name).is_some() => {
                    self.free.insert(name, now);
                }
                HostPhase::Available => {}
                phase => {
                    self.out.insert(name, phase);
                }
            },
            _ => {}
        }
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Seen>>);

impl Log {
    fn with<T>(&self, f: impl FnOnce(&mut Seen) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Claims and releases `count` hosts of a fleet that lies in the pool.
pub(super) async fn run(rig: &mut Rig, count: u32) -> Result<Vec<Row>> {
    say(&format!("claim {count} of {} hosts", rig.hosts));
    prepare(rig).await?;
    let log = Log::default();
    let watchers =
        [Kind::TenantNode, Kind::Host].map(|kind| tokio::spawn(watch(rig.client.clone(), kind, log.clone())));
    let patience = Duration::from_secs(180) + Duration::from_millis(100) * count;

    let (begin, cpu) = (Instant::now(), rig.engine.cost().cpu);
    let asked = each(count, |index| claim(&rig.client, index)).await?;
    wait(rig, patience, count, "ready", || log.with(|seen| seen.ready.len())).await?;
    let (claimed, claim_cpu) = (begin.elapsed(), rig.engine.cost().cpu - cpu);
    let ready = log.with(|seen| seen.ready.clone());
    let mut claim_ms = milliseconds(&asked, |name| ready.get(name).map(|(at, _)| *at))?;

    say(&format!("release {count} hosts"));
    let (begin, cpu) = (Instant::now(), rig.engine.cost().cpu);
    let asked = each(count, |index| release(&rig.client, index)).await?;
    wait(rig, patience, count, "back in the pool", || {
        log.with(|seen| ready.values().filter(|(at, host)| seen.free.get(host).is_some_and(|free| free > at)).count())
    })
    .await?;
    let (released, release_cpu) = (begin.elapsed(), rig.engine.cost().cpu - cpu);
    let free = log.with(|seen| seen.free.clone());
    let mut release_ms = milliseconds(&asked, |name| free.get(&ready.get(name)?.1).copied())?;
    wait(rig, patience, count, "gone", || log.with(|seen| seen.gone.len())).await?;
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    all_back(rig).await?;

    let n = claim_ms.len();
    let per_host = |seconds: f64| seconds * 1000.0 / f64::from(count.max(1));
    let notes = format!(
        "{count} claims at once on {CLUSTERS} clusters, kubeadm driver against API servers in memory; servers do their part in no \
         time; all ready after {:.1} s, engine {:.1} ms CPU per claim; bench {:.0} s CPU so far",
        claimed.as_secs_f64(),
        per_host(claim_cpu),
        cost(None).cpu,
    );
    let release_notes = format!(
        "from the deletion to the host's return to the pool, erased; all back after {:.1} s, engine {:.1} ms CPU per release",
        released.as_secs_f64(),
        per_host(release_cpu),
    );
    Ok(vec![
        Row::new("claim_p50_ms", "ms", percentile(&mut claim_ms, 0.50), n, notes),
        Row::new("claim_p99_ms", "ms", percentile(&mut claim_ms, 0.99), n, ""),
        Row::new("release_p50_ms", "ms", percentile(&mut release_ms, 0.50), n, release_notes),
        Row::new(
            "release_p99_ms",
            "ms",
            percentile(&mut release_ms, 0.99),
            n,
            "every host is back in the pool, with an erase record",
        ),
    ])
}

/// Declares an image, the class with it, and the clusters; waits until they can be used.
pub(crate) async fn prepare(rig: &Rig) -> Result<()> {
    let file = rig.directory().join("image.raw");
    let mut disk = vec![7; 1 << 20];
    // An MBR's signature: what is not a partitioned disk is not imported.
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&file, disk)?;
    let spec = ImageSpec { source: text(&file).to_owned(), checksum: None, format: None };
    rig.client.apply(Apply::new::<Image>(IMAGE, &spec)?).await?;
    rig.declare_class(Some(IMAGE)).await?;
    for index in 0..CLUSTERS {
        let apply = Apply::new::<TenantCluster>(cluster(index), &TenantClusterSpec::default())?;
        let kubeconfig = Secret::new(rig.world.clusters.kubeconfig(index));
        rig.client.apply(apply.secret("kubeconfig", kubeconfig)).await?;
    }
    let begin = Instant::now();
    loop {
        let image = rig.client.get_as::<Image>(IMAGE).await?.context("the image is gone")?;
        let clusters = rig.client.list_as::<TenantCluster>(&BTreeMap::new()).await?;
        if image.status.phase == ImagePhase::Ready && clusters.iter().all(|cluster| cluster.status.reachable) {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(60) {
            let failures: Vec<_> = clusters.iter().filter_map(|cluster| cluster.status.failure.as_ref()).collect();
            bail!("image or clusters are not ready: {:?}, {:?}", image.status, failures.first());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn cluster(index: usize) -> String {
    format!("c{index:02}")
}

pub(crate) fn node(index: u32) -> String {
    format!("n{index:05}")
}

/// Calls for each number, as many at once as an eager client would; when each call was begun, by name.
async fn each<F: Future<Output = Result<()>>>(count: u32, call: impl Fn(u32) -> F) -> Result<HashMap<String, Instant>> {
    let calls = (0..count).map(|index| {
        let call = &call;
        async move {
            let at = Instant::now();
            call(index).await?;
            anyhow::Ok((node(index), at))
        }
    });
    futures::stream::iter(calls).buffer_unordered(PARALLEL).try_collect().await
}

pub(crate) async fn claim(client: &Client, index: u32) -> Result<()> {
    let spec = TenantNodeSpec {
        cluster: cluster(usize::try_from(index)? % CLUSTERS),
        node_type: Some(CLASS.to_owned()),
        ..TenantNodeSpec::default()
    };
    client.apply(Apply::new::<TenantNode>(node(index), &spec)?).await?;
    Ok(())
}

async fn release(client: &Client, index: u32) -> Result<()> {
    client.delete(Kind::TenantNode, &node(index), None).await?;
    Ok(())
}

async fn watch(client: Client, kind: Kind, log: Log) -> Result<()> {
    let mut items = client.watch(WatchQuery { kind: Some(kind), name: None }).await?;
    while let Some(item) = items.next().await {
        let item = item.inspect_err(|error| eprintln!("bench: a watch broke: {error}"))?;
        let Some(object) = item.object() else { continue };
        let (now, name) = (Instant::now(), object.name().to_owned());
        log.with(|seen| seen.take(kind, &item, object, name, now))?;
    }
    Ok(())
}

async fn wait(rig: &mut Rig, patience: Duration, count: u32, what: &str, reached: impl Fn() -> usize) -> Result<()> {
    let (begin, mut pulse) = (Instant::now(), Pulse::new());
    while reached() < usize::try_from(count)? {
        rig.engine.check()?;
        if begin.elapsed() > patience {
            let nodes = rig.client.list_as::<TenantNode>(&BTreeMap::new()).await?;
            let stuck = nodes
                .iter()
                .find(|node| node.status.host.is_none() || what != "ready" || node.status.failure.is_some());
            let stuck = stuck.or(nodes.first()).map(|node| serde_json::to_string(&node.status).unwrap_or_default());
            bail!("{} of {count} {what} after {patience:?}; for example {stuck:?}", reached());
        }
        pulse.beat(|| format!("{} of {count} {what}", reached()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn milliseconds(asked: &HashMap<String, Instant>, done: impl Fn(&str) -> Option<Instant>) -> Result<Vec<f64>> {
    let one = |(name, at): (&String, &Instant)| {
        let done = done(name).with_context(|| format!("{name} was never done"))?;
        Ok(done.saturating_duration_since(*at).as_secs_f64() * 1000.0)
    };
    asked.iter().map(one).collect()
}

/// Every host is in the pool again and nothing of a claim is left, neither in the engine nor in the clusters.
async fn all_back(rig: &Rig) -> Result<()> {
    let hosts = rig.every_host().await?;
    let back = |host: &&Host| host.status.phase == HostPhase::Available && host.status.claim.is_none();
    let count = hosts.iter().filter(back).count();
    ensure!(count == usize::try_from(rig.hosts)?, "{count} of {} hosts are back in the pool", rig.hosts);
    let nodes = rig.client.list_as::<TenantNode>(&BTreeMap::new()).await?;
    ensure!(nodes.is_empty(), "{} claims are left", nodes.len());
    ensure!(rig.world.clusters.nodes() == 0, "{} Nodes are left in the clusters", rig.world.clusters.nodes());
    Ok(())
}
