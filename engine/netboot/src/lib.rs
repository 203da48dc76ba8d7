//! Network boot: DHCPv4, router advertisements, TFTP and HTTP, on one provisioning network, from one table.
//!
//! The engine says what each interface should boot ([`vmetal_model::boot::BootTable`]); every answer here follows from that
//! table, the packet, and a little memory of what the interface did last ([`session`]). There is no configuration file and
//! nothing to reload: a new table takes effect with the next packet. The decisions are pure functions ([`dhcp::answer`],
//! [`tftp::transfer`], [`http::script`]); the servers only move bytes.
//!
//! This process parses what strangers send. It runs apart from the engine, holds no secrets but boot tokens, and reaches the
//! engine only through a unix socket. When the engine is away it goes on with the last table; installers are told to ask
//! again (503).
//!
//! # How a machine boots
//!
//! Firmware asks by DHCP and is told `snponly.efi` or `undionly.kpxe`, which comes by TFTP; that is iPXE, which asks again
//! and is told a script; the script fetches kernel and initramfs by HTTP and starts the installer with its token.
//!
//! A host that is to boot from its own disk but asks the network first is sent on at once: its firmware is named a file that
//! is then refused ([`dhcp::boot::LOCAL_DISK`]), and iPXE in a network card gets a script that says `exit`.
//!
//! # Measured
//!
//! Power on to the first line of /init, with Debian 12's cloud kernel, one virtual CPU without hardware virtualisation, on a
//! machine of two cores that was busy with other work; medians of three (`tests/firmware.rs`, ignored test):
//!
//! | firmware | with router advertisements | without |
//! |---|---|---|
//! | SeaBIOS, iPXE in the card's ROM | 7.5 s | 22.4 s |
//! | OVMF, `snponly.efi` by TFTP | 15.9 s | 38.5 s |
//!
//! The difference is iPXE waiting for an IPv6 router. An advertisement with lifetime 0, without prefix and without flags is
//! enough to end the wait ([`ra`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use vmetal_api::netboot::{BootFeed, NetbootClient};
use vmetal_model::boot::{BootEntry, BootTable};

use assets::{Assets, AssetsError};
use dhcp::boot::HttpBase;
use dhcp::server::DhcpServer;
use dhcp::{DhcpConfig, server};
use http::HttpServer;
use net::NetError;
use record::Recorder;
use shared::Shared;
use table::Table;
use tftp::server::TftpServer;

pub mod assets;
mod clock;
pub mod dhcp;
pub mod http;
pub mod net;
pub mod ra;
pub mod record;
pub mod session;
pub mod shared;
pub mod table;
#[cfg(test)]
mod testing;
pub mod tftp;

/// Everything a server process is told.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The interface of the provisioning network.
    pub interface: String,
    /// Our address there.
    pub address: Ipv4Addr,
    /// The network's prefix length.
    pub prefix_len: u8,
    /// The engine's socket.
    pub engine_socket: PathBuf,
    /// Boot assets.
    pub assets: PathBuf,
    /// Imported images.
    pub images: PathBuf,
    /// Where HTTP is served.
    pub http_port: u16,
    /// Default router of the provisioning network.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// How long an address is granted for.
    pub lease: Duration,
    /// Further kernel arguments, for example `console=ttyS0`.
    pub kernel_args: String,
    /// Whether to advertise on IPv6.
    pub router_advertisements: RouterAdvertisements,
}

/// Whether iPXE is told at once that there is no IPv6 router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterAdvertisements {
    /// Send them.
    On,
    /// Another router on the network does, or IPv6 is off.
    Off,
}

/// A server that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The boot assets are missing or damaged.
    #[error(transparent)]
    Assets(#[from] AssetsError),
    /// A socket cannot be had.
    #[error(transparent)]
    Net(#[from] NetError),
    /// HTTP failed for good.
    #[error("HTTP server on {address} failed: {source}")]
    Http {
        /// Where.
        address: SocketAddrV4,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// One of the servers ended though it never should.
    #[error("a server task ended unexpectedly: {0}")]
    Ended(String),
}

/// Serves until `shutdown`.
///
/// # Errors
/// [`ServeError`] when something cannot start; nothing is answered then.
pub async fn serve(config: ServeConfig, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    net::check_interface(&config.interface, config.address)?;
    let load = config.assets.clone();
    let assets = tokio::task::spawn_blocking(move || Assets::load(&load)).await;
    let assets = Arc::new(assets.map_err(|error| ServeError::Ended(error.to_string()))??);
    let engine = NetbootClient::connect(&config.engine_socket);
    let (recorder, events) = Recorder::new();
    let shared = Arc::new(Shared::new(recorder));
    let base = HttpBase { address: config.address, port: config.http_port };
    let dhcp = DhcpConfig {
        server: config.address,
        prefix_len: config.prefix_len,
        http: base,
        gateway: config.gateway,
        dns: config.dns,
        lease: config.lease,
    };

    // Everything is bound before anything is answered: half a boot service is worse than none.
    let dhcp: DhcpServer = server::DhcpServer::bind(&config.interface, dhcp, Arc::clone(&shared))?;
    let tftp_address = SocketAddrV4::new(config.address, 69);
    let tftp = TftpServer::bind(&config.interface, tftp_address, Arc::new(assets.loaders()), Arc::clone(&shared))?;
    let http_address = SocketAddrV4::new(config.address, config.http_port);
    let listener = TcpListener::bind(http_address).await;
    let listener = listener.map_err(|source| ServeError::Http { address: http_address, source })?;
    let advertiser = match config.router_advertisements {
        RouterAdvertisements::On => Some(ra::Advertiser::bind(&config.interface)?),
        RouterAdvertisements::Off => None,
    };
    let http = HttpServer {
        base,
        assets,
        images: config.images,
        kernel_args: config.kernel_args,
        engine: engine.clone(),
        shared: Arc::clone(&shared),
    };
    tracing::info!(interface = %config.interface, address = %config.address, http = %base, "serving network boot");

    let mut tasks = JoinSet::new();
    tasks.spawn(dhcp.run());
    tasks.spawn(tftp.run());
    if let Some(advertiser) = advertiser {
        tasks.spawn(advertiser.run());
    }
    tasks.spawn(events.tell(engine.clone()));
    tasks.spawn(follow(engine, Arc::clone(&shared)));
    tokio::select! {
        () = shutdown => Ok(()),
        served = http.serve(listener) => served.map_err(|source| ServeError::Http { address: http_address, source }),
        ended = tasks.join_next() => Err(ServeError::Ended(match ended {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "it returned".to_owned(),
        })),
    }
}

/// Keeps the table up to date. While the engine is away the last table holds.
async fn follow(engine: NetbootClient, shared: Arc<Shared>) {
    let mut feed = engine.follow_boot();
    let mut entries = Entries::default();
    while let Some(news) = feed.next().await {
        entries.take(news);
        // What has come meanwhile goes into the same table: building one looks at all hosts.
        while let Some(Some(news)) = feed.next().now_or_never() {
            entries.take(news);
        }
        let Some(table) = entries.table() else { continue };
        let (table, conflicts) = Table::new(table);
        for conflict in conflicts {
            tracing::error!("{conflict}");
        }
        tracing::debug!(revision = table.revision(), hosts = table.len(), "new boot table");
        shared.sessions().forget(|mac| table.by_mac(mac).is_some(), crate::clock::now());
        shared.tables.store(table);
    }
}

/// The boot table as it was told, piece by piece.
#[derive(Default)]
struct Entries {
    revision: u64,
    entries: BTreeMap<String, BootEntry>,
    news: bool,
}

impl Entries {
    fn take(&mut self, news: BootFeed) {
        let (revision, entries) = match news {
            BootFeed::Table(table) => {
                self.entries.clear();
                (table.revision, table.entries)
            }
            BootFeed::Change(change) => {
                for host in &change.gone {
                    self.entries.remove(host);
                }
                (change.revision, change.entries)
            }
            BootFeed::Away(error) => {
                return tracing::warn!(%error, "the engine is away; going on with the last boot table");
            }
        };
        self.revision = revision;
        self.entries.extend(entries.into_iter().map(|entry| (entry.host.clone(), entry)));
        self.news = true;
    }

    /// The table, if it is another than last time.
    fn table(&mut self) -> Option<BootTable> {
        let table = || BootTable { revision: self.revision, entries: self.entries.values().cloned().collect() };
        std::mem::take(&mut self.news).then(table)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{agent_entry, disk_entry};
    use vmetal_model::boot::BootChange;

    #[test]
    fn changes_are_put_together_to_what_the_whole_table_would_be() {
        let mut entries = Entries::default();
        assert_eq!(entries.table(), None);
        entries.take(BootFeed::Table(BootTable { revision: 1, entries: vec![disk_entry("a", 1), disk_entry("b", 2)] }));
        let change = BootChange { revision: 2, entries: vec![agent_entry("c", 3)], gone: vec!["a".to_owned()] };
        entries.take(BootFeed::Change(change));
        let change = BootChange { revision: 3, entries: vec![agent_entry("b", 2)], gone: Vec::new() };
        entries.take(BootFeed::Change(change));
        let table = entries.table().unwrap();
        assert_eq!(table, BootTable { revision: 3, entries: vec![agent_entry("b", 2), agent_entry("c", 3)] });
        assert_eq!(entries.table(), None, "nothing new");
        entries.take(BootFeed::Table(BootTable { revision: 4, entries: vec![disk_entry("d", 4)] }));
        assert_eq!(entries.table().unwrap().entries, [disk_entry("d", 4)], "a whole table voids what was known");
    }
}
