//! A harness that drives the real `terraform` against a provider, the way its users do.
//!
//! [`Terraform`] is one working directory with one configuration. A provider reaches it in one of two ways:
//! [`Provider::mirror`] puts a binary into a filesystem mirror, so that the handshake, mutual TLS and process handling
//! are exercised; [`Provider::reattach`] points Terraform at a provider that already runs (`--debug`), which a debugger
//! or a coverage tool can hold on to.
//!
//! Nothing outside the working directory is written, no network is used, and the user's own Terraform configuration is
//! not read.
//!
//! Nothing is left running either. A command that is left running ([`Running`]) ends with its value, with everything that it
//! started. On Linux, where `setpriv` (util-linux) is on the PATH, terraform also ends when the thread that started it ends,
//! even by a SIGKILL of the whole test; a provider of this crate notices that and ends within seconds.
//!
//! The steps of HashiCorp's acceptance tests are [`Terraform::check`] (apply, an empty plan, an empty plan after a refresh),
//! [`Terraform::verify_import`] (what an import finds is what the state has) and [`Terraform::destroy`].

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value as Json;

use crate::{Schema, Value, codec, plan::empty_object, wire};

/// An object of a schema as it goes over the wire, with these attributes and the others null: for tests that speak the protocol
/// themselves.
pub fn packed(schema: &Schema, fields: &[(&str, Value)]) -> Option<wire::DynamicValue> {
    let mut value = empty_object(schema);
    fields.iter().for_each(|(name, field)| value.set(name, field.clone()));
    Some(codec::to_wire(&value, &schema.value_type()))
}

/// Why a step could not be run at all. A step that terraform itself fails is an [`Output`] instead.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// A file of the test could not be written, or terraform could not be started.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// terraform failed where success was expected.
    #[error("terraform {step} failed with {status}:\n{output}")]
    Failed {
        /// The command.
        step: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// A configuration that was just applied is not what there is.
    #[error("after an apply there is still something to do ({step}): {changes:?}")]
    NotEmpty {
        /// Which plan.
        step: &'static str,
        /// What it would do.
        changes: Vec<(String, Vec<String>)>,
    },
    /// An import found something else than the state has.
    #[error("what the import of {address} found differs from the state in {attribute}: {found} instead of {expected}")]
    Import {
        /// The resource.
        address: String,
        /// The attribute.
        attribute: String,
        /// What the state has.
        expected: Json,
        /// What the import found.
        found: Json,
    },
    /// terraform printed something else than JSON.
    #[error("terraform {step} did not print JSON")]
    Json {
        /// The command.
        step: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> TestError {
    let what = what.into();
    |source| TestError::Io { what, source }
}

/// What a finished command printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output and standard error, in that order.
    pub text: String,
}

impl Output {
    /// Whether it succeeded.
    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// The text in one line with single spaces, without terraform's box drawing: for finding sentences in it.
    pub fn flat(&self) -> String {
        let plain: String = self.text.chars().map(|c| if "│╷╵".contains(c) { ' ' } else { c }).collect();
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// How terraform reaches the provider.
#[derive(Debug, Clone)]
pub enum Provider {
    /// A binary, found through a filesystem mirror.
    Mirror {
        /// The source address, such as `example.com/acme/thing`.
        address: String,
        /// The binary.
        binary: PathBuf,
    },
    /// A provider that runs already.
    Reattach {
        /// The value of `TF_REATTACH_PROVIDERS`.
        line: String,
    },
    /// However a CLI configuration says.
    Configured {
        /// What stands in it, beside what the harness adds.
        cli: String,
    },
}

impl Provider {
    /// A binary, found through a filesystem mirror.
    pub fn mirror(address: impl Into<String>, binary: impl Into<PathBuf>) -> Self {
        Self::Mirror { address: address.into(), binary: binary.into() }
    }

    /// A provider that was started with `--debug` and printed `line`.
    pub fn reattach(line: impl Into<String>) -> Self {
        Self::Reattach { line: line.into() }
    }

    /// A provider that terraform finds by this CLI configuration: for testing how users install it.
    pub fn configured(cli: impl Into<String>) -> Self {
        Self::Configured { cli: cli.into() }
    }
}

/// What applies: the program that `TF_ACC_TERRAFORM_PATH` names (as for HashiCorp's own harness), else `terraform` on the
/// PATH, else `tofu`, which does the same.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("TF_ACC_TERRAFORM_PATH") {
        return path.into();
    }
    ["terraform", "tofu"].into_iter().find_map(on_path).unwrap_or_else(|| "terraform".into())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// A command that was left running. Dropped, it ends, and every process that it started with it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`TestError::Io`] if the system does not tell.
    pub fn wait(&mut self) -> Result<ExitStatus, TestError> {
        let status = self.child.wait().map_err(failed("cannot wait for terraform"))?;
        self.ended = Some(status);
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A terraform that ended by itself has ended its providers. One that a test killed has not.
        if self.ended.is_some_and(|status| status.code().is_some()) {
            return;
        }
        // It leads a group of its own. Without unsafe code, signals to groups are sent by `kill`; when that fails there is nobody.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// What a plan would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// Nothing.
    Nothing,
    /// Changes: for each resource address, the actions (`create`, `update`, `delete`, ...).
    Changes(Vec<(String, Vec<String>)>),
}

/// A working directory in which terraform runs.
#[derive(Debug)]
pub struct Terraform {
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Terraform {
    /// Prepares `dir`, which must exist and should be temporary.
    ///
    /// # Errors
    /// [`TestError::Io`] if the files of the mirror cannot be written.
    pub fn new(dir: &Path, provider: &Provider) -> Result<Self, TestError> {
        let cli_config = dir.join("terraform.rc");
        let temporary = dir.join("tmp");
        fs::create_dir_all(&temporary).map_err(failed(format!("cannot make {}", temporary.display())))?;
        let mut env = vec![
            ("TF_CLI_CONFIG_FILE".to_owned(), cli_config.display().to_string()),
            ("TF_IN_AUTOMATION".to_owned(), "1".to_owned()),
            ("TF_INPUT".to_owned(), "0".to_owned()),
            ("CHECKPOINT_DISABLE".to_owned(), "1".to_owned()),
            // Providers that a test kills cannot remove their sockets.
            ("TMPDIR".to_owned(), temporary.display().to_string()),
        ];
        let mut rc = "disable_checkpoint = true\n".to_owned();
        match provider {
            Provider::Mirror { address, binary } => {
                let mirror = dir.join("mirror");
                let name = address.rsplit('/').next().unwrap_or(address);
                let target = mirror.join(address).join("0.0.1").join(platform());
                let file = target.join(format!("terraform-provider-{name}_v0.0.1"));
                fs::create_dir_all(&target).map_err(failed(format!("cannot make {}", target.display())))?;
                std::os::unix::fs::symlink(binary, &file).map_err(failed(format!("cannot link {}", file.display())))?;
                rc.push_str(&format!(
                    "provider_installation {{\n  filesystem_mirror {{\n    path = {:?}\n  }}\n}}\n",
                    mirror.display().to_string()
                ));
            }
            Provider::Reattach { line } => env.push(("TF_REATTACH_PROVIDERS".to_owned(), line.clone())),
            Provider::Configured { cli } => rc.push_str(cli),
        }
        fs::write(&cli_config, rc).map_err(failed("cannot write terraform's configuration"))?;
        Ok(Self { dir: dir.to_owned(), env })
    }

    /// Sets a variable for all further commands.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Replaces the configuration (`main.tf`).
    ///
    /// # Errors
    /// [`TestError::Io`] if it cannot be written.
    pub fn config(&self, text: &str) -> Result<(), TestError> {
        fs::write(self.dir.join("main.tf"), text).map_err(failed("cannot write main.tf"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = program();
        // The kernel ends terraform when the thread that started it ends, however that comes about.
        let mut command = match on_path("setpriv").filter(|_| cfg!(target_os = "linux") && program.is_file()) {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        // Variables such as TF_LOG or TF_CLI_ARGS of the surrounding shell would change what is tested.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TF_")) {
            command.env_remove(name);
        }
        command.args(args).current_dir(&self.dir).envs(self.env.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs any command, whatever comes of it.
    ///
    /// # Errors
    /// [`TestError::Io`] if terraform cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<Output, TestError> {
        let output = self.command(args).output().map_err(failed("cannot run terraform; is it installed?"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Output { status: output.status, text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// Starts a command and leaves it running, its output in `output.log` of the working directory, until what is returned is
    /// dropped.
    ///
    /// # Errors
    /// [`TestError::Io`] if terraform cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Result<Running, TestError> {
        let log = fs::File::create(self.dir.join("output.log")).map_err(failed("cannot write output.log"))?;
        let errors = log.try_clone().map_err(failed("cannot write output.log"))?;
        let child = self.command(args).process_group(0).stdout(log).stderr(errors).spawn();
        Ok(Running { child: child.map_err(failed("cannot run terraform; is it installed?"))?, ended: None })
    }

    /// Runs a command that must succeed.
    ///
    /// # Errors
    /// [`TestError::Failed`] with everything it printed if it does not.
    pub fn expect(&self, args: &[&str]) -> Result<Output, TestError> {
        let output = self.run(args)?;
        if output.ok() {
            return Ok(output);
        }
        Err(TestError::Failed { step: args.join(" "), status: output.status, output: output.text })
    }

    fn json(&self, args: &[&str]) -> Result<Json, TestError> {
        let output = self.command(args).stderr(Stdio::piped()).output().map_err(failed("cannot run terraform"))?;
        let step = args.join(" ");
        if !output.status.success() {
            let output_text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            return Err(TestError::Failed { step, status: output.status, output: output_text });
        }
        serde_json::from_slice(&output.stdout).map_err(|source| TestError::Json { step, source })
    }

    /// Whether the client has a command, which says how new it is: `query` came with actions, in Terraform 1.14.
    ///
    /// # Errors
    /// [`TestError::Io`] if terraform cannot be started.
    pub fn knows(&self, command: &str) -> Result<bool, TestError> {
        Ok(self.run(&[command, "-help"])?.ok())
    }

    /// `init`. Not needed with an attached provider.
    ///
    /// # Errors
    /// [`TestError`] if it fails.
    pub fn init(&self) -> Result<Output, TestError> {
        self.expect(&["init", "-no-color"])
    }

    /// `apply`, which must succeed.
    ///
    /// # Errors
    /// [`TestError`] if it fails.
    pub fn apply(&self) -> Result<Output, TestError> {
        self.expect(&["apply", "-auto-approve", "-no-color"])
    }

    /// `apply`, which must fail; the answer is what it printed.
    ///
    /// # Errors
    /// [`TestError`] if terraform cannot be run. An apply that succeeds is an `Output` that is `ok`.
    pub fn try_apply(&self) -> Result<Output, TestError> {
        self.run(&["apply", "-auto-approve", "-no-color"])
    }

    /// `destroy`, which must succeed.
    ///
    /// # Errors
    /// [`TestError`] if it fails.
    pub fn destroy(&self) -> Result<Output, TestError> {
        self.expect(&["destroy", "-auto-approve", "-no-color"])
    }

    /// `import`, which must succeed.
    ///
    /// # Errors
    /// [`TestError`] if it fails.
    pub fn import(&self, address: &str, id: &str) -> Result<Output, TestError> {
        self.expect(&["import", "-no-color", address, id])
    }

    /// What must hold of every configuration: it applies, and then there is nothing to do, neither for what is remembered nor
    /// for what a refresh finds.
    ///
    /// # Errors
    /// [`TestError::NotEmpty`] names what a plan would do; [`TestError`] if a command fails.
    pub fn check(&self) -> Result<(), TestError> {
        self.apply()?;
        for (step, refresh) in [("plan", "-refresh=false"), ("plan after a refresh", "-refresh=true")] {
            if let Planned::Changes(changes) = self.planned(&[refresh])? {
                return Err(TestError::NotEmpty { step, changes });
            }
        }
        Ok(())
    }

    /// Imports what is in the state at `address` once more, into a state of its own, and compares: every attribute but
    /// `ignored` (those that cannot be read back) must be the same.
    ///
    /// # Errors
    /// [`TestError::Import`] names the first attribute that differs; [`TestError`] if a command fails.
    pub fn verify_import(&self, address: &str, id: &str, ignored: &[&str]) -> Result<(), TestError> {
        let expected = self.state(address)?.unwrap_or_default();
        let other = "import.tfstate";
        // A lock of an earlier import, or its state, would be in the way.
        let _ = fs::remove_file(self.dir.join(other));
        self.expect(&["import", "-no-color", &format!("-state={other}"), "-backup=-", address, id])?;
        let found = values(&self.json(&["show", "-json", other])?, address).unwrap_or_default();
        if expected.is_null() || found.is_null() {
            let attribute = "every attribute".to_owned();
            return Err(TestError::Import { address: address.to_owned(), attribute, expected, found });
        }
        let names = expected.as_object().into_iter().chain(found.as_object()).flat_map(serde_json::Map::keys);
        match names.filter(|name| !ignored.contains(&name.as_str())).find(|name| expected[*name] != found[*name]) {
            Some(name) => Err(TestError::Import {
                address: address.to_owned(),
                attribute: name.clone(),
                expected: expected[name].clone(),
                found: found[name].clone(),
            }),
            None => Ok(()),
        }
    }

    /// `plan`, refresh included, and what it would do.
    ///
    /// # Errors
    /// [`TestError`] if it fails.
    pub fn plan(&self) -> Result<Planned, TestError> {
        self.planned(&[])
    }

    fn planned(&self, options: &[&str]) -> Result<Planned, TestError> {
        self.expect(&[&["plan", "-no-color", "-out=test.tfplan"], options].concat())?;
        let plan = self.json(&["show", "-json", "test.tfplan"])?;
        let changes = plan["resource_changes"].as_array().cloned().unwrap_or_default();
        let changes: Vec<_> = changes
            .iter()
            .map(|change| {
                let actions = change["change"]["actions"].as_array().cloned().unwrap_or_default();
                let actions: Vec<_> = actions.iter().filter_map(Json::as_str).map(str::to_owned).collect();
                (change["address"].as_str().unwrap_or_default().to_owned(), actions)
            })
            .filter(|(_, actions)| actions.iter().any(|action| action != "no-op"))
            .collect();
        Ok(if changes.is_empty() { Planned::Nothing } else { Planned::Changes(changes) })
    }

    /// The attributes of a resource in the state; `None` if it is not there.
    ///
    /// # Errors
    /// [`TestError`] if the state cannot be shown.
    pub fn state(&self, address: &str) -> Result<Option<Json>, TestError> {
        Ok(values(&self.json(&["show", "-json"])?, address))
    }

    /// Whether a resource in the state is tainted: the next apply would replace it.
    ///
    /// # Errors
    /// [`TestError`] if the state cannot be shown.
    pub fn tainted(&self, address: &str) -> Result<bool, TestError> {
        let state = self.json(&["show", "-json"])?;
        let resources = state["values"]["root_module"]["resources"].as_array().cloned().unwrap_or_default();
        Ok(resources.iter().any(|resource| resource["address"] == address && resource["tainted"] == true))
    }
}

/// The attributes of a resource in a state.
fn values(state: &Json, address: &str) -> Option<Json> {
    let resources = state["values"]["root_module"]["resources"].as_array()?;
    resources.iter().find(|resource| resource["address"] == address).map(|resource| resource["values"].clone())
}

/// The platform name in a mirror's layout.
fn platform() -> String {
    let os = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{os}_{arch}")
}
