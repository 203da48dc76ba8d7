//! An eager client of Ironic: nodes from `enroll` to `available`.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::Run;
use super::peer::Peer;
use crate::fleet::Pulse;
use crate::process::cost;

/// Requests under way at the same time: the fastest of 2, 4, 8 and 12; from some thirty on its server refuses connections.
pub(super) const PARALLEL: usize = 4;
/// The pause between two questions for states, and before a node that was locked is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long it may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(300);

fn name(index: u32) -> String {
    format!("n{index:05}")
}

/// Brings so many nodes into the pool.
pub(super) async fn run(peer: &mut Peer, nodes: u32) -> Result<Run> {
    let (before, own, begin) = (peer.cost(), cost(None), Instant::now());
    let ended = tokio::time::timeout(PATIENCE, all(peer, nodes)).await;
    let wall = begin.elapsed();
    peer.check()?;
    match ended {
        Ok(result) => result?,
        Err(_) => {
            let available = named(peer, "available").await.map(|nodes| nodes.len());
            bail!("not all of {nodes} nodes are available after {PATIENCE:?}, but {available:?}");
        }
    }
    let (after, own_after) = (peer.cost(), cost(None));
    let available = named(peer, "available").await?.len();
    ensure!(available == usize::try_from(nodes)?, "{available} of {nodes} nodes stayed available");
    Ok(Run { wall, cpu: after.cpu - before.cpu, bench: own_after.cpu - own.cpu, resident_kib: after.resident_kib })
}

/// Asks one step of every node, several at a time, and the next when every one has taken it. To pass each node on by itself,
/// as soon as it is seen to be ready for that, was measured to be slower: the peer has to be asked for states all the time,
/// and what it spends on answers it does not spend on nodes.
async fn all(peer: &Peer, nodes: u32) -> Result<()> {
    each(nodes, |node| async move {
        let body = json!({ "name": node, "driver": "fake-hardware" });
        let (status, answer) = peer.call(Method::POST, "/v1/nodes", Some(&body)).await?;
        ensure!(status == StatusCode::CREATED, "enrolling {node}: {status}: {answer}");
        ensure!(answer["provision_state"] == "enroll", "{node} did not begin in enroll: {answer}");
        Ok(())
    })
    .await?;
    each(nodes, |node| ask(peer, node, "manage")).await?;
    reached(peer, nodes, "verifying", "manageable").await?;
    each(nodes, |node| ask(peer, node, "provide")).await?;
    // On its way to the pool a node is "cleaning", even if there is nothing to clean.
    reached(peer, nodes, "cleaning", "available").await
}

async fn each<F: Future<Output = Result<()>>>(nodes: u32, step: impl Fn(String) -> F) -> Result<()> {
    futures::stream::iter(0..nodes).map(|index| step(name(index))).buffer_unordered(PARALLEL).try_collect().await
}

/// Waits until all nodes are in a state, by way of another. Those on their way are asked for first, because a listing of few
/// is cheap for the peer: one of 200 takes it a tenth of a second.
async fn reached(peer: &Peer, nodes: u32, by_way_of: &str, state: &str) -> Result<()> {
    let mut pulse = Pulse::new();
    loop {
        let under_way = named(peer, by_way_of).await?.len();
        if under_way == 0 && named(peer, state).await?.len() == usize::try_from(nodes)? {
            return Ok(());
        }
        pulse.beat(|| format!("{under_way} of {nodes} are {by_way_of}"));
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks for a change of state until it is accepted: a node is locked while the step before it ends.
async fn ask(peer: &Peer, node: String, target: &str) -> Result<()> {
    let path = format!("/v1/nodes/{node}/states/provision");
    loop {
        match peer.call(Method::PUT, &path, Some(&json!({ "target": target }))).await? {
            (StatusCode::ACCEPTED, _) => return Ok(()),
            (StatusCode::CONFLICT, _) => tokio::time::sleep(PAUSE).await,
            (status, answer) => bail!("{target} of {node}: {status}: {answer}"),
        }
    }
}

/// The nodes in this state.
async fn named(peer: &Peer, state: &str) -> Result<Vec<String>> {
    let path = format!("/v1/nodes?fields=name,provision_state&limit=1000&provision_state={state}");
    let (status, answer) = peer.call(Method::GET, &path, None).await?;
    ensure!(status == StatusCode::OK, "listing nodes: {status}: {answer}");
    let names = answer["nodes"].as_array().into_iter().flatten().filter_map(|node| node["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
