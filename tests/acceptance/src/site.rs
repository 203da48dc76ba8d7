//! A lab of simulated servers and a Kubernetes control plane for any number of engines, each a process that a test can kill,
//! stop and start by itself.

#![allow(clippy::disallowed_methods, reason = "waits for real processes in real time")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use vmetal_api::{Apply, Client, ClientConfig, Resource, Secret, TokenSource};
use vmetal_model::Kind;
use vmetal_test_port::free_port;

use crate::artifacts::Artifacts;
use crate::process::Process;
use crate::stack::{Place, START, start_cluster};

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Lab and control plane. Dropping it ends both.
#[derive(Debug)]
pub struct Site {
    place: Place,
    variables: Value,
    _lab: Process,
    _cluster: Process,
}

impl Site {
    /// Starts simulated servers of these names and a control plane, in a directory whose name must be short.
    ///
    /// # Errors
    /// What could not be started and why.
    pub fn start(directory: &Path, hosts: &[String]) -> Result<Self> {
        let artifacts = Artifacts::find()?;
        let mut cluster = start_cluster(&artifacts, directory, free_port()?)?;
        let net = std::process::id() % 250 + 1;
        let mut text = String::new();
        for (number, host) in (1..).zip(hosts) {
            write!(
                text,
                "[[hosts]]\nname = \"{host}\"\nbackend = \"sim\"\ncpus = 4\nmemory_mib = 8192\n\
                 disks = [{{ size_gib = 64, bus = \"nvme\" }}]\n\
                 bmc = {{ listen = \"127.89.{net}.{number}:0\", password = \"the-bmc-password-of-{host}\" }}\n\n",
            )?;
        }
        let (config, state) = (directory.join("lab.toml"), directory.join("lab"));
        std::fs::write(&config, text)?;
        let arguments =
            ["up".as_ref(), "--config".as_ref(), config.as_os_str(), "--state-dir".as_ref(), state.as_os_str()];
        let mut lab = Process::start("lab", directory, &artifacts.program("vmetal-lab"), arguments, &[])?;
        let ready = state.join("lab.json");
        lab.wait_until(START, "getting ready", |_| ready.exists())?;
        cluster.wait_until(START, "getting ready", |p| p.log().contains("ready "))?;
        let place = Place { artifacts, directory: directory.to_owned(), api_port: 0 };
        let variables = place.lab_variables()?;
        Ok(Site { place, variables, _lab: lab, _cluster: cluster })
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The state directory of the lab.
    pub fn lab_state(&self) -> PathBuf {
        self.place.directory.join("lab")
    }

    /// The password of a server's BMC, as the lab begins.
    pub fn password(&self, name: &str) -> String {
        format!("the-bmc-password-of-{name}")
    }

    /// Where the BMC of a server is, as a host is declared with it.
    pub fn bmc_address(&self, name: &str) -> String {
        self.variables["servers"][name]["bmc_address"].as_str().unwrap_or_default().to_owned()
    }

    /// The declaration of a server as the lab has it, with a label `only` of its own name.
    pub fn host(&self, name: &str) -> Apply {
        let server = &self.variables["servers"][name];
        let spec = json!({
            "bmc": {
                "address": server["bmc_address"], "username": "admin", "password_version": "1",
                "tls": { "fingerprint": server["bmc_certificate_sha256"] },
            },
            "boot_mac": server["boot_mac"],
        });
        let mut apply = Apply::from_json(Kind::Host, name, spec);
        apply.labels.insert("only".to_owned(), name.to_owned());
        apply.secrets.insert("bmc.password".to_owned(), Secret::new(self.password(name)));
        apply
    }

    /// The declaration of the tenant's cluster.
    ///
    /// # Errors
    /// When its kubeconfig cannot be read.
    pub fn cluster(&self) -> Result<Apply> {
        let mut apply = Apply::from_json(Kind::TenantCluster, "tenant", json!({ "kubeconfig_version": "1" }));
        let kubeconfig = std::fs::read_to_string(self.place.kubeconfig()).context("cannot read the kubeconfig")?;
        apply.secrets.insert("kubeconfig".to_owned(), Secret::new(kubeconfig));
        Ok(apply)
    }

    /// The declaration of the smallest image.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn image(&self) -> Result<Apply> {
        let path = self.place.directory.join("tiny.raw");
        if !path.exists() {
            crate::disk::image(&self.place.directory, "tiny")?;
        }
        Ok(Apply::from_json(Kind::Image, "tiny", json!({ "source": path })))
    }

    /// The declaration of a class of which a server is the only member.
    pub fn node_type(&self, host: &str) -> Apply {
        let spec = json!({
            "selector": { "only": host }, "resources": { "cpu": "4", "memory": "7Gi" }, "image": "tiny",
        });
        Apply::from_json(Kind::NodeType, host, spec)
    }

    /// The declaration of a tenant node on such a class.
    pub fn tenant_node(&self, name: &str, node_type: &str) -> Apply {
        Apply::from_json(Kind::TenantNode, name, json!({ "cluster": "tenant", "node_type": node_type }))
    }
}

/// One engine: its files, its ports, and its process, if it runs.
#[derive(Debug)]
pub struct EngineProcess {
    name: String,
    directory: PathBuf,
    program: PathBuf,
    port: u16,
    config: String,
    process: Option<Process>,
}

impl EngineProcess {
    /// An engine of a site that is not started yet. `bmc_timeout`, in whole seconds, is how long it waits for an answer of a BMC,
    /// and with engines that share a store part of what a successor waits for. `config` is more of its configuration, for example
    /// `[store]`.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn new(site: &Site, name: &str, bmc_timeout: Duration, config: &str) -> Result<Self> {
        let directory = site.place().directory.join(name);
        std::fs::create_dir_all(&directory)?;
        let program = site.place().artifacts.program("vmetald");
        let engine = EngineProcess {
            name: name.to_owned(),
            directory,
            program,
            port: free_port()?,
            config: config.to_owned(),
            process: None,
        };
        let text = format!(
            "state_dir = {state:?}\nlog = \"info\"\n\n[api]\nlisten = \"127.0.0.1:{port}\"\n\n[network]\n\
             range_start = \"172.22.0.10\"\nrange_end = \"172.22.0.250\"\nurl = \"http://172.22.0.1:8080\"\n\n[bmc]\nallow = [\"127.0.0.0/8\"]\ntimeout = \"{timeout}s\"\n\n{more}",
            state = engine.state(),
            port = engine.port,
            timeout = bmc_timeout.as_secs(),
            more = engine.config,
        );
        std::fs::write(engine.directory.join("vmetald.toml"), text)?;
        Ok(engine)
    }

    fn state(&self) -> PathBuf {
        self.directory.join("s")
    }

    /// The socket that installers call.
    pub fn socket(&self) -> PathBuf {
        self.state().join("netboot.sock")
    }

    /// A client of it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self) -> Result<Client> {
        let token = TokenSource::File(self.state().join("admin.token"));
        let config = ClientConfig::new(format!("http://127.0.0.1:{}", self.port), token);
        Ok(Client::connect_lazy(ClientConfig { patience: Duration::ZERO, ..config })?)
    }

    /// Starts it, with this environment, and waits until it is ready or has ended.
    ///
    /// # Errors
    /// When it cannot be started, or is neither within five minutes.
    pub fn start(&mut self, environment: &[(&str, String)]) -> Result<()> {
        let config = self.directory.join("vmetald.toml");
        let arguments = ["--config".as_ref(), config.as_os_str()];
        let before = self.log().matches("vmetald is ready").count();
        let mut process = Process::start("vmetald", &self.directory, &self.program, arguments, environment)?;
        let start = Instant::now();
        while process.check().is_ok() && process.log().matches("vmetald is ready").count() == before {
            ensure!(start.elapsed() < START, "{} is not ready after {START:?}:\n{}", self.name, self.log());
            std::thread::sleep(LOOK / 5);
        }
        self.process = Some(process);
        Ok(())
    }

    /// Whether it runs. Notices when it has ended by itself.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.check().is_ok())
    }

    /// Its log, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read(self.directory.join("vmetald.log"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks it to end; how long that took, or `None` when it had to be killed.
    pub fn stop(&mut self, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        self.process.take()?.stop(limit).map(|_| start.elapsed())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("it does not run")?;
        kill(process.pid(), signal).with_context(|| format!("cannot send {signal}"))
    }
}

/// Asks until there is an answer that will do. `revive` is called before each look; it may start engines.
///
/// # Errors
/// When there is none in time: what was seen last.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut revive: impl FnMut() -> Result<()>,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        revive()?;
        let seen = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => "nothing yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > limit {
            bail!("{what} did not come within {limit:?}; seen last: {seen}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One object as its type.
///
/// # Errors
/// When the engine does not say.
pub async fn get<R: Resource>(client: &Client, name: &str) -> Result<Option<R>> {
    Ok(client.get_as::<R>(name).await?)
}
