//! An eager client of Ironic: nodes from `enroll` to `available`.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::Run;
use super::peer::Peer;
use crate::fleet::Pulse;
use crate::process::cost;

/// Requests under way at the same time.
pub(super) const PARALLEL: usize = 8;
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
        Err(_) => bail!("not all of {nodes} nodes are available after {PATIENCE:?}: {:?}", named(peer, "").await),
    }
    let (after, own_after) = (peer.cost(), cost(None));
    let available = named(peer, "available").await?.len();
    ensure!(available == usize::try_from(nodes)?, "{available} of {nodes} nodes stayed available");
    Ok(Run { wall, cpu: after.cpu - before.cpu, bench: own_after.cpu - own.cpu, resident_kib: after.resident_kib })
}

/// Enrolls and has them verified, and passes each on to the pool as soon as it is seen to be verified.
async fn all(peer: &Peer, nodes: u32) -> Result<()> {
    let (send, verified) = futures::channel::mpsc::unbounded();
    let enrolled = (0..nodes).map(|index| Step::Enroll(name(index)));
    // What can go on first: a node nearer the end leaves earlier, and the peer has the same work in any order.
    let steps = futures::stream::select_with_strategy(
        verified.map(Step::Provide),
        futures::stream::iter(enrolled),
        |(): &mut ()| futures::stream::PollNext::Left,
    );
    let steps = steps.map(|step| step.take(peer)).buffer_unordered(PARALLEL).try_collect::<()>();
    let watching = async {
        let (mut passed, mut pulse) = (HashSet::new(), Pulse::new());
        while passed.len() < usize::try_from(nodes)? {
            for node in named(peer, "manageable").await? {
                if passed.insert(node.clone()) {
                    send.unbounded_send(node)?;
                }
            }
            pulse.beat(|| format!("{} of {nodes} verified", passed.len()));
            tokio::time::sleep(PAUSE).await;
        }
        drop(send);
        anyhow::Ok(())
    };
    tokio::try_join!(steps, watching)?;
    // On its way to the pool a node is "cleaning", even if there is nothing to clean.
    while !named(peer, "cleaning").await?.is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    while named(peer, "available").await?.len() < usize::try_from(nodes)? {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// What is asked of the peer for one node.
enum Step {
    /// Make it known, and have it verified.
    Enroll(String),
    /// Put it into the pool.
    Provide(String),
}

impl Step {
    async fn take(self, peer: &Peer) -> Result<()> {
        match self {
            Step::Enroll(node) => {
                let body = json!({ "name": node, "driver": "fake-hardware" });
                let (status, answer) = peer.call(Method::POST, "/v1/nodes", Some(&body)).await?;
                ensure!(status == StatusCode::CREATED, "enrolling {node}: {status}: {answer}");
                ensure!(answer["provision_state"] == "enroll", "{node} did not begin in enroll: {answer}");
                ask(peer, &node, "manage").await
            }
            Step::Provide(node) => ask(peer, &node, "provide").await,
        }
    }
}

/// Asks for a change of state until it is accepted: a node is locked while the step before it ends.
async fn ask(peer: &Peer, node: &str, target: &str) -> Result<()> {
    let path = format!("/v1/nodes/{node}/states/provision");
    loop {
        match peer.call(Method::PUT, &path, Some(&json!({ "target": target }))).await? {
            (StatusCode::ACCEPTED, _) => return Ok(()),
            (StatusCode::CONFLICT, _) => tokio::time::sleep(PAUSE).await,
            (status, answer) => bail!("{target} of {node}: {status}: {answer}"),
        }
    }
}

/// The nodes in this state; in any when it is empty. Asking for few is cheap for the peer, which lists some 200 a tenth of a
/// second long.
async fn named(peer: &Peer, state: &str) -> Result<Vec<String>> {
    let path = format!("/v1/nodes?fields=name,provision_state&limit=1000&provision_state={state}");
    let path = path.trim_end_matches("&provision_state=");
    let (status, answer) = peer.call(Method::GET, path, None).await?;
    ensure!(status == StatusCode::OK, "listing nodes: {status}: {answer}");
    let names = answer["nodes"].as_array().into_iter().flatten().filter_map(|node| node["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
