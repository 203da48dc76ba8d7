//! The operator: declares, gives back, and helps where only a person can. Speaks to the engine's API, as terraform does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::json;
use tokio::time::sleep;
use vmetal_api::{Apply, Backend as _, BackendError, Caller, Secret};
use vmetal_model::action::HostAction;
use vmetal_model::tenant_node::{DrainSpec, DrainTimeout};
use vmetal_model::{
    BootMode, Image, ImagePhase, ImageSpec, ImageStatus, Kind, NodeType, NodeTypeSpec, Resources, TenantCluster,
    TenantClusterSpec, TenantNode, TenantNodeSpec,
};
use vmetal_store::{Store as _, Txn, Write};
use vmetald::backend::ApiBackend;
use vmetald::ledger::{self, new_metadata, new_object};

use crate::scenario::{HostPlan, PASSWORD, USER, Wish};
use crate::world::World;

const CLUSTER: &str = "tenant-a";
const CLASS: &str = "small";
const IMAGE: &str = "linux";

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It was taken.
    Taken,
    /// It was refused for now (being deleted, in use): worth another try later.
    NotNow,
}

/// Puts what no simulated hand can make into the store: an image that was imported.
pub fn prepare(world: &World) {
    let spec = ImageSpec { source: "/linux.img".to_owned(), checksum: None, format: None };
    let status = ImageStatus {
        phase: ImagePhase::Ready,
        digest: Some("ab".repeat(32)),
        imported: Some(spec.clone()),
        observed_generation: 1,
        ..ImageStatus::default()
    };
    let image: Image = new_object(new_metadata(IMAGE, [7; 16], jiff::Timestamp::UNIX_EPOCH), spec, status);
    let value = serde_json::to_vec(&image).unwrap_or_default();
    let mut txn = Txn::default();
    txn.writes.push(Write::put(ledger::key(Kind::Image, IMAGE), value));
    // Few shards, so that the leases' renewal is not most of what happens.
    txn.writes.push(Write::put(vmetal_store::Key::new("setting", "shards"), "3"));
    // The model answers at once.
    let _ = world.model.commit(txn).now_or_never();
}

fn backend(world: &World) -> Option<ApiBackend> {
    let inner = world.inner();
    let alive: Vec<_> = inner.engines.iter().filter_map(|e| e.process.as_ref()?.engine()).collect();
    if alive.is_empty() { None } else { Some(ApiBackend(Arc::clone(world.chance.pick(&alive)))) }
}

fn caller() -> Caller {
    Caller { token: "simulation".into() }
}

/// Applies until it is taken or refused; an engine that dies over it is asked again, as the client does.
pub async fn apply(world: &Arc<World>, apply: Apply) -> Said {
    loop {
        sleep(world.chance.between(Duration::from_millis(1), Duration::from_millis(30))).await;
        let Some(backend) = backend(world) else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        let taken = tokio::time::timeout(Duration::from_secs(30), backend.apply(&caller(), apply.clone())).await;
        match taken {
            Ok(Ok(_)) => return Said::Taken,
            Ok(Err(BackendError::Unavailable { .. })) | Err(_) => sleep(Duration::from_secs(1)).await,
            Ok(Err(error)) => {
                world.say("operator", format!("{} {} was refused: {error}", apply.kind, apply.name));
                return Said::NotNow;
            }
        }
    }
}

/// Deletes until it is taken or refused.
pub async fn delete(world: &Arc<World>, kind: Kind, name: &str) -> Said {
    world.say("operator", format!("deletes {kind} {name}"));
    loop {
        sleep(world.chance.between(Duration::from_millis(1), Duration::from_millis(30))).await;
        let Some(backend) = backend(world) else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        match tokio::time::timeout(Duration::from_secs(30), backend.delete(&caller(), kind, name, None)).await {
            Ok(Ok(_) | Err(BackendError::NotFound { .. })) => return Said::Taken,
            Ok(Err(BackendError::Unavailable { .. })) | Err(_) => sleep(Duration::from_secs(1)).await,
            Ok(Err(error)) => {
                world.say("operator", format!("deletion of {kind} {name} was refused: {error}"));
                return Said::NotNow;
            }
        }
    }
}

/// Ends a quarantine.
pub async fn unquarantine(world: &Arc<World>, name: &str) {
    world.say("operator", format!("unquarantines host {name}"));
    let Some(backend) = backend(world) else { return };
    let action = HostAction::Unquarantine { reason: "the simulated operator has looked".to_owned() };
    let caller = caller();
    let acted = backend.act_on_host(&caller, name, None, &action);
    // One that is lost is given again.
    if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(30), acted).await {
        world.say("operator", format!("unquarantine of {name}: {error}"));
    }
}

fn request(world: &World, apply: Apply) -> Apply {
    Apply { request_id: format!("request-{}", world.chance.below(u64::MAX)), ..apply }
}

#[allow(clippy::expect_used, reason = "the model's types always serialise")]
fn order<R: vmetal_api::Resource>(world: &World, name: &str, spec: &R::Spec) -> Apply {
    request(world, Apply::new::<R>(name, spec).expect("a spec is plain data"))
}

/// Declares the cluster and the class.
pub async fn declare(world: &Arc<World>) {
    let cluster = TenantClusterSpec::default();
    let cluster =
        order::<TenantCluster>(world, CLUSTER, &cluster).secret("kubeconfig", Secret::new("the simulated cluster"));
    apply(world, cluster).await;
    let resources = [("cpu", "8"), ("memory", "32Gi")];
    let resources: Resources =
        resources.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.parse().ok()?))).collect();
    let class = NodeTypeSpec {
        selector: BTreeMap::from([("class".to_owned(), CLASS.to_owned())]),
        resources,
        cost: None,
        image: Some(IMAGE.to_owned()),
        properties: BTreeMap::new(),
    };
    apply(world, order::<NodeType>(world, CLASS, &class)).await;
}

/// Declares a host; `touched` is a label that may change.
pub async fn declare_host(world: &Arc<World>, plan: &HostPlan, touched: u32) -> Said {
    // As terraform declares it: what is left out has its default.
    let mode = if plan.mode == BootMode::Bios { "bios" } else { "uefi" };
    let spec = json!({
        "bmc": { "address": plan.bmc(), "username": USER, "password_version": touched.to_string() },
        "boot_mac": plan.mac().to_string(),
        "boot_mode": mode,
    });
    let labels = BTreeMap::from([("class".to_owned(), CLASS.to_owned()), ("touched".to_owned(), touched.to_string())]);
    let host = request(world, Apply::from_json(Kind::Host, &plan.name, spec)).labels(labels);
    world.say("operator", format!("declares host {} ({touched})", plan.name));
    apply(world, host.secret("bmc.password", Secret::new(PASSWORD))).await
}

/// Asks for a node.
pub async fn claim(world: &Arc<World>, name: &str, drain: u32) -> Said {
    let spec = TenantNodeSpec {
        cluster: CLUSTER.to_owned(),
        node_type: Some(CLASS.to_owned()),
        drain: DrainSpec { timeout_seconds: drain, on_timeout: DrainTimeout::Force },
        ..TenantNodeSpec::default()
    };
    world.say("operator", format!("claims {name}"));
    apply(world, order::<TenantNode>(world, name, &spec)).await
}

/// Does as the scenario says, at its times.
pub async fn follow(world: Arc<World>, touched: Arc<std::sync::atomic::AtomicU32>) {
    let wishes = world.scenario.wishes.clone();
    let wishes = wishes.into_iter().map(|(at, wish)| {
        let (world, touched) = (Arc::clone(&world), Arc::clone(&touched));
        async move {
            tokio::time::sleep_until(world.start + at).await;
            match wish {
                Wish::Claim { name, drain } => {
                    claim(&world, &name, drain).await;
                }
                Wish::Release { name } => {
                    delete(&world, Kind::TenantNode, &name).await;
                }
                Wish::Touch { host } => {
                    let next = touched.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    declare_host(&world, &world.scenario.hosts[host].clone(), next).await;
                }
            }
        }
    });
    let hosts = world.scenario.hosts.clone();
    let hosts = hosts.into_iter().map(|plan| {
        let world = Arc::clone(&world);
        async move {
            tokio::time::sleep_until(world.start + plan.at).await;
            declare_host(&world, &plan, 0).await;
        }
    });
    futures::future::join(futures::future::join_all(wishes), futures::future::join_all(hosts)).await;
}
