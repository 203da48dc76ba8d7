//! The real Terraform or OpenTofu, with our provider from a file system mirror, as somebody without a registry would install it.

mod cli;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::artifacts::sources;
use crate::stack::Place;

pub use cli::{Cli, Product};

/// A working directory with a configuration, initialised.
#[derive(Debug)]
pub struct Terraform {
    cli: Cli,
    directory: PathBuf,
    cli_config: PathBuf,
    temporary: PathBuf,
    endpoint: String,
    token_file: PathBuf,
}

impl Terraform {
    /// Copies an example into `<directory>/<name>`, writes its variables and initialises it.
    ///
    /// # Errors
    /// What terraform says.
    pub fn example(place: &Place, name: &str, example: &str, variables: &serde_json::Value) -> Result<Self> {
        let directory = place.directory.join(name);
        std::fs::create_dir_all(&directory)?;
        let source = sources().join("examples/terraform").join(example);
        for file in std::fs::read_dir(&source).with_context(|| format!("cannot read {}", source.display()))? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "tf") {
                std::fs::copy(&path, directory.join(path.file_name().unwrap_or_default()))?;
            }
        }
        Self::in_directory(place, directory, variables)
    }

    /// Writes a configuration into `<directory>/<name>` and initialises it.
    ///
    /// # Errors
    /// What terraform says.
    pub fn configuration(place: &Place, name: &str, text: &str, variables: &serde_json::Value) -> Result<Self> {
        let directory = place.directory.join(name);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("main.tf"), text)?;
        Self::in_directory(place, directory, variables)
    }

    fn in_directory(place: &Place, directory: PathBuf, variables: &serde_json::Value) -> Result<Self> {
        let cli = Cli::find()?;
        let mirror = place.directory.join("terraform-mirror");
        let version = env!("CARGO_PKG_VERSION");
        let slot = mirror.join(format!("{}/vmetal/vmetal/{version}/linux_amd64", cli.product.registry()));
        std::fs::create_dir_all(&slot)?;
        let provider = slot.join(format!("terraform-provider-vmetal_v{version}"));
        if !provider.exists() {
            std::fs::copy(place.artifacts.program("terraform-provider-vmetal"), &provider)?;
        }
        let cli_config = place.directory.join("terraform.rc");
        let text = format!(
            "disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    path = {mirror:?}\n  }}\n  direct {{\n    exclude = [\"vmetal/vmetal\"]\n  }}\n}}\n"
        );
        // Several configurations may be set up side by side: what is there already is left alone.
        if std::fs::read_to_string(&cli_config).ok().as_ref() != Some(&text) {
            std::fs::write(&cli_config, text)?;
        }
        std::fs::write(directory.join("terraform.tfvars.json"), serde_json::to_string_pretty(variables)?)?;
        let terraform = Terraform {
            cli,
            directory,
            cli_config,
            temporary: place.directory.clone(),
            endpoint: place.endpoint(),
            token_file: place.token_file(),
        };
        terraform.must(&["init", "-input=false", "-no-color"])?;
        Ok(terraform)
    }

    /// The working directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The program that is used.
    pub fn cli(&self) -> &Cli {
        &self.cli
    }

    /// A terraform command, ready to be started. The kernel ends it when the thread that started it ends, as a test that fails
    /// does; its provider notices that and ends too.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.cli.program)
            .current_dir(&self.directory)
            .env("TF_CLI_CONFIG_FILE", &self.cli_config)
            .env("TF_IN_AUTOMATION", "1")
            // The sockets between terraform and the provider, so that one that is left behind is seen and removed.
            .env("TMPDIR", &self.temporary)
            .env("VMETAL_ENDPOINT", &self.endpoint)
            .env("VMETAL_TOKEN_FILE", &self.token_file)
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    /// Runs a command and returns what it printed, whether it succeeded or not.
    ///
    /// # Errors
    /// When terraform cannot be run.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("cannot run {}", self.cli))
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Errors
    /// What terraform says.
    pub fn must(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{} {} failed:\n{text}{}", self.cli, arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    /// Runs a command that must fail; returns what it printed to both streams.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn must_fail(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            bail!("{} {} succeeded, but was to fail:\n{text}", self.cli, arguments.join(" "));
        }
        Ok(text)
    }

    /// Applies.
    ///
    /// # Errors
    /// What terraform says.
    pub fn apply(&self) -> Result<String> {
        self.must(&["apply", "-auto-approve", "-input=false", "-no-color"])
    }

    /// Starts an apply and leaves it running, its output in pipes.
    ///
    /// # Errors
    /// When terraform cannot be run.
    pub fn start_apply(&self) -> Result<Child> {
        self.command(&["apply", "-auto-approve", "-input=false", "-no-color"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run terraform")
    }

    /// True when a plan finds nothing to do.
    ///
    /// # Errors
    /// What terraform says.
    pub fn plan_is_empty(&self) -> Result<bool> {
        let output = self.run(&["plan", "-detailed-exitcode", "-input=false", "-no-color"])?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(2) => Ok(false),
            _ => bail!(
                "terraform plan failed:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    /// Destroys everything.
    ///
    /// # Errors
    /// What terraform says.
    pub fn destroy(&self) -> Result<String> {
        self.must(&["destroy", "-auto-approve", "-input=false", "-no-color"])
    }
}
