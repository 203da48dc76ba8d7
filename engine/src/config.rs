//! What an operator tells the engine: one TOML file, every key optional but the provisioning network.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::Deserialize;
use vmetal_api::TlsIdentity;
use vmetal_lifecycle::Limits;
use vmetal_lifecycle::storm::StormLimits;
use vmetal_store::PostgresUrl;

use crate::lanes::Widths;

mod oidc;
mod policies;

pub use oidc::{Accepted, Grant, Oidc};
pub use policies::{Chosen, Policies, PolicyChoice, PolicyOrigin, PolicyTable};

/// The configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept: the store, imported images, the token of the first start. Default `/var/lib/vmetal`.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Where objects are kept.
    #[serde(default)]
    pub store: Store,
    /// The API.
    #[serde(default)]
    pub api: Api,
    /// Whose identity tokens are exchanged for tokens of the API. Absent: nobody's.
    #[serde(default)]
    pub oidc: Vec<Oidc>,
    /// Metrics for a monitoring system. Absent: not served.
    #[serde(default)]
    pub metrics: Option<Metrics>,
    /// The provisioning network.
    pub network: Network,
    /// The management network.
    #[serde(default)]
    pub bmc: Bmc,
    /// Cost and placement.
    #[serde(default)]
    pub policies: Policies,
    /// What is remembered of decisions.
    #[serde(default)]
    pub decisions: DecisionLog,
    /// How long things may take. The defaults suit real servers.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// How much of each kind of work goes on at the same time.
    #[serde(default)]
    pub lanes: Widths,
    /// When so many hosts fail at once that nothing destructive is begun any more.
    #[serde(default)]
    pub storm: StormConfig,
    /// How several engines share one store.
    #[serde(default)]
    pub engines: Engines,
    /// Log filter, as `RUST_LOG` has it. Default `info`.
    #[serde(default = "default_log")]
    pub log: String,
}

/// Where objects are kept.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// A PostgreSQL database, `postgres://USER@HOST:PORT/DATABASE`, that several engines may share. Absent: the SQLite
    /// file `store.db` in the state directory, for one engine.
    pub url: Option<String>,
    /// A file with the password for the database, so that it need not stand in the URL.
    pub password_file: Option<PathBuf>,
}

impl std::fmt::Debug for Store {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.as_ref().map(|_| "...");
        f.debug_struct("Store").field("url", &url).field("password_file", &self.password_file).finish()
    }
}

/// Which store to open.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum StorePlace {
    /// One file, one engine.
    Sqlite(PathBuf),
    /// A database, several engines.
    Postgres(PostgresUrl),
}

impl std::fmt::Display for StorePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StorePlace::Sqlite(path) => path.display().fmt(f),
            StorePlace::Postgres(url) => url.fmt(f),
        }
    }
}

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Address and port. Default `127.0.0.1:7600`. Without a certificate the connection is clear text, which belongs on loopback.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// A PEM file with the certificate and its chain; with `key`, the API is TLS only. Read at the start.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl Default for Api {
    fn default() -> Self {
        Api { listen: default_listen(), certificate: None, key: None }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7600))
}

/// Where metrics are served, at `/metrics` over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Address and port. Clear text and no password: they name no object, but not for everybody either.
    pub listen: SocketAddr,
}

/// The network that hosts boot from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// First address that hosts are given.
    pub range_start: Ipv4Addr,
    /// Last address that hosts are given.
    pub range_end: Ipv4Addr,
    /// Where hosts reach `vmetal-netboot`, for example `http://172.22.0.1:8080`.
    pub url: String,
    /// The socket that `vmetal-netboot` connects to. Default `netboot.sock` in the state directory.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

impl Network {
    /// The address at which hosts reach `vmetal-netboot`, where the configuration names no name.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let authority = self.url.strip_prefix("http://")?;
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        host.parse().ok()
    }
}

/// What the engine may talk to on the management side.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bmc {
    /// Networks in CIDR notation where BMCs are. Empty: private networks (RFC 1918, RFC 4193), and never loopback,
    /// link-local or multicast.
    #[serde(default)]
    pub allow: Vec<String>,
    /// How long one request may take in all. Also what a new owner of a host waits for after the lease of an engine that died
    /// has run out. Default 30 s, from 1 s to 2 min.
    #[serde(default = "default_bmc_timeout")]
    pub timeout: SignedDuration,
    /// Whether BMC passwords can be read back through the API, on the record, by whoever has a token.
    #[serde(default)]
    pub hand_out_passwords: bool,
}

impl Default for Bmc {
    fn default() -> Self {
        Bmc { allow: Vec::new(), timeout: default_bmc_timeout(), hand_out_passwords: false }
    }
}

fn default_bmc_timeout() -> SignedDuration {
    SignedDuration::from_secs(30)
}

/// When so many hosts fail at once that nothing is switched off, erased or installed. An absent value keeps its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StormConfig {
    /// At least this share of all hosts, in percent. Default 20; more than 100 switches it off.
    pub percent: Option<u8>,
    /// At least so many hosts. Default 10.
    pub at_least: Option<usize>,
    /// Within this time. Default 10 min.
    pub window: Option<SignedDuration>,
}

impl StormConfig {
    /// As the lifecycle has it.
    pub fn limits(&self) -> StormLimits {
        let usual = StormLimits::default();
        StormLimits {
            percent: self.percent.unwrap_or(usual.percent),
            at_least: self.at_least.unwrap_or(usual.at_least),
            window: self.window.unwrap_or(usual.window),
        }
    }
}

/// How several engines share one store. The same for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engines {
    /// For how long an engine owns its hosts without a sign of life. Default 15 s, from 3 s to 5 min. Shorter means that
    /// another takes over sooner, and that a store that hesitates stops work sooner.
    #[serde(default = "default_lease")]
    pub lease: SignedDuration,
}

impl Default for Engines {
    fn default() -> Self {
        Engines { lease: default_lease() }
    }
}

fn default_lease() -> SignedDuration {
    SignedDuration::from_secs(15)
}

/// What is remembered of decisions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionLog {
    /// So many decisions are kept with all their inputs, at least: they can be explained and taken again, and another policy
    /// can be tried on them. Default 1000; 0 keeps none.
    #[serde(default = "DecisionLog::default_keep")]
    pub keep: usize,
}

impl DecisionLog {
    const fn default_keep() -> usize {
        1000
    }
}

impl Default for DecisionLog {
    fn default() -> Self {
        DecisionLog { keep: Self::default_keep() }
    }
}

/// Deadlines, each a duration such as `90s`, `15m` or `2h 30m`. An absent one keeps its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// From power-on to the installer's first request. Default 15 min.
    pub call_in: Option<SignedDuration>,
    /// The longest silence of a working installer, which speaks every 5 s. Default 90 s.
    pub silence: Option<SignedDuration>,
    /// The whole of an inspection. Default 15 min.
    pub inspect: Option<SignedDuration>,
    /// The whole of an installation. Default 2 h.
    pub install: Option<SignedDuration>,
    /// The whole of an erasure. Default 24 h.
    pub erase: Option<SignedDuration>,
    /// From the end of the installation to the installed system's first request. Default 20 min.
    pub first_boot: Option<SignedDuration>,
    /// The longest silence of a system on standby, which speaks every 25 s. Default 5 min.
    pub standby_silence: Option<SignedDuration>,
    /// From a claim's first-boot data to the first word of the system on standby that runs with it. Default 5 min.
    pub hand_over: Option<SignedDuration>,
    /// From a reservation to join token and user data, the import of the image apart. Default 30 min.
    pub seed: Option<SignedDuration>,
    /// How long a reserved host waits for the import of its image. Default 6 h.
    pub import: Option<SignedDuration>,
    /// A stage in which a BMC is to be brought to something, with all its retries. Default 30 min.
    pub bmc: Option<SignedDuration>,
    /// How long a BMC is left alone after it was told to restart. Default 90 s.
    pub bmc_restart: Option<SignedDuration>,
    /// How long a server is left without power when that is to help. Default 30 s.
    pub drain: Option<SignedDuration>,
    /// How long a claim stays with a server that cannot be brought to install. Default 60 min.
    pub claim_patience: Option<SignedDuration>,
    /// From the installed system's first request to a Ready node. Default 20 min.
    pub join: Option<SignedDuration>,
}

impl Deadlines {
    /// The limits of the lifecycle with these deadlines in them.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for (limit, given) in [
            (&mut limits.call_in, self.call_in),
            (&mut limits.silence, self.silence),
            (&mut limits.inspect, self.inspect),
            (&mut limits.install, self.install),
            (&mut limits.erase, self.erase),
            (&mut limits.first_boot, self.first_boot),
            (&mut limits.standby_silence, self.standby_silence),
            (&mut limits.hand_over, self.hand_over),
            (&mut limits.seed, self.seed),
            (&mut limits.import, self.import),
            (&mut limits.bmc, self.bmc),
            (&mut limits.bmc_restart, self.bmc_restart),
            (&mut limits.drain, self.drain),
            (&mut limits.claim_patience, self.claim_patience),
            (&mut limits.join, self.join),
        ] {
            *limit = given.unwrap_or(*limit);
        }
        limits
    }

    fn shortest(&self) -> Option<SignedDuration> {
        [
            self.call_in,
            self.silence,
            self.inspect,
            self.install,
            self.erase,
            self.first_boot,
            self.standby_silence,
            self.hand_over,
            self.seed,
            self.import,
            self.bmc,
            self.bmc_restart,
            self.drain,
            self.claim_patience,
            self.join,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/vmetal")
}

fn default_log() -> String {
    "info".to_owned()
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("the configuration {} is not valid: {source}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("the configuration is not valid: {key}: {message}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was seen, what was expected.
        message: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Config = toml::from_str(&text).map_err(|mut source| {
            // It quotes the line that is wrong, and a URL on it may hold a password.
            source.set_input(None);
            ConfigError::Parse { path: path.to_owned(), source: Box::new(source) }
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Network { range_start, range_end, url, .. } = &self.network;
        if range_start > range_end {
            let message = format!("{range_start} is after range_end, {range_end}");
            return Err(ConfigError::Value { key: "network.range_start", message });
        }
        if !url.starts_with("http://") || url.ends_with('/') {
            let message = format!("{url:?}; expected http://ADDRESS:PORT without a slash at the end");
            return Err(ConfigError::Value { key: "network.url", message });
        }
        let bounds = [
            ("bmc.timeout", self.bmc.timeout, SignedDuration::from_secs(1), SignedDuration::from_mins(2)),
            ("engines.lease", self.engines.lease, SignedDuration::from_secs(3), SignedDuration::from_mins(5)),
        ];
        if let Some((key, given, least, most)) = bounds.into_iter().find(|(_, given, a, b)| given < a || given > b) {
            let message = format!("{given:#} is out of bounds; expected {least:#} to {most:#}");
            return Err(ConfigError::Value { key, message });
        }
        self.policies.chosen()?;
        oidc::check(&self.oidc)?;
        if self.api.certificate.is_some() != self.api.key.is_some() {
            let message = "TLS needs both certificate and key".to_owned();
            return Err(ConfigError::Value { key: "api.certificate", message });
        }
        if self.store.url.is_none() && self.store.password_file.is_some() {
            let message = "there is no store.url that it could belong to".to_owned();
            return Err(ConfigError::Value { key: "store.password_file", message });
        }
        if let Some(key) = self.lanes.closed() {
            let message = "nothing would ever go through a lane of width 0; expected at least 1".to_owned();
            return Err(ConfigError::Value { key, message });
        }
        match self.deadlines.shortest() {
            Some(shortest) if shortest < SignedDuration::from_secs(1) => {
                let message = format!("{shortest:#} is too short; expected at least 1s");
                Err(ConfigError::Value { key: "deadlines", message })
            }
            _ => Ok(()),
        }
    }

    /// The store.
    ///
    /// # Errors
    /// When its URL or password file cannot be used; the message holds no part of a password.
    pub fn store_place(&self) -> Result<StorePlace, ConfigError> {
        let Some(url) = &self.store.url else {
            return Ok(StorePlace::Sqlite(self.state_dir.join("store.db")));
        };
        let wrong = |key, error: &dyn std::fmt::Display| ConfigError::Value { key, message: error.to_string() };
        let mut url = PostgresUrl::parse(url).map_err(|error| wrong("store.url", &error))?;
        if let Some(path) = &self.store.password_file {
            let password = std::fs::read_to_string(path).map_err(|error| {
                wrong("store.password_file", &format_args!("cannot read {}: {error}", path.display()))
            })?;
            url = url.with_password(password.trim_end_matches(['\n', '\r']));
        }
        Ok(StorePlace::Postgres(url))
    }

    /// The API's certificate and key, if it has one.
    ///
    /// # Errors
    /// When one of the files cannot be read.
    pub fn tls(&self) -> Result<Option<TlsIdentity>, ConfigError> {
        let read = |key, path: &Path| {
            std::fs::read(path).map_err(|error| ConfigError::Value {
                key,
                message: format!("cannot read {}: {error}", path.display()),
            })
        };
        let (Some(certificate), Some(key)) = (&self.api.certificate, &self.api.key) else { return Ok(None) };
        let certificate_pem = read("api.certificate", certificate)?;
        Ok(Some(TlsIdentity { certificate_pem, key_pem: read("api.key", key)? }))
    }

    /// Where compiled policies are kept.
    pub fn policy_cache_dir(&self) -> PathBuf {
        self.state_dir.join("policy-cache")
    }

    /// Where policies are kept that were fetched from registries.
    pub fn fetched_policies_dir(&self) -> PathBuf {
        self.state_dir.join("policies")
    }

    /// Where imported images are.
    pub fn images_dir(&self) -> PathBuf {
        self.state_dir.join("images")
    }

    /// The socket for `vmetal-netboot`.
    pub fn netboot_socket(&self) -> PathBuf {
        self.network.socket.clone().unwrap_or_else(|| self.state_dir.join("netboot.sock"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const NETWORK: &str =
        "[network]\nrange_start = \"172.22.0.10\"\nrange_end = \"172.22.0.99\"\nurl = \"http://172.22.0.1:8080\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string()).map(|()| config)
    }

    #[test]
    fn only_the_network_must_be_given() {
        let config = parse(NETWORK).unwrap();
        assert_eq!(config.api.listen.to_string(), "127.0.0.1:7600");
        assert_eq!(config.netboot_socket(), PathBuf::from("/var/lib/vmetal/netboot.sock"));
        assert_eq!(config.deadlines.limits(), Limits::default());
        assert!(parse("").unwrap_err().contains("network"));
    }

    #[test]
    fn deadlines_are_durations() {
        let config = parse(&format!("{NETWORK}\n[deadlines]\njoin = \"2m 30s\"\n")).unwrap();
        assert_eq!(config.deadlines.limits().join, SignedDuration::from_secs(150));
        assert!(parse(&format!("{NETWORK}\n[deadlines]\njoin = \"0s\"\n")).unwrap_err().contains("deadlines"));
    }

    #[test]
    fn the_readme_shows_a_configuration_that_is_valid_and_whose_deadlines_are_the_defaults() {
        let readme = include_str!("../../README.md");
        let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config = parse(block).unwrap();
        assert_eq!(config.deadlines.limits(), Limits::default());
        let default = Deadlines::default();
        assert!(config.deadlines != default && config.bmc != Bmc::default() && config.policies != Policies::default());
    }

    #[test]
    fn the_store_is_a_file_or_a_database_and_its_password_is_never_shown() {
        let place =
            |text: &str| parse(&format!("{text}\n{NETWORK}")).and_then(|c| c.store_place().map_err(|e| e.to_string()));
        assert!(matches!(place("").unwrap(), StorePlace::Sqlite(path) if path.ends_with("store.db")));
        let given = "[store]\nurl = \"postgres://vmetal:hunter2@db.example/vmetal?sslmode=disable\"";
        assert_eq!(place(given).unwrap().to_string(), "postgres://vmetal@db.example:5432/vmetal");
        assert!(!format!("{:?}", parse(&format!("{given}\n{NETWORK}")).unwrap()).contains("hunter2"));

        let password = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(password.path(), "hunter3\n").unwrap();
        let given =
            format!("[store]\nurl = \"postgres://vmetal@127.0.0.1/vmetal\"\npassword_file = {:?}", password.path());
        assert!(!format!("{:?}", place(&given).unwrap()).contains("hunter3"));

        for (wrong, says) in [
            ("[store]\nurl = \"postgres://vmetal:hunter2@db.example/vmetal?sslmode=prefer\"", "store.url"),
            ("[store]\nurl = \"hunter2\"", "store.url"),
            ("[store]\npassword_file = \"/hunter2\"", "store.password_file"),
            ("[store]\nurl = \"postgres://u@127.0.0.1/d\"\npassword_file = \"/no/such/file\"", "/no/such/file"),
        ] {
            let error = place(wrong).unwrap_err();
            assert!(error.contains(says) && !error.contains("hunter2"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_mistake_in_the_file_does_not_show_the_line_that_it_is_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[store]\nurl = \"postgres://vmetal:hunter2@db/vmetal\" oops\n").unwrap();
        let error = Config::read(file.path()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[test]
    fn the_api_has_tls_where_both_files_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["c.pem", "k.pem"].map(|name| dir.path().join(name));
        let text = format!("{NETWORK}\n[api]\ncertificate = {certificate:?}\nkey = {key:?}\n");
        assert!(parse(NETWORK).unwrap().tls().unwrap().is_none());
        let config = parse(&text).unwrap();
        assert_eq!(config.api.listen.port(), 7600);
        std::fs::write(&certificate, "c").unwrap();
        assert!(config.tls().unwrap_err().to_string().contains("api.key: cannot read"));
        std::fs::write(&key, "k").unwrap();
        let tls = config.tls().unwrap().unwrap();
        assert_eq!((tls.certificate_pem.as_slice(), tls.key_pem.as_slice()), (&b"c"[..], &b"k"[..]));
    }

    #[test]
    fn mistakes_name_the_key() {
        assert!(parse(&format!("sate_dir = \"/x\"\n{NETWORK}")).unwrap_err().contains("sate_dir"));
        assert!(parse(&NETWORK.replace(".99", ".9")).unwrap_err().contains("range_start"));
        assert!(parse(&format!("{NETWORK}\n[engines]\nlease = \"1s\"\n")).unwrap_err().contains("engines.lease"));
        assert!(parse(&format!("{NETWORK}\n[bmc]\ntimeout = \"1h\"\n")).unwrap_err().contains("bmc.timeout"));
        assert!(parse(&NETWORK.replace(":8080", ":8080/")).unwrap_err().contains("network.url"));
        assert!(parse(&format!("{NETWORK}\n[api]\ncertificate = \"/c\"\n")).unwrap_err().contains("both"));
        let issuer = "[[oidc]]\nissuer = \"https://i\"\naudience = \"a\"\njwks_url = \"http://i/keys\"\n";
        assert!(parse(&format!("{NETWORK}\n{issuer}")).unwrap_err().contains("oidc.jwks_url"));
    }
}
