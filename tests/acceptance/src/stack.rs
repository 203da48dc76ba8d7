//! The stack: what runs, on which addresses, in which order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use vmetal_test_port::free_port;

use crate::artifacts::{Artifacts, sources};
use crate::installer::{Behaviour, Installers};
use crate::process::Process;

/// The lab's network: inside a namespace of the lab, so the same everywhere.
pub const BRIDGE: &str = "172.22.0.1/24";
/// Our address in it.
pub const GATEWAY: &str = "172.22.0.1";
/// How long a part may take to get ready. It takes seconds; machines that test are busy.
pub(crate) const START: Duration = Duration::from_secs(300);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept. Must be short: unix sockets live in it.
    pub directory: PathBuf,
    /// The lab's configuration; `{api}` in it stands for the port of the Kubernetes API server.
    pub lab: String,
    /// Where the engine's API listens; a free port when `None`.
    pub api_port: Option<u16>,
    /// Where the Kubernetes API server listens; a free port when `None`.
    pub cluster_port: Option<u16>,
    /// Whether to start a Kubernetes control plane.
    pub cluster: bool,
    /// What runs on the servers.
    pub software: Software,
    /// More of the engine's configuration, for example `[deadlines]` with shorter ones.
    pub engine: String,
}

/// What runs on the lab's servers.
#[derive(Debug, Clone)]
pub enum Software {
    /// What they boot over the network that `vmetal-netboot` serves: for `qemu` hosts.
    Real,
    /// Simulated installers and systems that speak to the engine themselves, by host: for `sim` hosts.
    Simulated(BTreeMap<String, Behaviour>),
}

/// Where a stack is: enough to look at it and to apply something to it, whoever owns its processes.
#[derive(Debug, Clone)]
pub struct Place {
    /// The built pieces.
    pub artifacts: Artifacts,
    /// Where everything is kept.
    pub directory: PathBuf,
    /// The port of the engine's API.
    pub api_port: u16,
}

/// Everything that runs. Dropping it ends all of it.
#[derive(Debug)]
pub struct Stack {
    /// Where it is.
    pub place: Place,
    // In the order in which they end: who depends on others first.
    engine_config: String,
    netboot: Option<Process>,
    installers: Option<Installers>,
    engine: Option<Process>,
    lab: Process,
    cluster: Option<Process>,
}

impl Place {
    /// The engine's API.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    /// The engine's state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.join("engine")
    }

    /// The file with the API token of the first start.
    pub fn token_file(&self) -> PathBuf {
        self.state().join("admin.token")
    }

    /// The kubeconfig of the tenant's cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("cluster").join("admin.kubeconfig")
    }

    /// The journal of mutating requests that a BMC has seen.
    pub fn bmc_journal(&self, host: &str) -> String {
        std::fs::read_to_string(self.directory.join("lab").join(format!("bmc-{host}.jsonl"))).unwrap_or_default()
    }

    /// What `vmetal-lab tfvars` says: servers and BMC passwords, by name.
    ///
    /// # Errors
    /// When the lab does not say.
    pub fn lab_variables(&self) -> Result<Value> {
        let output = std::process::Command::new(self.artifacts.program("vmetal-lab"))
            .args(["tfvars", "--state-dir"])
            .arg(self.directory.join("lab"))
            .output()?;
        if !output.status.success() {
            bail!("vmetal-lab tfvars: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("vmetal-lab tfvars wrote no JSON")
    }

    /// The values of the quickstart's variables.
    ///
    /// # Errors
    /// When the lab does not say.
    pub fn quickstart_variables(&self) -> Result<Value> {
        let mut variables = self.lab_variables()?;
        variables["kubeconfig_file"] = text(&self.kubeconfig())?.into();
        variables["node_image"] = text(&std::fs::canonicalize(&self.artifacts.node_image)?)?.into();
        Ok(variables)
    }
}

impl Stack {
    /// Starts everything and waits until each part is ready. `say` hears what happens.
    ///
    /// # Errors
    /// What could not be started and why, with the end of its log.
    pub fn start(options: Options, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let artifacts = Artifacts::find()?;
        let directory = options.directory;
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let api_port = options.api_port.map_or_else(free_port, Ok)?;
        let cluster_port = options.cluster_port.map_or_else(free_port, Ok)?;

        let cluster = if options.cluster { Some(start_cluster(&artifacts, &directory, cluster_port)?) } else { None };
        let lab_file = directory.join("lab.toml");
        std::fs::write(&lab_file, options.lab.replace("{api}", &cluster_port.to_string()))?;
        let lab_state = directory.join("lab");
        let program = artifacts.program("vmetal-lab");
        let mut lab = Process::start(
            "lab",
            &directory,
            &program,
            ["up".as_ref(), "--config".as_ref(), lab_file.as_os_str(), "--state-dir".as_ref(), lab_state.as_os_str()],
            &[],
        )?;
        let ready = lab_state.join("lab.json");
        lab.wait_until(START, "getting ready", |_| ready.exists())?;
        say("the lab is up: virtual servers, their BMCs and a network of their own");

        let place = Place { artifacts, directory, api_port };
        let mut stack =
            Stack { place, engine_config: options.engine, netboot: None, installers: None, engine: None, lab, cluster };
        stack.start_engine()?;
        say(&format!("the engine is up: {}", stack.place.endpoint()));
        match options.software {
            Software::Real => {
                stack.start_netboot()?;
                say("network boot is up: DHCP, router advertisements, TFTP, HTTP");
            }
            Software::Simulated(behaviours) => {
                stack.installers = Some(Installers::start(&stack.place, behaviours)?);
                say("the servers' software is simulated");
            }
        }
        if let Some(cluster) = &mut stack.cluster {
            cluster.wait_until(START, "getting ready", |p| p.log().contains("ready "))?;
            say(&format!("the Kubernetes control plane is up: https://127.0.0.1:{cluster_port}"));
        }
        Ok(stack)
    }

    /// Starts the engine; its state is kept from one start to the next.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_engine(&mut self) -> Result<()> {
        let config = self.place.directory.join("vmetald.toml");
        let text = format!(
            "state_dir = {state:?}\nlog = \"info\"\n\n[api]\nlisten = \"127.0.0.1:{port}\"\n\n[network]\nrange_start = \"172.22.0.10\"\n\
             range_end = \"172.22.0.99\"\nurl = \"http://{GATEWAY}:8080\"\n\n[bmc]\nallow = [\"127.0.0.0/8\"]\n\n[policies]\ndir = {policies:?}\n\n{more}",
            state = self.place.state(),
            port = self.place.api_port,
            policies = self.place.artifacts.policies,
            more = self.engine_config,
        );
        std::fs::write(&config, text)?;
        let program = self.place.artifacts.program("vmetald");
        let ready = |log: &str| log.matches("vmetald is ready").count();
        // Of earlier starts; counted before this one can say it.
        let before = std::fs::read(self.place.directory.join("vmetald.log")).unwrap_or_default();
        let before = ready(&String::from_utf8_lossy(&before));
        let mut engine =
            Process::start("vmetald", &self.place.directory, &program, ["--config".as_ref(), config.as_os_str()], &[])?;
        engine.wait_until(START, "getting ready", |p| ready(&p.log()) > before)?;
        self.engine = Some(engine);
        Ok(())
    }

    /// The simulated servers' software.
    ///
    /// # Errors
    /// When the servers are real ones.
    pub fn installers(&self) -> Result<&Installers> {
        self.installers.as_ref().context("this stack's servers run real software")
    }

    /// Ends the engine as a crash would.
    pub fn kill_engine(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.kill();
        }
        self.engine = None;
    }

    fn start_netboot(&mut self) -> Result<()> {
        let lab = self.place.artifacts.program("vmetal-lab");
        let images = self.place.state().join("images");
        std::fs::create_dir_all(&images)?;
        let arguments: Vec<String> = [
            "exec",
            "--state-dir",
            &text(&self.place.directory.join("lab"))?,
            "--",
            &text(&self.place.artifacts.program("vmetal-netboot"))?,
            "serve",
            "--interface",
            "br0",
            "--address",
            BRIDGE,
            // Leads nowhere, but a kubelet without a default route does not know its own address.
            "--gateway",
            GATEWAY,
            "--engine-socket",
            &text(&self.place.state().join("netboot.sock"))?,
            "--assets",
            &text(&self.place.artifacts.assets)?,
            "--images",
            &text(&images)?,
        ]
        .map(str::to_owned)
        .into();
        self.netboot = Some(Process::start("netboot", &self.place.directory, &lab, arguments, &[])?);
        Ok(())
    }

    /// Fails when a part has ended that should run.
    ///
    /// # Errors
    /// Which part, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let parts = [Some(&mut self.lab), self.engine.as_mut(), self.netboot.as_mut(), self.cluster.as_mut()];
        parts.into_iter().flatten().try_for_each(Process::check)
    }

    /// The lab of the quickstart, as `examples/lab/quickstart.toml` has it, with the API server's port filled in.
    ///
    /// # Errors
    /// When the example cannot be read.
    pub fn quickstart_lab() -> Result<String> {
        let path = sources().join("examples/lab/quickstart.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.replace("to = \"127.0.0.1:6443\"", "to = \"127.0.0.1:{api}\""))
    }
}

pub(crate) fn start_cluster(artifacts: &Artifacts, directory: &Path, port: u16) -> Result<Process> {
    let state = directory.join("cluster");
    let arguments = [
        "--dir".to_owned(),
        text(&state)?,
        "--listen".to_owned(),
        format!("127.0.0.1:{port}"),
        "--node-endpoint".to_owned(),
        format!("https://{GATEWAY}:6443"),
    ];
    Process::start("cluster", directory, &artifacts.kubernetes.join("testcluster"), arguments, &[])
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}
