//! The Terraform provider under the real client: how fast it starts, and what a thousand hosts cost over a thousand of the
//! client's own `terraform_data`, which is the least that a thousand resources can cost.
//!
//! `terraform_data` is a part of the client; every other resource is a provider's, in a process of its own, and each of its steps
//! is a call over a socket, an encoding and a check on both sides. What that costs by itself is measured in the same run: the same
//! `terraform_data` as a provider that does nothing (`tfplugin`'s example `echo`). And `terraform_data` is given little to keep:
//! what it costs when it keeps what a host declares is measured as well, because the client writes its whole state after each
//! resource.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fleet::rig::{Options, Rig};
use crate::fleet::{say, text};
use crate::machine::{self, Sickness};
use crate::process::cost;
use crate::row::{Row, median};
use crate::{bmc, fleet};

/// From power-on to a server's first request: longer than a run, as with real servers. What is measured ends before it.
const BOOT: Duration = Duration::from_secs(1200);
/// Our provider's address, and that of the one that does nothing.
const VMETAL: &str = "registry.terraform.io/vmetal/vmetal";
const ECHO: &str = "example.com/tfplugin/echo";
/// What go-plugin's clients send, so that a provider knows that it was started by one.
const COOKIE: (&str, &str) =
    ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2");

/// What to run.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The engine's program.
    pub vmetald: PathBuf,
    /// Policy components; the native twins when `None`.
    pub policies: Option<PathBuf>,
    /// The provider's program.
    pub provider: PathBuf,
    /// A provider that does nothing: `tfplugin`'s example `echo`.
    pub echo: PathBuf,
    /// Where state may be kept while it runs.
    pub scratch: PathBuf,
    /// Resources of either kind.
    pub resources: u32,
    /// Runs, one of each kind after the other.
    pub runs: usize,
    /// Starts of the provider.
    pub starts: usize,
}

/// Picks one of them.
type Step = fn(&Steps) -> f64;

/// How long the steps took, seconds.
#[derive(Debug, Clone, Copy)]
struct Steps {
    plan: f64,
    apply: f64,
    refresh: f64,
}

impl Provider {
    /// Runs everything.
    ///
    /// # Errors
    /// When a program is missing or fails.
    pub async fn run(&self) -> Result<Vec<Row>> {
        let mut rows = self.starts()?;
        let client = Client::find()?;
        let (mut ours, mut echo, mut floor, mut same) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for run in 1..=self.runs {
            say(&format!("{} terraform_data, run {run} of {}", self.resources, self.runs));
            floor.push(self.floor(&client, &self.values())?);
            say(&format!(
                "{} terraform_data that keep what a host declares, run {run} of {}",
                self.resources, self.runs
            ));
            same.push(self.floor(&client, &self.declarations())?);
            say(&format!("{} of a provider that does nothing, run {run} of {}", self.resources, self.runs));
            echo.push(self.nothing(&client)?);
            say(&format!("{} hosts, run {run} of {}", self.resources, self.runs));
            ours.push(self.hosts(&client).await?);
        }
        let mut over = |name: &str, what: &str, (a, b): (&[Steps], &[Steps]), step: Step| {
            let of = |runs: &[Steps]| median(&runs.iter().map(step).collect::<Vec<_>>());
            let (a, b) = (of(a), of(b));
            let notes = format!("{what}; {} resources, {a:.2} s against {b:.2} s; {}", self.resources, client.version);
            rows.push(Row::new(name, "ratio", a / b, self.runs, notes));
        };
        let steps: [(&str, &str, Step); 3] = [
            ("apply", "apply, until the engine has reached every BMC", |steps| steps.apply),
            ("plan", "plan of the creation", |steps| steps.plan),
            ("refresh", "plan -refresh-only of what was made", |steps| steps.refresh),
        ];
        for (name, what, step) in steps {
            over(&format!("{name}_1000_over_terraform_data"), what, (&ours, &floor), step);
            over(
                &format!("{name}_1000_over_terraform_data_of_the_same"),
                &format!("{what}, over terraform_data that keeps what a host declares"),
                (&ours, &same),
                step,
            );
            over(
                &format!("{name}_1000_over_echo"),
                &format!("{what}, over a provider that does nothing"),
                (&ours, &echo),
                step,
            );
            let nothing = "a provider that does nothing: what being one costs";
            over(&format!("echo_{name}_1000_over_terraform_data"), nothing, (&echo, &floor), step);
        }
        Ok(rows)
    }

    /// From exec to the handshake line, and the memory then.
    fn starts(&self) -> Result<Vec<Row>> {
        say("start of the provider");
        // Terraform's own certificate: ECDSA on P-521, which decides which TLS code has to run.
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512)?;
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?.pem();
        let (mut times, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..self.starts {
            let begin = Instant::now();
            let child = Command::new(&self.provider)
                .env(COOKIE.0, COOKIE.1)
                .env("PLUGIN_PROTOCOL_VERSIONS", "5,6")
                .env("PLUGIN_CLIENT_CERT", &certificate)
                .env("TMPDIR", &self.scratch)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", self.provider.display()))?;
            let mut started = Started(child);
            let mut line = String::new();
            BufReader::new(started.0.stdout.take().context("no output")?).read_line(&mut line)?;
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
            ensure!(line.starts_with("1|6|unix|"), "the provider said {line:?} instead of a handshake");
            memory.push(cost(Some(started.0.id())).resident_kib as f64 / 1024.0);
        }
        let n = self.starts;
        Ok(vec![
            Row::new("handshake_ms", "ms", median(&times), n, "from exec to the handshake line, with mutual TLS"),
            Row::new("rss_mib", "MiB", median(&memory), n, "resident at the handshake"),
        ])
    }

    fn floor(&self, client: &Client, values: &[Value]) -> Result<Steps> {
        let body = "resource \"terraform_data\" \"one\" {\n  count = length(local.hosts)\n  input = local.hosts[count.index]\n}\n";
        client.directory(&self.scratch, VMETAL, &self.provider, values)?.measure(body)
    }

    fn nothing(&self, client: &Client) -> Result<Steps> {
        let body = format!(
            "terraform {{\n  required_providers {{\n    echo = {{ source = \"{ECHO}\" }}\n  }}\n}}\nresource \"echo_data\" \"one\" {{\n  \
             count = length(local.hosts)\n  input = local.hosts[count.index]\n}}\n"
        );
        client.directory(&self.scratch, ECHO, &self.echo, &self.values())?.measure(&body)
    }

    fn values(&self) -> Vec<Value> {
        (0..self.resources)
            .map(|index| json!({ "name": format!("host-{index}"), "class": fleet::rig::CLASS }))
            .collect()
    }

    /// What hosts declare, as data.
    fn declarations(&self) -> Vec<Value> {
        let declared = |index| {
            json!({
                "name": machine::name(index),
                "bmc": {
                    "address": format!("redfish://{}:40000", bmc::address(index)),
                    "username": bmc::USERNAME,
                    "password_wo_version": "1",
                    "tls_fingerprint": "0".repeat(64),
                },
                "boot_mac": machine::mac(index),
                "labels": { "class": fleet::rig::CLASS },
                "wait_for": "registered",
            })
        };
        (0..self.resources).map(declared).collect()
    }

    async fn hosts(&self, client: &Client) -> Result<Steps> {
        let options = Options { vmetald: &self.vmetald, policies: self.policies.as_deref(), scratch: &self.scratch };
        let rig = Rig::start(options, self.resources, BOOT, |_| Sickness::Healthy).await?;
        let host = |index| {
            let declared = rig.declaration(index);
            let (bmc, mac) = (&declared.spec["bmc"], &declared.spec["boot_mac"]);
            let pin = &bmc["tls"]["fingerprint"];
            json!({ "name": declared.name, "address": bmc["address"], "pin": pin, "mac": mac })
        };
        let mut work = client.directory(
            &self.scratch,
            VMETAL,
            &self.provider,
            &(0..self.resources).map(host).collect::<Vec<_>>(),
        )?;
        work.env = vec![
            ("VMETAL_ENDPOINT".to_owned(), rig.client.endpoint().to_owned()),
            ("VMETAL_TOKEN_FILE".to_owned(), text(&rig.directory().join("state/admin.token")).to_owned()),
        ];
        let body = format!(
            r#"terraform {{
  required_providers {{
    vmetal = {{ source = "{VMETAL}" }}
  }}
}}
resource "vmetal_host" "one" {{
  count = length(local.hosts)
  name  = local.hosts[count.index].name
  bmc = {{
    address             = local.hosts[count.index].address
    username            = "{}"
    password_wo         = "{}"
    password_wo_version = 1
    tls_fingerprint     = local.hosts[count.index].pin
  }}
  boot_mac = local.hosts[count.index].mac
  labels   = {{ class = "{}" }}
  wait_for = "registered"
}}
"#,
            bmc::USERNAME,
            bmc::PASSWORD,
            fleet::rig::CLASS
        );
        // The client blocks this thread; BMCs and the engine's feed go on on the others.
        let steps = tokio::task::block_in_place(|| work.measure(&body))?;
        let known = rig.every_host().await?;
        let registered = known.iter().filter(|host| host.status.registered_as.is_some()).count();
        ensure!(registered == self.resources as usize, "{registered} of {} hosts are registered", self.resources);
        Ok(steps)
    }
}

/// A provider that was started; ended when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(i32::MAX)), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Terraform, or OpenTofu.
struct Client {
    program: PathBuf,
    version: String,
}

impl Client {
    fn find() -> Result<Self> {
        let named = std::env::var_os("VMETAL_TERRAFORM").map(PathBuf::from);
        for program in named.into_iter().chain(["terraform", "tofu"].map(PathBuf::from)) {
            let Ok(output) = Command::new(&program).args(["version"]).output() else { continue };
            if output.status.success() {
                let said = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
                return Ok(Self { program, version: said });
            }
        }
        bail!("neither terraform nor tofu was found; install one, or name it in VMETAL_TERRAFORM")
    }

    /// A working directory with the hosts as data and the provider in a mirror.
    fn directory(&self, scratch: &Path, address: &str, provider: &Path, hosts: &[Value]) -> Result<Work> {
        let directory = tempfile::Builder::new().prefix("terraform-").tempdir_in(scratch)?;
        let dir = directory.path();
        let mirror = dir.join("mirror");
        let target = mirror.join(address).join("0.0.1/linux_amd64");
        std::fs::create_dir_all(&target)?;
        let name = address.rsplit('/').next().unwrap_or_default();
        let program =
            provider.canonicalize().with_context(|| format!("{} is missing: run `make build`", provider.display()))?;
        std::os::unix::fs::symlink(program, target.join(format!("terraform-provider-{name}_v0.0.1")))?;
        std::fs::create_dir_all(dir.join("tmp"))?;
        let rc = format!(
            "disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    path = {:?}\n  }}\n}}\n",
            text(&mirror)
        );
        std::fs::write(dir.join("terraform.rc"), rc)?;
        std::fs::write(dir.join("hosts.json"), serde_json::to_vec(hosts)?)?;
        Ok(Work { directory, program: self.program.clone(), env: Vec::new() })
    }
}

struct Work {
    directory: tempfile::TempDir,
    program: PathBuf,
    env: Vec<(String, String)>,
}

impl Work {
    /// Plans, applies and refreshes what the body declares.
    fn measure(&self, body: &str) -> Result<Steps> {
        let head = "locals {\n  hosts = jsondecode(file(\"hosts.json\"))\n}\n";
        std::fs::write(self.directory.path().join("main.tf"), format!("{head}{body}"))?;
        self.step(&["init", "-no-color"])?;
        let plan = self.step(&["plan", "-no-color"])?;
        let apply = self.step(&["apply", "-auto-approve", "-no-color"])?;
        let refresh = self.step(&["plan", "-refresh-only", "-no-color"])?;
        eprintln!("   plan {plan:.2} s, apply {apply:.2} s, refresh {refresh:.2} s");
        Ok(Steps { plan, apply, refresh })
    }

    fn step(&self, arguments: &[&str]) -> Result<f64> {
        let dir = self.directory.path();
        let begin = Instant::now();
        let output = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(arguments)
            .current_dir(dir)
            .env("TF_CLI_CONFIG_FILE", dir.join("terraform.rc"))
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("TMPDIR", dir.join("tmp"))
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .context("cannot run setpriv and terraform")?;
        let took = begin.elapsed().as_secs_f64();
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<_> = said.lines().collect();
            bail!("terraform {} failed:\n{}", arguments.join(" "), lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        Ok(took)
    }
}
