//! One engine with its simulated surroundings.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use tempfile::TempDir;
use vmetal_api::netboot::{BootFeed, NetbootClient};
use vmetal_api::{Apply, Client, ClientConfig, Secret, TokenSource};
use vmetal_model::node_type::NodeTypeSpec;
use vmetal_model::{Host, HostPhase, Kind, NodeType};

use super::{Pulse, text};
use crate::bmc::{self, Bmcs};
use crate::cluster::Clusters;
use crate::identity::Identity;
use crate::machine::{Machine, RANGE, Sickness, World, mac, name};
use crate::process::{Cost, Process, cost};
use crate::web;

/// Applies under way at the same time: as many as an eager client has.
pub(crate) const PARALLEL: usize = 64;
/// Tenants' clusters.
pub(super) const CLUSTERS: usize = 45;
/// The class that all hosts belong to.
pub(crate) const CLASS: &str = "bench";

/// What a rig is made of.
pub(crate) struct Options<'a> {
    pub(crate) vmetald: &'a Path,
    pub(crate) policies: Option<&'a Path>,
    pub(crate) scratch: &'a Path,
}

/// One engine with its simulated surroundings. Dropping it ends all of it.
pub(crate) struct Rig {
    pub(crate) engine: Process,
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) hosts: u32,
    fingerprint: String,
    bmc_port: u16,
    bmc_requests: Arc<AtomicU64>,
    netboot: tokio::task::JoinHandle<()>,
    directory: TempDir,
}

/// How a fleet was registered.
pub(crate) struct Registration {
    pub(crate) hosts: u32,
    pub(crate) available: u32,
    pub(crate) wall: Duration,
    engine: f64,
    bench: f64,
    peak_kib: u64,
    bmc_requests: u64,
    agent_requests: u64,
}

impl Registration {
    pub(crate) fn minutes(&self) -> f64 {
        self.wall.as_secs_f64() / 60.0
    }

    pub(crate) fn per_minute(&self) -> f64 {
        f64::from(self.available) / self.minutes()
    }

    pub(crate) fn fraction(&self) -> f64 {
        f64::from(self.available) / f64::from(self.hosts)
    }

    pub(crate) fn notes(&self) -> String {
        let each = |seconds: f64| seconds * 1000.0 / f64::from(self.hosts.max(1));
        format!(
            "wall {:.1} s; CPU engine {:.1} s ({:.2} ms per host), BMCs and servers {:.1} s ({:.2} ms per host); engine {} MiB at \
             the end; per host {:.1} BMC requests, {:.1} installer requests",
            self.wall.as_secs_f64(),
            self.engine,
            each(self.engine),
            self.bench,
            each(self.bench),
            self.peak_kib >> 10,
            self.bmc_requests as f64 / f64::from(self.hosts.max(1)),
            self.agent_requests as f64 / f64::from(self.hosts.max(1)),
        )
    }
}

impl Rig {
    /// Starts BMCs and servers for `hosts` hosts and an engine that knows none of them yet.
    ///
    /// # Errors
    /// When something cannot be started.
    pub(crate) async fn start(
        options: Options<'_>,
        hosts: u32,
        firmware: Duration,
        sickness: impl Fn(u32) -> Sickness,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("fleet-").tempdir_in(options.scratch)?;
        let (mut engine, endpoint) = start_engine(&options, directory.path())?;
        engine.ready("vmetald is ready", Duration::from_secs(60)).await?;
        let state = directory.path().join("state");
        let token = TokenSource::File(state.join("admin.token"));
        let client = Client::connect_lazy(ClientConfig::new(endpoint, token))?;

        let (clusters, identity) = Clusters::new(CLUSTERS)?;
        let clusters = Arc::new(clusters);
        let answering = Arc::clone(&clusters);
        clusters.served_on(web::serve(identity.server, move |call| {
            let clusters = Arc::clone(&answering);
            async move { clusters.answer(&call) }
        })?);

        let netboot = NetbootClient::connect(&state.join("netboot.sock"));
        let world = Arc::new(World::new(netboot.clone(), clusters, firmware));
        let machines = (0..hosts).map(|index| Machine::new(index, sickness(index), Arc::clone(&world))).collect();
        let bmcs = Arc::new(Bmcs::new(Arc::new(machines)));
        let bmc_requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bmc_requests);
        let identity = Identity::new("bench BMC", [bmc::address(0)])?;
        let fingerprint = identity.fingerprint.clone();
        let bmc_port = web::serve(identity.server, move |call| {
            counted.fetch_add(1, Ordering::Relaxed);
            Arc::clone(&bmcs).answer(call)
        })?;
        let netboot = tokio::spawn(follow(netboot, Arc::clone(&world)));
        Ok(Rig { engine, client, world, hosts, fingerprint, bmc_port, bmc_requests, netboot, directory })
    }

    /// Where its state is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The declaration of one host.
    pub(crate) fn declaration(&self, index: u32) -> Apply {
        // As JSON: what a client declares, with everything that is not said left to the engine.
        let spec = serde_json::json!({
            "bmc": {
                "address": format!("redfish://{}:{}", bmc::address(index), self.bmc_port),
                "username": bmc::USERNAME,
                "password_version": "1",
                "tls": { "fingerprint": self.fingerprint },
            },
            "boot_mac": mac(index),
        });
        let labels = BTreeMap::from([("class".to_owned(), CLASS.to_owned())]);
        let apply = Apply::from_json(Kind::Host, name(index), spec).labels(labels);
        apply.secret("bmc.password", Secret::new(bmc::PASSWORD))
    }

    /// Declares the class that all hosts belong to.
    ///
    /// # Errors
    /// When the engine refuses.
    pub(crate) async fn declare_class(&self, image: Option<&str>) -> Result<()> {
        let spec = NodeTypeSpec {
            selector: BTreeMap::from([("class".to_owned(), CLASS.to_owned())]),
            resources: serde_json::from_value(serde_json::json!({ "cpu": "64", "memory": "512Gi" }))?,
            image: image.map(str::to_owned),
            ..NodeTypeSpec::default()
        };
        self.client.apply(Apply::new::<NodeType>(CLASS, &spec)?).await?;
        Ok(())
    }

    /// Declares all hosts and waits until they are in the pool. Counted from the first call of the API to the moment when the
    /// class says that all are available; then every host is looked at.
    ///
    /// # Errors
    /// When the engine refuses, or hosts are still under way when patience ends.
    pub(crate) async fn register(&mut self, patience: Duration) -> Result<Registration> {
        let costs = |engine: &Process| (engine.cost(), cost(None));
        let (engine_before, bench_before) = costs(&self.engine);
        let begin = Instant::now();
        self.declare_class(None).await?;
        let declaring = self.declare_all();
        let waiting = async {
            let mut pulse = Pulse::new();
            loop {
                let class = self.client.get_as::<NodeType>(CLASS).await?.context("the class is gone")?;
                let done = class.status.capacity.available;
                if done == self.hosts || begin.elapsed() > patience {
                    return anyhow::Ok(begin.elapsed());
                }
                pulse.beat(|| format!("{} declared, {done} available", class.status.capacity.total));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let (declared, wall) = tokio::join!(declaring, waiting);
        declared.context("cannot declare the hosts")?;
        let wall = wall?;
        self.engine.check()?;
        let (engine_after, bench_after) = costs(&self.engine);
        let spent = |before: Cost, after: Cost| after.cpu - before.cpu;
        let (bmc_requests, agent_requests) =
            (self.bmc_requests.load(Ordering::Relaxed), self.world.requests.load(Ordering::Relaxed));
        let hosts = self.every_host().await?;
        let available = hosts.iter().filter(|host| host.status.phase == HostPhase::Available).count();
        let result = Registration {
            hosts: self.hosts,
            available: u32::try_from(available).unwrap_or(u32::MAX),
            wall,
            engine: spent(engine_before, engine_after),
            bench: spent(bench_before, bench_after),
            peak_kib: engine_after.resident_kib,
            bmc_requests,
            agent_requests,
        };
        eprintln!("   {} of {} available; {}", result.available, result.hosts, result.notes());
        if result.available < self.hosts {
            let example = hosts.iter().find(|host| host.status.phase != HostPhase::Available);
            let example = example.map(|host| serde_json::to_string(&host.status).unwrap_or_default());
            bail!(
                "{} of {} hosts became available within {wall:?}; one that did not: {example:?}",
                result.available,
                self.hosts
            );
        }
        Ok(result)
    }

    /// Every host as it is now.
    pub(crate) async fn every_host(&self) -> Result<Vec<Host>> {
        Ok(self.client.list_as::<Host>(&BTreeMap::new()).await?)
    }

    /// Declares all hosts, as many at once as an eager client would.
    ///
    /// # Errors
    /// When the engine refuses.
    pub(crate) async fn declare_all(&self) -> Result<()> {
        self.declare(0..self.hosts).await
    }

    async fn declare(&self, indexes: std::ops::Range<u32>) -> Result<()> {
        let apply = |index| async move {
            self.client.apply(self.declaration(index)).await?;
            anyhow::Ok(())
        };
        futures::stream::iter(indexes).map(apply).buffer_unordered(PARALLEL).try_collect::<()>().await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.netboot.abort();
    }
}

fn start_engine(options: &Options<'_>, directory: &Path) -> Result<(Process, String)> {
    // On an address that no outgoing connection has, so that none takes the port before the engine does.
    let address = std::net::TcpListener::bind("127.0.0.2:0")?.local_addr()?;
    let config = directory.join("vmetald.toml");
    let policies = options.policies.map_or_else(String::new, |dir| format!("[policies]\ndir = {:?}\n", text(dir)));
    let content = format!(
        "state_dir = {:?}\n[api]\nlisten = \"{address}\"\n[network]\nrange_start = \"{}\"\nrange_end = \"{}\"\nurl = \
         \"http://10.80.0.1:8080\"\n[bmc]\nallow = [\"127.0.0.0/8\"]\n{policies}",
        text(&directory.join("state")),
        RANGE.0,
        RANGE.1,
    );
    std::fs::write(&config, content)?;
    let engine = Process::start("vmetald", directory, options.vmetald, &["--config", text(&config)])?;
    Ok((engine, format!("http://{address}")))
}

/// Follows the boot table, as the network boot process does.
async fn follow(client: NetbootClient, world: Arc<World>) {
    let mut feed = client.follow_boot();
    while let Some(news) = feed.next().await {
        let entries = match news {
            BootFeed::Table(table) => table.entries,
            BootFeed::Change(change) => change.entries,
            BootFeed::Away(error) => {
                eprintln!("bench: the engine is away: {error}");
                continue;
            }
        };
        for entry in entries {
            for mac in entry.macs {
                world.boots.set(mac, Some(entry.target.clone()));
            }
        }
    }
}
