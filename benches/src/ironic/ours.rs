//! Our side: hosts are declared, and a watch says when each is in the pool.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use vmetal_api::{Client, WatchQuery};
use vmetal_model::{HostPhase, Kind};

use super::{Ironic, Run};
use crate::fleet::rig::{Options, Rig};
use crate::machine::Sickness;
use crate::process::cost;

/// How long it may take before the bench gives up: far more than any bar.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn run(bench: &Ironic) -> Result<Run> {
    let options = Options { vmetald: &bench.vmetald, policies: bench.policies.as_deref(), scratch: &bench.scratch };
    let mut rig = Rig::start(options, bench.nodes, Duration::ZERO, |_| Sickness::Healthy).await?;
    let (engine, own, begin) = (rig.engine.cost(), cost(None), Instant::now());
    let all = async {
        rig.declare_class(None).await?;
        let (declared, seen) = tokio::join!(rig.declare_all(), all_available(&rig.client, bench.nodes));
        declared.and(seen)
    };
    let ended = tokio::time::timeout(PATIENCE, all).await;
    let wall = begin.elapsed();
    rig.engine.check()?;
    let (engine_after, own_after) = (rig.engine.cost(), cost(None));
    let hosts = rig.every_host().await?;
    let available = hosts.iter().filter(|host| host.status.phase == HostPhase::Available).count();
    match ended {
        Ok(result) => result?,
        Err(_) => {
            let other = hosts.iter().find(|host| host.status.phase != HostPhase::Available);
            let other = other.map(|host| serde_json::to_string(&host.status).unwrap_or_default());
            anyhow::bail!(
                "{available} of {} hosts are available after {PATIENCE:?}; for example {other:?}",
                bench.nodes
            );
        }
    }
    ensure!(available == usize::try_from(bench.nodes)?, "{available} of {} hosts stayed available", bench.nodes);
    Ok(Run {
        wall,
        cpu: engine_after.cpu - engine.cpu,
        bench: own_after.cpu - own.cpu,
        resident_kib: engine_after.resident_kib,
    })
}

/// Returns when so many hosts have been seen in the pool.
async fn all_available(client: &Client, count: u32) -> Result<()> {
    let mut items = client.watch(WatchQuery { kind: Some(Kind::Host), name: None }).await?;
    let mut available = HashSet::new();
    while available.len() < usize::try_from(count)? {
        let item = items.next().await.context("the watch ended")??;
        if let Some(object) = item.object()
            && object.status["phase"] == "available"
        {
            available.insert(object.name().to_owned());
        }
    }
    Ok(())
}
