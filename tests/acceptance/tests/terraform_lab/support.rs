//! What the cases have in common: a lab as text, a configuration as text, and a look at the engine that does not go through
//! terraform.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use vmetal_acceptance::{Behaviour, Options, Place, Software, Stack, Terraform};

/// A stack in a directory that goes with it.
pub(crate) struct Lab {
    // Ends before its directory goes.
    pub(crate) stack: Stack,
    directory: Option<tempfile::TempDir>,
}

impl Drop for Lab {
    /// `VMETAL_KEEP=1` keeps the logs of a failed test.
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("VMETAL_KEEP").is_some() {
            let kept = self.directory.take().map(tempfile::TempDir::keep);
            eprintln!("kept: {kept:?}");
        }
    }
}

/// The password of a host's BMC: unlike anything else, so that it can be looked for.
pub(crate) fn password(host: &str) -> String {
    format!("bmc-secret-of-{host}-7f3a")
}

/// A lab of simulated hosts. Each BMC takes a free port on an address of its own.
pub(crate) fn lab(hosts: &[&str]) -> String {
    let net = std::process::id() % 250 + 1;
    let mut text = String::new();
    for (number, host) in hosts.iter().enumerate() {
        let last = number + 1;
        write!(
            text,
            "[[hosts]]\nname = \"{host}\"\nbackend = \"sim\"\ncpus = 4\nmemory_mib = 8192\ndisks = [{{ size_gib = 64, bus = \"nvme\" }}]\n\
             bmc = {{ listen = \"127.88.{net}.{last}:0\", password = \"{}\" }}\n\n",
            password(host)
        )
        .unwrap();
    }
    text
}

/// Starts a stack of simulated hosts.
pub(crate) fn start(hosts: &[&str], behaviours: BTreeMap<String, Behaviour>, engine: &str) -> Lab {
    let directory = tempfile::Builder::new().prefix("vm-").tempdir_in("/tmp").unwrap();
    let options = Options {
        directory: directory.path().to_owned(),
        lab: lab(hosts),
        api_port: None,
        cluster_port: None,
        cluster: true,
        software: Software::Simulated(behaviours),
        engine: engine.to_owned(),
    };
    let stack = Stack::start(options, &mut |_| {}).unwrap();
    Lab { stack, directory: Some(directory) }
}

/// A disk image in the place's directory.
pub(crate) fn image(place: &Place, name: &str) -> PathBuf {
    vmetal_acceptance::disk::image(&place.directory, name).unwrap()
}

const HEAD: &str = r#"
terraform {
  required_providers {
    vmetal = { source = "vmetal/vmetal" }
  }
}
provider "vmetal" {}
variable "passwords" {
  type      = map(string)
  ephemeral = true
}
variable "kubeconfig" {
  type = string
}
"#;

/// How a host is declared; what differs from the lab's truth is set after [`HostBlock::of`].
pub(crate) struct HostBlock {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) mac: String,
    pub(crate) fingerprint: Option<String>,
    pub(crate) password_version: String,
    pub(crate) more: String,
}

impl HostBlock {
    /// As the lab has it.
    pub(crate) fn of(place: &Place, name: &str) -> Self {
        let lab = place.lab_variables().unwrap();
        let server = &lab["servers"][name];
        let text = |key: &str| server[key].as_str().unwrap().to_owned();
        HostBlock {
            name: name.to_owned(),
            address: text("bmc_address"),
            mac: text("boot_mac"),
            fingerprint: Some(text("bmc_certificate_sha256")),
            password_version: "1".to_owned(),
            more: String::new(),
        }
    }

    /// As Terraform wants it.
    pub(crate) fn text(&self) -> String {
        let HostBlock { name, address, mac, fingerprint, password_version, more } = self;
        let pin = fingerprint.as_ref().map(|pin| format!("tls_fingerprint = \"{pin}\"")).unwrap_or_default();
        format!(
            r#"
resource "vmetal_host" "{name}" {{
  name     = "{name}"
  boot_mac = "{mac}"
  bmc = {{
    address             = "{address}"
    username            = "admin"
    password_wo         = var.passwords["{name}"]
    password_wo_version = "{password_version}"
    {pin}
  }}
  labels = {{ only = "{name}" }}
  {more}
}}
"#
        )
    }
}

/// Whether image and cluster are in the same configuration.
#[derive(Clone, Copy)]
pub(crate) enum Ground {
    Here,
    Elsewhere,
}

impl Ground {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Ground::Here => ("vmetal_image.tiny.name", "vmetal_tenant_cluster.tenant.name"),
            Ground::Elsewhere => ("\"tiny\"", "\"tenant\""),
        }
    }
}

/// A node type for one host.
pub(crate) fn node_type(host: &str, ground: Ground) -> String {
    let (image, _) = ground.names();
    format!(
        r#"
resource "vmetal_node_type" "{host}" {{
  name      = "{host}"
  selector  = {{ only = "{host}" }}
  resources = {{ cpu = "4", memory = "7Gi" }}
  image     = {image}
}}
"#
    )
}

/// A tenant node of one node type.
pub(crate) fn tenant_node(name: &str, node_type: &str, ground: Ground) -> String {
    let (_, cluster) = ground.names();
    format!(
        r##"
resource "vmetal_tenant_node" "{name}" {{
  name         = "{name}"
  cluster      = {cluster}
  node_type    = "{node_type}"
  labels       = {{ "vmetal.dev/pool" = "test" }}
  user_data_wo = "#cloud-config\ntimezone: UTC\n"
  depends_on   = [vmetal_host.{node_type}, vmetal_node_type.{node_type}]
}}
"##
    )
}

/// The image and the cluster that nodes need.
pub(crate) fn ground(place: &Place) -> String {
    let image = image(place, "tiny");
    format!(
        r#"
resource "vmetal_image" "tiny" {{
  name   = "tiny"
  source = {image:?}
}}
resource "vmetal_tenant_cluster" "tenant" {{
  name                  = "tenant"
  kubeconfig_wo         = file(var.kubeconfig)
  kubeconfig_wo_version = "1"
}}
"#
    )
}

/// A configuration with the lab's passwords.
pub(crate) fn terraform(place: &Place, name: &str, text: &str) -> Terraform {
    let mut passwords = place.lab_variables().unwrap()["bmc_passwords"].clone();
    for other in ["nobody", "twin"] {
        passwords[other] = password(other).into();
    }
    terraform_with(place, name, text, &passwords)
}

/// A configuration with these passwords.
pub(crate) fn terraform_with(place: &Place, name: &str, text: &str, passwords: &Value) -> Terraform {
    let variables = json!({ "passwords": passwords, "kubeconfig": place.kubeconfig() });
    Terraform::configuration(place, name, &format!("{HEAD}{text}"), &variables).unwrap()
}

/// Changes a configuration.
pub(crate) fn rewrite(terraform: &Terraform, text: &str) {
    std::fs::write(terraform.directory().join("main.tf"), format!("{HEAD}{text}")).unwrap();
}

/// What the command line prints.
pub(crate) fn vmetal(place: &Place, arguments: &[&str]) -> String {
    let output = Command::new(place.artifacts.program("vmetal"))
        .env("VMETAL_ENDPOINT", place.endpoint())
        .env("VMETAL_TOKEN_FILE", place.token_file())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "vmetal {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All objects of a kind.
pub(crate) fn objects(place: &Place, kind: &str) -> Vec<Value> {
    match serde_json::from_str(&vmetal(place, &["get", kind, "-o", "json"])).unwrap() {
        Value::Array(objects) => objects,
        Value::Object(list) => list["items"].as_array().unwrap_or_else(|| panic!("{list:?}")).clone(),
        other => panic!("{other}"),
    }
}

/// One object.
pub(crate) fn object(place: &Place, kind: &str, name: &str) -> Value {
    let found = objects(place, kind).into_iter().find(|object| object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// What terraform prints without its line breaks and frames, so that sentences can be looked for.
pub(crate) fn unwrapped(text: &str) -> String {
    text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Fails with the whole text when a part is missing. Of what terraform prints only errors and warnings count:
/// everything that was declared is in the plan before them.
pub(crate) fn must_say(text: &str, parts: &[&str]) {
    let told = ["\nError: ", "\nWarning: "].into_iter().filter_map(|mark| text.find(mark)).min();
    let flat = unwrapped(&text[told.unwrap_or(0)..]);
    for part in parts {
        assert!(flat.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// The journal of a host's BMC.
pub(crate) fn journal(place: &Place, host: &str) -> Vec<Value> {
    place.bmc_journal(host).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// No reset was refused, which is what the BMC does with On while on and ForceOff while off; returns how often the power
/// went on.
pub(crate) fn power_ons(place: &Place, host: &str) -> usize {
    let journal = journal(place, host);
    let resets: Vec<&Value> = journal
        .iter()
        .filter(|e| e["path"].as_str().is_some_and(|path| path.ends_with("ComputerSystem.Reset")))
        .collect();
    for reset in &resets {
        assert_eq!(reset["status"], 204, "an action that made no sense: {reset}; the whole journal: {journal:#?}");
    }
    resets.iter().filter(|reset| reset["body"]["ResetType"] == "On").count()
}
