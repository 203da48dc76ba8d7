//! A world, a working directory with the provider in it, and configurations to put there.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use tfplugin::testing::{Planned, Provider, Running, Terraform};
use vmetal_model::Kind;

use super::engine::{Engine, PASSWORD, TOKEN, World};

pub(crate) const ADDRESS: &str = "registry.terraform.io/vmetal/vmetal";
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) tf: Terraform,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let engine = Engine::start();
        let (tf, dir) = client(&engine);
        Self { engine, tf, dir }
    }

    pub(crate) fn config(&self, body: &str) {
        configure(&self.tf, body);
    }

    pub(crate) fn uid(&self, kind: Kind, name: &str) -> String {
        self.engine.world.get(kind, name).unwrap().metadata.uid.0
    }

    pub(crate) fn state(&self, address: &str) -> Json {
        self.tf.state(address).unwrap().unwrap()
    }

    /// Starts an apply and waits until the engine has the object.
    pub(crate) fn apply_until_made(&self, kind: Kind, name: &str) -> Running {
        let apply = self.tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
        self.until(|| self.engine.world.get(kind, name).is_some());
        apply
    }

    /// Applies a configuration of so many objects, and ends only when every create but the last has left its stamp behind. The
    /// provider removes stamps beside its answers and does not wait for that for long at its end, so the last object keeps the
    /// run going until then; whether its own stamp is gone is a matter of chance.
    pub(crate) fn apply_to_the_last(&self, objects: usize, last: &str) {
        self.carry_out_to_the_last(&[], objects, last);
    }

    /// The same for a plan that was saved.
    pub(crate) fn carry_out_to_the_last(&self, plan: &[&str], objects: usize, last: &str) {
        let world = &self.engine.world;
        world.hold(last);
        let mut apply = self.tf.spawn(&[&["apply", "-auto-approve", "-no-color"], plan].concat()).unwrap();
        self.until(|| world.count() == objects && stamped(world).iter().all(|name| name == last));
        world.release(last);
        let said = || std::fs::read_to_string(self.dir.path().join("output.log")).unwrap_or_default();
        assert!(apply.wait().unwrap().success(), "{}", said());
    }

    pub(crate) fn until(&self, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            let log = std::fs::read_to_string(self.dir.path().join("output.log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "it never happened; terraform said: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The names of objects that still carry the stamp of their create.
fn stamped(world: &World) -> Vec<String> {
    let stamped = world.objects().into_iter().filter(|object| !object.metadata.annotations.is_empty());
    stamped.map(|object| object.metadata.name).collect()
}

/// A working directory of its own with the provider in it, for this engine.
pub(crate) fn client(engine: &Engine) -> (Terraform, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_terraform-provider-vmetal"));
    let mut tf = Terraform::new(dir.path(), &Provider::mirror(ADDRESS, binary)).unwrap();
    tf.env("VMETAL_ENDPOINT", &engine.endpoint());
    tf.env("VMETAL_TOKEN", TOKEN);
    configure(&tf, "");
    tf.init().unwrap();
    (tf, dir)
}

/// Replaces a directory's configuration.
pub(crate) fn configure(tf: &Terraform, body: &str) {
    // With the registry's host: without one, Terraform and OpenTofu each mean their own.
    let head = format!("terraform {{\n  required_providers {{\n    vmetal = {{ source = \"{ADDRESS}\" }}\n  }}\n}}\n");
    tf.config(&format!("{head}{body}")).unwrap();
}

pub(crate) fn host(name: &str, extra: &str) -> String {
    host_with(name, PASSWORD, "1", "52:54:00:AA:00:01", extra)
}

pub(crate) fn host_with(name: &str, password: &str, version: &str, mac: &str, extra: &str) -> String {
    format!(
        r#"
resource "vmetal_host" "{name}" {{
  name = "{name}"
  bmc = {{
    address             = "redfish+http://127.0.0.1:8000/redfish/v1/Systems/{name}"
    username            = "root"
    password_wo         = "{password}"
    password_wo_version = {version}
  }}
  boot_mac = "{mac}"
  labels   = {{ class = "small" }}
  {extra}
}}
"#
    )
}

pub(crate) fn changes(address: &str, actions: &[&str]) -> Planned {
    Planned::Changes(vec![(address.to_owned(), actions.iter().map(|a| (*a).to_owned()).collect())])
}

pub(crate) fn signal(child: &Running, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

pub(crate) const REST: &str = r#"
resource "vmetal_image" "debian" {
  name   = "debian"
  source = "/srv/images/debian.qcow2"
}
resource "vmetal_node_type" "small" {
  name      = "small"
  selector  = { class = "small" }
  resources = { cpu = "4", memory = "8192Mi" }
  image     = vmetal_image.debian.name
}
resource "vmetal_tenant_cluster" "acme" {
  name                  = "acme"
  kubeconfig_wo         = "a secret kubeconfig"
  kubeconfig_wo_version = 1
  labels                = { tenant = "acme" }
  taints                = [{ key = "tenant", effect = "NoSchedule" }]
}
resource "vmetal_tenant_node" "one" {
  name         = "one"
  cluster      = vmetal_tenant_cluster.acme.name
  requirements = [{ key = "class", operator = "Exists" }]
  resources    = { cpu = "2", memory = "2Gi" }
  user_data_wo = "a secret script"
  drain        = { timeout = "5m" }
  depends_on   = [vmetal_node_type.small]
}
"#;

/// The processes that `parent` started.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|ppid| ppid.trim() == parent.to_string()))
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(is_child).collect()
}
