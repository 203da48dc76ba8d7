//! Starting and stopping the process.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use vmetal_api::{ServerConfig, TokenStore};
use vmetal_bmc::{AddressGuard, Gateways};
use vmetal_lifecycle::Limits;
use vmetal_policy::{Compiler, Kept, PolicyEngine};
use vmetal_runtime::{Clock, Entropy, SystemClock, SystemEntropy};
use vmetal_store::{AnyStore, PostgresOptions, SqliteOptions};

use crate::backend::ApiBackend;
use crate::config::{Config, StorePlace};
use crate::engine::{Engine, Parts};
use crate::fleet::Fleet;
use crate::ledger::Ledger;
use crate::oidc::Trusted;
use crate::ownership::{Ownership, Shared, Terms};
use crate::tenants::{OverNetwork, Tenants};

/// Where BMCs may be when the configuration names no networks: private ones.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// How long a stop waits for effects under way. Longer than any single call to a BMC may take.
const STOP: Duration = Duration::from_secs(100);

/// The part of a lease that clocks may be wrong by and threads late: 3 s of the usual 15.
const MARGIN: f64 = 0.2;
/// How long a connection to a BMC may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// Runs the engine until `stop` completes, then waits for effects under way. `compiler` turns policies into machine code.
///
/// # Errors
/// When something it needs is missing or in use: the message says what.
pub async fn run(mut config: Config, compiler: Compiler, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    config.lanes.bmc = config.lanes.bmc.min(crate::files::bmc_calls(crate::files::raise_limit()));
    prepare(&config.state_dir)?;
    let store = open_store(config.store_place()?).await?;
    let fleet = Arc::new(Fleet::default());
    if let Some(levels) = &config.policies.levels {
        fleet.set_levels(levels.clone());
    }
    let ledger = Ledger::open(store, Arc::clone(&fleet)).await.context("cannot read the store")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let terms = terms(ledger.store(), &config, &*entropy);
    let ownership = Ownership::open(ledger.store(), terms, Arc::clone(&clock)).await?;
    let limits = Limits { listening_since: clock.now(), ..config.deadlines.limits() };
    let engine = Engine::new(Parts {
        gateways: Gateways::new(bmc(&config)?),
        tenants: Tenants::new(Arc::new(OverNetwork)),
        policies: policies(&config, compiler).await?,
        fleet,
        ledger,
        limits,
        ownership,
        clock,
        entropy,
        config,
    });
    engine.restore_boot_tokens().await?;
    engine.decisions.open(engine.ledger.store()).await.context("cannot read the log of decisions")?;
    // Before the first decision. What cannot be seated leaves the seat to the configuration's choice, and says so.
    engine.keep_seats().await;
    engine.boots.fill(&engine.fleet);
    let config = &engine.config;
    let (hash_file, token_file) = (config.state_dir.join("tokens"), config.state_dir.join("admin.token"));
    let (tokens, first) = TokenStore::load_or_create(&hash_file, &token_file)?;
    if first == vmetal_api::token::FirstStart::Yes {
        tracing::info!(file = %token_file.display(), "first start: a bearer token for the API was made");
    }
    let listen = config.api.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} (api.listen)"))?;
    let metrics = match &config.metrics {
        Some(metrics) => Some(
            TcpListener::bind(metrics.listen)
                .await
                .with_context(|| format!("cannot listen on {} (metrics.listen)", metrics.listen))?,
        ),
        None => None,
    };
    let socket = config.netboot_socket();

    let (stopper, stopping) = watch::channel(());
    let stopped = move || {
        let mut stopping = stopping.clone();
        async move {
            // An error means that the sender is gone, which is a stop as well.
            let _ = stopping.changed().await;
        }
    };
    let backend = Arc::new(ApiBackend(Arc::clone(&engine)));
    let api = vmetal_api::serve(listener, backend, tokens.clone(), server(config, &engine.clock)?, stopped());
    let netboot = vmetal_api::netboot::serve(&socket, Arc::clone(&engine), stopped());
    tracing::info!(api = %listen, netboot = %socket.display(), objects = engine.fleet.revision(), "vmetald is ready");
    let serving = async {
        tokio::try_join!(async { api.await.context("the API stopped") }, async {
            netboot.await.context("the network boot socket failed")
        })
        .map(|_| ())
    };
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = Arc::clone(&engine).reconcile_forever() => {}
        () = Arc::clone(&engine).follow_forever() => {}
        () = crate::housekeeping::follow_tokens(&tokens, &hash_file) => {}
        () = crate::housekeeping::drop_idle_gateways(&engine.gateways) => {}
        () = crate::housekeeping::keep_house(engine.ledger.store(), engine.fleet.revision()) => {}
        () = engine.take_part_forever() => {}
        () = serve_metrics(metrics, &engine) => {}
        () = stop => {}
    }
    tracing::info!("stopping: no new effects; waiting for those under way");
    engine.stop();
    stopper.send_replace(());
    let drained = async {
        while engine.effects_under_way() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let handed_over = async {
        match &engine.membership {
            Some(membership) => membership.leave(STOP).await,
            None => 0,
        }
    };
    let (served, waited, left) = tokio::join!(serving, tokio::time::timeout(STOP, drained), handed_over);
    if left > 0 {
        tracing::warn!(shards = left, "could not be handed over; other engines take them when the leases run out");
    }
    if waited.is_err() {
        tracing::warn!(
            effects = engine.effects_under_way(),
            "effects are still under way; they are looked at again at the next start"
        );
    }
    served
}

/// How the API is served.
fn server(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<ServerConfig> {
    let tls = config.tls()?;
    if tls.is_none() && !config.api.listen.ip().is_loopback() {
        tracing::warn!(
            api = %config.api.listen,
            "the API is clear text and not on loopback: tokens can be read on the way; set api.certificate and api.key, or \
             see that only a TLS proxy can reach it"
        );
    }
    let issuers = Trusted::new(&config.oidc, Arc::clone(clock)).context("no client for HTTPS could be made")?;
    Ok(ServerConfig { tls, issuers: Arc::new(issuers), ..ServerConfig::default() })
}

async fn serve_metrics(listener: Option<TcpListener>, engine: &Arc<Engine>) {
    match listener {
        Some(listener) => crate::metrics::serve(listener, Arc::clone(engine)).await,
        None => std::future::pending().await,
    }
}

async fn open_store(place: StorePlace) -> anyhow::Result<AnyStore> {
    let failed = format!("cannot open the store {place}");
    match place {
        StorePlace::Sqlite(path) => AnyStore::open(path, SqliteOptions::default()).context(failed),
        StorePlace::Postgres(url) => AnyStore::connect(url, PostgresOptions::default()).await.context(failed),
    }
}

/// Makes the state directory, readable by its owner only: it holds credentials. One that others can look into is closed to them.
fn prepare(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make the state directory {}", directory.display()))?;
    let seen = std::fs::metadata(directory)
        .with_context(|| format!("cannot look at the state directory {}", directory.display()))?;
    let mode = seen.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).with_context(|| {
            format!(
                "the state directory {} is open to others (mode {mode:04o}) and cannot be closed to them; it holds \
                 credentials: make it the engine's user's, with mode 0700",
                directory.display()
            )
        })?;
        tracing::warn!(
            "the state directory {} was open to others (mode {mode:04o}); it is now closed to them (mode 0700). Others may \
             have read the credentials in it: see whether tokens and BMC passwords should be changed",
            directory.display()
        );
    }
    Ok(())
}

/// How ownership works with this store.
fn terms(store: &AnyStore, config: &Config, entropy: &dyn Entropy) -> Terms {
    match store {
        AnyStore::Memory(_) | AnyStore::Sqlite(_) => Terms::Alone,
        AnyStore::Postgres(_) | AnyStore::Intercepted(_) => {
            let mut random = [0; 4];
            entropy.fill(&mut random);
            // The name helps people; the rest makes it another engine after each start.
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let positive = |given| Duration::try_from(given).unwrap_or_default();
            Terms::Shared(Shared {
                id: format!("{}-{}", name.trim(), hex::encode(random)),
                lease: positive(config.engines.lease),
                longest_call: positive(config.bmc.timeout),
                margin: positive(config.engines.lease).mul_f64(MARGIN),
            })
        }
    }
}

fn bmc(config: &Config) -> anyhow::Result<vmetal_bmc::Config> {
    let request_timeout = Duration::try_from(config.bmc.timeout).unwrap_or_default();
    let connect_timeout = CONNECT.min(request_timeout);
    Ok(vmetal_bmc::Config { request_timeout, connect_timeout, ..vmetal_bmc::Config::new(guard(config)?) })
}

fn guard(config: &Config) -> anyhow::Result<AddressGuard> {
    let networks: Vec<&str> = match config.bmc.allow.is_empty() {
        true => PRIVATE.to_vec(),
        false => config.bmc.allow.iter().map(String::as_str).collect(),
    };
    AddressGuard::parse(networks).context("bmc.allow in the configuration is not a list of networks")
}

async fn policies(config: &Config, compiler: Compiler) -> anyhow::Result<PolicyEngine> {
    let sources = config.policies.sources(config.fetched_policies_dir(), |name| std::env::var_os(name))?;
    let [cost, placement] = config.policies.chosen()?;
    let cost = cost.binding(&sources).await.context("the cost policy cannot be used (policies.cost)")?;
    let placement =
        placement.binding(&sources).await.context("the placement policy cannot be used (policies.placement)")?;
    let cache = Some(Kept { directory: config.policy_cache_dir(), compiler });
    let policies = vmetal_policy::Config { cost, placement, cache, ..vmetal_policy::Config::native() };
    let engine = PolicyEngine::new(policies).context("the policies cannot be used")?;
    for identity in engine.identities() {
        tracing::info!("policy {identity}");
    }
    Ok(engine)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_state_directory_is_closed_to_others_whoever_made_it() {
        let parent = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let fresh = parent.path().join("a/state");
        prepare(&fresh).unwrap();
        assert_eq!(mode(&fresh), 0o700);
        let open = parent.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&open).unwrap();
        assert_eq!(mode(&open), 0o700);
        prepare(&open).unwrap();
        assert_eq!(mode(&open), 0o700);
    }
}
