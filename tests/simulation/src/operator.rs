//! The operator: declares, gives back, orders, and helps where only a person can. Speaks to the engine's API, as terraform
//! and the command line do.

mod orders;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use serde_json::json;
use tokio::time::sleep;
use vmetal_api::{Apply, Backend as _, BackendError, Caller, Secret};
use vmetal_model::tenant_node::{DrainSpec, DrainTimeout, GroupSpec};
use vmetal_model::{
    BootMode, Image, ImagePhase, ImageSpec, ImageStatus, Kind, NodeType, NodeTypeSpec, Resources, TenantCluster,
    TenantClusterSpec, TenantNode, TenantNodeSpec,
};
use vmetal_store::{Store as _, Txn, Write};
use vmetald::backend::ApiBackend;
use vmetald::ledger::{self, new_metadata, new_object};

use crate::machine::Content;
use crate::scenario::quotas::CPUS;
use crate::scenario::wishes::member;
use crate::scenario::{First, PASSWORD, QUIET, QuotaPlan, USER, Wish};
use crate::world::World;

pub use orders::{order, rescue};

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

fn request(world: &World, apply: Apply) -> Apply {
    Apply { request_id: format!("request-{}", world.chance.below(u64::MAX)), ..apply }
}

#[allow(clippy::expect_used, reason = "the model's types always serialise")]
fn declaration<R: vmetal_api::Resource>(world: &World, name: &str, spec: &R::Spec) -> Apply {
    request(world, Apply::new::<R>(name, spec).expect("a spec is plain data"))
}

/// Declares the cluster and the class.
pub async fn declare(world: &Arc<World>) {
    let quota = world.scenario.quotas.first().map(|(_, plan)| *plan);
    let cluster =
        TenantClusterSpec { quota: quota.map(|plan| plan.quota(CLASS)).unwrap_or_default(), ..Default::default() };
    let cluster = declaration::<TenantCluster>(world, CLUSTER, &cluster)
        .secret("kubeconfig", Secret::new("the simulated cluster"));
    apply(world, cluster).await;
    declare_class(world, world.scenario.standby.first().map_or(0, |(_, standby)| *standby)).await;
}

/// Declares what the cluster may hold.
async fn declare_quota(world: &Arc<World>, plan: QuotaPlan) {
    world.say("operator", format!("allows {CLUSTER} {plan:?}"));
    let cluster = TenantClusterSpec { quota: plan.quota(CLASS), ..Default::default() };
    apply(world, declaration::<TenantCluster>(world, CLUSTER, &cluster)).await;
}

/// Declares the class, with so many hosts on standby.
pub async fn declare_class(world: &Arc<World>, standby: u32) {
    let resources = [("cpu", CPUS.to_string()), ("memory", "32Gi".to_owned())];
    let resources: Resources =
        resources.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.parse().ok()?))).collect();
    let class = NodeTypeSpec {
        selector: BTreeMap::from([("class".to_owned(), CLASS.to_owned())]),
        resources,
        cost: None,
        network: None,
        image: Some(IMAGE.to_owned()),
        standby,
        properties: BTreeMap::new(),
    };
    apply(world, declaration::<NodeType>(world, CLASS, &class)).await;
}

/// Whether a declaration tells the password of a host's BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// As far as the operator knows it.
    Password,
    /// Not yet.
    NoPassword,
}

/// Declares a host; `touched` is a label that may change.
pub async fn declare_host(world: &Arc<World>, index: usize, touched: u32, tells: Tells) -> Said {
    let plan = &world.scenario.hosts[index];
    // As terraform declares it: what is left out has its default.
    let mode = if plan.mode == BootMode::Bios { "bios" } else { "uefi" };
    let spec = json!({
        "bmc": { "address": plan.bmc(), "username": USER, "password_version": touched.to_string() },
        "boot_mac": plan.mac().to_string(),
        "boot_mode": mode,
        "on_delete": plan.on_delete,
    });
    let labels = BTreeMap::from([("class".to_owned(), CLASS.to_owned()), ("touched".to_owned(), touched.to_string())]);
    let mut host = request(world, Apply::from_json(Kind::Host, &plan.name, spec)).labels(labels);
    world.say("operator", format!("declares host {} ({touched}, {tells:?})", plan.name));
    if tells == Tells::Password {
        let password = world.inner().passwords[index].clone();
        host = host.secret("bmc.password", Secret::new(password));
    }
    apply(world, host).await
}

/// Declares a host anew, once it is gone if it is being deleted; a server that was left as it was is wiped first.
async fn declare_again(world: &Arc<World>, index: usize, touched: &AtomicU32) {
    loop {
        wipe(world, index);
        let next = touched.fetch_add(1, Ordering::Relaxed) + 1;
        if declare_host(world, index, next, Tells::Password).await == Said::Taken || world.start.elapsed() > QUIET {
            return;
        }
        sleep(Duration::from_secs(60)).await;
    }
}

/// What a person does with a server that was left as it was before he hands it over again.
fn wipe(world: &World, index: usize) {
    if !std::mem::take(&mut world.inner().machines[index].left) {
        return;
    }
    world.power_off(index, "operator");
    let mut inner = world.inner();
    let machine = &mut inner.machines[index];
    machine.network_next = false;
    for disk in &mut machine.disks {
        disk.content = Content::Foreign;
    }
    let name = machine.name.clone();
    inner.cluster.forget_machine(index);
    drop(inner);
    world.say(&name, "the operator has wiped it");
}

/// Changes the password of a host's BMC, there and in the declaration.
async fn rotate(world: &Arc<World>, index: usize, touched: &AtomicU32, first: First, then: Duration) {
    let number = touched.fetch_add(1, Ordering::Relaxed) + 1;
    let password = format!("{PASSWORD}-{number}");
    let name = world.scenario.hosts[index].name.clone();
    for place in if first == First::Bmc { ["BMC", "declaration"] } else { ["declaration", "BMC"] } {
        if place == "BMC" {
            world.say(&name, format!("the operator sets password {number} at the BMC"));
            password.clone_into(&mut world.inner().machines[index].password);
        } else {
            password.clone_into(&mut world.inner().passwords[index]);
            // Whoever declares a host that is being deleted waits for its end.
            declare_again(world, index, touched).await;
        }
        sleep(then).await;
    }
    // Where the declaration came first, it has failed meanwhile, and the operator says that it is right now.
    if first == First::Declaration {
        declare_again(world, index, touched).await;
    }
}

/// Asks for a node.
async fn claim(world: &Arc<World>, name: &str, drain: u32, group: Option<GroupSpec>) -> Said {
    let spec = TenantNodeSpec {
        cluster: CLUSTER.to_owned(),
        node_type: Some(CLASS.to_owned()),
        drain: DrainSpec { timeout_seconds: drain, on_timeout: DrainTimeout::Force },
        group,
        ..TenantNodeSpec::default()
    };
    world.say("operator", format!("claims {name}"));
    apply(world, declaration::<TenantNode>(world, name, &spec)).await
}

/// Does as the scenario says, at its times.
pub async fn follow(world: Arc<World>, touched: Arc<AtomicU32>) {
    let wishes = world.scenario.wishes.clone();
    let wishes = wishes.into_iter().map(|(at, wish)| {
        let (world, touched) = (Arc::clone(&world), Arc::clone(&touched));
        async move {
            tokio::time::sleep_until(world.start + at).await;
            fulfil(&world, &touched, wish).await;
        }
    });
    let standby = world.scenario.standby.clone();
    let standby = standby.into_iter().skip(1).map(|(at, standby)| {
        let world = Arc::clone(&world);
        async move {
            tokio::time::sleep_until(world.start + at).await;
            world.say("operator", format!("wants {standby} hosts on standby"));
            declare_class(&world, standby).await;
        }
    });
    let standby = futures::future::join_all(standby);
    let quotas = async {
        // In order: what is declared later holds.
        for (at, plan) in world.scenario.quotas.iter().skip(1) {
            tokio::time::sleep_until(world.start + *at).await;
            declare_quota(&world, *plan).await;
        }
    };
    let hosts = (0..world.scenario.hosts.len()).map(|index| {
        let (world, touched) = (Arc::clone(&world), Arc::clone(&touched));
        async move {
            let plan = &world.scenario.hosts[index];
            tokio::time::sleep_until(world.start + plan.at).await;
            let Some(later) = plan.introduced else {
                declare_host(&world, index, 0, Tells::Password).await;
                return;
            };
            declare_host(&world, index, 0, Tells::NoPassword).await;
            sleep(later).await;
            declare_again(&world, index, &touched).await;
        }
    });
    futures::future::join4(futures::future::join_all(wishes), futures::future::join_all(hosts), standby, quotas).await;
}

async fn fulfil(world: &Arc<World>, touched: &AtomicU32, wish: Wish) {
    match wish {
        Wish::Claim { name, drain } => {
            claim(world, &name, drain, None).await;
        }
        Wish::Group { name, size, drain } => {
            for number in 0..size {
                let group = GroupSpec { name: name.clone(), size, same: None };
                claim(world, &member(&name, number), drain, Some(group)).await;
            }
        }
        Wish::Release { name } => {
            delete(world, Kind::TenantNode, &name).await;
        }
        Wish::Touch { host } => declare_again(world, host, touched).await,
        Wish::Delete { host } => {
            delete(world, Kind::Host, &world.scenario.hosts[host].name).await;
        }
        Wish::Rotate { host, first, then } => rotate(world, host, touched, first, then).await,
        Wish::Order { host, order: what } => {
            order(world, &world.scenario.hosts[host].name, what).await;
        }
    }
}
